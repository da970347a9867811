//! What keeps a program steady while its backend is not: targets left in peace and found again,
//! further targets, deadlines.

use crate::support::{
    Wrong,
    backend::{Act, Backend, Gate, Script, good, raw, response, status},
    peer::{Peer, question},
    program::{ALL, Binary, Program, Reserved},
    same, soon,
    tables::{echo, echoed, failed, found, not_found, pass_by, serve_tcp, table, table_named},
};
use rustix::process::Signal;

/// Makes a target down after so many failures. The pauses grow, so that few probes are made while a
/// test takes its time.
fn down_after(failures: usize) -> String {
    format!("breaker = {{ failures = {failures}, pause = \"1h\" }}\nretries = 0")
}

/// The same, but for no longer than a test can wait.
fn down_shortly_after(failures: usize) -> String {
    format!(
        "breaker = {{ failures = {failures}, pause = \"50ms\" }}\nretries = 0\n\
         request-timeout = \"20s\""
    )
}

async fn ask(peer: &mut Peer, binary: Binary) -> Vec<u8> {
    peer.ask(question(binary, "t", "key")).await
}

/// Demands that the target is down: a call that is no probe, which gets this reply, does not reach it.
async fn is_down(peer: &mut Peer, binary: Binary, backend: &Backend, probed: &[u8]) {
    for _ in 0..10 {
        let asked = backend.count();
        let reply = ask(peer, binary).await;
        if backend.count() == asked {
            return same("down", &reply, &failed(binary, "backend down"));
        }
        same("a probe", &reply, probed);
    }
    panic!("{binary:?}: it is not down");
}

/// Asks until the backend has been asked so often; every answer before says that it is down. The
/// last question is left without its reply.
async fn ask_until_asked(peer: &mut Peer, binary: Binary, backend: &Backend, count: usize) {
    let asking = async {
        loop {
            let reply = ask(peer, binary).await;
            same("before the probe", &reply, &failed(binary, "backend down"));
        }
    };
    // In this order: the reply to the last one may be there at the same time.
    tokio::select! {
        biased;
        _ = backend.asked(count) => {}
        () = asking => {}
    }
}

/// Demands that the log says so often that a target is down, and that it is up again.
async fn told(program: &Program, down: usize, up: usize) {
    let count = |lines: &[String], text: &str| {
        let with = lines.iter().filter(|line| line.contains(text));
        with.count()
    };
    let both = |lines: &[String]| (count(lines, "t: down: "), count(lines, "t: up: "));
    let is_enough = |lines: &[String]| both(lines).0 >= down && both(lines).1 >= up;
    let lines = program.stderr.until("lines of targets", is_enough).await;
    assert_eq!(both(&lines), (down, up), "{lines:#?}");
}

#[tokio::test]
async fn a_target_that_fails_in_a_row_is_down_and_not_asked() {
    for binary in ALL {
        let backend = Backend::always(status(503));
        let config = table(binary, &backend.url("/"), &down_after(3));
        let program = serve_tcp(binary, config).await;
        let mut peer = program.peer().await;
        let answered = failed(binary, "backend answered 503");
        for _ in 0..3 {
            let reply = ask(&mut peer, binary).await;
            same(binary.name(), &reply, &answered);
        }
        assert_eq!(backend.count(), 3, "{binary:?}");
        for _ in 0..20 {
            is_down(&mut peer, binary, &backend, &answered).await;
        }
        program.logged("t: down: ").await;
        let end = program.stop().await;
        let origin = format!("t: down: {}", backend.url(""));
        let lines = end.stderr.lines();
        assert_eq!(lines.filter(|line| line.contains(&origin)).count(), 1);
        assert!(!end.stderr.contains("t: up: "), "{end:#?}");
    }
}

#[tokio::test]
async fn by_default_ten_failures_make_a_target_down() {
    for binary in ALL {
        let backend = Backend::always(status(503));
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        let answered = failed(binary, "backend answered 503");
        for _ in 0..10 {
            let reply = ask(&mut peer, binary).await;
            same(binary.name(), &reply, &answered);
        }
        assert_eq!(backend.count(), 10, "{binary:?}");
        is_down(&mut peer, binary, &backend, &answered).await;
    }
}

#[tokio::test]
async fn without_a_breaker_a_target_is_always_asked() {
    for binary in ALL {
        let backend = Backend::always(status(503));
        let config = table(binary, &backend.url("/"), "breaker = false");
        let program = serve_tcp(binary, config).await;
        let mut peer = program.peer().await;
        for count in 1..=30 {
            let reply = ask(&mut peer, binary).await;
            let answered = failed(binary, "backend answered 503");
            same(binary.name(), &reply, &answered);
            assert_eq!(backend.count(), count, "{binary:?}");
        }
        told(&program, 0, 0).await;
    }
}

#[tokio::test]
async fn after_the_pause_one_call_finds_out_and_the_others_are_not_kept_waiting() {
    for binary in ALL {
        let gate = Gate::shut();
        let mut probed = vec![Act::Wait(gate.clone())];
        probed.extend(status(503));
        let mut back = vec![Act::Wait(gate.clone())];
        back.extend(good(binary, "DUNNO"));
        let scripts = [status(503), probed, back, good(binary, "DUNNO")];
        let backend = Backend::in_turn(scripts);
        let config = table(binary, &backend.url("/"), &down_shortly_after(1));
        let program = serve_tcp(binary, config).await;
        let mut peer = program.peer().await;
        let mut others = Vec::new();
        for _ in 0..10 {
            others.push(program.peer().await);
        }
        let answered = failed(binary, "backend answered 503");
        same("first", &ask(&mut peer, binary).await, &answered);
        for (count, expected) in [(2, &answered), (3, &found(binary, "DUNNO"))] {
            ask_until_asked(&mut peer, binary, &backend, count).await;
            for _ in 0..3 {
                for other in &mut others {
                    let reply = ask(other, binary).await;
                    same("meanwhile", &reply, &failed(binary, "backend down"));
                }
            }
            assert_eq!(backend.count(), count, "{binary:?}: one probe at a time");
            gate.pass(1);
            same("the probe", &peer.reply().await, expected);
        }
        for other in &mut others {
            let reply = ask(other, binary).await;
            same("up again", &reply, &found(binary, "DUNNO"));
        }
        told(&program, 1, 1).await;
    }
}

#[tokio::test]
async fn a_probe_whose_peer_has_gone_away_is_not_waited_for() {
    for binary in ALL {
        let scripts = [
            status(503),
            vec![Act::Hang],
            vec![Act::Hang],
            good(binary, "DUNNO"),
        ];
        let backend = Backend::in_turn(scripts);
        let config = table(binary, &backend.url("/"), &down_shortly_after(1));
        let program = serve_tcp(binary, config).await;
        ask(&mut program.peer().await, binary).await;
        for count in [2, 3] {
            let mut probe = program.peer().await;
            ask_until_asked(&mut probe, binary, &backend, count).await;
            probe.reset();
            backend.left(count - 1).await;
        }
        let mut peer = program.peer().await;
        ask_until_asked(&mut peer, binary, &backend, 4).await;
        same(binary.name(), &peer.reply().await, &found(binary, "DUNNO"));
        told(&program, 1, 1).await;
    }
}

#[tokio::test]
async fn a_probe_that_hangs_keeps_nobody_waiting_for_its_place() {
    for binary in ALL {
        let backend = Backend::in_turn([status(503), vec![Act::Hang]]);
        let keys = "breaker = { failures = 1, pause = \"50ms\" }\nmax-in-flight = 1\n\
                    request-timeout = \"3s\"";
        let program = serve_tcp(binary, table(binary, &backend.url("/"), keys)).await;
        let mut probe = program.peer().await;
        let mut other = program.peer().await;
        ask(&mut probe, binary).await;
        ask_until_asked(&mut probe, binary, &backend, 2).await;
        let is_answered_before = tokio::select! {
            biased;
            _ = probe.reply() => false,
            reply = ask(&mut other, binary) => {
                same(binary.name(), &reply, &failed(binary, "backend down"));
                true
            }
        };
        assert!(is_answered_before, "{binary:?}: it waited for the probe");
    }
}

#[tokio::test]
async fn many_failures_at_once_are_one_line_in_the_log() {
    for binary in ALL {
        let gate = Gate::shut();
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(status(503));
        let backend = Backend::always(script);
        let config = table(binary, &backend.url("/"), &down_after(3));
        let program = serve_tcp(binary, config).await;
        let mut peers = program.asking(50).await;
        backend.asked(50).await;
        gate.pass(50);
        let answered = failed(binary, "backend answered 503");
        for peer in &mut peers {
            same(binary.name(), &peer.reply().await, &answered);
        }
        // The gate is shut to probes.
        let late = failed(binary, "backend timed out");
        for peer in &mut peers {
            is_down(peer, binary, &backend, &late).await;
        }
        told(&program, 1, 0).await;
    }
}

/// What counts as a failure of the target, with the words for it.
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

/// What does not: something answers there.
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
async fn a_reload_leaves_a_target_in_peace_unless_its_endpoint_has_changed() {
    for binary in ALL {
        let backend = Backend::always(status(503));
        let config = |more: &str| {
            let keys = format!("{}\n{more}", down_after(1));
            table(binary, &backend.url("/"), &keys)
        };
        let program = serve_tcp(binary, config("")).await;
        let mut peer = program.peer().await;
        let answered = failed(binary, "backend answered 503");
        same("first", &ask(&mut peer, binary).await, &answered);
        program.rewrite(&config(""));
        program.signal(Signal::HUP);
        program.told("READY=1", 2).await;
        is_down(&mut peer, binary, &backend, &answered).await;
        let asked = backend.count();
        program.rewrite(&config("user-agent = \"other\""));
        program.signal(Signal::HUP);
        program.told("READY=1", 3).await;
        same("other", &ask(&mut peer, binary).await, &answered);
        assert_eq!(backend.count(), asked + 1, "{binary:?}");
    }
}

#[tokio::test]
async fn one_table_that_is_down_leaves_the_others_alone() {
    let binary = Binary::Socketmap;
    let ill = Backend::always(status(503));
    let well = echo(binary);
    let config = table_named(binary, "ill", &ill.url("/"), &down_after(1))
        + &table(binary, &well.url("/"), &down_after(1));
    let program = serve_tcp(binary, config).await;
    let mut peer = program.peer().await;
    let [answered, down] =
        ["backend answered 503", "backend down"].map(|reason| failed(binary, reason));
    let mut not_asked = 0;
    for round in 0..10 {
        let reply = peer.ask(question(binary, "ill", "key")).await;
        // Any later call may be a probe.
        let is_right = reply == answered || round > 0 && reply == down;
        assert!(is_right, "{round}: {}", crate::support::shown(&reply));
        not_asked += usize::from(reply == down);
        let reply = ask(&mut peer, binary).await;
        same("well", &reply, &echoed(binary, "key"));
    }
    assert!(not_asked > 0, "it was never down");
}

/// The table `t` at several targets.
fn at_targets(binary: Binary, targets: &[String], keys: &str) -> String {
    format!("[{}.t]\ntarget = {targets:?}\n{keys}\n", binary.name())
}

#[tokio::test]
async fn a_dead_first_target_is_not_asked_at_every_question() {
    for binary in ALL {
        for (what, keys) in [
            ("left in peace", down_after(1)),
            ("asked last", down_after(1_000)),
        ] {
            let first = Backend::always(status(503));
            let second = echo(binary);
            let targets = [first.url("/"), second.url("/")];
            let program = serve_tcp(binary, at_targets(binary, &targets, &keys)).await;
            let mut peer = program.peer().await;
            let reply = ask(&mut peer, binary).await;
            // A policy request that was sent is not sent to another target.
            let expected = match binary {
                Binary::Policy => failed(binary, "backend answered 503"),
                Binary::TcpLookup | Binary::Socketmap => echoed(binary, "key"),
            };
            same(what, &reply, &expected);
            for _ in 0..30 {
                let reply = ask(&mut peer, binary).await;
                same(what, &reply, &echoed(binary, "key"));
            }
            assert_eq!(first.count(), 1, "{binary:?}: {what}");
        }
    }
}

#[tokio::test]
async fn where_the_first_target_refuses_connections_the_second_is_asked() {
    for binary in ALL {
        let dead = Reserved::new();
        let second = echo(binary);
        let targets = [format!("http://{}/", dead.address()), second.url("/")];
        let program = serve_tcp(binary, at_targets(binary, &targets, &down_after(1))).await;
        let mut peer = program.peer().await;
        for count in 1..=10 {
            let reply = ask(&mut peer, binary).await;
            same(binary.name(), &reply, &echoed(binary, "key"));
            assert_eq!(second.count(), count, "{binary:?}");
        }
        told(&program, 1, 0).await;
    }
}

#[tokio::test]
async fn a_first_target_that_comes_back_is_asked_first_again() {
    for binary in ALL {
        let dead = Reserved::new();
        let second = Backend::always(good(binary, "DUNNO"));
        let targets = [format!("http://{}/", dead.address()), second.url("/")];
        let keys = down_shortly_after(1);
        let program = serve_tcp(binary, at_targets(binary, &targets, &keys)).await;
        let mut peer = program.peer().await;
        let reply = ask(&mut peer, binary).await;
        same(binary.name(), &reply, &found(binary, "DUNNO"));
        let first = Backend::at(dead, move |_| good(binary, "REJECT"));
        let is_back = async {
            loop {
                let reply = ask(&mut peer, binary).await;
                if reply == found(binary, "REJECT") {
                    break;
                }
                same("not yet", &reply, &found(binary, "DUNNO"));
            }
        };
        soon("the first target", is_back).await;
        let before = second.count();
        for _ in 0..20 {
            let reply = ask(&mut peer, binary).await;
            same("back", &reply, &found(binary, "REJECT"));
        }
        assert_eq!((first.count(), second.count()), (21, before), "{binary:?}");
        told(&program, 1, 1).await;
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
        told(&program, 0, 0).await;
    }
}

#[tokio::test]
async fn where_every_target_is_down_none_is_asked() {
    for binary in ALL {
        let backends = [
            Backend::always(status(503)),
            Backend::always(vec![Act::Close]),
            Backend::always(status(504)),
        ];
        let targets = backends.each_ref().map(|backend| backend.url("/"));
        let program = serve_tcp(binary, at_targets(binary, &targets, &down_after(1))).await;
        let mut peer = program.peer().await;
        // A policy request ends at the first target that has seen it.
        for _ in 0..3 {
            ask(&mut peer, binary).await;
        }
        let asked = || backends.iter().map(Backend::count).sum::<usize>();
        assert_eq!(asked(), 3, "{binary:?}");
        let mut not_asked = 0;
        for _ in 0..20 {
            let before = asked();
            ask(&mut peer, binary).await;
            not_asked += usize::from(asked() == before);
        }
        // The others are probes.
        assert!(not_asked >= 10, "{binary:?}: {not_asked}");
        told(&program, 3, 0).await;
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
            told(&program, 0, 0).await;
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
        told(&program, 0, 0).await;
    }
}

#[tokio::test]
async fn a_hanging_backend_is_given_up_at_the_deadline_under_load() {
    const PEERS: usize = 200;
    const AT_ONCE: usize = 20;
    for binary in ALL {
        let backend = Backend::always(vec![Act::Hang]);
        let keys = format!(
            "request-timeout = \"1s\"\nmax-in-flight = {AT_ONCE}\n{}",
            down_after(AT_ONCE)
        );
        let program = serve_tcp(binary, table(binary, &backend.url("/"), &keys)).await;
        let mut peers = program.asking(PEERS).await;
        let [late, busy, down] = ["backend timed out", "backend busy", "backend down"]
            .map(|reason| failed(binary, reason));
        let mut timed_out = 0;
        for peer in &mut peers {
            let reply = peer.reply().await;
            timed_out += usize::from(reply == late);
            let is_right = [&late, &busy, &down].contains(&&reply);
            assert!(is_right, "{binary:?}: {}", crate::support::shown(&reply));
        }
        assert!(timed_out >= AT_ONCE, "{binary:?}: {timed_out}");
        // The end of one that was given up may reach the backend after the next one's beginning.
        let most = backend.most_at_once();
        assert!(most <= 2 * AT_ONCE, "{binary:?}: {most}");
        // Nothing is left of those calls.
        backend.left(backend.count()).await;
        is_down(&mut peers[0], binary, &backend, &late).await;
    }
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

/// What is left is given up after a second, so the test takes none that is much longer.
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
            () = told(&program, 1, 0) => {}
        }
    }
}
