//! The failures that count against a target.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::targets::at_targets;
use super::{ask, changes, down_after, is_down};
use crate::support::{
    Wrong,
    backend::{Act, Backend, Gate, Script, good, raw, response, status},
    peer::question,
    program::{ALL, Binary, Reserved},
    same, soon,
    tables::{failed, found, serve_tcp, table, table_named},
};

/// The answers that count as a failure of the target, with their names.
fn failures() -> Vec<(&'static str, Script)> {
    vec![
        ("502", status(502)),
        ("503", status(503)),
        ("504", status(504)),
        ("a closed connection", vec![Act::Close]),
        ("a reset", vec![Act::Reset]),
        ("an end before the answer", vec![Act::Finish]),
        (
            "half a head",
            vec![raw("HTTP/1.1 200 OK\r\nContent-"), Act::Close],
        ),
        ("no answer in time", vec![Act::Hang]),
    ]
}

/// The answers that do not count, because a server has answered.
fn answers(binary: Binary) -> Vec<(&'static str, Script)> {
    vec![
        ("a value", good(binary, "DUNNO")),
        ("204", status(204)),
        ("301", status(301)),
        ("400", status(400)),
        ("401", status(401)),
        ("404", status(404)),
        ("429", status(429)),
        ("500", status(500)),
        ("501", status(501)),
        ("505", status(505)),
        ("not JSON", response(200, &[], "<html>")),
        ("not HTTP", vec![raw("220 mail ESMTP\r\n"), Act::Close]),
    ]
}

#[tokio::test]
async fn what_is_no_answer_counts_and_any_answer_does_not() {
    let mut wrong = Wrong::default();
    for binary in ALL {
        let counting = failures().into_iter().map(|row| (row, true));
        let others = answers(binary).into_iter().map(|row| (row, false));
        for ((what, script), counts) in counting.chain(others) {
            let backend = Backend::always(script);
            let keys = format!("{}\nrequest-timeout = \"300ms\"", down_after(2));
            let program = serve_tcp(binary, table(binary, &backend.url("/"), &keys)).await;
            let mut peer = program.peer().await;
            let mut is_down = Vec::new();
            for _ in 0..4 {
                let asked = backend.count();
                ask(&mut peer, binary).await;
                is_down.push(backend.count() == asked);
            }
            // The third call may be a probe; the next pause is longer than the time of a call.
            let is_right = match counts {
                true => is_down[..2] == [false, false] && is_down[2..].contains(&true),
                false => !is_down.contains(&true),
            };
            wrong.require(&format!("{binary:?}: {what}"), is_right, || {
                format!("down: {is_down:?}")
            });
        }
    }
    wrong.none();
}

#[tokio::test]
async fn a_refused_connection_counts() {
    for binary in ALL {
        let reserved = Reserved::new();
        let target = format!("http://{}/", reserved.address());
        let program = serve_tcp(binary, table(binary, &target, &down_after(2))).await;
        let mut peer = program.peer().await;
        let [unreachable, down] =
            ["backend unreachable", "backend down"].map(|reason| failed(binary, reason));
        for _ in 0..2 {
            same("refused", &ask(&mut peer, binary).await, &unreachable);
        }
        // A call that is a probe is refused, too.
        let is_down = async { while ask(&mut peer, binary).await != down {} };
        soon("a call that is not made", is_down).await;
    }
}

#[tokio::test]
async fn any_answer_makes_the_count_begin_again() {
    for binary in ALL {
        let mut scripts = Vec::new();
        for (_, answer) in answers(binary) {
            scripts.extend([status(503), status(503), answer]);
        }
        scripts.extend([status(503), status(503), status(503)]);
        let total = scripts.len();
        let backend = Backend::in_turn(scripts);
        let config = table(binary, &backend.url("/"), &down_after(3));
        let program = serve_tcp(binary, config).await;
        let mut peer = program.peer().await;
        for count in 1..=total {
            ask(&mut peer, binary).await;
            assert_eq!(backend.count(), count, "{binary:?}: it was down");
        }
        let answered = failed(binary, "backend answered 503");
        is_down(&mut peer, binary, &backend, &answered).await;
    }
}

#[tokio::test]
async fn a_shortage_of_descriptors_says_nothing_about_the_target() {
    for binary in ALL {
        let mut script = good(binary, "DUNNO");
        script.push(Act::Close);
        let backend = Backend::always(script);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), &down_after(1))).await;
        let mut peer = program.peer().await;
        same(
            "before",
            &ask(&mut peer, binary).await,
            &found(binary, "DUNNO"),
        );
        backend.left(1).await;
        let before = program.most_descriptors(0);
        for _ in 0..3 {
            let reply = ask(&mut peer, binary).await;
            same("without", &reply, &failed(binary, "backend unreachable"));
        }
        program.most_descriptors(before);
        same(
            "after",
            &ask(&mut peer, binary).await,
            &found(binary, "DUNNO"),
        );
        changes(&program, 0, 0).await;
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_backend_has_closed_costs_nothing() {
    for binary in ALL {
        for (what, end) in [
            ("closed", Act::Close),
            ("finished", Act::Finish),
            ("reset", Act::Reset),
        ] {
            let mut script = good(binary, "DUNNO");
            script.push(end);
            let backend = Backend::always(script);
            let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
            let mut peer = program.peer().await;
            let mut lost = 0;
            for round in 0..100 {
                let reply = ask(&mut peer, binary).await;
                // A policy request that went into a dying connection may have been counted, so it
                // is not sent again; that it meets one at just that moment is rare.
                if binary == Binary::Policy && reply == failed(binary, "backend unreachable") {
                    lost += 1;
                    continue;
                }
                let place = format!("{what}, round {round}");
                same(&place, &reply, &found(binary, "DUNNO"));
            }
            assert!(lost <= 10, "{what}: {lost} of 100 policy requests");
            changes(&program, 0, 0).await;
        }
    }
}

#[tokio::test]
async fn many_kept_connections_that_are_closed_at_once_cost_nothing() {
    for binary in ALL {
        let dead = Reserved::new();
        let address = dead.address();
        let gate = Gate::shut();
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(good(binary, "DUNNO"));
        let backend = Backend::at(dead, move |_| script.clone());
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut peers = program.asking(50).await;
        backend.asked(50).await;
        gate.pass(50);
        for peer in &mut peers {
            same("before", &peer.reply().await, &found(binary, "DUNNO"));
        }
        // It starts anew at its address: every connection that was kept is closed.
        let again = backend.restart(good(binary, "REJECT")).await;
        assert_eq!(again.address(), address);
        for peer in &mut peers {
            peer.send(question(binary, "t", "key")).await;
        }
        for peer in &mut peers {
            same("after", &peer.reply().await, &found(binary, "REJECT"));
        }
        changes(&program, 0, 0).await;
    }
}

#[tokio::test]
async fn a_target_is_not_blamed_for_the_time_that_others_have_taken() {
    let binary = Binary::Socketmap;
    let gate = Gate::shut();
    let mut slow = vec![Act::Wait(gate.clone())];
    slow.extend(good(binary, "v"));
    let backend = Backend::in_turn([slow, vec![Act::Hang], good(binary, "v")]);
    let silent = Backend::always(vec![Act::Hang]);
    let keys = format!(
        "request-timeout = \"4s\"\nmax-in-flight = 1\n{}",
        down_after(1)
    );
    // A call that ends when more than half of the others' time is over.
    let clock = table_named(
        binary,
        "clock",
        &silent.url("/"),
        "request-timeout = \"2500ms\"",
    );
    let program = serve_tcp(binary, table(binary, &backend.url("/"), &keys) + &clock).await;
    let [mut first, mut second, mut third] = program.peers().await;
    first.send(question(binary, "t", "key")).await;
    backend.asked(1).await;
    second.send(question(binary, "t", "key")).await;
    third.ask(question(binary, "clock", "key")).await;
    gate.pass(1);
    same("first", &first.reply().await, &found(binary, "v"));
    let late = failed(binary, "backend timed out");
    same("second", &second.reply().await, &late);
    same("third", &ask(&mut third, binary).await, &found(binary, "v"));
    let end = program.stop().await;
    assert!(!end.stderr.contains("t: down:"), "{}", end.stderr);
}

/// Nor is a standby that nobody else has asked.
#[tokio::test]
async fn a_second_target_is_not_blamed_for_the_time_of_the_first() {
    let binary = Binary::Socketmap;
    let gate = Gate::shut();
    let mut slow = vec![Act::Wait(gate.clone())];
    slow.extend(status(503));
    let first = Backend::in_turn([slow]);
    let second = Backend::always(vec![Act::Hang]);
    let silent = Backend::always(vec![Act::Hang]);
    let keys = format!("request-timeout = \"4s\"\n{}", down_after(1));
    let targets = [first.url("/"), second.url("/")];
    let clock = table_named(
        binary,
        "clock",
        &silent.url("/"),
        "request-timeout = \"2500ms\"",
    );
    let config = at_targets(binary, &targets, &keys) + &clock;
    let program = serve_tcp(binary, config).await;
    let [mut peer, mut waiting] = program.peers().await;
    peer.send(question(binary, "t", "key")).await;
    first.asked(1).await;
    waiting.ask(question(binary, "clock", "key")).await;
    gate.pass(1);
    let late = failed(binary, "backend timed out");
    same("late", &peer.reply().await, &late);
    let end = program.stop().await;
    let down = format!("t: down: {}", second.url(""));
    assert!(!end.stderr.contains(&down), "{}", end.stderr);
}

#[tokio::test]
async fn a_target_that_answers_nobody_is_blamed_however_little_time_it_had() {
    const PEERS: usize = 10;
    for binary in ALL {
        let backend = Backend::always(vec![Act::Hang]);
        // All but the first wait for their place, and have it for a moment only.
        let keys = format!(
            "request-timeout = \"200ms\"\nmax-in-flight = 1\n{}",
            down_after(PEERS)
        );
        let program = serve_tcp(binary, table(binary, &backend.url("/"), &keys)).await;
        let mut peers = program.peers::<PEERS>().await;
        let asking = async {
            loop {
                for peer in &mut peers {
                    peer.send(question(binary, "t", "key")).await;
                }
                for peer in &mut peers {
                    peer.reply().await;
                }
            }
        };
        tokio::select! {
            () = asking => {}
            () = changes(&program, 1, 0) => {}
        }
    }
}

/// What it says may come before the request is sent, or after it.
#[tokio::test]
async fn a_service_that_speaks_first_has_one_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let target = format!("http://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.write_all(b"220 mail ESMTP\r\n").await;
            kept.push(connection);
        }
    });
    for binary in ALL {
        let program = serve_tcp(binary, table(binary, &target, "retries = 0")).await;
        let mut peer = program.peer().await;
        for _ in 0..100 {
            let reply = ask(&mut peer, binary).await;
            let reason = "backend answer not understood";
            same(binary.name(), &reply, &failed(binary, reason));
        }
        let line = "t: backend answer not understood: ";
        program.logged(line).await;
        let end = program.stop().await;
        let is_other = |text: &&str| text.contains(" WARN t: ") && !text.contains(line);
        let other: Vec<_> = end.stderr.lines().filter(is_other).collect();
        assert!(other.is_empty(), "{binary:?}: {other:#?}");
    }
}
