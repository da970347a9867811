//! Peers that are hostile, slow or many.

use crate::support::{
    Seen,
    backend::{Backend, good},
    peer::question,
    program::{ALL, Binary, Launch, allow_descriptors},
    same, soon,
    tables::{echo, echoed, found, pass_by, serve_tcp, table},
};

#[tokio::test]
async fn hostile_peers_disturb_nobody() {
    for binary in ALL {
        let backend = echo(binary);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut neighbour = program.peer().await;
        let hostile: [&[u8]; 7] = [
            b"-1:",
            b"\0\0\0\0",
            b"\xff\xfe\xfd\n\n",
            b"99999999999999999999:",
            b"get %\n",
            b"=\n\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",
        ];
        for bytes in hostile {
            let mut peer = program.peer().await;
            peer.send_what_it_takes(bytes).await;
            peer.reset();
            let mut peer = program.peer().await;
            peer.send_what_it_takes(bytes).await;
            peer.send_what_it_takes(question(binary, "t", "mine")).await;
            drop(peer);
            let reply = neighbour.ask(question(binary, "t", "key")).await;
            same(binary.name(), &reply, &echoed(binary, "key"));
        }
        let end = program.stop().await;
        assert!(!end.stderr.contains("panic"), "{end:#?}");
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_disturbs_nobody_and_is_dropped() {
    for binary in ALL {
        let value = match binary {
            Binary::TcpLookup => "a".repeat(4_000),
            Binary::Socketmap => "a".repeat(90_000),
            Binary::Policy => format!("REJECT {}", "a".repeat(400)),
        };
        let backend = Backend::always(good(binary, &value));
        let config = format!(
            "[server]\nread-timeout = \"300ms\"\n{}",
            table(binary, &backend.url("/"), "")
        );
        // The kernel holds far less for a unix socket than for a TCP one.
        let program = Launch::new(binary).config(config).unix("t").ready().await;
        let mut neighbour = program.peer().await;
        let mut deaf = program.peer().await;
        let many = question(binary, "t", "key").repeat(100);
        let neighbour_is_served = async {
            for _ in 0..50 {
                let reply = neighbour.ask(question(binary, "t", "key")).await;
                same(binary.name(), &reply, &found(binary, &value));
            }
        };
        deaf.stuff(&many, neighbour_is_served).await;
        // It sends on until the program has given it up.
        soon(
            "the end of a deaf peer",
            deaf.stuff(&many, std::future::pending()),
        )
        .await;
        let reply = neighbour.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &found(binary, &value));
    }
}

#[tokio::test]
async fn half_a_request_is_not_waited_for_and_an_idle_connection_is_kept() {
    for binary in ALL {
        let backend = echo(binary);
        let config = format!(
            "[server]\nread-timeout = \"300ms\"\n{}",
            table(binary, &backend.url("/"), "")
        );
        let program = serve_tcp(binary, config).await;
        let mut idle = program.peer().await;
        let mut used = program.peer().await;
        used.ask(question(binary, "t", "key")).await;
        let mut half = program.peer().await;
        let request = question(binary, "t", "half");
        half.send(&request[..request.len() - 1]).await;
        half.expect_eof().await;
        for peer in [&mut idle, &mut used] {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same(binary.name(), &reply, &echoed(binary, "key"));
        }
    }
}

#[tokio::test]
async fn a_request_that_trickles_in_is_not_waited_for() {
    for binary in ALL {
        let backend = echo(binary);
        let config = format!(
            "[server]\nread-timeout = \"300ms\"\n{}",
            table(binary, &backend.url("/"), "")
        );
        let program = serve_tcp(binary, config).await;
        let mut others = program.peers::<2>().await;
        let mut peer = program.peer().await;
        // Each byte comes in time, and all of them would take a minute.
        let mut request = question(binary, "t", "a".repeat(60_000)).into_iter();
        for byte in request.by_ref() {
            if !peer.send_what_it_takes([byte]).await {
                break;
            }
            pass_by(&mut others, binary).await;
        }
        assert_ne!(request.len(), 0, "{binary:?}: it was waited for");
        peer.expect_closed().await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_where_the_operator_wants_it() {
    for binary in ALL {
        let backend = echo(binary);
        let config = format!(
            "[server]\nidle-timeout = \"1s\"\n{}",
            table(binary, &backend.url("/"), "")
        );
        let program = serve_tcp(binary, config).await;
        let mut silent = program.peer().await;
        let mut asking = program.peer().await;
        let reply = asking.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &echoed(binary, "key"));
        silent.expect_eof().await;
        asking.expect_eof().await;
    }
}

#[tokio::test]
async fn two_thousand_connections_are_served_at_once() {
    const CONNECTIONS: usize = 2_000;
    allow_descriptors(2 * CONNECTIONS as u64 + 1);

    for binary in ALL {
        let backend = echo(binary);
        let config = format!(
            "[server]\nmax-connections = 3000\n{}",
            table(binary, &backend.url("/"), "request-timeout = \"30s\"")
        );
        let program = serve_tcp(binary, config).await;
        let mut peers = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            peers.push(program.peer().await);
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.send(question(binary, "t", format!("key{number}")))
                .await;
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            let expected = echoed(binary, &format!("key{number}"));
            same(binary.name(), &peer.reply().await, &expected);
        }
        assert_eq!(backend.count(), CONNECTIONS, "{binary:?}");
        // All of them again, the other way round, over the same connections.
        for (number, peer) in peers.iter_mut().enumerate().rev() {
            peer.send(question(binary, "t", format!("again{number}")))
                .await;
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            let expected = echoed(binary, &format!("again{number}"));
            same(binary.name(), &peer.reply().await, &expected);
        }
    }
}

#[tokio::test]
async fn idle_connections_starve_nobody() {
    for binary in ALL {
        let backend = echo(binary);
        let config = table(binary, &backend.url("/"), "max-in-flight = 1");
        let program = serve_tcp(binary, config).await;
        let mut idle = Vec::new();
        for _ in 0..200 {
            let mut peer = program.peer().await;
            peer.send(&question(binary, "t", "half")[..3]).await;
            idle.push(peer);
        }
        let asked = Seen::new();
        let mut peer = program.peer().await;
        for number in 0..20 {
            let key = format!("key{number}");
            let reply = peer.ask(question(binary, "t", &key)).await;
            same(binary.name(), &reply, &echoed(binary, &key));
            asked.push(number);
        }
        assert_eq!(asked.count(), 20);
    }
}
