//! Headers: credentials, the operator's own, and those of every call.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::support::{
    backend::{Backend, dunno, good, json},
    peer::question,
    program::{ALL, Binary, LOOKUPS, Launch},
    replies::{DUNNO, NOT_FOUND},
    same,
    tables::{expect, serve, table},
};

#[tokio::test]
async fn every_call_has_a_request_id_of_its_own_and_says_who_asks() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            let mut peer = program.peer().await;
            for _ in 0..3 {
                peer.ask(question(binary, "t", "key")).await;
            }
        }
        for request in backend.requests() {
            let id = request.header("x-request-id").expect("an X-Request-Id");
            assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()));
            ids.push(id.to_owned());
            let agent = concat!("postgate/", env!("CARGO_PKG_VERSION"));
            assert_eq!(request.header("user-agent"), Some(agent));
            let host = backend.address().to_string();
            assert_eq!(request.header("host"), Some(host.as_str()));
            for absent in ["x-auth-token", "authorization", "cookie", "referer"] {
                assert_eq!(request.header(absent), None, "{binary:?} {absent}");
            }
        }
        assert_eq!(ids.len(), 9);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 9, "{binary:?}: an id came twice");
    }
}

#[tokio::test]
async fn credentials_and_headers_are_sent() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let files = Launch::new(binary);
        let token_file = files.directory().join("token");
        std::fs::write(&token_file, "from-a-file\n").expect("a written token");
        let name = binary.name();
        let url = backend.url("/");
        let config = format!(
            "[{name}.token]\ntarget = \"{url}\"\nauth-token = \"x-token\"\n\
             [{name}.bearer]\ntarget = \"{url}\"\nbearer-token = {{ file = \"{}\" }}\n\
             [{name}.basic]\ntarget = \"{url}\"\n\
             basic-auth = {{ user = \"Aladdin\", password = {{ env = \"PASSWORD\" }} }}\n\
             [{name}.own]\ntarget = \"{url}\"\nuser-agent = \"mail/1\"\n\
             headers = {{ X-Own = \"yes\", X-Secret = {{ credential = \"secret\" }} }}\n",
            token_file.display()
        );
        std::fs::write(files.directory().join("secret"), "from-systemd").expect("a credential");
        let credentials = files.directory().to_owned();
        let program = files
            .config(config)
            .environment("PASSWORD", "open sesame")
            .environment("CREDENTIALS_DIRECTORY", credentials)
            .unix("token")
            .unix("bearer")
            .unix("basic")
            .unix("own")
            .ready()
            .await;
        let expected = [
            ("token", "x-auth-token", "x-token"),
            ("bearer", "authorization", "Bearer from-a-file"),
            (
                "basic",
                "authorization",
                "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            ),
            ("own", "x-secret", "from-systemd"),
        ];
        for (number, (table, header, value)) in expected.into_iter().enumerate() {
            let mut peer = program.peer_at(number).await;
            let reply = peer.ask(question(binary, table, "key")).await;
            same(table, &reply, &DUNNO.by(binary));
            let requests = backend.requests();
            assert_eq!(requests[number].header(header), Some(value), "{table}");
        }
        let own = &backend.requests()[3];
        assert_eq!(own.header("x-own"), Some("yes"));
        assert_eq!(own.header("user-agent"), Some("mail/1"));
    }
}

#[tokio::test]
async fn a_key_in_a_header_cannot_end_it() {
    let backend = Backend::always(json("\"v\""));
    let keys = "headers = { X-Key = \"k {key}\", X-Brace = \"{{key}\" }";
    let config = table(Binary::Socketmap, &backend.url("/"), keys);
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    let key = b"a%b\r\nX-Evil: 1 \xc3\xa9\xff";
    peer.ask(question(Binary::Socketmap, "t", key)).await;
    let request = backend.only();
    assert_eq!(request.header("x-evil"), None);
    assert_eq!(request.header("x-brace"), Some("{key}"));
    assert_eq!(
        request.header("x-key"),
        Some("k a%25b%0D%0AX-Evil:%201%20%C3%A9%FF")
    );
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
async fn an_endpoint_inherits_and_takes_back() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let (name, url) = (binary.name(), backend.url("/"));
        let config = format!(
            "[http]\nauth-token = \"common\"\nbearer-token = \"common\"\n\
             headers = {{ X-One = \"1\", X-Two = \"2\" }}\n\
             [{name}.plain]\ntarget = \"{url}\"\n\
             [{name}.own]\ntarget = \"{url}\"\nauth-token = false\n\
             basic-auth = {{ user = \"u\", password = \"p\" }}\n\
             headers = {{ X-Two = \"own\", X-One = false }}\n"
        );
        let program = Launch::new(binary)
            .config(config)
            .unix("plain")
            .unix("own")
            .ready()
            .await;
        for (number, table) in ["plain", "own"].into_iter().enumerate() {
            let mut peer = program.peer_at(number).await;
            peer.ask(question(binary, table, "key")).await;
        }
        let requests = backend.requests();
        let names = ["x-auth-token", "authorization", "x-one", "x-two"];
        let sent = |number: usize| names.map(|name| requests[number].header(name));
        assert_eq!(sent(0), ["common", "Bearer common", "1", "2"].map(Some));
        assert_eq!(sent(1), [None, Some("Basic dTpw"), None, Some("own")]);
    }
}
