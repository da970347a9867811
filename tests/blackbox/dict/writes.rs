//! What is said of a write, whatever the backend does: done only if it is.

use super::{bodies, calls, hello, serve, served, table, talk};
use crate::servers::{
    frames::{self, CANCEL, Frames, NO_ERROR, REFUSED_STREAM},
    hole::Hole,
};
use crate::support::{
    Wrong,
    backend::{Act, Backend, Script, json, plain, raw, response, status, typed},
    peer::Peer,
    program::Reserved,
};

/// The sub-tables for single operations, at this backend.
fn writable(backend: &Backend) -> String {
    writable_at(&backend.url(""))
}

fn writable_at(url: &str) -> String {
    format!(
        "set = {{ target = \"{0}/{{scope}}{{/path*}}{{/user}}\", body = \"{{value}}\" }}\n\
         unset = {{ target = \"{0}/{{scope}}{{/path*}}{{/user}}\" }}\n\
         increment = {{ target = \"{0}/{{scope}}{{/path*}}{{/user}}\", json = {{ by = \"{{value}}\" }} }}\n\
         retries = 3\nbreaker = false",
        url
    )
}

const OPERATIONS: [(&str, &str); 3] = [
    ("set", "S1\tshared/k\tv\n"),
    ("unset", "U1\tshared/k\n"),
    ("increment", "A1\tshared/k\t5\n"),
];

async fn commit(peer: &mut Peer, operations: &str) -> String {
    peer.send(format!("B1\t\n{operations}C1\n")).await;
    String::from_utf8(peer.reply().await).expect("text")
}

#[tokio::test]
async fn each_status_is_done_not_found_or_failed() {
    let mut wrong = Wrong::default();
    for (code, expected) in [
        (200, ["O1\n", "O1\n", "O1\n"]),
        (201, ["O1\n", "O1\n", "O1\n"]),
        (202, ["O1\n", "O1\n", "O1\n"]),
        (204, ["O1\n", "O1\n", "O1\n"]),
        (404, ["F1\tbackend answered 404\n", "O1\n", "N1\n"]),
        (301, ["F1\tbackend answered 301\n"; 3]),
        (304, ["F1\tbackend answered 304\n"; 3]),
        (400, ["F1\tbackend answered 400\n"; 3]),
        (401, ["F1\tbackend answered 401\n"; 3]),
        (405, ["F1\tbackend answered 405\n"; 3]),
        (409, ["F1\tbackend answered 409\n"; 3]),
        (415, ["F1\tbackend answered 415\n"; 3]),
        (500, ["F1\tbackend answered 500\n"; 3]),
        (503, ["F1\tbackend answered 503\n"; 3]),
    ] {
        let backend = Backend::always(status(code));
        // What is said of statuses is about lookups and lists.
        let keys = format!(
            "{}\nstatus = {{ \"2xx\" = \"not-found\", \"4xx\" = \"found\", 500 = \"found\" }}",
            writable(&backend)
        );
        let (_program, mut peer) = served(&backend, &keys).await;
        for ((name, operation), expected) in OPERATIONS.into_iter().zip(expected) {
            let seen = commit(&mut peer, operation).await;
            wrong.compare(
                &format!("{name} {code}"),
                seen.as_bytes(),
                expected.as_bytes(),
            );
        }
        assert_eq!(backend.count(), 3, "{code}");
    }
    wrong.none();
}

#[tokio::test]
async fn the_body_of_a_2xx_may_say_otherwise() {
    const BAD: &str = "F1\tbackend answer not understood\n";
    let mut wrong = Wrong::default();
    for (row, answer, keys, expected) in [
        ("anything", plain("thank you"), "", "O1\n"),
        ("null", json("null"), "", "O1\n"),
        ("nothing of this length", response(200, &[], ""), "", "O1\n"),
        (
            "nothing and closed",
            vec![raw("HTTP/1.1 200 OK\r\n\r\n"), Act::Close],
            "",
            "O1\n",
        ),
        (
            "HTTP/1.0",
            vec![raw("HTTP/1.0 201 Created\r\n\r\n"), Act::Close],
            "",
            "O1\n",
        ),
        (
            "a page",
            typed(200, "text/html", "<title>Welcome to nginx!</title>"),
            "",
            BAD,
        ),
        ("a page by its body", plain("<!DOCTYPE html>\n<p>"), "", BAD),
        (
            "no header",
            status(200),
            "require-header = { X-Api = \"1\" }",
            BAD,
        ),
        (
            "header",
            response(200, &[("X-Api", "1")], ""),
            "require-header = { X-Api = \"1\" }",
            "O1\n",
        ),
        (
            "no error",
            json("{\"error\": null}"),
            "error = \"/error\"",
            "O1\n",
        ),
        (
            "error",
            json("{\"error\": \"full\"}"),
            "error = \"/error\"",
            "F1\tbackend reported an error\n",
        ),
        (
            "no JSON where an error may be",
            plain("OK"),
            "error = \"/error\"",
            BAD,
        ),
        (
            "nothing where an error may be",
            status(204),
            "error = \"/error\"",
            "O1\n",
        ),
        (
            "value elsewhere",
            json("[]"),
            "value = \"/data/value\"",
            "O1\n",
        ),
    ] {
        let backend = Backend::always(answer);
        let (_program, mut peer) =
            served(&backend, &format!("{}\n{keys}", writable(&backend))).await;
        for (name, operation) in OPERATIONS {
            let seen = commit(&mut peer, operation).await;
            wrong.compare(
                &format!("{row}: {name}"),
                seen.as_bytes(),
                expected.as_bytes(),
            );
        }
    }
    wrong.none();
}

/// A backend that has the request, and does not answer it as it should.
fn faults() -> Vec<(&'static str, Script, &'static str)> {
    vec![
        ("hangs", vec![Act::Hang], "W1\tbackend timed out\n"),
        (
            "half a head",
            vec![raw("HTTP/1.1 200 O"), Act::Hang],
            "W1\tbackend timed out\n",
        ),
        ("closes", vec![Act::Close], "W1\tbackend unreachable\n"),
        ("resets", vec![Act::Reset], "W1\tbackend unreachable\n"),
        (
            "half a head and closes",
            vec![raw("HTTP/1.1 2"), Act::Close],
            "W1\tbackend unreachable\n",
        ),
        (
            "half a body",
            vec![
                raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"),
                Act::Close,
            ],
            "W1\tbackend answer not understood\n",
        ),
        (
            "half a body and hangs",
            vec![
                raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"),
                Act::Hang,
            ],
            "W1\tbackend timed out\n",
        ),
        (
            "half a chunk",
            vec![
                raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
                Act::Reset,
            ],
            "W1\tbackend answer not understood\n",
        ),
        (
            "no HTTP",
            vec![raw("SSH-2.0-OpenSSH\r\n"), Act::Close],
            "W1\tbackend answer not understood\n",
        ),
        (
            "endless",
            vec![
                raw("HTTP/1.1 200 OK\r\n\r\n"),
                Act::Endless(vec![b'x'; 9_999]),
            ],
            "W1\tbackend answer too long\n",
        ),
    ]
}

#[tokio::test]
async fn what_may_have_arrived_without_an_answer_is_uncertain_and_never_sent_twice() {
    let mut wrong = Wrong::default();
    for (row, script, expected) in faults() {
        let backend = Backend::always(script);
        let keys = format!("{}\nrequest-timeout = \"500ms\"", writable(&backend));
        let (_program, mut peer) = served(&backend, &keys).await;
        for (number, (name, operation)) in (1..).zip(OPERATIONS) {
            let seen = commit(&mut peer, operation).await;
            wrong.compare(
                &format!("{row}: {name}"),
                seen.as_bytes(),
                expected.as_bytes(),
            );
            wrong.require(row, backend.count() == number, || {
                format!("{:?}", backend.requests())
            });
        }
    }
    wrong.none();
}

#[tokio::test]
async fn what_was_not_sent_has_failed() {
    let mut wrong = Wrong::default();
    let closed = Reserved::new();
    let mut tables = vec![(
        "refused",
        format!("http://{}", closed.address()),
        "F1\tbackend unreachable\n",
    )];
    tables.push((
        "no such host",
        "http://nowhere.invalid".to_owned(),
        "F1\tbackend unreachable\n",
    ));
    for (row, target, expected) in tables {
        let keys = format!(
            "set = {{ target = \"{target}{{/path*}}\", body = \"{{value}}\" }}\n\
             unset = {{ target = \"{target}{{/path*}}\" }}\n\
             increment = {{ target = \"{target}{{/path*}}\", body = \"{{value}}\" }}\n\
             breaker = {{ failures = 3 }}"
        );
        let program = serve(table(&target, &keys)).await;
        let mut peer = hello(&program).await;
        for (name, operation) in OPERATIONS {
            let seen = commit(&mut peer, operation).await;
            wrong.compare(
                &format!("{row}: {name}"),
                seen.as_bytes(),
                expected.as_bytes(),
            );
        }
        let seen = commit(&mut peer, OPERATIONS[0].1).await;
        wrong.compare(row, seen.as_bytes(), b"F1\tbackend down\n");
        // It is the same host as that of the lookups.
        peer.send("Lshared/k\t\n").await;
        wrong.compare(row, &peer.reply().await, b"Fbackend down\n");
    }
    wrong.none();
}

#[tokio::test]
async fn what_still_waits_for_its_connection_has_failed() {
    let hole = Hole::new().await;
    let deaf = Backend::always(vec![Act::Hang]);
    for url in [
        hole.url("http", ""),
        deaf.url("").replace("http:", "https:"),
    ] {
        let keys = format!(
            "{}\nrequest-timeout = \"300ms\"\nconnect-timeout = \"20s\"",
            writable_at(&url)
        );
        let program = serve(table(&url, &keys)).await;
        let mut peer = hello(&program).await;
        for (name, operation) in OPERATIONS {
            let seen = commit(&mut peer, operation).await;
            assert_eq!(seen, "F1\tbackend timed out\n", "{name} at {url}");
        }
    }
}

#[tokio::test]
async fn over_http_2_a_write_is_as_certain_as_over_http_1() {
    type Answer = fn(u32) -> Vec<frames::Act>;
    let answers: [(&str, Answer, &str, usize); 6] = [
        ("whole", frames::dunno, "O1\n", 1),
        ("none", |_| vec![], "W1\tbackend timed out\n", 1),
        (
            "cancelled",
            |stream| vec![frames::Act::Reset(stream, CANCEL)],
            "W1\tbackend unreachable\n",
            1,
        ),
        (
            "closed",
            |_| vec![frames::Act::Close],
            "W1\tbackend unreachable\n",
            1,
        ),
        (
            "gone away",
            |stream| vec![frames::Act::GoAway(stream, NO_ERROR), frames::Act::Close],
            "W1\tbackend unreachable\n",
            1,
        ),
        // The server says that it has done nothing.
        (
            "refused",
            |stream| vec![frames::Act::Reset(stream, REFUSED_STREAM)],
            "F1\tbackend unreachable\n",
            33,
        ),
    ];
    let mut wrong = Wrong::default();
    for (row, answer, expected, count) in answers {
        for (name, operation) in OPERATIONS {
            let server = Frames::new(move |visit| answer(visit.stream));
            let url = server.url();
            let timeout = if row == "none" { "500ms" } else { "20s" };
            let keys = format!(
                "{}\nhttp-version = \"2\"\nrequest-timeout = \"{timeout}\"\n[server]\ndrain-timeout = \"30s\"",
                writable_at(&url)
            );
            let program = serve(table(&url, &keys)).await;
            let mut peer = hello(&program).await;
            let seen = commit(&mut peer, operation).await;
            let place = format!("{row}: {name}");
            wrong.compare(&place, seen.as_bytes(), expected.as_bytes());
            wrong.require(&place, server.count() == count, || {
                format!("{} calls", server.count())
            });
        }
    }
    wrong.none();
}

#[tokio::test]
async fn a_write_goes_to_the_next_target_only_if_it_was_not_sent() {
    let closed = Reserved::new();
    for (first, expected, count) in [
        (None, "O1\n", 1),
        (Some(vec![Act::Close]), "W1\tbackend unreachable\n", 0),
        (Some(status(503)), "F1\tbackend answered 503\n", 0),
        (Some(status(200)), "O1\n", 0),
    ] {
        let second = Backend::always(status(200));
        let first = first.map(Backend::always);
        let url = first.as_ref().map_or_else(
            || format!("http://{}", closed.address()),
            |first| first.url(""),
        );
        let keys = format!(
            "set = {{ target = [\"{url}{{/path*}}\", \"{}\"], body = \"{{value}}\" }}",
            second.url("{/path*}")
        );
        let program = serve(table(&second.url("/d"), &keys)).await;
        let mut peer = hello(&program).await;
        assert_eq!(commit(&mut peer, "S1\tshared/k\tv\n").await, expected);
        assert_eq!(second.count(), count, "{expected}");
        assert!(first.is_none_or(|first| first.count() == 1));
    }
}

#[tokio::test]
async fn operations_go_in_order_and_stop_at_the_first_that_fails() {
    let backend = Backend::new(|request| match request.target.rsplit('/').next() {
        Some("bad") => status(500),
        Some("gone") => status(404),
        Some("hang") => vec![Act::Hang],
        _ => status(200),
    });
    let keys = format!("{}\nrequest-timeout = \"500ms\"", writable(&backend));
    let (program, mut peer) = served(&backend, &keys).await;
    for (operations, expected, sent) in [
        (
            "S1\tshared/a\t1\nU1\tshared/b\nA1\tshared/c\t-2\nS1\tshared/a\t\n",
            "O1\n",
            &[
                "PUT /shared/a 1",
                "DELETE /shared/b ",
                "PATCH /shared/c {\"by\":\"-2\"}",
                "PUT /shared/a ",
            ][..],
        ),
        (
            "S1\tshared/a\t1\nS1\tshared/bad\t2\nS1\tshared/c\t3\n",
            "F1\tbackend answered 500\n",
            &["PUT /shared/a 1", "PUT /shared/bad 2"],
        ),
        (
            "S1\tshared/bad\t1\nS1\tshared/c\t3\n",
            "F1\tbackend answered 500\n",
            &["PUT /shared/bad 1"],
        ),
        (
            "S1\tshared/a\t1\nA1\tshared/gone\t2\nS1\tshared/c\t3\n",
            "N1\n",
            &["PUT /shared/a 1", "PATCH /shared/gone {\"by\":\"2\"}"],
        ),
        (
            "A1\tshared/gone\t2\nS1\tshared/c\t3\n",
            "N1\n",
            &["PATCH /shared/gone {\"by\":\"2\"}"],
        ),
        (
            "S1\tshared/a\t1\nS1\tshared/hang\t2\nS1\tshared/c\t3\n",
            "W1\tbackend timed out\n",
            &["PUT /shared/a 1", "PUT /shared/hang 2"],
        ),
        (
            "U1\tshared/gone\nS1\tshared/c\t3\n",
            "O1\n",
            &["DELETE /shared/gone ", "PUT /shared/c 3"],
        ),
    ] {
        let before = backend.count();
        assert_eq!(
            commit(&mut peer, operations).await,
            expected,
            "{operations}"
        );
        assert_eq!(bodies(&backend.requests()[before..]), sent, "{operations}");
    }
    // Each call has an id of its own, which leads to that of the transaction.
    let requests = backend.requests();
    let ids: Vec<_> = requests[..4]
        .iter()
        .map(|request| request.header("x-request-id").expect("an id"))
        .collect();
    assert_eq!(ids[1..], [1, 2, 3].map(|part| format!("{}.{part}", ids[0])));
    drop(peer);
    let end = program.stop().await;
    for line in [
        "t: backend answered 500: 1 of 3 operations are done",
        "t: backend answered 500 table=",
        "t: no such key: 1 of 3 operations are done",
        "t: backend timed out: 1 of 3 operations are done: no answer from ",
        " s: it may have been done nevertheless",
    ] {
        let is_there = end.stderr.lines().any(|seen| seen.contains(line));
        assert!(is_there, "{line}: {end:#?}");
    }
}

#[tokio::test]
async fn what_is_known_to_fail_fails_before_anything_is_sent() {
    let backend = Backend::always(status(200));
    let keys = format!(
        "set = {{ target = \"{0}{{/path*}}\", json = {{ v = \"{{value}}\" }} }}\n\
         increment = {{ target = \"{0}/x{{/path*}}{{/user}}\", body = \"{{value}}\" }}",
        backend.url("/s")
    );
    let (_program, mut peer) = served(&backend, &keys).await;
    for (operations, expected) in [
        ("S1\tshared/a\t1\nU1\tshared/b\n", "F1\tdict is read-only\n"),
        ("U1\tshared/b\nS1\tshared/a\t1\n", "F1\tdict is read-only\n"),
        (
            "S1\tshared/a\t1\nS1\tshared/../b\t1\n",
            "F1\tkey cannot be sent\n",
        ),
        (
            "S1\tshared/a\t1\nS1\tshared/\t1\n",
            "F1\tkey cannot be sent\n",
        ),
        // No user, or nothing in the call that carries it.
        (
            "S1\tshared/a\t1\nS1\tpriv/b\t1\n",
            "F1\tkey cannot be sent\n",
        ),
        (
            "S1\tshared/a\t1\nA1\tpriv/b\t1\n",
            "F1\tkey cannot be sent\n",
        ),
        (
            "S1\tshared/a\t1\nS1\tother/b\t1\n",
            "F1\trequest not understood\n",
        ),
        (
            "S1\tshared/a\t1\nA1\tshared/b\tmany\n",
            "F1\trequest not understood\n",
        ),
    ] {
        assert_eq!(
            commit(&mut peer, operations).await,
            expected,
            "{operations}"
        );
    }
    // Bytes that are not UTF-8 cannot be JSON.
    peer.send(b"B1\t\nS1\tshared/a\t1\nS1\tshared/b\t\xff\nC1\n")
        .await;
    peer.expect("F1\tvalue cannot be sent\n").await;
    talk(
        &mut peer,
        "B1\t\t60\nU1\tshared/b\nC1\n",
        "F1\tdict is read-only\n",
    )
    .await;
    talk(
        &mut peer,
        "B1\tjoe\nS1\tpriv/b\t1\nC1\n",
        "F1\tkey cannot be sent\n",
    )
    .await;
    talk(
        &mut peer,
        "B1\t\t60\nS1\tshared/b\t1\nC1\n",
        "F1\tvalue cannot be sent\n",
    )
    .await;
    talk(&mut peer, "B1\t\nC1\n", "O1\n").await;
    assert_eq!(calls(&backend.requests()), Vec::<String>::new());
    let (_program, mut peer) = served(&backend, "").await;
    for (_, operation) in OPERATIONS {
        assert_eq!(
            commit(&mut peer, operation).await,
            "F1\tdict is read-only\n"
        );
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_value_is_sent_as_it_is() {
    let backend = Backend::always(status(200));
    let (_program, mut peer) = served(&backend, &writable(&backend)).await;
    peer.send(b"B1\tj\nS1\tpriv/a\t{\"a\": [1]}\nS1\tpriv/a\t\x01t\x01n\x01r\x010\x011 \xff\nS1\tpriv/a\t\nC1\n").await;
    peer.expect("O1\n").await;
    let sent: Vec<_> = backend
        .requests()
        .into_iter()
        .map(|request| request.body)
        .collect();
    assert_eq!(sent, [&b"{\"a\": [1]}"[..], b"\t\n\r\0\x01 \xff", b""]);
    for request in backend.requests() {
        assert_eq!(request.target, "/priv/a/j");
    }
}

#[tokio::test]
async fn a_redirect_is_followed_only_where_it_keeps_the_write() {
    for (code, location, keys, expected, count) in [
        (307, "/there", "redirects = \"same-origin\"", "O1\n", 2),
        (308, "/there", "redirects = \"same-origin\"", "O1\n", 2),
        (
            301,
            "/there",
            "redirects = \"same-origin\"",
            "F1\tbackend answered 301\n",
            1,
        ),
        (
            303,
            "/there",
            "redirects = \"same-origin\"",
            "F1\tbackend answered 303\n",
            1,
        ),
        (307, "/there", "", "F1\tbackend answered 307\n", 1),
        (
            307,
            "http://127.0.0.1:9/",
            "redirects = \"same-origin\"",
            "F1\tbackend answered 307\n",
            1,
        ),
    ] {
        let backend =
            Backend::in_turn([response(code, &[("Location", location)], ""), status(200)]);
        let (_program, mut peer) =
            served(&backend, &format!("{}\n{keys}", writable(&backend))).await;
        assert_eq!(
            commit(&mut peer, "S1\tshared/k\tv\n").await,
            expected,
            "{code}"
        );
        let requests = backend.requests();
        assert_eq!(requests.len(), count, "{code}");
        assert!(
            requests.iter().all(|request| request.body == b"v"),
            "{code}"
        );
    }
}
