//! All three programs with one backend that fails in every way, in a random order, and recovers
//! each time. Every reply is checked against those that are allowed at that time.
//!
//! The order is the same every time; `POSTGATE_FAULTS_SEED` chooses another.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use fastrand::Rng;
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::support::{
    backend::{Act, Backend, Request, Script, json, plain, raw, response, status, typed},
    peer::{Address, Peer, question},
    program::{ALL, Binary, Launch, Program, Reserved},
    replies::LATER,
    shown, soon,
    tables::{echo_of, key_of, table_named},
};

/// The most memory that a program may take, in KiB.
const MOST_MEMORY: u64 = 100 * 1024;

/// How the backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    /// Nobody listens.
    Refuses,
    Resets,
    Closes,
    Hangs,
    Crawls,
    /// Ends in the middle.
    Cuts,
    /// Sends bytes that are no answer.
    Raves,
    /// Says more than anybody has asked for.
    Babbles,
    Endless,
    /// Answers 5xx now and then.
    Bursts,
}

const ILL: [Mood; 10] = [
    Mood::Refuses,
    Mood::Resets,
    Mood::Closes,
    Mood::Hangs,
    Mood::Crawls,
    Mood::Cuts,
    Mood::Raves,
    Mood::Babbles,
    Mood::Endless,
    Mood::Bursts,
];

/// Makes the backend's answers.
struct Mind {
    mood: Mutex<Mood>,
    /// Which phase it is: a part of every value.
    phase: AtomicUsize,
    rng: Mutex<Rng>,
}

impl Mind {
    fn mood(&self) -> Mood {
        *self.mood.lock().expect("a lock")
    }

    fn answer(&self, request: &Request) -> Script {
        let path = request.target.trim_start_matches('/');
        let binary = ALL.into_iter().find(|binary| {
            let name = binary.name();
            path.starts_with(name)
        });
        let binary = binary.expect("a program");
        let key = key_of(binary, request);
        let right = self.right(binary, &key);
        let mut rng = self.rng.lock().expect("a lock");
        // Even a failing backend answers now and then.
        if self.mood() != Mood::Hangs && rng.u8(..5) == 0 {
            return right;
        }
        let bytes = bytes_of(&right);
        match self.mood() {
            Mood::Well => right,
            // It has asked before nobody listened.
            Mood::Refuses | Mood::Closes => vec![Act::Close],
            Mood::Resets => {
                let until = rng.usize(..bytes.len());
                vec![raw(&bytes[..until]), Act::Reset]
            }
            Mood::Hangs => vec![Act::Hang],
            Mood::Crawls => vec![Act::Crawl(bytes)],
            Mood::Cuts => {
                let until = rng.usize(..bytes.len());
                vec![raw(&bytes[..until]), Act::Close]
            }
            Mood::Raves => raving(binary, &key, &mut rng),
            Mood::Babbles => {
                let wrong = bytes_of(&self.right(binary, "joe-babble"));
                let mut script = vec![raw([bytes, wrong].concat())];
                if rng.bool() {
                    script.push(Act::Close);
                }
                script
            }
            Mood::Endless => {
                let head = match rng.u8(..3) {
                    0 => "HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n\"",
                    1 => "HTTP/1.1 200 OK\r\n\r\n\"",
                    _ => "HTTP/1.1 200 OK\r\nX: ",
                };
                vec![raw(head), Act::Endless(vec![b'a'; 10_000])]
            }
            Mood::Bursts => status(500 + u16::from(rng.u8(..6))),
        }
    }

    /// The answer that is true.
    fn right(&self, binary: Binary, key: &str) -> Script {
        if key.starts_with("nobody") {
            return status(204);
        }
        let phase = self.phase.load(Ordering::Relaxed);
        echo_of(binary, &format!("{key}.{phase}"))
    }
}

fn bytes_of(script: &Script) -> Vec<u8> {
    let sent = script.iter().map(|act| match act {
        Act::Send(bytes) => bytes.as_slice(),
        _ => panic!("not a plain answer"),
    });
    sent.collect::<Vec<_>>().concat()
}

/// Bytes that are no answer.
fn raving(binary: Binary, key: &str, rng: &mut Rng) -> Script {
    let ways: [Script; 12] = [
        vec![raw("220 mail ESMTP\r\n"), Act::Close],
        vec![raw("\0\0\0\0\r\n\r\n"), Act::Close],
        vec![raw("HTTP/1.1 2000 OK\r\n\r\n"), Act::Close],
        vec![
            raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            Act::Close,
        ],
        vec![
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            Act::Close,
        ],
        typed(200, "text/html", "<html>It works</html>"),
        typed(200, "application/json", "{\"a\": "),
        typed(200, "application/json", format!("[[\"{key}\"]]")),
        response(206, &[], "\"part\""),
        response(202, &[], "\"later\""),
        match binary {
            Binary::Policy => plain("OK"),
            _ => json("{}"),
        },
        match binary {
            Binary::Policy => plain("no such action"),
            _ => plain("not JSON"),
        },
    ];
    let [first, ..] = &ways;
    ways.get(rng.usize(..ways.len())).unwrap_or(first).clone()
}

/// The reply of a program.
#[derive(Debug, PartialEq, Eq)]
enum Replies {
    Found(String),
    NotFound,
    Failed(String),
}

fn times_seen(binary: Binary, reply: &[u8]) -> Option<Replies> {
    let text = str::from_utf8(reply).ok()?;
    match binary {
        Binary::TcpLookup => {
            let (word, rest) = text.strip_suffix('\n')?.split_once(' ')?;
            match (word, rest) {
                ("200", value) => Some(Replies::Found(value.to_owned())),
                ("500", "not%20found") => Some(Replies::NotFound),
                ("400", reason) => Some(Replies::Failed(reason.replace("%20", " "))),
                _ => None,
            }
        }
        Binary::Socketmap => {
            let (_, payload) = text.strip_suffix(',')?.split_once(':')?;
            match payload.split_once(' ')? {
                ("OK", value) => Some(Replies::Found(value.to_owned())),
                ("NOTFOUND", "") => Some(Replies::NotFound),
                ("TIMEOUT", "backend timed out") => {
                    Some(Replies::Failed("backend timed out".into()))
                }
                ("TEMP", reason) => Some(Replies::Failed(reason.to_owned())),
                _ => None,
            }
        }
        Binary::Policy => match text.strip_prefix("action=")?.strip_suffix("\n\n")? {
            "DUNNO" => Some(Replies::NotFound),
            LATER => Some(Replies::Failed("backend down".to_owned())),
            action => Some(Replies::Found(action.strip_prefix("REJECT ")?.to_owned())),
        },
    }
}

/// The permitted replies of a phase.
#[derive(Clone, Debug)]
struct Law {
    /// The phases whose values are good.
    phases: RangeInclusive<usize>,
    may_fail: bool,
}

impl Law {
    /// Tells whether a reply is one that may be said of this key.
    fn allows(&self, binary: Binary, key: &str, reply: &[u8]) -> bool {
        match times_seen(binary, reply) {
            Some(Replies::Found(value)) => value
                .strip_prefix(key)
                .and_then(|rest| rest.strip_prefix('.')?.parse().ok())
                .is_some_and(|phase: usize| key.starts_with("joe") && self.phases.contains(&phase)),
            Some(Replies::NotFound) => key.starts_with("nobody"),
            Some(Replies::Failed(reason)) => self.may_fail && is_temporary(&reason),
            None => false,
        }
    }
}

fn is_temporary(reason: &str) -> bool {
    let answered = |reason: &str| {
        let status = reason.strip_prefix("backend answered ")?;
        Some(["202", "206"].contains(&status) || status.starts_with('5'))
    };
    [
        "backend timed out",
        "backend unreachable",
        "backend down",
        "backend busy",
        "backend answer not understood",
        "backend answer too long",
    ]
    .contains(&reason)
        || answered(reason) == Some(true)
}

/// One of Postfix's processes: a table, a connection, and questions of chance.
struct Client {
    number: usize,
    binary: Binary,
    table: &'static str,
    address: Address,
    peer: Peer,
    rng: Rng,
    replies: usize,
}

impl Client {
    async fn new(number: usize, subject: &Subject, rng: Rng) -> Self {
        let (binary, table) = (subject.binary, CLIENTS[number % CLIENTS.len()]);
        let address = subject.address(table);
        let peer = Peer::connect(&address, binary).await;
        Self {
            number,
            binary,
            table,
            address,
            peer,
            rng,
            replies: 0,
        }
    }

    async fn phase(mut self, law: Law, rounds: usize, most: usize) -> Self {
        for _ in 0..rounds {
            self.round(&law, most).await;
        }
        self
    }

    async fn round(&mut self, law: &Law, most: usize) {
        match self.rng.u8(..10) {
            0 => {
                let key = self.key();
                self.peer.send(question(self.binary, self.table, key)).await;
                self.go_away().await;
            }
            1 => {
                let keys = self.ask(most).await;
                let half = question(self.binary, self.table, self.key());
                let until = self.rng.usize(1..half.len());
                self.peer.send(&half[..until]).await;
                self.peer.finish().await;
                self.read(law, &keys).await;
                self.peer.expect_eof().await;
                self.peer = Peer::connect(&self.address, self.binary).await;
            }
            2 => {
                let keys = self.ask(most).await;
                self.read(law, &keys).await;
                self.end().await;
                self.peer = Peer::connect(&self.address, self.binary).await;
            }
            _ => {
                let keys = self.ask(most).await;
                self.read(law, &keys).await;
            }
        }
    }

    fn key(&mut self) -> String {
        // Few keys meet again in a cache, and in flight.
        let number = match self.table {
            "kept" => self.rng.u8(..4),
            _ => self.rng.u8(..20),
        };
        let name = if self.rng.bool() { "joe" } else { "nobody" };
        format!("{name}-{number}")
    }

    /// Asks one or more questions at once.
    async fn ask(&mut self, most: usize) -> Vec<String> {
        let count = self.rng.usize(1..=most);
        let keys: Vec<String> = (0..count).map(|_| self.key()).collect();
        let ask = |key| question(self.binary, self.table, key);
        let questions: Vec<u8> = keys.iter().flat_map(ask).collect();
        self.peer.send(questions).await;
        keys
    }

    async fn read(&mut self, law: &Law, keys: &[String]) {
        for key in keys {
            let reply = self.peer.reply().await;
            self.replies += 1;
            assert!(
                law.allows(self.binary, key, &reply),
                "{} {}: {key}: {} against {law:?}",
                self.binary.name(),
                self.table,
                shown(&reply)
            );
        }
    }

    /// Breaks the connection and comes back on another.
    async fn go_away(&mut self) {
        let next = Peer::connect(&self.address, self.binary).await;
        std::mem::replace(&mut self.peer, next).reset();
    }

    /// Ends the connection in order: nothing is said that was not asked for.
    async fn end(&mut self) {
        self.peer.finish().await;
        self.peer.expect_eof().await;
    }

    /// Asks until the backend's recovery has been noticed.
    async fn until_well(&mut self, law: &Law) {
        let failing = Law {
            may_fail: true,
            ..law.clone()
        };
        let noticed = async {
            for number in 0.. {
                // Nobody has asked for it, so no cache can know it.
                let key = format!("joe-of-{}-{}-{number}", law.phases.end(), self.number);
                let request = question(self.binary, self.table, &key);
                let reply = self.peer.ask(request).await;
                if law.allows(self.binary, &key, &reply) {
                    break;
                }
                assert!(
                    failing.allows(self.binary, &key, &reply),
                    "{}",
                    shown(&reply)
                );
            }
        };
        soon("the backend's recovery", noticed).await;
    }
}

/// One program, and how it was at the start.
struct Subject {
    binary: Binary,
    program: Program,
    /// Sends requests that need no call, until the program has closed its connections.
    watcher: Peer,
    descriptors: usize,
    threads: u64,
    memory: u64,
    reloads: usize,
    emptied: usize,
}

const CLIENTS: [&str; 6] = ["t", "t", "t", "t", "kept", "kept"];

impl Subject {
    async fn new(binary: Binary, origin: &str) -> Self {
        let keys = "request-timeout = \"2s\"\nmax-response = \"64KiB\"\nmax-in-flight = 4\n\
                    breaker = { failures = 5, pause = \"30ms\" }";
        let by = match binary {
            Binary::Policy => ", by = [\"recipient\"]",
            _ => "",
        };
        let cache = format!("cache = {{ ttl = \"1h\", negative-ttl = \"1h\"{by} }}");
        let target = format!("{origin}/{}", binary.name());
        let config = table_named(binary, "t", &target, keys)
            + &table_named(binary, "kept", &target, &format!("{keys}\n{cache}"));
        let launch = Launch::new(binary).config(config);
        let program = launch.tcp4("t").tcp4("kept").ready().await;
        let mut watcher = program.peer().await;
        // Nobody listens at the backend's place yet.
        let reply = watcher.ask(question(binary, "t", "joe")).await;
        let unreachable = times_seen(binary, &reply);
        assert!(
            matches!(unreachable, Some(Replies::Failed(_))),
            "{unreachable:?}"
        );
        Self {
            binary,
            descriptors: program.descriptors(),
            threads: program.threads(),
            memory: program.memory(),
            program,
            watcher,
            reloads: 0,
            emptied: 0,
        }
    }

    fn address(&self, table: &str) -> Address {
        self.program.address(usize::from(table == "kept"))
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let lines = self.program.stderr.all();
        let from = lines.len().saturating_sub(20);
        format!("{}:\n{}", self.binary.name(), lines[from..].join("\n"))
    }

    async fn reload(&mut self) {
        self.program.signal(Signal::HUP);
        self.reloads += 1;
        self.program.notified("READY=1", 1 + self.reloads).await;
    }

    async fn empty(&mut self) {
        self.program.signal(Signal::USR1);
        self.emptied += 1;
        let has = |lines: &[String]| {
            let emptied = lines.iter().filter(|line| line.contains("cache: emptied"));
            emptied.count() >= self.emptied
        };
        self.program.stderr.until("an emptied cache", has).await;
    }

    /// Demands that the faults have left nothing behind, and ends the program.
    async fn end(mut self, replies: usize) {
        let settled = async {
            while self.program.descriptors() > self.descriptors {
                let request = question(self.binary, "t", "*");
                self.watcher.ask(request).await;
            }
        };
        let name = self.binary.name();
        let what = format!(
            "{name}: no more than {} descriptors again",
            self.descriptors
        );
        soon(&what, settled).await;
        let (threads, memory) = (self.program.threads(), self.program.memory());
        println!(
            "{name}: {replies} replies; {} KiB became {memory} KiB",
            self.memory
        );
        assert!(memory < MOST_MEMORY, "{name}: {memory} KiB");
        // The file is read on another thread, which stays for a while.
        assert!(threads <= self.threads + 1, "{name}: {threads} threads");
        drop(self.watcher);
        let end = self.program.stop().await;
        for wrong in ["drain timeout", "internal error", "reload: refused"] {
            assert!(!end.stderr.contains(wrong), "{name}: {wrong}");
        }
        let left = |line: &str| {
            let (_, left) = line.split_once("stopping: ")?;
            left.split(' ').next()?.parse::<usize>().ok()
        };
        let left = end.stderr.lines().find_map(left).expect("a last word");
        assert!(left <= 1, "{name}: {left} connections were left");
        for table in ["t", "kept"] {
            let mut changes = end.stderr.lines().filter_map(|line| {
                let (_, change) = line.split_once(&format!("{table}: "))?;
                let is_ours = line.contains(&format!(" {table}: "));
                let is_change = change.starts_with("down: ") || change.starts_with("up: ");
                (is_ours && is_change).then(|| change.starts_with("down: "))
            });
            let mut expected = true;
            let mut seen = 0;
            let in_turn = changes.all(|is_down| {
                seen += 1;
                is_down == std::mem::replace(&mut expected, !is_down)
            });
            assert!(in_turn, "{name}: {table}: down and up are not in turn");
            // The cache may have answered every request.
            assert!(
                seen > 0 || table == "kept",
                "{name}: {table} was never down"
            );
        }
    }
}

fn seed() -> u64 {
    let seed = std::env::var("POSTGATE_FAULTS_SEED");
    seed.map_or(20_261_120, |text| text.parse().expect("a number"))
}

#[tokio::test]
async fn whatever_befalls_the_backend_only_what_may_be_said_is_said() {
    let seed = seed();
    println!("POSTGATE_FAULTS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let place = Reserved::new();
    let origin = format!("http://{}", place.address());
    let mind = Arc::new(Mind {
        mood: Mutex::new(Mood::Well),
        phase: AtomicUsize::new(0),
        rng: Mutex::new(rng.fork()),
    });
    let listen = || {
        let mind = Arc::clone(&mind);
        Backend::at(place.again(), move |request| mind.answer(request))
    };

    let mut subjects = Vec::new();
    let mut clients = Vec::new();
    for binary in ALL {
        let subject = Subject::new(binary, &origin).await;
        for _ in CLIENTS {
            clients.push(Client::new(clients.len(), &subject, rng.fork()).await);
        }
        subjects.push(subject);
    }
    let mut backend = Some(listen());

    let mut moods = [ILL, ILL].concat();
    rng.shuffle(&mut moods);
    let moods = moods.into_iter().flat_map(|mood| [mood, Mood::Well]);
    let mut emptied_in = 0;
    for (number, mood) in moods.enumerate() {
        let phase = number + 1;
        println!("{phase}: {mood:?}");
        mind.phase.store(phase, Ordering::Relaxed);
        *mind.mood.lock().expect("a lock") = mood;
        if mood == Mood::Refuses {
            if let Some(mut backend) = backend.take() {
                backend.close().await;
            }
        } else if backend.is_none() {
            backend = Some(listen());
        }
        if rng.u8(..3) == 0 {
            for subject in &mut subjects {
                subject.empty().await;
            }
            emptied_in = phase;
        }
        let law = |table: &str| Law {
            phases: if table == "kept" { emptied_in } else { phase }..=phase,
            may_fail: mood != Mood::Well,
        };
        if mood == Mood::Well {
            for client in &mut clients {
                client.until_well(&law(client.table)).await;
            }
        }
        let (rounds, most) = match mood {
            // Everybody waits for the deadline once or twice.
            Mood::Hangs => (1, 1),
            _ => (6, 5),
        };
        let mut running = JoinSet::new();
        for client in clients.drain(..) {
            let law = law(client.table);
            running.spawn(client.phase(law, rounds, most));
        }
        if rng.bool() {
            for subject in &mut subjects {
                subject.reload().await;
            }
        }
        while let Some(client) = running.join_next().await {
            clients.push(client.unwrap_or_else(|error| {
                for subject in &subjects {
                    println!("{}", subject.last_words());
                }
                panic!("seed {seed}, phase {phase}, {mood:?}: {error}");
            }));
        }
        clients.sort_by_key(|client| client.number);
    }

    for client in &mut clients {
        client.end().await;
    }
    if let Some(mut backend) = backend.take() {
        backend.close().await;
    }
    for subject in subjects {
        let own = clients.iter().filter(|c| c.binary == subject.binary);
        let replies = own.map(|client| client.replies).sum();
        subject.end(replies).await;
    }
}
