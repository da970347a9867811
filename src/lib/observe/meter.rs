//! What is counted of a table, of a limit and of the store.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use crate::outcome::Outcome;
use crate::protocol::Facts;

/// The counters of one table.
#[derive(Debug)]
pub struct Meter {
    table: String,
    program: &'static Facts,
    by_table: ByTable,
    requests: Series<{ Outcome::NAMES.len() }>,
    calls: Series<{ CLASSES.len() }>,
}

/// A counter and a histogram for each value of a label, looked up once: the lookup takes a lock and
/// costs more than counting.
#[derive(Debug)]
struct Series<const N: usize>([OnceLock<(IntCounter, Histogram)>; N]);

/// Bucket bounds in seconds.
pub(super) const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0,
];

/// The values of the label `status`; "none" stands for a call without an answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Meter {
    pub(super) fn new(table: &str, program: &'static Facts, by_table: &ByTable) -> Self {
        Self {
            table: table.to_owned(),
            program,
            by_table: by_table.clone(),
            requests: Series::new(),
            calls: Series::new(),
        }
    }

    /// Counts a request.
    pub fn request(&self, outcome: &Outcome, duration: Duration) {
        let (metrics, at) = (&self.by_table, outcome.number());
        self.requests.observe(at, duration, || {
            let labels = [self.table.as_str(), self.program.outcomes[at]];
            (
                metrics.requests.with_label_values(&labels),
                metrics.request_duration.with_label_values(&labels),
            )
        });
    }

    /// Counts a call, by the status of its answer if it has one.
    pub fn call(&self, status: Option<u16>, duration: Duration) {
        let at = status.map_or(0, |status| usize::from(status / 100).clamp(1, 5));
        let metrics = &self.by_table;
        self.calls.observe(at, duration, || {
            let labels = [self.table.as_str(), CLASSES[at]];
            (
                metrics.backend_calls.with_label_values(&labels),
                metrics.backend_duration.with_label_values(&labels),
            )
        });
    }
}

impl<const N: usize> Series<N> {
    fn new() -> Self {
        Self([const { OnceLock::new() }; N])
    }

    fn observe(
        &self,
        at: usize,
        duration: Duration,
        look_up: impl FnOnce() -> (IntCounter, Histogram),
    ) {
        let (counter, durations) = self.0[at].get_or_init(look_up);
        counter.inc();
        durations.observe(duration.as_secs_f64());
    }
}

/// The counters of requests and calls, with the table as their first label.
#[derive(Clone, Debug)]
pub(super) struct ByTable {
    pub(super) requests: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    pub(super) backend_calls: IntCounterVec,
    pub(super) backend_duration: HistogramVec,
    pub(super) cache_answers: IntCounterVec,
    pub(super) limit_decisions: IntCounterVec,
}

/// The histogram of the questions to the store.
#[derive(Clone, Debug)]
pub struct StoreMeter(Histogram);

impl StoreMeter {
    pub(super) fn new(questions: Histogram) -> Self {
        Self(questions)
    }

    /// Counts a question to the store.
    pub fn question(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

/// The counters of the decisions of one limit, by their result.
#[derive(Clone, Debug)]
pub struct LimitMeter {
    /// There was room.
    pub passed: IntCounter,
    /// There was none.
    pub exceeded: IntCounter,
    /// The account is not counted.
    pub exempt: IntCounter,
    /// The numbers of the account are unknown.
    pub uncounted: IntCounter,
}
