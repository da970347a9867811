//! Facts about a protocol, for the modules that must not depend on one.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::outcome::Failure;
use crate::request::Request;

/// The facts of one protocol. Each protocol states its own, and no other code tells protocols
/// apart.
pub struct Facts {
    /// The name of the program, which is also the name of its part of the configuration.
    pub name: &'static str,
    /// The purpose of the program, as the end of "Answers Postfix's …".
    pub serves: &'static str,
    /// The arguments of `--query`, and the end of "ask …" in its help.
    pub query: (&'static str, &'static str),
    /// How the table of a request is picked.
    pub picked_by: PickedBy,
    /// The most requests of one connection that may be in flight at once.
    pub max_in_flight: usize,
    /// Whether a call may be sent twice without harm. A policy's backend may count its calls.
    pub is_repeatable: bool,
    /// The names of the values that a request carries. A placeholder may name each of them.
    pub values: &'static [&'static str],
    /// Values that are the same in every request, so that a call with no others is a mistake.
    pub constants: &'static [&'static str],
    /// The name of the key, which can be normalised and split; absent if requests have none.
    pub key: Option<&'static str>,
    /// The values that the log shows at debug.
    pub shown: &'static [&'static str],
    /// Whether the operator may name further values, and whether `"{*}"` stands for all of them.
    pub is_open: bool,
    /// Whether a reply is an action of access(5), with an action for each failure.
    pub has_actions: bool,
    /// The default method.
    pub method: &'static str,
    /// The placeholders of the default query; where there are none, all values are sent as a form.
    pub default_query: &'static [&'static str],
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
