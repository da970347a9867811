//! Retries after a broken connection.

use crate::support::{
    backend::{Act, Backend, Request, dunno, good, json, json as answer, plain, raw, status},
    peer::{framed, netstring, question},
    program::{ALL, Binary, LOOKUPS},
    replies::{DUNNO, LATER, TIMED_OUT, UNREACHABLE, replies},
    same,
    tables::{ask, expect, serve, table},
};

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
    for (script, expected_reply) in [
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
        same(expected_reply, &reply, &netstring(expected_reply));
        assert_eq!(backend.count(), 1, "{expected_reply}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_asked_once_more_by_lookups_only() {
    for broken in [Act::Close, Act::Reset] {
        for binary in ALL {
            let backend = Backend::in_turn([vec![broken.clone()], good(binary, "DUNNO")]);
            let program = serve(binary, table(binary, &backend.url("/"), "")).await;
            let mut peer = program.peer().await;
            let reply = peer.ask(question(binary, "t", "key")).await;
            let expected_reply = replies("200 DUNNO", "OK DUNNO", LATER);
            same(binary.name(), &reply, &expected_reply.by(binary));
            let calls = if binary == Binary::Policy { 1 } else { 2 };
            assert_eq!(backend.count(), calls, "{binary:?}");
        }
    }
}

/// A backend may close a kept connection at any time; a lookup must not notice.
#[tokio::test]
async fn a_backend_that_closes_after_each_answer_costs_lookups_nothing() {
    for binary in LOOKUPS {
        let mut script = json("\"v\"");
        script.push(Act::Close);
        let backend = Backend::always(script);
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        for _ in 0..50 {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same(
                binary.name(),
                &reply,
                &replies("200 v", "OK v", "").by(binary),
            );
        }
    }
}

/// A policy call may have been counted even if its answer is lost.
#[tokio::test]
async fn policy_is_never_asked_twice_over_connections_that_close() {
    let mut script = plain("DUNNO");
    script.push(Act::Close);
    let backend = Backend::always(script);
    let config = table(Binary::Policy, &backend.url("/"), "");
    let program = serve(Binary::Policy, config).await;
    let mut peer = program.peer().await;
    let mut answered = 0;
    for _ in 0..100 {
        let reply = peer.ask(question(Binary::Policy, "t", "key")).await;
        if reply == framed(Binary::Policy, "DUNNO") {
            answered += 1;
        } else {
            same("lost", &reply, &framed(Binary::Policy, LATER));
        }
    }
    assert_eq!(backend.count(), answered, "as often as it was answered");
}

#[tokio::test]
async fn retries_end_with_the_deadline() {
    let binary = Binary::Socketmap;
    let backend = Backend::in_turn([vec![Act::Close], vec![Act::Hang], dunno()]);
    let keys = "retries = 3\nrequest-timeout = \"500ms\"";
    expect(binary, table(binary, &backend.url("/"), keys), TIMED_OUT).await;
    assert_eq!(backend.count(), 2);
}
