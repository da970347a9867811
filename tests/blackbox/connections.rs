//! How the programs treat connections: requests cut anywhere, peers of every kind, limits, and the
//! signals of the service manager.

use std::{fmt::Write as _, path::Path};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};
use tokio::{fs::OpenOptions, io::AsyncWriteExt};

use crate::support::{
    Seen,
    backend::{Act, Backend, Gate, Script, good, json, plain, status},
    peer::{Peer, framed, netstring, question},
    program::{ALL, Binary, End, Launch, Program, Reserved, allow_descriptors, said},
    said::LATER,
    same, soon,
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

/// Each of these is answered so and costs the connection, and nothing of it reaches the backend.
async fn malformed(binary: Binary, requests: &[&[u8]], reply: &[u8]) {
    let backend = echo(binary);
    let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
    let mut neighbour = program.peer().await;
    for request in requests {
        let what = crate::support::shown(request);
        let mut peer = program.peer().await;
        peer.send(request).await;
        same(&what, &peer.reply().await, reply);
        peer.expect_eof().await;
    }
    assert_eq!(backend.count(), 0);
    let alive = neighbour.ask(question(binary, "t", "key")).await;
    same("the neighbour", &alive, &echoed(binary, "key"));
    let alive = program.peer().await.ask(question(binary, "t", "key")).await;
    same("the next one", &alive, &echoed(binary, "key"));
}

#[tokio::test]
async fn a_malformed_line_is_refused_and_closed() {
    let lines: [&[u8]; 18] = [
        b"put a b\n",
        b"get %zz\n",
        b"get a%2\n",
        b"get %\n",
        b"get %%41\n",
        b"get\n",
        b"GET k\n",
        b"Get k\n",
        b"get k\r\n",
        b"get a b\n",
        b"get\tk\n",
        b" get k\n",
        b"\n",
        b"\r\n",
        b"k\n",
        b"get a\0b\n",
        b"GET / HTTP/1.1\r\n",
        b"quit\n",
    ];
    malformed(
        Binary::TcpLookup,
        &lines,
        b"400 request%20not%20understood\n",
    )
    .await;
}

#[tokio::test]
async fn a_malformed_netstring_is_refused_and_closed() {
    let not_understood: [&[u8]; 11] = [
        b"-1:",
        b"+3:t k,",
        b"x",
        b"a:t k,",
        b"0x3:t k,",
        b":,",
        b" 3:t k,",
        b"3 :t k,",
        b"3:t k;",
        b"3:t k\n",
        b"get k\n",
    ];
    let reply = netstring("PERM request not understood");
    malformed(Binary::Socketmap, &not_understood, &reply).await;

    // The length alone tells; nobody waits for what it announces.
    let too_long: [&[u8]; 4] = [
        b"999999999:",
        b"65537:",
        b"18446744073709551616:some data...",
        b"99999999999999999999999999999999999999:",
    ];
    malformed(
        Binary::Socketmap,
        &too_long,
        &netstring("PERM request too long"),
    )
    .await;
}

#[tokio::test]
async fn a_well_framed_request_that_asks_nothing_keeps_its_connection() {
    let backend = echo(Binary::Socketmap);
    let config = table(Binary::Socketmap, &backend.url("/"), "");
    let program = serve_tcp(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    let not_understood = netstring("PERM request not understood");
    let unknown = netstring("PERM unknown map");
    let key = echoed(Binary::Socketmap, "key");
    let rows: [(&[u8], &[u8]); 9] = [
        (b"0:,", &not_understood),
        (b"00:,", &not_understood),
        (b"3:abc,", &not_understood),
        (b"1:t,", &not_understood),
        (b"14:invalidrequest,", &not_understood),
        (b"9:nobody ab,", &unknown),
        (b"4:\xff\xfe k,", &unknown),
        (b"5:T key,", &unknown),
        (b"4: key,", &unknown),
    ];
    for (request, reply) in rows {
        same(
            &crate::support::shown(request),
            &peer.ask(request).await,
            reply,
        );
        let next = peer.ask(question(Binary::Socketmap, "t", "key")).await;
        same("the next request", &next, &key);
    }
    assert_eq!(backend.count(), rows.len());
    // Postfix's own reader takes leading zeros.
    same("leading zeros", &peer.ask("0005:t key,").await, &key);
}

#[tokio::test]
async fn a_malformed_block_is_deferred_and_closed() {
    let blocks: [&[u8]; 10] = [
        b"\n",
        b"invalidline\n\n",
        b"request=smtpd_access_policy\ninvalidline\n\n",
        b"request=smtpd_access_policy\nrecipient=a@b.example\nno\n\n",
        b"request=junk\n\n",
        b"request=\n\n",
        b"request=SMTPD_ACCESS_POLICY\nrecipient=a@b.example\n\n",
        b"recipient=a@b.example\nrequest=other\n\n",
        b"=a@b.example\n\n",
        b"recipient=a@b.example\r\n\r\n",
    ];
    malformed(Binary::Policy, &blocks, &framed(Binary::Policy, LATER)).await;
}

#[tokio::test]
async fn a_block_without_request_is_served() {
    let backend = Backend::always(plain("DUNNO"));
    let config = table(Binary::Policy, &backend.url("/"), "");
    let program = serve_tcp(Binary::Policy, config).await;
    let mut peer = program.peer().await;
    for _ in 0..2 {
        same(
            "served",
            &peer.ask("sender=\n\n").await,
            b"action=DUNNO\n\n",
        );
    }
}

/// A request of so many bytes: of a whole line or block, or of a netstring's payload.
fn sized(binary: Binary, length: usize) -> Vec<u8> {
    let padding = |rest: &str| "a".repeat(length - rest.len());
    match binary {
        Binary::TcpLookup => format!("get {}@b.example\n", padding("get @b.example\n")).into(),
        Binary::Socketmap => netstring(format!("t {}@b.example", padding("t @b.example"))),
        Binary::Policy => format!("sender={}\n\n", padding("sender=\n\n")).into(),
    }
}

#[tokio::test]
async fn a_request_of_65536_bytes_is_served_and_a_longer_one_refused() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        // Only a part of the key is asked about, because no URL may be so long.
        let target = match binary {
            Binary::Policy => backend.url("/"),
            Binary::TcpLookup | Binary::Socketmap => backend.url("/{domain}"),
        };
        let program = serve_tcp(binary, table(binary, &target, "")).await;
        let mut peer = program.peer().await;
        let reply = peer.ask(sized(binary, 65_536)).await;
        same("served", &reply, &found(binary, "DUNNO"));
        assert_eq!(backend.count(), 1, "{binary:?}");

        let refused = match binary {
            Binary::TcpLookup => framed(binary, "400 request%20too%20long"),
            Binary::Socketmap => framed(binary, "PERM request too long"),
            Binary::Policy => framed(binary, LATER),
        };
        let mut peer = program.peer().await;
        peer.send_what_it_takes(sized(binary, 65_537)).await;
        same("refused", &peer.reply().await, &refused);
        // What it did not read must not reset the connection and cost the peer this reply.
        peer.expect_eof().await;
        assert_eq!(backend.count(), 1, "{binary:?}");
    }
}

#[tokio::test]
async fn a_megabyte_without_an_end_is_refused_long_before() {
    for (binary, start, refused) in [
        (Binary::TcpLookup, "get ", "400 request%20too%20long"),
        (Binary::TcpLookup, "", "400 request%20too%20long"),
        (Binary::Policy, "sender=", LATER),
        (Binary::Policy, "", LATER),
        (Binary::Policy, "request=smtpd_access_policy\n", LATER),
    ] {
        let backend = echo(binary);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        let endless = format!("{start}{}", "a".repeat(1_000_000));
        peer.send_what_it_takes(endless).await;
        same(start, &peer.reply().await, &framed(binary, refused));
        peer.expect_closed().await;
        assert_eq!(backend.count(), 0);
    }
}

#[tokio::test]
async fn many_short_attributes_are_one_request_too_long() {
    let backend = Backend::always(plain("DUNNO"));
    let config = table(Binary::Policy, &backend.url("/"), "");
    let program = serve_tcp(Binary::Policy, config).await;
    let attributes = |count: usize| {
        (0..count).fold(String::new(), |mut block, number| {
            writeln!(block, "a{number}=").expect("a line");
            block
        })
    };
    let mut peer = program.peer().await;
    let reply = peer.ask(attributes(512) + "\n").await;
    same("the most", &reply, b"action=DUNNO\n\n");
    assert_eq!(backend.only().form().len(), 512);
    peer.send_what_it_takes(attributes(100_000)).await;
    same(
        "too many",
        &peer.reply().await,
        &framed(Binary::Policy, LATER),
    );
    peer.expect_closed().await;
}

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
async fn at_the_cap_the_connection_idle_longest_makes_room() {
    for binary in ALL {
        let backend = echo(binary);
        let config = format!(
            "[server]\nmax-connections = 3\n{}",
            table(binary, &backend.url("/"), "")
        );
        let program = serve_tcp(binary, config).await;
        let mut peers = Vec::new();
        for _ in 0..3 {
            let mut peer = program.peer().await;
            peer.ask(question(binary, "t", "first")).await;
            peers.push(peer);
        }
        // From here on the second one is idle longest, and has time to notice that itself.
        for _ in 0..20 {
            let reply = peers[0].ask(question(binary, "t", "again")).await;
            same(binary.name(), &reply, &echoed(binary, "again"));
        }
        let mut fourth = program.peer().await;
        let reply = fourth.ask(question(binary, "t", "fourth")).await;
        same(binary.name(), &reply, &echoed(binary, "fourth"));
        peers[1].expect_eof().await;
        for number in [0, 2] {
            let reply = peers[number].ask(question(binary, "t", "kept")).await;
            same(binary.name(), &reply, &echoed(binary, "kept"));
        }
    }
}

#[tokio::test]
async fn where_all_are_busy_a_new_connection_waits_and_is_served() {
    for binary in ALL {
        let gate = Gate::shut();
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(good(binary, "DUNNO"));
        let backend = Backend::always(script);
        let config = format!(
            "[server]\nmax-connections = 2\n{}",
            table(binary, &backend.url("/"), "request-timeout = \"80s\"")
        );
        let program = serve_tcp(binary, config).await;
        let mut busy = program.asking(2).await;
        backend.asked(2).await;
        let mut third = program.peer().await;
        third.send(question(binary, "t", "key")).await;
        assert_eq!(backend.count(), 2, "{binary:?}");
        gate.pass(2);
        for peer in &mut busy {
            same(binary.name(), &peer.reply().await, &found(binary, "DUNNO"));
        }
        backend.asked(3).await;
        gate.pass(1);
        same(binary.name(), &third.reply().await, &found(binary, "DUNNO"));
    }
}

#[tokio::test]
async fn a_reload_that_raises_the_cap_lets_in_who_waits() {
    let binary = Binary::Socketmap;
    let backend = Backend::always(vec![Act::Hang]);
    let table = table(binary, &backend.url("/"), "request-timeout = \"80s\"");
    let config = |cap| format!("[server]\nmax-connections = {cap}\n{table}");
    let program = serve_tcp(binary, config(1)).await;
    let _busy = program.asking(1).await;
    backend.asked(1).await;
    let _waiting = program.asking(1).await;
    program.rewrite(&config(2));
    program.signal(Signal::HUP);
    backend.asked(2).await;
}

#[tokio::test]
async fn a_hanging_backend_holds_up_its_own_table_only() {
    let hanging = Backend::always(vec![Act::Hang]);
    let well = echo(Binary::Socketmap);
    let config = format!(
        "[socketmap.slow]\ntarget = \"{}\"\nmax-in-flight = 1\nrequest-timeout = \"500ms\"\n\
         [socketmap.t]\ntarget = \"{}\"\nmax-in-flight = 1\n",
        hanging.url("/"),
        well.url("/")
    );
    let program = serve_tcp(Binary::Socketmap, config).await;
    let mut first = program.peer().await;
    let mut second = program.peer().await;
    let mut other = program.peer().await;
    first.send(netstring("slow a")).await;
    hanging.asked(1).await;
    second.send(netstring("slow b")).await;
    let reply = other.ask(question(Binary::Socketmap, "t", "key")).await;
    same("the other table", &reply, &echoed(Binary::Socketmap, "key"));
    same(
        "first",
        &first.reply().await,
        &netstring("TIMEOUT backend timed out"),
    );
    // It waits in vain to its own deadline, or gets the place in its last moment.
    let busy = netstring("TEMP backend busy");
    let late = netstring("TIMEOUT backend timed out");
    let reply = second.reply().await;
    assert!(
        reply == busy || reply == late,
        "{}",
        crate::support::shown(&reply)
    );
}

#[tokio::test]
async fn of_many_waiting_for_one_place_each_is_answered_in_time() {
    let hanging = Backend::always(vec![Act::Hang]);
    let keys = "max-in-flight = 1\nrequest-timeout = \"500ms\"";
    let config = table(Binary::Socketmap, &hanging.url("/"), keys);
    let program = serve_tcp(Binary::Socketmap, config).await;
    let mut peers = Vec::new();
    for _ in 0..100 {
        let mut peer = program.peer().await;
        peer.send(question(Binary::Socketmap, "t", "key")).await;
        peers.push(peer);
    }
    // Which of these depends on who was first; none is told anything else.
    let reasons = [
        "TEMP backend busy",
        "TIMEOUT backend timed out",
        "TEMP backend down",
    ];
    for peer in &mut peers {
        let reply = peer.reply().await;
        let is_one = reasons.iter().any(|reason| reply == netstring(reason));
        assert!(is_one, "{}", crate::support::shown(&reply));
    }
}

#[tokio::test]
async fn a_place_that_becomes_free_is_taken_by_the_one_who_waits() {
    for binary in ALL {
        let gate = Gate::shut();
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(good(binary, "DUNNO"));
        let backend = Backend::always(script);
        let keys = "max-in-flight = 1\nrequest-timeout = \"80s\"";
        let program = serve_tcp(binary, table(binary, &backend.url("/"), keys)).await;
        let mut first = program.peer().await;
        let mut second = program.peer().await;
        first.send(question(binary, "t", "key")).await;
        backend.asked(1).await;
        second.send(question(binary, "t", "key")).await;
        gate.pass(1);
        same(binary.name(), &first.reply().await, &found(binary, "DUNNO"));
        backend.asked(2).await;
        gate.pass(1);
        same(
            binary.name(),
            &second.reply().await,
            &found(binary, "DUNNO"),
        );
    }
}

#[tokio::test]
async fn many_take_turns_at_one_place() {
    for binary in ALL {
        let backend = echo(binary);
        let keys = "max-in-flight = 1\nrequest-timeout = \"80s\"";
        let program = serve_tcp(binary, table(binary, &backend.url("/"), keys)).await;
        let mut peers = Vec::new();
        for number in 0..200 {
            let mut peer = program.peer().await;
            peer.send(question(binary, "t", format!("key{number}")))
                .await;
            peers.push(peer);
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            let expected = echoed(binary, &format!("key{number}"));
            same(binary.name(), &peer.reply().await, &expected);
        }
    }
}

/// A program with one idle connection and one whose call hangs at a gate.
struct InFlight {
    program: Program,
    backend: Backend,
    gate: Gate,
    idle: Peer,
    asking: Peer,
}

impl InFlight {
    async fn start(binary: Binary, server: &str) -> Self {
        let gate = Gate::shut();
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(good(binary, "DUNNO"));
        let backend = Backend::always(script);
        let config = format!(
            "[server]\n{server}\n{}",
            table(binary, &backend.url("/"), "request-timeout = \"80s\"")
        );
        let program = serve_tcp(binary, config).await;
        let mut idle = program.peer().await;
        idle.send(question(binary, "t", "key")).await;
        backend.asked(1).await;
        gate.pass(1);
        same(binary.name(), &idle.reply().await, &found(binary, "DUNNO"));
        let mut asking = program.peer().await;
        asking.send(question(binary, "t", "key")).await;
        backend.asked(2).await;
        Self {
            program,
            backend,
            gate,
            idle,
            asking,
        }
    }
}

#[tokio::test]
async fn at_sigterm_what_was_asked_is_answered_and_the_idle_are_closed() {
    for binary in ALL {
        let mut test = InFlight::start(binary, "drain-timeout = \"85s\"").await;
        // A request that has arrived, though not been read, was asked as well.
        test.asking.send(question(binary, "t", "key")).await;
        test.program.signal(Signal::TERM);
        test.program.told("STOPPING=1", 1).await;
        test.idle.expect_eof().await;
        test.gate.pass(2);
        same(
            binary.name(),
            &test.asking.reply().await,
            &found(binary, "DUNNO"),
        );
        let rest = test.asking.everything().await;
        assert!(
            rest.is_empty() || rest == found(binary, "DUNNO"),
            "{}",
            crate::support::shown(&rest)
        );
        test.program.end().await.status(0);
    }
}

#[tokio::test]
async fn after_sigterm_nobody_new_is_accepted_and_the_socket_stays() {
    let mut test = InFlight::start(Binary::Socketmap, "drain-timeout = \"85s\"").await;
    test.program.signal(Signal::TERM);
    test.program.told("STOPPING=1", 1).await;
    test.idle.expect_eof().await;
    // It connects, because the service manager still holds the socket for the next start.
    let mut late = test.program.peer().await;
    late.send(question(Binary::Socketmap, "t", "key")).await;
    test.gate.pass(1);
    same(
        "asked before",
        &test.asking.reply().await,
        &netstring("OK DUNNO"),
    );
    test.asking.expect_eof().await;
    test.program.end().await.status(0);
    assert_eq!(test.backend.count(), 2);
}

#[tokio::test]
async fn a_drain_ends_at_its_timeout() {
    for binary in ALL {
        let mut test = InFlight::start(binary, "drain-timeout = \"300ms\"").await;
        test.program.signal(Signal::TERM);
        let rest = test.asking.everything().await;
        same(binary.name(), &rest, b"");
        test.program.end().await.status(0);
    }
}

#[tokio::test]
async fn a_second_sigterm_ends_the_program_at_once() {
    for binary in ALL {
        let mut test = InFlight::start(binary, "drain-timeout = \"85s\"").await;
        test.program.signal(Signal::TERM);
        test.program.told("STOPPING=1", 1).await;
        test.idle.expect_eof().await;
        test.program.signal(Signal::TERM);
        // The gate is shut: it does not wait for the call, and says nothing in its place.
        test.program.end().await;
        same(binary.name(), &test.asking.everything().await, b"");
    }
}

#[tokio::test]
async fn a_program_without_connections_stops_at_sigterm() {
    for binary in ALL {
        let program = serve_tcp(binary, table(binary, "http://127.0.0.1:9/", "")).await;
        let notices = program.notices.clone();
        program.stop().await;
        assert_eq!(said(&notices.all(), "STOPPING=1"), 1, "{binary:?}");
    }
}

#[tokio::test]
async fn a_good_reload_serves_the_next_request_of_the_same_connection() {
    for binary in ALL {
        let before = Backend::always(good(binary, "DUNNO"));
        let after = Backend::always(good(binary, "REJECT"));
        let program = serve_tcp(binary, table(binary, &before.url("/"), "")).await;
        let mut peer = program.peer().await;
        let request = question(binary, "t", "key");
        same("before", &peer.ask(&request).await, &found(binary, "DUNNO"));
        program.rewrite(&table(binary, &after.url("/"), ""));
        program.signal(Signal::HUP);
        program.told("RELOADING=1", 1).await;
        program.told("READY=1", 2).await;
        same("after", &peer.ask(&request).await, &found(binary, "REJECT"));
        assert_eq!((before.count(), after.count()), (1, 1), "{binary:?}");
        program.stop().await;
    }
}

#[tokio::test]
async fn a_call_under_way_is_answered_by_the_old_configuration() {
    for binary in ALL {
        let test = InFlight::start(binary, "").await;
        let InFlight {
            program,
            gate,
            mut asking,
            ..
        } = test;
        let after = Backend::always(good(binary, "REJECT"));
        program.rewrite(&table(binary, &after.url("/"), ""));
        program.signal(Signal::HUP);
        program.told("READY=1", 2).await;
        gate.pass(1);
        same("under way", &asking.reply().await, &found(binary, "DUNNO"));
        let reply = asking.ask(question(binary, "t", "key")).await;
        same("after", &reply, &found(binary, "REJECT"));
    }
}

#[tokio::test]
async fn a_bad_reload_keeps_the_old_configuration_and_logs_every_problem() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let good_config = table(binary, &backend.url("/"), "");
        let program = serve_tcp(binary, good_config.clone()).await;
        let mut peer = program.peer().await;
        let request = question(binary, "t", "key");
        same("before", &peer.ask(&request).await, &found(binary, "DUNNO"));

        let name = binary.name();
        program.rewrite(&format!(
            "[{name}.t]\ntarget = \"htp://nowhere/\"\nrequst-timeout = \"5s\"\n"
        ));
        program.signal(Signal::HUP);
        let path = program.config_path().display().to_string();
        for place in [
            format!("{path}:2:10: {name}.t.target"),
            format!("{path}:3:1: {name}.t.requst-timeout"),
        ] {
            let logged = |lines: &[String]| lines.iter().any(|line| line.contains(&place));
            program.stderr.until(&place, logged).await;
        }
        // A reload that was announced must be said to be over.
        let over = |seen: &[String]| said(seen, "READY=1") == said(seen, "RELOADING=1") + 1;
        program.notices.until("the reload's end", over).await;
        same("kept", &peer.ask(&request).await, &found(binary, "DUNNO"));

        let next = Backend::always(good(binary, "REJECT"));
        program.rewrite(&table(binary, &next.url("/"), ""));
        program.signal(Signal::HUP);
        program.told("READY=1", 3).await;
        same(
            "repaired",
            &peer.ask(&request).await,
            &found(binary, "REJECT"),
        );
        program.stop().await;
    }
}

#[tokio::test]
async fn a_reload_that_leaves_a_socket_without_a_table_is_refused() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let backend = Backend::always(good(binary, "DUNNO"));
        let name = binary.name();
        let two = |other: &str| {
            table(binary, &backend.url("/"), "")
                + &format!("[{name}.{other}]\ntarget = \"{}\"\n", backend.url("/"))
        };
        let third = format!("[{name}.third]\ntarget = \"{}\"\n", backend.url("/"));
        let program = Launch::new(binary)
            .config(two("other") + &third)
            .unix("t")
            .unix("other")
            .unix("third")
            .ready()
            .await;
        program.rewrite(&two("another"));
        program.signal(Signal::HUP);
        program
            .logged("sockets \"other\", \"third\" would fit no table")
            .await;
        let mut peer = program.peer_at(1).await;
        let reply = peer.ask(question(binary, "", "key")).await;
        same(name, &reply, &found(binary, "DUNNO"));
    }
}

/// Writes to a FIFO when somebody reads it, after `first` has been done.
async fn feed(fifo: &Path, text: &str, first: impl FnOnce()) {
    let mut options = OpenOptions::new();
    options.write(true);
    let mut file = soon("a reader", options.open(fifo)).await.expect("a FIFO");
    first();
    soon("writing", file.write_all(text.as_bytes()))
        .await
        .expect("a reader");
    file.flush().await.expect("a reader");
}

#[tokio::test]
async fn a_reload_asked_for_during_the_start_ends_nothing_and_is_made_later() {
    for binary in ALL {
        let backend = echo(binary);
        let launch = Launch::new(binary).tcp4("t");
        let fifo = launch.directory().join("config");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        let mut program = launch.argument("--config").argument(&fifo).start();
        let config = table(binary, &backend.url("/"), "");
        feed(&fifo, &config, || {
            program.signal(Signal::HUP);
            program.signal(Signal::USR1);
        })
        .await;
        program.until_ready().await;
        feed(&fifo, &config, || {}).await;
        program.logged("reload: done").await;
        let mut peer = program.peer().await;
        let reply = peer.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &echoed(binary, "key"));
        program.stop().await;
    }
}

#[tokio::test]
async fn a_reload_without_a_file_keeps_the_old_configuration() {
    let backend = Backend::always(json("\"v\""));
    let program = serve_tcp(
        Binary::Socketmap,
        table(Binary::Socketmap, &backend.url("/"), ""),
    )
    .await;
    std::fs::remove_file(program.config_path()).expect("a removed file");
    program.signal(Signal::HUP);
    let path = program.config_path().display().to_string();
    let logged = |lines: &[String]| lines.iter().any(|line| line.contains(&path));
    program.stderr.until("the missing file", logged).await;
    let mut peer = program.peer().await;
    let reply = peer.ask(question(Binary::Socketmap, "t", "key")).await;
    same("kept", &reply, &netstring("OK v"));
}

#[tokio::test]
async fn ready_is_said_only_by_a_program_that_serves() {
    for binary in ALL {
        let backend = echo(binary);
        let launch = Launch::new(binary)
            .config(table(binary, &backend.url("/"), ""))
            .tcp4("t");
        let mut program = launch.start();
        // It connects before the program is ready, as Postfix does when systemd starts it.
        let mut early = program.peer().await;
        let reply = early.ask(question(binary, "t", "early")).await;
        same(binary.name(), &reply, &echoed(binary, "early"));
        program.until_ready().await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &echoed(binary, "key"));
        assert_eq!(said(&program.notices.all(), "READY=1"), 1);
        let status = |seen: &[String]| {
            seen.iter()
                .any(|line| line.len() > "STATUS=".len() && line.starts_with("STATUS="))
        };
        program.notices.until("STATUS=", status).await;

        let bad = Launch::new(binary)
            .config(table(binary, "nowhere", ""))
            .tcp4("t")
            .start();
        let notices = bad.notices.clone();
        bad.end().await.status(78);
        assert_eq!(said(&notices.all(), "READY=1"), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn the_watchdog_is_fed_while_connections_are_served() {
    for binary in ALL {
        let backend = echo(binary);
        let program = Launch::new(binary)
            .config(table(binary, &backend.url("/"), ""))
            .tcp4("t")
            .watchdog(200_000)
            .ready()
            .await;
        program.told("WATCHDOG=1", 3).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &echoed(binary, "key"));
        let before = said(&program.notices.all(), "WATCHDOG=1");
        program.told("WATCHDOG=1", before + 2).await;
    }
}

#[tokio::test]
async fn without_a_watchdog_none_is_fed() {
    let program = serve_tcp(
        Binary::Policy,
        table(Binary::Policy, "http://127.0.0.1:9/", ""),
    )
    .await;
    let notices = program.notices.clone();
    program.stop().await;
    assert_eq!(said(&notices.all(), "WATCHDOG=1"), 0);
}

#[tokio::test]
async fn a_backend_that_is_down_at_the_start_is_used_when_it_comes_up() {
    for binary in ALL {
        let reserved = Reserved::new();
        let target = format!("http://{}/", reserved.address());
        let program = serve_tcp(binary, table(binary, &target, "")).await;
        let mut peer = program.peer().await;
        let down = match binary {
            Binary::TcpLookup => framed(binary, "400 backend%20unreachable"),
            Binary::Socketmap => framed(binary, "TEMP backend unreachable"),
            Binary::Policy => framed(binary, LATER),
        };
        let request = question(binary, "t", "key");
        same("down", &peer.ask(&request).await, &down);
        same("still down", &peer.ask(&request).await, &down);
        let script = good(binary, "DUNNO");
        let _backend = Backend::at(reserved, move |_| script.clone());
        same("up", &peer.ask(&request).await, &found(binary, "DUNNO"));
    }
}

/// Answers in each way once, then as the first again.
fn every_way(binary: Binary) -> Vec<Script> {
    vec![
        good(binary, "DUNNO"),
        status(204),
        status(503),
        status(400),
        json("{"),
        vec![Act::Reset],
        vec![Act::Reset],
        status(404),
    ]
}

/// Runs requests of every outcome and returns what the program logged.
async fn logged(binary: Binary, level: &str) -> (End, Backend) {
    let backend = Backend::in_turn(every_way(binary));
    let keys = "auth-token = \"s3cret-token\"\nbasic-auth = { user = \"joe\", password = \"s3cret-word\" }\n\
                headers = { X-Api = \"s3cret-header\" }";
    let config = format!(
        "[log]\nlevel = \"{level}\"\n{}",
        table(binary, &backend.url("/p4th?q=qu3ry"), keys)
    );
    let program = serve_tcp(binary, config).await;
    let mut peer = program.peer().await;
    for _ in 0..7 {
        peer.ask(question(binary, "t", "k3y@example.com")).await;
    }
    drop(peer);
    let mut peer = program.peer().await;
    peer.send_what_it_takes("k3y\nk3y\n\n").await;
    peer.everything().await;
    (program.stop().await, backend)
}

#[tokio::test]
async fn at_info_the_log_holds_no_key_no_secret_and_no_address() {
    for binary in ALL {
        let (end, backend) = logged(binary, "info").await;
        let backend = backend.address().to_string();
        for hidden in ["s3cret", "k3y", "p4th", "qu3ry", &backend] {
            assert!(!end.stderr.contains(hidden), "{hidden} in {end:#?}");
        }
        assert_eq!(end.stdout, "");
        for reason in [
            "backend answered 503",
            "backend answered 400",
            "backend answer not understood",
            "backend unreachable",
            "request not understood",
        ] {
            end.says(reason);
        }
    }
}

#[tokio::test]
async fn at_debug_each_request_has_its_line_and_secrets_stay_hidden() {
    for binary in ALL {
        let (end, backend) = logged(binary, "debug").await;
        for request in backend.requests() {
            end.says(request.header("x-request-id").expect("an X-Request-Id"));
        }
        assert!(!end.stderr.contains("s3cret"), "{end:#?}");
        let lines = end.stderr.lines();
        let lines = lines
            .filter(|line| line.contains("k3y@example.com"))
            .count();
        // A policy request has no one key.
        let expected = if binary == Binary::Policy { 0 } else { 7 };
        assert!(lines >= expected, "{lines} lines with the key in {end:#?}");
        // Each has the name of a table or none, and no library has a line.
        let debug = end.stderr.lines().filter(|line| line.contains(" DEBUG "));
        for line in debug {
            let (_, said) = line.split_once(" DEBUG ").expect("what is said");
            let is_ours = ["t: ", "-: ", "connection: "]
                .iter()
                .any(|start| said.starts_with(start));
            assert!(is_ours, "{line} in {end:#?}");
        }
    }
}

#[tokio::test]
async fn a_flood_of_failures_is_a_few_lines() {
    for binary in ALL {
        let backend = Backend::always(status(503));
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        for _ in 0..300 {
            peer.ask(question(binary, "t", "key")).await;
        }
        for _ in 0..300 {
            let mut peer = program.peer().await;
            peer.send_what_it_takes("-\n\n").await;
            peer.everything().await;
        }
        let end = program.stop().await;
        end.says("backend answered 503");
        let lines = end.stderr.lines().count();
        assert!(lines < 60, "{lines} lines in {end:#?}");
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_costs_no_request() {
    for binary in ALL {
        let backend = Backend::in_turn([status(503), status(400), good(binary, "DUNNO")]);
        let program = Launch::new(binary)
            .config(table(binary, &backend.url("/"), ""))
            .tcp4("t")
            .unheard()
            .ready()
            .await;
        // The first two are logged; the third tells that nothing was lost.
        let mut peer = program.peer().await;
        for _ in 0..2 {
            peer.ask(question(binary, "t", "key")).await;
        }
        let reply = peer.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &found(binary, "DUNNO"));
        program.stop().await;
    }
}

#[tokio::test]
async fn a_service_manager_that_is_gone_costs_no_request() {
    for binary in ALL {
        let backend = echo(binary);
        let program = Launch::new(binary)
            .config(table(binary, &backend.url("/"), ""))
            .environment("NOTIFY_SOCKET", "/nonexistent/notify")
            .tcp4("t")
            .watchdog(100_000)
            .start();
        let mut peer = program.peer().await;
        let reply = peer.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &echoed(binary, "key"));
        program.stop().await;
    }
}

/// A program that has fewer descriptors than connections, and the connections.
async fn starved(binary: Binary, backend: &Backend) -> (Program, Vec<Peer>) {
    let program = Launch::new(binary)
        .config(table(binary, &backend.url("/"), ""))
        .tcp4("t")
        .descriptors(40)
        .watchdog(200_000)
        .ready()
        .await;
    let said = |lines: &[String]| {
        let what = "descriptors: 40 are enough for 6 connections, not for 1024";
        lines.iter().any(|line| line.contains(what))
    };
    program.stderr.until("a warning at the start", said).await;
    let mut peers = Vec::new();
    for _ in 0..80 {
        peers.push(program.peer().await);
    }
    (program, peers)
}

#[tokio::test]
async fn a_lack_of_descriptors_lowers_the_cap_and_fills_no_log() {
    for binary in ALL {
        let backend = echo(binary);
        let (program, _peers) = starved(binary, &backend).await;
        for round in 0..10 {
            let mut peer = program.peer().await;
            let reply = peer.ask(question(binary, "t", "key")).await;
            let place = format!("{} in round {round}", binary.name());
            same(&place, &reply, &echoed(binary, "key"));
        }
        let lines = program.stderr.all();
        assert!(lines.len() < 4, "{binary:?}: {lines:#?}");
    }
}

/// Without this the service manager would end a program that only waits for a descriptor.
#[tokio::test]
async fn the_watchdog_is_fed_without_a_free_descriptor() {
    for binary in ALL {
        let backend = echo(binary);
        let (program, _peers) = starved(binary, &backend).await;
        let before = said(&program.notices.all(), "WATCHDOG=1");
        program.told("WATCHDOG=1", before + 3).await;
    }
}

#[tokio::test]
async fn outside_bytes_are_escaped_in_the_log() {
    let backend = Backend::always(status(503));
    let config = format!(
        "[log]\nlevel = \"debug\"\n{}",
        table(Binary::Socketmap, &backend.url("/"), "")
    );
    let program = serve_tcp(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    let key = b"k3y\nsocketmap: forged \x1b[31m\xff";
    peer.ask(question(Binary::Socketmap, "t", key)).await;
    peer.ask(netstring("no\nsuch\x1bmap key")).await;
    let mut long = b"l0ng".to_vec();
    long.extend([b'a'; 5_000]);
    peer.ask(question(Binary::Socketmap, "t", long)).await;
    let end = program.stop().await;
    end.says("k3y").says("l0ng");
    for line in end.stderr.lines() {
        assert!(!line.starts_with("socketmap: forged"), "{end:#?}");
        assert!(!line.contains('\x1b'), "{end:#?}");
        assert!(!line.contains(&"a".repeat(200)), "{end:#?}");
    }
}

#[tokio::test]
async fn several_sockets_under_several_names_serve_their_tables() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let one = Backend::always(good(binary, "DUNNO"));
        let two = Backend::always(good(binary, "REJECT"));
        let name = binary.name();
        let config = format!(
            "[{name}.one]\ntarget = \"{}\"\n[{name}.two]\ntarget = \"{}\"\nsocket = \"second\"\n",
            one.url("/"),
            two.url("/")
        );
        let program = Launch::new(binary)
            .config(config)
            .unix("second")
            .tcp4("one")
            .tcp6("second")
            .tcp4("second")
            .unix("one")
            .ready()
            .await;
        for (number, value) in ["REJECT", "DUNNO", "REJECT", "REJECT", "DUNNO"]
            .into_iter()
            .enumerate()
        {
            let mut peer = program.peer_at(number).await;
            let reply = peer.ask(question(binary, "", "key")).await;
            same(name, &reply, &found(binary, value));
        }
        program.stop().await;
    }
}

#[tokio::test]
async fn what_is_ready_is_counted_without_tables_that_have_no_socket() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let config: String = ["one", "two", "three"]
            .map(|name| format!("[{}.{name}]\ntarget = \"http://[::1]:9/\"\n", binary.name()))
            .concat();
        let launch = Launch::new(binary).config(config);
        let launch = launch.unix("one").unix("three").tcp4("one");
        let program = launch.tcp4("metrics").ready().await;
        program.logged("ready: serving 2 tables on 3 sockets").await;
        program
            .told("STATUS=serving 2 tables on 3 sockets", 1)
            .await;
    }
}

#[tokio::test]
async fn any_socket_serves_every_map() {
    let backend = echo(Binary::Socketmap);
    let config = table(Binary::Socketmap, &backend.url("/"), "")
        + &format!("[socketmap.u]\ntarget = \"{}\"\n", backend.url("/u"));
    let program = Launch::new(Binary::Socketmap)
        .config(config)
        .unix("anything")
        .tcp6("t")
        .tcp4("connection")
        .ready()
        .await;
    for number in 0..3 {
        let mut peer = program.peer_at(number).await;
        for map in ["t", "u"] {
            let reply = peer.ask(question(Binary::Socketmap, map, "key")).await;
            same(map, &reply, &netstring("OK key"));
        }
    }
}

#[tokio::test]
async fn with_one_table_every_socket_serves_it() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let backend = echo(binary);
        let program = Launch::new(binary)
            .config(table(binary, &backend.url("/"), ""))
            .tcp4("whatever")
            .unix("t")
            .ready()
            .await;
        for number in 0..2 {
            let reply = program
                .peer_at(number)
                .await
                .ask(question(binary, "", "key"))
                .await;
            same(binary.name(), &reply, &echoed(binary, "key"));
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
