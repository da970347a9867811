//! Answers that are broken, slow, endless or not HTTP at all.

use crate::support::{
    Wrong,
    backend::{Act, Backend, Script, good, plain, raw, status},
    peer::question,
    program::{ALL, Binary, Launch, Reserved},
    replies::{
        DUNNO, LATER, NOT_FOUND, NOT_UNDERSTOOD, Replies, TIMED_OUT, TOO_LONG, UNREACHABLE, replies,
    },
    same,
    tables::{serve, table},
};

/// The ways in which a backend can fail.
struct Illness {
    name: &'static str,
    script: Script,
    expected_reply: Replies,
    /// How often lookups and policy ask.
    calls: (usize, usize),
}

fn illnesses() -> Vec<Illness> {
    let ill = |name, script, expected_reply, calls| Illness {
        name,
        script,
        expected_reply,
        calls,
    };
    let head = |header: &str| {
        raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{header}\r\n"
        ))
    };
    let long = "Content-Length: 100\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    vec![
        ill("reset-before", vec![Act::Reset], UNREACHABLE, (2, 1)),
        ill("closed-before", vec![Act::Close], UNREACHABLE, (2, 1)),
        ill("silent", vec![Act::Hang], TIMED_OUT, (1, 1)),
        ill(
            "slow-head",
            vec![Act::Drip(b"HTTP/1.1 200 OK\r\nX-Slow: a".to_vec())],
            TIMED_OUT,
            (1, 1),
        ),
        ill(
            "slow-body",
            vec![
                head("Content-Length: 1000\r\n"),
                Act::Drip(b"\"DUNNO".to_vec()),
            ],
            TIMED_OUT,
            (1, 1),
        ),
        ill(
            "silent-body",
            vec![head(long), raw("\"DUNNO\""), Act::Hang],
            TIMED_OUT,
            (1, 1),
        ),
        ill(
            "endless-chunks",
            vec![head(chunked), Act::Endless(b"4\r\naaaa\r\n".repeat(100))],
            TOO_LONG,
            (1, 1),
        ),
        ill(
            "endless-body",
            vec![head(""), Act::Endless(b" ".repeat(1000))],
            TOO_LONG,
            (1, 1),
        ),
        ill(
            "cut-body",
            vec![head(long), raw("\"DUNNO\""), Act::Close],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "reset-body",
            vec![head(long), raw("\"DUNNO\""), Act::Reset],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "cut-chunks",
            vec![head(chunked), raw("7\r\n\"DUNNO\"\r\n"), Act::Close],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "odd-chunks",
            vec![head(chunked), raw("zz\r\n\"DUNNO\"\r\n"), Act::Hang],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "short-length",
            vec![head("Content-Length: 3\r\n"), raw("\"DUNNO\""), Act::Hang],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "two-lengths",
            vec![
                head("Content-Length: 7\r\nContent-Length: 8\r\n"),
                raw("\"DUNNO\""),
                Act::Hang,
            ],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "garbage",
            vec![raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Act::Hang],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "garbage-and-close",
            vec![raw("DUNNO\n"), Act::Close],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "odd-status",
            vec![raw("HTTP/1.1 2000 OK\r\n\r\n"), Act::Hang],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "endless-head",
            vec![
                raw("HTTP/1.1 200 OK\r\n"),
                Act::Endless(b"X-Again: and again\r\n".repeat(100)),
            ],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
    ]
}

async fn every_illness(binary: Binary) {
    let mut config = "[http]\nmax-response = \"64KiB\"\n".to_owned();
    let mut launch = Launch::new(binary);
    let mut add = |name: &str, target: String, timeout: &str| {
        config += &format!(
            "[{}.{name}]\ntarget = \"{target}\"\nrequest-timeout = \"{timeout}\"\n",
            binary.name()
        );
        name.to_owned()
    };

    let refused = Reserved::new();
    let unwelcoming = Backend::unwelcoming();
    let mut tables = vec![
        add("refused", format!("http://{}/", refused.address()), "20s"),
        add("unwelcoming", unwelcoming.url("/"), "20s"),
    ];
    let mut backends = Vec::new();
    for illness in illnesses() {
        let backend = Backend::always(illness.script.clone());
        // Only where the deadline is the point may it be short: a loaded machine is slow.
        let timed_out = illness.expected_reply.tcp == TIMED_OUT.tcp;
        let timeout = if timed_out { "500ms" } else { "20s" };
        tables.push(add(illness.name, backend.url("/"), timeout));
        backends.push((illness, backend));
    }
    for table in &tables {
        launch = launch.unix(table);
    }
    let program = launch.config(config).ready().await;

    let mut wrong = Wrong::default();
    for (number, table) in tables.iter().enumerate() {
        let expected_reply = match number.checked_sub(2) {
            None => UNREACHABLE,
            Some(number) => backends[number].0.expected_reply,
        };
        let mut peer = program.peer_at(number).await;
        let reply = peer.ask(question(binary, table, "key")).await;
        wrong.compare(table, &reply, &expected_reply.by(binary));
        peer.finish().await;
        peer.expect_eof().await;
    }
    for (illness, backend) in &backends {
        let expected = match binary {
            Binary::Policy => illness.calls.1,
            Binary::TcpLookup | Binary::Socketmap => illness.calls.0,
        };
        let calls = backend.count();
        wrong.require(illness.name, calls == expected, || {
            format!("asked {calls} times, not {expected}")
        });
    }
    wrong.none();
    program.stop().await;
}

#[tokio::test]
async fn tcp_lookup_says_how_the_backend_is_ill() {
    every_illness(Binary::TcpLookup).await;
}

#[tokio::test]
async fn socketmap_says_how_the_backend_is_ill() {
    every_illness(Binary::Socketmap).await;
}

#[tokio::test]
async fn policy_defers_however_the_backend_is_ill() {
    every_illness(Binary::Policy).await;
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_whole() {
    for binary in ALL {
        let head = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n";
        let backend = Backend::always(vec![raw(head), raw("\"DUNNO\""), Act::Close]);
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &DUNNO.by(binary));
    }
}

#[tokio::test]
async fn an_empty_body_that_only_the_end_of_the_connection_ends_is_no_answer() {
    for (version, content_type) in [("1.1", "text/plain"), ("1.0", "text/plain"), ("1.1", "")] {
        for body in ["", " \r\n", "\u{feff}"] {
            for binary in ALL {
                let head = format!("HTTP/{version} 200 OK\r\nContent-Type: {content_type}\r\n\r\n");
                let script = vec![raw(head), raw(body), Act::Finish];
                let backend = Backend::always(script);
                let keys = "response = \"text\"\n";
                let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
                let reply = program.peer().await.ask(question(binary, "t", "key")).await;
                same(binary.name(), &reply, &NOT_UNDERSTOOD.by(binary));
            }
        }
    }
    for fields in [
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, identity",
        "Content-Length: 0\r\nTransfer-Encoding: identity",
    ] {
        let binary = Binary::Socketmap;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{fields}\r\n\r\n");
        let backend = Backend::always(vec![raw(head), Act::Finish]);
        let config = table(binary, &backend.url("/"), "response = \"text\"\n");
        let program = serve(binary, config).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same(fields, &reply, &NOT_UNDERSTOOD.by(binary));
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n";
    for script in [plain(""), vec![raw(chunked)]] {
        let binary = Binary::Socketmap;
        let backend = Backend::always(script);
        let config = table(binary, &backend.url("/"), "response = \"text\"\n");
        let program = serve(binary, config).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same("an end of its own", &reply, &NOT_FOUND.by(binary));
    }
}

#[tokio::test]
async fn an_ill_backend_does_not_spoil_its_next_answers() {
    for binary in ALL {
        let backend = Backend::in_turn([
            vec![raw("garbage\r\n\r\n"), Act::Hang],
            vec![
                raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\"v"),
                Act::Close,
            ],
            status(503),
            good(binary, "DUNNO"),
        ]);
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        let expected = [
            NOT_UNDERSTOOD,
            NOT_UNDERSTOOD,
            replies(
                "400 backend%20answered%20503",
                "TEMP backend answered 503",
                LATER,
            ),
            DUNNO,
        ];
        for expected_reply in expected {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same(binary.name(), &reply, &expected_reply.by(binary));
        }
    }
}
