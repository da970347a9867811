//! What HTTP/2 alone can do to a call: streams that are reset, connections that go away, and the
//! version that the operator chooses. The real programs, against servers on the loopback.

mod servers;
mod support;

use hyper::Version;
use servers::{
    DUNNO, UNREACHABLE,
    certificates::authority,
    expect,
    frames::{Frames, dunno},
    table,
    web::{Answer, Web},
};
use support::program::{ALL, Binary};

/// The line of TOML that chooses HTTP/2 over plain TCP.
const HTTP_2: &str = "http-version = \"2\"\n";

#[tokio::test]
async fn the_operator_chooses_the_version_of_http() {
    let (authority, _directory, ca) = authority();
    let both = ["h2", "http/1.1"].as_slice();
    for (chosen, offered, version) in [
        ("auto", both, Version::HTTP_2),
        ("1.1", both, Version::HTTP_11),
        ("2", both, Version::HTTP_2),
        ("1.1", &["http/1.1"], Version::HTTP_11),
        ("2", &["h2"], Version::HTTP_2),
    ] {
        let tls = authority.server().tls().offering(offered).config();
        let server = Web::secure(tls, |_| Answer::dunno());
        let keys = format!("{ca}http-version = \"{chosen}\"\n");
        let config = table(Binary::Socketmap, &server.url("https", "/ask"), &keys);
        expect(Binary::Socketmap, config, DUNNO).await;
        assert_eq!(server.only().version, version, "{chosen} of {offered:?}");
    }
    for (chosen, offered) in [("1.1", "h2"), ("2", "http/1.1")] {
        let tls = authority.server().tls().offering(&[offered]).config();
        let server = Web::secure(tls, |_| Answer::dunno());
        let keys = format!("{ca}http-version = \"{chosen}\"\n");
        let config = table(Binary::Socketmap, &server.url("https", "/ask"), &keys);
        expect(Binary::Socketmap, config, UNREACHABLE).await;
    }
    for binary in ALL {
        let server = Frames::new(|visit| dunno(visit.stream));
        expect(binary, table(binary, &server.url(), HTTP_2), DUNNO).await;
    }
}
