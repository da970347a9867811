//! The cache of all hosts: asked after a table's own cache, and before the backend.
//!
//! While it cannot be reached, everything is as if it were not there. What it has is no more trusted
//! than the answer of a backend. Failures are not kept, and a stale answer is a matter of the own
//! cache alone.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::time::Instant;
use tracing::warn;

use super::cache::lifetime_by;
use crate::config::{self, Fingerprint, fingerprint};
use crate::http::freshness::{Fetched, Lifetime};
use crate::outcome::{Outcome, is_blank};
use crate::store::Store;
use crate::store::redis::shared::Generation;

/// The part of the cache of all hosts that one table has.
#[derive(Debug)]
pub struct SharedCache {
    store: Arc<Store>,
    /// The program and the table, as the store has them.
    table: String,
    fingerprint: Fingerprint,
    settings: config::Cache,
    max_value: usize,
}

impl SharedCache {
    /// Makes the part of a table, if its answers are kept for all hosts.
    pub fn new(table: &config::Table, store: &Arc<Store>) -> Option<Self> {
        let cache = table.endpoint.cache.as_ref();
        let settings = cache.filter(|cache| cache.is_shared)?.clone();
        Some(Self {
            store: Arc::clone(store),
            table: format!("{}.{}", table.protocol.name, table.name),
            fingerprint: fingerprint(table),
            settings,
            max_value: table.endpoint.max_response,
        })
    }

    /// Answers with what is kept for a key, or by a call, whose answer is kept.
    ///
    /// `usable` returns the outcome of a kept answer as it would that of a call.
    pub async fn answer(
        self: &Arc<Self>,
        key: &[u8],
        usable: impl FnOnce(Outcome) -> Outcome,
        call: impl Future<Output = Fetched>,
    ) -> Fetched {
        let name = self.name(key);
        let asked = Instant::now();
        let Some(found) = self.store.look_up(&self.table, &name).await else {
            return call.await;
        };
        let kept = found.answer.and_then(|(bytes, left)| {
            let kept = Kept::parse(&bytes, self.max_value)?;
            // What has become unusable since, by the settings of the table, is asked for again.
            let outcome = usable(kept.outcome);
            outcome
                .failure()
                .is_none()
                .then_some(Kept { outcome, ..kept }.fetched(left))
        });
        if let Some(kept) = kept.as_ref().filter(|kept| !self.is_to_be_renewed(kept)) {
            return kept.clone();
        }
        let called = Instant::now();
        let fetched = call.await;
        match kept {
            // It is still fresh, and would have been answered by a host that has it in memory.
            Some(kept) if matches!(fetched.outcome, Outcome::Temporary(_)) => {
                let age = kept.shared_age.map(|age| age + asked.elapsed());
                let fresh = kept.lifetime.fresh;
                if age < fresh {
                    Fetched {
                        shared_age: age,
                        ..kept
                    }
                } else {
                    fetched
                }
            }
            _ => {
                self.keep(name, found.generation, &fetched, called);
                fetched
            }
        }
    }

    /// Returns the store that keeps it.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Empties the part of this table: at once for this program, and for all hosts as soon as the
    /// store answers.
    pub fn clear(&self) {
        let (store, table) = (Arc::clone(&self.store), self.table.clone());
        store.empty(&table);
        tokio::spawn(async move {
            if !store.begin(&table).await {
                warn!(
                    "cache: the shared answers of {table} are not emptied while the store is down; \
                     this program uses none of them before they are"
                );
            }
        });
    }

    /// Returns the name under which the answer for a key is kept. It shows neither the key, which
    /// may be an address, nor the settings.
    fn name(&self, key: &[u8]) -> String {
        let mut digest = Context::new(&SHA256);
        digest.update(&self.fingerprint);
        digest.update(key);
        let digest = digest.finish();
        digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Returns whether an answer is so near to its end that it is asked for again while it is used.
    fn is_to_be_renewed(&self, kept: &Fetched) -> bool {
        let (Some(ahead), Some(lifetime)) = (self.settings.refresh_ahead, kept.lifetime.fresh)
        else {
            return false;
        };
        let left = lifetime.saturating_sub(kept.shared_age.unwrap_or_default());
        left <= ahead.min(lifetime / 2)
    }

    /// Keeps an answer for its lifetime, which counts from the start of its call. Nobody waits.
    fn keep(
        self: &Arc<Self>,
        name: String,
        generation: Generation,
        fetched: &Fetched,
        called: Instant,
    ) {
        let Some((lifetime, stale)) = lifetime_by(&self.settings, fetched) else {
            return;
        };
        let left = lifetime.saturating_sub(called.elapsed());
        if left < Duration::from_millis(1) {
            return;
        }
        let kept = Kept {
            outcome: fetched.outcome.clone(),
            lifetime,
            stale,
        };
        let (shared, bytes) = (Arc::clone(self), kept.bytes());
        tokio::spawn(async move {
            let (store, table) = (&shared.store, &shared.table);
            store.keep(table, &name, &generation, &bytes, left).await;
        });
    }
}

/// The longest lifetime: no configuration and no header gives more.
const MAX_LIFETIME: Duration = Duration::from_secs(86_400);

/// An answer as it is kept: its lifetime and how long it may be used after that in place of a
/// failure, in milliseconds of 8 bytes each (the second is 0 where it is open, else 1 more), then
/// "F" and the value, or "N".
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    outcome: Outcome,
    lifetime: Duration,
    stale: Option<Duration>,
}

impl Kept {
    fn bytes(&self) -> Vec<u8> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1);
        let stale = self.stale.map_or(0, |stale| millis(stale) + 1);
        let mut bytes = millis(self.lifetime).to_be_bytes().to_vec();
        bytes.extend_from_slice(&stale.to_be_bytes());
        match &self.outcome {
            Outcome::Found(value) => {
                bytes.push(b'F');
                bytes.extend_from_slice(value.as_bytes());
            }
            _ => bytes.push(b'N'),
        }
        bytes
    }

    /// Reads an answer; none if these are not the bytes of one that a call could have had.
    fn parse(bytes: &[u8], max_value: usize) -> Option<Self> {
        let (lifetime, rest) = bytes.split_first_chunk()?;
        let (stale, rest) = rest.split_first_chunk()?;
        let outcome = match rest.split_first()? {
            (b'N', []) => Outcome::NotFound,
            (b'F', value) if value.len() <= max_value => {
                let value = std::str::from_utf8(value).ok()?;
                (!is_blank(value)).then(|| Outcome::Found(value.to_owned()))?
            }
            _ => return None,
        };
        let millis = |bytes: &[u8; 8]| Duration::from_millis(u64::from_be_bytes(*bytes));
        let lifetime = millis(lifetime);
        let stale = match millis(stale) {
            Duration::ZERO => None,
            stale => Some(stale - Duration::from_millis(1)),
        };
        let is_sane = lifetime.max(stale.unwrap_or_default()) <= MAX_LIFETIME;
        is_sane.then_some(Self {
            outcome,
            lifetime,
            stale,
        })
    }

    /// Returns the answer with what is left of its lifetime.
    fn fetched(self, left: Duration) -> Fetched {
        // More cannot be left than there was.
        let left = left.min(self.lifetime);
        Fetched {
            shared_age: Some(self.lifetime - left),
            ..Fetched::new(
                self.outcome,
                Lifetime {
                    fresh: Some(self.lifetime),
                    stale: self.stale,
                },
            )
        }
    }
}
