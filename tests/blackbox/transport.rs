//! How the programs reach a backend and what they carry there: several targets, TLS, proxies,
//! redirects, compression, unix sockets, retries and deadlines, credentials, headers, bodies and
//! normalised keys. The real programs, against servers of the tests' own on the loopback.

use std::{collections::HashSet, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hyper::Version;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{net::UnixListener, sync::Semaphore};

use crate::{
    servers::{
        certificates::{Authority, Identity, Validity, authority, write},
        gunzip, gzip,
        hole::Hole,
        tunnel::Tunnel,
        web::{Answer, Web},
    },
    support::{
        Directory, Wrong,
        backend::{Act, Backend, Request, Script, dunno, json as answer, raw, response, status},
        peer::{framed, netstring, question},
        program::{ALL, Binary, Launch, Reserved},
        said::{BROKEN, DUNNO, LATER, NOT_FOUND, NOT_UNDERSTOOD, TIMED_OUT, TOO_LONG, UNREACHABLE},
        same, soon,
        tables::{ask, expect, expect_of, refused, serve, table},
    },
};

const LOOKUPS: [Binary; 2] = [Binary::TcpLookup, Binary::Socketmap];

/// The line of TOML that names these targets.
fn targets(urls: &[String]) -> String {
    let urls: Vec<_> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    format!("target = [{}]\n", urls.join(", "))
}

/// A table `t` with these targets and keys.
fn listed(binary: Binary, urls: &[String], keys: &str) -> String {
    format!("[{}.t]\n{}{keys}\n", binary.name(), targets(urls))
}

#[tokio::test]
async fn the_next_target_is_asked_when_one_is_unreachable() {
    for binary in ALL {
        let gone = [Reserved::new(), Reserved::new()];
        let backend = Backend::always(dunno());
        let urls = [
            format!("http://{}/first", gone[0].address()),
            format!("http://{}/second", gone[1].address()),
            backend.url("/third"),
        ];
        expect(binary, listed(binary, &urls, ""), DUNNO).await;
        let path = backend.only().target;
        assert_eq!(path.split('?').next(), Some("/third"));
    }
}

#[tokio::test]
async fn lookups_ask_the_next_target_when_one_answers_5xx() {
    for binary in LOOKUPS {
        for number in [500, 501, 502, 503, 504, 507, 599] {
            let first = Backend::always(status(number));
            let second = Backend::always(dunno());
            let urls = [first.url("/a"), second.url("/b")];
            expect(binary, listed(binary, &urls, ""), DUNNO).await;
            assert_eq!((first.count(), second.count()), (1, 1), "{number}");
        }
    }
}

#[tokio::test]
async fn lookups_take_every_other_answer_of_the_first_target() {
    let binary = Binary::Socketmap;
    for (script, said) in [
        (dunno(), "OK DUNNO"),
        (answer("null"), "NOTFOUND "),
        (status(204), "NOTFOUND "),
        (status(404), "NOTFOUND "),
        (status(401), "TEMP backend answered 401"),
        (status(403), "TEMP backend answered 403"),
        (status(408), "TEMP backend answered 408"),
        (status(429), "TEMP backend answered 429"),
        (status(201), "TEMP backend answered 201"),
        (status(400), "PERM backend answered 400"),
        (status(302), "PERM backend answered 302"),
        (answer("{"), "TEMP backend answer not understood"),
    ] {
        let first = Backend::always(script);
        let second = Backend::always(answer("\"second\""));
        let urls = [first.url("/"), second.url("/")];
        let program = serve(binary, listed(binary, &urls, "")).await;
        let reply = ask(&program, binary, "key").await;
        same(said, &reply, &netstring(said));
        assert_eq!((first.count(), second.count()), (1, 0), "{said}");
    }
}

#[tokio::test]
async fn the_last_target_has_the_last_word() {
    let binary = Binary::Socketmap;
    let first = Backend::always(status(500));
    let last = Backend::always(status(503));
    let urls = [first.url("/"), last.url("/")];
    let program = serve(binary, listed(binary, &urls, "")).await;
    let reply = ask(&program, binary, "key").await;
    same("5xx", &reply, &netstring("TEMP backend answered 503"));
    assert_eq!((first.count(), last.count()), (1, 1));

    for binary in ALL {
        let gone = [Reserved::new(), Reserved::new()];
        let urls = gone
            .each_ref()
            .map(|gone| format!("http://{}/", gone.address()));
        expect(binary, listed(binary, &urls, ""), UNREACHABLE).await;
    }
}

#[tokio::test]
async fn policy_asks_the_next_target_only_when_nothing_was_sent() {
    let binary = Binary::Policy;
    for script in [
        status(500),
        status(502),
        status(503),
        status(504),
        vec![Act::Close],
        vec![Act::Reset],
    ] {
        let first = Backend::always(script);
        let second = Backend::always(dunno());
        let urls = [first.url("/"), second.url("/")];
        let program = serve(binary, listed(binary, &urls, "")).await;
        let reply = ask(&program, binary, "key").await;
        same("deferred", &reply, &framed(binary, LATER));
        assert_eq!((first.count(), second.count()), (1, 0));
    }
}

#[tokio::test]
async fn lookups_ask_the_next_target_when_a_connection_broke() {
    for binary in LOOKUPS {
        let first = Backend::always(vec![Act::Close]);
        let second = Backend::always(dunno());
        let urls = [first.url("/"), second.url("/")];
        expect(binary, listed(binary, &urls, "retries = 0"), DUNNO).await;
        assert_eq!((first.count(), second.count()), (1, 1), "{binary:?}");
    }
}

#[tokio::test]
async fn every_target_has_its_own_path_and_placeholders() {
    let binary = Binary::Socketmap;
    let first = Backend::always(status(503));
    let second = Backend::always(dunno());
    let urls = [
        first.url("/one/{key}"),
        second.url("/two?of={name}&k={key}"),
    ];
    expect(binary, listed(binary, &urls, ""), DUNNO).await;
    assert_eq!(first.only().target, "/one/key");
    assert_eq!(second.only().target, "/two?of=t&k=key");
}

#[tokio::test]
async fn an_answer_that_was_no_use_once_costs_the_first_target_nothing() {
    for binary in LOOKUPS {
        let first = Backend::in_turn([status(500), dunno()]);
        let second = Backend::always(dunno());
        let urls = [first.url("/"), second.url("/")];
        let program = serve(binary, listed(binary, &urls, "")).await;
        let mut peer = program.peer().await;
        for _ in 0..2 {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same("found", &reply, &DUNNO.by(binary));
        }
        assert_eq!((first.count(), second.count()), (2, 1), "{binary:?}");
    }
}

#[tokio::test]
async fn all_targets_share_one_deadline() {
    for binary in ALL {
        let silent = Backend::always(vec![Act::Hang]);
        let good = Backend::always(dunno());
        let urls = [silent.url("/"), good.url("/")];
        let keys = "request-timeout = \"300ms\"";
        expect(binary, listed(binary, &urls, keys), TIMED_OUT).await;
        assert_eq!((silent.count(), good.count()), (1, 0), "{binary:?}");
    }
}

#[tokio::test]
async fn a_target_that_nobody_can_connect_to_in_time_gives_way_to_the_next() {
    let hole = Hole::new().await;
    for binary in ALL {
        let good = Backend::always(dunno());
        let urls = [hole.url("http", "/"), good.url("/")];
        let keys = "connect-timeout = \"200ms\"\nrequest-timeout = \"90s\"";
        expect(binary, listed(binary, &urls, keys), DUNNO).await;
        assert_eq!(good.count(), 1, "{binary:?}");
    }
}

#[tokio::test]
async fn a_target_with_a_bad_certificate_gives_way_to_the_next() {
    let (authority, _directory, ca) = authority();
    for binary in ALL {
        let identity = authority.server_named("127.0.0.1", Validity::Over);
        let bad = Web::secure(identity.tls().config(), |_| Answer::dunno());
        let good = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
        let urls = [bad.url("https", "/"), good.url("https", "/")];
        expect(binary, listed(binary, &urls, &ca), DUNNO).await;
        assert_eq!((bad.count(), good.count()), (0, 1), "{binary:?}");
    }
}

#[tokio::test]
async fn the_authority_of_the_configuration_is_trusted() {
    let (authority, _directory, ca) = authority();
    for binary in ALL {
        let server = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
        let config = table(binary, &server.url("https", "/ask"), &ca);
        let end = expect(binary, config, DUNNO).await;
        assert!(!end.stderr.contains("warn"), "{end:#?}");
        let path = server.only().target;
        assert_eq!(path.split('?').next(), Some("/ask"));
    }
}

#[tokio::test]
async fn the_systems_authorities_are_trusted_where_none_is_configured() {
    let (authority, directory, _) = authority();
    for binary in ALL {
        let server = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
        let config = table(binary, &server.url("https", "/"), "");
        let launch = Launch::new(binary)
            .config(config)
            .environment("SSL_CERT_FILE", directory.join("ca.pem"));
        expect_of(launch, binary, DUNNO).await;
        assert_eq!(server.count(), 1, "{binary:?}");
    }
}

#[tokio::test]
async fn a_configured_authority_stands_in_place_of_the_systems() {
    let (system, directory, _) = authority();
    let (_other, _its_directory, ca) = authority();
    for binary in ALL {
        let server = Web::secure(system.server().tls().config(), |_| Answer::dunno());
        let launch = Launch::new(binary)
            .config(table(binary, &server.url("https", "/"), &ca))
            .environment("SSL_CERT_FILE", directory.join("ca.pem"));
        expect_of(launch, binary, UNREACHABLE).await;
        assert_eq!(server.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn a_file_may_hold_several_authorities() {
    let (one, two, unknown) = (Authority::new(), Authority::new(), Authority::new());
    let directory = Directory::new();
    let text = format!("The first:\n{}\nThe second:\n{}", one.pem(), two.pem());
    let file = directory.write("ca.pem", &text);
    let keys = format!("tls.ca = \"{}\"", file.display());
    for (authority, said) in [(&one, DUNNO), (&two, DUNNO), (&unknown, UNREACHABLE)] {
        let server = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
        let config = table(Binary::Socketmap, &server.url("https", "/"), &keys);
        expect(Binary::Socketmap, config, said).await;
    }
}

#[tokio::test]
async fn targets_of_either_scheme_stand_in_one_list() {
    let (authority, _directory, ca) = authority();
    for binary in ALL {
        let gone = Reserved::new();
        let plain = Backend::always(dunno());
        let secure = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
        let urls = [
            format!("https://{}/", gone.address()),
            secure.url("https", "/"),
            plain.url("/"),
        ];
        expect(binary, listed(binary, &urls, &ca), DUNNO).await;
        assert_eq!((secure.count(), plain.count()), (1, 0), "{binary:?}");
        let urls = [urls[0].clone(), urls[2].clone()];
        expect(binary, listed(binary, &urls, &ca), DUNNO).await;
        assert_eq!((secure.count(), plain.count()), (1, 1), "{binary:?}");
    }
}

#[tokio::test]
async fn an_unknown_authority_is_unreachable() {
    let (_other, _directory, ca) = authority();
    let unknown = Authority::new();
    for binary in ALL {
        for keys in ["", ca.as_str()] {
            let server = Web::secure(unknown.server().tls().config(), |_| Answer::dunno());
            let config = table(binary, &server.url("https", "/"), keys);
            expect(binary, config, UNREACHABLE).await;
            server.refusals(1).await;
            assert_eq!(server.count(), 0, "{binary:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_is_unreachable() {
    let (authority, _directory, ca) = authority();
    for identity in [
        authority.server_named("127.0.0.1", Validity::Over),
        authority.server_named("127.0.0.1", Validity::NotYet),
        authority.server_named("127.0.0.2", Validity::Now),
        authority.server_named("other.example", Validity::Now),
        authority.client(),
    ] {
        for binary in ALL {
            let server = Web::secure(identity.tls().config(), |_| Answer::dunno());
            let config = table(binary, &server.url("https", "/"), &ca);
            expect(binary, config, UNREACHABLE).await;
            server.refusals(1).await;
            assert_eq!(server.count(), 0, "{binary:?}");
        }
    }
}

#[tokio::test]
async fn a_name_is_checked_as_well_as_an_address() {
    let (authority, _directory, ca) = authority();
    let binary = Binary::Socketmap;
    for (name, said) in [("localhost", DUNNO), ("other.example", UNREACHABLE)] {
        let identity = authority.server_named(name, Validity::Now);
        let server = Web::secure(identity.tls().config(), |_| Answer::dunno());
        let target = format!("https://localhost:{}/", server.address().port());
        expect(binary, table(binary, &target, &ca), said).await;
    }
}

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
    for (row, pinned, shown, said) in [
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
            expect(Binary::Socketmap, config, said).await;
            let asked = usize::from(said.policy == DUNNO.policy);
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
    for binary in ALL {
        let tls = identity.tls().offering(&["h2", "http/1.1"]).config();
        let server = Web::secure(tls, |_| Answer::dunno());
        let target = format!("https://localhost:{}/", server.address().port());
        expect(binary, table(binary, &target, &keys), DUNNO).await;
        assert_eq!(server.only().version, Version::HTTP_2);
    }
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

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_demands_one() {
    let (authority, directory, ca) = authority();
    let client = authority.client();
    let (certificate, key) = client.files(directory.path(), "client");
    let keys = format!(
        "{ca}tls.client-cert = \"{}\"\ntls.client-key = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    for binary in ALL {
        let identity = authority.server();
        for tls in [identity.tls(), identity.tls().old()] {
            let tls = tls.demanding(&authority).config();
            let server = Web::secure(tls, |_| Answer::dunno());
            expect(
                binary,
                table(binary, &server.url("https", "/"), &keys),
                DUNNO,
            )
            .await;
            assert_eq!(server.only().client.as_ref(), Some(client.der()));
        }
    }
}

#[tokio::test]
async fn the_key_of_a_client_certificate_may_be_a_credential() {
    let (authority, directory, ca) = authority();
    let client = authority.client();
    let (certificate, _) = client.files(directory.path(), "client");
    let credentials = Directory::new();
    credentials.write("the-key", &client.key_pem());
    let keys = format!(
        "{ca}tls.client-cert = \"{}\"\ntls.client-key = {{ credential = \"the-key\" }}\n",
        certificate.display()
    );
    for binary in ALL {
        let tls = authority.server().tls().demanding(&authority).config();
        let server = Web::secure(tls, |_| Answer::dunno());
        let launch = Launch::new(binary)
            .config(table(binary, &server.url("https", "/"), &keys))
            .environment("CREDENTIALS_DIRECTORY", credentials.path());
        expect_of(launch, binary, DUNNO).await;
        assert_eq!(server.only().client.as_ref(), Some(client.der()));
    }
}

#[tokio::test]
async fn a_missing_credential_for_a_client_key_is_a_warning_for_check_and_an_error_at_the_start() {
    let (authority, directory, ca) = authority();
    let (certificate, _) = authority.client().files(directory.path(), "client");
    let credentials = Directory::new();
    let keys = format!(
        "{ca}tls.client-cert = \"{}\"\ntls.client-key = {{ credential = \"the-key\" }}\n",
        certificate.display()
    );
    let launch = || {
        Launch::new(Binary::Socketmap)
            .config(table(Binary::Socketmap, "https://127.0.0.1/", &keys))
            .environment("CREDENTIALS_DIRECTORY", credentials.path())
    };
    let end = launch().argument("--check").end().await;
    end.status(0).says("the-key");
    assert_eq!(end.stdout, "ok\n");
    let end = launch().unix("t").end().await;
    end.status(78).says("the-key");
}

#[tokio::test]
async fn without_the_client_certificate_it_demands_a_server_is_unreachable() {
    let (authority, directory, ca) = authority();
    let strange = Authority::new().client();
    let (certificate, key) = strange.files(directory.path(), "strange");
    let foreign = format!(
        "{ca}tls.client-cert = \"{}\"\ntls.client-key = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    let identity = authority.server();
    for binary in ALL {
        for keys in [&ca, &foreign] {
            for tls in [identity.tls(), identity.tls().old()] {
                let server = Web::secure(tls.demanding(&authority).config(), |_| Answer::dunno());
                let config = table(binary, &server.url("https", "/"), keys);
                expect(binary, config, UNREACHABLE).await;
                server.refusals(1).await;
                assert_eq!(server.count(), 0, "{binary:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_lowest_version_of_tls_is_what_the_operator_says() {
    let (authority, _directory, ca) = authority();
    let identity = authority.server();
    for (is_old, version, said) in [
        (true, None, DUNNO),
        (true, Some("1.2"), DUNNO),
        (true, Some("1.3"), UNREACHABLE),
        (false, None, DUNNO),
        (false, Some("1.2"), DUNNO),
        (false, Some("1.3"), DUNNO),
    ] {
        for binary in ALL {
            let tls = if is_old {
                identity.tls().old()
            } else {
                identity.tls().new_only()
            };
            let server = Web::secure(tls.config(), |_| Answer::dunno());
            let mut keys = ca.clone();
            if let Some(version) = version {
                keys += &format!("tls.min-version = \"{version}\"\n");
            }
            expect(
                binary,
                table(binary, &server.url("https", "/"), &keys),
                said,
            )
            .await;
            let calls = usize::from(said.policy == DUNNO.policy);
            assert_eq!(server.count(), calls, "{binary:?} {is_old} {version:?}");
        }
    }
}

#[tokio::test]
async fn without_verification_any_certificate_will_do_and_the_start_warns() {
    let unknown = Authority::new();
    for identity in [
        unknown.server(),
        unknown.server_named("127.0.0.1", Validity::Over),
        unknown.server_named("other.example", Validity::Now),
    ] {
        for binary in ALL {
            let tls = identity.tls().offering(&["h2", "http/1.1"]).config();
            let server = Web::secure(tls, |_| Answer::dunno());
            let target = server.url("https", "/");
            let config = table(binary, &target, "tls.verify = false");
            let end = expect(binary, config, DUNNO).await;
            let subject = format!("{}.t", binary.name());
            let warned = |line: &str| line.contains("warn") && line.contains(&subject);
            assert!(end.stderr.lines().any(warned), "{end:#?}");
            assert_eq!(server.only().version, Version::HTTP_2);
        }
    }
}

#[tokio::test]
async fn members_of_tls_are_inherited_one_by_one_and_taken_back_as_a_whole() {
    let (authority, directory, ca) = authority();
    let (certificate, key) = authority.client().files(directory.path(), "client");
    let tls = authority
        .server()
        .tls()
        .old()
        .demanding(&authority)
        .config();
    let server = Web::secure(tls, |_| Answer::dunno());
    let url = server.url("https", "/");
    let config = format!(
        "[http]\n{ca}tls.min-version = \"1.3\"\n\
         [socketmap.t]\ntarget = \"{url}\"\ntls.min-version = \"1.2\"\n\
         tls.client-cert = \"{}\"\ntls.client-key = \"{}\"\n\
         [socketmap.newer]\ntarget = \"{url}\"\n\
         [socketmap.alone]\ntarget = \"{url}\"\ntls = false\n",
        certificate.display(),
        key.display()
    );
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    for (map, said) in [
        ("t", "OK DUNNO"),
        ("newer", "TEMP backend unreachable"),
        ("alone", "TEMP backend unreachable"),
    ] {
        let reply = peer.ask(question(Binary::Socketmap, map, "key")).await;
        same(map, &reply, &netstring(said));
    }
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn http_2_is_spoken_where_the_server_offers_it() {
    let (authority, _directory, ca) = authority();
    let identity = authority.server();
    for (offered, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["h2"][..], Version::HTTP_2),
        (&["http/1.1"][..], Version::HTTP_11),
        (&[][..], Version::HTTP_11),
    ] {
        for binary in ALL {
            let tls = identity.tls().offering(offered).config();
            let server = Web::secure(tls, |_| Answer::dunno());
            let keys = format!("{ca}bearer-token = \"a-token\"\n");
            let config = table(binary, &server.url("https", "/ask"), &keys);
            expect(binary, config, DUNNO).await;
            let visit = server.only();
            assert_eq!(visit.version, version, "{binary:?} {offered:?}");
            let host = server.address().to_string();
            assert_eq!(visit.header("host"), Some(host.as_str()));
            assert_eq!(visit.header("authorization"), Some("Bearer a-token"));
            assert!(visit.header("x-request-id").is_some(), "{visit:?}");
            if binary == Binary::Policy {
                let form: &[u8] = b"request=smtpd_access_policy&protocol_state=RCPT&recipient=key";
                same("the form", &visit.body, form);
            }
        }
    }
}

#[tokio::test]
async fn a_connection_of_http_2_carries_many_calls_at_once() {
    const CALLS: usize = 10;
    let (authority, _directory, ca) = authority();
    let tls = authority.server().tls().offering(&["h2"]).config();
    let server = Web::secure(tls, |_| Answer::dunno());
    let binary = Binary::Socketmap;
    let program = serve(binary, table(binary, &server.url("https", "/"), &ca)).await;
    same(
        "alone",
        &ask(&program, binary, "key").await,
        &DUNNO.by(binary),
    );

    let gate = Arc::new(Semaphore::new(0));
    server.set(Answer::After(Arc::clone(&gate), Box::new(Answer::dunno())));
    let peers = program.asking(CALLS).await;
    let visits = server.asked(1 + CALLS).await;
    // Each of the two threads that serve has its own.
    let used: HashSet<_> = visits.iter().map(|visit| visit.connection).collect();
    assert!(used.len() <= 2, "{visits:?}");
    gate.add_permits(CALLS);
    for mut peer in peers {
        same("at once", &peer.reply().await, &DUNNO.by(binary));
    }
}

/// Many calls share a connection of HTTP/2, so that one that has died must not keep the next ones.
#[tokio::test]
async fn a_connection_of_http_2_that_has_fallen_silent_is_left() {
    let (authority, _directory, ca) = authority();
    let tls = authority.server().tls().offering(&["h2"]).config();
    let server = Web::secure(tls, |_| Answer::dunno());
    let binary = Binary::Socketmap;
    let keys = format!("{ca}request-timeout = \"1s\"\n");
    let program = serve(binary, table(binary, &server.url("https", "/"), &keys)).await;
    let mut peer = program.peer().await;
    let request = question(binary, "t", "key");
    same("alive", &peer.ask(&request).await, &DUNNO.by(binary));
    server.set(Answer::Freeze);
    same("dead", &peer.ask(&request).await, &TIMED_OUT.by(binary));
    server.set(Answer::dunno());
    let asking = async { while peer.ask(&request).await != DUNNO.by(binary) {} };
    soon("an answer over another connection", asking).await;
    let last = server.visits().pop().expect("a visit");
    assert_eq!(last.connection, 1);
}

#[tokio::test]
async fn http_2_connections_that_break_are_retried_as_those_of_http_1_are() {
    let (authority, _directory, ca) = authority();
    for binary in ALL {
        let tls = authority.server().tls().offering(&["h2"]).config();
        let server = Web::secure(tls, |_| Answer::Break);
        let keys = format!("{ca}retries = 2\n");
        let config = table(binary, &server.url("https", "/"), &keys);
        expect(binary, config, UNREACHABLE).await;
        let calls = if binary == Binary::Policy { 1 } else { 3 };
        assert_eq!(server.count(), calls, "{binary:?}");
    }
}

#[tokio::test]
async fn tls_to_a_server_without_it_is_unreachable() {
    for binary in ALL {
        let server = Web::plain(|_| Answer::dunno());
        let config = table(binary, &server.url("https", "/"), "");
        expect(binary, config, UNREACHABLE).await;
        assert_eq!(server.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn plain_http_to_a_server_with_tls_is_temporary() {
    let (authority, _directory, _) = authority();
    for binary in ALL {
        let server = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
        let config = table(binary, &server.url("http", "/"), "");
        // It answers with a TLS alert, which is not HTTP.
        expect(binary, config, NOT_UNDERSTOOD).await;
        server.refusals(1).await;
        assert_eq!(server.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn a_handshake_has_the_deadline_of_the_connection() {
    for binary in ALL {
        let silent = Backend::always(Script::new());
        let target = format!("https://{}/", silent.address());
        let keys = "connect-timeout = \"200ms\"\nrequest-timeout = \"90s\"";
        expect(binary, table(binary, &target, keys), TIMED_OUT).await;
    }
}

#[tokio::test]
async fn a_reload_reads_the_certificates_again() {
    let old = Authority::new();
    let new = Authority::new();
    let directory = Directory::new();
    let ca = old.file(directory.path(), "ca.pem");
    let keys = format!("tls.ca = \"{}\"", ca.display());
    let binary = Binary::Socketmap;
    let server = Web::secure(new.server().tls().config(), |_| Answer::dunno());
    let program = serve(binary, table(binary, &server.url("https", "/"), &keys)).await;
    let mut peer = program.peer().await;
    let request = question(binary, "t", "key");
    same("before", &peer.ask(&request).await, &UNREACHABLE.by(binary));

    new.file(directory.path(), "ca.pem");
    program.signal(Signal::HUP);
    program.told("READY=1", 2).await;
    same("after", &peer.ask(&request).await, &DUNNO.by(binary));
}

#[tokio::test]
async fn a_reload_reads_the_systems_authorities_again() {
    let (authority, other) = (Authority::new(), Authority::new());
    let directory = Directory::new();
    let bundle = other.file(directory.path(), "bundle.pem");
    let binary = Binary::Socketmap;
    let server = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
    let program = Launch::new(binary)
        .config(table(binary, &server.url("https", "/"), ""))
        .environment("SSL_CERT_FILE", &bundle)
        .unix("t")
        .ready()
        .await;
    let mut peer = program.peer().await;
    let request = question(binary, "t", "key");
    same("before", &peer.ask(&request).await, &UNREACHABLE.by(binary));
    for (reload, (now, said)) in [(&authority, DUNNO), (&other, UNREACHABLE)]
        .iter()
        .enumerate()
    {
        now.file(directory.path(), "bundle.pem");
        program.signal(Signal::HUP);
        program.told("READY=1", reload + 2).await;
        same("after", &peer.ask(&request).await, &said.by(binary));
    }
}

#[tokio::test]
async fn a_reload_without_other_authorities_keeps_what_is_kept() {
    let (authority, directory, _) = authority();
    let binary = Binary::Socketmap;
    let server = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
    let program = Launch::new(binary)
        .config(table(
            binary,
            &server.url("https", "/"),
            "cache = { ttl = \"1h\" }",
        ))
        .environment("SSL_CERT_FILE", directory.join("ca.pem"))
        .unix("t")
        .ready()
        .await;
    let mut peer = program.peer().await;
    let request = question(binary, "t", "key");
    same("before", &peer.ask(&request).await, &DUNNO.by(binary));
    program.signal(Signal::HUP);
    program.told("READY=1", 2).await;
    same("after", &peer.ask(&request).await, &DUNNO.by(binary));
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_machine_without_authorities_serves_what_needs_none() {
    let (authority, directory, ca) = authority();
    let binary = Binary::Socketmap;
    let server = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
    let plain = Backend::always(dunno());
    let nowhere = directory.join("nowhere.pem");
    let launch = |target: &str, keys: &str| {
        Launch::new(binary)
            .config(table(binary, target, keys))
            .environment("SSL_CERT_FILE", &nowhere)
    };
    let https = server.url("https", "/");
    for (target, keys) in [
        (plain.url("/"), ""),
        (plain.url("/"), "proxy = \"environment\""),
        (https.clone(), ca.as_str()),
        (https.clone(), "tls = { verify = false }"),
    ] {
        expect_of(launch(&target, keys), binary, DUNNO).await;
    }
    let end = launch(&https, "").unix("t").end().await;
    end.status(78);
    end.says("no authorities of the system");
    end.says("tls.ca");
}

#[tokio::test]
async fn files_of_certificates_that_are_not_good_are_named_at_once() {
    let (authority, directory, _) = authority();
    let path = directory.path();
    let (certificate, key) = authority.client().files(path, "client");
    let (_, another_key) = authority.client().files(path, "another");
    let garbage = write(path, "garbage.pem", "no certificate\n");
    let empty = write(path, "empty.pem", "");
    let missing = path.join("missing.pem");
    let [certificate, key, another_key, garbage, empty, missing] =
        [certificate, key, another_key, garbage, empty, missing].map(|p| p.display().to_string());
    let ca = |file: &str| format!("tls = {{ ca = \"{file}\" }}\n");
    let client = |cert: &str, key: &str| {
        format!("tls = {{ client-cert = \"{cert}\", client-key = \"{key}\" }}\n")
    };
    for (keys, subject) in [
        (ca(&missing), "socketmap.t.tls.ca"),
        (ca(&garbage), "socketmap.t.tls.ca"),
        (ca(&empty), "socketmap.t.tls.ca"),
        (client(&garbage, &key), "socketmap.t.tls.client-cert"),
        (client(&missing, &key), "socketmap.t.tls.client-cert"),
        (client(&certificate, &garbage), "socketmap.t.tls.client-"),
        (
            client(&certificate, &another_key),
            "socketmap.t.tls.client-",
        ),
    ] {
        let config = table(Binary::Socketmap, "https://127.0.0.1/", &keys);
        refused(config.clone(), &[subject]).await;
        let end = Launch::new(Binary::Socketmap)
            .config(config)
            .unix("t")
            .end()
            .await;
        end.status(78).says(subject);
    }
}

#[tokio::test]
async fn a_proxy_is_asked_in_absolute_form() {
    for binary in ALL {
        let proxy = Backend::always(dunno());
        let keys = format!(
            "proxy = \"{}\"\nbearer-token = \"a-token\"\n",
            proxy.url("")
        );
        // Nobody but the proxy could find this host.
        let target = "http://backend.invalid:8080/ask";
        expect(binary, table(binary, target, &keys), DUNNO).await;
        let request = proxy.only();
        let expected = match binary {
            Binary::TcpLookup => "http://backend.invalid:8080/ask?key=key",
            Binary::Socketmap => "http://backend.invalid:8080/ask?name=t&key=key",
            Binary::Policy => "http://backend.invalid:8080/ask",
        };
        assert_eq!(request.target, expected);
        assert_eq!(request.header("host"), Some("backend.invalid:8080"));
        assert_eq!(request.header("authorization"), Some("Bearer a-token"));
    }
}

#[tokio::test]
async fn the_environment_names_a_proxy_only_when_it_is_asked_to() {
    for (keys, is_asked) in [
        ("proxy = \"environment\"", true),
        ("proxy = false", false),
        ("", false),
    ] {
        for binary in ALL {
            for name in ["HTTP_PROXY", "http_proxy"] {
                let proxy = Backend::always(dunno());
                let backend = Backend::always(dunno());
                let launch = Launch::new(binary)
                    .config(table(binary, &backend.url("/"), keys))
                    .environment(name, proxy.url(""));
                expect_of(launch, binary, DUNNO).await;
                let calls = (proxy.count(), backend.count());
                let expected = if is_asked { (1, 0) } else { (0, 1) };
                assert_eq!(calls, expected, "{binary:?} {keys:?} {name}");
            }
        }
    }
}

#[tokio::test]
async fn the_environment_may_exempt_a_host_from_its_proxy() {
    let binary = Binary::Socketmap;
    let proxy = Backend::always(dunno());
    let backend = Backend::always(dunno());
    let launch = Launch::new(binary)
        .config(table(binary, &backend.url("/"), "proxy = \"environment\""))
        .environment("HTTP_PROXY", proxy.url(""))
        .environment("NO_PROXY", "127.0.0.1");
    expect_of(launch, binary, DUNNO).await;
    assert_eq!((proxy.count(), backend.count()), (0, 1));
}

#[tokio::test]
async fn a_proxy_of_the_configuration_is_used_whatever_the_environment_says() {
    let binary = Binary::Socketmap;
    let [proxy, other, backend] = [(); 3].map(|()| Backend::always(dunno()));
    let keys = format!("proxy = \"{}\"", proxy.url(""));
    let launch = Launch::new(binary)
        .config(table(binary, &backend.url("/"), &keys))
        .environment("HTTP_PROXY", other.url(""))
        .environment("NO_PROXY", "*");
    expect_of(launch, binary, DUNNO).await;
    let calls = (proxy.count(), other.count(), backend.count());
    assert_eq!(calls, (1, 0, 0));
}

#[tokio::test]
async fn without_a_proxy_in_it_the_environment_changes_nothing() {
    let backend = Backend::always(dunno());
    let config = table(
        Binary::Socketmap,
        &backend.url("/"),
        "proxy = \"environment\"",
    );
    expect(Binary::Socketmap, config, DUNNO).await;
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn an_inherited_proxy_is_taken_back() {
    let proxy = Backend::always(dunno());
    let backend = Backend::always(dunno());
    let config = format!(
        "[http]\nproxy = \"{}\"\n{}",
        proxy.url(""),
        table(Binary::Socketmap, &backend.url("/"), "proxy = false")
    );
    expect(Binary::Socketmap, config, DUNNO).await;
    assert_eq!((proxy.count(), backend.count()), (0, 1));
}

#[tokio::test]
async fn a_dead_proxy_is_unreachable() {
    for binary in ALL {
        let backend = Backend::always(dunno());
        let gone = Reserved::new();
        let keys = format!("proxy = \"http://{}\"", gone.address());
        for target in [backend.url("/"), "https://backend.invalid/".to_owned()] {
            expect(binary, table(binary, &target, &keys), UNREACHABLE).await;
        }
        assert_eq!(backend.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn what_a_proxy_answers_itself_is_an_answer() {
    for (number, said) in [
        (502, "TEMP backend answered 502"),
        (407, "TEMP backend answered 407"),
    ] {
        let proxy = Backend::always(status(number));
        let keys = format!("proxy = \"{}\"", proxy.url(""));
        let config = table(Binary::Socketmap, "http://backend.invalid/", &keys);
        let program = serve(Binary::Socketmap, config).await;
        let reply = ask(&program, Binary::Socketmap, "key").await;
        same("the proxy's", &reply, &netstring(said));
        assert_eq!(proxy.count(), 1);
    }
}

#[tokio::test]
async fn https_goes_through_a_proxy_by_connect_and_nothing_is_shown_to_it() {
    let (authority, _directory, ca) = authority();
    let identity = authority.server_named("backend.invalid", Validity::Now);
    for offered in [&["h2", "http/1.1"][..], &[]] {
        for binary in ALL {
            let tls = identity.tls().offering(offered).config();
            let server = Web::secure(tls, |_| Answer::dunno());
            let proxy = Tunnel::to(server.address());
            let keys = format!(
                "{ca}proxy = \"{}\"\nbearer-token = \"a-token\"\nheaders = {{ X-Own = \"own\" }}\n",
                proxy.url()
            );
            let config = table(binary, "https://backend.invalid:8443/ask", &keys);
            expect(binary, config, DUNNO).await;
            let visit = server.only();
            assert_eq!(visit.header("authorization"), Some("Bearer a-token"));
            let heads = proxy.heads();
            assert_eq!(heads.len(), 1, "{heads:?}");
            let first = "CONNECT backend.invalid:8443 HTTP/1.1\r\n";
            assert!(heads[0].starts_with(first), "{heads:?}");
            for hidden in ["a-token", "/ask", "own"] {
                assert!(!heads[0].contains(hidden), "{heads:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_is_checked_through_a_proxy_too() {
    let (authority, _directory, ca) = authority();
    let identity = authority.server_named("other.example", Validity::Now);
    for binary in ALL {
        let server = Web::secure(identity.tls().config(), |_| Answer::dunno());
        let proxy = Tunnel::to(server.address());
        let keys = format!("{ca}proxy = \"{}\"\n", proxy.url());
        let config = table(binary, "https://backend.invalid/", &keys);
        expect(binary, config, UNREACHABLE).await;
        server.refusals(1).await;
        assert_eq!(server.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn the_environment_names_a_proxy_for_https() {
    let (authority, _directory, ca) = authority();
    let identity = authority.server_named("backend.invalid", Validity::Now);
    let server = Web::secure(identity.tls().config(), |_| Answer::dunno());
    let proxy = Tunnel::to(server.address());
    let binary = Binary::Socketmap;
    let keys = format!("{ca}proxy = \"environment\"\n");
    let launch = Launch::new(binary)
        .config(table(binary, "https://backend.invalid/", &keys))
        .environment("HTTPS_PROXY", proxy.url());
    expect_of(launch, binary, DUNNO).await;
    assert_eq!((proxy.heads().len(), server.count()), (1, 1));
}

#[tokio::test]
async fn a_proxy_that_refuses_to_connect_makes_the_backend_unreachable() {
    for number in [403, 407, 502] {
        for binary in ALL {
            let proxy = Backend::always(status(number));
            let keys = format!("proxy = \"{}\"", proxy.url(""));
            let config = table(binary, "https://backend.invalid/", &keys);
            expect(binary, config, UNREACHABLE).await;
            let methods = proxy.requests().into_iter().map(|request| request.method);
            assert!(methods.into_iter().all(|method| method == "CONNECT"));
            assert!(proxy.count() > 0, "{binary:?}");
        }
    }
}

/// Answers `/ask` with a redirect and everything else well.
fn redirecting(status: u16, location: String) -> impl FnMut(&Request) -> Script + Send + 'static {
    move |request| match request.target.starts_with("/ask") {
        true => response(status, &[("Location", &location)], "\"REJECT\""),
        false => dunno(),
    }
}

fn redirected(status: u16) -> String {
    format!("PERM backend answered {status}")
}

const SECRETS: &str = "auth-token = \"a-token\"\nbasic-auth = { user = \"u\", password = \"p\" }\n\
                       headers = { X-Own = \"own\" }\n";

#[tokio::test]
async fn a_redirect_is_not_followed_unless_the_operator_says_so() {
    for keys in ["", "redirects = false"] {
        let backend = Backend::new(redirecting(302, "/there".to_owned()));
        let config = table(Binary::Socketmap, &backend.url("/ask"), keys);
        let program = serve(Binary::Socketmap, config).await;
        let reply = ask(&program, Binary::Socketmap, "key").await;
        same("default", &reply, &netstring("PERM backend answered 302"));
        assert_eq!(backend.count(), 1);
        let end = program.stop().await;
        let line = end
            .stderr
            .lines()
            .find(|line| line.contains("answered 302"));
        let line = line.expect("a warning");
        assert!(
            line.contains("t: backend answered 302: to http://127.0.0.1:"),
            "{line}"
        );
        assert!(
            line.contains(", another path, not followed: redirects = false"),
            "{line}"
        );

        let backend = Backend::new(redirecting(307, "/there".to_owned()));
        let config = table(Binary::Policy, &backend.url("/ask"), keys);
        let program = serve(Binary::Policy, config).await;
        let reply = ask(&program, Binary::Policy, "key").await;
        same("default", &reply, &framed(Binary::Policy, BROKEN));
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn lookups_follow_a_redirect_on_the_same_origin() {
    for binary in LOOKUPS {
        for number in [301, 302, 307, 308] {
            let reserved = Reserved::new();
            let address = reserved.address();
            let backend = Backend::at(reserved, redirecting(number, "/there?x=1".to_owned()));
            let keys = format!("{SECRETS}redirects = \"same-origin\"\n");
            let config = table(binary, &format!("http://{address}/ask"), &keys);
            expect(binary, config, DUNNO).await;
            let requests = backend.requests();
            assert_eq!(requests.len(), 2, "{requests:?}");
            assert_eq!(requests[1].method, "GET");
            assert_eq!(requests[1].target, "/there?x=1");
            // It is the same call at another place.
            for name in ["x-auth-token", "authorization", "x-own", "x-request-id"] {
                let sent = requests[0].header(name);
                assert!(sent.is_some(), "{name}");
                assert_eq!(requests[1].header(name), sent, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_location_may_be_written_in_every_way() {
    let binary = Binary::Socketmap;
    for (location, target) in [
        ("/there", "/there"),
        ("there", "/there"),
        ("./there", "/there"),
        ("//ADDRESS/there", "/there"),
        ("http://ADDRESS/there", "/there"),
        ("HTTP://ADDRESS/there", "/there"),
        ("http://ADDRESS", "/"),
        ("/there#part", "/there"),
    ] {
        let reserved = Reserved::new();
        let address = reserved.address();
        let place = location.replace("ADDRESS", &address.to_string());
        let backend = Backend::at(reserved, redirecting(302, place));
        let target_url = format!("http://{address}/ask");
        let config = table(binary, &target_url, "redirects = \"same-origin\"");
        expect(binary, config, DUNNO).await;
        let requests = backend.requests();
        assert_eq!(requests.len(), 2, "{location}: {requests:?}");
        assert_eq!(requests[1].target, target, "{location}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_origin_is_not_followed() {
    let elsewhere = Backend::always(dunno());
    for binary in ALL {
        for number in [301, 302, 303, 307, 308] {
            let reserved = Reserved::new();
            let address = reserved.address();
            let port = address.port();
            let backend = Backend::at(reserved, |_| Script::new());
            let keys = format!("{SECRETS}redirects = \"same-origin\"\n");
            let config = table(binary, &format!("http://{address}/ask"), &keys);
            let program = serve(binary, config).await;
            for location in [
                elsewhere.url("/there"),
                format!("//{}/there", elsewhere.address()),
                format!("http://localhost:{port}/there"),
                format!("http://127.0.0.2:{port}/there"),
                format!("http://127.0.0.1.evil.invalid:{port}/there"),
                format!("https://127.0.0.1:{port}/there"),
                "http://127.0.0.1/there".to_owned(),
                format!("ftp://127.0.0.1:{port}/there"),
                "file:///etc/passwd".to_owned(),
                "data:application/json,%22DUNNO%22".to_owned(),
            ] {
                let asked = backend.count();
                backend.set(response(number, &[("Location", &location)], "\"REJECT\""));
                let reply = ask(&program, binary, "key").await;
                let said = match binary {
                    Binary::TcpLookup => format!("400 backend%20answered%20{number}"),
                    Binary::Socketmap => redirected(number),
                    Binary::Policy => BROKEN.to_owned(),
                };
                same(&location, &reply, &framed(binary, said));
                assert_eq!(backend.count(), asked + 1, "{location}");
            }
        }
    }
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_not_followed() {
    let (authority, _directory, ca) = authority();
    let binary = Binary::Socketmap;
    for scheme in ["http", "https"] {
        let reserved = Reserved::new();
        let address = reserved.address();
        let elsewhere = Backend::at(reserved, |_| dunno());
        let location = format!("{scheme}://{address}/there");
        let server = Web::secure(authority.server().tls().config(), move |_| {
            Answer::redirect(302, &location)
        });
        let keys = format!("{ca}{SECRETS}redirects = \"same-origin\"\n");
        let config = table(binary, &server.url("https", "/ask"), &keys);
        let program = serve(binary, config).await;
        let reply = ask(&program, binary, "key").await;
        same(scheme, &reply, &netstring("PERM backend answered 302"));
        assert_eq!((server.count(), elsewhere.count()), (1, 0));
    }
}

#[tokio::test]
async fn a_redirect_over_https_on_the_same_origin_is_followed() {
    let (authority, _directory, ca) = authority();
    for offered in [&["h2"][..], &[]] {
        for binary in ALL {
            let tls = authority.server().tls().offering(offered).config();
            let server = Web::secure(tls, |visit| match visit.target.starts_with("/ask") {
                true => Answer::redirect(307, "/there"),
                false => Answer::dunno(),
            });
            let keys = format!("{ca}redirects = \"same-origin\"\n");
            let config = table(binary, &server.url("https", "/ask"), &keys);
            expect(binary, config, DUNNO).await;
            let visits = server.visits();
            assert_eq!(visits.len(), 2, "{visits:?}");
            assert_eq!(visits[1].target, "/there");
            assert_eq!(visits[1].method, visits[0].method);
            assert_eq!(visits[1].body, visits[0].body);
        }
    }
}

#[tokio::test]
async fn a_chain_of_redirects_ends_where_the_origin_does() {
    let elsewhere = Backend::always(dunno());
    let there = elsewhere.url("/there");
    let backend = Backend::new(move |request| {
        let next = match request.target.split('?').next() {
            Some("/ask") => "/second",
            Some("/second") => "/third",
            _ => there.as_str(),
        };
        response(302, &[("Location", next)], "")
    });
    let keys = format!("{SECRETS}redirects = \"same-origin\"\n");
    let config = table(Binary::Socketmap, &backend.url("/ask"), &keys);
    let program = serve(Binary::Socketmap, config).await;
    let reply = ask(&program, Binary::Socketmap, "key").await;
    same("the chain", &reply, &netstring("PERM backend answered 302"));
    assert_eq!((backend.count(), elsewhere.count()), (3, 0));
}

#[tokio::test]
async fn a_loop_of_redirects_ends() {
    for (binary, number) in [
        (Binary::TcpLookup, 301),
        (Binary::Socketmap, 302),
        (Binary::Policy, 307),
    ] {
        let backend = Backend::always(response(number, &[("Location", "/again")], ""));
        let keys = "redirects = \"same-origin\"\nrequest-timeout = \"90s\"";
        let program = serve(binary, table(binary, &backend.url("/ask"), keys)).await;
        let reply = ask(&program, binary, "key").await;
        let said = match binary {
            Binary::TcpLookup => "400 backend%20answered%20301",
            Binary::Socketmap => "PERM backend answered 302",
            Binary::Policy => BROKEN,
        };
        same("a loop", &reply, &framed(binary, said));
        assert!((2..=21).contains(&backend.count()), "{}", backend.count());
    }
}

#[tokio::test]
async fn a_redirect_that_leads_nowhere_is_permanent() {
    let binary = Binary::Socketmap;
    for headers in [
        &[][..],
        &[("Location", "")],
        &[("Location", "http://")],
        &[("Location", "http://[::1")],
        &[("Location", "/\u{e9}")],
    ] {
        let script = response(302, headers, "\"v\"");
        let backend = Backend::new(move |request| match request.target.starts_with("/ask") {
            true => script.clone(),
            false => dunno(),
        });
        let config = table(
            binary,
            &backend.url("/ask?k={key}"),
            "redirects = \"same-origin\"",
        );
        let program = serve(binary, config).await;
        let reply = ask(&program, binary, "key").await;
        let row = format!("{headers:?}");
        same(&row, &reply, &netstring("PERM backend answered 302"));
        // An empty location is the place itself, and so a loop.
        if headers != [("Location", "")] {
            assert_eq!(backend.count(), 1, "{row}");
        }
    }
}

#[tokio::test]
async fn a_location_brings_no_credentials_of_its_own() {
    let reserved = Reserved::new();
    let address = reserved.address();
    let location = format!("http://mallory:secret@{address}/there");
    let backend = Backend::at(reserved, redirecting(302, location));
    let keys = "bearer-token = \"a-token\"\nredirects = \"same-origin\"";
    let config = table(Binary::Socketmap, &format!("http://{address}/ask"), keys);
    let program = serve(Binary::Socketmap, config).await;
    let reply = ask(&program, Binary::Socketmap, "key").await;
    same("refused", &reply, &netstring("PERM backend answered 302"));
    let bearer = Some("Bearer a-token");
    assert_eq!(backend.only().header("authorization"), bearer);
}

#[tokio::test]
async fn a_call_with_a_body_is_redirected_by_307_and_308_only() {
    for binary in ALL {
        let body = match binary {
            Binary::Policy => "",
            _ => "method = \"POST\"\nform = { k = \"{key}\" }\n",
        };
        for number in [301, 302, 303, 307, 308] {
            let backend = Backend::new(redirecting(number, "/there".to_owned()));
            let keys = format!("{body}redirects = \"same-origin\"\n");
            let program = serve(binary, table(binary, &backend.url("/ask"), &keys)).await;
            let reply = ask(&program, binary, "key").await;
            let requests = backend.requests();
            let said = match binary {
                _ if number >= 307 => {
                    assert_eq!(requests.len(), 2, "{binary:?} {number}");
                    assert_eq!(requests[1].method, "POST");
                    assert_eq!(requests[1].target, "/there");
                    assert_eq!(requests[1].form(), requests[0].form());
                    same("the body", &requests[1].body, &requests[0].body);
                    same("followed", &reply, &DUNNO.by(binary));
                    continue;
                }
                Binary::TcpLookup => format!("400 backend%20answered%20{number}"),
                Binary::Socketmap => redirected(number),
                Binary::Policy => BROKEN.to_owned(),
            };
            same("not followed", &reply, &framed(binary, said));
            assert_eq!(requests.len(), 1, "{binary:?} {number}");
        }
    }
}

#[tokio::test]
async fn a_redirect_is_no_reason_to_ask_the_next_target() {
    let first = Backend::new(redirecting(302, "http://127.0.0.2:1/".to_owned()));
    let second = Backend::always(dunno());
    let urls = [first.url("/ask"), second.url("/")];
    let binary = Binary::Socketmap;
    let config = listed(binary, &urls, "redirects = \"same-origin\"");
    let program = serve(binary, config).await;
    let reply = ask(&program, binary, "key").await;
    same("refused", &reply, &netstring("PERM backend answered 302"));
    assert_eq!((first.count(), second.count()), (1, 0));
}

/// 200 with JSON that is said to be compressed in this way.
fn encoded(coding: &str, body: impl AsRef<[u8]>) -> Script {
    let headers = [
        ("Content-Type", "application/json"),
        ("Content-Encoding", coding),
    ];
    response(200, &headers, body)
}

#[tokio::test]
async fn no_compression_is_asked_for_by_default() {
    for binary in ALL {
        for keys in ["", "compression = false"] {
            let backend = Backend::always(dunno());
            expect(binary, table(binary, &backend.url("/"), keys), DUNNO).await;
            let request = backend.only();
            assert_eq!(request.header("accept-encoding"), None);
            assert_eq!(request.header("content-encoding"), None);
        }
    }
}

#[tokio::test]
async fn a_compressed_answer_is_read_where_it_was_asked_for() {
    for binary in ALL {
        for keys in ["compression = \"response\"", "compression = \"both\""] {
            for script in [encoded("gzip", gzip("\"DUNNO\"")), dunno()] {
                let backend = Backend::always(script);
                expect(binary, table(binary, &backend.url("/"), keys), DUNNO).await;
                assert_eq!(backend.only().header("accept-encoding"), Some("gzip"));
            }
        }
    }
}

#[tokio::test]
async fn a_compressed_answer_may_have_several_members() {
    let body = [gzip("\"DUN"), gzip("NO\"")].concat();
    for coding in ["gzip", "GZIP"] {
        let backend = Backend::always(encoded(coding, &body));
        let config = table(
            Binary::Socketmap,
            &backend.url("/"),
            "compression = \"response\"",
        );
        expect(Binary::Socketmap, config, DUNNO).await;
    }
}

#[tokio::test]
async fn a_compressed_answer_is_measured_as_it_comes_out() {
    for binary in LOOKUPS {
        for (length, fits) in [(1000, true), (1001, false)] {
            let value = "a".repeat(length - 2);
            let body = format!("\"{value}\"");
            for script in [encoded("gzip", gzip(&body)), answer(&body)] {
                let backend = Backend::always(script);
                let keys = "compression = \"response\"\nmax-response = 1000";
                let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
                let reply = ask(&program, binary, "key").await;
                let word = if binary == Binary::TcpLookup {
                    "200"
                } else {
                    "OK"
                };
                let expected = match fits {
                    true => framed(binary, format!("{word} {value}")),
                    false => TOO_LONG.by(binary),
                };
                same("the answer", &reply, &expected);
            }
        }
    }
}

#[tokio::test]
async fn a_little_that_becomes_very_much_is_too_long() {
    let bomb = gzip(format!("\"{}\"", "a".repeat(50_000_000)));
    assert!(bomb.len() < 64 * 1024, "{} bytes", bomb.len());
    for binary in ALL {
        let backend = Backend::always(encoded("gzip", &bomb));
        let keys = "compression = \"response\"\nmax-response = \"64KiB\"";
        let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
        let reply = ask(&program, binary, "key").await;
        same("a bomb", &reply, &TOO_LONG.by(binary));
        backend.set(dunno());
        let reply = ask(&program, binary, "key").await;
        same("after the bomb", &reply, &DUNNO.by(binary));
    }
}

#[tokio::test]
async fn what_is_not_well_compressed_is_not_understood() {
    let whole = gzip("\"DUNNO\"");
    let mut wrong_sum = whole.clone();
    let sum = whole.len() - 8;
    wrong_sum[sum] ^= 1;
    let mut wrong_length = whole.clone();
    let length = whole.len() - 4;
    wrong_length[length] ^= 1;
    for binary in ALL {
        for (row, script) in [
            ("not gzip", encoded("gzip", "\"DUNNO\"")),
            ("nothing", encoded("gzip", "")),
            ("a head", encoded("gzip", &whole[..10])),
            ("half of it", encoded("gzip", &whole[..whole.len() / 2])),
            ("no sum", encoded("gzip", &whole[..whole.len() - 8])),
            ("half a sum", encoded("gzip", &whole[..whole.len() - 2])),
            ("a wrong sum", encoded("gzip", &wrong_sum)),
            ("a wrong length", encoded("gzip", &wrong_length)),
            ("gzip twice", encoded("gzip, gzip", gzip(&whole))),
            (
                "another coding",
                encoded("br", b"\x0b\x03\x80\"DUNNO\"\x03"),
            ),
        ] {
            let backend = Backend::always(script);
            let keys = "compression = \"response\"";
            let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
            let reply = ask(&program, binary, "key").await;
            same(row, &reply, &NOT_UNDERSTOOD.by(binary));
        }
    }
}

#[tokio::test]
async fn request_bodies_are_compressed_only_when_both_are() {
    let form = b"request=smtpd_access_policy&protocol_state=RCPT&recipient=key";
    for (keys, is_compressed) in [
        ("", false),
        ("compression = \"response\"", false),
        ("compression = \"both\"", true),
    ] {
        let backend = Backend::always(dunno());
        let config = table(Binary::Policy, &backend.url("/"), keys);
        expect(Binary::Policy, config, DUNNO).await;
        let request = backend.only();
        let type_of_form = Some("application/x-www-form-urlencoded");
        assert_eq!(request.header("content-type"), type_of_form);
        let length = request.body.len().to_string();
        assert_eq!(request.header("content-length"), Some(length.as_str()));
        if is_compressed {
            assert_eq!(request.header("content-encoding"), Some("gzip"));
            same(keys, &gunzip(&request.body), form);
        } else {
            assert_eq!(request.header("content-encoding"), None);
            same(keys, &request.body, form);
        }
    }
}

#[tokio::test]
async fn a_compressed_body_of_json_is_sent_again_as_it_was() {
    let binary = Binary::Socketmap;
    let backend = Backend::in_turn([
        vec![Act::Close],
        response(307, &[("Location", "/there")], ""),
        dunno(),
    ]);
    let keys = "method = \"POST\"\njson = { k = \"{key}\" }\ncompression = \"both\"\n\
                redirects = \"same-origin\"";
    let config = table(binary, &backend.url("/ask"), keys);
    expect(binary, config, DUNNO).await;
    let requests = backend.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    for request in requests {
        assert_eq!(request.header("content-encoding"), Some("gzip"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&gunzip(&request.body)).expect("JSON");
        assert_eq!(body, json!({ "k": "key" }));
    }
}

#[tokio::test]
async fn a_call_without_a_body_says_nothing_of_its_compression() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let config = table(binary, &backend.url("/"), "compression = \"both\"");
        expect(binary, config, DUNNO).await;
        let request = backend.only();
        assert_eq!(request.header("content-encoding"), None);
        assert_eq!(request.body, b"");
    }
}

#[tokio::test]
async fn a_body_of_nothing_has_its_length_said() {
    for (method, length) in [("GET", None), ("POST", Some("0")), ("PUT", Some("0"))] {
        let backend = Backend::always(dunno());
        let keys = format!("method = \"{method}\"");
        let config = table(Binary::Socketmap, &backend.url("/{key}"), &keys);
        expect(Binary::Socketmap, config, DUNNO).await;
        let request = backend.only();
        assert_eq!(request.header("content-length"), length, "{method}");
        assert_eq!(request.header("transfer-encoding"), None, "{method}");
    }
}

#[tokio::test]
async fn a_backend_is_asked_over_a_unix_socket() {
    for binary in ALL {
        for host in ["backend.invalid", "backend.invalid:8080", "localhost"] {
            let directory = Directory::new();
            let path = directory.join("backend.sock");
            let server = Web::unix(&path, |_| Answer::dunno());
            let keys = format!("unix-socket = \"{}\"", path.display());
            let config = table(binary, &format!("http://{host}/ask"), &keys);
            expect(binary, config, DUNNO).await;
            let visit = server.only();
            assert_eq!(visit.header("host"), Some(host));
            let (method, target) = match binary {
                Binary::TcpLookup => ("GET", "/ask?key=key"),
                Binary::Socketmap => ("GET", "/ask?name=t&key=key"),
                Binary::Policy => ("POST", "/ask"),
            };
            assert_eq!(
                (visit.method.as_str(), visit.target.as_str()),
                (method, target)
            );
        }
    }
}

#[tokio::test]
async fn a_backend_on_a_unix_socket_learns_nothing_of_a_proxy() {
    let binary = Binary::Socketmap;
    let proxy = Backend::always(dunno());
    let directory = Directory::new();
    let path = directory.join("backend.sock");
    let server = Web::unix(&path, |_| Answer::dunno());
    let keys = format!("unix-socket = \"{}\"", path.display());
    let table = table(binary, "http://backend.invalid/", &keys);
    let url = proxy.url("").replace("http://", "http://user:s3cret@");
    let launch = Launch::new(binary)
        .config(format!("[http]\nproxy = \"environment\"\n{table}"))
        .environment("http_proxy", url);
    expect_of(launch, binary, DUNNO).await;
    assert_eq!(server.only().header("proxy-authorization"), None);
    assert_eq!(proxy.count(), 0);
}

#[tokio::test]
async fn a_connection_over_a_unix_socket_is_kept() {
    let directory = Directory::new();
    let path = directory.join("backend.sock");
    let server = Web::unix(&path, |_| Answer::dunno());
    let keys = format!("unix-socket = \"{}\"", path.display());
    let binary = Binary::Socketmap;
    let program = serve(binary, table(binary, "http://backend.invalid/", &keys)).await;
    let mut peer = program.peer().await;
    for _ in 0..5 {
        let reply = peer.ask(question(binary, "t", "key")).await;
        same("found", &reply, &DUNNO.by(binary));
    }
    let visits = server.visits();
    assert!(
        visits.iter().all(|visit| visit.connection == 0),
        "{visits:?}"
    );
}

#[tokio::test]
async fn a_unix_socket_without_anybody_behind_it_is_unreachable() {
    for binary in ALL {
        let directory = Directory::new();
        let deserted = directory.join("deserted.sock");
        drop(UnixListener::bind(&deserted).expect("a listening socket"));
        let missing = directory.join("missing.sock");
        let file = directory.write("file", "");
        for path in [&missing, &deserted, &file, &directory.path().to_owned()] {
            let keys = format!("unix-socket = \"{}\"", path.display());
            let config = table(binary, "http://127.0.0.1/", &keys);
            expect(binary, config, UNREACHABLE).await;
        }
    }
}

#[tokio::test]
async fn a_unix_socket_that_comes_later_is_found() {
    let directory = Directory::new();
    let path = directory.join("backend.sock");
    let keys = format!("unix-socket = \"{}\"", path.display());
    let binary = Binary::Socketmap;
    let program = serve(binary, table(binary, "http://backend.invalid/", &keys)).await;
    let reply = ask(&program, binary, "key").await;
    same("before", &reply, &UNREACHABLE.by(binary));
    let _server = Web::unix(&path, |_| Answer::dunno());
    let reply = ask(&program, binary, "key").await;
    same("after", &reply, &DUNNO.by(binary));
}

#[tokio::test]
async fn two_unix_sockets_with_one_target_are_kept_apart() {
    let directory = Directory::new();
    let [one, two] = ["one", "two"].map(|name| directory.join(name));
    let _one = Web::unix(&one, |_| Answer::json("\"one\""));
    let _two = Web::unix(&two, |_| Answer::json("\"two\""));
    let tcp = Backend::always(answer("\"tcp\""));
    let url = tcp.url("/");
    let config = format!(
        "[socketmap.one]\ntarget = \"{url}\"\nunix-socket = \"{}\"\n\
         [socketmap.two]\ntarget = \"{url}\"\nunix-socket = \"{}\"\n\
         [socketmap.tcp]\ntarget = \"{url}\"\n",
        one.display(),
        two.display()
    );
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    for map in ["one", "two", "tcp", "one"] {
        let reply = peer.ask(question(Binary::Socketmap, map, "key")).await;
        same(map, &reply, &netstring(format!("OK {map}")));
    }
}

#[tokio::test]
async fn a_redirect_stays_on_the_unix_socket() {
    let directory = Directory::new();
    let path = directory.join("backend.sock");
    let server = Web::unix(&path, |visit| match visit.target.as_str() {
        "/ask?name=t&key=key" => Answer::redirect(302, "http://backend.invalid/there"),
        _ => Answer::dunno(),
    });
    let keys = format!(
        "unix-socket = \"{}\"\nredirects = \"same-origin\"\n",
        path.display()
    );
    let binary = Binary::Socketmap;
    expect(
        binary,
        table(binary, "http://backend.invalid/ask", &keys),
        DUNNO,
    )
    .await;
    assert_eq!(server.visits()[1].target, "/there");
}

#[tokio::test]
async fn lookups_are_asked_again_as_often_as_the_operator_says() {
    for broken in [Act::Close, Act::Reset] {
        for binary in ALL {
            for retries in [0, 1, 3] {
                let keys = format!("retries = {retries}");
                let tries = if binary == Binary::Policy {
                    1
                } else {
                    retries + 1
                };

                let backend = Backend::always(vec![broken.clone()]);
                let config = table(binary, &backend.url("/"), &keys);
                expect(binary, config, UNREACHABLE).await;
                assert_eq!(backend.count(), tries, "{binary:?} {retries}");

                let mut scripts = vec![vec![broken.clone()]; tries - 1];
                scripts.push(dunno());
                let backend = Backend::in_turn(scripts);
                let config = table(binary, &backend.url("/"), &keys);
                expect(binary, config, DUNNO).await;
                assert_eq!(backend.count(), tries, "{binary:?} {retries}");
            }
        }
    }
}

#[tokio::test]
async fn a_retry_says_the_same_again() {
    let binary = Binary::Socketmap;
    let backend = Backend::in_turn([vec![Act::Close], dunno()]);
    let keys = "method = \"POST\"\nform = { k = \"{key}\" }\nheaders = { X-Key = \"{key}\" }";
    expect(binary, table(binary, &backend.url("/"), keys), DUNNO).await;
    let requests = backend.requests();
    let parts = |request: &Request| {
        let Request {
            method,
            target,
            headers,
            body,
            ..
        } = request.clone();
        (method, target, headers, body)
    };
    assert_eq!(requests.len(), 2);
    assert_eq!(parts(&requests[0]), parts(&requests[1]));
    assert_eq!(requests[0].form(), [(b"k".to_vec(), b"key".to_vec())]);
}

#[tokio::test]
async fn an_answer_however_bad_is_not_asked_for_again() {
    let binary = Binary::Socketmap;
    for (script, said) in [
        (status(503), "TEMP backend answered 503"),
        (answer("{"), "TEMP backend answer not understood"),
        (
            vec![raw("no HTTP\r\n\r\n"), Act::Close],
            "TEMP backend answer not understood",
        ),
        (
            vec![
                raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\"v"),
                Act::Close,
            ],
            "TEMP backend answer not understood",
        ),
    ] {
        let backend = Backend::always(script);
        let program = serve(binary, table(binary, &backend.url("/"), "retries = 3")).await;
        let reply = ask(&program, binary, "key").await;
        same(said, &reply, &netstring(said));
        assert_eq!(backend.count(), 1, "{said}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_kept_as_long_as_the_operator_says() {
    let server = Web::plain(|_| Answer::dunno());
    let binary = Binary::Socketmap;
    let config = table(
        binary,
        &server.url("http", "/"),
        "pool-idle = \"100ms\"\nrequest-timeout = \"90s\"",
    );
    let program = serve(binary, config).await;
    let mut peer = program.peer().await;
    for round in 0..2 {
        let reply = peer.ask(question(binary, "t", "key")).await;
        same("found", &reply, &DUNNO.by(binary));
        server.left(round + 1).await;
    }
    let connections: Vec<_> = server
        .visits()
        .iter()
        .map(|visit| visit.connection)
        .collect();
    assert_eq!(connections, [0, 1]);
}

#[tokio::test]
async fn an_idle_connection_is_used_again() {
    for keys in ["", "pool-idle = \"1h\""] {
        for binary in ALL {
            let server = Web::plain(|_| Answer::dunno());
            let program = serve(binary, table(binary, &server.url("http", "/"), keys)).await;
            let mut peer = program.peer().await;
            for _ in 0..5 {
                let reply = peer.ask(question(binary, "t", "key")).await;
                same("found", &reply, &DUNNO.by(binary));
            }
            let visits = server.visits();
            assert!(
                visits.iter().all(|visit| visit.connection == 0),
                "{visits:?}"
            );
        }
    }
}

#[tokio::test]
async fn connecting_takes_no_longer_than_its_own_deadline() {
    let hole = Hole::new().await;
    for binary in ALL {
        for scheme in ["http", "https"] {
            let keys = "connect-timeout = \"200ms\"\nrequest-timeout = \"90s\"";
            let config = table(binary, &hole.url(scheme, "/"), keys);
            expect(binary, config, TIMED_OUT).await;
        }
    }
}

#[tokio::test]
async fn the_whole_answer_has_one_deadline() {
    let hole = Hole::new().await;
    let silent = Backend::always(vec![Act::Hang]);
    let deaf = Backend::always(Script::new());
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n\"";
    let slow_body = Backend::always(vec![raw(head), Act::Drip(b"a".to_vec())]);
    let slow_head = Backend::always(vec![Act::Drip(b"HTTP/1.1 200 OK\r\nX-Slow: ".to_vec())]);
    let interim = Backend::always(vec![Act::Drip(
        b"HTTP/1.1 103 Early Hints\r\n\r\nH".to_vec(),
    )]);
    let redirect = Backend::new(|request| match request.target.starts_with("/ask") {
        true => response(307, &[("Location", "/there")], ""),
        false => vec![Act::Hang],
    });
    let proxy = format!("proxy = \"{}\"", silent.url(""));
    for binary in ALL {
        for (row, target, keys) in [
            ("silence", silent.url("/"), ""),
            ("a slow head", slow_head.url("/"), ""),
            ("a slow body", slow_body.url("/"), ""),
            ("interim answers", interim.url("/"), ""),
            (
                "a redirect",
                redirect.url("/ask"),
                "redirects = \"same-origin\"",
            ),
            (
                "the connection",
                hole.url("http", "/"),
                "connect-timeout = \"80s\"",
            ),
            (
                "the handshake",
                format!("https://{}/", deaf.address()),
                "connect-timeout = \"80s\"",
            ),
            (
                "a proxy",
                "http://backend.invalid/".to_owned(),
                proxy.as_str(),
            ),
            (
                "a tunnel",
                "https://backend.invalid/".to_owned(),
                proxy.as_str(),
            ),
        ] {
            let keys = format!("request-timeout = \"300ms\"\n{keys}");
            let program = serve(binary, table(binary, &target, &keys)).await;
            let reply = ask(&program, binary, "key").await;
            same(row, &reply, &TIMED_OUT.by(binary));
        }
    }
}

#[tokio::test]
async fn retries_end_with_the_deadline() {
    let binary = Binary::Socketmap;
    let backend = Backend::in_turn([vec![Act::Close], vec![Act::Hang], dunno()]);
    let keys = "retries = 3\nrequest-timeout = \"500ms\"";
    expect(binary, table(binary, &backend.url("/"), keys), TIMED_OUT).await;
    assert_eq!(backend.count(), 2);
}

#[tokio::test]
async fn credentials_are_sent_as_they_are() {
    let long = "x".repeat(4000);
    for binary in ALL {
        for (keys, expected) in [
            (
                "bearer-token = \"abc.DEF-123_~+/==\"".to_owned(),
                "Bearer abc.DEF-123_~+/==".to_owned(),
            ),
            (
                format!("bearer-token = \"{long}\""),
                format!("Bearer {long}"),
            ),
            (
                "basic-auth = { user = \"ü ser\", password = \"p:a%s\\\"s ß\" }".to_owned(),
                format!("Basic {}", BASE64.encode("ü ser:p:a%s\"s ß")),
            ),
        ] {
            let backend = Backend::always(dunno());
            let end = expect(binary, table(binary, &backend.url("/"), &keys), DUNNO).await;
            let request = backend.only();
            assert_eq!(request.header("authorization"), Some(expected.as_str()));
            assert!(!end.stderr.contains("123_"), "{end:#?}");
        }
    }
}

#[tokio::test]
async fn a_key_in_a_header_is_visible_ascii() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = "headers = { X-Key = \"<{key}>\", X-Parts = \"{local} at {domain}; {name}\", \
                    X-Brace = \"{{key}\" }";
        let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
        let mut peer = program.peer().await;
        let all: String = (b'!'..=b'~').map(char::from).collect();
        let all_seen = all.replace('%', "%25");
        let mut wrong = Wrong::default();
        let rows: [(&[u8], &str); 8] = [
            (b"key", "key"),
            (all.as_bytes(), &all_seen),
            (b"a b", "a%20b"),
            (
                b"\r\nX-Evil: 1\r\n\r\nGET / HTTP/1.1",
                "%0D%0AX-Evil:%201%0D%0A%0D%0AGET%20/%20HTTP/1.1",
            ),
            (b"%41", "%2541"),
            ("é😀".as_bytes(), "%C3%A9%F0%9F%98%80"),
            (b"\xff\x80\x7f\x1b\t", "%FF%80%7F%1B%09"),
            (b"{name}", "{name}"),
        ];
        for (number, (key, seen)) in rows.into_iter().enumerate() {
            let key = [key, b"@example.com"].concat();
            let reply = peer.ask(question(binary, "t", &key)).await;
            wrong.compare(seen, &reply, &DUNNO.by(binary));
            let request = backend.requests().remove(number);
            for (name, expected) in [
                ("x-key", Some(format!("<{seen}@example.com>"))),
                ("x-parts", Some(format!("{} at example.com; t", seen))),
                ("x-brace", Some("{key}".to_owned())),
                ("x-evil", None),
            ] {
                let sent = request.header(name);
                wrong.require(name, sent == expected.as_deref(), || {
                    format!("expected {expected:?}, seen {sent:?}")
                });
            }
        }
        wrong.none();
    }
}

#[tokio::test]
async fn a_key_without_the_part_a_header_wants_is_not_found_without_a_call() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = "headers = { X-Domain = \"{domain}\" }";
        expect(binary, table(binary, &backend.url("/"), keys), NOT_FOUND).await;
        assert_eq!(backend.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn attributes_stand_in_headers() {
    let binary = Binary::Policy;
    let backend = Backend::always(dunno());
    let keys = "headers = { X-To = \"{recipient}\", X-Who = \"[{sasl_username}]\" }";
    let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
    let mut peer = program.peer().await;
    let request = b"request=smtpd_access_policy\nrecipient=a b\r\xc3\xa9@x\n\n";
    same("found", &peer.ask(request).await, &DUNNO.by(binary));
    let request = backend.only();
    assert_eq!(request.header("x-to"), Some("a%20b%0D%C3%A9@x"));
    assert_eq!(request.header("x-who"), Some("[]"));
}

#[tokio::test]
async fn a_key_in_json_is_a_string_whatever_it_holds() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = "method = \"POST\"\n\
                    json = { q = \"{key}\", in = [\"<{key}>\", { name = \"{name}\" }] }";
        let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
        let mut peer = program.peer().await;
        for (number, key) in [
            "key",
            "\"",
            "\",\"q\":\"x",
            "\\",
            "\\u0041\\n",
            "\r\n\t\u{8}\u{c}\u{1}\u{1f}\u{7f}",
            "a\0b",
            "ü€😀\u{2028}\u{feff}",
            "{name}",
            "{*}",
            "{{key}}",
            "}]},{\"a\":[",
            "</script>",
        ]
        .into_iter()
        .enumerate()
        {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &DUNNO.by(binary));
            let request = backend.requests().remove(number);
            assert_eq!(request.method, "POST");
            assert_eq!(request.target, "/");
            assert_eq!(request.header("content-type"), Some("application/json"));
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            let expected = json!({ "q": key, "in": [format!("<{key}>"), { "name": "t" }] });
            assert_eq!(body, expected, "{key:?}");
        }
    }
}

#[tokio::test]
async fn json_holds_whatever_toml_holds() {
    let binary = Binary::Socketmap;
    for (json_in_toml, expected) in [
        ("\"{key}\"", json!("key")),
        ("[\"{key}\"]", json!(["key"])),
        (
            "{ k = \"{key}\", n = 9007199254740993, neg = -1, f = 1.5, yes = true, no = false }",
            json!({ "k": "key", "n": 9_007_199_254_740_993_i64, "neg": -1, "f": 1.5,
                    "yes": true, "no": false }),
        ),
        (
            "{ a = { b = [[\"{key}\"], [], {}] }, brace = \"{{key}\", empty = \"\" }",
            json!({ "a": { "b": [["key"], [], {}] }, "brace": "{key}", "empty": "" }),
        ),
    ] {
        let backend = Backend::always(dunno());
        let keys = format!("method = \"POST\"\njson = {json_in_toml}");
        expect(binary, table(binary, &backend.url("/"), &keys), DUNNO).await;
        let body = backend.only().body;
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body, expected, "{json_in_toml}");
    }
}

#[tokio::test]
async fn the_members_of_json_stand_in_the_order_written() {
    let backend = Backend::always(dunno());
    let keys = "method = \"POST\"\njson = { z = \"{key}\", a = 1, m = { y = 1, b = 2 } }";
    let config = table(Binary::Socketmap, &backend.url("/"), keys);
    expect(Binary::Socketmap, config, DUNNO).await;
    let body = backend.only().body;
    same("JSON", &body, br#"{"z":"key","a":1,"m":{"y":1,"b":2}}"#);
}

#[tokio::test]
async fn all_attributes_stand_in_json() {
    let binary = Binary::Policy;
    let request = b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=\n\
                    recipient=a\"b\\c\xc3\xbc@x\nccert_subject=x=y, z\nnew_attribute=1\n\n";
    let all = json!({
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "sender": "",
        "recipient": "a\"b\\cü@x",
        "ccert_subject": "x=y, z",
        "new_attribute": "1",
    });
    for (keys, expected) in [
        ("json = \"{*}\"", all.clone()),
        (
            "json = { tenant = \"t\", all = \"{*}\", to = \"{recipient}\", none = \"{client_name}\" }",
            json!({ "tenant": "t", "all": all, "to": "a\"b\\cü@x", "none": "" }),
        ),
        ("json = [\"{*}\"]", json!([all])),
    ] {
        let backend = Backend::always(dunno());
        let program = serve(binary, table(binary, &backend.url("/ask"), keys)).await;
        let mut peer = program.peer().await;
        same(keys, &peer.ask(request).await, &DUNNO.by(binary));
        let request = backend.only();
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/ask")
        );
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!(body, expected, "{keys}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_utf8_cannot_go_into_json() {
    for binary in ALL {
        let backend = Backend::always(dunno());
        let keys = match binary {
            Binary::Policy => "json = \"{*}\"",
            _ => "method = \"POST\"\njson = \"{key}\"",
        };
        let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
        let mut peer = program.peer().await;
        for key in [
            &b"\xff"[..],
            b"a\xc3@example.com",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
        ] {
            let said = match binary {
                Binary::TcpLookup => "400 key%20cannot%20be%20sent",
                Binary::Socketmap => "TEMP key cannot be sent",
                Binary::Policy => LATER,
            };
            let reply = peer.ask(question(binary, "t", key)).await;
            same(&format!("{key:?}"), &reply, &framed(binary, said));
        }
        assert_eq!(backend.count(), 0, "{binary:?}");
        // Where it does not go, it does no harm.
        let reply = peer.ask(question(binary, "t", "key")).await;
        same("afterwards", &reply, &DUNNO.by(binary));
    }
}

#[tokio::test]
async fn a_form_holds_what_the_operator_says_in_the_order_written() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = "method = \"POST\"\n\
                    form = { z = \"{key}\", fixed = \"a b&c=d\", \"odd name\" = \"<{name}>\" }";
        let program = serve(binary, table(binary, &backend.url("/ask"), keys)).await;
        let mut peer = program.peer().await;
        let key = b"a&b=c+d e%\r\n\xc3\xbc\xff";
        let reply = peer.ask(question(binary, "t", key)).await;
        same("found", &reply, &DUNNO.by(binary));
        let request = backend.only();
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/ask")
        );
        assert_eq!(
            request.form(),
            [
                (b"z".to_vec(), key.to_vec()),
                (b"fixed".to_vec(), b"a b&c=d".to_vec()),
                (b"odd name".to_vec(), b"<t>".to_vec()),
            ]
        );
        let expected: &[u8] = b"z=a%26b%3Dc%2Bd%20e%25%0D%0A%C3%BC%FF&fixed=a%20b%26c%3Dd\
                                &odd%20name=%3Ct%3E";
        same("the body", &request.body, expected);
    }
}

#[tokio::test]
async fn a_policy_form_may_be_a_table() {
    let binary = Binary::Policy;
    let backend = Backend::always(dunno());
    let keys = "form = { to = \"{recipient}\", from = \"{sender}\" }";
    expect(binary, table(binary, &backend.url("/"), keys), DUNNO).await;
    same("the body", &backend.only().body, b"to=key&from=");
}

#[tokio::test]
async fn a_constant_query_does_not_switch_off_the_form_of_a_policy() {
    let binary = Binary::Policy;
    const QUERY: &str = "query = { tenant = \"a\" }\n";
    for (inherited, own) in [(QUERY, ""), ("", QUERY)] {
        let backend = Backend::always(dunno());
        let table = table(binary, &backend.url("/"), own);
        expect(binary, format!("[http]\n{inherited}{table}"), DUNNO).await;
        let asked = backend.only();
        assert_eq!(asked.target, "/?tenant=a");
        let form = asked.form();
        assert_eq!(form.last(), Some(&(b"recipient".into(), b"key".into())));
    }
}

/// Asks for each key; `None` is one that is not asked for.
async fn normalised(keys: &str, rows: &[(&str, Option<&str>)]) {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = format!("query = {{ k = \"{{key}}\" }}\n{keys}");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let mut peer = program.peer().await;
        let mut wrong = Wrong::default();
        for (key, expected) in rows {
            let before = backend.count();
            let reply = peer.ask(question(binary, "t", key)).await;
            let said = if expected.is_some() { DUNNO } else { NOT_FOUND };
            wrong.compare(key, &reply, &said.by(binary));
            let asked: Vec<_> = backend.requests()[before..]
                .iter()
                .map(|request| request.query().remove(0).1)
                .collect();
            let expected: Vec<_> = expected.iter().map(|key| key.as_bytes().to_vec()).collect();
            wrong.require(key, asked == expected, || {
                let asked: Vec<_> = asked
                    .iter()
                    .map(|key| String::from_utf8_lossy(key))
                    .collect();
                format!("asked for {asked:?}")
            });
        }
        wrong.none();
    }
}

#[tokio::test]
async fn a_key_is_asked_in_lower_case() {
    normalised(
        "normalise = { lowercase = true }",
        &[
            ("Alice@EXAMPLE.Com", Some("alice@example.com")),
            ("A+B", Some("a+b")),
            ("[]^_`@Z", Some("[]^_`@z")),
            ("ÄÖ@Example.com", Some("äö@example.com")),
        ],
    )
    .await;
    normalised("", &[("Alice@EXAMPLE.Com", Some("Alice@EXAMPLE.Com"))]).await;
}

#[tokio::test]
async fn a_local_part_is_cut_at_the_delimiter_as_postfix_cuts_it() {
    normalised(
        "normalise = { delimiter = \"+\" }",
        &[
            ("alice+x@example.com", Some("alice@example.com")),
            ("alice+x+y@example.com", Some("alice@example.com")),
            ("alice+@example.com", Some("alice@example.com")),
            ("+x@example.com", Some("+x@example.com")),
            ("+@example.com", Some("+@example.com")),
            ("+a+b@example.com", Some("+a+b@example.com")),
            ("alice@ex+ample.com", Some("alice@ex+ample.com")),
            ("alice+x@y@example.com", Some("alice@example.com")),
            ("alice+x", Some("alice+x")),
            ("alice", Some("alice")),
            ("@example.com", Some("@example.com")),
            ("example.com", Some("example.com")),
            ("owner-list+x@example.com", Some("owner-list@example.com")),
            ("alice-x@example.com", Some("alice-x@example.com")),
        ],
    )
    .await;
    normalised(
        "normalise = { delimiter = \"-\" }",
        &[
            ("alice-x@example.com", Some("alice@example.com")),
            ("owner-list@example.com", Some("owner-list@example.com")),
            ("Owner-list@example.com", Some("Owner-list@example.com")),
            ("list-request@example.com", Some("list-request@example.com")),
            ("list-REQUEST@example.com", Some("list-REQUEST@example.com")),
            (
                "mailer-daemon@example.com",
                Some("mailer-daemon@example.com"),
            ),
            (
                "MAILER-DAEMON@example.com",
                Some("MAILER-DAEMON@example.com"),
            ),
            (
                "double-bounce@example.com",
                Some("double-bounce@example.com"),
            ),
            ("postmaster@example.com", Some("postmaster@example.com")),
            ("-request@example.com", Some("-request@example.com")),
            ("my-owner-list@example.com", Some("my@example.com")),
            ("list-requests@example.com", Some("list@example.com")),
            ("double-bounces@example.com", Some("double@example.com")),
        ],
    )
    .await;
    normalised(
        "normalise = { delimiter = \"+-\" }",
        &[
            ("alice-x+y@example.com", Some("alice@example.com")),
            ("alice+x-y@example.com", Some("alice@example.com")),
            ("owner-list+x@example.com", Some("owner-list+x@example.com")),
            (
                "list+x-request@example.com",
                Some("list+x-request@example.com"),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_key_that_the_pattern_does_not_match_as_a_whole_is_not_found_without_a_call() {
    normalised(
        "normalise = { pattern = \"[a-z]+@example\\\\.com\" }",
        &[
            ("alice@example.com", Some("alice@example.com")),
            ("Alice@example.com", None),
            ("xalice@example.com.evil", None),
            ("1alice@example.com", None),
            ("alice@exampleXcom", None),
            ("alice@example.com\n", None),
            ("\nalice@example.com", None),
            ("alice", None),
        ],
    )
    .await;
    normalised(
        "normalise = { pattern = \"a|b\" }",
        &[
            ("a", Some("a")),
            ("b", Some("b")),
            ("ab", None),
            ("ax", None),
            ("xb", None),
        ],
    )
    .await;
    normalised(
        "normalise = { pattern = \"^(?m)a$\" }",
        &[("a", Some("a")), ("a\nb", None), ("b\na", None)],
    )
    .await;
}

#[tokio::test]
async fn a_key_is_lower_cased_then_cut_then_compared() {
    normalised(
        "normalise = { lowercase = true, delimiter = \"+\", pattern = \"[a-z]+@example\\\\.com\" }",
        &[
            ("Alice+News@Example.COM", Some("alice@example.com")),
            ("alice2@example.com", None),
            ("+alice@example.com", None),
        ],
    )
    .await;
}

#[tokio::test]
async fn every_placeholder_has_the_normalised_key() {
    let backend = Backend::always(dunno());
    let keys = "query = { l = \"{local}\", d = \"{domain}\" }\nheaders = { X-Key = \"{key}\" }\n\
                normalise = { lowercase = true, delimiter = \"+\" }";
    let binary = Binary::Socketmap;
    let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
    let reply = ask(&program, binary, "Alice+x@Example.COM").await;
    same("found", &reply, &DUNNO.by(binary));
    let request = backend.only();
    assert_eq!(request.target, "/?l=alice&d=example.com");
    assert_eq!(request.header("x-key"), Some("alice@example.com"));
}

#[tokio::test]
async fn bytes_that_are_not_utf8_are_normalised_as_far_as_they_can_be() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = "query = { k = \"{key}\" }\n\
                    normalise = { lowercase = true, delimiter = \"+\" }";
        let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
        let reply = ask(&program, binary, b"A\xff+x@EXAMPLE.com").await;
        same("found", &reply, &DUNNO.by(binary));
        assert_eq!(backend.only().target, "/?k=a%FF%40example.com");

        // A pattern is text, and so matches text only.
        let keys = "query = { k = \"{key}\" }\nnormalise = { pattern = \"(?s).*\" }";
        let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
        let reply = ask(&program, binary, b"a\xff").await;
        same("not found", &reply, &NOT_FOUND.by(binary));
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn what_is_left_of_a_key_cannot_change_the_path() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = "normalise = { delimiter = \"+\" }";
        let config = table(binary, &backend.url("/users/{local}"), keys);
        let program = serve(binary, config).await;
        for key in [".+x@example.com", "..+x@example.com"] {
            let reply = ask(&program, binary, key).await;
            same(key, &reply, &NOT_FOUND.by(binary));
        }
        assert_eq!(backend.count(), 0, "{binary:?}");
        let reply = ask(&program, binary, "...+x@example.com").await;
        same("three dots", &reply, &DUNNO.by(binary));
        assert_eq!(backend.only().target, "/users/...");
    }
}

#[tokio::test]
async fn members_of_normalise_are_inherited_one_by_one() {
    let backend = Backend::always(dunno());
    let url = backend.url("/{key}");
    let config = format!(
        "[http]\nnormalise = {{ lowercase = true, delimiter = \"+\" }}\n\
         [socketmap.t]\ntarget = \"{url}\"\nnormalise = {{ delimiter = \"-\" }}\n\
         [socketmap.own]\ntarget = \"{url}\"\nnormalise = false\n\
         [policy.p]\ntarget = \"{}\"\n",
        backend.url("/")
    );
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    for map in ["t", "own"] {
        let reply = peer.ask(question(Binary::Socketmap, map, "A+B-C@X")).await;
        same(map, &reply, &netstring("OK DUNNO"));
    }
    let paths: Vec<_> = backend.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(paths, ["/a%2Bb%40x", "/A%2BB-C%40X"]);
}

#[tokio::test]
async fn bad_values_are_named_with_their_place() {
    for (key, value) in [
        ("target", "[]"),
        ("target", "[\"htp://x/\"]"),
        ("target", "[5]"),
        ("tls.min-version", "\"1.1\""),
        ("tls.min-version", "1.2"),
        ("tls.verify", "\"no\""),
        ("tls.bogus", "1"),
        ("tls.ca", "5"),
        ("proxy", "true"),
        ("proxy", "\"htp://x\""),
        ("redirects", "true"),
        ("redirects", "\"always\""),
        ("compression", "true"),
        ("compression", "\"zip\""),
        ("unix-socket", "5"),
        ("unix-socket", "\"\""),
        ("retries", "-1"),
        ("retries", "\"1\""),
        ("retries", "1.5"),
        ("pool-idle", "30"),
        ("connect-timeout", "\"fast\""),
        ("request-timeout", "\"91s\""),
        ("normalise", "true"),
        ("normalise.lowercase", "\"yes\""),
        ("normalise.delimiter", "5"),
        ("normalise.pattern", "\"(\""),
        ("normalise.bogus", "1"),
        ("headers.X-Key", "\"{bogus}\""),
        ("headers.X-Key", "\"a\\nb\""),
        ("headers.Host", "\"x\""),
        ("headers.Transfer-Encoding", "\"chunked\""),
        ("json", "{ d = 1979-05-27 }"),
        ("json", "{ f = nan }"),
        ("json", "{ k = \"{bogus}\" }"),
        ("json", "{ k = \"{*}\" }"),
        ("form", "{ k = \"{bogus}\" }"),
        ("bearer-token", "5"),
        ("basic-auth", "{ user = \"u\" }"),
    ] {
        let target = match key {
            "target" => "",
            _ => "target = \"https://127.0.0.1/{key}\"\n",
        };
        let method = match key {
            "json" | "form" => "method = \"POST\"\n",
            _ => "",
        };
        let config = format!("[socketmap.t]\n{target}{method}{key} = {value}\n");
        println!("{config}");
        refused(config, &[&format!("socketmap.t.{key}")]).await;
    }
}

#[tokio::test]
async fn keys_that_contradict_each_other_are_named() {
    let directory = Directory::new();
    let (certificate, key) = Authority::new().client().files(directory.path(), "client");
    for keys in [
        "method = \"POST\"\nform = { k = \"{key}\" }\njson = \"{key}\"".to_owned(),
        "bearer-token = \"a\"\nbasic-auth = { user = \"u\", password = \"p\" }".to_owned(),
        format!("tls.client-cert = \"{}\"", certificate.display()),
        format!("tls.client-key = \"{}\"", key.display()),
        "target = \"http://user:pass@127.0.0.1/\"".to_owned(),
    ] {
        let target = match keys.contains("target") {
            true => "",
            false => "target = \"https://127.0.0.1/\"\n",
        };
        let config = format!("[socketmap.t]\n{target}{keys}\n");
        println!("{config}");
        refused(config, &["socketmap.t."]).await;
    }
}

#[tokio::test]
async fn show_prints_the_keys_of_transport() {
    let (_authority, directory, ca) = authority();
    let keys = format!(
        "{ca}tls.min-version = \"1.3\"\nproxy = \"environment\"\nredirects = \"same-origin\"\n\
         compression = \"both\"\nretries = 3\npool-idle = \"7s\"\n\
         normalise = {{ lowercase = true, delimiter = \"+\", pattern = \"a.*\" }}\n\
         basic-auth = {{ user = \"u\", password = \"s3cret\" }}\n"
    );
    let urls = ["https://one.example/{key}", "https://two.example/{key}"].map(str::to_owned);
    let config = listed(Binary::Socketmap, &urls, &keys);
    let end = Launch::new(Binary::Socketmap)
        .config(config)
        .argument("--show")
        .end()
        .await;
    end.status(0);
    let ca_file = directory.join("ca.pem").display().to_string();
    for shown in [
        "https://one.example/{key}",
        "https://two.example/{key}",
        ca_file.as_str(),
        "\"1.3\"",
        "\"environment\"",
        "\"same-origin\"",
        "\"both\"",
        "retries = 3",
        "pool-idle = \"7s\"",
        "\"a.*\"",
    ] {
        assert!(end.stdout.contains(shown), "no {shown:?} in {end:#?}");
    }
    assert!(!end.stdout.contains("s3cret"), "{end:#?}");
    assert!(!end.stdout.contains("BEGIN"), "{end:#?}");
}
