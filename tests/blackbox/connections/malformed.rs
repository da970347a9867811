//! Requests that are malformed or too long.

use std::fmt::Write as _;

use crate::support::{
    backend::{Backend, good, plain},
    peer::{framed, netstring, question},
    program::{ALL, Binary},
    replies::LATER,
    same,
    tables::{echo, echoed, found, serve_tcp, table},
};

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

    // The length is enough; the program does not wait for the payload.
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
        // Unread bytes must not reset the connection: the peer would lose this reply.
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
