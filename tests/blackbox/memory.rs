//! Limits of memory against peers of every kind.

use crate::support::{
    backend::{Act, Backend, Gate, good, plain},
    peer::{Peer, question},
    program::{ALL, Binary, Launch, Program, allow_descriptors},
    replies::LATER,
    same, shown,
    tables::{echo_of, echoed, failed, found, key_of, pass_by, serve_tcp, table},
};

/// The most memory that a program may take, in KiB, whatever its peers do.
const MOST_MEMORY: u64 = 100 * 1024;

/// A program that peers of every kind sit on, and one that is answered all the while.
struct Besieged {
    binary: Binary,
    program: Program,
    neighbour: Peer,
    _backend: Backend,
}

impl Besieged {
    /// Over TCP at first, and over a unix socket, for which the kernel holds less.
    async fn new(binary: Binary, long: &'static str) -> Self {
        allow_descriptors(10_000);
        let backend = Backend::new(move |request| match key_of(binary, request).as_str() {
            "long" => echo_of(binary, long),
            key => echo_of(binary, key),
        });
        let config = format!(
            "[server]\nmax-connections = 4096\nread-timeout = \"10m\"\n{}",
            table(binary, &backend.url("/"), "request-timeout = \"30s\"")
        );
        let launch = Launch::new(binary).config(config);
        let program = launch.tcp4("t").unix("t").ready().await;
        let neighbour = program.peer().await;
        Self {
            binary,
            program,
            neighbour,
            _backend: backend,
        }
    }

    /// Demands replies for an older connection and for a fresh one.
    async fn answers_others(&mut self, place: &str) {
        let mut fresh = self.program.peer().await;
        for peer in [&mut self.neighbour, &mut fresh] {
            let reply = peer.ask(question(self.binary, "t", "key")).await;
            same(place, &reply, &echoed(self.binary, "key"));
        }
    }

    /// Tells how much memory it takes by now, which has to be little.
    fn memory(&self, place: &str) -> u64 {
        let memory = self.program.memory();
        let name = self.binary.name();
        println!("{name}: {place}: {memory} KiB");
        assert!(memory < MOST_MEMORY, "{name}: {place}: {memory} KiB");
        memory
    }

    /// Ends it; nothing may hold it up.
    async fn stop(self) {
        drop(self.neighbour);
        let end = self.program.stop().await;
        for fault in ["drain timeout", "internal error"] {
            assert!(!end.stderr.contains(fault), "{end:#?}");
        }
    }
}

#[tokio::test]
async fn two_thousand_requests_left_half_way_take_little_and_delay_nobody() {
    const PEERS: usize = 2_000;
    for binary in ALL {
        let mut besieged = Besieged::new(binary, "").await;
        besieged.answers_others("before").await;
        besieged.memory("before");
        let request = question(binary, "t", "somebody@example.com");
        let mut peers = Vec::with_capacity(PEERS);
        for number in 0..PEERS {
            let mut peer = besieged.program.peer().await;
            peer.send(&request[..1 + number % (request.len() - 1)])
                .await;
            peers.push(peer);
            if number % 100 == 0 {
                besieged.answers_others("while they come").await;
            }
        }
        besieged.answers_others("with all of them there").await;
        besieged.memory("2000 requests half-way");
        // A byte more of each, and again.
        for round in 0..2 {
            for (number, peer) in peers.iter_mut().enumerate() {
                let at = 1 + number % (request.len() - 1) + round;
                if at + 1 < request.len() {
                    peer.send(&request[at..=at]).await;
                }
                if number % 100 == 0 {
                    besieged.answers_others("while they trickle").await;
                }
            }
        }
        besieged.memory("and some bytes more");
        for (number, peer) in peers.into_iter().enumerate() {
            if number % 2 == 0 {
                peer.reset();
            }
        }
        besieged.answers_others("after they have gone").await;
        besieged.memory("after they have gone");
        besieged.stop().await;
    }
}

#[tokio::test]
async fn the_longest_requests_left_half_way_take_what_they_are_long() {
    // As many as are allowed, each a byte too short: the most that strangers can make a program
    // hold.
    const PEERS: usize = 500;
    for binary in ALL {
        let mut besieged = Besieged::new(binary, "").await;
        let mut request = question(binary, "t", "a".repeat(60_000));
        request.pop();
        request.pop();
        let mut peers = Vec::with_capacity(PEERS);
        for _ in 0..PEERS {
            let mut peer = besieged.program.peer().await;
            peer.send(&request).await;
            peers.push(peer);
        }
        besieged.answers_others("with all of them there").await;
        besieged.memory("500 requests of 60 kB half-way");
        drop(peers);
        besieged.answers_others("after they have gone").await;
        besieged.stop().await;
    }
}

#[tokio::test]
async fn fifty_megabytes_without_an_end_are_refused_long_before() {
    const ALL_OF_IT: usize = 50_000_000;
    for binary in ALL {
        let mut besieged = Besieged::new(binary, "").await;
        let (starts, refused): (&[&str], _) = match binary {
            Binary::TcpLookup => (&["get ", ""], failed(binary, "request too long")),
            Binary::Policy => (&["sender=", ""], failed(binary, LATER)),
            Binary::Socketmap => (
                &["999999999:", "65537:", "99999999999999999999999999:"],
                b"21:PERM request too long,".to_vec(),
            ),
        };
        let piece = vec![b'a'; 100_000];
        for start in starts {
            let mut peers = Vec::new();
            for _ in 0..5 {
                let mut peer = besieged.program.peer().await;
                peer.send(start).await;
                peers.push(peer);
            }
            let mut sent = vec![0; peers.len()];
            while let Some(at) = (0..peers.len()).find(|at| sent[*at] < ALL_OF_IT) {
                // All of them by turns, until the program takes no more.
                for (at, peer) in peers.iter_mut().enumerate().skip(at) {
                    if sent[at] < ALL_OF_IT && !peer.send_what_it_takes(&piece).await {
                        sent[at] = usize::MAX;
                    } else {
                        sent[at] = sent[at].saturating_add(piece.len());
                    }
                }
                besieged.answers_others(start).await;
                besieged.memory(start);
            }
            assert_eq!(sent, vec![usize::MAX; peers.len()], "{binary:?}: taken");
            for peer in &mut peers {
                let expected_reply = peer.everything().await;
                // After a reset the kernel may discard the reply.
                let is_right = refused.starts_with(&expected_reply);
                assert!(is_right, "{binary:?}: {}", shown(&expected_reply));
            }
        }
        besieged.stop().await;
    }
}

#[tokio::test]
async fn a_length_without_a_netstring_takes_no_memory() {
    let binary = Binary::Socketmap;
    let mut besieged = Besieged::new(binary, "").await;
    besieged.answers_others("before").await;
    let before = besieged.memory("before");
    for header in [
        "999999999:",
        "65537:",
        "4294967296:",
        "9999999999999999999999",
    ] {
        for _ in 0..300 {
            let mut peer = besieged.program.peer().await;
            peer.send(header).await;
            peer.expect(b"21:PERM request too long,").await;
            peer.expect_eof().await;
        }
        besieged.answers_others(header).await;
    }
    // These lengths are within the limit, and their payload never comes.
    let mut peers = Vec::new();
    for _ in 0..1_000 {
        let mut peer = besieged.program.peer().await;
        peer.send("65536:").await;
        peers.push(peer);
    }
    besieged.answers_others("with all of them there").await;
    let memory = besieged.memory("1000 announcements of 64 KiB");
    assert!(memory < before + 32 * 1024, "{before} KiB became {memory}");
    drop(peers);
    besieged.stop().await;
}

#[tokio::test]
async fn peers_that_never_read_take_little_and_delay_nobody() {
    const PEERS: usize = 200;
    const VALUE: &str = concat!(
        "1234567890123456789012345678901234567890123456789012345678901234567890123456789",
        "1234567890123456789012345678901234567890123456789012345678901234567890123456789"
    );
    for binary in ALL {
        let mut besieged = Besieged::new(binary, VALUE).await;
        besieged.answers_others("before").await;
        besieged.memory("before");
        let many = question(binary, "t", "long").repeat(10_000);
        let mut deaf = Vec::new();
        for _ in 0..PEERS {
            let address = besieged.program.address(1);
            deaf.push(Peer::connect(&address, binary).await);
        }
        for round in 0..3 {
            for (number, peer) in deaf.iter_mut().enumerate() {
                let pass = pass_by(std::slice::from_mut(&mut besieged.neighbour), binary);
                peer.stuff(&many, pass).await;
                if number % 20 == 0 {
                    besieged.answers_others("while they come").await;
                }
            }
            besieged.memory(&format!("200 that never read, round {round}"));
        }
        drop(deaf);
        besieged.answers_others("after they have gone").await;
        besieged.stop().await;
    }
}

/// The largest policy request: its lines, and its end.
fn largest_policy_request(value: &str) -> (Vec<Vec<u8>>, &'static [u8]) {
    let line = |number| format!("{number:03}={}\n", value.repeat(123)).into_bytes();
    ((0..511).map(line).collect(), b"\n")
}

/// A buffer for each piece would be several times as much.
#[tokio::test]
async fn a_policy_request_takes_a_small_multiple_of_its_size_however_it_was_cut() {
    const PEERS: usize = 16;
    let binary = Binary::Policy;
    let form = ("", "x", 6);
    // Each byte is six in JSON.
    let json = ("json = \"{*}\"", "\u{1}", 12);
    for (keys, value, multiple) in [form, json] {
        let gate = Gate::shut();
        let backend = {
            let gate = gate.clone();
            Backend::new(move |request| match request.body.len() {
                0..1_000 => plain("DUNNO"),
                _ => [vec![Act::Wait(gate.clone())], plain("DUNNO")].concat(),
            })
        };
        let keys = format!("request-timeout = \"80s\"\n{keys}");
        let program = serve_tcp(binary, table(binary, &backend.url("/"), &keys)).await;
        let mut others = program.peers::<2>().await;
        pass_by(&mut others, binary).await;
        let mut peers = Vec::new();
        for _ in 0..PEERS {
            peers.push(program.peer().await);
        }
        let before = program.memory();
        let (pieces, end) = largest_policy_request(value);
        for piece in &pieces {
            for peer in &mut peers {
                peer.send(piece).await;
            }
            pass_by(&mut others, binary).await;
        }
        let passed_by = backend.count();
        for peer in &mut peers {
            peer.send(end).await;
        }
        backend.asked(passed_by + PEERS).await;
        let each = (program.memory() - before) / u64::try_from(PEERS).expect("a number");
        assert!(each <= multiple * 64, "{keys}: {each} KiB for each request");
        gate.pass(PEERS);
        for peer in &mut peers {
            same("policy", &peer.reply().await, &found(binary, "DUNNO"));
        }
    }
}

#[tokio::test]
async fn an_idle_connection_keeps_nothing_of_a_large_request() {
    const PEERS: usize = 100;
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let request = question(binary, "t", "x".repeat(60_000));
        let mut peers = Vec::new();
        let mut before = None;
        for _ in 0..PEERS {
            let mut peer = program.peer().await;
            same(
                binary.name(),
                &peer.ask(&request).await,
                &found(binary, "DUNNO"),
            );
            peers.push(peer);
            // The first ones allocate memory that the program uses for all of them.
            if peers.len() == PEERS / 10 {
                before = Some(program.memory());
            }
        }
        let more = program.memory().saturating_sub(before.expect("a number"));
        assert!(more <= 2 * 1024, "{binary:?}: {more} KiB more");
    }
}
