//! One table: its keys, its cache and its calls, in this order.

use std::sync::Arc;

use rustls::RootCertStore;

use super::cache::Cache;
use super::{Rules, Table, keys};
use crate::config;
use crate::http::caller::Caller;
use crate::http::freshness::Fetched;
use crate::http::pool::Pool;
use crate::http::shared::Shared;
use crate::http::tls::Authorities;
use crate::observe::log::RequestId;
use crate::observe::metrics::{Meter, State};
use crate::outcome::Outcome;
use crate::protocol::policy::rules::PolicyActions;
use crate::request::Request;

/// Returns the outcome that a reply can express: a failure in place of a value that the protocol
/// cannot. A cache stores no failures, and so no such value.
pub type Sayable = fn(Outcome, &config::Endpoint) -> Outcome;

/// The endpoint of one table.
#[derive(Debug)]
pub struct Endpoint {
    caller: Arc<Caller>,
    cache: Option<Arc<Cache>>,
    sayable: Sayable,
    /// The system's authorities, if the endpoint trusts them.
    authorities: Option<Arc<RootCertStore>>,
}

impl Endpoint {
    /// Makes the endpoint of a configured table.
    pub fn new(
        table: config::Table,
        sayable: Sayable,
        shared: &mut Shared,
    ) -> Result<Self, String> {
        let cache = table.endpoint.cache.clone();
        let authorities = shared.clients.authorities_of(&table.endpoint);
        Ok(Self {
            authorities,
            caller: Arc::new(Caller::new(table, shared)?),
            cache: cache.map(|settings| Arc::new(Cache::new(settings))),
            sayable,
        })
    }

    /// Returns the configuration of the table.
    pub fn table(&self) -> &config::Table {
        self.caller.table()
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
        self.caller.pool()
    }

    /// Returns its current state, for metrics and pages.
    pub fn state(&self) -> State {
        State {
            table: self.table().name.clone(),
            in_flight: self.caller.in_flight(),
            cache: self.cache.as_ref().map(|cache| cache.state()),
            targets: self.caller.targets(),
        }
    }

    /// Empties the cache and returns how many entries there were.
    pub fn clear(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.clear())
    }
}

impl Table for Endpoint {
    fn name(&self) -> &str {
        &self.table().name
    }

    fn meter(&self) -> Option<&Meter> {
        Some(self.caller.meter())
    }

    async fn answer(&self, request: &Request, id: RequestId) -> Outcome {
        let request = match keys::normalise(request, self.table()) {
            Ok(request) => request,
            Err(outcome) => return outcome,
        };
        let Some(cache) = &self.cache else {
            return self.caller.ask(&request, id).await.outcome;
        };
        let key = cache.key(&request);
        let ask = || {
            let (caller, request) = (Arc::clone(&self.caller), request.into_owned());
            let sayable = self.sayable;
            async move {
                let fetched = caller.ask(&request, id).await;
                // Before the cache sees it, so that an inexpressible value is not stored.
                Fetched {
                    outcome: sayable(fetched.outcome, &caller.table().endpoint),
                    ..fetched
                }
            }
        };
        cache.answer(&key, ask).await
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
