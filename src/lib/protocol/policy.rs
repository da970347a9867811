//! Policy delegation (SMTPD_POLICY_README), as smtpd_check.c and attr_scan_plain.c speak it.
//!
//! ```text
//! request:  1*(name "=" value LF) LF         split at the first "="; nothing is quoted
//! reply:    "action=" action LF LF
//! ```
//!
//! Postfix takes an empty action, and a bare number, for "permit". So an action is said only if it
//! is one this module's neighbour `action` knows, and never an empty one.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use super::action;
use super::frame::{Frame, Lines};
use super::{MAX_REQUEST, Protocol, Step, Unsayable};
use crate::outcome::{Outcome, Reason};
use crate::reply::{Reply, Said, Words};
use crate::request::{Attributes, Request};

/// As many attributes as Postfix 3.8 sends, or a few more.
const USUAL: usize = 32;

/// The server's side of policy delegation.
#[derive(Debug, Default)]
pub struct Policy {
    lines: Lines,
    /// What has come of the request so far, and its bytes.
    attributes: Attributes,
    size: usize,
}

impl Protocol for Policy {
    fn next_step(&mut self, input: &mut BytesMut) -> Step {
        loop {
            let room = MAX_REQUEST.saturating_sub(self.size);
            let line = match self.lines.take(input, room) {
                Frame::NeedMore => return Step::NeedMore,
                Frame::Whole(line) => line,
                Frame::TooLong => return refuse(Reason::RequestTooLong),
                Frame::Malformed => return refuse(Reason::RequestNotUnderstood),
            };
            self.size = self.size.saturating_add(line.len()).saturating_add(1);
            if line.is_empty() {
                return self.question();
            }
            match memchr(b'=', &line) {
                None | Some(0) => return refuse(Reason::RequestNotUnderstood),
                Some(equals) => {
                    let attributes = &mut self.attributes.0;
                    if attributes.is_empty() {
                        attributes.reserve(USUAL);
                    }
                    attributes.push((line.slice(..equals), line.slice(equals.saturating_add(1)..)));
                }
            }
        }
    }

    fn is_inside_request(&self) -> bool {
        self.size > 0
    }

    fn reply(outcome: &Outcome, words: &Words) -> Result<Reply, Unsayable> {
        let said = match outcome {
            Outcome::Found(value) => return action::from_backend(value, words).map(say),
            Outcome::NotFound => &words.on_not_found,
            Outcome::Temporary(_) => &words.on_temporary,
            Outcome::Permanent(_) => &words.on_permanent,
        };
        Ok(match said {
            Said::Action(action) => say(action),
            Said::Disconnect => Reply::HangUp,
        })
    }
}

impl Policy {
    fn question(&mut self) -> Step {
        self.size = 0;
        let attributes = std::mem::take(&mut self.attributes);
        let is_foreign = attributes
            .value("request")
            .is_some_and(|request| request != b"smtpd_access_policy");
        if attributes.0.is_empty() || is_foreign {
            return refuse(Reason::RequestNotUnderstood);
        }
        Step::Ask(Request::Policy(attributes))
    }
}

fn refuse(reason: Reason) -> Step {
    Step::Refuse(Outcome::Temporary(reason.into()))
}

fn say(action: &str) -> Reply {
    Reply::Say(Bytes::from(["action=", action, "\n\n"].concat()))
}
