//! Policy delegation (SMTPD_POLICY_README), as smtpd_check.c and attr_scan_plain.c speak it.
//!
//! ```text
//! request:  1*512(name "=" value LF) LF      split at the first "="; nothing is quoted
//! reply:    "action=" action LF LF
//! ```
//!
//! Postfix takes an empty action, and a bare number, for "permit". So a reply holds only an action
//! that `action` accepts.

pub mod action;
pub mod attributes;
pub mod counting;
pub mod rules;

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use crate::outcome::{Failure, Outcome, Reason};
use crate::protocol::facts::{Content, Facts, Meaning, PickedBy};
use crate::protocol::frame::{Line, Lines};
use crate::protocol::grammar::{
    MAX_REQUEST, MAX_SECS, POSTFIX_WAITS_SECS, Protocol, Step, Tag, Unsayable,
};
use crate::reply::Reply;
use crate::request::Request;
use attributes::{ADDRESSES, ATTRIBUTES};
use counting::COUNTING;
use rules::{FallbackAction, PolicyActions};

/// Room for the attributes that Postfix sends, so that the list of them is allocated once.
const USUAL: usize = 32;

/// The most attributes of a request. Each takes memory of its own, so without a limit a client
/// could make a request of short ones take many times its size.
const MAX_ATTRIBUTES: usize = 512;

/// The server's side of policy delegation.
///
/// A request stays in the input until it is complete. An attribute that was cut off earlier would
/// keep the whole buffer alive into which it was read.
#[derive(Debug, Default)]
pub struct Policy {
    lines: Lines,
    /// The attributes of the request so far.
    found: Vec<Found>,
}

/// Where an attribute is in the input.
#[derive(Debug)]
struct Found {
    start: usize,
    /// The place of its "=".
    equals: usize,
    end: usize,
}

impl Protocol for Policy {
    const FACTS: &'static Facts = &Facts {
        name: "policy",
        client: "Postfix",
        serves: "policy delegation (SMTPD_POLICY_README)",
        query: (
            "NAME",
            "table NAME, with name=value lines from standard input",
        ),
        picked_by: PickedBy::Socket,
        unknown: Reason::UnknownMap,
        max_in_flight: 1,
        max_secs: MAX_SECS,
        client_waits_secs: POSTFIX_WAITS_SECS,
        keeps_time: false,
        drain_within: None,
        is_repeatable: false,
        values: &ATTRIBUTES,
        secrets: &[],
        constants: &["request"],
        expansions: &[],
        key: None,
        shown: &["protocol_state", "client_address", "sender", "recipient"],
        outcomes: Outcome::NAMES,
        is_open: true,
        has_whole_json: false,
        raw_value: None,
        has_actions: true,
        has_cache: true,
        inherits_all: true,
        method: "POST",
        default_query: &[],
        answers_secrets: false,
        object_value: Some("/action"),
        empty: Meaning::Temporary,
        status_404: Meaning::Permanent,
        unfit: Meaning::Temporary,
        content: Content::Value,
        has_parts: true,
        addresses: &ADDRESSES,
        counting: Some(&COUNTING),
        operations: &[],
    };

    type Rules = PolicyActions;

    fn open(_: &PolicyActions) -> (Self, Bytes) {
        (Self::default(), Bytes::new())
    }

    fn next_step(&mut self, input: &mut BytesMut) -> Step {
        loop {
            let line = match self.lines.find(input, MAX_REQUEST) {
                Line::NeedMore => return Step::NeedMore,
                Line::At(line) => line,
                Line::TooLong => return refuse(Reason::RequestTooLong),
            };
            if line.is_empty() {
                return self.request(input, line.end);
            }
            let bytes = input.get(line.clone()).unwrap_or_default();
            let equals = match memchr(b'=', bytes) {
                None | Some(0) => return refuse(Reason::RequestNotUnderstood),
                Some(at) => line.start.saturating_add(at),
            };
            if self.found.len() >= MAX_ATTRIBUTES {
                let failure = Failure::new(Reason::RequestTooLong, "more than 512 attributes");
                return refuse(failure);
            }
            if self.found.is_empty() {
                self.found.reserve(USUAL);
            }
            self.found.push(Found {
                start: line.start,
                equals,
                end: line.end,
            });
        }
    }

    fn reply(
        &mut self,
        _: Tag,
        outcome: &Outcome,
        actions: &PolicyActions,
    ) -> Result<Reply, Unsayable> {
        Ok(match action(outcome, actions)? {
            Some(action) => say(action),
            None => Reply::Close,
        })
    }

    /// Returns the action for any outcome: failures have one as well.
    fn text(outcome: &Outcome, actions: &PolicyActions) -> Option<String> {
        let action = action(outcome, actions).ok().flatten();
        action.map(str::to_owned)
    }
}

/// Returns the action for an outcome, or nothing where the reply is to close.
fn action<'o>(
    outcome: &'o Outcome,
    actions: &'o PolicyActions,
) -> Result<Option<&'o str>, Unsayable> {
    match (outcome, actions.fallback(outcome)) {
        (Outcome::Done, _) => Err(Unsayable(Reason::ValueCannotBeSent.into())),
        (Outcome::Found(value), _) => action::from_backend(value, actions).map(Some),
        (_, Some(FallbackAction::Action(action))) => Ok(Some(action)),
        (_, Some(FallbackAction::Disconnect) | None) => Ok(None),
    }
}

impl Policy {
    /// Makes a request from the lines before the empty line at `end`.
    fn request(&mut self, input: &mut BytesMut, end: usize) -> Step {
        let block = self.lines.cut(input, end).freeze();
        let attributes = std::mem::take(&mut self.found).into_iter().map(|found| {
            let name = block.slice(found.start..found.equals);
            let value = block.slice(found.equals.saturating_add(1)..found.end);
            (name, value)
        });
        let request = Request {
            values: attributes.collect(),
            ..Request::default()
        };
        let is_foreign = request
            .value("request")
            .is_some_and(|kind| kind != b"smtpd_access_policy");
        if request.values.is_empty() || is_foreign {
            return refuse(Reason::RequestNotUnderstood);
        }
        Step::Ask(Tag::default(), request)
    }
}

fn refuse(failure: impl Into<Failure>) -> Step {
    Step::Refuse(Outcome::Temporary(failure.into()))
}

fn say(action: &str) -> Reply {
    Reply::Send(Bytes::from(["action=", action, "\n\n"].concat()))
}
