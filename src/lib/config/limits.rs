//! Limits: how much an account may use.

use std::time::Duration;

use super::template::Template;

/// One limit of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Its name in logs, metrics and `--limits`.
    pub name: String,
    /// Whose use is counted: the first of these whose placeholders all have a value.
    pub by: Vec<Template>,
    /// The characters that begin an extension, which is cut off the local part of an account.
    pub delimiter: Option<String>,
    /// Each window, and where its number comes from: at most four.
    pub rates: Vec<(Duration, RateSource)>,
    /// The numbers for when the call fails or finds nothing; the same windows need not be in it.
    pub fallback: Option<Vec<(Duration, u64)>>,
    /// What is counted.
    pub count: Count,
    /// Whether what is refused is charged as well.
    pub charges_refused: bool,
    /// Accounts in lower case, or `@domain`, that are not counted.
    pub exempt: Vec<String>,
    /// The action for what does not fit, with the placeholders `{name}`, `{limit}`, `{used}`,
    /// `{window}` and `{wait}`.
    pub on_exceeded: String,
    /// Whether it only counts and logs.
    pub is_dry_run: bool,
}

/// Where the number of a rate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateSource {
    /// The file.
    Fixed(u64),
    /// This JSON Pointer into the answer of the table's target.
    Pointer(String),
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// The recipients of a message.
    Recipients,
    /// Messages.
    Messages,
    /// The bytes of messages.
    Bytes,
    /// Logins that the backend refuses.
    Failures,
}
