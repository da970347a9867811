//! Whose use a request is: the account of a limit.

use std::borrow::Cow;

use crate::config::{Limit, Part, Placeholder, Template};
use crate::protocol::digest::digest;
use crate::request::{Request, split_address};
use crate::table::keys::{cut_extension, lower_case};

/// An account of a limit, normalised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its bytes, for the call that fetches its numbers.
    pub bytes: Vec<u8>,
    /// Its name in the store and in the log.
    pub name: String,
}

impl Account {
    /// Returns the account of a request, or nothing if the request has none for this limit.
    pub fn of(request: &Request, limit: &Limit) -> Option<Self> {
        let mut templates = limit.by.iter();
        let bytes = templates.find_map(|template| filled(template, request))?;
        Some(Self::normalised(&bytes, limit))
    }

    /// Returns the account of this name, as the limit writes it.
    pub fn normalised(bytes: &[u8], limit: &Limit) -> Self {
        let mut bytes = Cow::Owned(lower_case(bytes));
        if let Some(delimiter) = &limit.delimiter {
            cut_extension(&mut bytes, delimiter.as_bytes());
        }
        Self {
            name: bounded(&bytes),
            bytes: bytes.into_owned(),
        }
    }

    /// Returns whether the limit does not count this account.
    pub fn is_exempt(&self, limit: &Limit) -> bool {
        let domain = split_address(&self.bytes).1;
        limit
            .exempt
            .iter()
            .any(|exempt| match exempt.strip_prefix('@') {
                Some(exempt) => domain == Some(exempt.as_bytes()),
                None => self.bytes == Self::normalised(exempt.as_bytes(), limit).bytes,
            })
    }
}

/// Returns the text of a template, if all its placeholders have a value.
fn filled(template: &Template, request: &Request) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for part in &template.parts {
        let value = match part {
            Part::Literal(literal) => Cow::Borrowed(literal.as_bytes()),
            Part::Placeholder(Placeholder::Value(name)) => Cow::Borrowed(request.value(name)?),
            Part::Placeholder(Placeholder::Part(name, part)) => part.of(request.value(name)?)?,
            // Requests that are counted have no key.
            Part::Placeholder(_) => return None,
        };
        if value.is_empty() {
            return None;
        }
        text.extend_from_slice(&value);
    }
    Some(text)
}

/// Returns bytes as a text of bounded length, for the store. Two long texts with the same beginning
/// have different digests, and bytes that are not UTF-8 are escaped.
pub fn bounded(bytes: &[u8]) -> String {
    /// Longer than any mail address (RFC 5321, section 4.5.3.1) and any `instance` of Postfix.
    const MAX: usize = 320;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.escape_ascii().to_string()),
    };
    if text.len() <= MAX {
        return text.into_owned();
    }
    let mut end = MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...{:032x}", &text[..end], digest([bytes]))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// The first limit of a policy table that has these keys.
    fn limit(keys: &str) -> Limit {
        let name = format!(
            "postgate-account-{}-{:?}.toml",
            std::process::id(),
            std::thread::current().id()
        );
        let path = std::env::temp_dir().join(name);
        let text = format!(
            "[policy.t]\nextra-attributes = [\"tenant\"]\n[[policy.t.limits]]\nname = \"a\"\n\
             rates = {{ \"1h\" = 1 }}\n{keys}\n"
        );
        std::fs::write(&path, text).unwrap();
        let (config, report) = crate::config::load(&path, crate::config::Mode::Check);
        std::fs::remove_file(path).unwrap();
        assert_eq!(report.problems(), []);
        config.unwrap().tables.remove(0).endpoint.limits.remove(0)
    }

    fn request(pairs: &[(&'static str, &'static [u8])]) -> Request {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                Bytes::from_static(name.as_bytes()),
                Bytes::from_static(value),
            )
        });
        Request {
            values: pairs.collect(),
            ..Request::default()
        }
    }

    fn account(keys: &str, pairs: &[(&'static str, &'static [u8])]) -> Option<String> {
        Account::of(&request(pairs), &limit(keys)).map(|account| account.name)
    }

    #[test]
    fn the_first_template_whose_placeholders_all_have_a_value_names_the_account() {
        let list = "by = [\"{sasl_username}\", \"{tenant}/{client_address.net}\", \"rest\"]";
        let login = ("sasl_username", b"Joe@A.test".as_slice());
        let tenant = ("tenant", b"T1".as_slice());
        let address = ("client_address", b"192.0.2.7".as_slice());
        let none = |name| (name, b"".as_slice());
        for (pairs, expected) in [
            (&[login, tenant, address][..], Some("joe@a.test")),
            (&[tenant, address], Some("t1/192.0.2.0/24")),
            (
                &[none("sasl_username"), tenant, address],
                Some("t1/192.0.2.0/24"),
            ),
            (&[address], Some("rest")),
            (&[none("tenant"), address], Some("rest")),
            (&[tenant, ("client_address", b"unknown")], Some("rest")),
            (&[], Some("rest")),
        ] {
            assert_eq!(account(list, pairs).as_deref(), expected, "{pairs:?}");
        }
        assert_eq!(account("by = \"{sasl_username}\"", &[address]), None);
        assert_eq!(
            account("by = \"{sasl_username}\"", &[none("sasl_username")]),
            None
        );
        assert_eq!(
            account(
                "by = \"{sasl_username.domain}\"",
                &[("sasl_username", b"joe")]
            ),
            None
        );
        assert_eq!(account("by = \"All\"", &[]).as_deref(), Some("all"));
    }

    #[test]
    fn an_account_is_in_lower_case_and_without_its_extension() {
        let cut = "by = \"{sender}\"\ndelimiter = \"+-\"";
        for (keys, value, expected) in [
            (
                "by = \"{sender}\"",
                b"Joe+X@A.test".as_slice(),
                "joe+x@a.test",
            ),
            (cut, b"Joe+X@A.test", "joe@a.test"),
            (cut, b"joe-x+y@a.test", "joe@a.test"),
            (cut, b"+x@a.test", "+x@a.test"),
            (cut, b"joe+x", "joe+x"),
            (cut, b"Owner-list@a.test", "owner-list@a.test"),
            (
                cut,
                "J\u{d6}+x@\u{c4}.test".as_bytes(),
                "j\u{f6}@\u{e4}.test",
            ),
            (cut, b"J\xff+x@a.test", "j\\xff@a.test"),
        ] {
            let found = account(keys, &[("sender", value)]);
            assert_eq!(found.as_deref(), Some(expected), "{}", value.escape_ascii());
        }
    }

    #[test]
    fn accounts_and_domains_may_be_exempt() {
        let limit = limit(
            "by = \"{sender}\"\ndelimiter = \"+\"\nexempt = [\"Joe@A.test\", \"@B.test\", \"root\"]",
        );
        for (value, expected) in [
            ("joe@a.test", true),
            ("JOE+x@a.test", true),
            ("jim@a.test", false),
            ("jim@B.test", true),
            ("jim@c.b.test", false),
            ("b.test", false),
            ("root", true),
            ("root@a.test", false),
        ] {
            let account = Account::normalised(value.as_bytes(), &limit);
            assert_eq!(account.is_exempt(&limit), expected, "{value}");
        }
    }

    #[test]
    fn a_long_name_is_cut_and_stays_a_name_of_its_own() {
        let long = |last: &str| format!("{}{last}", "\u{e4}".repeat(500));
        let (one, other) = (bounded(long("a").as_bytes()), bounded(long("b").as_bytes()));
        assert_ne!(one, other);
        assert!(one.len() < 370 && one.starts_with("\u{e4}\u{e4}"), "{one}");
        assert_eq!(bounded(&[b'a'; 320]), "a".repeat(320));
    }
}
