//! Several targets, some of which are down.

use super::{ask, changes, down_after, down_shortly_after};
use crate::support::{
    backend::{Act, Backend, good, status},
    peer::question,
    program::{ALL, Binary, Reserved},
    same, soon,
    tables::{echo, echoed, failed, found, serve_tcp, table},
};

/// The table `t` at several targets.
pub(super) fn at_targets(binary: Binary, targets: &[String], keys: &str) -> String {
    format!("[{}.t]\ntarget = {targets:?}\n{keys}\n", binary.name())
}

#[tokio::test]
async fn a_dead_first_target_is_not_asked_at_every_question() {
    for binary in ALL {
        for (what, keys) in [
            ("skipped while it is down", down_after(1)),
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
        changes(&program, 1, 0).await;
    }
}

#[tokio::test]
async fn the_first_failure_that_another_target_makes_up_for_is_a_warning() {
    for binary in ALL {
        for keys in ["", "breaker = false"] {
            let dead = Reserved::new();
            let second = echo(binary);
            let origin = format!("http://{}", dead.address());
            let targets = [format!("{origin}/"), second.url("/")];
            let program = serve_tcp(binary, at_targets(binary, &targets, keys)).await;
            let mut peer = program.peer().await;
            for _ in 0..3 {
                let reply = ask(&mut peer, binary).await;
                same(binary.name(), &reply, &echoed(binary, "key"));
            }
            let second = second.url("");
            let line = format!(
                " WARN t: down: {origin} fails, and {second} answers in its place: backend \
                 unreachable: {}: Connection refused (os error 111)",
                dead.address()
            );
            program.logged(&line).await;
            changes(&program, 1, 0).await;
        }
    }
}

/// A stranger may know the one key to which the first target does not answer, although the second
/// does, or that to which no target has an answer.
#[tokio::test]
async fn no_key_calls_a_target_down() {
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
        let [first, busy, useless] = [500, 503, 401].map(|code| Backend::always(status(code)));
        let (second, closes) = (echo(binary), Backend::always(vec![Act::Close]));
        for (targets, expected) in [
            ([first.url("/"), second.url("/")], Some("key")),
            ([busy.url("/"), second.url("/")], Some("key")),
            ([closes.url("/"), second.url("/")], Some("key")),
            ([busy.url("/"), useless.url("/")], None),
        ] {
            let program = serve_tcp(binary, at_targets(binary, &targets, "")).await;
            let answer = ask(&mut program.peer().await, binary).await;
            if let Some(key) = expected {
                same(binary.name(), &answer, &echoed(binary, key));
            }
            changes(&program, 0, 0).await;
        }
    }
}

/// Nor does a key for which it needs too long, however often it is asked for, until it has been asked
/// for as often as opens a breaker.
#[tokio::test]
async fn different_calls_that_fail_in_a_row_call_a_target_down() {
    for binary in ALL {
        for (what, script) in [("503", status(503)), ("a hang", vec![Act::Hang])] {
            let backend = Backend::always(script);
            let keys = "breaker = false\nrequest-timeout = \"100ms\"";
            let program = serve_tcp(binary, table(binary, &backend.url("/"), keys)).await;
            let mut peer = program.peer().await;
            for key in ["a", "b", "a", "b", "a", "b", "b", "a", "b"] {
                peer.ask(question(binary, "t", key)).await;
            }
            changes(&program, 0, 0).await;
            peer.ask(question(binary, "t", "c")).await;
            let line = format!(" WARN t: down: {} fails: backend ", backend.url(""));
            program.logged(&line).await;
            for key in ["d", "e", "f"] {
                peer.ask(question(binary, "t", key)).await;
            }
            changes(&program, 1, 0).await;
            assert_eq!(backend.count(), 13, "{binary:?}: {what}");
        }
    }
}

/// The second target answers most calls: those at which the first hangs are none of its own.
#[tokio::test]
async fn a_first_target_that_hangs_is_down_after_three_calls_until_it_answers() {
    for binary in ALL {
        let scripts = [
            vec![Act::Hang],
            vec![Act::Hang],
            vec![Act::Hang],
            good(binary, "DUNNO"),
        ];
        let first = Backend::in_turn(scripts);
        let second = Backend::always(good(binary, "REJECT"));
        let targets = [first.url("/"), second.url("/")];
        let keys = "breaker = { failures = 1000, pause = \"1ms\" }\nrequest-timeout = \"300ms\"";
        let program = serve_tcp(binary, at_targets(binary, &targets, keys)).await;
        let mut peer = program.peer().await;
        let mut asked = 0;
        let is_back = async {
            while first.count() < 4 {
                asked += 1;
                peer.ask(question(binary, "t", format!("key{asked}"))).await;
            }
        };
        soon("the first target", is_back).await;
        let line = format!(
            " WARN t: down: {} fails: backend timed out: no answer from ",
            first.url("")
        );
        program.logged(&line).await;
        changes(&program, 1, 1).await;
    }
}

#[tokio::test]
async fn a_target_without_a_connection_is_down_though_no_other_answers() {
    for binary in ALL {
        let [first, second] = [Reserved::new(), Reserved::new()];
        let origins = [&first, &second].map(|dead| format!("http://{}", dead.address()));
        for keys in ["", "breaker = false"] {
            let program = serve_tcp(binary, at_targets(binary, &origins, keys)).await;
            let mut peer = program.peer().await;
            for _ in 0..3 {
                ask(&mut peer, binary).await;
            }
            changes(&program, 2, 0).await;
        }
        let config = table(binary, &origins[0], "breaker = false");
        let program = serve_tcp(binary, config).await;
        let mut peer = program.peer().await;
        for _ in 0..3 {
            ask(&mut peer, binary).await;
        }
        let line = format!(
            " WARN t: down: {} fails: backend unreachable: {}: Connection refused",
            origins[0],
            first.address()
        );
        program.logged(&line).await;
        let _back = Backend::at(first, move |_| good(binary, "DUNNO"));
        ask(&mut peer, binary).await;
        changes(&program, 1, 1).await;
    }
}

#[tokio::test]
async fn a_failure_names_each_target_that_was_tried() {
    let binary = Binary::Socketmap;
    let dead = [Reserved::new(), Reserved::new()];
    let ill = Backend::always(status(500));
    let targets = [
        format!("http://{}/", dead[0].address()),
        ill.url("/"),
        format!("http://{}/", dead[1].address()),
    ];
    let program = serve_tcp(binary, at_targets(binary, &targets, "")).await;
    ask(&mut program.peer().await, binary).await;
    let refused = |dead: &Reserved| {
        let refused = "Connection refused (os error 111)";
        format!("backend unreachable: {}: {refused}", dead.address())
    };
    let line = format!(
        " WARN t: {}; before it {}: backend answered 500; before it {}",
        refused(&dead[1]),
        ill.url(""),
        refused(&dead[0])
    );
    program.logged(&line).await;
    // Those without a connection.
    changes(&program, 2, 0).await;
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
        changes(&program, 1, 1).await;
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
        changes(&program, 3, 0).await;
    }
}
