//! The arithmetic of limits: how much an account has used, and whether a message still fits.
//!
//! `frames` counts the units of one window, and `held` those that are reserved; `decide` judges all
//! limits of one request together, and `memory` keeps what they need in this process. Nothing here waits or does I/O, and the time is
//! an argument. `store` keeps the same states in an engine of its own; `limits.lua` there says the
//! same as `decide` in the language of Redis.

pub mod decide;
pub mod frames;
pub mod held;
pub mod memory;

use std::sync::Arc;
use std::time::Duration;

/// A question about the use of all limits that one request touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose limits they are: the program and the table, as in `policy.outgoing`.
    pub table: Arc<str>,
    /// The message of the request, if it is known.
    pub message: Option<Message>,
    /// The limits, in the order of the configuration.
    pub parts: Vec<Part>,
    /// Whether the answer is charged.
    pub mode: Mode,
}

/// The message that a request is about. It is known for an hour after its last request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Postfix's `instance`: the same in all requests of one message.
    pub id: String,
    /// A digest of the request, where the same request again is a repetition: it charges nothing
    /// and gets the same answer. The same on every host.
    pub repeat: Option<u128>,
}

/// One limit, and what a request needs of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The name of the limit.
    pub limit: Arc<str>,
    /// The account, normalised.
    pub account: String,
    /// The windows, at most four, each with the most units in it.
    pub rates: Vec<Rate>,
    /// What the request needs.
    pub units: Units,
    /// Whether a refused request is charged as well.
    pub charges_refused: bool,
    /// Whether the limit only counts, and refuses nobody.
    pub is_dry_run: bool,
}

/// The most units in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The length of the window, from a minute to 31 days, in whole milliseconds.
    pub window: Duration,
    /// The most units in any such window; absent where there is no limit.
    pub most: Option<u64>,
}

/// The units that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// So many more than the message has.
    Add(u64),
    /// So many for the whole message: what it has been charged already is part of them.
    UpTo(u64),
}

/// What happens to the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All limits are charged if every one of them has room.
    Decide,
    /// Nothing is charged, but the first refusal in a window is noted, so that it is logged once.
    Check,
    /// Nothing changes: it is only asked whether there is room.
    Peek,
    /// Units are reserved under this id, below 2^53, if every limit has room that may refuse; there is
    /// no message. A refusal is not noted: the units that stand in its way may be released.
    Reserve(u64),
    /// The units that were reserved under this id are charged, and so they are if their reservation
    /// is gone. A limit that only counts is judged here.
    Keep(u64),
    /// The units that were reserved under this id are free again.
    Release(u64),
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The result of each part, in the order of the question. Empty for a repetition: its limits
    /// were decided before.
    pub parts: Vec<Result<(), Exceeded>>,
    /// The refusal, if the request is refused: the number of the part that speaks, and why. A limit
    /// with `is_dry_run` refuses nothing.
    pub refusal: Option<(usize, Exceeded)>,
}

/// Why there is no room: of the windows without room, the one that lasts longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The length of the window.
    pub window: Duration,
    /// The most units in it.
    pub most: u64,
    /// The units that are used.
    pub used: u64,
    /// How long it takes until there is room; the whole window if there will never be.
    pub wait: Duration,
    /// Whether this is the first time in this window that the account had no room. It is logged
    /// then.
    pub is_news: bool,
}

/// How much of one window an account has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The name of the limit.
    pub limit: String,
    /// The account.
    pub account: String,
    /// The length of the window.
    pub window: Duration,
    /// The units that are used.
    pub used: u64,
    /// The most units, as of the last decision; absent where there was no limit.
    pub most: Option<u64>,
    /// How long it takes until one more unit fits; zero if it fits now.
    pub free_in: Duration,
}
