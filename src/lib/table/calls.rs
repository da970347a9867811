//! The calls of one table: its keys, its cache, the cache of all hosts and its backend, in this
//! order.

use std::borrow::Cow;
use std::sync::Arc;

use super::Asked;
use super::cache::{Cache, CacheKey, lifetime_by};
use super::keys;
use super::login::LoginKeys;
use super::shared_cache::SharedCache;
use crate::config;
use crate::http::call::{Call, compose};
use crate::http::caller::Caller;
use crate::http::freshness::Fetched;
use crate::http::send::OutgoingCall;
use crate::http::shared::Shared;
use crate::http::shown::Shown;
use crate::observe::verbose;
use crate::outcome::Outcome;
use crate::request::Request;
use crate::store::Store;

/// Returns the outcome of a call that can be used: a failure in place of a value that the protocol
/// cannot express. A cache stores no failures, and so no such value.
pub type Usable = fn(Outcome, &config::Endpoint, &Request) -> Outcome;

/// The calls of one table.
#[derive(Debug)]
pub struct Calls {
    /// What makes them.
    pub caller: Arc<Caller>,
    /// The cache, if the table has one.
    pub cache: Option<Arc<Cache>>,
    /// The part of the cache of all hosts that the table has, if it has one.
    pub shared_cache: Option<Arc<SharedCache>>,
    /// Makes what logins are known by, if they are cached or limited.
    login_keys: Option<LoginKeys>,
    usable: Usable,
}

impl Calls {
    /// Makes the calls of a configured table. One that shares its cache needs the store.
    pub fn new(
        table: config::Table,
        usable: Usable,
        store: Option<&Arc<Store>>,
        shared: &mut Shared,
    ) -> Result<Self, String> {
        let cache = table.endpoint.cache.clone();
        let needs_keys = cache.is_some() || !table.endpoint.limits.is_empty();
        let login_keys = match table.protocol.has_logins() && needs_keys {
            true => Some(LoginKeys::random()?),
            false => None,
        };
        let shared_cache = store.and_then(|store| SharedCache::new(&table, store));
        Ok(Self {
            shared_cache: shared_cache.map(Arc::new),
            caller: Arc::new(Caller::new(table, shared)?),
            cache: cache.map(|settings| Arc::new(Cache::new(settings))),
            login_keys,
            usable,
        })
    }

    /// Returns the call of a login whose name is normalised, and what the call is known by, or an
    /// outcome for which the backend is not asked.
    pub fn of_login(&self, request: &Request) -> Result<(Call, CacheKey), Outcome> {
        let call = compose(self.caller.table(), request)?;
        let key = self.login_keys.as_ref().map(|keys| keys.of(&call));
        Ok((call, key.unwrap_or_default()))
    }

    /// Answers a login whose name is normalised, from the cache or by its call.
    ///
    /// An `async fn` would keep the call twice: as its parameter and as a variable.
    pub fn login<'c>(
        &'c self,
        request: &'c Request,
        (call, key): (Call, &'c CacheKey),
        asked: Asked,
    ) -> impl Future<Output = Outcome> + Send + 'c {
        let until = asked.until(&self.caller);
        let shown = Shown::of(self.caller.table(), request, &call);
        let mut call = OutgoingCall::new(call, shown, asked.id);
        async move {
            let Some(cache) = &self.cache else {
                return self.caller.make(&mut call, until).await.outcome;
            };
            let ask = || {
                let (caller, request, usable) =
                    (Arc::clone(&self.caller), request.clone(), self.usable);
                async move {
                    let fetched = caller.make(&mut call, until).await;
                    Fetched {
                        outcome: usable(fetched.outcome, &caller.table().endpoint, &request),
                        ..fetched
                    }
                }
            };
            cache.answer(key, ask).await
        }
    }

    /// Answers a request, from a cache or by a call.
    pub fn answer<'c>(
        &'c self,
        request: &'c Request,
        asked: Asked,
    ) -> impl Future<Output = Outcome> + Send + 'c {
        let (id, until) = (asked.id, asked.until(&self.caller));
        async move {
            let request = match keys::normalise(request, self.caller.table()) {
                Ok(request) => request,
                Err(outcome) => {
                    let name = self.caller.table().protocol.outcomes[outcome.number()];
                    let why = || keys::why_no_call(request, self.caller.table());
                    verbose::means(|| format!("{name}: no call for this key: {}", why()));
                    return outcome;
                }
            };
            if let Cow::Owned(request) = &request {
                verbose::means(|| normalised(request, self.caller.table()));
            }
            let Some(cache) = &self.cache else {
                return self.caller.ask(&request, id, until).await.outcome;
            };
            let key = cache.key(&request);
            let ask = || {
                let (caller, request) = (Arc::clone(&self.caller), request.into_owned());
                let shared_cache = self.shared_cache.clone().map(|cache| (cache, key.clone()));
                let usable = self.usable;
                async move {
                    let usable = |outcome| usable(outcome, &caller.table().endpoint, &request);
                    let call = async || {
                        let fetched = caller.ask(&request, id, until).await;
                        show_lifetime(&fetched, caller.table());
                        // Before a cache sees it, so that what cannot be used is not stored.
                        Fetched {
                            outcome: usable(fetched.outcome),
                            ..fetched
                        }
                    };
                    match &shared_cache {
                        // Boxed, so that calls without it take no memory for it.
                        Some((cache, key)) => Box::pin(cache.answer(key, usable, call())).await,
                        None => call().await,
                    }
                }
            };
            cache.answer(&key, ask).await
        }
    }
}

/// Says what a key is once it is normalised.
fn normalised(request: &Request, table: &config::Table) -> String {
    let key = table.protocol.key.and_then(|name| request.value(name));
    let key = String::from_utf8_lossy(key.unwrap_or_default());
    format!("\"normalise\" makes the key {key:?}")
}

/// Says how long an answer would be cached.
fn show_lifetime(fetched: &Fetched, table: &config::Table) {
    verbose::means(|| {
        let cache = table.endpoint.cache.as_ref();
        match cache.and_then(|settings| lifetime_by(settings, fetched)) {
            Some((lifetime, _)) => format!("the service would cache this for {lifetime:?}"),
            None => "the service would not cache this".to_owned(),
        }
    });
}
