//! Every key of the file, once.
//!
//! A section of the file accepts the keys of its list only, and each of them has to be read. `show`
//! writes them in this order, and the quoted line of a syntax error shows no other words.

use std::collections::BTreeSet;

use crate::protocol;
use crate::protocol::Facts;
use crate::protocol::facts::PickedBy;

/// A key of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    owner: Owner,
    /// The keys inside, where the value is a table with keys of its own.
    pub(super) members: &'static [Self],
}

/// Which tables have a key.
#[derive(Clone, Copy, Debug)]
enum Owner {
    /// Every table, and `[http]` for all of them.
    All,
    /// Every table, but not `[http]`: each table has a value of its own.
    Single,
    /// The tables that a socket picks, and not `[http]`.
    PickedBySocket,
    /// The tables whose requests have a key.
    Keyed,
    /// The tables that answer with an action.
    Actions,
    /// The tables whose requests have values that the operator names.
    Open,
}

/// The tables of the file.
pub(super) const FILE: &[Key] = &{
    const SETTINGS: [Key; 3] = [
        key("http").with(ENDPOINT),
        key("server").with(SERVER),
        key("log").with(LOG),
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

/// The keys of an endpoint.
pub(super) const ENDPOINT: &[Key] = &[
    // The request.
    key("target").of(Owner::Single),
    key("socket").of(Owner::PickedBySocket),
    key("method"),
    key("query"),
    key("form"),
    key("json"),
    key("extra-attributes").of(Owner::Open),
    key("headers"),
    key("user-agent"),
    key("auth-token").with(SECRET),
    key("bearer-token").with(SECRET),
    key("basic-auth").with(BASIC_AUTH),
    key("oauth2").with(OAUTH2),
    key("normalise").with(NORMALISE).of(Owner::Keyed),
    key("special-keys").of(Owner::Keyed),
    // The answer.
    key("response"),
    key("value"),
    key("missing"),
    key("error"),
    key("no-error"),
    key("list-separator"),
    key("true-value"),
    key("require-header"),
    key("status"),
    key("on-not-found").of(Owner::Actions),
    key("on-temporary").of(Owner::Actions),
    key("on-permanent").of(Owner::Actions),
    key("permit-actions").of(Owner::Actions),
    key("restriction-classes").of(Owner::Actions),
    // Time and transport.
    key("request-timeout"),
    key("connect-timeout"),
    key("retries"),
    key("pool-idle"),
    key("max-response"),
    key("max-in-flight"),
    key("tls").with(TLS),
    key("http-version"),
    key("proxy"),
    key("redirects"),
    key("compression"),
    key("unix-socket"),
    key("cache").with(CACHE),
    key("breaker").with(BREAKER),
];

/// The keys of a secret: where it is kept.
pub(super) const SECRET: &[Key] = &[key("credential"), key("file"), key("env")];

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
    key("negative-ttl"),
    key("stale-if-error"),
    key("refresh-ahead"),
    key("honour-http"),
    key("max-entries"),
    key("max-bytes"),
    key("by").of(Owner::Open),
];

pub(super) const BREAKER: &[Key] = &[key("failures"), key("pause")];

const fn key(name: &'static str) -> Key {
    Key {
        name,
        owner: Owner::All,
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

    /// Returns whether the tables of a protocol have this key; without a protocol, whether `[http]`
    /// has it.
    pub(super) fn is_of(&self, protocol: Option<&Facts>) -> bool {
        match (self.owner, protocol) {
            (Owner::All, _) => true,
            (Owner::Single | Owner::PickedBySocket, None) => false,
            (Owner::Keyed | Owner::Actions | Owner::Open, None) => true,
            (Owner::Single, Some(_)) => true,
            (Owner::PickedBySocket, Some(facts)) => facts.picked_by == PickedBy::Socket,
            (Owner::Keyed, Some(facts)) => facts.key.is_some(),
            (Owner::Actions, Some(facts)) => facts.has_actions,
            (Owner::Open, Some(facts)) => facts.is_open,
        }
    }

    /// Returns the message for this key in a table that does not have it.
    pub(super) fn refusal(&self, protocol: Option<&Facts>) -> String {
        if protocol.is_none() {
            return "cannot be inherited; write it in each table".to_owned();
        }
        let owners = protocol::ALL.iter().filter(|facts| self.is_of(Some(facts)));
        let names: Vec<_> = owners.map(|facts| facts.name).collect();
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
    fn a_key_of_other_protocols_names_them() {
        let refusal = |name: &str, protocol| {
            let key = ENDPOINT.iter().find(|key| key.name == name);
            key.filter(|key| !key.is_of(protocol))
                .map(|key| key.refusal(protocol))
        };
        let [tcp_lookup, socketmap, policy] = protocol::ALL;
        for (name, protocol, expected) in [
            ("socket", Some(tcp_lookup), None),
            (
                "socket",
                Some(socketmap),
                Some("only tcp-lookup and policy"),
            ),
            (
                "normalise",
                Some(policy),
                Some("only tcp-lookup and socketmap"),
            ),
            ("normalise", None, None),
            ("target", None, Some("cannot be inherited")),
        ] {
            let refusal = refusal(name, protocol);
            let is_right = match (&refusal, expected) {
                (Some(refusal), Some(expected)) => refusal.starts_with(expected),
                (refusal, expected) => refusal.is_none() && expected.is_none(),
            };
            assert!(is_right, "{name}: {refusal:?}");
        }
    }
}
