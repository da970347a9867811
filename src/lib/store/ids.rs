//! Ids of reservations.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// The bits of an id. The numbers of Redis' scripts have no more.
const BITS: u32 = 53;

/// Makes ids of reservations that no other program makes at the same time.
#[derive(Debug)]
pub(super) struct Ids(AtomicU64);

impl Default for Ids {
    fn default() -> Self {
        // Each state has keys of its own, which come from random numbers of the system.
        Self(AtomicU64::new(RandomState::new().hash_one(0)))
    }
}

impl Ids {
    /// Returns the next id.
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) & ((1 << BITS) - 1)
    }
}
