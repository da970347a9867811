//! Trusted authorities, their files, and reloads.

use rustix::process::Signal;

use crate::{
    servers::{
        certificates::{Authority, Validity, authority, write},
        web::{Answer, Web},
    },
    support::{
        Directory,
        backend::{Backend, dunno},
        peer::question,
        program::{ALL, Binary, Launch},
        replies::{DUNNO, UNREACHABLE},
        same,
        tables::{expect, expect_of, refused, serve, table},
    },
};

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
    let binary = Binary::Socketmap;
    let server = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
    let config = table(binary, &server.url("https", "/"), "");
    let launch = Launch::new(binary)
        .config(config)
        .environment("SSL_CERT_FILE", directory.join("ca.pem"));
    expect_of(launch, binary, DUNNO).await;
    assert_eq!(server.count(), 1, "{binary:?}");
}

#[tokio::test]
async fn a_configured_authority_stands_in_place_of_the_systems() {
    let (system, directory, _) = authority();
    let (_other, _its_directory, ca) = authority();
    let binary = Binary::Socketmap;
    let server = Web::secure(system.server().tls().config(), |_| Answer::dunno());
    let launch = Launch::new(binary)
        .config(table(binary, &server.url("https", "/"), &ca))
        .environment("SSL_CERT_FILE", directory.join("ca.pem"));
    expect_of(launch, binary, UNREACHABLE).await;
    assert_eq!(server.count(), 0, "{binary:?}");
}

#[tokio::test]
async fn a_file_may_hold_several_authorities() {
    let (one, two, unknown) = (Authority::new(), Authority::new(), Authority::new());
    let directory = Directory::new();
    let text = format!("The first:\n{}\nThe second:\n{}", one.pem(), two.pem());
    let file = directory.write("ca.pem", &text);
    let keys = format!("tls.ca = \"{}\"", file.display());
    for (authority, expected_reply) in [(&one, DUNNO), (&two, DUNNO), (&unknown, UNREACHABLE)] {
        let server = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
        let config = table(Binary::Socketmap, &server.url("https", "/"), &keys);
        expect(Binary::Socketmap, config, expected_reply).await;
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
        let binary = Binary::Socketmap;
        let server = Web::secure(identity.tls().config(), |_| Answer::dunno());
        let config = table(binary, &server.url("https", "/"), &ca);
        expect(binary, config, UNREACHABLE).await;
        server.refusals(1).await;
        assert_eq!(server.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn a_name_is_checked_as_well_as_an_address() {
    let (authority, _directory, ca) = authority();
    let binary = Binary::Socketmap;
    for (name, expected_reply) in [("localhost", DUNNO), ("other.example", UNREACHABLE)] {
        let identity = authority.server_named(name, Validity::Now);
        let server = Web::secure(identity.tls().config(), |_| Answer::dunno());
        let target = format!("https://localhost:{}/", server.address().port());
        expect(binary, table(binary, &target, &ca), expected_reply).await;
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
    program.notified("READY=1", 2).await;
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
    for (reload, (now, expected_reply)) in [(&authority, DUNNO), (&other, UNREACHABLE)]
        .iter()
        .enumerate()
    {
        now.file(directory.path(), "bundle.pem");
        program.signal(Signal::HUP);
        program.notified("READY=1", reload + 2).await;
        same(
            "after",
            &peer.ask(&request).await,
            &expected_reply.by(binary),
        );
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
    program.notified("READY=1", 2).await;
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
    end.says("no system certificate authorities");
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
