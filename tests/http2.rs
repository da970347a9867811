//! What HTTP/2 alone can do to a call: streams that are reset, connections that go away, and the
//! version that the operator chooses. The real programs, against servers on the loopback.

mod servers;
mod support;

use hyper::Version;
use servers::{
    DUNNO, NOT_UNDERSTOOD, UNREACHABLE,
    certificates::authority,
    expect,
    frames::{Act, CANCEL, Frames, INTERNAL_ERROR, NO_ERROR, Visit, dunno},
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

fn fields(fields: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let owned = fields
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    owned.collect()
}

#[tokio::test]
async fn a_body_whose_stream_is_reset_is_no_answer() {
    const JSON: (&str, &str) = ("content-type", "application/json");
    const TEXT: (&str, &str) = ("content-type", "text/plain");
    let length = ("content-length", "5");
    for (row, head, pieces) in [
        ("nothing", &[TEXT][..], &[][..]),
        ("nothing of its length", &[TEXT, length], &[]),
        ("a text", &[TEXT], &["DUN"]),
        ("a text below its length", &[TEXT, length], &["DUN"]),
        ("a number", &[JSON], &["12"]),
        ("JSON that could be whole", &[JSON], &["\"DUNNO\""]),
    ] {
        for code in [NO_ERROR, CANCEL, INTERNAL_ERROR] {
            for binary in ALL {
                let (head, pieces) = (fields(head), pieces.to_vec());
                let server = Frames::new(move |Visit { stream, .. }| {
                    let mut acts = vec![Act::Head(stream, head.clone())];
                    acts.extend(pieces.iter().map(|text| Act::Data(stream, text, false)));
                    acts.push(Act::Reset(stream, code));
                    acts
                });
                let keys = format!("{HTTP_2}response = \"auto\"\n");
                println!("{row}, {code}, {binary:?}");
                expect(binary, table(binary, &server.url(), &keys), NOT_UNDERSTOOD).await;
            }
        }
    }
}

/// A server may answer before it has read the request, and reset what is left of it (RFC 9113,
/// section 8.1).
#[tokio::test]
async fn a_body_that_came_to_its_end_is_an_answer_whatever_follows() {
    for binary in ALL {
        let server = Frames::new(|Visit { stream, .. }| {
            let mut acts = dunno(stream);
            acts.push(Act::Reset(stream, NO_ERROR));
            acts
        });
        expect(binary, table(binary, &server.url(), HTTP_2), DUNNO).await;
    }
}
