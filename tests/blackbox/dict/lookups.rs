//! Answers to lookups, and what Dovecot gets for them.

use super::{hello, serve, served, table, talk};
use crate::support::{
    Wrong,
    backend::{Act, Backend, json, plain, raw, response, status, typed},
    program::Reserved,
};

#[tokio::test]
async fn any_json_is_a_value_and_only_null_is_none() {
    let mut wrong = Wrong::default();
    for (body, expected) in [
        (r#""""#, "O\n"),
        (r#""a b""#, "Oa b\n"),
        (
            r#""a\tb\nc\rd\u0000e\u0001""#,
            "Oa\x01tb\x01nc\x01rd\x010e\x011\n",
        ),
        ("\"\\u00fc/%\"", "O\u{fc}/%\n"),
        (
            " {\"uid\": \"vmail\", \"quota\": [1, 2.50]} \r\n",
            "O{\"uid\": \"vmail\", \"quota\": [1, 2.50]}\n",
        ),
        ("[]", "O[]\n"),
        ("{}", "O{}\n"),
        ("0", "O0\n"),
        ("1e400", "O1e400\n"),
        ("true", "Otrue\n"),
        ("false", "Ofalse\n"),
        ("{\n \"a\": \"\tb\"\n}", "Fbackend answer not understood\n"),
        ("{\n \"a\": 1\n}", "O{\x01n \"a\": 1\x01n}\n"),
        ("null", "N\n"),
        ("", "Fbackend answer not understood\n"),
        ("a", "Fbackend answer not understood\n"),
        ("\"a\" \"b\"", "Fbackend answer not understood\n"),
        ("{\"a\": ", "Fbackend answer not understood\n"),
        ("<html>", "Fbackend answer not understood\n"),
        ("\"\\ud800\"", "Fbackend answer not understood\n"),
    ] {
        let backend = Backend::always(json(body));
        let (_program, mut peer) = served(&backend, "").await;
        peer.send("Lshared/k\t\n").await;
        wrong.compare(body, &peer.reply().await, expected.as_bytes());
    }
    wrong.none();
}

#[tokio::test]
async fn text_is_the_whole_body() {
    let script = "require \"fileinto\";\r\nkeep;\n\n";
    let mut wrong = Wrong::default();
    for (answer, expected) in [
        (
            plain(script),
            "Orequire \"fileinto\";\x01r\x01nkeep;\x01n\x01n\n",
        ),
        (plain(""), "O\n"),
        (plain("  a, b  "), "O  a, b  \n"),
        (plain("\"a\""), "O\"a\"\n"),
        (plain("null"), "Onull\n"),
        (typed(200, "text/html", "keep;"), "Okeep;\n"),
        (
            typed(200, "text/html", "<h1>502</h1>"),
            "Fbackend answer not understood\n",
        ),
        (plain("<!doctype html>"), "Fbackend answer not understood\n"),
        (plain(b"\xff"), "Fvalue cannot be sent\n"),
        (status(404), "N\n"),
        // Nothing but the end of the connection ends it, as after a crash.
        (
            vec![raw("HTTP/1.1 200 OK\r\n\r\n"), Act::Close],
            "Fbackend answer not understood\n",
        ),
    ] {
        let backend = Backend::always(answer);
        let (_program, mut peer) = served(&backend, "response = \"text\"").await;
        peer.send("Lshared/k\t\n").await;
        wrong.compare(expected, &peer.reply().await, expected.as_bytes());
    }
    wrong.none();
}

#[tokio::test]
async fn a_failure_is_said_at_once_and_never_as_not_found() {
    let mut wrong = Wrong::default();
    let moved = response(301, &[("Location", "/elsewhere")], "");
    for (row, answer, keys, expected) in [
        ("404", status(404), "", "N\n"),
        ("204", status(204), "", "N\n"),
        ("401", status(401), "", "Fbackend answered 401\n"),
        ("403", status(403), "", "Fbackend answered 403\n"),
        ("405", status(405), "", "Fbackend answered 405\n"),
        ("429", status(429), "", "Fbackend answered 429\n"),
        ("500", status(500), "", "Fbackend answered 500\n"),
        ("503", status(503), "", "Fbackend answered 503\n"),
        ("301", moved, "", "Fbackend answered 301\n"),
        ("201", status(201), "", "Fbackend answered 201\n"),
        (
            "404 is temporary",
            status(404),
            "status = { 404 = \"temporary\" }",
            "Fbackend answered 404\n",
        ),
        (
            "410 is not found",
            status(410),
            "status = { 410 = \"not-found\" }",
            "N\n",
        ),
        (
            "201 is read",
            typed(201, "application/json", "\"v\""),
            "status = { 201 = \"found\" }",
            "Ov\n",
        ),
        ("closes", vec![Act::Close], "", "Fbackend unreachable\n"),
        ("resets", vec![Act::Reset], "", "Fbackend unreachable\n"),
        (
            "cut short",
            vec![
                raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\"ab"),
                Act::Close,
            ],
            "",
            "Fbackend answer not understood\n",
        ),
        (
            "no HTTP",
            vec![raw("SSH-2.0-x\r\n\r\n"), Act::Close],
            "",
            "Fbackend answer not understood\n",
        ),
        (
            "hangs",
            vec![Act::Hang],
            "request-timeout = \"300ms\"",
            "Fbackend timed out\n",
        ),
        (
            "too long",
            json(format!("\"{}\"", "x".repeat(2_000))),
            "max-response = \"1KiB\"",
            "Fbackend answer too long\n",
        ),
        (
            "an error",
            json("{\"error\": \"locked\"}"),
            "error = \"/error\"",
            "Fbackend reported an error\n",
        ),
        (
            "no header",
            json("\"v\""),
            "require-header = { X-Own = \"1\" }",
            "Fbackend answer not understood\n",
        ),
        (
            "value",
            json("{\"data\": {\"v\": [1]}}"),
            "value = \"/data/v\"",
            "O[1]\n",
        ),
        (
            "no value",
            json("{\"data\": {}}"),
            "value = \"/data/v\"",
            "Fbackend answer not understood\n",
        ),
        (
            "no value is none",
            json("{\"data\": {}}"),
            "value = \"/data/v\"\nmissing = \"not-found\"",
            "N\n",
        ),
    ] {
        let backend = Backend::always(answer);
        let (_program, mut peer) = served(&backend, keys).await;
        // The connection stays, whatever the first answer was.
        for _ in 0..2 {
            peer.send("Lshared/k\t\n").await;
            wrong.compare(row, &peer.reply().await, expected.as_bytes());
        }
    }
    wrong.none();
}

#[tokio::test]
async fn an_api_that_is_down_is_a_failure_and_is_found_again() {
    let reserved = Reserved::new();
    let target = format!("http://{}/d", reserved.address());
    let program = serve(table(
        &target,
        "breaker = { failures = 2, pause = \"500ms\" }",
    ))
    .await;
    let mut peer = hello(&program).await;
    for _ in 0..2 {
        talk(&mut peer, "Lshared/k\t\n", "Fbackend unreachable\n").await;
    }
    talk(&mut peer, "Lshared/k\t\n", "Fbackend down\n").await;
    program.logged("t: down: ").await;
    let _backend = Backend::at(reserved, |_| json("\"v\""));
    loop {
        peer.send("Lshared/k\t\n").await;
        if peer.reply().await == b"Ov\n" {
            break;
        }
    }
    program.logged("t: up: ").await;
}

#[tokio::test]
async fn the_name_in_the_hello_picks_the_dict() {
    let backend = Backend::new(|request| json(format!("\"{}\"", request.target)));
    let config = [("a", "/one"), ("\"*\"", "/other")]
        .map(|(name, path)| {
            format!(
                "[dict.{name}]\ntarget = \"{}\"\nquery = {{ n = \"{{dict}}\", k = \"{{key}}\" }}\n",
                backend.url(path)
            )
        })
        .concat();
    let program = serve(config).await;
    for (name, expected) in [
        ("a", "O/one?n=a&k=k\n"),
        ("b", "O/other?n=b&k=k\n"),
        ("", "O/other?n=&k=k\n"),
        ("b:c d\x01te", "O/other?n=b%3Ac%20d%09e&k=k\n"),
    ] {
        let mut peer = program.peer().await;
        talk(
            &mut peer,
            &format!("H3\t2\t0\t\t{name}\nLshared/k\t\n"),
            expected,
        )
        .await;
    }
    let backend = Backend::always(json("\"v\""));
    let program = serve(table(&backend.url("/"), "")).await;
    let mut peer = program.peer().await;
    peer.send("H3\t2\t0\t\tother\nLshared/k\t\nI0\t0\tshared/\t\nB1\t\nS1\tshared/k\tv\nC1\n")
        .await;
    peer.expect("Funknown dict\nFunknown dict\nF1\tunknown dict\n")
        .await;
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn every_version_of_dovecot_is_served() {
    let backend = Backend::always(json("\"v\""));
    let program = serve(table(
        &backend.url("/d"),
        "query = { u = \"{user}\", k = \"{key}\" }",
    ))
    .await;
    for (hello, lookup) in [
        ("H2\t0\t0\tjoe\tt\n", "Lpriv/k\n"),
        ("H2\t2\t0\tjoe\tt\n", "Lpriv/k\n"),
        ("H3\t2\t0\t\tt\n", "Lpriv/k\tjoe\n"),
        ("H4\t0\t0\t\tt\n", "Lpriv/k\tjoe\n"),
        ("H4\t9\t1\tann\tt\n", "Lpriv/k\tjoe\n"),
    ] {
        let mut peer = program.peer().await;
        talk(&mut peer, &format!("{hello}{lookup}"), "Ov\n").await;
    }
    for request in backend.requests() {
        assert_eq!(request.target, "/d?u=joe&k=k");
    }
    for hello in [
        "H1\t0\t0\t\tt\n",
        "H5\t0\t0\t\tt\n",
        "H\n",
        "L\n",
        "Hx\t0\t0\t\tt\n",
    ] {
        let mut peer = program.peer().await;
        peer.send(format!("{hello}Lshared/k\t\n")).await;
        peer.expect_closed().await;
    }
}
