//! Facts about a protocol, for the modules that must not depend on one.

use std::hash::{Hash, Hasher};

/// The facts of one protocol. Each protocol states its own, and no other code tells protocols
/// apart.
#[derive(Debug)]
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
