//! What every protocol is to the rest of a program: steps to take, and replies to outcomes.

use bytes::{Bytes, BytesMut};

use super::facts::Facts;
use crate::outcome::{Failure, Outcome};
use crate::reply::Reply;
use crate::request::Request;

/// The most bytes one request may have. Postfix's own keys end at 10,000 bytes since 3.12
/// (`socketmap_max_query_size`); policy attributes are bounded by `line_length_limit` each.
pub const MAX_REQUEST: usize = 65_536;

/// The server's side of one protocol, on one connection.
pub trait Protocol: Sized + Send + 'static {
    /// What the rest of a program has to know of the protocol.
    const FACTS: &'static Facts;

    /// What an operator has written down for the replies of one table; most protocols leave nothing
    /// to write.
    type Rules: Default + Send + Sync + 'static;

    /// Opens a connection; returns the greeting, which is empty in most protocols.
    fn open() -> (Self, Bytes);

    /// Takes the next step off the front of what has been received.
    ///
    /// The steps are the same however the bytes were cut on their way. What is not complete stays
    /// in the input.
    fn next_step(&mut self, input: &mut BytesMut) -> Step;

    /// Puts the outcome of the request with this tag into this protocol's words.
    ///
    /// Fails where it has none for a value; every failure can be said.
    fn reply(
        &mut self,
        tag: Tag,
        outcome: &Outcome,
        rules: &Self::Rules,
    ) -> Result<Reply, Unsayable>;

    /// Returns the part of a reply that `--query` prints.
    fn text(outcome: &Outcome, _: &Self::Rules) -> Option<String> {
        match outcome {
            Outcome::Found(value) => Some(value.clone()),
            _ => None,
        }
    }
}

/// The peer's own number of a request, for the reply to it; 0 in protocols without numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag(pub u64);

/// What to do next on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is complete; read on.
    NeedMore,
    /// Send these bytes in their turn: they answer no request.
    Send(Bytes),
    /// Ask the backend.
    Ask(Tag, Request),
    /// Say this, without asking, and go on.
    Answer(Tag, Outcome),
    /// Say this and close: what follows on this connection cannot be trusted.
    Refuse(Outcome),
}

/// A value that the protocol has no way to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsayable(pub Failure);

/// Puts an outcome into words. A value that cannot be said becomes a failure, which can.
pub fn say<P: Protocol>(
    protocol: &mut P,
    tag: Tag,
    outcome: Outcome,
    rules: &P::Rules,
) -> (Outcome, Reply) {
    match protocol.reply(tag, &outcome, rules) {
        Ok(reply) => (outcome, reply),
        Err(Unsayable(failure)) => {
            let outcome = Outcome::Temporary(failure);
            let reply = protocol.reply(tag, &outcome, rules);
            (outcome, reply.unwrap_or(Reply::Close))
        }
    }
}

/// Returns the outcome that is said for this one: a failure in place of a value that cannot be said.
pub fn sayable<P: Protocol>(outcome: Outcome, rules: &P::Rules) -> Outcome {
    let (mut protocol, _) = P::open();
    say(&mut protocol, Tag::default(), outcome, rules).0
}
