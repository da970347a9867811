//! socketmap_table(5), as dict_sockmap.c and netstring.c speak it.
//!
//! ```text
//! both ways:  length ":" payload ","         a netstring; nothing is quoted
//! request:    name SPACE key                 split at the first blank
//! reply:      OK SPACE value                 found
//!             NOTFOUND SPACE                 not found
//!             TEMP SPACE reason              try again later
//!             TIMEOUT SPACE reason           try again later: no answer in time
//!             PERM SPACE reason              try again later: a setting is wrong
//! ```
//!
//! The payload of a reply has at most 100,000 bytes. After a longer one Postfix loses its place in
//! the stream, so that the replies after it are lost as well.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr2};

use super::facts::{Content, Facts, Meaning, PickedBy};
use super::frame::{Frame, put_netstring, take_netstring};
use super::grammar::{MAX_REQUEST, MAX_SECS, POSTFIX_WAITS_SECS, Protocol, Step, Tag, Unsayable};
use crate::outcome::{Outcome, Reason};
use crate::reply::Reply;
use crate::request::Request;

/// Postfix's limit of a reply's payload (`socketmap_max_reply_size`; fixed before 3.10).
const MAX_REPLY: usize = 100_000;

/// The server's side of socketmap_table(5).
#[derive(Debug, Default)]
pub struct Socketmap;

impl Protocol for Socketmap {
    const FACTS: &'static Facts = &Facts {
        name: "socketmap",
        client: "Postfix",
        serves: "socketmap_table(5) lookups",
        query: ("NAME KEY", "the value of KEY in map NAME"),
        picked_by: PickedBy::Request,
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
        default_query: &[("name", "name"), ("key", "key")],
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
        (Self, Bytes::new())
    }

    fn next_step(&mut self, input: &mut BytesMut) -> Step {
        match take_netstring(input, MAX_REQUEST) {
            Frame::NeedMore => Step::NeedMore,
            Frame::Whole(payload) => request(&payload),
            Frame::TooLong => Step::Refuse(permanent(Reason::RequestTooLong)),
            Frame::Malformed => Step::Refuse(permanent(Reason::RequestNotUnderstood)),
        }
    }

    fn reply(&mut self, _: Tag, outcome: &Outcome, (): &()) -> Result<Reply, Unsayable> {
        let (status, text) = match outcome {
            Outcome::Found(value) if memchr2(b'\0', b'\n', value.as_bytes()).is_some() => {
                return Err(Unsayable(Reason::ValueCannotBeSent.into()));
            }
            Outcome::Done => return Err(Unsayable(Reason::ValueCannotBeSent.into())),
            Outcome::Found(value) => ("OK", Cow::Borrowed(value.as_str())),
            Outcome::NotFound | Outcome::Refused(_) => ("NOTFOUND", Cow::Borrowed("")),
            Outcome::Temporary(failure) => {
                let status = match failure.reason {
                    Reason::TimedOut => "TIMEOUT",
                    _ => "TEMP",
                };
                (status, Cow::Owned(failure.reason.to_string()))
            }
            Outcome::Permanent(failure) => ("PERM", Cow::Owned(failure.reason.to_string())),
        };
        let payload = [status.as_bytes(), b" ", text.as_bytes()];
        if payload.iter().map(|part| part.len()).sum::<usize>() > MAX_REPLY {
            return Err(Unsayable(Reason::ValueCannotBeSent.into()));
        }
        Ok(Reply::Send(put_netstring(&payload)))
    }
}

fn request(payload: &Bytes) -> Step {
    let Some(blank) = memchr(b' ', payload) else {
        return Step::Answer(Tag::default(), permanent(Reason::RequestNotUnderstood));
    };
    let map = payload.slice(..blank);
    let key = payload.slice(blank.saturating_add(1)..);
    Step::Ask(Tag::default(), Request::of(Some(map), "key", key))
}

fn permanent(reason: Reason) -> Outcome {
    Outcome::Permanent(reason.into())
}
