//! What the rest of a program has to know of a protocol, as data.

use std::hash::{Hash, Hasher};

/// The facts of one protocol. Each protocol states its own, and nothing else tells protocols apart.
#[derive(Debug)]
pub struct Facts {
    /// The name of the program, which is also the name of its part of the configuration.
    pub name: &'static str,
    /// What the program serves, after "Answers Postfix's".
    pub serves: &'static str,
    /// What `--query` takes, and what it asks for.
    pub query: (&'static str, &'static str),
    /// What picks the table of a request.
    pub picked_by: PickedBy,
    /// The most requests of one connection that may be in flight at once.
    pub max_in_flight: usize,
    /// Whether a call may be sent twice without harm: a lookup may, a policy may count its calls.
    pub is_repeatable: bool,
    /// The values that a request carries under fixed names; a placeholder may name each of them.
    pub values: &'static [&'static str],
    /// Values that are the same in every request, so that a call needs others as well.
    pub constants: &'static [&'static str],
    /// The value that a lookup is about, which can be normalised and split.
    pub key: Option<&'static str>,
    /// The values that a line of the log at debug shows.
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
    /// What a request means that cannot be put the way the configuration describes.
    pub unfit: Meaning,
}

/// What picks the table of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickedBy {
    /// The name in the request; the table `*` takes every other name.
    Request,
    /// The name of the socket.
    Socket,
}

/// What something means that is no value.
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
