//! The state of a target: up, down, probed, up again.

use rustix::process::Signal;

use super::{ask, ask_until_asked, changes, down_after, down_shortly_after, is_down};
use crate::support::{
    backend::{Act, Backend, Gate, good, status},
    peer::question,
    program::{ALL, Binary},
    same,
    tables::{echo, echoed, failed, found, serve_tcp, table, table_named},
};

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
        changes(&program, 1, 0).await;
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
        changes(&program, 1, 1).await;
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
        changes(&program, 1, 1).await;
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
        changes(&program, 1, 0).await;
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
        program.notified("READY=1", 2).await;
        is_down(&mut peer, binary, &backend, &answered).await;
        let asked = backend.count();
        program.rewrite(&config("user-agent = \"other\""));
        program.signal(Signal::HUP);
        program.notified("READY=1", 3).await;
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
