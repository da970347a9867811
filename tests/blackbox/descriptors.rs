//! Programs that have few descriptors.

use rustix::process::Signal;

use crate::support::{
    backend::{Backend, Gate},
    peer::{Peer, question},
    program::{ALL, Binary, Launch, Program, times_seen},
    same,
    tables::{echo, echoed, found, gated, table, table_named},
};

/// A program of four tables with few descriptors, for 14 connections; each table's backend answers
/// all of them at once. Every call leaves an idle connection, which would be one too many.
struct Starved {
    tables: Vec<(Backend, Gate)>,
    program: Program,
    asked: Vec<usize>,
}

impl Starved {
    const PEERS: usize = 14;
    const BINARY: Binary = Binary::Socketmap;

    /// With the first of the tables alone, or with all of them.
    async fn new(first: usize) -> Self {
        let tables: Vec<_> = (0..4).map(|_| gated(Self::BINARY)).collect();
        let config = Self::config(&tables[..first]);
        let launch = Launch::new(Self::BINARY).config(config).descriptors(64);
        let program = launch.tcp4("t").tcp4("metrics").ready().await;
        Self {
            tables,
            program,
            asked: vec![0; 4],
        }
    }

    fn config(tables: &[(Backend, Gate)]) -> String {
        let table = |(number, (backend, _)): (usize, &(Backend, Gate))| {
            let keys = "request-timeout = \"80s\"\nbreaker = false";
            let name = format!("t{number}");
            table_named(Self::BINARY, &name, &backend.url("/"), keys)
        };
        tables.iter().enumerate().map(table).collect()
    }

    /// Asks a table on all connections at once.
    async fn ask(&mut self, peers: &mut [Peer], number: usize) {
        let question = question(Self::BINARY, &format!("t{number}"), "key");
        for peer in peers.iter_mut() {
            peer.send(&question).await;
        }
        self.asked[number] += peers.len();
        let (backend, gate) = &self.tables[number];
        backend.asked(self.asked[number]).await;
        gate.pass(peers.len());
        for peer in peers {
            let place = format!("table {number}");
            let expected = found(Self::BINARY, "DUNNO");
            same(&place, &peer.reply().await, &expected);
        }
    }

    /// Asks all tables by turns.
    async fn ask_all(&mut self, peers: &mut [Peer]) {
        for _ in 0..3 {
            for number in 0..self.tables.len() {
                self.ask(peers, number).await;
            }
        }
    }
}

#[tokio::test]
async fn few_descriptors_are_enough_for_as_many_connections_as_are_let_in() {
    let mut starved = Starved::new(4).await;
    // However many look at the metrics, they take nothing from the others.
    let mut watchers = Vec::new();
    for _ in 0..40 {
        let address = starved.program.address(1);
        let mut watcher = Peer::connect(&address, Starved::BINARY).await;
        watcher.send_what_it_takes(b"GET /").await;
        watchers.push(watcher);
    }
    // Beyond their cap a connection is closed at once, and does not wait for those that are held.
    let mut refused = Peer::connect(&starved.program.address(1), Starved::BINARY).await;
    assert!(refused.everything().await.is_empty());
    let mut peers = starved.program.peers::<{ Starved::PEERS }>().await;
    starved.ask_all(&mut peers).await;
    let program = starved.program;
    assert_eq!(program.lines("WARN"), 1, "{:#?}", program.stderr.all());
}

#[tokio::test]
async fn few_descriptors_are_enough_for_the_tables_of_a_reload_as_well() {
    let mut starved = Starved::new(1).await;
    let mut peers = starved.program.peers::<{ Starved::PEERS }>().await;
    starved.ask(&mut peers, 0).await;
    starved.program.rewrite(&Starved::config(&starved.tables));
    starved.program.signal(Signal::HUP);
    starved.program.logged("reload: done").await;
    starved.ask_all(&mut peers).await;
}

/// A program that has fewer descriptors than connections, and the connections.
async fn starved(binary: Binary, backend: &Backend) -> (Program, Vec<Peer>) {
    let program = Launch::new(binary)
        .config(table(binary, &backend.url("/"), ""))
        .tcp4("t")
        .descriptors(40)
        .watchdog(200_000)
        .ready()
        .await;
    let expected_reply = |lines: &[String]| {
        let what = "descriptors: 40 are enough for 6 connections, not for 1024";
        lines.iter().any(|line| line.contains(what))
    };
    program
        .stderr
        .until("a warning at the start", expected_reply)
        .await;
    let mut peers = Vec::new();
    for _ in 0..80 {
        peers.push(program.peer().await);
    }
    (program, peers)
}

#[tokio::test]
async fn a_lack_of_descriptors_lowers_the_cap_and_fills_no_log() {
    for binary in ALL {
        let backend = echo(binary);
        let (program, _peers) = starved(binary, &backend).await;
        for round in 0..10 {
            let mut peer = program.peer().await;
            let reply = peer.ask(question(binary, "t", "key")).await;
            let place = format!("{} in round {round}", binary.name());
            same(&place, &reply, &echoed(binary, "key"));
        }
        let lines = program.stderr.all();
        assert!(lines.len() < 4, "{binary:?}: {lines:#?}");
    }
}

/// Without this the service manager would end a program that only waits for a descriptor.
#[tokio::test]
async fn the_watchdog_is_fed_without_a_free_descriptor() {
    for binary in ALL {
        let backend = echo(binary);
        let (program, _peers) = starved(binary, &backend).await;
        let before = times_seen(&program.notices.all(), "WATCHDOG=1");
        program.notified("WATCHDOG=1", before + 3).await;
    }
}
