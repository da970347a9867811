//! Targets that are down: the programs skip them and probe them.

mod down;
mod failures;
mod targets;

use crate::support::{
    backend::Backend,
    peer::{Peer, question},
    program::{Binary, Program},
    same,
    tables::failed,
};

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

/// Demands that the target is down: a request does not reach it, unless it is the probe, which gets
/// this reply.
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
async fn changes(program: &Program, down: usize, up: usize) {
    let count = |lines: &[String], text: &str| {
        let with = lines.iter().filter(|line| line.contains(text));
        with.count()
    };
    let both = |lines: &[String]| {
        (
            count(lines, " WARN t: down: "),
            count(lines, " INFO t: up: "),
        )
    };
    let is_enough = |lines: &[String]| both(lines).0 >= down && both(lines).1 >= up;
    let lines = program.stderr.until("lines of targets", is_enough).await;
    assert_eq!(both(&lines), (down, up), "{lines:#?}");
}
