//! The tables: each normalises keys, has a cache if it is configured, and makes the HTTP calls.
//!
//! `routes` knows which table is asked, by the map's name or by the name of the socket. An
//! `endpoint` is one table: its `calls`, with its `keys` and its `cache`, if it has one; or its
//! `limits`, which count, and make calls for numbers only.
//! What some tables can do besides lookups are its `operations`: `lists` and `writes`.

pub mod cache;
pub mod calls;
pub mod endpoint;
pub mod keys;
pub mod limits;
pub mod lists;
pub mod login;
pub mod operations;
pub mod routes;
pub mod shared_cache;
pub mod writes;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::http::caller::Caller;
use crate::observe::log::RequestId;
use crate::observe::meter::Meter;
use crate::outcome::{Outcome, Reason, Row};
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

/// What a table knows of a request besides its values.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Its id.
    pub id: RequestId,
    /// When its last byte had arrived.
    pub at: Instant,
}

impl Asked {
    /// Asks at this moment.
    pub fn now() -> Self {
        Self::at(Instant::now())
    }

    /// Asks for a request whose last byte arrived at this time.
    pub fn at(at: Instant) -> Self {
        Self {
            id: RequestId::next(),
            at,
        }
    }

    /// Returns when its client gives up, so that no call may go on.
    pub fn until(&self, caller: &Caller) -> Instant {
        self.at + Duration::from_secs(caller.table().protocol.max_secs)
    }
}

/// One table that can be asked.
pub trait Table: Send + Sync + 'static {
    /// Returns its name in the configuration.
    fn name(&self) -> &str;

    /// Answers a request that is no login. There are no errors, only outcomes. Dropping the future
    /// cancels the call.
    fn answer(&self, request: &Request, asked: Asked) -> impl Future<Output = Outcome> + Send;

    /// Answers a login, as `answer` does every other request.
    fn login(&self, request: &Request, asked: Asked) -> impl Future<Output = Outcome> + Send {
        self.answer(request, asked)
    }

    /// Answers a request for a list: hands over its rows as they come, and returns how they ended.
    fn list(
        &self,
        request: &Request,
        asked: Asked,
        rows: mpsc::Sender<Row>,
    ) -> impl Future<Output = Outcome> + Send {
        let _ = (request, asked, rows);
        async { Outcome::Permanent(Reason::RequestNotUnderstood.into()) }
    }

    /// Waits for a future until a deadline; returns nothing if that comes first.
    fn until<F: Future + Send>(
        &self,
        deadline: Instant,
        awaited: Pin<&mut F>,
    ) -> impl Future<Output = Option<F::Output>> + Send
    where
        F::Output: Send,
    {
        async move { timeout_at(deadline, awaited).await.ok() }
    }

    /// Returns how long to wait before an outcome is said, if it has to wait.
    fn pause_before(&self, _: &Outcome) -> Option<Duration> {
        None
    }

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
