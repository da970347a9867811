//! The tables: each normalises keys, has a cache if it is configured, and makes the HTTP calls.
//!
//! `routes` knows which table is asked, by the map's name or by the name of the socket. An
//! `endpoint` is one table: its `calls`, with its `keys` and its `cache`, if it has one; or its
//! `limits`, which count, and make calls for numbers only.

pub mod cache;
pub mod calls;
pub mod endpoint;
pub mod keys;
pub mod limits;
pub mod routes;
pub mod shared_cache;

use std::sync::Arc;

use crate::observe::log::RequestId;
use crate::observe::metrics::Meter;
use crate::outcome::Outcome;
use crate::request::Request;
use crate::serve::peer::Timeouts;

/// The tables that a connection can ask, as currently configured.
pub trait Backend: Send + Sync + 'static {
    /// The type of a table.
    type Table: Table;

    /// Returns the table that a request names, or the one of this connection's socket.
    fn table(&self, map: Option<&[u8]>) -> Option<Arc<Self::Table>>;

    /// Returns the timeouts of a connection.
    fn timeouts(&self) -> Timeouts;
}

/// One table that can be asked.
pub trait Table: Send + Sync + 'static {
    /// Returns its name in the configuration.
    fn name(&self) -> &str;

    /// Answers a request. There are no errors, only outcomes. Dropping the future cancels the call.
    fn answer(&self, request: &Request, id: RequestId) -> impl Future<Output = Outcome> + Send;

    /// Returns the counters of its requests, if it has any.
    fn meter(&self) -> Option<&Meter> {
        None
    }
}

/// A table with the operator's settings for its replies (`Protocol::Rules`).
pub trait Rules<R> {
    /// Returns the rules.
    fn rules(&self) -> &R;
}
