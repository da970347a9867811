//! Requests cut anywhere, several at once, and the end of a connection.

use crate::support::{
    backend::{Act, Backend, Gate, good},
    peer::question,
    program::{ALL, Binary},
    same,
    tables::{echo, echoed, found, pass_by, serve_tcp, table},
};

#[tokio::test]
async fn a_request_may_be_split_at_every_byte() {
    for binary in ALL {
        let backend = echo(binary);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut others = program.peers::<2>().await;
        let request = question(binary, "t", "a@b.example");
        for at in 1..request.len() {
            let mut peer = program.peer().await;
            peer.send(&request[..at]).await;
            pass_by(&mut others, binary).await;
            peer.send(&request[at..]).await;
            same(
                binary.name(),
                &peer.reply().await,
                &echoed(binary, "a@b.example"),
            );
            peer.finish().await;
            peer.expect_eof().await;
        }
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    for binary in ALL {
        let backend = echo(binary);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut others = program.peers::<2>().await;
        let mut peer = program.peer().await;
        for byte in question(binary, "t", "a@b.example") {
            peer.send([byte]).await;
            pass_by(&mut others, binary).await;
        }
        same(
            binary.name(),
            &peer.reply().await,
            &echoed(binary, "a@b.example"),
        );
        peer.finish().await;
        peer.expect_eof().await;
        let own = |key: &[u8]| key == b"a@b.example";
        let calls = backend.requests().into_iter().filter(|request| {
            let pairs = match binary {
                Binary::Policy => request.form(),
                _ => request.query(),
            };
            pairs.iter().any(|(_, value)| own(value))
        });
        assert_eq!(calls.count(), 1, "{binary:?}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_wherever_they_are_cut() {
    for binary in ALL {
        let backend = echo(binary);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut others = program.peers::<2>().await;
        let keys: Vec<String> = (0..5).map(|number| format!("key{number}")).collect();
        let requests: Vec<u8> = keys
            .iter()
            .flat_map(|key| question(binary, "t", key))
            .collect();
        let replies: Vec<u8> = keys.iter().flat_map(|key| echoed(binary, key)).collect();
        for at in [0, 1, 2, 3, 7, 11, 13, 17, requests.len() - 1] {
            let mut peer = program.peer().await;
            peer.send(&requests[..at]).await;
            pass_by(&mut others, binary).await;
            peer.send(&requests[at..]).await;
            peer.expect(&replies).await;
            peer.finish().await;
            peer.expect_eof().await;
        }
    }
}

#[tokio::test]
async fn two_thousand_requests_at_once_are_answered_in_order() {
    for binary in ALL {
        let backend = echo(binary);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let keys: Vec<String> = (0..2_000).map(|number| format!("key{number}")).collect();
        let requests: Vec<u8> = keys
            .iter()
            .flat_map(|key| question(binary, "t", key))
            .collect();
        let mut peer = program.peer().await;
        peer.send(requests).await;
        peer.finish().await;
        for key in &keys {
            same(binary.name(), &peer.reply().await, &echoed(binary, key));
        }
        peer.expect_eof().await;
        assert_eq!(backend.count(), keys.len());
    }
}

/// One call at a time: the second request of a connection waits for the first one's reply.
#[tokio::test]
async fn a_connection_has_one_call_at_a_time() {
    for binary in ALL {
        let gate = Gate::shut();
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(good(binary, "DUNNO"));
        let backend = Backend::always(script);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        peer.send(question(binary, "t", "key").repeat(3)).await;
        for number in 1..=3 {
            backend.asked(number).await;
            assert_eq!(backend.count(), number, "{binary:?}");
            gate.pass(1);
            same(binary.name(), &peer.reply().await, &found(binary, "DUNNO"));
        }
    }
}

#[tokio::test]
async fn what_was_asked_before_the_end_is_answered_before_the_end() {
    for binary in ALL {
        let backend = echo(binary);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        peer.send(question(binary, "t", "one")).await;
        peer.send(question(binary, "t", "two")).await;
        peer.finish().await;
        peer.expect(echoed(binary, "one")).await;
        peer.expect(echoed(binary, "two")).await;
        peer.expect_eof().await;
    }
}

#[tokio::test]
async fn the_end_in_the_middle_of_a_request_is_no_request() {
    for binary in ALL {
        let backend = echo(binary);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let request = question(binary, "t", "key");
        for length in 0..request.len() {
            let mut peer = program.peer().await;
            peer.send(&request[..length]).await;
            peer.finish().await;
            peer.expect_eof().await;
        }
        let mut peer = program.peer().await;
        peer.send([request.as_slice(), &request[..request.len() - 1]].concat())
            .await;
        peer.finish().await;
        peer.expect(echoed(binary, "key")).await;
        peer.expect_eof().await;
        assert_eq!(backend.count(), 1, "{binary:?}");
    }
}

#[tokio::test]
async fn a_reset_peer_cancels_its_call() {
    for binary in ALL {
        let backend = Backend::always(vec![Act::Hang]);
        let keys = "request-timeout = \"80s\"";
        let program = serve_tcp(binary, table(binary, &backend.url("/"), keys)).await;
        let mut peer = program.peer().await;
        peer.send(question(binary, "t", "key")).await;
        backend.asked(1).await;
        peer.reset();
        backend.left(1).await;
        assert_eq!(backend.count(), 1, "{binary:?}: asked again for nobody");
    }
}
