//! Answers that are kept, and calls that are shared by all who ask the same.
//!
//! Kept are values and "not found", never a failure, and no answer is said after its lifetime but
//! as the operator allows while no better one is to be had.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use quick_cache::sync::{Cache as Store, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::config;
use crate::http::freshness::{Answered, Lifetime};
use crate::observe::metrics::CacheState;
use crate::outcome::Outcome;
use crate::request::Request;

/// A question, as bytes that no other question has.
pub type Question = Arc<[u8]>;

/// A call that is under way, for all who wait for it. It ends with the last of them.
#[derive(Debug)]
struct Call {
    outcome: watch::Receiver<Option<Outcome>>,
    task: AbortHandle,
}

impl Call {
    /// Waits for its outcome.
    async fn landed(self: Arc<Self>) -> Outcome {
        let mut outcome = self.outcome.clone();
        let landed = outcome.wait_for(Option::is_some).await;
        landed
            .ok()
            .and_then(|outcome| outcome.clone())
            // A fault in it is one of all who wait for it, and has been told already.
            .unwrap_or_else(|| resume_unwind(Box::new("a fault in a call")))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The answers of one endpoint.
#[derive(Debug)]
pub struct Cache {
    settings: config::Cache,
    store: Store<Question, Kept, ByMemory>,
    flights: Mutex<Flights>,
    /// Goes up when everything is thrown away: calls that began before are not kept. Changed and
    /// obeyed under the lock of the flights.
    generation: AtomicU64,
    /// How requests were answered: from what is kept, by asking, from what was too old.
    hits: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
}

/// The calls under way, each under its question.
#[derive(Debug, Default)]
struct Flights {
    last: u64,
    by_question: HashMap<Question, (u64, Weak<Call>)>,
}

/// What becomes of a question that has to be asked.
enum Flight {
    Under(Arc<Call>),
    /// Its answer came a moment ago.
    Landed(Outcome),
}

/// An answer that is kept.
#[derive(Clone, Debug)]
struct Kept {
    outcome: Outcome,
    /// From when on it is renewed ahead of its end.
    renew_at: Instant,
    /// Its end.
    fresh_until: Instant,
    /// Until when it may be said in place of a failure.
    stale_until: Instant,
}

/// Counts what an answer takes, and not less than makes the number of answers right.
#[derive(Clone, Debug)]
struct ByMemory {
    least: u64,
}

impl Weighter<Question, Kept> for ByMemory {
    fn weight(&self, question: &Question, kept: &Kept) -> u64 {
        /// What the tables around an answer take.
        const AROUND: usize = 160;
        let value = match &kept.outcome {
            Outcome::Found(value) => value.len(),
            _ => 0,
        };
        let bytes = AROUND.saturating_add(question.len()).saturating_add(value);
        u64::try_from(bytes).unwrap_or(u64::MAX).max(self.least)
    }
}

impl Cache {
    /// Makes an empty one.
    pub fn new(settings: config::Cache) -> Self {
        let bytes = u64::try_from(settings.max_bytes).unwrap_or(u64::MAX);
        let entries = u64::try_from(settings.max_entries).unwrap_or(u64::MAX);
        // So heavy that one more than allowed does not fit, and light enough that one does: the
        // store takes nothing that fills it alone.
        let least = (bytes / entries.saturating_add(1)).max(1);
        let bytes = least
            .saturating_mul(entries.saturating_add(1))
            .saturating_sub(1);
        let weighter = ByMemory { least };
        // One part: a bound is to hold for all answers together.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(settings.max_entries.min(1_000))
            .weight_capacity(bytes)
            .build();
        let store = match options {
            Ok(options) => Store::with_options(
                options,
                weighter,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            Err(_) => Store::with_weighter(1, bytes, weighter),
        };
        Self {
            settings,
            store,
            flights: Mutex::default(),
            generation: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            stale: AtomicU64::new(0),
        }
    }

    /// Returns what it holds and has done.
    pub fn state(&self) -> CacheState {
        CacheState {
            entries: self.store.len(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            stale: self.stale.load(Ordering::Relaxed),
        }
    }

    /// Returns what makes this request, whose key is normalised, a question of its own.
    pub fn question(&self, request: &Request) -> Question {
        /// For the names and keys of most questions.
        const MOST: usize = 128;
        let mut bytes = Vec::with_capacity(MOST);
        let mut put = |part: &[u8]| {
            bytes.extend_from_slice(&part.len().to_le_bytes());
            bytes.extend_from_slice(part);
        };
        match request {
            Request::Lookup { map, key } => {
                put(map.as_deref().unwrap_or_default());
                put(key);
            }
            Request::Policy(attributes) => {
                for name in &self.settings.by {
                    put(attributes.value(name).unwrap_or_default());
                }
            }
        }
        bytes.into()
    }

    /// Answers from what is kept, or from a call; one call for all who ask the same meanwhile.
    pub async fn answer<F>(
        self: &Arc<Self>,
        question: &Question,
        ask: impl FnOnce() -> F,
    ) -> Outcome
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        let generation = self.generation.load(Ordering::Acquire);
        let kept = self.store.get(question);
        let now = Instant::now();
        if let Some(kept) = kept.as_ref().filter(|kept| now < kept.fresh_until) {
            if now >= kept.renew_at
                && !self.is_flying(question)
                && let Flight::Under(call) = self.fly(question, ask)
            {
                // It ends by its own deadline, whether anybody waits for it or not.
                tokio::spawn(call.landed());
            }
            self.hits.fetch_add(1, Ordering::Relaxed);
            return kept.outcome.clone();
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let outcome = match self.fly(question, ask) {
            Flight::Under(call) => call.landed().await,
            Flight::Landed(outcome) => outcome,
        };
        match kept {
            Some(kept)
                if matches!(outcome, Outcome::Temporary(_))
                    && generation == self.generation.load(Ordering::Acquire)
                    && Instant::now() < kept.stale_until =>
            {
                self.stale.fetch_add(1, Ordering::Relaxed);
                kept.outcome
            }
            _ => outcome,
        }
    }

    /// Throws everything away, and tells how much there was.
    pub fn clear(&self) -> usize {
        let mut flights = self.lock();
        self.generation.fetch_add(1, Ordering::AcqRel);
        flights.by_question.clear();
        let count = self.store.len();
        self.store.clear();
        count
    }

    /// Returns how many answers there are.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    fn is_flying(&self, question: &Question) -> bool {
        // Dropped after the lock: it may be the last of its kind, and the end of a call locks, too.
        let call = self
            .lock()
            .by_question
            .get(question)
            .and_then(|(_, call)| call.upgrade());
        call.is_some()
    }

    /// Joins the call that asks this, or makes one. It ends when nobody waits for it any more.
    fn fly<F>(self: &Arc<Self>, question: &Question, ask: impl FnOnce() -> F) -> Flight
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        let mut flights = self.lock();
        if let Some((_, call)) = flights.by_question.get(question)
            && let Some(call) = call.upgrade()
        {
            return Flight::Under(call);
        }
        // It may have landed on another thread since the store was looked at.
        let now = Instant::now();
        if let Some(kept) = self.store.get(question).filter(|kept| now < kept.renew_at) {
            return Flight::Landed(kept.outcome);
        }
        flights.last += 1;
        let landing = Landing {
            cache: Arc::clone(self),
            question: Arc::clone(question),
            flight: flights.last,
            generation: self.generation.load(Ordering::Acquire),
        };
        let asked = ask();
        let (say, outcome) = watch::channel(None);
        let task = tokio::spawn(async move {
            let answered = asked.await;
            landing.keep(&answered, now);
            drop(landing);
            say.send_replace(Some(answered.outcome));
        });
        let call = Arc::new(Call {
            outcome,
            task: task.abort_handle(),
        });
        let flight = (flights.last, Arc::downgrade(&call));
        flights.by_question.insert(Arc::clone(question), flight);
        Flight::Under(call)
    }

    fn lock(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a call, reached or not.
struct Landing {
    cache: Arc<Cache>,
    question: Question,
    flight: u64,
    generation: u64,
}

impl Landing {
    /// Keeps an answer for as long as it is good, counted from when it was asked for.
    fn keep(&self, answered: &Answered, asked: Instant) {
        let settings = &self.cache.settings;
        let default = match &answered.outcome {
            Outcome::Found(_) => settings.ttl,
            Outcome::NotFound => settings.negative_ttl,
            Outcome::Temporary(_) | Outcome::Permanent(_) => return,
        };
        let said = if settings.honour_http {
            answered.lifetime
        } else {
            Lifetime::default()
        };
        let lifetime = said.fresh.unwrap_or(default);
        // A failure is never said as "not found", and so not by an old one either.
        let stale = match &answered.outcome {
            Outcome::Found(_) => said.stale.or(settings.stale_if_error).unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let _one_step = self.cache.lock();
        if self.generation != self.cache.generation.load(Ordering::Acquire) {
            return;
        }
        if lifetime.is_zero() {
            // An older answer is wrong by now.
            self.cache.store.remove(&self.question);
            return;
        }
        let fresh_until = asked + lifetime;
        let kept = Kept {
            outcome: answered.outcome.clone(),
            renew_at: match settings.refresh_ahead {
                Some(ahead) => asked + lifetime.saturating_sub(ahead.min(lifetime / 2)),
                None => fresh_until,
            },
            fresh_until,
            stale_until: fresh_until + stale,
        };
        self.cache.store.insert(Arc::clone(&self.question), kept);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.cache.lock();
        // The next call for this question may have begun already.
        let is_ours = |(flight, _): &(u64, Weak<Call>)| *flight == self.flight;
        if flights.by_question.get(&self.question).is_some_and(is_ours) {
            flights.by_question.remove(&self.question);
        }
    }
}
