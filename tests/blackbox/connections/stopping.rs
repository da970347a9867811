//! The end of a program after SIGTERM.

use rustix::process::Signal;

use super::InFlight;
use crate::support::{
    peer::{netstring, question},
    program::{ALL, Binary, times_seen},
    same,
    tables::{found, serve_tcp, table},
};

#[tokio::test]
async fn at_sigterm_what_was_asked_is_answered_and_the_idle_are_closed() {
    for binary in ALL {
        let mut test = InFlight::start(binary, "drain-timeout = \"85s\"").await;
        // A request that has arrived, though not been read, was asked as well.
        test.asking.send(question(binary, "t", "key")).await;
        test.program.signal(Signal::TERM);
        test.program.notified("STOPPING=1", 1).await;
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
    test.program.notified("STOPPING=1", 1).await;
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
        test.program.notified("STOPPING=1", 1).await;
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
        assert_eq!(times_seen(&notices.all(), "STOPPING=1"), 1, "{binary:?}");
    }
}
