//! One request, as named values, in terms of no protocol and no backend.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};

/// A request from the mail server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Request {
    /// The name of the table, where the request has one.
    pub table: Option<Bytes>,
    /// Names and values, in the order in which they came; without the quoting of the protocol.
    pub values: Vec<(Bytes, Bytes)>,
    /// What is asked for.
    pub kind: Kind,
    /// The name of a value without which the answer would be that of another user: there is no call
    /// if it is empty, or if the call does not carry it.
    pub needs: Option<&'static str>,
    /// A further value, which goes to the backend and nowhere else. Boxed, so that other requests have
    /// no room for it.
    pub secret: Option<Box<Secret>>,
}

/// A password or a token with its name. No log, error or `Debug` shows it, and its memory is
/// overwritten when it is dropped.
#[derive(Clone)]
pub struct Secret {
    name: &'static str,
    value: SecretString,
}

impl Secret {
    /// Makes a secret of a value, which the caller overwrites.
    pub fn new(name: &'static str, value: &str) -> Self {
        Self {
            name,
            value: value.into(),
        }
    }

    /// Returns its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the value, which may only be sent.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (hidden)", self.name)
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A value.
    #[default]
    Lookup,
    /// A list of rows.
    List(Box<List>),
    /// Changes, in this order.
    Write(Box<Write>),
}

/// A list that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct List {
    /// The name of the value that holds the path of the list; in a lookup it holds the key.
    pub key: &'static str,
    /// What stands before each name in the key of its row.
    pub prefix: Bytes,
    /// Whether names with a slash are part of the list.
    pub is_recursive: bool,
    /// Whether the list is the one row of the key itself.
    pub is_exact: bool,
    /// Whether the rows have values.
    pub has_values: bool,
    /// The order of the rows; if absent, that of the answer.
    pub order: Option<Order>,
    /// The most rows.
    pub most: Option<usize>,
    /// Lists whose rows follow those of this one.
    pub more: Vec<Request>,
}

/// The order of the rows of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// By key.
    Key,
    /// By value.
    Value,
}

/// Changes that belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Write {
    /// Each change.
    pub operations: Vec<Operation>,
    /// After how many seconds the values expire; 0: never.
    pub expires: u64,
    /// Whether the log must not show what is changed.
    pub is_hidden: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// What it does.
    pub change: Change,
    /// The whole key.
    pub key: Bytes,
    /// The change alone, as a request.
    pub request: Request,
}

/// What an operation does to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Gives it a value.
    Set,
    /// Removes it.
    Unset,
    /// Adds to its number, which has to be there.
    Increment,
}

impl Change {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Unset => "unset",
            Self::Increment => "increment",
        }
    }
}

impl Request {
    /// Makes a request with one value.
    pub fn of(table: Option<Bytes>, name: &'static str, value: Bytes) -> Self {
        let name = Bytes::from_static(name.as_bytes());
        Self {
            table,
            values: vec![(name, value)],
            ..Self::default()
        }
    }

    /// Returns the value of a name, which is not the secret: the first, if the name occurs more than
    /// once.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.values
            .iter()
            .find(|(n, _)| n == name.as_bytes())
            .map(|(_, value)| value.as_ref())
    }

    /// Returns whether the log must not show what the request is about.
    pub fn is_hidden(&self) -> bool {
        matches!(&self.kind, Kind::Write(write) if write.is_hidden)
    }

    /// Returns the request with another value for a name.
    pub fn with(mut self, name: &str, value: Bytes) -> Self {
        let mut values = self.values.iter_mut();
        if let Some((_, old)) = values.find(|(n, _)| n == name.as_bytes()) {
            *old = value;
        }
        self
    }

    /// Returns whether the request asks for a list, and not for the one row of a key.
    pub fn is_list(&self) -> bool {
        matches!(&self.kind, Kind::List(list) if !list.is_exact)
    }

    /// Returns whether the request changes anything. Such a request waits for those before it, and
    /// those after it wait for its end.
    pub fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Write(_))
    }

    /// Returns the secret of this name.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.secret.as_deref().filter(|secret| secret.name == name)
    }
}

/// A part of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValuePart {
    /// The local part of a mail address, or a value that has no `@`.
    Local,
    /// The domain of a mail address.
    Domain,
    /// The network of an IP address.
    Net,
}

impl ValuePart {
    /// The names of the parts.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("local", Self::Local),
        ("domain", Self::Domain),
        ("net", Self::Net),
    ];

    /// Returns this part of a value, if the value has it.
    pub fn of(self, value: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Local => split_address(value).0.map(Cow::Borrowed),
            Self::Domain => split_address(value).1.map(Cow::Borrowed),
            Self::Net => network(value).map(|net| Cow::Owned(net.into_bytes())),
        }
    }
}

/// Splits a mail address at its last `@`, as mysql_table(5) does. An empty part counts as missing.
pub fn split_address(address: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    let is_part = |part: &[u8]| !part.is_empty();
    match address.iter().rposition(|b| *b == b'@') {
        None => (is_part(address).then_some(address), None),
        Some(at) => {
            let (local, domain) = address.split_at(at);
            let domain = &domain[1..];
            (
                is_part(local).then_some(local),
                is_part(domain).then_some(domain),
            )
        }
    }
}

/// Returns the network that usually belongs to one customer: the /24 of an IPv4 address, the /64 of
/// an IPv6 address.
fn network(address: &[u8]) -> Option<String> {
    let address: IpAddr = std::str::from_utf8(address).ok()?.parse().ok()?;
    Some(match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_absent_where_a_value_has_none() {
        use ValuePart::{Domain, Local, Net};
        for (value, part, expected) in [
            ("joe@a.test", Local, Some("joe")),
            ("joe@a.test", Domain, Some("a.test")),
            ("\"a@b\"@c.test", Local, Some("\"a@b\"")),
            ("\"a@b\"@c.test", Domain, Some("c.test")),
            ("joe", Local, Some("joe")),
            ("joe", Domain, None),
            ("joe@", Domain, None),
            ("@a.test", Local, None),
            ("@a.test", Domain, Some("a.test")),
            ("", Local, None),
            ("", Domain, None),
            ("192.0.2.77", Net, Some("192.0.2.0/24")),
            ("::ffff:192.0.2.77", Net, Some("192.0.2.0/24")),
            ("2001:db8::1:2:3", Net, Some("2001:db8::/64")),
            ("2001:db8:1:2:3:4:5:6", Net, Some("2001:db8:1:2::/64")),
            ("::1", Net, Some("::/64")),
            ("fe80::1%eth0", Net, None),
            ("192.0.2.077", Net, None),
            ("192.0.2.1:25", Net, None),
            ("[192.0.2.1]", Net, None),
            ("unknown", Net, None),
            ("", Net, None),
        ] {
            let found = part.of(value.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{value}");
        }
        assert_eq!(Net.of(b"\xff"), None);
    }
}
