//! The outcome of a request, in terms of no protocol and no backend.

use std::borrow::Cow;
use std::fmt;

/// How one request ended. Once a request is understood, there are no errors besides these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend knows the key, and this is the value.
    Found(String),
    /// What was asked for is done, or listed to its end.
    Done,
    /// The backend says that there is no such key.
    NotFound,
    /// The same, with the backend's own words for the user: a login is refused.
    Refused(String),
    /// There is no answer at the moment; ask again later.
    Temporary(Failure),
    /// An operator has to change a setting; asking again does not help.
    Permanent(Failure),
}

impl Outcome {
    /// The names of the outcomes in the log and the metrics, for protocols that have none of their
    /// own.
    pub const NAMES: [&'static str; 5] = ["found", "done", "not-found", "temporary", "permanent"];

    /// Which of the outcomes are failures.
    pub const IS_FAILURE: [bool; 5] = [false, false, false, true, true];

    /// Returns the place of this outcome among the names.
    pub fn number(&self) -> usize {
        match self {
            Self::Found(_) => 0,
            Self::Done => 1,
            Self::NotFound | Self::Refused(_) => 2,
            Self::Temporary(_) => 3,
            Self::Permanent(_) => 4,
        }
    }

    /// Returns the failure, if there is one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Found(_) | Self::Done | Self::NotFound | Self::Refused(_) => None,
            Self::Temporary(failure) | Self::Permanent(failure) => Some(failure),
        }
    }
}

/// Returns whether Postfix finds no word in a value. It splits the value of an access table at
/// these characters and takes one without a word for "permit" (check_table_result()).
pub fn is_blank(value: &str) -> bool {
    value.trim_matches([' ', '\t', '\r', '\n', ',']).is_empty()
}

/// Returns whether a name has nothing that can be seen, such as one of no-break spaces: it would
/// pass for the name of a user, and be that of nobody.
pub fn is_invisible(name: &str) -> bool {
    let is_unseen = |c: char| is_unseen(c) || c.is_whitespace() || c.is_control() || c == ',';
    name.chars().all(is_unseen)
}

/// Returns whether a character has no width, or changes what others look like.
pub fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The text in the reply and in the log.
    pub reason: Reason,
    /// Details for the log alone, or empty. They hold no key, address or secret.
    pub detail: Cow<'static, str>,
    /// What a write has changed all the same.
    pub effect: Effect,
}

/// What a write that failed has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing.
    #[default]
    Nothing,
    /// Some of what it was to change.
    Part,
    /// Some of it, and there is no knowing of the rest.
    PartOrMore,
    /// There is no knowing.
    Unknown,
}

/// One row of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The whole key.
    pub key: Vec<u8>,
    /// Its value; empty where the list is to have none.
    pub value: String,
}

impl Failure {
    /// Makes a failure with details for the log.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            effect: Effect::Nothing,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.detail {
            "" => self.reason.fmt(f),
            detail => write!(f, "{}: {detail}", self.reason),
        }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::new(reason, "")
    }
}

/// The fixed texts of failures, without URL, host or key. Postfix logs them as well, so that an
/// operator can compare both logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The deadline of the call passed.
    TimedOut,
    /// There was no connection, or it broke before an answer.
    Unreachable,
    /// Each target has failed so often that it is skipped.
    Down,
    /// `max-in-flight` calls were in flight until the deadline.
    Busy,
    /// The status means temporary or permanent.
    Answered(u16),
    /// The body cannot be read as an answer.
    NotUnderstood,
    /// The body is over the size limit.
    AnswerTooLong,
    /// The body flags an error.
    ReportedError,
    /// The token server gave no credentials for the backend.
    CredentialsUnavailable,
    /// The key does not fit into the request the configuration describes.
    KeyCannotBeSent,
    /// The protocol cannot express the value.
    ValueCannotBeSent,
    /// The peer's request breaks the protocol's grammar.
    RequestNotUnderstood,
    /// The peer's request is over the size limit.
    RequestTooLong,
    /// There is no table of that name.
    UnknownMap,
    /// There is no table of that name, where the client calls it a dict.
    UnknownDict,
    /// The table cannot change anything, or not in this way.
    ReadOnly,
    /// The table has no lists.
    CannotBeListed,
    /// The key that a write needs is not there, and other parts of the write are done.
    NoSuchKey,
    /// An account has reached a limit.
    LimitReached,
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
            Self::UnknownDict => "unknown dict",
            Self::ReadOnly => "dict is read-only",
            Self::CannotBeListed => "dict cannot be listed",
            Self::NoSuchKey => "no such key",
            Self::LimitReached => "limit reached",
        })
    }
}
