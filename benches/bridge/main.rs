//! A load on the release programs over real sockets. In turn with them it runs on four references:
//! the backend alone, an ideal bridge over hyper and over reqwest (`ideal`), and an echo (`echo`).
//!
//! Each of them is a process of its own on this machine, so their processor time and memory can be
//! told apart. Times depend on the machine and the moment; only the ratios to the ideal bridge can
//! be compared with those of another day. That of a backend of https is to the ideal bridge over
//! http. Each figure is the median of all rounds. "user us" is the part of the processor time outside
//! the kernel, as exact as the kernel's clock of 10 ms.
//!
//! The programs run with their defaults, with four exceptions: they accept any number of
//! connections; they trust any certificate; dict makes the same calls as socketmap, so that the two
//! can be compared, where its default query has two parameters more; and with a slow backend
//! `max-in-flight` is raised, as it would be the limit otherwise.
//!
//! | variable | default | |
//! |---|---|---|
//! | `BENCH_SECONDS` | `1` | how long each load is measured |
//! | `BENCH_ROUNDS` | `3` | how many rounds there are |
//! | `BENCH_CONNECTIONS` | `1,100,1000` | connections at once |
//! | `BENCH_LATENCY` | `0,30` | milliseconds that the backend takes |
//! | `BENCH_PROTOCOLS` | all | the programs, as `policy,socketmap` |
//! | `BENCH_PROGRAMS` | those that cargo built for the bench | the folder of the programs; `make bench` sets `target/release` |

mod backend;
#[path = "../../tests/client/mod.rs"]
#[expect(dead_code, reason = "every reply is known before it comes")]
mod client;
mod counted;
mod echo;
mod ideal;
mod load;
mod process;
mod wire;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use client::Binary;
use counted::{Redis, Store};
use load::{Figures, Load, connect, first_answer};
use process::Process;
use wire::{PROGRAMS, Program, Question, key};

/// The program that counts.
const POLICY: Program = Program::Postfix(Binary::Policy);

/// The number of different keys, without and with a cache.
const KEYS: usize = 10_000;
const KEPT_KEYS: usize = 1_000;
/// The number of idle connections, if the limit of descriptors allows it.
const RESTING: usize = 10_000;
/// The number of tables in a large configuration.
const TABLES: usize = 1_000;

fn main() -> io::Result<()> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    runtime.block_on(async {
        match arguments.as_slice() {
            ["backend", latency] => {
                let latency = Duration::from_millis(parsed(latency)?);
                backend::serve(listener().await?, latency).await
            }
            ["tls-backend"] => backend::serve_tls(listener().await?).await,
            ["ideal", name, backend] => {
                ideal::over_hyper(listener().await?, program_named(name)?, parsed(backend)?).await
            }
            ["reqwest", name, backend] => {
                ideal::over_reqwest(listener().await?, program_named(name)?, parsed(backend)?).await
            }
            ["echo"] => echo::serve(listener().await?).await,
            _ => {
                let options = Options::read()?;
                // The processes end with this future.
                select! {
                    ended = bench(&options) => ended,
                    ended = told_to_end() => ended,
                }
            }
        }
    })
}

/// Listens on a free port, and prints it for the parent.
async fn listener() -> io::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    // The backlog of the standard library may be too short for a thousand connections at once.
    rustix::net::listen(&listener, 4096)?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

async fn told_to_end() -> io::Result<()> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Err(io::Error::other("ended by a signal"))
}

/// Raises the limit: as root to what the bench needs, otherwise as far as allowed.
fn raise_descriptor_limit() {
    let enough = Some(65_536);
    let to = |limit| Rlimit {
        current: limit,
        maximum: limit,
    };
    if setrlimit(Resource::Nofile, to(enough)).is_err() {
        // The limit stays; then there are fewer idle connections, and the output says so.
        let _ = setrlimit(Resource::Nofile, to(getrlimit(Resource::Nofile).maximum));
    }
}

struct Options {
    measured: Duration,
    rounds: usize,
    connections: Vec<usize>,
    latencies: Vec<u64>,
    programs: Vec<Program>,
}

impl Options {
    fn read() -> io::Result<Self> {
        let list = |name, default| {
            variable(name, default)
                .split(',')
                .map(str::to_owned)
                .collect()
        };
        let connections: Vec<String> = list("BENCH_CONNECTIONS", "1,100,1000");
        let latencies: Vec<String> = list("BENCH_LATENCY", "0,30");
        let every: Vec<_> = PROGRAMS.iter().map(|program| program.name()).collect();
        let names: Vec<String> = list("BENCH_PROTOCOLS", &every.join(","));
        Ok(Self {
            measured: Duration::from_secs_f64(parsed(&variable("BENCH_SECONDS", "1"))?),
            rounds: parsed(&variable("BENCH_ROUNDS", "3"))?,
            connections: connections
                .iter()
                .map(|n| parsed(n))
                .collect::<Result<_, _>>()?,
            latencies: latencies
                .iter()
                .map(|n| parsed(n))
                .collect::<Result<_, _>>()?,
            programs: names
                .iter()
                .map(|name| program_named(name))
                .collect::<io::Result<_>>()?,
        })
    }
}

fn program_named(name: &str) -> io::Result<Program> {
    let program = PROGRAMS.into_iter().find(|program| program.name() == name);
    program.ok_or_else(|| io::Error::other(format!("{name}: no such protocol")))
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn parsed<T: FromStr>(text: &str) -> io::Result<T> {
    let refused = |_| io::Error::other(format!("{text:?} is no number or address"));
    text.trim().parse().map_err(refused)
}

/// One of the servers under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Backend,
    Ideal(Program),
    /// The ideal bridge, over reqwest.
    Reqwest(Program),
    /// What it is asked comes back.
    Echo(Program),
    Program(Program),
    /// The program, with a backend of https.
    Tls(Program),
    /// The program, with every answer in its cache.
    Cached(Program),
    /// The policy program, which counts in this store and makes no call.
    Counted(Store),
}

impl Subject {
    fn question(self, table: &str, key: &str) -> Question {
        match self {
            Self::Backend => Question::of_backend(key),
            Self::Ideal(program)
            | Self::Reqwest(program)
            | Self::Program(program)
            | Self::Tls(program)
            | Self::Cached(program) => Question::of(program, table, key),
            Self::Echo(program) => Question::of(program, table, key).echoed(),
            Self::Counted(_) => Question::of_limit(key),
        }
    }

    /// Returns its reference.
    fn measured_by(self) -> Option<Self> {
        match self {
            Self::Backend | Self::Ideal(_) | Self::Echo(_) => None,
            Self::Reqwest(program) | Self::Program(program) | Self::Tls(program) => {
                Some(Self::Ideal(program))
            }
            Self::Cached(program) => Some(Self::Echo(program)),
            Self::Counted(_) => Some(Self::Program(POLICY)),
        }
    }

    fn named(self, error: &io::Error) -> io::Error {
        io::Error::other(format!("{}: {error}", self.name()))
    }

    fn name(self) -> String {
        match self {
            Self::Backend => "backend, directly".to_owned(),
            Self::Ideal(program) => format!("{}: ideal", program.name()),
            Self::Reqwest(program) => format!("{}: ideal, reqwest", program.name()),
            Self::Echo(program) => format!("{}: echo", program.name()),
            Self::Program(program) => format!("{}: postgate", program.name()),
            Self::Tls(program) => format!("{}: postgate, https", program.name()),
            Self::Cached(program) => format!("{}: postgate, cached", program.name()),
            Self::Counted(store) => format!("policy: limits, {}", store.name()),
        }
    }
}

async fn bench(options: &Options) -> io::Result<()> {
    println!(
        "{} rounds of {:?}; x: ratio to the ideal bridge; of cached answers to the echo; of limits \
         to uncached calls",
        options.rounds, options.measured
    );
    let redis = Redis::start()?;
    let stores = [Some(Store::Sqlite), redis.as_ref().map(|_| Store::Redis)];
    let tls = Process::own(&["tls-backend"])?;
    for latency in &options.latencies {
        let backend = Process::own(&["backend", &latency.to_string()])?;
        for connections in &options.connections {
            println!("\nbackend of {latency} ms, connections: {connections}");
            let load = |subject| Load {
                questions: questions(subject, "bench"),
                connections: *connections,
                measured: options.measured,
                is_repeated: matches!(subject, Subject::Cached(_)),
            };
            let mut subjects = vec![Subject::Backend];
            for program in options.programs.iter().copied() {
                subjects.extend([
                    Subject::Ideal(program),
                    Subject::Reqwest(program),
                    Subject::Program(program),
                ]);
                if *latency == 0 {
                    subjects.push(Subject::Tls(program));
                }
                // Dicts have no cache.
                if *latency == 0 && program != Program::Dict {
                    subjects.extend([Subject::Echo(program), Subject::Cached(program)]);
                }
            }
            if *latency == 0 && options.programs.contains(&POLICY) {
                subjects.extend(stores.iter().flatten().copied().map(Subject::Counted));
            }
            let mut rounds = Vec::new();
            for _ in 0..options.rounds {
                let mut round = Vec::new();
                for subject in &subjects {
                    let server = start(*subject, [&backend, &tls], *latency, redis.as_ref())?;
                    let load = load(*subject);
                    let figures = load.run(server.as_ref().unwrap_or(&backend)).await;
                    round.push((*subject, figures.map_err(|error| subject.named(&error))?));
                }
                rounds.push(round);
            }
            print!("{}", table(&subjects, &rounds));
        }
    }
    let backend = Process::own(&["backend", "0"])?;
    rest(options, &backend).await?;
    grow(options, &backend).await?;
    if options.programs.contains(&POLICY) {
        counted::many_accounts(options).await?;
    }
    Ok(())
}

/// Returns the requests; made once, because they are the same for every run.
fn questions(subject: Subject, table: &str) -> &'static [Question] {
    let keys = match subject {
        Subject::Cached(_) => KEPT_KEYS,
        _ => KEYS,
    };
    let questions: Vec<_> = (0..keys)
        .map(|n| subject.question(table, &key(n)))
        .collect();
    questions.leak()
}

/// Starts the server, unless it is the backend itself.
fn start(
    subject: Subject,
    [backend, tls]: [&Process; 2],
    latency: u64,
    redis: Option<&Redis>,
) -> io::Result<Option<Process>> {
    let tables = &["bench".to_owned()];
    let limit = match latency {
        0 => "",
        _ => "max-in-flight = 30000\n",
    };
    Ok(Some(match subject {
        Subject::Backend => return Ok(None),
        Subject::Ideal(of) => Process::own(&["ideal", of.name(), &backend.address.to_string()])?,
        Subject::Reqwest(of) => {
            Process::own(&["reqwest", of.name(), &backend.address.to_string()])?
        }
        Subject::Echo(_) => Process::own(&["echo"])?,
        Subject::Program(of) => program(of, &http(backend), tables, limit)?,
        Subject::Tls(of) => {
            let base = format!("https://{}", tls.address);
            program(of, &base, tables, "tls = { verify = false }")?
        }
        Subject::Cached(of) => {
            let by = match of {
                POLICY => ", by = [\"recipient\"]",
                _ => "",
            };
            let cache = format!("cache = {{ ttl = \"1h\"{by} }}");
            program(of, &http(backend), tables, &cache)?
        }
        Subject::Counted(store) => counted::program(store, redis)?,
    }))
}

fn http(backend: &Process) -> String {
    format!("http://{}", backend.address)
}

/// Starts a program with these tables; its socket belongs to the last of them.
fn program(program: Program, base: &str, tables: &[String], keys: &str) -> io::Result<Process> {
    let mut config = "[server]\nmax-connections = 30000\n".to_owned();
    for table in tables {
        let kind = program.name();
        let query = match program {
            Program::Dict => "?name={dict}&key={key}",
            _ => "",
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            config,
            "[{kind}.{table}]\ntarget = \"{base}/{query}\"\n{keys}"
        );
        if program == Program::Sasl {
            config.push_str("accepted = \"/ok\"\nuser = \"/user\"\n");
        }
    }
    let path = directory()?.join("config.toml");
    std::fs::write(&path, config)?;
    let socket = tables.last().map_or("", String::as_str);
    let mut process = Process::program(program, &path, socket)?;
    process.wait()?;
    Ok(process)
}

fn directory() -> io::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bridge");
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

type Round = Vec<(Subject, Figures)>;

fn table(subjects: &[Subject], rounds: &[Round]) -> String {
    let mut out = format!(
        "{:<28}{:>9}{:>7}{:>9}{:>7}{:>9}{:>9}{:>9}{:>9}\n",
        "", "req/s", "x", "CPU us", "x", "user us", "p50 us", "p99 us", "peak MB"
    );
    for subject in subjects {
        let middle = |field: fn(&Figures) -> f64| {
            let figures = rounds.iter().filter_map(|round| figures(round, *subject));
            median(figures.map(|figures| field(&figures)))
        };
        // Of the same round: other work of the machine affects both.
        let ratio = |field: fn(&Figures) -> f64| {
            let Some(measure) = subject.measured_by() else {
                return String::new();
            };
            let ratios = rounds.iter().filter_map(|round| {
                Some(field(&figures(round, *subject)?) / field(&figures(round, measure)?))
            });
            format!("{:.2}", median(ratios))
        };
        let _ = writeln!(
            out,
            "{:<28}{:>9.0}{:>7}{:>9.1}{:>7}{:>9.1}{:>9.0}{:>9.0}{:>9.1}",
            subject.name(),
            middle(|f| f.rate),
            ratio(|f| f.rate),
            middle(|f| f.cpu),
            ratio(|f| f.cpu),
            middle(|f| f.user),
            middle(|f| f.p50),
            middle(|f| f.p99),
            middle(|f| f.peak)
        );
    }
    out
}

fn figures(round: &Round, subject: Subject) -> Option<Figures> {
    let found = round.iter().find(|(s, _)| *s == subject);
    found.map(|(_, figures)| *figures)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures the start, the idle program, idle connections, and a load beside these.
async fn rest(options: &Options, backend: &Process) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // The program reserves two descriptors for each.
    let resting = RESTING.min(
        usize::try_from(limit / 2)
            .unwrap_or(usize::MAX)
            .saturating_sub(200),
    );
    println!("\nstart, idle, and {resting} idle connections");
    println!(
        "{:<28}{:>9}{:>9}{:>9}{:>14}{:>14}",
        "", "first ms", "idle MB", "held MB", "CPU us alone", "CPU us beside"
    );
    for of in options.programs.iter().copied() {
        let questions = questions(Subject::Program(of), "bench");
        let load = Load {
            questions,
            connections: 100,
            measured: options.measured,
            is_repeated: false,
        };
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            let mut server = program(of, &http(backend), &["bench".to_owned()], "")?;
            let first = first_answer(&mut server, &questions[0]).await?;
            let idle = server.memory()?;
            let held = connect(&server, resting).await?;
            sleep(Duration::from_millis(200)).await;
            let holding = server.memory()?;
            let beside = load.run(&server).await?.cpu;
            drop(held);
            let server = program(of, &http(backend), &["bench".to_owned()], "")?;
            let alone = load.run(&server).await?.cpu;
            rounds.push([first.as_secs_f64() * 1e3, idle, holding, alone, beside]);
        }
        let middle = |at: usize| median(rounds.iter().map(|round| round[at]));
        println!(
            "{:<28}{:>9.1}{:>9.1}{:>9.1}{:>14.1}{:>14.1}",
            of.name(),
            middle(0),
            middle(1),
            middle(2),
            middle(3),
            middle(4)
        );
    }
    Ok(())
}

/// Measures one table, and many.
async fn grow(options: &Options, backend: &Process) -> io::Result<()> {
    println!("\none table, and {TABLES}, with 100 connections");
    println!(
        "{:<28}{:>14}{:>14}{:>7}",
        "", "CPU us of one", "CPU us of all", "x"
    );
    for of in options.programs.iter().copied() {
        let tables: Vec<_> = (0..TABLES).map(|n| format!("table{n}")).collect();
        let last = tables.last().map_or("", String::as_str);
        let load = Load {
            questions: questions(Subject::Program(of), last),
            connections: 100,
            measured: options.measured,
            is_repeated: false,
        };
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            let mut cpu = [0.0; 2];
            for (cpu, tables) in cpu.iter_mut().zip([&tables[TABLES - 1..], &tables[..]]) {
                let server = program(of, &http(backend), tables, "")?;
                *cpu = load.run(&server).await?.cpu;
            }
            rounds.push(cpu);
        }
        let (one, all) = (
            median(rounds.iter().map(|cpu| cpu[0])),
            median(rounds.iter().map(|cpu| cpu[1])),
        );
        let ratio = median(rounds.iter().map(|cpu| cpu[1] / cpu[0]));
        println!("{:<28}{one:>14.1}{all:>14.1}{ratio:>7.2}", of.name());
    }
    Ok(())
}
