//! What a question ended in, whatever the protocol and whatever the backend.

use std::borrow::Cow;
use std::fmt;

/// How one request ended. Once a request is understood there is nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend knows the key, and this is the value: never blank.
    Found(String),
    /// The backend says that there is no such key.
    NotFound,
    /// No answer was to be had; ask again later.
    Temporary(Failure),
    /// Somebody has to mend a setting; asking again does not help.
    Permanent(Failure),
}

impl Outcome {
    /// Returns the word of this outcome in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Found(_) => "found",
            Self::NotFound => "not-found",
            Self::Temporary(_) => "temporary",
            Self::Permanent(_) => "permanent",
        }
    }

    /// Returns what went wrong, where something did.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Found(_) | Self::NotFound => None,
            Self::Temporary(failure) | Self::Permanent(failure) => Some(failure),
        }
    }
}

/// Returns whether Postfix finds no word in a value. It splits the value of an access table at
/// these characters and takes one without a word for "permit" (check_table_result()).
pub fn is_blank(value: &str) -> bool {
    value.trim_matches([' ', '\t', '\r', '\n', ',']).is_empty()
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The text that both Postfix and our log get.
    pub reason: Reason,
    /// More for our log alone; empty where the reason says it all. Holds no key, address or secret.
    pub detail: Cow<'static, str>,
}

impl Failure {
    /// Makes a failure with more to say in the log.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::new(reason, "")
    }
}

/// The fixed texts, without URL, host or key, so that Postfix's log and ours can be laid side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The deadline of the call passed.
    TimedOut,
    /// No connection, or one that broke before an answer.
    Unreachable,
    /// Each target has failed so often that it is skipped.
    Down,
    /// As many calls as allowed were under way until the deadline.
    Busy,
    /// A status that is no answer.
    Answered(u16),
    /// A body that is no answer.
    NotUnderstood,
    /// A body over the size limit.
    AnswerTooLong,
    /// A body in which the backend itself tells of an error.
    ReportedError,
    /// The backend's own credentials could not be had from their server.
    CredentialsUnavailable,
    /// The key does not fit into the request the configuration describes.
    KeyCannotBeSent,
    /// The protocol has no way to say the value.
    ValueCannotBeSent,
    /// The peer's request breaks the protocol's grammar.
    RequestNotUnderstood,
    /// The peer's request is over the size limit.
    RequestTooLong,
    /// No table of that name.
    UnknownMap,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "backend timed out",
            Self::Unreachable => "backend unreachable",
            Self::Down => "backend down",
            Self::Busy => "backend busy",
            Self::Answered(status) => return write!(f, "backend answered {status}"),
            Self::NotUnderstood => "backend answer not understood",
            Self::AnswerTooLong => "backend answer too long",
            Self::ReportedError => "backend reported an error",
            Self::CredentialsUnavailable => "backend credentials unavailable",
            Self::KeyCannotBeSent => "key cannot be sent",
            Self::ValueCannotBeSent => "value cannot be sent",
            Self::RequestNotUnderstood => "request not understood",
            Self::RequestTooLong => "request too long",
            Self::UnknownMap => "unknown map",
        })
    }
}
