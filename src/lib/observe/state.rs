//! The state of a program at one moment.

use tokio::time::Instant;

/// The state of a program at this moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The open connections from the mail server.
    pub connections: usize,
    /// Whether the store is up, if there is one.
    pub store: Option<bool>,
    /// The tables.
    pub tables: Vec<State>,
}

/// The state of one table at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The name of the table.
    pub table: String,
    /// Calls in flight.
    pub in_flight: usize,
    /// The state of its cache, if it has one.
    pub cache: Option<CacheState>,
    /// Its targets.
    pub targets: Vec<TargetState>,
    /// The names of its limits.
    pub limits: Vec<String>,
}

/// The state of a target at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetState {
    /// Its name in logs and metrics.
    pub name: String,
    /// When it went down; absent while it is up.
    pub down_since: Option<Instant>,
}

impl TargetState {
    /// Returns whether it is up.
    pub fn is_up(&self) -> bool {
        self.down_since.is_none()
    }
}

/// The state of a cache at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheState {
    /// Cached answers.
    pub entries: usize,
    /// Requests answered from the cache.
    pub hits: u64,
    /// Requests that made a call or joined one.
    pub misses: u64,
    /// Requests answered from the cache of all hosts.
    pub shared: u64,
    /// Requests answered with a stale entry in place of a failure.
    pub stale: u64,
}
