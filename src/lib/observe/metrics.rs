//! Every metric there is, and the page that shows them.
//!
//! Labels come from the configuration, or are words of ours; nothing from outside becomes one.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// The metrics of one program.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests by table and outcome, and how long they took.
    requests: IntCounterVec,
    request_duration: HistogramVec,
    /// Calls by table and class of status, and how long they took.
    backend_calls: IntCounterVec,
    backend_duration: HistogramVec,
    /// Answers of the caches by table and kind, set when somebody looks.
    cache_answers: IntCounterVec,
    /// Connections taken.
    pub connections_accepted: IntCounter,
    /// Connections that had to leave for others.
    pub connections_evicted: IntCounter,
    /// What is set when somebody looks.
    gauges: Gauges,
    reloads: IntCounterVec,
    reloaded_at: Gauge,
}

/// What is counted by looking.
#[derive(Clone, Debug)]
struct Gauges {
    connections: IntGauge,
    in_flight: IntGaugeVec,
    cache_entries: IntGaugeVec,
    target_up: IntGaugeVec,
}

/// The counters of one table, each found once: to find one takes longer than to count.
#[derive(Debug)]
pub struct Meter {
    table: String,
    metrics: Metrics,
    requests: [OnceLock<(IntCounter, Histogram)>; OUTCOMES.len()],
    calls: [OnceLock<(IntCounter, Histogram)>; CLASSES.len()],
}

/// The words for outcomes, and for classes of status; "none" is no answer.
const OUTCOMES: [&str; 4] = ["found", "not-found", "temporary", "permanent"];
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Meter {
    /// Counts a request.
    pub fn request(&self, outcome: &str, duration: Duration) {
        let at = OUTCOMES.iter().position(|word| *word == outcome);
        let (counters, durations) = (&self.metrics.requests, &self.metrics.request_duration);
        self.count(at, &self.requests, &OUTCOMES, counters, durations, duration);
    }

    /// Counts a call; without a status it has brought no answer.
    pub fn call(&self, status: Option<u16>, duration: Duration) {
        let class = status.map_or(0, |status| usize::from(status / 100).clamp(1, 5));
        let (counters, durations) = (&self.metrics.backend_calls, &self.metrics.backend_duration);
        self.count(
            Some(class),
            &self.calls,
            &CLASSES,
            counters,
            durations,
            duration,
        );
    }

    fn count(
        &self,
        at: Option<usize>,
        found: &[OnceLock<(IntCounter, Histogram)>],
        words: &[&str],
        counters: &IntCounterVec,
        durations: &HistogramVec,
        duration: Duration,
    ) {
        let Some((slot, word)) = at.and_then(|at| Some((found.get(at)?, words.get(at)?))) else {
            return;
        };
        let (counter, durations) = slot.get_or_init(|| {
            let labels = [self.table.as_str(), word];
            (
                counters.with_label_values(&labels),
                durations.with_label_values(&labels),
            )
        });
        counter.inc();
        durations.observe(duration.as_secs_f64());
    }
}

/// What one table looks like at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The table's name.
    pub table: String,
    /// Calls under way.
    pub in_flight: usize,
    /// Its cache, if it has one.
    pub cache: Option<CacheState>,
    /// Each target, and whether it is asked.
    pub targets: Vec<(String, bool)>,
}

/// What a cache looks like at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheState {
    /// Answers kept.
    pub entries: usize,
    /// Requests answered with what was kept.
    pub hits: u64,
    /// Requests that had to ask, or to wait for who asks the same.
    pub misses: u64,
    /// Requests answered with what was too old, as no better was to be had.
    pub stale: u64,
}

/// From a millisecond to what a request may take.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0,
];

impl Metrics {
    /// Makes the metrics of a program. Fails only if two of them had one name.
    pub fn new(program: &str) -> Result<Self, prometheus::Error> {
        let labels = [("program".to_owned(), program.to_owned())].into();
        let registry = Registry::new_custom(Some("postgate".to_owned()), Some(labels))?;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let histograms = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            let metric = HistogramVec::new(options, labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let connections = IntGauge::new("connections", "Open connections from Postfix.")?;
        registry.register(Box::new(connections.clone()))?;
        let reloaded_at = Gauge::new(
            "config_loaded_timestamp_seconds",
            "Time at which the configuration in use was read.",
        )?;
        registry.register(Box::new(reloaded_at.clone()))?;
        let build = gauges(
            "build_info",
            "Always 1; the version is a label.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let by_outcome = ["table", "outcome"];
        let by_status = ["table", "status"];
        let metrics = Self {
            requests: counters(
                "requests_total",
                "Requests from Postfix, by outcome.",
                &by_outcome,
            )?,
            request_duration: histograms(
                "request_duration_seconds",
                "Time from a complete request to its reply.",
                &by_outcome,
            )?,
            backend_calls: counters(
                "backend_calls_total",
                "HTTP calls to a backend, by class of status; none: no answer.",
                &by_status,
            )?,
            backend_duration: histograms(
                "backend_call_duration_seconds",
                "Time from the start of an HTTP call to the end of its answer.",
                &by_status,
            )?,
            cache_answers: counters(
                "cache_answers_total",
                "Requests to a cache, by kind: hit, miss, or stale in place of a failure.",
                &["table", "kind"],
            )?,
            connections_accepted: counter(
                "connections_accepted_total",
                "Connections accepted from Postfix.",
            )?,
            connections_evicted: counter(
                "connections_evicted_total",
                "Idle connections closed to make room for another at max-connections.",
            )?,
            gauges: Gauges {
                connections,
                in_flight: gauges(
                    "backend_calls_in_flight",
                    "HTTP calls to a backend in flight.",
                    &["table"],
                )?,
                cache_entries: gauges("cache_entries", "Answers in the cache.", &["table"])?,
                target_up: gauges(
                    "target_up",
                    "Whether a target is up (1) or down and skipped (0); targets of one origin are \
                     numbered.",
                    &["table", "target"],
                )?,
            },
            reloads: counters(
                "reloads_total",
                "Reloads of the configuration, by result.",
                &["result"],
            )?,
            reloaded_at,
            registry,
        };
        // A counter that is not there yet cannot be seen to rise.
        for result in ["done", "refused"] {
            metrics.reloads.with_label_values(&[result]);
        }
        metrics.reloaded_at.set(now());
        Ok(metrics)
    }

    /// Returns the counters of one table.
    pub fn meter(&self, table: &str) -> Meter {
        // A counter that is not there yet cannot be seen to rise.
        for outcome in OUTCOMES {
            self.requests.with_label_values(&[table, outcome]);
        }
        Meter {
            table: table.to_owned(),
            metrics: self.clone(),
            requests: Default::default(),
            calls: Default::default(),
        }
    }

    /// Counts a reload.
    pub fn reload(&self, is_done: bool) {
        let result = if is_done { "done" } else { "refused" };
        self.reloads.with_label_values(&[result]).inc();
        if is_done {
            self.reloaded_at.set(now());
        }
    }

    /// Writes the page, with what there is at this moment.
    pub fn page(&self, connections: usize, states: &[State]) -> Vec<u8> {
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let gauges = &self.gauges;
        gauges.connections.set(whole(connections));
        // A table may be gone since the last look.
        gauges.in_flight.reset();
        gauges.cache_entries.reset();
        gauges.target_up.reset();
        for state in states {
            let table = state.table.as_str();
            gauges
                .in_flight
                .with_label_values(&[table])
                .set(whole(state.in_flight));
            if let Some(cache) = state.cache {
                gauges
                    .cache_entries
                    .with_label_values(&[table])
                    .set(whole(cache.entries));
                let kinds = [
                    ("hit", cache.hits),
                    ("miss", cache.misses),
                    ("stale", cache.stale),
                ];
                for (kind, count) in kinds {
                    let answers = self.cache_answers.with_label_values(&[table, kind]);
                    answers.reset();
                    answers.inc_by(count);
                }
            }
            for (target, is_up) in &state.targets {
                let labels = [table, target.as_str()];
                gauges
                    .target_up
                    .with_label_values(&labels)
                    .set(i64::from(*is_up));
            }
        }
        let mut page = Vec::new();
        // What it can fail on, a metric without values, it leaves out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut page);
        page
    }
}

fn now() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}
