//! TLS apart from authorities: certificates of the client, versions, handshakes.

use hyper::Version;
use tokio::io::AsyncWriteExt;

use crate::{
    servers::{
        certificates::{Authority, Validity, authority},
        web::{Answer, Web},
    },
    support::{
        Directory,
        backend::{Backend, Script},
        peer::{netstring, question},
        program::{ALL, Binary, Launch, Reserved},
        replies::{DUNNO, NOT_UNDERSTOOD, TIMED_OUT, UNREACHABLE},
        same,
        tables::{expect, expect_of, serve, table},
    },
};

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
    let binary = Binary::Socketmap;
    let tls = authority.server().tls().demanding(&authority).config();
    let server = Web::secure(tls, |_| Answer::dunno());
    let launch = Launch::new(binary)
        .config(table(binary, &server.url("https", "/"), &keys))
        .environment("CREDENTIALS_DIRECTORY", credentials.path());
    expect_of(launch, binary, DUNNO).await;
    assert_eq!(server.only().client.as_ref(), Some(client.der()));
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
    let binary = Binary::Socketmap;
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

#[tokio::test]
async fn the_lowest_version_of_tls_is_what_the_operator_says() {
    let (authority, _directory, ca) = authority();
    let identity = authority.server();
    for (is_old, version, expected_reply) in [
        (true, None, DUNNO),
        (true, Some("1.2"), DUNNO),
        (true, Some("1.3"), UNREACHABLE),
        (false, None, DUNNO),
        (false, Some("1.2"), DUNNO),
        (false, Some("1.3"), DUNNO),
    ] {
        let binary = Binary::Socketmap;
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
            expected_reply,
        )
        .await;
        let calls = usize::from(expected_reply.policy == DUNNO.policy);
        assert_eq!(server.count(), calls, "{binary:?} {is_old} {version:?}");
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
        let binary = Binary::Socketmap;
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
    for (map, expected_reply) in [
        ("t", "OK DUNNO"),
        ("newer", "TEMP backend unreachable"),
        ("alone", "TEMP backend unreachable"),
    ] {
        let reply = peer.ask(question(Binary::Socketmap, map, "key")).await;
        same(map, &reply, &netstring(expected_reply));
    }
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn tls_to_a_server_without_it_is_unreachable() {
    let binary = Binary::Socketmap;
    let server = Web::plain(|_| Answer::dunno());
    let config = table(binary, &server.url("https", "/"), "");
    expect(binary, config, UNREACHABLE).await;
    assert_eq!(server.count(), 0, "{binary:?}");
}

#[tokio::test]
async fn plain_http_to_a_server_with_tls_is_temporary() {
    let (authority, _directory, _) = authority();
    let binary = Binary::Socketmap;
    let server = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
    let config = table(binary, &server.url("http", "/"), "");
    // It answers with a TLS alert, which is not HTTP.
    expect(binary, config, NOT_UNDERSTOOD).await;
    server.refusals(1).await;
    assert_eq!(server.count(), 0, "{binary:?}");
}

#[tokio::test]
async fn a_handshake_has_the_deadline_of_the_connection() {
    let binary = Binary::Socketmap;
    let silent = Backend::always(Script::new());
    let target = format!("https://{}/", silent.address());
    let keys = "connect-timeout = \"200ms\"\nrequest-timeout = \"90s\"";
    expect(binary, table(binary, &target, keys), TIMED_OUT).await;
}

#[tokio::test]
async fn a_backend_without_tls_is_unreachable_over_https() {
    let binary = Binary::Socketmap;
    let listener = Reserved::new();
    let target = format!("https://{}/", listener.address());
    let listener = listener.listen();
    let plain_http = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\"DUNNO\"";
            stream.write_all(answer).await.expect("an answer");
            open.push(stream);
        }
    });
    let program = serve(binary, table(binary, &target, "")).await;
    let reply = program.peer().await.ask(question(binary, "t", "key")).await;
    same(binary.name(), &reply, &UNREACHABLE.by(binary));
    plain_http.abort();
}
