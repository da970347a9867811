//! tcp_table(5), as dict_tcp.c speaks it.
//!
//! ```text
//! request:  get SPACE key LF                  key: %XX for bytes that do not print
//! reply:    200 SPACE value LF                found
//!           500 SPACE text LF                 not found
//!           400 SPACE text LF                 try again later; Postfix closes
//! ```
//!
//! A reply has at most 4,096 bytes as sent, line feed included. After a longer one Postfix closes
//! the connection and asks again, up to ten times. There is no code for a permanent failure.

use bytes::{Bytes, BytesMut};

use super::facts::{Content, Facts, Meaning, PickedBy};
use super::frame::{Frame, Lines};
use super::grammar::{MAX_REQUEST, MAX_SECS, POSTFIX_WAITS_SECS, Protocol, Step, Tag, Unsayable};
use super::quote::{quote, unquote};
use crate::outcome::{Outcome, Reason};
use crate::reply::Reply;
use crate::request::Request;

/// Postfix's limit of a reply line (`DICT_TCP_MAXLEN`, dict_tcp.c).
const MAX_REPLY: usize = 4_096;

/// The server's side of tcp_table(5).
#[derive(Debug, Default)]
pub struct TcpLookup {
    lines: Lines,
}

impl Protocol for TcpLookup {
    const FACTS: &'static Facts = &Facts {
        name: "tcp-lookup",
        client: "Postfix",
        serves: "tcp_table(5) lookups",
        query: ("NAME KEY", "the value of KEY in table NAME"),
        picked_by: PickedBy::Socket,
        unknown: Reason::UnknownMap,
        max_in_flight: 1,
        max_secs: MAX_SECS,
        client_waits_secs: POSTFIX_WAITS_SECS,
        keeps_time: false,
        drain_within: None,
        is_repeatable: true,
        values: &["key"],
        secrets: &[],
        constants: &[],
        expansions: &[],
        key: Some("key"),
        shown: &["key"],
        outcomes: Outcome::NAMES,
        is_open: false,
        has_whole_json: false,
        raw_value: None,
        has_actions: false,
        has_cache: true,
        inherits_all: true,
        method: "GET",
        default_query: &[("key", "key")],
        answers_secrets: false,
        object_value: None,
        empty: Meaning::NotFound,
        status_404: Meaning::NotFound,
        unfit: Meaning::NotFound,
        content: Content::Value,
        has_parts: false,
        addresses: &[],
        counting: None,
        operations: &[],
    };

    type Rules = ();

    fn open((): &()) -> (Self, Bytes) {
        (Self::default(), Bytes::new())
    }

    fn next_step(&mut self, input: &mut BytesMut) -> Step {
        let line = match self.lines.take(input, MAX_REQUEST) {
            Frame::NeedMore => return Step::NeedMore,
            Frame::Whole(line) => line,
            Frame::TooLong => return refuse(Reason::RequestTooLong),
            Frame::Malformed => return refuse(Reason::RequestNotUnderstood),
        };
        match line.strip_prefix(b"get ").and_then(unquote) {
            Some(key) => Step::Ask(Tag::default(), Request::of(None, "key", key)),
            None => refuse(Reason::RequestNotUnderstood),
        }
    }

    fn reply(&mut self, _: Tag, outcome: &Outcome, (): &()) -> Result<Reply, Unsayable> {
        match outcome {
            // Postfix unquotes the value into a C string, so a NUL would cut it short.
            Outcome::Found(value) if value.contains('\0') => {
                Err(Unsayable(Reason::ValueCannotBeSent.into()))
            }
            Outcome::Found(value) => line("200", value),
            Outcome::Done => Err(Unsayable(Reason::ValueCannotBeSent.into())),
            Outcome::NotFound | Outcome::Refused(_) => line("500", "not found"),
            Outcome::Temporary(failure) | Outcome::Permanent(failure) => {
                line("400", &failure.reason.to_string())
            }
        }
    }
}

fn refuse(reason: Reason) -> Step {
    Step::Refuse(Outcome::Temporary(reason.into()))
}

fn line(code: &str, text: &str) -> Result<Reply, Unsayable> {
    let mut line = String::with_capacity(text.len().saturating_add(code.len()).saturating_add(2));
    line.push_str(code);
    line.push(' ');
    quote(text, &mut line);
    line.push('\n');
    if line.len() > MAX_REPLY {
        return Err(Unsayable(Reason::ValueCannotBeSent.into()));
    }
    Ok(Reply::Send(Bytes::from(line)))
}
