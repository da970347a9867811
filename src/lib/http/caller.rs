//! The calls of one table: the only code that asks a backend.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::attempt::Attempt;
use super::call::compose;
use super::freshness::Fetched;
use super::in_flight::InFlightLimit;
use super::pool::Pool;
use super::send::{OutgoingCall, Sender};
use super::shared::Shared;
use super::shown::Shown;
use super::targets::Targets;
use super::tried::Tried;
use crate::config;
use crate::observe::log::RequestId;
use crate::observe::meter::Meter;
use crate::observe::state::TargetState;
use crate::observe::verbose;
use crate::outcome::{Failure, Outcome, Reason};
use crate::request::Request;
use crate::serve::timers::Timers;
use crate::serve::workers::PerWorker;

/// Makes the calls of one table: within its limit, to its targets in order, before a deadline.
#[derive(Debug)]
pub struct Caller {
    sender: Sender,
    targets: Arc<Targets>,
    in_flight: Arc<InFlightLimit>,
    timers: PerWorker<Timers>,
    meter: Arc<Meter>,
}

impl Caller {
    /// Makes the caller of a table.
    pub fn new(table: config::Table, shared: &mut Shared) -> Result<Self, String> {
        let endpoint = &table.endpoint;
        Ok(Self {
            targets: Arc::new(Targets::new(endpoint)),
            in_flight: Arc::new(InFlightLimit::new(
                endpoint.max_in_flight,
                Arc::clone(&shared.calls),
            )),
            timers: PerWorker::default(),
            meter: shared.metrics.meter(&table.name),
            sender: Sender::new(table, shared)?,
        })
    }

    /// Makes the caller for other calls of the same table, within its limit and counted with its
    /// own. If they go to the same hosts, one finds for the other that these are down.
    pub fn beside(&self, endpoint: config::Endpoint, shared: &mut Shared) -> Result<Self, String> {
        let origins = |endpoint: &config::Endpoint| {
            let targets = endpoint.targets.iter();
            targets
                .map(|target| target.origin.clone())
                .collect::<Vec<_>>()
        };
        let has_same_hosts = origins(&endpoint) == origins(&self.table().endpoint);
        Ok(Self {
            targets: if has_same_hosts {
                Arc::clone(&self.targets)
            } else {
                Arc::new(Targets::new(&endpoint))
            },
            in_flight: Arc::clone(&self.in_flight),
            timers: PerWorker::default(),
            meter: Arc::clone(&self.meter),
            sender: Sender::new(
                config::Table {
                    protocol: endpoint.response_rules.protocol,
                    endpoint,
                    ..self.table().clone()
                },
                shared,
            )?,
        })
    }

    /// Returns the configuration of the table.
    pub fn table(&self) -> &config::Table {
        &self.sender.table
    }

    /// Returns where its connections are.
    pub fn pool(&self) -> &Pool {
        self.sender.pool()
    }

    /// Returns where its calls and requests are counted.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Returns how many calls are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Returns the name of each target, and whether it is up.
    pub fn targets(&self) -> Vec<TargetState> {
        self.targets.states()
    }

    /// Makes the call for a request whose key is normalised, within the table's request-timeout, and
    /// within the time that its peer waits.
    pub async fn ask(&self, request: &Request, id: RequestId, until: Instant) -> Fetched {
        let mut call = match self.call_for(request, id) {
            Ok(call) => call,
            Err(outcome) => return outcome.into(),
        };
        self.make(&mut call, until).await
    }

    fn call_for(&self, request: &Request, id: RequestId) -> Result<OutgoingCall, Outcome> {
        let call = compose(self.table(), request).inspect_err(|outcome| {
            let name = self.table().protocol.outcomes[outcome.number()];
            verbose::means(|| format!("{name}: no call can be made of this"));
        })?;
        let shown = Shown::of(self.table(), request, &call);
        Ok(OutgoingCall::new(call, shown, id))
    }

    /// Makes a call, as `ask` does, and shows it if it can be shown. A call is made once.
    pub async fn make(&self, call: &mut OutgoingCall, until: Instant) -> Fetched {
        // Before the wait for a permit: a request that no target will get would wait in vain, and
        // could end as "backend busy" where the backend is down.
        if self.targets.would_all_reject() {
            return Outcome::Temporary(Reason::Down.into()).into();
        }
        let Some(deadline) = self.deadline(until) else {
            let detail = "all its time has passed while it waited for others";
            return Outcome::Temporary(Failure::new(Reason::TimedOut, detail)).into();
        };
        if !self.take_in(call) {
            // Boxed, so that other calls have no room for it.
            let waiting = Box::pin(timeout_at(deadline, self.in_flight.acquire()));
            match waiting.await {
                Ok(Some(permits)) => self.sender.prepare(call, permits),
                _ => return Outcome::Temporary(Reason::Busy.into()).into(),
            }
        }
        self.try_targets(call, deadline).await
    }

    /// Returns when a call ends that begins now, unless its time is over.
    fn deadline(&self, until: Instant) -> Option<Instant> {
        let now = Instant::now();
        let deadline = until.min(now + self.table().endpoint.request_timeout);
        (now < deadline).then_some(deadline)
    }

    /// Takes a call in if there is room for it, and no other waits.
    fn take_in(&self, call: &mut OutgoingCall) -> bool {
        let permits = self.in_flight.try_acquire();
        permits
            .map(|permits| self.sender.prepare(call, permits))
            .is_some()
    }

    /// Tries the targets in their order until one has an answer.
    async fn try_targets(&self, call: &OutgoingCall, deadline: Instant) -> Fetched {
        let mut tried = Tried::default();
        let mut is_next = false;
        let mut order = self.targets.target_order().into_iter();
        while let Some((at, target)) = order.next() {
            let (Some(url), Some(permit)) = (call.urls.get(at), target.breaker.permit()) else {
                continue;
            };
            if is_next {
                verbose::means(|| "the next target is tried".to_owned());
            }
            is_next = true;
            let started = Instant::now();
            let mut progress = self.sender.progress(started);
            let attempt = {
                // Boxed by itself: glibc keeps blocks of at most 1,032 bytes for each thread, and
                // with it the future of a lookup would be larger.
                let mut attempt = Box::pin(Attempt::make(&self.sender, url, call, &mut progress));
                self.timers.local().until(deadline, attempt.as_mut()).await
            };
            let mut attempt = attempt.unwrap_or_else(|| {
                let (sender, breaker) = (&self.sender, &target.breaker);
                Attempt::timed_out(sender, url, &progress, breaker, tried.is_empty())
            });
            // An attempt that only waited for a token was no call to the backend.
            if progress.sent_at.is_some() || progress.status.is_some() {
                self.meter.call(progress.status, started.elapsed());
            }
            let table = &self.table().name;
            let digest = || self.sender.digest(url, call);
            target.record(permit, started, &attempt, digest, table);
            attempt.show_outcome(call.shown.as_deref(), self.table().protocol);
            if !attempt.try_next {
                if order.len() > 0 {
                    attempt.explain_end();
                }
                tried.end(target, &mut attempt, table);
                return attempt.fetched;
            }
            tried.push(target, attempt);
        }
        tried.into_outcome(&self.table().name).into()
    }
}
