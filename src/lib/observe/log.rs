//! The log: the journal where it listens, readable lines on stderr elsewhere.
//!
//! Nothing above debug is written per request, and text from outside is escaped and cut.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing::{debug, warn};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::observe::metrics::{Meter, Metrics};
use crate::outcome::{Outcome, Reason};
use crate::request::Request;
use crate::sync::Mutex;

/// Changes the level of a running program.
#[derive(Debug)]
pub struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Changes it.
    pub fn set(&self, level: LevelFilter) {
        // It fails only when there is no log any more.
        let _ = self.0.modify(|current| *current = own(level));
    }
}

/// What is said at a level, by this crate alone: libraries have lines for every connection and
/// frame.
fn own(level: LevelFilter) -> Targets {
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), level)
}

/// Starts the log of a program.
pub fn start(program: &str, level: LevelFilter) -> Level {
    let (level, handle) = reload::Layer::new(own(level));
    let registry = tracing_subscriber::registry().with(level);
    // A second start in one process, as tests have it, keeps the first log.
    let _ = match journal(program) {
        Some(journal) => registry.with(journal).try_init(),
        None => registry.with(lines()).try_init(),
    };
    Level(handle)
}

fn lines<S>() -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let layer = fmt::layer().with_writer(io::stderr).with_target(false);
    layer.with_ansi(false)
}

fn journal(program: &str) -> Option<tracing_journald::Layer> {
    if !is_stderr_the_journal() {
        return None;
    }
    let priorities = PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        ..PriorityMappings::new()
    };
    let layer = tracing_journald::layer().ok()?;
    Some(
        layer
            .with_field_prefix(Some("POSTGATE".to_owned()))
            .with_syslog_identifier(format!("postgate-{}", program))
            .with_priority_mappings(priorities),
    )
}

/// Tells whether what is written to stderr arrives in the journal (systemd.exec(5)).
pub fn is_stderr_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Returns text from outside as it may stand in a log: escaped, and not longer than 100 bytes.
pub fn printable(bytes: &[u8]) -> String {
    const MOST: usize = 100;
    let cut = bytes.get(..MOST).unwrap_or(bytes);
    let ellipsis = if cut.len() < bytes.len() { "..." } else { "" };
    format!("{}{ellipsis}", cut.escape_ascii())
}

/// A name for one request, the same in the log and in `X-Request-Id`.
#[derive(Clone, Copy, Debug)]
pub struct RequestId(u64);

/// What this process's names begin with.
static PROCESS: LazyLock<String> =
    LazyLock::new(|| format!("{:016x}-", RandomState::new().hash_one(0)));

impl RequestId {
    /// Makes a name that no other request has: of this process, or most likely of any other.
    pub fn next() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&PROCESS)?;
        write!(f, "{:x}", self.0)
    }
}

/// What is known of a request besides its outcome.
#[derive(Debug)]
pub struct Record<'r> {
    /// The request, if it was one.
    pub request: Option<&'r Request>,
    /// Its name, if the backend was to be asked.
    pub id: Option<RequestId>,
    /// When it was complete.
    pub started: Instant,
}

/// Writes every request's end, and sees to it that no stranger can fill the journal.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Where requests are counted that reach no table.
    strays: Option<Meter>,
    warned: Mutex<HashMap<(Box<str>, Reason), Warned>>,
}

/// The last warning of a kind, and how many were left out since.
#[derive(Debug)]
struct Warned {
    at: Instant,
    left_out: u64,
}

/// What stands for a table where there is none.
const NO_TABLE: &str = "-";

/// How often the same thing is warned about.
pub const WARN_EVERY: Duration = Duration::from_secs(10);

impl Recorder {
    /// Makes one that counts what it writes.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            strays: Some(metrics.meter(NO_TABLE)),
            ..Self::default()
        }
    }

    /// Records how a request ended: once for each, and here only.
    pub fn record(
        &self,
        table: Option<&str>,
        meter: Option<&Meter>,
        outcome: &Outcome,
        record: &Record<'_>,
    ) {
        let table = table.unwrap_or(NO_TABLE);
        let duration = record.started.elapsed();
        if let Some(meter) = meter.or(self.strays.as_ref()) {
            meter.request(outcome.name(), duration);
        }
        let is_debug = tracing::enabled!(tracing::Level::DEBUG);
        if !is_debug && outcome.failure().is_none() {
            return;
        }
        let outcome_name = outcome.name();
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let request_id = record.id.map(|id| id.to_string());
        let queue_id = record.request.and_then(Request::queue_id).map(printable);
        let reason = outcome.failure().map(|failure| failure.reason.to_string());
        if is_debug {
            let key = record.request.map(subject).unwrap_or_default();
            debug!(
                table,
                outcome = outcome_name,
                reason,
                request_id,
                duration_ms,
                queue_id,
                "{table}: {outcome_name}: {key}"
            );
        }
        let Some(failure) = outcome.failure() else {
            return;
        };
        let Some(left_out) = self.may_warn(table, failure.reason) else {
            return;
        };
        let detail = match failure.detail.as_ref() {
            "" => String::new(),
            detail => format!(": {}", printable_text(detail)),
        };
        let others = match left_out {
            0 => String::new(),
            n => format!(" ({n} more like this)"),
        };
        warn!(
            table,
            outcome = outcome_name,
            reason,
            request_id,
            duration_ms,
            queue_id,
            "{table}: {}{detail}{others}",
            failure.reason
        );
    }

    /// Tells whether a warning is due, and how many were left out before it.
    fn may_warn(&self, table: &str, reason: Reason) -> Option<u64> {
        let now = Instant::now();
        let mut warned = self.warned.lock();
        match warned.get_mut(&(Box::from(table), reason)) {
            Some(last) if now.duration_since(last.at) < WARN_EVERY => {
                last.left_out += 1;
                None
            }
            Some(last) => {
                last.at = now;
                Some(std::mem::take(&mut last.left_out))
            }
            None => {
                let first = Warned {
                    at: now,
                    left_out: 0,
                };
                warned.insert((table.into(), reason), first);
                Some(0)
            }
        }
    }
}

/// What a request was about, for the debug line alone.
fn subject(request: &Request) -> String {
    match request {
        Request::Lookup { map: None, key } => printable(key),
        Request::Lookup {
            map: Some(map),
            key,
        } => format!("{} {}", printable(map), printable(key)),
        Request::Policy(attributes) => ["protocol_state", "client_address", "sender", "recipient"]
            .iter()
            .filter_map(|name| Some(format!("{name}={}", printable(attributes.value(name)?))))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

fn printable_text(text: &str) -> String {
    text.chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
