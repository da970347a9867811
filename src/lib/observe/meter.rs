//! What is counted of a table, of a limit and of the store.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::core::Metric as _;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use tokio::time::Instant;

use crate::outcome::{Outcome, Reason};
use crate::protocol::Facts;
use crate::sync::Mutex;

/// The counters of one table.
#[derive(Debug)]
pub struct Meter {
    table: String,
    program: &'static Facts,
    by_table: ByTable,
    requests: Series<OUTCOMES>,
    calls: Series<{ CLASSES.len() }>,
    /// Grows with the configuration only: its keys are names of limits.
    limits: Mutex<Vec<(String, LimitMeter)>>,
    last_failure: Mutex<Option<(Reason, Instant)>>,
}

const OUTCOMES: usize = Outcome::NAMES.len();

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
            limits: Mutex::default(),
            last_failure: Mutex::default(),
        }
    }

    /// Returns the name of the table.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Returns the names of the outcomes.
    pub fn outcomes(&self) -> [&'static str; OUTCOMES] {
        self.program.outcomes
    }

    /// Counts a request.
    pub fn request(&self, outcome: &Outcome, duration: Duration) {
        if let Some(failure) = outcome.failure() {
            *self.last_failure.lock() = Some((failure.reason, Instant::now()));
        }
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

    /// Returns the number of requests by outcome.
    pub fn requests(&self) -> [u64; OUTCOMES] {
        let series = &self.requests.0;
        std::array::from_fn(|at| series[at].get().map_or(0, |(counter, _)| counter.get()))
    }

    /// Returns everything that is counted of requests.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        counts.0[..OUTCOMES].copy_from_slice(&self.requests());
        for (_, durations) in self.requests.0.iter().filter_map(OnceLock::get) {
            let durations = durations.metric();
            let durations = durations.get_histogram();
            // The page has how many were at most this long, and here each is in one place.
            let mut before = 0;
            let bounds = durations.get_bucket().iter();
            let up_to = bounds.map(|bucket| bucket.cumulative_count());
            let all = up_to.chain([durations.get_sample_count()]);
            for (count, up_to) in counts.0[OUTCOMES..].iter_mut().zip(all) {
                *count += up_to - before;
                before = up_to;
            }
        }
        counts
    }

    /// Returns the counters of a limit, which are there with 0 from the first time on.
    pub fn limit(&self, name: &str) -> LimitMeter {
        let mut limits = self.limits.lock();
        if let Some((_, known)) = limits.iter().find(|(known, _)| known == name) {
            return known.clone();
        }
        let decisions = &self.by_table.limit_decisions;
        let counter = |result| decisions.with_label_values(&[self.table.as_str(), name, result]);
        let meter = LimitMeter {
            passed: counter("passed"),
            exceeded: counter("exceeded"),
            exempt: counter("exempt"),
            uncounted: counter("uncounted"),
        };
        limits.push((name.to_owned(), meter.clone()));
        meter
    }

    /// Returns the name and the counters of each limit that the table has had.
    pub fn limits(&self) -> Vec<(String, LimitMeter)> {
        self.limits.lock().clone()
    }

    /// Returns why a request last failed, and when.
    pub fn last_failure(&self) -> Option<(Reason, Instant)> {
        *self.last_failure.lock()
    }
}

/// What is counted of the requests of a table: their number by outcome, and their number by the
/// place of their duration among the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts(pub [u64; Self::LEN]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Self::LEN])
    }
}

impl Counts {
    /// How many numbers there are. The last one is of durations over every bound.
    pub const LEN: usize = OUTCOMES + BUCKETS.len() + 1;

    /// Returns the number of requests by outcome.
    pub fn requests(&self) -> [u64; OUTCOMES] {
        std::array::from_fn(|at| self.0[at])
    }

    /// Returns the number of all requests.
    pub fn all(&self) -> u64 {
        self.requests().iter().sum()
    }

    /// Returns whether the outcome at this place is a failure.
    pub fn is_failure(outcome: usize) -> bool {
        Outcome::IS_FAILURE[outcome]
    }

    /// Returns the number of requests that failed.
    pub fn failed(&self) -> u64 {
        let requests = self.requests().into_iter().enumerate();
        let failed = requests.filter(|(at, _)| Self::is_failure(*at));
        failed.map(|(_, count)| count).sum()
    }

    /// Returns the seconds that this share of the requests took at most, as `histogram_quantile` of
    /// Prometheus does: infinite if they are over every bound, and none without requests.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let durations = &self.0[OUTCOMES..];
        let all: u64 = durations.iter().sum();
        let rank = share * all as f64;
        let (mut below, mut start) = (0, 0.0);
        for (count, end) in durations.iter().zip(BUCKETS) {
            if *count > 0 && (below + count) as f64 >= rank {
                return Some(start + (end - start) * (rank - below as f64) / *count as f64);
            }
            (below, start) = (below + count, end);
        }
        (all > 0).then_some(f64::INFINITY)
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
