//! Certificates that the configuration pins.

use hyper::Version;

use crate::{
    servers::{
        certificates::{Authority, Identity, Validity},
        web::{Answer, Web},
    },
    support::{
        Directory,
        program::Binary,
        replies::{DUNNO, UNREACHABLE},
        tables::{expect, table},
    },
};

#[tokio::test]
async fn a_certificate_is_pinned_by_itself() {
    const HERE: &str = "127.0.0.1";
    let of_itself = Identity::self_signed(HERE, Validity::Now);
    let leaf = Identity::self_signed_leaf(HERE, Validity::Now);
    let unmarked = Identity::self_signed_unmarked(HERE);
    let unknown = Authority::new();
    let signed = unknown.server();
    let over = Identity::self_signed(HERE, Validity::Over);
    let not_yet = Identity::self_signed(HERE, Validity::NotYet);
    let leaf_over = Identity::self_signed_leaf(HERE, Validity::Over);
    let signed_over = unknown.server_named(HERE, Validity::Over);
    let misnamed = Identity::self_signed("other.example", Validity::Now);
    let signed_misnamed = unknown.server_named("127.0.0.2", Validity::Now);
    for (row, pinned, shown, expected_reply) in [
        ("of itself", &of_itself, &of_itself, DUNNO),
        ("a leaf of itself", &leaf, &leaf, DUNNO),
        ("signed by somebody", &signed, &signed, DUNNO),
        (
            "signed by the pinned one",
            &of_itself,
            &of_itself.signs(HERE),
            DUNNO,
        ),
        ("without basicConstraints", &unmarked, &unmarked, DUNNO),
        (
            "signed by the pinned one, which has no basicConstraints",
            &unmarked,
            &unmarked.signs(HERE),
            UNREACHABLE,
        ),
        (
            "signed by the pinned leaf",
            &leaf,
            &leaf.signs(HERE),
            UNREACHABLE,
        ),
        (
            "signed by the pinned leaf that is over",
            &leaf_over,
            &leaf_over.signs(HERE),
            UNREACHABLE,
        ),
        (
            "its name, another key",
            &of_itself,
            &Identity::self_signed(HERE, Validity::Now),
            UNREACHABLE,
        ),
        (
            "a leaf, another key",
            &leaf,
            &Identity::self_signed_leaf(HERE, Validity::Now),
            UNREACHABLE,
        ),
        (
            "its issuer, another key",
            &signed,
            &unknown.server(),
            UNREACHABLE,
        ),
        (
            "shown by a thief",
            &of_itself,
            &of_itself.stolen(),
            UNREACHABLE,
        ),
        (
            "a leaf shown by a thief",
            &leaf,
            &leaf.stolen(),
            UNREACHABLE,
        ),
        ("over", &over, &over, UNREACHABLE),
        ("not yet valid", &not_yet, &not_yet, UNREACHABLE),
        ("a leaf that is over", &leaf_over, &leaf_over, UNREACHABLE),
        ("signed and over", &signed_over, &signed_over, UNREACHABLE),
        ("for another name", &misnamed, &misnamed, UNREACHABLE),
        (
            "signed for another address",
            &signed_misnamed,
            &signed_misnamed,
            UNREACHABLE,
        ),
    ] {
        println!("{row}");
        let directory = Directory::new();
        let file = directory.write("ca.pem", &pinned.pem());
        let keys = format!("tls.ca = \"{}\"", file.display());
        for tls in [shown.tls().old(), shown.tls().new_only()] {
            let server = Web::secure(tls.config(), |_| Answer::dunno());
            let config = table(Binary::Socketmap, &server.url("https", "/"), &keys);
            expect(Binary::Socketmap, config, expected_reply).await;
            let asked = usize::from(expected_reply.policy == DUNNO.policy);
            assert_eq!(server.count(), asked, "{row}");
        }
    }
}

#[tokio::test]
async fn one_of_many_certificates_in_a_file_may_be_the_pinned_one() {
    let identity = Identity::self_signed("localhost", Validity::Now);
    let directory = Directory::new();
    let text = format!("{}{}", Authority::new().pem(), identity.pem());
    let file = directory.write("ca.pem", &text);
    let keys = format!("tls.ca = \"{}\"", file.display());
    let binary = Binary::Socketmap;
    let tls = identity.tls().offering(&["h2", "http/1.1"]).config();
    let server = Web::secure(tls, |_| Answer::dunno());
    let target = format!("https://localhost:{}/", server.address().port());
    expect(binary, table(binary, &target, &keys), DUNNO).await;
    assert_eq!(server.only().version, Version::HTTP_2);
}

#[tokio::test]
async fn a_self_signed_certificate_that_is_not_pinned_says_what_would_pin_it() {
    let identity = Identity::self_signed("127.0.0.1", Validity::Now);
    let server = Web::secure(identity.tls().config(), |_| Answer::dunno());
    let config = table(Binary::Socketmap, &server.url("https", "/"), "");
    let end = expect(Binary::Socketmap, config, UNREACHABLE).await;
    end.says("self-signed, or an authority's own; to trust exactly this one, name it as tls.ca");
}

#[tokio::test]
async fn a_pinned_certificate_that_is_no_authority_is_named_where_the_issuer_is_unknown() {
    let pinned = Identity::self_signed_leaf("127.0.0.1", Validity::Now);
    let directory = Directory::new();
    let file = directory.write("ca.pem", &pinned.pem());
    let keys = format!("tls.ca = \"{}\"", file.display());
    let signed = pinned.signs("127.0.0.1");
    let server = Web::secure(signed.tls().config(), |_| Answer::dunno());
    let config = table(Binary::Socketmap, &server.url("https", "/"), &keys);
    let end = expect(Binary::Socketmap, config, UNREACHABLE).await;
    end.says("unknown issuer; a certificate of tls.ca without CA:TRUE is trusted only for itself");
}
