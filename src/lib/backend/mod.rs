//! The other side: a request becomes an HTTP call, and whatever comes of it an outcome.
//!
//! `call` says what is sent, `answer` what a response means and `redirect` where one leads, all as
//! pure functions. `http` makes the calls, over the connections of `client`, which `tls` encrypts and
//! for which `resolver` finds the hosts, with the tokens of `oauth`; it skips the targets that
//! `breaker` holds for down. `body` reads what comes back, and `pool` bounds the connections of all
//! tables together. An `endpoint` is all of that behind a `cache`, if there is one; endpoints have
//! some of it in common (`shared`), and `route` knows which endpoint is asked.

pub mod answer;
pub mod body;
pub mod breaker;
pub mod cache;
pub mod call;
pub mod client;
pub mod endpoint;
pub mod http;
pub mod oauth;
pub mod pool;
pub mod redirect;
pub mod resolver;
pub mod route;
pub mod shared;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use crate::log::RequestId;
use crate::metrics::Meter;
use crate::outcome::Outcome;
use crate::reply::Words;
use crate::request::Request;

/// What a connection can ask, as the configuration of this moment has it.
pub trait Backend: Send + Sync + 'static {
    /// What answers.
    type Table: Table;

    /// Returns the table of that map name, or the one behind this connection's socket.
    fn table(&self, map: Option<&[u8]>) -> Option<Arc<Self::Table>>;

    /// Returns the patience a connection is to have.
    fn patience(&self) -> Patience;
}

/// One table, and the endpoint behind it.
pub trait Table: Send + Sync + 'static {
    /// Returns its name in the configuration.
    fn name(&self) -> &str;

    /// Returns what it says for each outcome.
    fn words(&self) -> &Words;

    /// Asks. There are no errors, only outcomes; the call ends when the future is dropped.
    fn answer(&self, request: &Request, id: RequestId) -> impl Future<Output = Outcome> + Send;

    /// Returns where its requests are counted, if they are.
    fn meter(&self) -> Option<&Meter> {
        None
    }
}

/// How long a connection waits for its peer.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From a request's first byte to its last, and for writing a reply.
    pub read: Duration,
    /// For the first byte; for ever if absent.
    pub idle: Option<Duration>,
}
