//! The interface of every protocol: bytes become steps, and outcomes become replies.

use core::time::Duration;

use bytes::{Bytes, BytesMut};

use super::facts::{Facts, PickedBy};
use crate::outcome::{Failure, Outcome, Row};
use crate::reply::Reply;
use crate::request::Request;

/// The most bytes one request may have. Postfix's own keys end at 10,000 bytes since 3.12
/// (`socketmap_max_query_size`); policy attributes are bounded by `line_length_limit` each.
pub const MAX_REQUEST: usize = 65_536;

/// After how many seconds Postfix gives up (`smtpd_policy_service_timeout`, and the clients of both
/// tables).
pub const POSTFIX_WAITS_SECS: u64 = 100;

/// The most seconds that a request from Postfix may take.
pub const MAX_SECS: u64 = 90;

/// The server's side of one protocol, on one connection.
pub trait Protocol: Sized + Send + 'static {
    /// What the rest of a program has to know about the protocol.
    const FACTS: &'static Facts;

    /// The operator's settings for the replies of one table; most protocols have none.
    type Rules: Default + Send + Sync + 'static;

    /// Opens a connection, by the rules of its table if its socket picks one; returns the greeting,
    /// which is empty in most protocols.
    fn open(rules: &Self::Rules) -> (Self, Bytes);

    /// Notes the time since the connection was opened, before each step, where the protocol keeps
    /// the time (`FACTS.keeps_time`).
    fn at(&mut self, _age: Duration) {}

    /// Takes the next step from the front of the input.
    ///
    /// The steps are the same however the bytes were split on their way. An incomplete request
    /// stays in the input.
    fn next_step(&mut self, input: &mut BytesMut) -> Step;

    /// Returns the reply to the request with this tag.
    ///
    /// Fails if the protocol cannot express the value. It can express every failure.
    fn reply(
        &mut self,
        tag: Tag,
        outcome: &Outcome,
        rules: &Self::Rules,
    ) -> Result<Reply, Unsayable>;

    /// Puts one row of a list, which comes before the reply to it.
    fn put_row(&self, _row: &Row, _out: &mut BytesMut) {}

    /// Returns the request that `--query` makes of its arguments, or what is wrong with them;
    /// nothing where it reads a request from standard input.
    fn question(name: &[u8], arguments: &[&[u8]]) -> Option<Result<Request, &'static str>> {
        let map = (Self::FACTS.picked_by == PickedBy::Request).then(|| name.to_vec().into());
        let value = arguments.first().copied().unwrap_or_default();
        Some(Ok(Request::of(
            map,
            Self::FACTS.key?,
            value.to_vec().into(),
        )))
    }

    /// Returns the step of `--query` for a key and a secret, where requests have both.
    fn query(_key: &[u8], _secret: &str, _: &Self::Rules) -> Option<Step> {
        None
    }

    /// Returns the part of a reply that `--query` prints.
    fn text(outcome: &Outcome, _: &Self::Rules) -> Option<String> {
        match outcome {
            Outcome::Found(value) => Some(value.clone()),
            _ => None,
        }
    }
}

/// The number that the peer gave a request, for the reply to it; 0 in protocols without numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag(pub u64);

/// What to do next on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is complete; read on.
    NeedMore,
    /// Send these bytes, in order with the replies. They answer no request.
    Send(Bytes),
    /// Ask the backend.
    Ask(Tag, Request),
    /// Reply with this outcome, without a call, and go on.
    Answer(Tag, Outcome),
    /// Reply with this outcome and close: what follows on this connection cannot be trusted.
    Refuse(Outcome),
}

/// A value that the protocol cannot express.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsayable(pub Failure);

/// Returns the reply to an outcome. If the protocol cannot express a value, the outcome becomes a
/// failure, which it can express.
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

/// Returns the outcome that the reply expresses: a failure in place of a value that the protocol
/// cannot express.
pub fn sayable<P: Protocol>(outcome: Outcome, rules: &P::Rules) -> Outcome {
    let (mut protocol, _) = P::open(rules);
    say(&mut protocol, Tag::default(), outcome, rules).0
}
