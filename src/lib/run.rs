//! What all three programs do, in order: options, configuration, sockets, serve, stop.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::backend::route::{Live, Route, Routes};
use crate::config::{self, Config, Mode, Report, Severity};
use crate::connections::Connections;
use crate::log::{self, Level, Recorder};
use crate::options::{Command, Options, help};
use crate::outcome::Outcome;
use crate::program::Program;
use crate::protocol::Protocol;
use crate::protocol::policy::Policy;
use crate::protocol::socketmap::Socketmap;
use crate::protocol::tcp_lookup::TcpLookup;
use crate::server::{Shared, listen};
use crate::socket::{self, Address, Socket};
use crate::{notify, query};

/// The exit statuses, those of sysexits.h where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Done = 0,
    /// postmap(1)'s "no such key".
    NotFound = 1,
    /// EX_USAGE.
    Usage = 64,
    /// EX_UNAVAILABLE: no usable socket.
    Unavailable = 69,
    /// EX_SOFTWARE: our fault.
    Software = 70,
    /// EX_TEMPFAIL.
    Temporary = 75,
    /// EX_PROTOCOL, for want of a better one: a permanent failure.
    Permanent = 76,
    /// EX_CONFIG.
    Config = 78,
}

/// Why a program ends, and what is said about it.
type Failure = (Exit, String);

/// How long a program with sockets of systemd's waits before it gives up on its configuration:
/// a waiting connection starts it again at once, and a hundred starts in a second help nobody.
const CONFIG_PAUSE: Duration = Duration::from_secs(2);

/// Runs a program to its end.
///
/// To be called first thing in `main`, before there are threads.
pub fn run(program: Program) -> ExitCode {
    let exit = match Options::parse(program, std::env::args_os().skip(1)) {
        Ok(options) => match obey(program, &options) {
            Ok(exit) => exit,
            Err((exit, text)) => {
                complain(program, &text);
                exit
            }
        },
        Err(text) => {
            complain(program, &format!("{text}; see {} --help", program.name()));
            Exit::Usage
        }
    };
    ExitCode::from(exit as u8)
}

fn obey(program: Program, options: &Options) -> Result<Exit, Failure> {
    match &options.command {
        Command::Help => print(&help(program)),
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            print(&format!("{} (postgate) {version}\n", program.name()));
        }
        Command::Check => {
            read(program, &options.config, Mode::Look)?;
            print("ok\n");
        }
        Command::Show => {
            let config = read(program, &options.config, Mode::Look)?;
            let text =
                config::show(&config).map_err(|error| (Exit::Software, error.to_string()))?;
            print(&text);
        }
        Command::Query { name, key } => {
            let config = read(program, &options.config, Mode::Serve)?;
            return ask(program, &config, name, key.as_deref());
        }
        Command::Serve(addresses) => {
            return serve(program, &options.config, addresses);
        }
    }
    Ok(Exit::Done)
}

/// Writes to standard output. A reader that has gone away wants no more of it.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Writes a message to stderr, marked with its priority where that is the journal (sd-daemon(3)).
fn say(program: Program, severity: Severity, text: &str) {
    let mark = match severity {
        _ if !log::is_stderr_the_journal() => "",
        Severity::Error => "<3>",
        Severity::Warning => "<4>",
    };
    let mut out = format!("{mark}{}: ", program.name());
    for (i, line) in text.lines().enumerate() {
        let _ = writeln!(out, "{}{line}", if i == 0 { "" } else { mark });
    }
    // There is nowhere else to say it.
    let _ = io::stderr().write_all(out.as_bytes());
}

fn complain(program: Program, text: &str) {
    say(program, Severity::Error, text);
}

/// Reads the configuration, and complains about every problem in it.
fn read(program: Program, path: &Path, mode: Mode) -> Result<Config, Failure> {
    let (config, report) = load(program, path, mode);
    for problem in report.problems() {
        let text = format!("{}\n{}", problem.line, problem.quote);
        say(program, problem.severity, text.trim_end());
    }
    config.ok_or_else(|| (Exit::Config, summary(&report, mode)))
}

/// Reads the configuration, which has to hold a table of this program's.
fn load(program: Program, path: &Path, mode: Mode) -> (Option<Config>, Report) {
    let (mut config, mut report) = config::load(path, mode);
    if config
        .as_ref()
        .is_some_and(|c| c.tables_of(program).next().is_none())
    {
        let name = program.name();
        let text = format!("has no table for this program; write one, [{name}.NAME]");
        report.add(Severity::Error, &text);
        config = None;
    }
    (config, report)
}

fn summary(report: &Report, mode: Mode) -> String {
    let count = counted(report.errors(), "problem");
    match mode {
        Mode::Look => count,
        Mode::Serve => format!("{count}, not started"),
    }
}

fn ask(
    program: Program,
    config: &Config,
    name: &str,
    key: Option<&std::ffi::OsStr>,
) -> Result<Exit, Failure> {
    let routes = routes(program, config, None)?;
    let answer = runtime()?
        .block_on(query::ask(program, &routes, name, key))
        .map_err(|text| (Exit::Usage, text))?;
    if let Some(text) = &answer.text {
        print(&format!("{text}\n"));
    }
    if let Some(failure) = answer.outcome.failure() {
        let colon = if failure.detail.is_empty() { "" } else { ": " };
        complain(
            program,
            &format!("{}{colon}{}", failure.reason, failure.detail),
        );
    }
    Ok(match answer.outcome {
        Outcome::Found(_) => Exit::Done,
        Outcome::NotFound => Exit::NotFound,
        Outcome::Temporary(_) => Exit::Temporary,
        Outcome::Permanent(_) => Exit::Permanent,
    })
}

fn routes(program: Program, config: &Config, before: Option<&Routes>) -> Result<Routes, Failure> {
    Routes::new(program, config, before).map_err(|error| {
        let cause = std::iter::successors(std::error::Error::source(&error), |e| e.source())
            .last()
            .map_or_else(|| error.to_string(), ToString::to_string);
        (
            Exit::Config,
            format!("the HTTP client cannot be set up: {cause}"),
        )
    })
}

/// One thread serves: a bridge waits more than it works, and what it does can be reasoned about.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| (Exit::Software, format!("no runtime: {error}")))
}

fn serve(program: Program, path: &Path, addresses: &[Address]) -> Result<Exit, Failure> {
    let handed = socket::from_systemd().map_err(|text| (Exit::Unavailable, text))?;
    if !handed.is_empty() && !addresses.is_empty() {
        let text = "--listen, but there are sockets from systemd; only one of them is possible";
        return Err((Exit::Usage, text.to_owned()));
    }
    let started = start(program, path, addresses, handed.len());
    let (config, routes) = match started {
        Ok(started) => started,
        Err(failure) => {
            if failure.0 == Exit::Config && !handed.is_empty() {
                complain(program, &failure.1);
                std::thread::sleep(CONFIG_PAUSE);
                return Ok(failure.0);
            }
            return Err(failure);
        }
    };
    let sockets = match addresses {
        [] => handed,
        addresses => addresses
            .iter()
            .map(Address::bind)
            .collect::<Result<_, _>>()
            .map_err(|text| (Exit::Unavailable, text))?,
    };
    if let Some(failure) = misfit(program, &routes, &sockets) {
        complain(program, &failure);
        if addresses.is_empty() {
            std::thread::sleep(CONFIG_PAUSE);
        }
        return Ok(Exit::Config);
    }
    let level = log::start(program, config.level);
    for text in lonely_tables(program, &routes, &sockets) {
        warn!("{text}");
    }
    raise_descriptor_limit();
    let service = Service {
        program,
        path: path.to_owned(),
        names: sockets.iter().map(|socket| socket.name.clone()).collect(),
        cap: Arc::new(AtomicUsize::new(affordable(config.server.max_connections))),
        live: Arc::new(Live::new(routes)),
        level,
    };
    log_panics();
    let runtime = runtime()?;
    let exit = match program {
        Program::TcpLookup => runtime.block_on(service.run::<TcpLookup>(sockets)),
        Program::Socketmap => runtime.block_on(service.run::<Socketmap>(sockets)),
        Program::Policy => runtime.block_on(service.run::<Policy>(sockets)),
    };
    // A thread that looks up a name may still be waiting.
    runtime.shutdown_background();
    exit
}

fn start(
    program: Program,
    path: &Path,
    addresses: &[Address],
    handed: usize,
) -> Result<(Config, Routes), Failure> {
    let config = read(program, path, Mode::Serve)?;
    let routes = routes(program, &config, None)?;
    if handed == 0 && addresses.is_empty() {
        let expected = match routes.expected_sockets().as_slice() {
            [] => "any FileDescriptorName=".to_owned(),
            names => format!("FileDescriptorName={}", names.join(" or ")),
        };
        let text = format!(
            "no socket from systemd and no --listen; start a .socket unit with {expected}, or give --listen"
        );
        return Err((Exit::Unavailable, text));
    }
    Ok((config, routes))
}

/// Says which sockets nobody serves.
fn misfit(program: Program, routes: &Routes, sockets: &[Socket]) -> Option<String> {
    let names = || sockets.iter().map(|socket| socket.name.as_str());
    if names().any(|name| name == "metrics") {
        return Some(
            "socket \"metrics\": the name is kept for metrics, which this version does not serve"
                .to_owned(),
        );
    }
    let misfits = routes.misfits(names());
    let misfit = misfits.first()?;
    let expected = routes.expected_sockets().join(", ");
    let name = program.name();
    Some(format!(
        "socket \"{misfit}\" fits no table: {name} has tables for the sockets {expected}; \
         set FileDescriptorName= in the .socket unit, NAME= of --listen, or socket = of a table"
    ))
}

/// Says which tables no socket leads to.
fn lonely_tables(program: Program, routes: &Routes, sockets: &[Socket]) -> Vec<String> {
    if routes.tables() == 1 {
        return Vec::new();
    }
    let has_socket = |name: &str| sockets.iter().any(|socket| socket.name == name);
    routes
        .expected_sockets()
        .into_iter()
        .filter(|name| !has_socket(name))
        .map(|name| {
            format!(
                "{}: no socket named \"{name}\": its table is not served",
                program.name()
            )
        })
        .collect()
}

/// Raises the soft limit of descriptors to the hard one.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!("descriptors: the limit cannot be raised: {error}");
    }
}

/// Returns how many connections the descriptors allow: each takes one, its call another, and a
/// program without any left could not even tell systemd that it is alive.
fn affordable(connections: usize) -> usize {
    /// For sockets, the log, systemd, and files that are read on the way.
    const OTHERS: u64 = 32;
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return connections;
    };
    let most = usize::try_from(limit.saturating_sub(OTHERS) / 2)
        .unwrap_or(usize::MAX)
        .max(1);
    if connections > most {
        warn!(
            "descriptors: {limit} are enough for {most} connections, not for {connections}: \
             raise LimitNOFILE= or lower server.max-connections"
        );
    }
    connections.min(most)
}

fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map_or_else(String::new, |place| format!(" at {place}"));
        error!("a fault of this program{place}; the connection is lost, please report it");
    }));
}

/// A program that runs.
struct Service {
    program: Program,
    path: PathBuf,
    names: Vec<String>,
    cap: Arc<AtomicUsize>,
    live: Arc<Live>,
    level: Level,
}

impl Service {
    async fn run<P: Protocol>(&self, sockets: Vec<Socket>) -> Result<Exit, Failure> {
        let (stop, stopped) = watch::channel(false);
        let shared = Shared {
            connections: Arc::new(Connections::default()),
            stop: stopped,
            recorder: Arc::new(Recorder::default()),
        };
        let Signals {
            mut stopping,
            mut reload,
            mut clear,
        } = Signals::new()?;
        let mut listeners = JoinSet::new();
        for socket in sockets {
            let route = Route::new(Arc::clone(&self.live), &socket.name);
            let cap = Arc::clone(&self.cap);
            let cap = move || cap.load(Ordering::Relaxed);
            let listener = socket
                .listen()
                .map_err(|e| (Exit::Software, e.to_string()))?;
            listeners.spawn(listen::<P, _>(listener, route, cap, shared.clone()));
        }
        let watchdog = tokio::spawn(notify::watchdog());
        info!("ready: {}", self.status());
        notify::ready(&self.status());
        let ended = loop {
            select! {
                () = stopping.next() => break Ok(Exit::Done),
                _ = reload.recv() => self.reload().await,
                _ = clear.recv() => {
                    let count = self.live.routes().clear();
                    info!("cache: emptied of {}", counted(count, "answer"));
                }
                Some(ended) = listeners.join_next() => break Err(failed(ended)),
            }
        };
        info!(
            "stopping: {} left",
            counted(shared.connections.count(), "connection")
        );
        notify::stopping("stopping");
        // Nobody listens any more if every connection is gone.
        let _ = stop.send(true);
        let drain_timeout = self.live.routes().server().drain_timeout;
        let drained = async { while listeners.join_next().await.is_some() {} };
        select! {
            drained = timeout(drain_timeout, drained) => if drained.is_err() {
                let count = shared.connections.count();
                warn!("stopped: cut off {}", counted(count, "connection"));
            },
            () = stopping.next() => warn!("stopped: at once"),
        }
        watchdog.abort();
        info!("stopped");
        ended
    }

    fn status(&self) -> String {
        let tables = counted(self.live.routes().tables(), "table");
        format!(
            "serving {tables} on {}",
            counted(self.names.len(), "socket")
        )
    }

    async fn reload(&self) {
        info!("reload: reading {}", self.path.display());
        notify::reloading();
        match self.read_again().await {
            Ok(()) => info!("reload: done: {}", self.status()),
            Err(problems) => {
                for problem in &problems {
                    warn!("reload: {problem}");
                }
                warn!("reload: refused: the configuration before it stays");
            }
        }
        notify::ready(&self.status());
    }

    /// Reads the file and goes over to it; says what is wrong with it if that can't be.
    async fn read_again(&self) -> Result<(), Vec<String>> {
        let (program, path) = (self.program, self.path.clone());
        let before = self.live.routes();
        let names = self.names.clone();
        // Files may be slow, and connections are not to wait for them.
        let reading = tokio::task::spawn_blocking(move || {
            let (config, report) = load(program, &path, Mode::Serve);
            let problems = report.problems().iter().map(|p| p.line.clone()).collect();
            let Some(config) = config else {
                return Err(problems);
            };
            let routes = routes(program, &config, Some(&before)).map_err(|(_, text)| vec![text])?;
            match routes.misfits(names.iter().map(String::as_str)).first() {
                None => Ok((config, routes, problems)),
                Some(name) => Err(vec![format!("socket \"{name}\" would fit no table")]),
            }
        });
        let (config, routes, warnings) =
            reading.await.map_err(|error| vec![error.to_string()])??;
        self.level.set(config.level);
        for warning in warnings {
            warn!("reload: {warning}");
        }
        self.cap
            .store(affordable(config.server.max_connections), Ordering::Relaxed);
        self.live.exchange(routes);
        Ok(())
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

fn failed(ended: Result<io::Result<()>, tokio::task::JoinError>) -> Failure {
    let cause = match ended {
        Ok(Ok(())) => "it ended".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    error!("a socket cannot be served any more: {cause}");
    (
        Exit::Software,
        format!("a socket cannot be served any more: {cause}"),
    )
}

/// The signals a program listens to.
struct Signals {
    stopping: Stopping,
    reload: Signal,
    /// Empties the caches.
    clear: Signal,
}

/// Those that ask to stop.
struct Stopping {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| (Exit::Software, format!("no signals: {error}")));
        Ok(Self {
            stopping: Stopping {
                terminate: listen(SignalKind::terminate())?,
                interrupt: listen(SignalKind::interrupt())?,
            },
            reload: listen(SignalKind::hangup())?,
            clear: listen(SignalKind::user_defined1())?,
        })
    }
}

impl Stopping {
    async fn next(&mut self) {
        select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
