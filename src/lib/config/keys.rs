//! Every key of the file, once.
//!
//! A section of the file accepts the keys of its list only, and each of them has to be read. `show`
//! writes them in this order, and the quoted line of a syntax error shows no other words.

use std::collections::BTreeSet;

use crate::protocol;
use crate::protocol::Facts;
use crate::protocol::facts::{Content, PickedBy};

/// A key of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    owner: Owner,
    /// Whether it says nothing of requests and answers, so that every table inherits it.
    pub(super) is_general: bool,
    /// The keys inside, where the value is a table with keys of its own.
    pub(super) members: &'static [Self],
}

/// The kind of a table, which decides what keys it has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Kind {
    /// `[http]`, which is for all tables, or no table.
    #[default]
    Defaults,
    /// A table whose calls have these facts.
    Asking(&'static Facts),
    /// A table that counts, and makes no calls.
    Counting(&'static Facts),
}

/// Which tables have a key.
#[derive(Clone, Copy, Debug)]
enum Owner {
    /// Every table that makes calls, and `[http]` for all of them.
    All,
    /// Every table, but not `[http]`: each table has a value of its own.
    Single,
    /// The tables that a socket picks, and not `[http]`.
    PickedBySocket,
    /// The tables whose requests have a key.
    Keyed,
    /// The tables that answer with an action.
    Actions,
    /// The tables whose calls can carry all that a request has.
    Open,
    /// The tables whose answers can be something else than JSON.
    Formats,
    /// The tables whose answers are values.
    Values,
    /// The tables whose requests can be counted.
    Counted,
    /// The tables whose answers can be cached.
    Cached,
    /// The tables that can do this besides lookups, and not `[http]`.
    Operation,
    /// The calls that can send a value by itself.
    Raw,
    /// The calls for lists.
    Listed,
    /// The tables that answer lookups.
    Lookups,
    /// The tables of logins, and not `[http]`.
    Logins,
    /// All others.
    NotLogins,
}

/// The tables of the file.
pub(super) const FILE: &[Key] = &{
    const SETTINGS: [Key; 4] = [
        key("http").with(ENDPOINT),
        key("server").with(SERVER),
        key("log").with(LOG),
        key("store").with(STORE),
    ];
    let mut keys = [SETTINGS[0]; SETTINGS.len() + protocol::ALL.len()];
    let mut at = 0;
    while at < keys.len() {
        keys[at] = if at < SETTINGS.len() {
            SETTINGS[at]
        } else {
            key(protocol::ALL[at - SETTINGS.len()].name)
        };
        at += 1;
    }
    keys
};

/// The keys of `[server]`.
pub(super) const SERVER: &[Key] = &[
    key("max-connections"),
    key("read-timeout"),
    key("idle-timeout"),
    key("drain-timeout"),
];

/// The keys of `[log]`.
pub(super) const LOG: &[Key] = &[key("level")];

/// The keys of `[store]`.
pub(super) const STORE: &[Key] = &[
    key("path"),
    key("redis").with(SECRET),
    key("prefix"),
    key("timeout"),
];

/// The keys of an endpoint.
pub(super) const ENDPOINT: &[Key] = &[
    // The request.
    key("target").of(Owner::Single),
    key("socket").of(Owner::PickedBySocket),
    key("method"),
    key("query"),
    key("form"),
    key("json"),
    key("extra-attributes").of(Owner::Actions),
    key("headers").general(),
    key("user-agent").general(),
    key("auth-token").with(SECRET).general(),
    key("bearer-token").with(SECRET).general(),
    key("basic-auth").with(BASIC_AUTH).general(),
    key("oauth2").with(OAUTH2).general(),
    key("normalise").with(NORMALISE).of(Owner::Keyed),
    key("special-keys").of(Owner::Lookups),
    key("mechanisms").of(Owner::Logins),
    // The answer.
    key("accepted").with(SIGN).of(Owner::Logins),
    key("user").with(PLACE).of(Owner::Logins),
    key("reason").with(PLACE).of(Owner::Logins),
    key("response").of(Owner::Formats),
    key("value").of(Owner::NotLogins),
    key("missing").of(Owner::NotLogins),
    key("error").with(PLACE),
    key("no-error"),
    key("list-separator").of(Owner::Values),
    key("true-value").of(Owner::Values),
    key("require-header"),
    key("status"),
    key("on-not-found").of(Owner::Actions),
    key("on-temporary").of(Owner::Actions),
    key("on-permanent").of(Owner::Actions),
    key("permit-actions").of(Owner::Open),
    key("restriction-classes").of(Owner::Actions),
    key("failure-delay").of(Owner::Logins),
    key("limits").with(LIMIT).of(Owner::Counted),
    // Time and transport.
    key("request-timeout").general(),
    key("connect-timeout").general(),
    key("retries").general(),
    key("pool-idle").general(),
    key("max-response").general(),
    key("max-in-flight").general(),
    key("tls").with(TLS).general(),
    key("http-version").general(),
    key("proxy").general(),
    key("redirects").general(),
    key("compression").general(),
    key("unix-socket").general(),
    key("cache").with(CACHE).of(Owner::Cached),
    key("breaker").with(BREAKER).general(),
    // What else a table can do.
    key("iterate").with(OPERATION).of(Owner::Operation),
    key("set").with(OPERATION).of(Owner::Operation),
    key("unset").with(OPERATION).of(Owner::Operation),
    key("increment").with(OPERATION).of(Owner::Operation),
    key("commit").with(OPERATION).of(Owner::Operation),
];

/// The keys of what a table can do besides lookups: those of a request.
pub(super) const OPERATION: &[Key] = &[
    key("target"),
    key("method"),
    key("query"),
    key("form"),
    key("json"),
    key("body").of(Owner::Raw),
    key("headers"),
    key("value").of(Owner::Listed),
];

/// The keys of a limit.
pub(super) const LIMIT: &[Key] = &[
    key("name"),
    key("by"),
    key("delimiter"),
    key("rates"),
    key("fallback").of(Owner::Actions),
    key("count"),
    key("refused").of(Owner::Actions),
    key("exempt"),
    key("on-exceeded").of(Owner::Actions),
    key("dry-run"),
];

/// The keys of a secret: where it is kept.
pub(super) const SECRET: &[Key] = &[key("credential"), key("file"), key("env")];

/// The keys of a place in an answer that is no JSON Pointer.
pub(super) const PLACE: &[Key] = &[key("header")];

/// The keys of what an answer has to have, if that is no JSON Pointer.
pub(super) const SIGN: &[Key] = &[key("header"), key("is")];

pub(super) const BASIC_AUTH: &[Key] = &[key("user").with(SECRET), key("password").with(SECRET)];

pub(super) const OAUTH2: &[Key] = &[
    key("token-url"),
    key("issuer"),
    key("client-id"),
    key("client-secret").with(SECRET),
    key("private-key").with(SECRET),
    key("auth-method"),
    key("scope"),
    key("parameters"),
    key("tls").with(TLS),
];

pub(super) const NORMALISE: &[Key] = &[key("lowercase"), key("delimiter"), key("pattern")];

pub(super) const TLS: &[Key] = &[
    key("ca"),
    key("client-cert"),
    key("client-key").with(SECRET),
    key("min-version"),
    key("verify"),
];

pub(super) const CACHE: &[Key] = &[
    key("ttl"),
    key("negative-ttl").of(Owner::NotLogins),
    key("stale-if-error").of(Owner::NotLogins),
    key("refresh-ahead").of(Owner::NotLogins),
    key("honour-http").of(Owner::NotLogins),
    key("max-entries"),
    key("max-bytes"),
    key("shared").of(Owner::NotLogins),
    key("by").of(Owner::Open),
];

pub(super) const BREAKER: &[Key] = &[key("failures"), key("pause")];

const fn key(name: &'static str) -> Key {
    Key {
        name,
        owner: Owner::All,
        is_general: false,
        members: &[],
    }
}

impl Key {
    const fn with(self, members: &'static [Self]) -> Self {
        Self { members, ..self }
    }

    const fn of(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }

    const fn general(self) -> Self {
        Self {
            is_general: true,
            ..self
        }
    }

    /// Returns whether tables of a kind have this key.
    pub(super) fn is_of(&self, kind: Kind) -> bool {
        let (facts, makes_calls) = match kind {
            Kind::Defaults => {
                let is_own = matches!(
                    self.owner,
                    Owner::Single
                        | Owner::PickedBySocket
                        | Owner::Counted
                        | Owner::Operation
                        | Owner::Logins
                );
                return !is_own;
            }
            Kind::Asking(facts) => (facts, true),
            Kind::Counting(facts) => (facts, false),
        };
        match self.owner {
            Owner::All | Owner::Single => makes_calls,
            Owner::PickedBySocket => facts.picked_by == PickedBy::Socket,
            Owner::Keyed => makes_calls && facts.key.is_some(),
            Owner::Actions => facts.has_actions,
            Owner::Open => makes_calls && facts.is_open,
            Owner::Formats => {
                makes_calls && ![Content::Document, Content::Login].contains(&facts.content)
            }
            Owner::Cached => makes_calls && facts.has_cache,
            Owner::Operation => facts.operations.iter().any(|one| one.name == self.name),
            Owner::Raw => facts.raw_value.is_some(),
            Owner::Listed => facts.content == Content::Rows,
            Owner::Values => makes_calls && facts.content == Content::Value,
            Owner::Counted => facts.counting.is_some(),
            Owner::Lookups => makes_calls && facts.key.is_some() && !facts.has_logins(),
            Owner::Logins => facts.has_logins(),
            Owner::NotLogins => makes_calls && !facts.has_logins(),
        }
    }

    /// Returns the message for this key in a table that does not have it.
    pub(super) fn refusal(&self, kind: Kind) -> String {
        let facts = match kind {
            Kind::Defaults => return "cannot be inherited; write it in each table".to_owned(),
            Kind::Counting(_) => {
                return "is for calls, and this table makes none, since no rate of its limits is a \
                        JSON Pointer; remove it here"
                    .to_owned();
            }
            Kind::Asking(facts) => facts,
        };
        if matches!(self.owner, Owner::Raw | Owner::Listed) {
            return "this call does not have this key; remove it here".to_owned();
        }
        let owners = protocol::ALL
            .iter()
            .filter(|facts| self.is_of(Kind::Asking(facts)));
        let names: Vec<_> = owners.map(|facts| facts.name).collect();
        // The tables of a protocol have it, but not those whose calls have other facts.
        if names.contains(&facts.name) {
            return "a table with limits does not have this key; remove it here".to_owned();
        }
        let names = match names.as_slice() {
            [others @ .., last] if !others.is_empty() => {
                format!("{} and {last}", others.join(", "))
            }
            names => names.concat(),
        };
        format!("only {names} tables have this key; remove it here")
    }
}

/// Returns the name of every key of the file.
pub fn key_names() -> BTreeSet<&'static str> {
    fn add(keys: &[Key], names: &mut BTreeSet<&'static str>) {
        for key in keys {
            names.insert(key.name);
            add(key.members, names);
        }
    }
    let mut names = BTreeSet::new();
    add(FILE, &mut names);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_lists_a_key_twice() {
        fn check(keys: &[Key]) {
            let names: BTreeSet<_> = keys.iter().map(|key| key.name).collect();
            assert_eq!(names.len(), keys.len(), "{names:?}");
            keys.iter().for_each(|key| check(key.members));
        }
        check(FILE);
    }

    #[test]
    fn a_key_of_other_tables_names_those_that_have_it() {
        let refusal = |name: &str, kind| {
            let key = ENDPOINT.iter().find(|key| key.name == name);
            key.filter(|key| !key.is_of(kind))
                .map(|key| key.refusal(kind))
        };
        let [tcp_lookup, socketmap, policy, dict, sasl] = protocol::ALL.map(Kind::Asking);
        let numbers = protocol::ALL[2].counting.and_then(|counting| counting.call);
        let numbers = Kind::Asking(numbers.expect("a call"));
        let counting = Kind::Counting(protocol::ALL[2]);
        for (name, kind, expected) in [
            ("socket", tcp_lookup, None),
            ("socket", sasl, None),
            (
                "socket",
                socketmap,
                Some("only tcp-lookup, policy and sasl"),
            ),
            (
                "normalise",
                policy,
                Some("only tcp-lookup, socketmap and sasl"),
            ),
            (
                "normalise",
                numbers,
                Some("only tcp-lookup, socketmap and sasl"),
            ),
            ("normalise", sasl, None),
            ("special-keys", sasl, Some("only tcp-lookup and socketmap")),
            (
                "value",
                sasl,
                Some("only tcp-lookup, socketmap, policy and dict"),
            ),
            (
                "response",
                sasl,
                Some("only tcp-lookup, socketmap, policy and dict"),
            ),
            ("accepted", policy, Some("only sasl tables")),
            ("accepted", Kind::Defaults, Some("cannot be inherited")),
            ("normalise", Kind::Defaults, None),
            ("target", Kind::Defaults, Some("cannot be inherited")),
            ("limits", Kind::Defaults, Some("cannot be inherited")),
            ("limits", socketmap, Some("only policy and sasl tables")),
            ("limits", policy, None),
            ("permit-actions", policy, None),
            ("permit-actions", numbers, Some("a table with limits")),
            ("response", numbers, Some("a table with limits")),
            ("true-value", numbers, Some("a table with limits")),
            ("value", numbers, None),
            ("target", numbers, None),
            ("target", counting, Some("is for calls")),
            ("cache", counting, Some("is for calls")),
            ("permit-actions", counting, Some("is for calls")),
            ("on-temporary", counting, None),
            ("extra-attributes", counting, None),
            ("limits", counting, None),
            ("socket", counting, None),
            ("socket", dict, Some("only tcp-lookup, policy and sasl")),
            (
                "normalise",
                dict,
                Some("only tcp-lookup, socketmap and sasl"),
            ),
            (
                "cache",
                dict,
                Some("only tcp-lookup, socketmap, policy and sasl"),
            ),
            (
                "list-separator",
                dict,
                Some("only tcp-lookup, socketmap and policy"),
            ),
            ("set", dict, None),
            ("set", socketmap, Some("only dict tables")),
            ("set", Kind::Defaults, Some("cannot be inherited")),
        ] {
            let refusal = refusal(name, kind);
            let is_right = match (&refusal, expected) {
                (Some(refusal), Some(expected)) => refusal.starts_with(expected),
                (refusal, expected) => refusal.is_none() && expected.is_none(),
            };
            assert!(is_right, "{name}: {refusal:?}");
        }
    }
}
