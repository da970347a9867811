//! The log: records in the journal where stderr leads there, readable lines on stderr elsewhere.
//!
//! No line above debug is written for each request, and text from outside is escaped and cut, so
//! that a remote sender can neither fill the journal nor forge its lines.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing::{debug, warn};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::observe::meter::Meter;
use crate::observe::metrics::Metrics;
use crate::observe::throttle::{Throttle, WARN_EVERY, left_behind};
use crate::outcome::{Effect, Failure, Outcome, Reason};
use crate::protocol::Facts;
use crate::request::{Kind, Request};
use crate::sync::Mutex;

/// Changes the level of a running program.
#[derive(Debug)]
pub struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Sets the level.
    pub fn set(&self, level: LevelFilter) {
        // This fails only after the log has ended.
        let _ = self.0.modify(|current| *current = own_lines(level));
    }
}

/// Returns a filter that passes the lines of this crate alone. Those of libraries come for each
/// connection and frame, and may hold keys and secrets.
fn own_lines(level: LevelFilter) -> Targets {
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), level)
}

/// Starts the log of a program.
pub fn start(program: &str, level: LevelFilter) -> Level {
    let (level, handle) = reload::Layer::new(own_lines(level));
    let registry = tracing_subscriber::registry().with(level);
    // Tests start more than one program in a process; the first log stays.
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
            .with_syslog_identifier(format!("postgate-{program}"))
            .with_priority_mappings(priorities),
    )
}

/// Returns whether stderr leads to the journal (JOURNAL_STREAM in systemd.exec(5)).
pub fn is_stderr_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    // The variable is inherited, so stderr may have been redirected since it was set.
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Returns text from outside, escaped and cut at 100 bytes for the log.
pub fn printable(bytes: &[u8]) -> String {
    const MAX: usize = 100;
    let cut = bytes.get(..MAX).unwrap_or(bytes);
    let ellipsis = if cut.len() < bytes.len() { "..." } else { "" };
    format!("{}{ellipsis}", cut.escape_ascii())
}

/// The id of one request, the same in the log and in `X-Request-Id`.
#[derive(Clone, Copy, Debug)]
pub struct RequestId {
    number: u64,
    /// The call among several for the request; the first has none.
    part: usize,
}

/// The first part of each id, different in each process.
static PROCESS: LazyLock<String> =
    LazyLock::new(|| format!("{:016x}-", RandomState::new().hash_one(0)));

impl RequestId {
    /// Returns an id that no other request of this process has, and most likely none of another.
    pub fn next() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self {
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            part: 0,
        }
    }

    /// Returns the id of one of several calls for the request: a backend may take calls with one id
    /// for the same call.
    pub fn part(self, part: usize) -> Self {
        Self { part, ..self }
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&PROCESS)?;
        write!(f, "{:x}", self.number)?;
        match self.part {
            0 => Ok(()),
            part => write!(f, ".{part}"),
        }
    }
}

/// A request as the log shows it, besides its outcome.
#[derive(Debug)]
pub struct Record<'r> {
    /// The request, unless its bytes were not understood.
    pub request: Option<&'r Request>,
    /// Its protocol, whose facts say what a line shows.
    pub protocol: &'static Facts,
    /// Its id, unless it was answered without a backend.
    pub id: Option<RequestId>,
    /// When its last byte had arrived.
    pub started: Instant,
}

/// Counts and logs the end of each request.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Counts the requests that reach no table.
    without_table: Option<Arc<Meter>>,
    /// Grows with the configuration only: its keys are names of tables and reasons. What a write has
    /// left behind must not be lost among failures that have changed nothing.
    warnings: Mutex<HashMap<WarnedOf, LastWarning>>,
    /// Bounds the lines of each table about statuses: a backend has hundreds to choose from.
    statuses: Mutex<HashMap<Box<str>, Throttle>>,
}

/// How many statuses of a table are logged in ten seconds.
const MAX_STATUSES: usize = 5;

/// What has a warning of its own: a table, a reason, and what the failure has left behind.
type WarnedOf = (Box<str>, Reason, Effect);

/// The last warning for a table and a reason.
#[derive(Debug, Default)]
struct LastWarning {
    at: Option<Instant>,
    /// How many were suppressed since.
    suppressed: u64,
}

/// The table of a request that reaches none.
pub(super) const NO_TABLE: &str = "-";

impl Recorder {
    /// Makes a recorder that also counts the requests.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            without_table: Some(metrics.meter(NO_TABLE)),
            ..Self::default()
        }
    }

    /// Records the end of a request. Each request is counted and logged here, once, and nowhere
    /// else.
    pub fn record(
        &self,
        table: Option<&str>,
        meter: Option<&Meter>,
        outcome: &Outcome,
        record: &Record<'_>,
    ) {
        let table = table.unwrap_or(NO_TABLE);
        let duration = record.started.elapsed();
        if let Some(meter) = meter.or(self.without_table.as_deref()) {
            meter.request(outcome, duration);
        }
        let is_debug = tracing::enabled!(tracing::Level::DEBUG);
        // Nearly all requests end here, before any text is made for the log.
        if !is_debug && outcome.failure().is_none() {
            return;
        }
        let line = Line::new(table, outcome, duration, record);
        if is_debug {
            line.debug(record, outcome.failure());
        }
        if let Some(failure) = outcome.failure()
            && let Some(suppressed) = self.may_warn(table, failure)
        {
            line.warn(failure, suppressed);
        }
    }

    /// Returns how many warnings were suppressed before this one, or nothing to suppress this one.
    fn may_warn(&self, table: &str, failure: &Failure) -> Option<u64> {
        // Each of these has left something behind that nobody else tells. They are few: a backend
        // that is down fails at the first operation.
        if matches!(failure.effect, Effect::Part | Effect::PartOrMore) {
            return left_behind();
        }
        let now = Instant::now();
        let mut warnings = self.warnings.lock();
        let key = (Box::from(table), failure.reason, failure.effect);
        let last = warnings.entry(key).or_default();
        let is_recent = last
            .at
            .is_some_and(|at| now.duration_since(at) < WARN_EVERY);
        if is_recent || !self.may_name_status(table, failure.reason) {
            last.suppressed += 1;
            return None;
        }
        last.at = Some(now);
        Some(std::mem::take(&mut last.suppressed))
    }

    /// Returns whether a line may name this status, if the reason has one.
    fn may_name_status(&self, table: &str, reason: Reason) -> bool {
        let Reason::Answered(_) = reason else {
            return true;
        };
        let mut statuses = self.statuses.lock();
        let throttle = statuses
            .entry(table.into())
            .or_insert_with(|| Throttle::new(MAX_STATUSES));
        throttle.pass().is_some()
    }
}

/// The fields of a line about a request.
struct Line<'r> {
    table: &'r str,
    outcome: &'static str,
    reason: Option<String>,
    request_id: Option<String>,
    duration_ms: u64,
    queue_id: Option<String>,
}

impl<'r> Line<'r> {
    fn new(table: &'r str, outcome: &Outcome, duration: Duration, record: &Record<'_>) -> Self {
        let queue_id = record.request.and_then(|request| request.value("queue_id"));
        Self {
            table,
            outcome: record.protocol.outcomes[outcome.number()],
            reason: outcome.failure().map(|failure| failure.reason.to_string()),
            request_id: record.id.map(|id| id.to_string()),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            queue_id: queue_id.filter(|id| !id.is_empty()).map(printable),
        }
    }

    fn debug(&self, record: &Record<'_>, failure: Option<&Failure>) {
        let shown = record.protocol.shown;
        let key = record.request.map(|request| subject(request, shown));
        let left = failure.filter(|failure| failure.effect != Effect::Nothing);
        debug!(
            table = self.table,
            outcome = self.outcome,
            reason = self.reason,
            request_id = self.request_id,
            duration_ms = self.duration_ms,
            queue_id = self.queue_id,
            "{}: {}: {}{}",
            self.table,
            self.outcome,
            key.unwrap_or_default(),
            left.map_or_else(String::new, why)
        );
    }

    /// Logs a failure without the key or any address.
    fn warn(&self, failure: &Failure, suppressed: u64) {
        let detail = why(failure);
        let others = match suppressed {
            0 => String::new(),
            n => format!(" ({n} more like this)"),
        };
        warn!(
            table = self.table,
            outcome = self.outcome,
            reason = self.reason,
            request_id = self.request_id,
            duration_ms = self.duration_ms,
            queue_id = self.queue_id,
            "{}: {}{detail}{others}",
            self.table,
            failure.reason
        );
    }
}

/// Returns the details of a failure, as the end of a line.
fn why(failure: &Failure) -> String {
    let detail = match failure.detail.as_ref() {
        "" => String::new(),
        detail => format!(": {}", printable_text(detail)),
    };
    let effect = match failure.effect {
        Effect::Nothing | Effect::Part => "",
        Effect::Unknown | Effect::PartOrMore => ": it may have been done nevertheless",
    };
    format!("{detail}{effect}")
}

/// Returns what only a debug line may contain: the table that a request names, and the values that
/// its protocol allows in the log, under their names if there are several.
fn subject(request: &Request, shown: &[&str]) -> String {
    let table = request.table.as_deref().map(printable);
    if request.is_hidden() {
        return table.unwrap_or_default();
    }
    let values = shown.iter().filter_map(|name| {
        let value = printable(request.value(name)?);
        Some(match shown.len() {
            1 => value,
            _ => format!("{name}={value}"),
        })
    });
    let values = table.into_iter().chain(values);
    let changes = match &request.kind {
        Kind::Write(write) => write.operations.as_slice(),
        _ => &[],
    };
    /// As many as a usual transaction has.
    const SHOWN: usize = 4;
    let more = changes.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("and {more} more"));
    let changes = changes.iter().take(SHOWN);
    let changes = changes.map(|one| format!("{} {}", one.change.name(), printable(&one.key)));
    values
        .chain(changes)
        .chain(more)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns text in one line, cut at 500 characters for the log.
pub fn printable_text(text: &str) -> String {
    text.chars()
        .take(500)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
