//! The start of a program: options, configuration, sockets, and then a command or the service.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tracing::{error, info, warn};

use super::descriptors::Descriptors;
use super::exit::{Exit, Failure};
use super::limits;
use super::messages::{complain, plural, print, write_message};
use super::options::{Command, Options};
use super::query;
use super::service::Service;
use super::signals::RunSignals;
use super::tables::{
    METRICS_SOCKET, Program, load, routes, tables_without_socket, unmatched_sockets,
};
use super::usage::help;
use crate::config::{self, Config, Mode, Report, Severity};
use crate::http::pool::ConnectionBudget;
use crate::observe::log;
use crate::observe::metrics::Metrics;
use crate::observe::verbose;
use crate::outcome::Outcome;
use crate::protocol::{Facts, Protocol};
use crate::serve::socket::{self, Address, Socket};
use crate::table::Rules;
use crate::table::routes::{Live, Routes};

/// How long a program with sockets from systemd waits before it exits with a failure. A pending
/// connection starts it again at once; without the pause that would be a hundred starts a second.
const PAUSE: Duration = Duration::from_secs(2);

/// Runs a program to its end.
///
/// Call it first in `main`, before there are threads.
pub fn run<P: Protocol>() -> ExitCode
where
    config::Endpoint: Rules<P::Rules>,
{
    let program = P::FACTS;
    let has_sockets = socket::is_activated();
    let options = Options::parse(program, std::env::args_os().skip(1)).map_err(|text| {
        let text = format!("{text}; see {} --help", program.name);
        (Exit::Usage, text)
    });
    let dispatched = options.and_then(|options| {
        std::panic::catch_unwind(|| dispatch::<P>(&options)).unwrap_or_else(|_| {
            Err((
                Exit::Software,
                "an internal error; please report it".to_owned(),
            ))
        })
    });
    let exit = dispatched.unwrap_or_else(|(exit, text)| {
        complain(program, &text);
        if has_sockets && [Exit::Usage, Exit::Unavailable, Exit::Config].contains(&exit) {
            std::thread::sleep(PAUSE);
        }
        exit
    });
    ExitCode::from(exit as u8)
}

fn dispatch<P: Protocol>(options: &Options) -> Result<Exit, Failure>
where
    config::Endpoint: Rules<P::Rules>,
{
    let program = P::FACTS;
    if !program.secrets.is_empty() {
        keep_memory_private();
    }
    match &options.command {
        Command::Help => print(&help(program)),
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            print(&format!("{} (postgate) {version}\n", program.name));
        }
        Command::Check => {
            read(program, &options.config, Mode::Check)?;
            print("ok\n");
        }
        Command::Show => {
            let config = read(program, &options.config, Mode::Check)?;
            let text =
                config::show(&config).map_err(|error| (Exit::Software, error.to_string()))?;
            print(&text);
        }
        Command::Query {
            name,
            arguments,
            is_verbose,
        } => {
            verbose::start(*is_verbose);
            let mut config = read(program, &options.config, Mode::Serve(program))?;
            // It shows what the backend answers.
            config.share_no_caches();
            return ask::<P>(&config, name, arguments);
        }
        Command::Limits { name, account } => {
            let config = read(program, &options.config, Mode::Store(program))?;
            let used = limits::show(&config, program, name, account.as_deref());
            print(&runtime()?.block_on(used)?);
        }
        Command::Reset { name, account } => {
            let config = read(program, &options.config, Mode::Store(program))?;
            let reset = limits::reset(&config, program, name, account);
            print(&runtime()?.block_on(reset)?);
        }
        Command::Serve(addresses) => {
            return serve::<P>(&options.config, addresses);
        }
    }
    Ok(Exit::Done)
}

/// Keeps the memory of this process out of core dumps, and from other processes of its user. No
/// call that is safe in Rust says that of a single buffer (madvise(2)).
fn keep_memory_private() {
    // Where this is not possible, the unit's LimitCORE=0 remains.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Reads the configuration, and writes a message about every problem in it.
fn read(program: &'static Facts, path: &Path, mode: Mode) -> Result<Config, Failure> {
    let (config, report) = load(program, path, mode);
    for problem in report.problems() {
        let text = format!("{}\n{}", problem.line, problem.quote);
        write_message(program, problem.severity, text.trim_end());
    }
    config.ok_or_else(|| (Exit::Config, summary(&report, mode)))
}

fn summary(report: &Report, mode: Mode) -> String {
    let count = plural(report.errors(), "problem");
    match mode {
        Mode::Check | Mode::Store(_) => count,
        Mode::Serve(_) => format!("{count}, not started"),
    }
}

fn ask<P: Protocol>(
    config: &Config,
    name: &str,
    arguments: &[std::ffi::OsString],
) -> Result<Exit, Failure>
where
    config::Endpoint: Rules<P::Rules>,
{
    let program = P::FACTS;
    let metrics = metrics(program)?;
    let routes = routes(
        &Program::of::<P>(),
        config,
        None,
        &metrics,
        &ConnectionBudget::unlimited(),
    )?;
    let runtime = runtime()?;
    let answer = runtime
        .block_on(query::ask::<P>(&routes, name, arguments))
        .map_err(|text| (Exit::Usage, text))?;
    if let Some(why) = runtime.block_on(query::store_fault(&routes, name)) {
        let text = format!("store: {why}: the answer knows nothing of what was counted");
        write_message(program, Severity::Warning, &text);
    }
    if let Some(text) = verbose::passed_over() {
        write_message(program, Severity::Warning, &text);
    }
    if let Some(text) = &answer.text {
        print(&format!("{text}\n"));
    }
    if let Some(failure) = answer.outcome.failure() {
        complain(program, &failure.to_string());
    }
    let is_failure = answer.outcome.failure().is_some();
    if let Some(last) = verbose::last_answer()
        && (is_failure || answer.outcome == Outcome::NotFound)
    {
        complain(program, &last);
    }
    if let Outcome::Refused(words) = &answer.outcome {
        complain(program, &log::printable(words.as_bytes()));
    }
    Ok(match answer.outcome {
        Outcome::Found(_) | Outcome::Done => Exit::Done,
        Outcome::NotFound | Outcome::Refused(_) => Exit::NotFound,
        Outcome::Temporary(_) => Exit::Temporary,
        Outcome::Permanent(_) => Exit::Permanent,
    })
}

fn metrics(program: &'static Facts) -> Result<Arc<Metrics>, Failure> {
    match Metrics::new(program) {
        Ok(metrics) => Ok(Arc::new(metrics)),
        Err(error) => Err((
            Exit::Software,
            format!("the metrics cannot be set up: {error}"),
        )),
    }
}

/// Makes the event loop of this thread; `Workers` has those of the others.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            (
                Exit::Software,
                format!("the event loop cannot be set up: {error}"),
            )
        })
}

fn serve<P: Protocol>(path: &Path, addresses: &[Address]) -> Result<Exit, Failure>
where
    config::Endpoint: Rules<P::Rules>,
{
    let program = P::FACTS;
    let kind = Program::of::<P>();
    let runtime = runtime()?;
    // First of all: until they are handled, these signals end the program.
    let signals = {
        let _inside = runtime.enter();
        RunSignals::listen()?
    };
    let inherited = socket::from_systemd().map_err(|text| (Exit::Unavailable, text))?;
    if !inherited.is_empty() && !addresses.is_empty() {
        let text = "--listen, but there are sockets from systemd; \
                    remove --listen, or stop the .socket unit";
        return Err((Exit::Usage, text.to_owned()));
    }
    let metrics = metrics(program)?;
    let descriptors = Descriptors::share_out(inherited.len().max(addresses.len()));
    let budget = &descriptors.budget;
    let (config, routes, sockets) = start(&kind, path, addresses, inherited, &metrics, budget)?;
    let (metrics_sockets, sockets): (Vec<_>, Vec<_>) = sockets
        .into_iter()
        .partition(|socket| socket.name == METRICS_SOCKET);
    let level = log::start(program.name, config.level);
    info!(
        "starting: {} {}, configuration {}",
        program.name,
        env!("CARGO_PKG_VERSION"),
        path.display()
    );
    let names: Vec<_> = sockets.iter().map(|socket| socket.name.clone()).collect();
    for text in tables_without_socket(program, &routes, &names) {
        warn!("{text}");
    }
    let service = Service {
        program: kind,
        path: path.to_owned(),
        names,
        cap: Arc::new(AtomicUsize::new(
            descriptors.cap_by_descriptors(config.server.max_connections),
        )),
        live: Arc::new(Live::new(routes)),
        level,
        metrics,
        descriptors,
    };
    log_panics();
    let sockets = (sockets, metrics_sockets);
    let exit = runtime.block_on(service.run::<P>(sockets, signals));
    // Reading a file may block for ever, and must not keep the program from ending.
    runtime.shutdown_background();
    exit
}

/// Reads the configuration, and takes or binds the sockets for it.
fn start(
    program: &Program,
    path: &Path,
    addresses: &[Address],
    inherited: Vec<Socket>,
    metrics: &Arc<Metrics>,
    budget: &ConnectionBudget,
) -> Result<(Config, Routes, Vec<Socket>), Failure> {
    let facts = program.facts;
    let config = read(facts, path, Mode::Serve(facts))?;
    let routes = routes(program, &config, None, metrics, budget)?;
    let is_served = |name: &str| name != METRICS_SOCKET;
    let is_any = inherited.iter().any(|socket| is_served(&socket.name))
        || addresses.iter().any(|address| is_served(&address.name));
    if !is_any {
        let expected = match routes.expected_sockets().as_slice() {
            [] => "any FileDescriptorName=".to_owned(),
            names => format!("FileDescriptorName={}", names.join(" or ")),
        };
        let found = if inherited.is_empty() && addresses.is_empty() {
            let why = socket::not_ours().map_or_else(String::new, |why| format!(" ({why})"));
            format!("no socket from systemd{why} and no --listen")
        } else {
            "only a metrics socket".to_owned()
        };
        let text = format!("{found}; start a .socket unit with {expected}, or give --listen");
        return Err((Exit::Unavailable, text));
    }
    let sockets = match addresses {
        [] => inherited,
        addresses => addresses
            .iter()
            .map(Address::bind)
            .collect::<Result<_, _>>()
            .map_err(|text| (Exit::Unavailable, text))?,
    };
    match unmatched_sockets(facts, &routes, &sockets) {
        None => Ok((config, routes, sockets)),
        Some(text) => Err((Exit::Config, text)),
    }
}

fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map_or_else(String::new, |place| format!(" at {place}"));
        error!("an internal error{place}: the connection is closed; please report it");
    }));
}
