//! Keys, names of maps and attributes in URLs.

use crate::support::{
    Wrong,
    backend::{Backend, json, plain, status},
    peer::{framed, netstring, question},
    program::{Binary, LOOKUPS},
    replies::{LATER, NOT_FOUND, replies},
    same,
    tables::{serve, table},
};

/// Keys, and their form in a URL: everything but unreserved characters as `%XX`.
const KEYS: [(&[u8], &str); 26] = [
    (b"a\0b", "a%00b"),
    (b"alice@example.com", "alice%40example.com"),
    (b"a-b.c_d~e9", "a-b.c_d~e9"),
    (b"a b", "a%20b"),
    (b"%", "%25"),
    (b"%41", "%2541"),
    (b"%2e%2e", "%252e%252e"),
    (b"&=+?#/", "%26%3D%2B%3F%23%2F"),
    (b"../../admin", "..%2F..%2Fadmin"),
    (b"..\\..\\admin", "..%5C..%5Cadmin"),
    (b"k?x=1", "k%3Fx%3D1"),
    (b"k&name=other", "k%26name%3Dother"),
    (
        b"k HTTP/1.1\r\nX-Evil: 1\r\n\r\n",
        "k%20HTTP%2F1.1%0D%0AX-Evil%3A%201%0D%0A%0D%0A",
    ),
    ("ü@exämple.com".as_bytes(), "%C3%BC%40ex%C3%A4mple.com"),
    (b"\xff\xfe", "%FF%FE"),
    (b"caf\xe9@example.com", "caf%E9%40example.com"),
    (b"\x01\x1b\x7f", "%01%1B%7F"),
    (
        b"\"john doe\"@example.com",
        "%22john%20doe%22%40example.com",
    ),
    (b"\"\"", "%22%22"),
    (b"a@b@c", "a%40b%40c"),
    (b"[1.2.3.4]", "%5B1.2.3.4%5D"),
    (b"{key}", "%7Bkey%7D"),
    (b"$HOME`id`'<>|^", "%24HOME%60id%60%27%3C%3E%7C%5E"),
    (b"!*'();:,", "%21%2A%27%28%29%3B%3A%2C"),
    (b"...", "..."),
    (b"@example.com", "%40example.com"),
];

#[tokio::test]
async fn a_key_stands_escaped_in_the_query() {
    for binary in LOOKUPS {
        let backend = Backend::always(status(404));
        let program = serve(binary, table(binary, &backend.url("/look/up?x=1"), "")).await;
        let mut peer = program.peer().await;
        let mut wrong = Wrong::default();
        for (number, (key, escaped)) in KEYS.into_iter().enumerate() {
            let reply = peer.ask(question(binary, "t", key)).await;
            wrong.compare(escaped, &reply, &NOT_FOUND.by(binary));
            let requests = backend.requests();
            assert_eq!(requests.len(), number + 1, "calls after {escaped}");
            let expected = match binary {
                Binary::Socketmap => format!("/look/up?x=1&name=t&key={escaped}"),
                _ => format!("/look/up?x=1&key={escaped}"),
            };
            let target = requests[number].target.as_bytes();
            wrong.compare(escaped, target, expected.as_bytes());
            let method = requests[number].method.as_bytes();
            wrong.compare(escaped, method, b"GET");
        }
        wrong.none();
    }
}

#[tokio::test]
async fn a_key_stands_escaped_in_one_segment_of_the_path() {
    for binary in LOOKUPS {
        let backend = Backend::always(status(404));
        let target = backend.url("/u/{key}/of/{name}?again={key}");
        let program = serve(binary, table(binary, &target, "")).await;
        let mut peer = program.peer().await;
        let mut wrong = Wrong::default();
        for (number, (key, escaped)) in KEYS.into_iter().enumerate() {
            let reply = peer.ask(question(binary, "t", key)).await;
            wrong.compare(escaped, &reply, &NOT_FOUND.by(binary));
            let requests = backend.requests();
            assert_eq!(requests.len(), number + 1, "calls after {escaped}");
            let expected = format!("/u/{escaped}/of/t?again={escaped}");
            let target = requests[number].target.as_bytes();
            wrong.compare(escaped, target, expected.as_bytes());
        }
        wrong.none();
    }
}

#[tokio::test]
async fn local_part_and_domain_are_split_at_the_last_at_sign() {
    for binary in LOOKUPS {
        let backend = Backend::always(status(404));
        let config = table(binary, &backend.url("/{domain}/{local}"), "");
        let program = serve(binary, config).await;
        let mut peer = program.peer().await;
        // Where there is no local part or no domain to put in, nothing is there to find.
        for key in [
            "alice@example.com",
            "a@b@c",
            "alice",
            "@example.com",
            "alice@",
        ] {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &NOT_FOUND.by(binary));
        }
        let targets: Vec<_> = backend.requests().into_iter().map(|r| r.target).collect();
        assert_eq!(targets, ["/example.com/alice", "/c/a%40b"], "{binary:?}");
    }
}

#[tokio::test]
async fn the_keys_postfix_asks_of_every_table_are_not_found_without_a_call() {
    let keys = ["*", "<>", "\"<>\""];
    for binary in LOOKUPS {
        let backend = Backend::always(json("\"v\""));
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        for key in keys {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &NOT_FOUND.by(binary));
        }
        assert_eq!(backend.count(), 0, "{binary:?}");

        let asked = table(binary, &backend.url("/"), "special-keys = true");
        let program = serve(binary, asked).await;
        let mut peer = program.peer().await;
        for key in keys {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &replies("200 v", "OK v", "").by(binary));
        }
        assert_eq!(backend.count(), 3, "{binary:?}");
    }
}

#[tokio::test]
async fn a_key_that_would_change_the_path_is_not_found_without_a_call() {
    for binary in LOOKUPS {
        let backend = Backend::always(json("\"v\""));
        let program = serve(binary, table(binary, &backend.url("/u/{key}"), "")).await;
        let mut peer = program.peer().await;
        for key in ["", ".", ".."] {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &NOT_FOUND.by(binary));
        }
        assert_eq!(backend.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn a_key_that_leaves_its_segment_whole_is_asked() {
    for binary in LOOKUPS {
        let backend = Backend::always(json("\"v\""));
        let config = table(binary, &backend.url("/u/id-{key}"), "");
        let program = serve(binary, config).await;
        let mut peer = program.peer().await;
        for key in [".", ".."] {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &replies("200 v", "OK v", "").by(binary));
        }
        let targets: Vec<_> = backend.requests().into_iter().map(|r| r.target).collect();
        assert_eq!(targets, ["/u/id-.", "/u/id-.."], "{binary:?}");
    }
}

#[tokio::test]
async fn an_attribute_that_would_change_the_path_is_temporary_without_a_call() {
    let backend = Backend::always(plain("DUNNO"));
    let target = backend.url("/u/{sasl_username}");
    let program = serve(Binary::Policy, table(Binary::Policy, &target, "")).await;
    let mut peer = program.peer().await;
    for name in [
        "sasl_username=",
        "sasl_username=.",
        "sasl_username=..",
        "sender=a@b.example",
    ] {
        let reply = peer
            .ask(format!("request=smtpd_access_policy\n{name}\n\n"))
            .await;
        same(name, &reply, &framed(Binary::Policy, LATER));
    }
    assert_eq!(backend.count(), 0);
    let reply = peer.ask("sasl_username=../../admin?x=1\n\n").await;
    same("escaped", &reply, &framed(Binary::Policy, "DUNNO"));
    assert_eq!(backend.only().target, "/u/..%2F..%2Fadmin%3Fx%3D1");
}

/// hyper holds a URL to 64 KiB, which escaping can exceed though the request was short enough.
#[tokio::test]
async fn a_key_too_long_for_a_url_is_temporary() {
    let backend = Backend::always(json("\"v\""));
    let config = table(Binary::Socketmap, &backend.url("/"), "");
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    let long = vec![b' '; 40_000];
    let reply = peer.ask(question(Binary::Socketmap, "t", &long)).await;
    same("too long", &reply, &netstring("TEMP key cannot be sent"));
    assert_eq!(backend.count(), 0);
    let reply = peer
        .ask(question(Binary::Socketmap, "t", "a".repeat(10_000)))
        .await;
    same("long", &reply, &netstring("OK v"));
    assert_eq!(backend.only().query()[1].1, "a".repeat(10_000).as_bytes());
}

#[tokio::test]
async fn the_other_bridges_contract_holds() {
    // The token is sent, a tail of the next request waits, the list is joined.
    let backend = Backend::always(json(r#"["r1","r2"]"#));
    let config = table(Binary::TcpLookup, &backend.url("/"), "auth-token = \"t\"");
    let program = serve(Binary::TcpLookup, config).await;
    let reply = program.peer().await.ask("get +%20%25&%C2%A7%C3%9F\n").await;
    same("tcp", &reply, b"200 r1,r2\n");
    let request = backend.only();
    assert_eq!(request.header("x-auth-token"), Some("t"));
    assert_eq!(
        request.query(),
        [(b"key".to_vec(), "+ %&§ß".as_bytes().to_vec())]
    );

    let backend = Backend::always(json(r#"["0123456789"]"#));
    let config = format!("[socketmap.test]\ntarget = \"{}\"\n", backend.url("/"));
    let program = serve(Binary::Socketmap, config).await;
    let reply = program.peer().await.ask("15:test 0123456789,").await;
    same("socketmap", &reply, b"13:OK 0123456789,");
    assert_eq!(backend.only().target, "/?name=test&key=0123456789");

    let backend = Backend::always(plain("DUNNO"));
    let config = table(Binary::Policy, &backend.url("/"), "auth-token = \"t\"");
    let program = serve(Binary::Policy, config).await;
    let mut peer = program.peer().await;
    same("policy", &peer.ask("a=b\n\na").await, b"action=DUNNO\n\n");
    same("policy", &peer.ask("=c\n\n").await, b"action=DUNNO\n\n");
    let forms: Vec<_> = backend.requests().iter().map(|r| r.body.clone()).collect();
    assert_eq!(forms, [b"a=b", b"a=c"]);
}

#[tokio::test]
async fn two_maps_of_one_socket_are_asked_apart() {
    let users = Backend::always(json("\"user\""));
    let domains = Backend::always(json("true"));
    let rest = Backend::always(status(404));
    let config = format!(
        "[socketmap.users]\ntarget = \"{}\"\n[socketmap.domains]\ntarget = \"{}\"\n\
         [socketmap.\"*\"]\ntarget = \"{}\"\n",
        users.url("/"),
        domains.url("/"),
        rest.url("/")
    );
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    same(
        "users",
        &peer.ask(netstring("users a")).await,
        &netstring("OK user"),
    );
    same(
        "domains",
        &peer.ask(netstring("domains a")).await,
        &netstring("OK 1"),
    );
    same(
        "users",
        &peer.ask(netstring("users b")).await,
        &netstring("OK user"),
    );
    same(
        "other",
        &peer.ask(netstring("other b")).await,
        &netstring("NOTFOUND "),
    );
    assert_eq!((users.count(), domains.count()), (2, 1));
    assert_eq!(rest.only().target, "/?name=other&key=b");
}

#[tokio::test]
async fn the_name_of_a_map_is_escaped_like_a_key() {
    let backend = Backend::always(json("\"v\""));
    let config = format!(
        "[socketmap.\"*\"]\ntarget = \"{}\"\n",
        backend.url("/m/{name}?key={key}")
    );
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    for name in ["", ".", ".."] {
        let reply = peer.ask(netstring(format!("{name} key"))).await;
        same(name, &reply, &netstring("NOTFOUND "));
    }
    assert_eq!(backend.count(), 0);
    let reply = peer.ask(netstring(b"../a?b#c\xff key")).await;
    same("escaped", &reply, &netstring("OK v"));
    assert_eq!(backend.only().target, "/m/..%2Fa%3Fb%23c%FF?key=key");
}
