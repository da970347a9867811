//! One table: its limits, or its calls.

use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::calls::{Calls, Usable};
use super::limits::{Counters, Limits, numbers};
use super::lists::Lister;
use super::login::is_offered;
use super::operations::Operations;
use super::writes::write;
use super::{Asked, Rules, Table, keys};
use crate::config;
use crate::http::caller::Caller;
use crate::http::pool::Pool;
use crate::http::shared::Shared;
use crate::http::tls::Authorities;
use crate::observe::meter::Meter;
use crate::observe::state::{State, TargetState};
use crate::observe::verbose;
use crate::outcome::{Failure, Outcome, Reason, Row};
use crate::protocol::policy::rules::PolicyActions;
use crate::protocol::sasl::rules::Logins;
use crate::request::{Kind, Request};
use crate::serve::timers::Timers;
use crate::serve::workers::PerWorker;
use crate::store::Store;

/// The endpoint of one table.
#[derive(Debug)]
pub struct Endpoint {
    /// For the answer, or for the numbers of the limits.
    calls: Calls,
    limits: Option<Limits>,
    operations: Operations,
    /// The system's authorities, if the endpoint trusts them.
    authorities: Option<Arc<RootCertStore>>,
    /// For logins, whose deadlines are not those of their calls.
    timers: PerWorker<Timers>,
}

impl Endpoint {
    /// Makes the endpoint of a configured table. One with limits needs the counters, and one that
    /// shares its cache needs their store.
    pub fn new(
        table: config::Table,
        usable: Usable,
        counters: Option<&Arc<Counters>>,
        shared: &mut Shared,
    ) -> Result<Self, String> {
        let limits = counters.and_then(|counters| Limits::new(&table, counters, &shared.metrics));
        let authorities = table
            .endpoint
            .with_operations()
            .find_map(|endpoint| shared.clients.authorities_of(endpoint));
        let counting = table.protocol.counting.filter(|_| limits.is_some());
        let store = counters.map(|counters| &counters.store);
        let calls = match counting.and_then(|counting| counting.call) {
            None => Calls::new(table, usable, store, shared)?,
            Some(protocol) => {
                let table = config::Table { protocol, ..table };
                Calls::new(table, numbers::check, store, shared)?
            }
        };
        Ok(Self {
            operations: Operations::new(&calls.caller, shared)?,
            calls,
            limits,
            authorities,
            timers: PerWorker::default(),
        })
    }

    /// Returns the configuration of the table.
    pub fn table(&self) -> &config::Table {
        self.calls.caller.table()
    }

    /// Returns whether the trusted authorities are still those of the system.
    pub fn still_trusts(&self, authorities: &mut Authorities) -> bool {
        let Some(trusted) = &self.authorities else {
            return true;
        };
        authorities
            .read()
            .is_ok_and(|now| now.roots == trusted.roots)
    }

    /// Returns the pools of its connections, each with the calls that it is for.
    pub fn pools(&self) -> impl Iterator<Item = (&Pool, &config::Endpoint)> {
        let callers = iter::once(&*self.calls.caller).chain(self.operations.all());
        callers.map(|caller| (caller.pool(), &caller.table().endpoint))
    }

    /// Returns its current state, for metrics and pages.
    pub fn state(&self) -> State {
        State {
            table: self.table().name.clone(),
            in_flight: self.calls.caller.in_flight(),
            cache: self.calls.cache.as_ref().map(|cache| cache.state()),
            targets: self.targets(),
            limits: self
                .limits
                .as_ref()
                .map_or_else(Vec::new, Limits::limit_names),
        }
    }

    /// Returns the targets of all calls, each of which is down if it is down for any of them.
    fn targets(&self) -> Vec<TargetState> {
        let mut targets = self.calls.caller.targets();
        for target in self.operations.all().flat_map(Caller::targets) {
            match targets.iter_mut().find(|known| known.name == target.name) {
                Some(known) => {
                    let both = [known.down_since, target.down_since];
                    known.down_since = both.into_iter().flatten().min();
                }
                None => targets.push(target),
            }
        }
        targets
    }

    /// Returns where the use of its limits is kept, if it has any.
    pub fn counters(&self) -> Option<&Arc<Counters>> {
        self.limits.as_ref().map(Limits::counters)
    }

    /// Returns the store that it uses, if any.
    pub fn store(&self) -> Option<&Arc<Store>> {
        let shared = self.calls.shared_cache.as_ref();
        let shared = shared.map(|cache| cache.store());
        self.counters().map(|counters| &counters.store).or(shared)
    }

    /// Answers a request as `answer` does, but charges nothing.
    pub async fn preview(&self, request: &Request, asked: Asked) -> Outcome {
        if self.table().protocol.has_logins() {
            return self.answer_login(request, asked, true).await;
        }
        match &self.limits {
            Some(limits) => limits.answer(request, asked, &self.calls, true).await,
            None => self.calls.answer(request, asked).await,
        }
    }

    /// Answers a login, or previews it.
    async fn answer_login(&self, request: &Request, asked: Asked, is_preview: bool) -> Outcome {
        let request = match keys::normalise(request, self.table()) {
            Ok(request) => request,
            Err(outcome) => {
                let name = self.table().protocol.outcomes[outcome.number()];
                let why = || keys::why_no_call(request, self.table());
                verbose::means(|| format!("{name}: no call for this name: {}", why()));
                return outcome;
            }
        };
        if !is_offered(&request, &self.table().endpoint.logins) {
            // No refusal: nobody has looked at the password. The next connection has the greeting.
            let detail = "a reload has taken back its mechanism";
            return Outcome::Temporary(Failure::new(Reason::RequestNotUnderstood, detail));
        }
        let (call, key) = match self.calls.of_login(&request) {
            Ok(login) => login,
            Err(outcome) => return outcome,
        };
        let answer = self.calls.login(&request, (call, &key), asked);
        match &self.limits {
            // Boxed, as below.
            Some(limits) => Box::pin(limits.login(&request, &key, answer, is_preview)).await,
            None => answer.await,
        }
    }

    /// Empties the cache, and its part of the cache of all hosts, and returns how many entries the
    /// former had.
    pub fn clear(&self) -> usize {
        // First the one that answers for the other.
        if let Some(shared) = &self.calls.shared_cache {
            shared.clear();
        }
        self.calls.cache.as_ref().map_or(0, |cache| cache.clear())
    }
}

impl Table for Endpoint {
    fn name(&self) -> &str {
        &self.table().name
    }

    fn meter(&self) -> Option<&Meter> {
        Some(self.calls.caller.meter())
    }

    async fn until<F: Future + Send>(
        &self,
        deadline: Instant,
        awaited: Pin<&mut F>,
    ) -> Option<F::Output>
    where
        F::Output: Send,
    {
        self.timers.local().until(deadline, awaited).await
    }

    fn pause_before(&self, outcome: &Outcome) -> Option<Duration> {
        let is_refusal = matches!(outcome, Outcome::NotFound | Outcome::Refused(_));
        let delay = self.table().endpoint.logins.failure_delay;
        delay.filter(|_| is_refusal && self.table().protocol.has_logins())
    }

    async fn answer(&self, request: &Request, asked: Asked) -> Outcome {
        // Some boxed, so that a lookup has no room for them: a future that has just been made is
        // copied to where it stays.
        match (&request.kind, &self.limits) {
            (Kind::Write(changes), _) => {
                Box::pin(write(
                    self.name(),
                    &self.operations,
                    request,
                    changes,
                    asked,
                ))
                .await
            }
            (_, Some(limits)) => Box::pin(limits.answer(request, asked, &self.calls, false)).await,
            (_, None) => self.calls.answer(request, asked).await,
        }
    }

    fn login(&self, request: &Request, asked: Asked) -> impl Future<Output = Outcome> + Send {
        self.answer_login(request, asked, false)
    }

    async fn list(&self, request: &Request, asked: Asked, rows: mpsc::Sender<Row>) -> Outcome {
        let lister = Lister {
            lookups: &self.calls.caller,
            iterate: self.operations.iterate.as_ref(),
            rows,
            asked,
        };
        lister.list(request).await
    }
}

impl Rules<()> for config::Endpoint {
    fn rules(&self) -> &() {
        &()
    }
}

impl Rules<PolicyActions> for config::Endpoint {
    fn rules(&self) -> &PolicyActions {
        &self.actions
    }
}

impl Rules<Logins> for config::Endpoint {
    fn rules(&self) -> &Logins {
        &self.logins
    }
}

impl<R> Rules<R> for Endpoint
where
    config::Endpoint: Rules<R>,
{
    fn rules(&self) -> &R {
        self.table().endpoint.rules()
    }
}
