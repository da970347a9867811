//! The facts of dicts, and of what they can do besides lookups.

use crate::outcome::{Outcome, Reason};
use crate::protocol::facts::{Content, Expansion, Facts, Meaning, Operation, PickedBy};

/// A lookup.
pub(super) static FACTS: Facts = Facts {
    operations: &OPERATIONS,
    ..CALL
};

/// What the calls of all sub-tables have in common with a lookup.
const CALL: Facts = Facts {
    name: "dict",
    client: "Dovecot",
    serves: "dicts",
    query: ("NAME KEY [USER]", "the value of KEY in dict NAME"),
    picked_by: PickedBy::Request,
    unknown: Reason::UnknownDict,
    max_in_flight: 32,
    keeps_time: false,
    // A client of any version gives up after 30 s without a line (dict-client.c).
    max_secs: 25,
    client_waits_secs: 30,
    drain_within: None,
    is_repeatable: true,
    values: &["key", "scope", "user", "dict"],
    secrets: &[],
    constants: &["dict"],
    expansions: &[
        ("/path*", Expansion::Segments("key")),
        ("/user", Expansion::Needed("user")),
    ],
    key: None,
    shown: &["scope", "key", "user"],
    outcomes: Outcome::NAMES,
    is_open: false,
    has_whole_json: false,
    raw_value: None,
    has_actions: false,
    has_cache: false,
    inherits_all: false,
    method: "GET",
    default_query: &[
        ("name", "dict"),
        ("scope", "scope"),
        ("key", "key"),
        ("user", "user"),
    ],
    answers_secrets: true,
    object_value: None,
    empty: Meaning::NotFound,
    status_404: Meaning::NotFound,
    unfit: Meaning::NotFound,
    content: Content::Text,
    has_parts: false,
    addresses: &[],
    counting: None,
    operations: &[],
};

/// A call that changes something. It is never sent twice.
const WRITE: Facts = Facts {
    is_repeatable: false,
    status_404: Meaning::Permanent,
    unfit: Meaning::Permanent,
    content: Content::Written,
    ..CALL
};

static OPERATIONS: [Operation; 5] = [
    Operation {
        name: "iterate",
        call: &Facts {
            content: Content::Rows,
            ..CALL
        },
    },
    Operation {
        name: "set",
        call: &Facts {
            method: "PUT",
            values: &["key", "scope", "user", "dict", "value"],
            raw_value: Some("value"),
            ..WRITE
        },
    },
    Operation {
        name: "unset",
        call: &Facts {
            method: "DELETE",
            // A key that is not there has been removed.
            status_404: Meaning::Done,
            ..WRITE
        },
    },
    Operation {
        name: "increment",
        call: &Facts {
            method: "PATCH",
            values: &["key", "scope", "user", "dict", "value"],
            raw_value: Some("value"),
            status_404: Meaning::NotFound,
            ..WRITE
        },
    },
    Operation {
        name: "commit",
        call: &Facts {
            method: "POST",
            values: &["user", "dict"],
            has_whole_json: true,
            expansions: &[],
            default_query: &[],
            ..WRITE
        },
    },
];
