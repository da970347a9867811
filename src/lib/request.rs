//! One question, as bytes under names; knows no protocol and no HTTP.

use bytes::Bytes;

/// What Postfix wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// The value of a key.
    Lookup {
        /// The table, where the request names one (socketmap).
        map: Option<Bytes>,
        /// The key, every byte as Postfix meant it.
        key: Bytes,
    },
    /// What to do with a client, a sender, a recipient or a message.
    Policy(Attributes),
}

impl Request {
    /// Returns the table's name, where the request holds one.
    pub fn map(&self) -> Option<&[u8]> {
        match self {
            Self::Lookup { map, .. } => map.as_deref(),
            Self::Policy(_) => None,
        }
    }

    /// Returns Postfix's queue id, where it has given one.
    pub fn queue_id(&self) -> Option<&[u8]> {
        match self {
            Self::Lookup { .. } => None,
            Self::Policy(attributes) => attributes.value("queue_id").filter(|id| !id.is_empty()),
        }
    }
}

/// The attributes of a policy request, in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(pub Vec<(Bytes, Bytes)>);

impl Attributes {
    /// Returns the value of the first attribute of that name.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(n, _)| n == name.as_bytes())
            .map(|(_, value)| value.as_ref())
    }
}
