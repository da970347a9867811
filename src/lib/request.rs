//! One request, as named values, in terms of no protocol and no backend.

use bytes::Bytes;

/// A request from the mail server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Request {
    /// The name of the table, where the request has one.
    pub table: Option<Bytes>,
    /// Names and values, in the order in which they came; without the quoting of the protocol.
    pub values: Vec<(Bytes, Bytes)>,
}

impl Request {
    /// Makes a request with one value.
    pub fn of(table: Option<Bytes>, name: &'static str, value: Bytes) -> Self {
        let name = Bytes::from_static(name.as_bytes());
        Self {
            table,
            values: vec![(name, value)],
        }
    }

    /// Returns the value of a name: the first, if the name occurs more than once.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.values
            .iter()
            .find(|(n, _)| n == name.as_bytes())
            .map(|(_, value)| value.as_ref())
    }
}
