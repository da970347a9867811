//! The logins of one connection that wait for their client's next message.

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;

use super::rules::Mechanism;
use crate::request::Request;

/// The most logins between two messages. smtpd has one; what it abandons, because its client gave
/// up, it does not say.
const MOST: usize = 16;

/// How long a client may think. Then smtpd has most likely given up long ago.
const LIFETIME: Duration = Duration::from_secs(60);

/// The logins that wait for their client, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Exchanges(VecDeque<Exchange>);

/// One login that waits for its client.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: u64,
    pub(super) mechanism: Mechanism,
    /// What Postfix says about the client, and further what the client has said.
    pub(super) request: Request,
    pub(super) awaits: Awaits,
    /// The time of its challenge, since the connection was opened.
    pub(super) since: Duration,
}

/// The message that is to come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// The first of the mechanism: all of it, or the name.
    First,
    /// The password, after the name.
    Password,
    /// Anything: the token was refused, and after this message comes this line.
    Anything(Bytes),
}

impl Exchanges {
    /// Forgets what was abandoned.
    pub(super) fn expire(&mut self, now: Duration) {
        self.0
            .retain(|exchange| now.saturating_sub(exchange.since) < LIFETIME);
    }

    /// Adds a login, in place of the oldest if there are too many.
    pub(super) fn add(&mut self, exchange: Exchange) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(exchange);
    }

    /// Takes the login of an id.
    pub(super) fn take(&mut self, id: u64) -> Option<Exchange> {
        let at = self.0.iter().position(|exchange| exchange.id == id)?;
        self.0.remove(at)
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.0.iter().any(|exchange| exchange.id == id)
    }
}
