//! Connections to a backend that are kept for further calls.

use crate::{
    servers::web::{Answer, Web},
    support::{
        backend::{Act, Backend, good, plain, raw, status, typed},
        peer::{framed, question},
        program::{ALL, Binary},
        replies::{DUNNO, NOT_FOUND},
        same,
        tables::{serve, table},
    },
};

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

/// uvicorn closes without a word in its answer, Node and others sometimes.
#[tokio::test]
async fn a_connection_is_not_used_again_after_a_5xx() {
    for binary in ALL {
        for script in [
            typed(500, "text/plain", "Internal Server Error"),
            status(500),
        ] {
            // The next request over the same connection finds it closed.
            let mut closing = script.clone();
            closing.push(Act::Hang);
            let backend = Backend::in_turn([closing, good(binary, "DUNNO")]);
            let keys = "retries = 0\nbreaker = false\n";
            let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
            let mut peer = program.peer().await;
            peer.ask(question(binary, "t", "key")).await;
            let reply = peer.ask(question(binary, "t", "key")).await;
            same(binary.name(), &reply, &DUNNO.by(binary));
        }
    }
}

#[tokio::test]
async fn a_body_longer_than_it_says_never_answers_the_next_question() {
    for binary in ALL {
        let more = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n\
                    \"DUNNO\"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                    Content-Length: 8\r\n\r\n\"REJECT\"";
        let backend = Backend::in_turn([vec![raw(more)], status(204)]);
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        let first = peer.ask(question(binary, "t", "key")).await;
        same(binary.name(), &first, &DUNNO.by(binary));
        let second = peer.ask(question(binary, "t", "key")).await;
        same(binary.name(), &second, &NOT_FOUND.by(binary));
    }
}

#[tokio::test]
async fn policy_notices_that_a_kept_connection_was_closed() {
    let mut script = plain("DUNNO");
    script.push(Act::Finish);
    let backend = Backend::always(script);
    let config = table(Binary::Policy, &backend.url("/"), "");
    let program = serve(Binary::Policy, config).await;
    let mut peer = program.peer().await;
    for number in 1..=5 {
        let reply = peer.ask(question(Binary::Policy, "t", "key")).await;
        same("policy", &reply, &framed(Binary::Policy, "DUNNO"));
        // Nothing is to be sent over a connection whose end is known.
        backend.left(number).await;
    }
    assert_eq!(backend.count(), 5);
}
