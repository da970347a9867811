//! The three grammars, in both directions: bytes to requests, outcomes to replies.
//!
//! Nothing here reads, writes, waits, logs or knows the time, so every rule can be tested as a
//! function of bytes.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

pub mod facts;
pub mod frame;
pub mod policy;
pub mod quote;
pub mod socketmap;
pub mod tcp_lookup;

use bytes::BytesMut;

use crate::outcome::{Failure, Outcome};
use crate::reply::{PolicyActions, Reply};
use crate::request::Request;

/// The most bytes one request may have. Postfix's own keys end at 10,000 bytes since 3.12
/// (`socketmap_max_query_size`); policy attributes are bounded by `line_length_limit` each.
pub const MAX_REQUEST: usize = 65_536;

/// One side of one of Postfix's protocols: ours.
pub trait Protocol: Default + Send + 'static {
    /// Takes the next thing off the front of what has been received.
    ///
    /// The steps are the same however the bytes were cut on their way. What is not complete stays
    /// in the input.
    fn next_step(&mut self, input: &mut BytesMut) -> Step;

    /// Puts an outcome into this protocol's words.
    ///
    /// Fails where it has none for a value; every failure can be said.
    fn reply(outcome: &Outcome, words: &PolicyActions) -> Result<Reply, Unsayable>;
}

/// What to do next on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is complete; read on.
    NeedMore,
    /// Ask the backend.
    Ask(Request),
    /// Say this, without asking, and go on.
    Answer(Outcome),
    /// Say this and close: what follows on this connection cannot be trusted.
    Refuse(Outcome),
}

/// A value that the protocol has no way to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsayable(pub Failure);

/// Puts an outcome into words. A value that cannot be said becomes a failure, which can.
pub fn say<P: Protocol>(outcome: Outcome, words: &PolicyActions) -> (Outcome, Reply) {
    match P::reply(&outcome, words) {
        Ok(reply) => (outcome, reply),
        Err(Unsayable(failure)) => {
            let outcome = Outcome::Temporary(failure);
            let reply = P::reply(&outcome, words).unwrap_or(Reply::Close);
            (outcome, reply)
        }
    }
}
