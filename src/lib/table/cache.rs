//! The cache of a table: its answers, and one call for all requests that ask the same at once.
//!
//! Values and "not found" are cached, failures never. An answer is used within its lifetime, and
//! after that only in place of a temporary failure, for as long as the operator allows.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use quick_cache::sync::{Cache as Store, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::config;
use crate::http::freshness::{Fetched, Lifetime};
use crate::observe::state::CacheState;
use crate::outcome::Outcome;
use crate::request::Request;
use crate::sync::Mutex;

/// The key of an answer: two requests have equal keys only if they have the same answer.
pub type CacheKey = Arc<[u8]>;

/// Returns how long an answer may be used, by these settings, and after that in place of a failure
/// where its headers say so; none if it may not be cached.
pub fn lifetime_by(
    settings: &config::Cache,
    fetched: &Fetched,
) -> Option<(Duration, Option<Duration>)> {
    let default = match &fetched.outcome {
        Outcome::Found(_) => settings.ttl,
        Outcome::NotFound | Outcome::Refused(_) => settings.negative_ttl,
        Outcome::Done | Outcome::Temporary(_) | Outcome::Permanent(_) => return None,
    };
    let by_headers = if settings.honour_http {
        fetched.lifetime
    } else {
        Lifetime::default()
    };
    Some((by_headers.fresh.unwrap_or(default), by_headers.stale))
}

/// A call in flight, shared by all requests that wait for it.
///
/// Only they hold it. When the last of them gives up, the call is aborted: its backend must
/// not work for an answer that no request waits for.
#[derive(Debug)]
struct InFlight {
    /// The outcome, and whether it comes from the cache of all hosts.
    outcome: watch::Receiver<Option<(Outcome, bool)>>,
    task: AbortHandle,
}

impl InFlight {
    /// Waits for the outcome of the call.
    async fn result(self: Arc<Self>) -> (Outcome, bool) {
        let mut outcome = self.outcome.clone();
        let result = outcome.wait_for(Option::is_some).await;
        result
            .ok()
            .and_then(|outcome| outcome.clone())
            // The sender is gone without an outcome only if the call panicked. The panic has been
            // logged there, and costs each waiting request its connection, as a panic of its own.
            .unwrap_or_else(|| resume_unwind(Box::new("panic in a shared call")))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The cache of one table.
#[derive(Debug)]
pub struct Cache {
    settings: config::Cache,
    store: Store<CacheKey, Entry, ByteWeighter>,
    calls: Mutex<Calls>,
    /// Counts the times that the cache was emptied. A call that began before the last of them must
    /// not store its answer, so this changes and is compared under the lock of `calls`.
    generation: AtomicU64,
    /// Requests answered from the store, by a call, from the cache of all hosts, and by a stale
    /// entry in place of a failure.
    hits: AtomicU64,
    misses: AtomicU64,
    shared: AtomicU64,
    stale: AtomicU64,
}

/// The calls in flight, each with a number that no other call has.
#[derive(Debug, Default)]
struct Calls {
    last_id: u64,
    by_key: HashMap<CacheKey, (u64, Weak<InFlight>)>,
}

/// How a request gets an answer that it did not find in the store.
enum Joined {
    InFlight(Arc<InFlight>),
    /// The call ended after the request had looked into the store.
    Finished(Outcome),
}

/// A cached answer.
#[derive(Clone, Debug)]
struct Entry {
    outcome: Outcome,
    /// From when a request renews it, while it is still fresh.
    renew_at: Instant,
    /// The end of its lifetime.
    fresh_until: Instant,
    /// Until when it may be used in place of a failure.
    stale_until: Instant,
}

/// Weighs entries so that one capacity bounds both their bytes and their number.
#[derive(Clone, Debug)]
struct ByteWeighter {
    /// The weight of an entry that is smaller than its share of `max-bytes`.
    min: u64,
}

impl Weighter<CacheKey, Entry> for ByteWeighter {
    fn weight(&self, key: &CacheKey, entry: &Entry) -> u64 {
        /// What an entry takes besides its key and its value, in the store and on the heap.
        const OVERHEAD: usize = 160;
        let value = match &entry.outcome {
            Outcome::Found(value) => value.len(),
            _ => 0,
        };
        let bytes = OVERHEAD.saturating_add(key.len()).saturating_add(value);
        u64::try_from(bytes).unwrap_or(u64::MAX).max(self.min)
    }
}

impl Cache {
    /// Makes an empty cache.
    pub fn new(settings: config::Cache) -> Self {
        let bytes = u64::try_from(settings.max_bytes).unwrap_or(u64::MAX);
        let entries = u64::try_from(settings.max_entries).unwrap_or(u64::MAX);
        // `entries` of the lightest entries fit, and one more does not. The capacity is not simply
        // `entries` times the weight, since the store refuses an entry that fills it alone, which
        // would leave a cache of one entry empty.
        let min = (bytes / entries.saturating_add(1)).max(1);
        let capacity = min
            .saturating_mul(entries.saturating_add(1))
            .saturating_sub(1);
        let weighter = ByteWeighter { min };
        // The store divides its capacity among its shards, so that entries would be evicted from
        // one while another has room.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(settings.max_entries.min(1_000))
            .weight_capacity(capacity)
            .build();
        let store = match options {
            Ok(options) => Store::with_options(
                options,
                weighter,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            Err(_) => Store::with_weighter(1, capacity, weighter),
        };
        Self {
            settings,
            store,
            calls: Mutex::default(),
            generation: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            stale: AtomicU64::new(0),
        }
    }

    /// Returns the number of entries and the counters.
    pub fn state(&self) -> CacheState {
        CacheState {
            entries: self.store.len(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            shared: self.shared.load(Ordering::Relaxed),
            stale: self.stale.load(Ordering::Relaxed),
        }
    }

    /// Returns the cache key of a request whose own key is normalised.
    pub fn key(&self, request: &Request) -> Vec<u8> {
        /// Enough for most names and keys.
        const USUAL_LENGTH: usize = 128;
        let mut bytes = Vec::with_capacity(USUAL_LENGTH);
        // Each part has its length before it: a sender who chooses the bytes of one part must not
        // be able to make the cache key of other parts.
        let mut put = |part: &[u8]| {
            bytes.extend_from_slice(&part.len().to_le_bytes());
            bytes.extend_from_slice(part);
        };
        put(request.table.as_deref().unwrap_or_default());
        match self.settings.by.as_slice() {
            [] => request.values.iter().for_each(|(name, value)| {
                put(name);
                put(value);
            }),
            names => names
                .iter()
                .for_each(|name| put(request.value(name).unwrap_or_default())),
        }
        bytes
    }

    /// Answers from the store or by a call, which requests for the same key share.
    ///
    /// A call goes on while a request waits for it, or to its own deadline if it renews an entry.
    pub async fn answer<F>(self: &Arc<Self>, key: &[u8], ask: impl FnOnce() -> F) -> Outcome
    where
        F: Future<Output = Fetched> + Send + 'static,
    {
        // Read before the store: an entry found there must not be used in place of a failure once
        // the operator has emptied the cache.
        let generation = self.generation.load(Ordering::Acquire);
        let entry = self.store.get(key);
        let now = Instant::now();
        let entry = match entry {
            Some(entry) if now < entry.fresh_until => {
                if now >= entry.renew_at
                    && !self.is_in_flight(key)
                    && let Joined::InFlight(call) = self.join_or_start(key, ask)
                {
                    // No request waits for this call, so a task keeps it from being aborted.
                    tokio::spawn(call.result());
                }
                self.hits.fetch_add(1, Ordering::Relaxed);
                return entry.outcome;
            }
            stale => stale,
        };
        let (outcome, is_shared) = match self.join_or_start(key, ask) {
            Joined::InFlight(call) => call.result().await,
            Joined::Finished(outcome) => (outcome, false),
        };
        let counter = if is_shared {
            &self.shared
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        match entry {
            Some(entry)
                if matches!(outcome, Outcome::Temporary(_))
                    && generation == self.generation.load(Ordering::Acquire)
                    && Instant::now() < entry.stale_until =>
            {
                self.stale.fetch_add(1, Ordering::Relaxed);
                entry.outcome
            }
            _ => outcome,
        }
    }

    /// Empties the cache and returns how many entries there were.
    pub fn clear(&self) -> usize {
        let mut calls = self.calls.lock();
        // Requests that come from here on start calls of their own. Calls in flight still answer
        // the requests that wait for them, and then find that their generation is over.
        self.generation.fetch_add(1, Ordering::AcqRel);
        calls.by_key.clear();
        let count = self.store.len();
        self.store.clear();
        count
    }

    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Returns whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    fn is_in_flight(&self, key: &[u8]) -> bool {
        // Bound to a name, so that the lock is released before the call is dropped: if every
        // request has given up meanwhile, this drop ends the call, and its guard takes the lock.
        let call = self
            .calls
            .lock()
            .by_key
            .get(key)
            .and_then(|(_, call)| call.upgrade());
        call.is_some()
    }

    /// Joins the call in flight for this key, or starts one.
    fn join_or_start<F>(self: &Arc<Self>, key: &[u8], ask: impl FnOnce() -> F) -> Joined
    where
        F: Future<Output = Fetched> + Send + 'static,
    {
        let mut calls = self.calls.lock();
        if let Some((_, call)) = calls.by_key.get(key)
            && let Some(call) = call.upgrade()
        {
            return Joined::InFlight(call);
        }
        // A call on another thread may have ended since the caller looked into the store. It stores
        // its answer before it leaves `calls`, so under the lock one of the two is found.
        let now = Instant::now();
        if let Some(entry) = self.store.get(key).filter(|entry| now < entry.renew_at) {
            return Joined::Finished(entry.outcome);
        }
        calls.last_id += 1;
        let key = CacheKey::from(key);
        let guard = InFlightGuard {
            cache: Arc::clone(self),
            key: Arc::clone(&key),
            id: calls.last_id,
            generation: self.generation.load(Ordering::Acquire),
        };
        // Boxed: the task would keep it twice, as a captured variable and where it is awaited.
        let fetch = Box::pin(ask());
        let (sender, outcome) = watch::channel(None);
        let task = tokio::spawn(async move {
            let fetched = fetch.await;
            guard.store(&fetched, now);
            // Before the waiting requests get the outcome: a request that is made after that must
            // start a call of its own, and not get the failure of a call that is over.
            drop(guard);
            let is_shared = fetched.shared_age.is_some();
            sender.send_replace(Some((fetched.outcome, is_shared)));
        });
        let call = Arc::new(InFlight {
            outcome,
            task: task.abort_handle(),
        });
        let in_flight = (calls.last_id, Arc::downgrade(&call));
        calls.by_key.insert(key, in_flight);
        Joined::InFlight(call)
    }
}

/// Takes a call out of `calls` when it ends, by its answer, by a panic or because it is aborted.
struct InFlightGuard {
    cache: Arc<Cache>,
    key: CacheKey,
    id: u64,
    generation: u64,
}

impl InFlightGuard {
    /// Stores an answer for its lifetime, which counts from the start of the call: the backend may
    /// have read its data as early as that.
    fn store(&self, fetched: &Fetched, started: Instant) {
        let settings = &self.cache.settings;
        let decided = match fetched.shared_age {
            None => lifetime_by(settings, fetched),
            Some(_) => fetched
                .lifetime
                .fresh
                .map(|fresh| (fresh, fetched.lifetime.stale)),
        };
        let Some((lifetime, stale)) = decided else {
            return;
        };
        // A failure is never answered as "not found", and a stale "not found" would do just that.
        let stale = match &fetched.outcome {
            Outcome::Found(_) => stale.or(settings.stale_if_error).unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let left = lifetime.saturating_sub(fetched.shared_age.unwrap_or_default());
        // Held from the comparison to the insertion, so that `clear` comes before or after both.
        let _calls = self.cache.calls.lock();
        if self.generation != self.cache.generation.load(Ordering::Acquire) {
            return;
        }
        if left.is_zero() {
            // The backend's answer may not be cached, and supersedes the entry in the store.
            self.cache.store.remove(&self.key);
            return;
        }
        let fresh_until = started + left;
        let entry = Entry {
            outcome: fetched.outcome.clone(),
            renew_at: match settings.refresh_ahead {
                Some(ahead) => started + left.saturating_sub(ahead.min(lifetime / 2)),
                None => fresh_until,
            },
            fresh_until,
            stale_until: fresh_until + stale,
        };
        self.cache.store.insert(Arc::clone(&self.key), entry);
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut calls = self.cache.calls.lock();
        // An aborted call may be dropped after another one for its key has started.
        let is_ours = |(id, _): &(u64, Weak<InFlight>)| *id == self.id;
        if calls.by_key.get(&self.key).is_some_and(is_ours) {
            calls.by_key.remove(&self.key);
        }
    }
}
