//! The hello, and the requests for keys of the dict that it names.

use bytes::Bytes;

use super::fields::{number, unescape};
use crate::outcome::Reason;
use crate::request::{Kind, Request};

/// What the client says first.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) dict: Bytes,
    /// The user of all commands, where the commands have none.
    pub(super) user: Option<Bytes>,
    /// Whether transactions say when what they set expires.
    pub(super) has_expiry: bool,
}

impl Hello {
    pub(super) fn parse<'l>(mut fields: impl Iterator<Item = &'l [u8]>) -> Option<Self> {
        let major: u32 = number(fields.next()?)?;
        let _minor: u32 = number(fields.next()?)?;
        let _value_type: u32 = number(fields.next()?)?;
        let user = unescape(fields.next()?);
        let dict = unescape(fields.next()?);
        (2..=4).contains(&major).then(|| Self {
            dict,
            user: (major == 2).then_some(user),
            has_expiry: major == 4,
        })
    }

    /// Returns the user of a command with this field.
    pub(super) fn user(&self, field: Option<&[u8]>) -> Bytes {
        match &self.user {
            Some(user) => user.clone(),
            None => field.map(unescape).unwrap_or_default(),
        }
    }

    /// Returns the request for a key. There is none for a key of an unknown kind.
    pub(super) fn request(&self, key: &[u8], user: &Bytes) -> Result<Request, Reason> {
        let (scope, key, needs) = if let Some(key) = key.strip_prefix(b"shared/") {
            ("shared", key, None)
        } else if let Some(key) = key.strip_prefix(b"priv/") {
            // Without the user it would be the same key for all of them.
            ("priv", key, Some("user"))
        } else {
            return Err(Reason::RequestNotUnderstood);
        };
        let value = |name: &'static str, value| (Bytes::from_static(name.as_bytes()), value);
        Ok(Request {
            table: Some(self.dict.clone()),
            values: vec![
                value("key", Bytes::copy_from_slice(key)),
                value("scope", Bytes::from_static(scope.as_bytes())),
                value("user", user.clone()),
                value("dict", self.dict.clone()),
            ],
            kind: Kind::Lookup,
            needs,
            secret: None,
        })
    }
}
