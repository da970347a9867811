//! What every protocol is to the rest of a program: steps to take, and replies to outcomes.

use bytes::BytesMut;

use super::facts::Facts;
use crate::outcome::{Failure, Outcome};
use crate::reply::{PolicyActions, Reply};
use crate::request::Request;

/// The most bytes one request may have. Postfix's own keys end at 10,000 bytes since 3.12
/// (`socketmap_max_query_size`); policy attributes are bounded by `line_length_limit` each.
pub const MAX_REQUEST: usize = 65_536;

/// One side of one of Postfix's protocols: ours.
pub trait Protocol: Default + Send + 'static {
    /// What the rest of a program has to know of the protocol.
    const FACTS: &'static Facts;

    /// Takes the next thing off the front of what has been received.
    ///
    /// The steps are the same however the bytes were cut on their way. What is not complete stays
    /// in the input.
    fn next_step(&mut self, input: &mut BytesMut) -> Step;

    /// Puts an outcome into this protocol's words.
    ///
    /// Fails where it has none for a value; every failure can be said.
    fn reply(outcome: &Outcome, words: &PolicyActions) -> Result<Reply, Unsayable>;

    /// Returns the part of a reply that `--query` prints.
    fn text(outcome: &Outcome, _: &PolicyActions) -> Option<String> {
        match outcome {
            Outcome::Found(value) => Some(value.clone()),
            _ => None,
        }
    }
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
