//! One table: its limits, or its calls.

use std::sync::Arc;

use rustls::RootCertStore;

use super::calls::{Calls, Usable};
use super::limits::{Counters, Limits, numbers};
use super::{Rules, Table};
use crate::config;
use crate::http::pool::Pool;
use crate::http::shared::Shared;
use crate::http::tls::Authorities;
use crate::observe::log::RequestId;
use crate::observe::metrics::{Meter, State};
use crate::outcome::Outcome;
use crate::protocol::policy::rules::PolicyActions;
use crate::request::Request;
use crate::store::Store;

/// The endpoint of one table.
#[derive(Debug)]
pub struct Endpoint {
    /// For the answer, or for the numbers of the limits.
    calls: Calls,
    limits: Option<Limits>,
    /// The system's authorities, if the endpoint trusts them.
    authorities: Option<Arc<RootCertStore>>,
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
        let authorities = shared.clients.authorities_of(&table.endpoint);
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
            calls,
            limits,
            authorities,
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

    /// Returns the pool of its connections.
    pub fn pool(&self) -> &Pool {
        self.calls.caller.pool()
    }

    /// Returns its current state, for metrics and pages.
    pub fn state(&self) -> State {
        State {
            table: self.table().name.clone(),
            in_flight: self.calls.caller.in_flight(),
            cache: self.calls.cache.as_ref().map(|cache| cache.state()),
            targets: self.calls.caller.targets(),
        }
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
    pub async fn preview(&self, request: &Request, id: RequestId) -> Outcome {
        match &self.limits {
            Some(limits) => limits.answer(request, id, &self.calls, true).await,
            None => self.calls.answer(request, id).await,
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

    async fn answer(&self, request: &Request, id: RequestId) -> Outcome {
        match &self.limits {
            Some(limits) => limits.answer(request, id, &self.calls, false).await,
            None => self.calls.answer(request, id).await,
        }
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

impl<R> Rules<R> for Endpoint
where
    config::Endpoint: Rules<R>,
{
    fn rules(&self) -> &R {
        self.table().endpoint.rules()
    }
}
