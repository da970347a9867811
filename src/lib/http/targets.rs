//! The targets of one table: which of them is tried first, and what the log says of them.

use tokio::time::Instant;
use tracing::{info, warn};

use super::attempt::Attempt;
use super::breaker::{Breaker, Permit};
use super::health::{CallDigest, Health};
use crate::config;
use crate::observe::changes::Change;
use crate::observe::log::printable_text;
use crate::observe::state::TargetState;
use crate::outcome::Outcome;

/// The targets of one table, in the order of the configuration.
#[derive(Debug)]
pub struct Targets(Vec<Target>);

/// One target.
#[derive(Debug)]
pub struct Target {
    /// Its origin, with its number if others have the same origin.
    pub name: String,
    /// Whether it may be called.
    pub breaker: Breaker,
}

impl Targets {
    /// Makes the targets that are configured.
    pub fn new(endpoint: &config::Endpoint) -> Self {
        let targets = endpoint.targets.iter().enumerate();
        Self(
            targets
                .map(|(at, target)| Target {
                    name: target_name(&endpoint.targets, at, target),
                    breaker: Breaker::new(endpoint.breaker),
                })
                .collect(),
        )
    }

    /// Returns the state of each target.
    pub fn states(&self) -> Vec<TargetState> {
        let state = |target: &Target| TargetState {
            name: target.name.clone(),
            down_since: target.breaker.down_since(),
        };
        self.0.iter().map(state).collect()
    }

    /// Returns whether no target would be called at this moment.
    pub fn would_all_reject(&self) -> bool {
        self.0.iter().all(|target| target.breaker.would_reject())
    }

    /// Returns the targets in the order to be tried, each with its place in the configuration.
    /// Those that failed lately come last.
    pub fn target_order(&self) -> Vec<(usize, &Target)> {
        let mut targets: Vec<_> = self.0.iter().enumerate().collect();
        if targets.len() > 1 {
            // Cached, since `is_deferred` admits one call in each pause: a second call of it within
            // one sort would get another answer.
            targets.sort_by_cached_key(|(_, target)| target.breaker.is_deferred());
        }
        targets
    }
}

impl Target {
    /// Tells the breaker how an attempt ended, and logs the change if it makes one.
    pub fn record(
        &self,
        permit: Permit<'_>,
        started: Instant,
        attempt: &Attempt,
        call: impl FnOnce() -> CallDigest,
        table: &str,
    ) {
        let on_change = |change| {
            let what = "is skipped until it answers a probe";
            self.log_change(change, what, &attempt.fetched.outcome, table);
        };
        match attempt.health {
            Health::Healthy => permit.record_success(!attempt.try_next, on_change),
            Health::Unreachable | Health::Unhealthy => permit.record_failure(call(), on_change),
            Health::LostConnection => permit.record_lost_connection(call(), started, on_change),
            Health::Inconclusive => {}
        }
    }

    /// Records at the end of a call whether its failure at this target shows that the target fails,
    /// and which other one has answered in its place, if any.
    pub fn record_end(
        &self,
        failed_at: Instant,
        health: Health,
        outcome: &Outcome,
        replaced_by: Option<&Self>,
        table: &str,
    ) {
        // A shortage of this host is no failure of the target, and an API that answers 500 to one key
        // is there: whoever can choose the key could call it down.
        if !health.is_failure() {
            return;
        }
        let is_unreachable = health == Health::Unreachable;
        let is_replaced = replaced_by.is_some();
        self.breaker
            .record_failing(failed_at, is_unreachable, is_replaced, |change| {
                let what = match replaced_by {
                    Some(other) => format!("fails, and {} answers in its place", other.name),
                    None => "fails".to_owned(),
                };
                self.log_change(change, &what, outcome, table);
            });
    }

    /// Logs that the target is down, in which way, and why; or that it is up again.
    fn log_change(&self, change: Change, what: &str, outcome: &Outcome, table: &str) {
        let target = &self.name;
        let Change::Down { suppressed } = change else {
            info!(table, "{table}: up: {target} answers again");
            return;
        };
        let cause = outcome
            .failure()
            .map(|failure| format!(": {}", printable_text(&failure.to_string())));
        let others = match suppressed {
            0 => String::new(),
            n => format!("; {n} times down and up again since the last such line"),
        };
        warn!(
            table,
            "{table}: down: {target} {what}{others}{}",
            cause.unwrap_or_default()
        );
    }
}

/// Returns the name of a target in logs and metrics. Its path may hold a secret, so targets of one
/// origin are numbered.
fn target_name(targets: &[config::Target], at: usize, target: &config::Target) -> String {
    let origin = &target.origin;
    match targets.iter().filter(|t| t.origin == *origin).count() {
        1 => origin.clone(),
        _ => format!("{origin} #{}", at + 1),
    }
}
