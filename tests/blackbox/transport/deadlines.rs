//! Deadlines of connecting and of the whole answer, at rest and under load.

use crate::{
    servers::hole::Hole,
    support::{
        backend::{Act, Backend, Gate, Script, good, raw, response},
        peer::question,
        program::{ALL, Binary},
        replies::{DUNNO, TIMED_OUT},
        same,
        tables::{ask, expect, failed, not_found, pass_by, serve, serve_tcp, table},
    },
};

#[tokio::test]
async fn connecting_takes_no_longer_than_its_own_deadline() {
    let hole = Hole::new().await;
    let binary = Binary::Socketmap;
    for scheme in ["http", "https"] {
        let keys = "connect-timeout = \"200ms\"\nrequest-timeout = \"90s\"";
        let config = table(binary, &hole.url(scheme, "/"), keys);
        expect(binary, config, TIMED_OUT).await;
    }
}

#[tokio::test]
async fn the_whole_answer_has_one_deadline() {
    let hole = Hole::new().await;
    let silent = Backend::always(vec![Act::Hang]);
    let deaf = Backend::always(Script::new());
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n\"";
    let slow_body = Backend::always(vec![raw(head), Act::Drip(b"a".to_vec())]);
    let slow_head = Backend::always(vec![Act::Drip(b"HTTP/1.1 200 OK\r\nX-Slow: ".to_vec())]);
    let interim = Backend::always(vec![Act::Drip(
        b"HTTP/1.1 103 Early Hints\r\n\r\nH".to_vec(),
    )]);
    let redirect = Backend::new(|request| match request.target.starts_with("/ask") {
        true => response(307, &[("Location", "/there")], ""),
        false => vec![Act::Hang],
    });
    let proxy = format!("proxy = \"{}\"", silent.url(""));
    let binary = Binary::Socketmap;
    for (row, target, keys) in [
        ("silence", silent.url("/"), ""),
        ("a slow head", slow_head.url("/"), ""),
        ("a slow body", slow_body.url("/"), ""),
        ("interim answers", interim.url("/"), ""),
        (
            "a redirect",
            redirect.url("/ask"),
            "redirects = \"same-origin\"",
        ),
        (
            "the connection",
            hole.url("http", "/"),
            "connect-timeout = \"80s\"",
        ),
        (
            "the handshake",
            format!("https://{}/", deaf.address()),
            "connect-timeout = \"80s\"",
        ),
        (
            "a proxy",
            "http://backend.invalid/".to_owned(),
            proxy.as_str(),
        ),
        (
            "a tunnel",
            "https://backend.invalid/".to_owned(),
            proxy.as_str(),
        ),
    ] {
        let keys = format!("request-timeout = \"300ms\"\n{keys}");
        let program = serve(binary, table(binary, &target, &keys)).await;
        let reply = ask(&program, binary, "key").await;
        same(row, &reply, &TIMED_OUT.by(binary));
    }
}

async fn a_late_answer(binary: Binary) {
    let gate = Gate::shut();
    let mut late = vec![Act::Wait(gate.clone())];
    late.extend(good(binary, "REJECT"));
    let backend = Backend::in_turn([late, good(binary, "DUNNO")]);
    // Long enough for the second call, however loaded the machine is.
    let keys = "request-timeout = \"2s\"";
    let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
    let mut peer = program.peer().await;
    let reply = peer.ask(question(binary, "t", "key")).await;
    same(binary.name(), &reply, &TIMED_OUT.by(binary));
    gate.pass(1);
    let reply = peer.ask(question(binary, "t", "key")).await;
    same(binary.name(), &reply, &DUNNO.by(binary));
    peer.finish().await;
    peer.expect_eof().await;
}

#[tokio::test]
async fn a_late_answer_of_the_backend_answers_nothing() {
    tokio::join!(
        a_late_answer(Binary::TcpLookup),
        a_late_answer(Binary::Socketmap),
        a_late_answer(Binary::Policy)
    );
}

#[tokio::test]
async fn a_drip_of_bytes_is_given_up_at_the_deadline_under_load() {
    const PEERS: usize = 50;
    for binary in ALL {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n \n".to_vec();
        let backend = Backend::always(vec![Act::Drip(head)]);
        let keys = "request-timeout = \"1s\"\nbreaker = false";
        let program = serve_tcp(binary, table(binary, &backend.url("/"), keys)).await;
        let mut peers = program.asking(PEERS).await;
        let late = failed(binary, "backend timed out");
        for peer in &mut peers {
            same(binary.name(), &peer.reply().await, &late);
        }
        backend.left(PEERS).await;
        assert_eq!(backend.count(), PEERS, "{binary:?}");
    }
}

/// The rest of an answer is given up after a second, so no answer of the test is much longer.
#[tokio::test]
async fn what_is_left_of_an_answer_keeps_its_place_in_flight() {
    const PEERS: usize = 5;
    let binary = Binary::Socketmap;
    let gate = Gate::shut();
    let backend = Backend::always(vec![
        raw("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n"),
        Act::Wait(gate.clone()),
        raw("later"),
    ]);
    let program = serve_tcp(
        binary,
        table(binary, &backend.url("/"), "max-in-flight = 1"),
    )
    .await;
    let mut others = program.peers::<2>().await;
    let mut peers = program.asking(PEERS).await;
    for count in 1..=PEERS {
        backend.asked(count).await;
        // The head is an answer already; on each thread there would be time for the next call.
        for _ in 0..3 {
            pass_by(&mut others, binary).await;
        }
        assert_eq!(backend.count(), count);
        gate.pass(1);
    }
    for peer in &mut peers {
        same("the head", &peer.reply().await, &not_found(binary));
    }
    assert_eq!(backend.most_at_once(), 1);
}
