//! Replies in the order of the requests, whatever the order of the backend, and within the time
//! that Dovecot waits.

use super::{calls, hello, serve, served, table, talk};
use crate::support::{
    backend::{Act, Backend, Gate, Request, json, status},
    soon,
};

/// The last part of a key, which is a number.
fn number(request: &Request) -> usize {
    let (_, key) = request.target.split_once("key=").expect("a key");
    let key = key.split('&').next().expect("a key");
    key.parse().expect("a number")
}

/// A backend with a gate for each of so many keys, which are numbers.
fn gated(count: usize) -> (Backend, Vec<Gate>) {
    let gates: Vec<_> = (0..count).map(|_| Gate::shut()).collect();
    let held = gates.clone();
    let backend = Backend::new(move |request| {
        if request.method != "GET" {
            return status(200);
        }
        let number = number(request);
        let mut script = vec![Act::Wait(held[number].clone())];
        script.extend(json(number.to_string()));
        script
    });
    (backend, gates)
}

#[tokio::test]
async fn thirty_two_lookups_are_under_way_and_answered_in_their_order() {
    let (backend, gates) = gated(40);
    let (_program, mut peer) = served(&backend, "max-in-flight = 64").await;
    let lookups = (0..40).map(|key| format!("Lshared/{key}\t\n"));
    peer.send(lookups.collect::<String>()).await;
    backend.asked(32).await;
    assert_eq!(backend.most_at_once(), 32);
    for gate in gates[1..].iter().rev() {
        gate.pass(1);
    }
    // One of another connection does not wait for them.
    let mut other = hello(&_program).await;
    gates[5].pass(1);
    talk(&mut other, "Lshared/5\t\n", "O5\n").await;
    gates[0].pass(1);
    let expected = (0..40).map(|key| format!("O{key}\n"));
    peer.expect(expected.collect::<String>()).await;
    assert_eq!(backend.count(), 41);
}

#[tokio::test]
async fn a_commit_waits_for_what_is_before_it_and_holds_what_is_after_it() {
    let (backend, gates) = gated(4);
    let keys = format!(
        "set = {{ target = \"{}\", body = \"{{value}}\" }}",
        backend.url("/s{/path*}")
    );
    let (_program, mut peer) = served(&backend, &keys).await;
    peer.send("Lshared/0\t\nLshared/1\t\nB1\t\nS1\tshared/a\tv\nC1\nLshared/2\t\nB2\t\nS2\tshared/b\tv\nC2\nLshared/3\t\n").await;
    backend.asked(2).await;
    gates[1].pass(1);
    gates[0].pass(1);
    peer.expect("O0\nO1\nO1\n").await;
    let requests = backend.asked(4).await;
    let paths: Vec<_> = calls(&requests)
        .into_iter()
        .map(|call| call.split('?').next().expect("a path").to_owned())
        .collect();
    assert_eq!(paths, ["GET /d", "GET /d", "PUT /s/a", "GET /d"]);
    gates[2].pass(1);
    peer.expect("O2\nO2\n").await;
    gates[3].pass(1);
    peer.expect("O3\n").await;
    assert_eq!(backend.count(), 6);
}

#[tokio::test]
async fn a_client_that_goes_ends_its_calls_and_no_commit_begins() {
    let backend = Backend::new(|request| match request.method.as_str() {
        "GET" => vec![Act::Hang],
        _ => status(200),
    });
    let keys = format!(
        "set = {{ target = \"{}\", body = \"{{value}}\" }}",
        backend.url("/s{/path*}")
    );
    let program = crate::support::program::Launch::dict()
        .config(table(&backend.url("/d"), &keys))
        .tcp4("dict")
        .ready()
        .await;
    let mut peer = hello(&program).await;
    peer.send("Lshared/0\t\nLshared/1\t\nB1\t\nS1\tshared/a\tv\nC1\n")
        .await;
    backend.asked(2).await;
    peer.reset();
    backend.left(2).await;
    assert_eq!(backend.count(), 2);
    let mut other = hello(&program).await;
    talk(&mut other, "B1\t\nS1\tshared/b\tv\nC1\n", "O1\n").await;
    assert_eq!(backend.count(), 3);
}

#[tokio::test]
async fn nothing_is_said_that_nobody_waits_for() {
    let backend = Backend::always(status(200));
    let keys = format!(
        "set = {{ target = \"{}\", body = \"{{value}}\" }}",
        backend.url("/s{/path*}")
    );
    let (_program, mut peer) = served(&backend, &keys).await;
    peer.send("B1\tjoe\nT1\t1\t1\nV1\tyes\nS1\tshared/a\tv\nU1\tshared/a\nA1\tshared/a\t1\nR1\n")
        .await;
    peer.finish().await;
    peer.expect_eof().await;
    for sent in ["", "H3\t2\t0", "X\n", "D1\n", "\n", "Lshared/a\t\n"] {
        let mut peer = _program.peer().await;
        peer.send(sent).await;
        peer.finish().await;
        peer.expect_closed().await;
    }
    assert_eq!(backend.count(), 0);
}

/// 25 s after its line, before Dovecot gives up at 30 s. Each of them waits in real time, so they
/// wait together.
#[tokio::test]
async fn every_command_ends_before_dovecot_gives_up() {
    let backend = Backend::new(|request| match request.target.as_str() {
        "/l/rows" => json("[\"first\", \"second\"]"),
        target if target.contains("rows%2Ffirst") => json("\"v\""),
        target if target.contains("quick") => status(200),
        _ => vec![Act::Hang],
    });
    let keys = format!(
        "request-timeout = \"25s\"\nset = {{ target = \"{0}/s{{/path*}}\", body = \"{{value}}\" }}\n\
         iterate = {{ target = \"{0}/l{{/path*}}\" }}",
        backend.url("")
    );
    let config = format!(
        "[server]\ndrain-timeout = \"90s\"\n{}",
        table(&backend.url("/d"), &keys)
    );
    let program = serve(config).await;
    let [
        mut lookup,
        mut list,
        mut rows,
        mut whole,
        mut half,
        mut late,
    ] = program.peers().await;
    for peer in [
        &mut lookup,
        &mut list,
        &mut rows,
        &mut whole,
        &mut half,
        &mut late,
    ] {
        peer.send(super::HELLO).await;
    }
    lookup.send("Lshared/k\t\n").await;
    list.send("I0\t0\tshared/l/\t\n").await;
    rows.send("I0\t0\tshared/rows/\t\n").await;
    whole.send("B1\t\nS1\tshared/slow\tv\nC1\n").await;
    half.send("B1\t\nS1\tshared/quick\tv\nS1\tshared/slow\tv\nC1\n")
        .await;
    // The commit behind a lookup has no time left, and is not sent.
    late.send("Lshared/k\t\nB1\t\nS1\tshared/quick2\tv\nC1\n")
        .await;
    soon("all of them", async {
        tokio::join!(
            lookup.expect("Fbackend timed out\n"),
            list.expect("Fbackend timed out\n"),
            rows.expect("Oshared/rows/first\tv\nFbackend timed out\n"),
            whole.expect("W1\tbackend timed out\n"),
            half.expect("W1\tbackend timed out\n"),
            late.expect("Fbackend timed out\nF1\tbackend timed out\n"),
        )
    })
    .await;
    let sent: Vec<_> = calls(&backend.requests());
    assert!(!sent.iter().any(|call| call.contains("quick2")), "{sent:?}");
}

#[tokio::test]
async fn lines_are_understood_in_any_pieces() {
    let backend = Backend::new(|request| match request.method.as_str() {
        "GET" => json("\"v\""),
        _ => status(200),
    });
    let keys = format!(
        "set = {{ target = \"{}\", body = \"{{value}}\" }}",
        backend.url("/s{/path*}")
    );
    let program = serve(table(&backend.url("/d"), &keys)).await;
    let lines = format!(
        "{}Lshared/a\x01tb\tjoe\nB1\tjoe\nS1\tshared/k\tv\x01n\nC1\nLpriv/c\tjoe\n",
        super::HELLO
    );
    for size in [1, 2, 3, 7, lines.len()] {
        let mut peer = program.peer().await;
        for piece in lines.as_bytes().chunks(size) {
            peer.send(piece).await;
            tokio::task::yield_now().await;
        }
        peer.expect("Ov\nO1\nOv\n").await;
    }
}
