//! Facts about a protocol, for the modules that must not depend on one.

use core::time::Duration;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::outcome::{Failure, Reason};
use crate::request::Request;

/// The facts of one protocol. Each protocol states its own, and no other code tells protocols
/// apart.
pub struct Facts {
    /// The name of the program, which is also the name of its part of the configuration.
    pub name: &'static str,
    /// The program that asks.
    pub client: &'static str,
    /// What it asks for.
    pub serves: &'static str,
    /// The arguments of `--query`, and the end of "ask …" in its help. Those in brackets may be
    /// left out.
    pub query: (&'static str, &'static str),
    /// How the table of a request is picked.
    pub picked_by: PickedBy,
    /// The failure of a request for a table that there is not.
    pub unknown: Reason,
    /// The most requests of one connection that may be in flight at once.
    pub max_in_flight: usize,
    /// Whether the protocol has to know the time, because it forgets what its peer abandons.
    pub keeps_time: bool,
    /// The most seconds that a request may take, with all its calls: less than the client waits.
    pub max_secs: u64,
    /// After how many seconds the client gives up.
    pub client_waits_secs: u64,
    /// How long a stop waits for answers at most, where clients need the next program soon.
    pub drain_within: Option<Duration>,
    /// Whether a call may be sent twice without harm. A policy's backend may count its calls.
    pub is_repeatable: bool,
    /// The names of the values that a request carries. A placeholder may name each of them.
    pub values: &'static [&'static str],
    /// The names of the secrets that a request may carry, one at a time. A placeholder may name each
    /// of them, but not in a URL.
    pub secrets: &'static [&'static str],
    /// Values that are the same in every request, so that a call with no others is a mistake.
    pub constants: &'static [&'static str],
    /// Placeholders in the path of a target that stand for whole segments, with their slashes.
    pub expansions: &'static [(&'static str, Expansion)],
    /// The name of the key, which can be normalised and split; absent if requests have none.
    pub key: Option<&'static str>,
    /// The values that the log shows at debug.
    pub shown: &'static [&'static str],
    /// The names of the outcomes in the log and the metrics, in the order of `Outcome::NAMES`.
    pub outcomes: [&'static str; 5],
    /// Whether the operator may name further values, and whether `"{*}"` stands for all of them.
    pub is_open: bool,
    /// Whether `"{*}"` in JSON stands for all that a request holds, which is the default body.
    pub has_whole_json: bool,
    /// The value that can be a body by itself.
    pub raw_value: Option<&'static str>,
    /// Whether a reply is an action of access(5), with an action for each failure.
    pub has_actions: bool,
    /// Whether answers can be cached.
    pub has_cache: bool,
    /// Whether a table inherits everything from `[http]`, or only what says nothing of requests and
    /// answers: credentials, transport and times.
    pub inherits_all: bool,
    /// The default method.
    pub method: &'static str,
    /// The default query: names of parameters, and the placeholder of each. Where it is empty, all
    /// values are sent as a form.
    pub default_query: &'static [(&'static str, &'static str)],
    /// Whether answers may be passwords, so that nothing shows them.
    pub answers_secrets: bool,
    /// Where an answer that is an object holds the value by default.
    pub object_value: Option<&'static str>,
    /// What a 200 with an empty value means.
    pub empty: Meaning,
    /// What a 404 means.
    pub status_404: Meaning,
    /// The outcome of a request that does not fit into the configured call.
    pub unfit: Meaning,
    /// What an answer is read for.
    pub content: Content,
    /// Whether a placeholder may name a part of a value, as `{sender.domain}`.
    pub has_parts: bool,
    /// The values that are IP addresses, which have a network as a part.
    pub addresses: &'static [&'static str],
    /// How requests are counted; absent where tables have no limits.
    pub counting: Option<&'static Counting>,
    /// What a table can do besides lookups.
    pub operations: &'static [Operation],
}

/// What a table can do besides lookups, if it has a sub-table of this name.
#[derive(Debug)]
pub struct Operation {
    /// The name of the sub-table.
    pub name: &'static str,
    /// The facts of its calls.
    pub call: &'static Facts,
}

/// The segments of a path that a placeholder stands for (RFC 6570, section 3.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expansion {
    /// Each segment of this value.
    Segments(&'static str),
    /// This value as one segment if the request needs it, and nothing otherwise.
    Needed(&'static str),
}

/// What an answer is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A value, or a list of values that are joined to one.
    Value,
    /// The text of a JSON string, or any other JSON as it is written. Only `null` is no value.
    Text,
    /// JSON as it is written, for the numbers in it. What is empty is no value.
    Document,
    /// JSON as it is written, for the rows of a list. Only `null` is none.
    Rows,
    /// Nothing: it shows whether a write is done.
    Written,
    /// The user of a login, or its refusal.
    Login,
}

impl Facts {
    /// Returns whether a request is a login.
    pub fn has_logins(&self) -> bool {
        self.content == Content::Login
    }
}

/// How the requests of a protocol are counted.
#[derive(Debug)]
pub struct Counting {
    /// What a limit can count, by the words of the configuration. The first is the default.
    pub counts: &'static [(&'static str, Count)],
    /// Returns what a request needs of a limit, or nothing where it is not counted. Fails if the
    /// request does not say how much.
    pub needs: fn(&Request, Count) -> Result<Option<Needs>, Failure>,
    /// Returns the message that a request is about, if it is known.
    pub message: for<'r> fn(&'r Request) -> Option<Message<'r>>,
    /// The answer to a request that has room.
    pub passed: &'static str,
    /// The facts of the call for the numbers of an account; absent where all numbers are in the
    /// configuration.
    pub call: Option<&'static Facts>,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// The recipients of messages.
    Recipients,
    /// Messages.
    Messages,
    /// The bytes of messages.
    Bytes,
    /// Logins that the backend refuses.
    Failures,
}

/// The units that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// So many more than the message has.
    More(u64),
    /// So many for the whole message.
    InAll(u64),
}

/// The message that a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'r> {
    /// What all requests about the message have in common.
    pub id: &'r [u8],
    /// A digest of a request that counts once, however often it is repeated. The same on every host
    /// and in every version.
    pub repeat: Option<u128>,
}

/// How the table of a request is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickedBy {
    /// By the name in the request; the table `*` takes every other name.
    Request,
    /// By the name of the socket.
    Socket,
}

/// The meaning of an answer without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// There is no such key.
    NotFound,
    /// What was asked for is done.
    Done,
    /// Ask again later.
    Temporary,
    /// An operator has to change a setting.
    Permanent,
}

/// The name alone: facts may lead back to themselves.
impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Facts").field(&self.name).finish()
    }
}

/// Two protocols are the same if they have one name.
impl PartialEq for Facts {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Facts {}

impl Hash for Facts {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}
