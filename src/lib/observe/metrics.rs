//! The metrics of a program, and the page that shows them.
//!
//! Labels are names from the configuration or words of this crate. Text from outside is never one:
//! any client could make as many series as it likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::meter::{BUCKETS, ByTable, LimitMeter, Meter, StoreMeter};
use super::state::State;
use crate::outcome::Outcome;
use crate::protocol::Facts;
use crate::sync::Mutex;

/// The metrics of one program.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// The program.
    pub program: &'static Facts,
    by_table: ByTable,
    /// Grows with the configuration only: its keys are names of tables.
    meters: Arc<Mutex<BTreeMap<String, Arc<Meter>>>>,
    /// Connections accepted from the mail server.
    pub connections_accepted: IntCounter,
    /// Idle connections closed to make room for others.
    pub connections_evicted: IntCounter,
    gauges: Gauges,
    store_duration: HistogramVec,
    reloads: IntCounterVec,
    reloaded_at: Gauge,
}

/// The metrics that are set when the page is asked for.
#[derive(Clone, Debug)]
struct Gauges {
    connections: IntGauge,
    in_flight: IntGaugeVec,
    cache_entries: IntGaugeVec,
    target_up: IntGaugeVec,
    store_up: IntGaugeVec,
}

impl Metrics {
    /// Makes the metrics of a program. Fails only if two of them have the same name.
    pub fn new(program: &'static Facts) -> Result<Self, prometheus::Error> {
        let labels = [("program".to_owned(), program.name.to_owned())].into();
        let registry = Registry::new_custom(Some("postgate".to_owned()), Some(labels))?;
        let register = Register(&registry);
        let build = register.gauges(
            "build_info",
            "Always 1; the version is a label.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let reloads = register.counters(
            "reloads_total",
            "Reloads of the configuration, by result.",
            &["result"],
        )?;
        // A series has to exist before its first event, or its rise from nothing to one is not
        // seen.
        for result in ["done", "refused"] {
            reloads.with_label_values(&[result]);
        }
        let reloaded_at = register.metric(Gauge::new(
            "config_loaded_timestamp_seconds",
            "Time at which the configuration in use was read.",
        ))?;
        reloaded_at.set(now());
        Ok(Self {
            by_table: ByTable::new(&register)?,
            meters: Arc::default(),
            connections_accepted: register.metric(IntCounter::new(
                "connections_accepted_total",
                "Connections accepted from the mail server.",
            ))?,
            connections_evicted: register.metric(IntCounter::new(
                "connections_evicted_total",
                "Idle connections closed to make room for another at max-connections.",
            ))?,
            gauges: Gauges::new(&register)?,
            store_duration: register.histograms(
                "store_duration_seconds",
                "Time from a question to the store to its answer or failure.",
                &[],
            )?,
            reloads,
            reloaded_at,
            program,
            registry,
        })
    }

    /// Returns the counters of one table, each time the same.
    pub fn meter(&self, table: &str) -> Arc<Meter> {
        if let Some(meter) = self.meters.lock().get(table) {
            return Arc::clone(meter);
        }
        // As with the reloads: each series exists before its first event.
        // Only writes are done, and most tables have none.
        let done = Outcome::Done.number();
        for (at, outcome) in self.program.outcomes.iter().enumerate() {
            if at == done {
                continue;
            }
            self.by_table.requests.with_label_values(&[table, outcome]);
        }
        let meter = Arc::new(Meter::new(table, self.program, &self.by_table));
        let mut meters = self.meters.lock();
        let meter = meters.entry(table.to_owned()).or_insert(meter);
        Arc::clone(meter)
    }

    /// Returns the counters of all tables that there have been.
    pub fn meters(&self) -> Vec<Arc<Meter>> {
        self.meters.lock().values().cloned().collect()
    }

    /// Returns the counters of a limit of a table, which are there with 0 from now on.
    pub fn limit_meter(&self, table: &str, limit: &str) -> LimitMeter {
        self.meter(table).limit(limit)
    }

    /// Returns the histogram of a store. A program without limits has none.
    pub fn store_meter(&self) -> StoreMeter {
        StoreMeter::new(self.store_duration.with_label_values::<&str>(&[]))
    }

    /// Counts a reload.
    pub fn reload(&self, is_done: bool) {
        let result = if is_done { "done" } else { "refused" };
        self.reloads.with_label_values(&[result]).inc();
        if is_done {
            self.reloaded_at.set(now());
        }
    }

    /// Returns how many reloads were refused.
    pub fn reloads_refused(&self) -> u64 {
        self.reloads.with_label_values(&["refused"]).get()
    }

    /// Returns when the configuration in use was read.
    pub fn reloaded_at(&self) -> SystemTime {
        let since_1970 = Duration::try_from_secs_f64(self.reloaded_at.get());
        SystemTime::UNIX_EPOCH + since_1970.unwrap_or_default()
    }

    /// Returns the page that Prometheus reads, with the state of this moment: the open connections,
    /// whether the store is up, if there is one, and the tables.
    pub fn page(&self, connections: usize, store: Option<bool>, states: &[State]) -> Vec<u8> {
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let gauges = &self.gauges;
        gauges.connections.set(whole(connections));
        // A reload may have removed a table, whose values must not stay on the page.
        gauges.in_flight.reset();
        gauges.cache_entries.reset();
        gauges.target_up.reset();
        gauges.store_up.reset();
        if let Some(is_up) = store {
            let gauge = gauges.store_up.with_label_values::<&str>(&[]);
            gauge.set(i64::from(is_up));
        }
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
                    ("shared", cache.shared),
                    ("stale", cache.stale),
                ];
                for (kind, count) in kinds {
                    // The cache counts; a counter can take over a value only by a reset.
                    let answers = self
                        .by_table
                        .cache_answers
                        .with_label_values(&[table, kind]);
                    answers.reset();
                    answers.inc_by(count);
                }
            }
            for target in &state.targets {
                let labels = [table, target.name.as_str()];
                let gauge = gauges.target_up.with_label_values(&labels);
                gauge.set(i64::from(target.is_up()));
            }
        }
        let mut page = Vec::new();
        // `gather` leaves out metrics without values, the only ones that cannot be encoded.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut page);
        page
    }
}

impl ByTable {
    fn new(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let by_outcome = ["table", "outcome"];
        let by_status = ["table", "status"];
        Ok(Self {
            requests: register.counters(
                "requests_total",
                "Requests from the mail server, by outcome.",
                &by_outcome,
            )?,
            request_duration: register.histograms(
                "request_duration_seconds",
                "Time from a complete request to its reply.",
                &by_outcome,
            )?,
            backend_calls: register.counters(
                "backend_calls_total",
                "HTTP calls to a backend, by class of status; none: no answer.",
                &by_status,
            )?,
            backend_duration: register.histograms(
                "backend_call_duration_seconds",
                "Time from the start of an HTTP call to the end of its answer.",
                &by_status,
            )?,
            cache_answers: register.counters(
                "cache_answers_total",
                "Requests to a cache, by kind: hit, miss, shared, or stale in place of a failure.",
                &["table", "kind"],
            )?,
            limit_decisions: register.counters(
                "limit_decisions_total",
                "Decisions of a limit, by result: passed, exceeded, exempt, or uncounted where the \
                 numbers of the account are unknown.",
                &["table", "limit", "result"],
            )?,
        })
    }
}

impl Gauges {
    fn new(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            connections: register.metric(IntGauge::new(
                "connections",
                "Open connections from the mail server.",
            ))?,
            in_flight: register.gauges(
                "backend_calls_in_flight",
                "HTTP calls to a backend in flight.",
                &["table"],
            )?,
            cache_entries: register.gauges("cache_entries", "Answers in the cache.", &["table"])?,
            target_up: register.gauges(
                "target_up",
                "Whether a target is up (1), or down (0): it fails, is skipped, or another one \
                 answers in its place; targets of one origin are numbered.",
                &["table", "target"],
            )?,
            store_up: register.gauges(
                "store_up",
                "Whether the store answers (1), or limits are counted in memory until it does (0).",
                &[],
            )?,
        })
    }
}

/// Makes metrics and registers them.
struct Register<'r>(&'r Registry);

impl Register<'_> {
    fn metric<M>(&self, metric: Result<M, prometheus::Error>) -> Result<M, prometheus::Error>
    where
        M: Collector + Clone + 'static,
    {
        let metric = metric?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.metric(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.metric(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        self.metric(HistogramVec::new(options, labels))
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}
