//! The state of a program at one moment.

/// The state of one table at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The name of the table.
    pub table: String,
    /// Calls in flight.
    pub in_flight: usize,
    /// The state of its cache, if it has one.
    pub cache: Option<CacheState>,
    /// The name of each target, and whether it is up.
    pub targets: Vec<(String, bool)>,
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
