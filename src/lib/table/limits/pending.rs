//! Logins that are being asked about, for limits of those that the backend refuses.
//!
//! A login is charged after its call, and only if the backend refuses it. So that many at once do
//! not get more refusals than a limit has, those that are being asked about count as refused until
//! they have their answer, and further ones of their accounts wait.

use std::collections::HashMap;

use tokio::sync::futures::Notified;
use tokio::sync::{MutexGuard, Notify};

use crate::sync::Mutex;

/// An account of a limit, by the place of the limit in its table.
pub type Key = (usize, String);

/// The logins that are being asked about.
#[derive(Debug, Default)]
pub struct Pending {
    /// How many there are of each account.
    counts: Mutex<HashMap<Key, u64>>,
    /// Held while it is decided whether one more is asked about.
    deciding: tokio::sync::Mutex<()>,
    /// One of them has its answer.
    answered: Notify,
}

impl Pending {
    /// Waits until no other decision is being made.
    pub async fn decide(&self) -> MutexGuard<'_, ()> {
        self.deciding.lock().await
    }

    /// Returns how many there are of each account.
    pub fn counts(&self, keys: &[Key]) -> Vec<u64> {
        let all = self.counts.lock();
        let count = |key: &Key| all.get(key).copied().unwrap_or_default();
        keys.iter().map(count).collect()
    }

    /// Adds one login.
    pub fn add(&self, keys: Vec<Key>) -> Turn<'_> {
        let mut all = self.counts.lock();
        for key in &keys {
            let count = all.entry(key.clone()).or_default();
            *count = count.saturating_add(1);
        }
        drop(all);
        Turn {
            pending: self,
            keys,
        }
    }

    /// Returns what ends when any of them has its answer.
    pub fn answered(&self) -> Notified<'_> {
        self.answered.notified()
    }
}

/// A login that is being asked about, until this is dropped.
#[derive(Debug)]
pub struct Turn<'p> {
    pending: &'p Pending,
    keys: Vec<Key>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut all = self.pending.counts.lock();
        for key in &self.keys {
            if let Some(count) = all.get_mut(key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    all.remove(key);
                }
            }
        }
        drop(all);
        self.pending.answered.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_count_until_they_have_their_answer() {
        let pending = Pending::default();
        let keys = |names: &[&str]| -> Vec<Key> {
            names.iter().map(|name| (0, (*name).to_owned())).collect()
        };
        let both = keys(&["a", "b"]);
        let first = pending.add(keys(&["a"]));
        let second = pending.add(both.clone());
        assert_eq!(pending.counts(&both), [2, 1]);
        drop(first);
        assert_eq!(pending.counts(&both), [1, 1]);
        drop(second);
        assert_eq!(pending.counts(&both), [0, 0]);
        assert!(pending.counts.lock().is_empty());
    }
}
