//! Texts with placeholders: `{key}`; `{{` and `}}` are braces.

use std::fmt;

use crate::protocol::facts::Expansion;
use crate::protocol::{self, Facts};
use crate::request::ValuePart;

/// A text with placeholders in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Its parts, in order.
    pub parts: Vec<Part>,
}

/// A part of a template.
#[derive(Clone, PartialEq, Eq)]
pub enum Part {
    /// A constant.
    Literal(String),
    /// A value of the request.
    Placeholder(Placeholder),
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It may be a token.
            Self::Literal(_) => f.write_str("Literal((hidden))"),
            Self::Placeholder(name) => f.debug_tuple("Placeholder").field(name).finish(),
        }
    }
}

/// A value of the request, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// A value that the request carries under this name; empty where it carries none.
    Value(String),
    /// A part of such a value; empty where the value has no such part.
    Part(String, ValuePart),
    /// A secret of this name. Where the request has none, what has the placeholder is left out.
    Secret(String),
    /// The name of the map or table.
    Name,
    /// The key up to its last `@`.
    Local,
    /// The key from its last `@` on.
    Domain,
}

/// The message for a secret in a target or a query.
pub(super) const SECRET_IN_A_URL: &str = "would put a password or a token into a URL, which servers and proxies log; write it in json, \
     form, headers or basic-auth";

/// A value of the request that a call has to carry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'w> {
    /// Its name.
    pub value: &'w str,
    /// The secret of the request, if it has one. A text with another secret is left out of the call.
    pub secret: Option<&'w str>,
}

impl<'w> Wanted<'w> {
    /// A value of any request.
    pub(super) fn value(value: &'w str) -> Self {
        let secret = None;
        Self { value, secret }
    }
}

/// Which placeholders a text may have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vocabulary<'v> {
    /// The protocols of the text, which may have the placeholders of each of them.
    pub protocols: &'v [&'static Facts],
    /// Further attributes that the operator has named.
    pub extra: &'v [String],
    /// Placeholders that are no values of a request.
    pub words: &'static [&'static str],
}

impl Vocabulary<'_> {
    /// Returns the message for a text that cannot be read. It shows nothing of the text, which may
    /// be a secret.
    pub(super) fn fault(self) -> String {
        let known = self.known();
        format!(
            "has a placeholder that is unknown or not closed; write \"{{{{\" for a brace: {known}"
        )
    }

    fn known(self) -> String {
        let (facts, words) = match self.protocols {
            [] => return format!("this text has {}", in_braces(self.words)),
            [facts] => (facts, facts.values),
            _ => return "[http] can have those of each program".to_owned(),
        };
        if facts.has_logins() {
            let words = [words, facts.secrets].concat();
            format!("logins have {}", in_braces(&words))
        } else if facts.key.is_some() {
            "lookups have {key}, {name}, {local} and {domain}".to_owned()
        } else if facts.is_open {
            "policy has the attributes of SMTPD_POLICY_README and those in extra-attributes"
                .to_owned()
        } else {
            let expansions = facts.expansions.iter().map(|(name, _)| *name);
            let words: Vec<_> = words.iter().copied().chain(expansions).collect();
            format!("this call has {}", in_braces(&words))
        }
    }

    /// Returns whether there are placeholders for whole segments of a path.
    pub(super) fn has_expansions(self) -> bool {
        let mut facts = self.protocols.iter();
        facts.any(|facts| !facts.expansions.is_empty())
    }

    /// Returns the placeholder for whole segments of this name.
    pub(super) fn expansion(self, name: &str) -> Result<(&'static str, Expansion), String> {
        let mut known = self.protocols.iter().flat_map(|facts| facts.expansions);
        match known.find(|(known, _)| *known == name) {
            Some(found) => Ok(*found),
            None => Err(unknown(name, self)),
        }
    }

    /// Returns whether requests have a value of this name.
    fn has_value(self, name: &str) -> bool {
        let mut facts = self.protocols.iter();
        self.extra.iter().any(|extra| extra == name)
            || self.words.contains(&name)
            || facts.any(|facts| facts.values.contains(&name))
    }

    /// Returns the part of a value that a placeholder such as `sender.domain` names.
    fn part(self, name: &str) -> Option<Placeholder> {
        let (value, part) = name.rsplit_once('.')?;
        let (_, part) = ValuePart::NAMES.iter().find(|(name, _)| *name == part)?;
        let mut facts = self.protocols.iter().filter(|facts| facts.has_parts);
        let has_part = match part {
            ValuePart::Net => facts.any(|facts| facts.addresses.contains(&value)),
            // An address has no @: a limit by its domain would never count.
            ValuePart::Local | ValuePart::Domain => {
                self.has_value(value) && facts.any(|facts| !facts.addresses.contains(&value))
            }
        };
        has_part.then(|| Placeholder::Part(value.to_owned(), *part))
    }
}

/// Returns names as placeholders: `{a}, {b}`.
fn in_braces(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("{{{name}}}")).collect();
    names.join(", ")
}

impl Template {
    /// Parses a text. Fails with the message for what is wrong.
    pub fn parse(text: &str, vocabulary: Vocabulary<'_>) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if from.starts_with("{{") || from.starts_with("}}") {
                literal.push_str(&from[..1]);
                rest = &from[2..];
            // A single "}" means itself: there is nothing else that it could close.
            } else if let Some(from) = from.strip_prefix('}') {
                literal.push('}');
                rest = from;
            } else {
                let (name, after) = from[1..]
                    .split_once('}')
                    .ok_or("has a \"{\" that is not closed; write \"{{\" for a brace")?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Placeholder(placeholder(name, vocabulary)?));
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// Returns the text of a template that has no placeholder.
    pub fn literal(&self) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.as_str(),
                Part::Placeholder(_) => "",
            })
            .collect()
    }

    /// Returns the template with its constants replaced: any of them may be a token.
    pub(super) fn without_constants(&self, hidden: &str) -> Self {
        let replaced = |part: &Part| match part {
            Part::Literal(_) => Part::Literal(hidden.to_owned()),
            Part::Placeholder(_) => part.clone(),
        };
        Self {
            parts: self.parts.iter().map(replaced).collect(),
        }
    }

    /// Returns whether the text may be shown, because it has no constant.
    pub(super) fn is_harmless(&self) -> bool {
        self.parts
            .iter()
            .all(|part| matches!(part, Part::Placeholder(_)))
    }

    /// Returns whether the text has a value of the request, or a part of it.
    pub(super) fn carries(&self, wanted: Wanted<'_>) -> bool {
        let mut secrets = self.parts.iter().filter_map(|part| match part {
            Part::Placeholder(Placeholder::Secret(name)) => Some(name),
            _ => None,
        });
        let is_left_out = wanted
            .secret
            .is_some_and(|secret| secrets.any(|other| *other != secret));
        let has_it = self.parts.iter().any(|part| match part {
            Part::Placeholder(
                Placeholder::Value(name) | Placeholder::Part(name, _) | Placeholder::Secret(name),
            ) => name == wanted.value,
            Part::Placeholder(_) | Part::Literal(_) => false,
        });
        has_it && !is_left_out
    }

    /// Returns whether the text has a placeholder.
    pub fn has_placeholder(&self) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Placeholder(_)))
    }

    /// Returns whether the text has a secret of the request.
    pub fn has_secret(&self) -> bool {
        let is_secret = |part: &Part| matches!(part, Part::Placeholder(Placeholder::Secret(_)));
        self.parts.iter().any(is_secret)
    }

    /// Returns whether the text says who logs in, or has the secret of that login.
    pub(super) fn is_of_login(&self) -> bool {
        self.has_secret() || self.carries(Wanted::value("username"))
    }

    /// Returns whether the text differs between the requests of one table. The name of a map does
    /// not depend on the key, and `request` is always `smtpd_access_policy`.
    pub(super) fn varies(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Literal(_) | Part::Placeholder(Placeholder::Name) => false,
            Part::Placeholder(Placeholder::Value(name) | Placeholder::Part(name, _)) => {
                !is_constant(name)
            }
            Part::Placeholder(
                Placeholder::Secret(_) | Placeholder::Local | Placeholder::Domain,
            ) => true,
        })
    }
}

/// Returns whether a value is the same in every request.
fn is_constant(name: &str) -> bool {
    let mut protocols = protocol::ALL.iter();
    protocols.any(|facts| facts.constants.contains(&name))
}

/// The placeholders that stand for parts of a lookup besides its key.
const LOOKUP: [(&str, Placeholder); 3] = [
    ("name", Placeholder::Name),
    ("local", Placeholder::Local),
    ("domain", Placeholder::Domain),
];

fn placeholder(name: &str, vocabulary: Vocabulary<'_>) -> Result<Placeholder, String> {
    let any = |has: &dyn Fn(&Facts) -> bool| vocabulary.protocols.iter().any(|facts| has(facts));
    if any(&|facts| facts.key.is_some() && !facts.has_logins())
        && let Some((_, found)) = LOOKUP.iter().find(|(n, _)| *n == name)
    {
        return Ok(found.clone());
    }
    // An attribute that has a dot in its own name comes before a part of another.
    if vocabulary.has_value(name) {
        return Ok(Placeholder::Value(name.to_owned()));
    }
    if let Some(part) = vocabulary.part(name) {
        return Ok(part);
    }
    if any(&|facts| facts.secrets.contains(&name)) {
        return Ok(Placeholder::Secret(name.to_owned()));
    }
    Err(unknown(name, vocabulary))
}

fn unknown(name: &str, vocabulary: Vocabulary<'_>) -> String {
    // A text that does not look like a name may be part of a secret.
    let is_name = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b"_*./".contains(&b));
    let shown = if is_name { name } else { "…" };
    let known = vocabulary.known();
    format!("\"{{{shown}}}\" is not a placeholder: {known}")
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(text) => {
                    f.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                Part::Placeholder(Placeholder::Value(name) | Placeholder::Secret(name)) => {
                    write!(f, "{{{name}}}")?;
                }
                Part::Placeholder(Placeholder::Part(name, part)) => {
                    let found = ValuePart::NAMES.iter().find(|(_, p)| p == part);
                    write!(f, "{{{name}.{}}}", found.map_or("", |(name, _)| name))?;
                }
                Part::Placeholder(placeholder) => {
                    let found = LOOKUP.iter().find(|(_, p)| p == placeholder);
                    write!(f, "{{{}}}", found.map_or("", |(name, _)| name))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol as _;
    use crate::protocol::policy::Policy;
    use crate::protocol::tcp_lookup::TcpLookup;

    const OF_LOOKUPS: Vocabulary<'static> = Vocabulary {
        protocols: &[TcpLookup::FACTS],
        extra: &[],
        words: &[],
    };
    const OF_POLICY: Vocabulary<'static> = Vocabulary {
        protocols: &[Policy::FACTS],
        extra: &[],
        words: &[],
    };

    #[test]
    fn texts_are_read_and_written_back() {
        for text in [
            "",
            "a",
            "{key}",
            "a{key}b{name}",
            "{{x}}",
            "a{local}@{domain}",
        ] {
            let template = Template::parse(text, OF_LOOKUPS).unwrap();
            assert_eq!(template.to_string(), text);
        }
        let extra = ["x_y".to_owned()];
        let vocabulary = Vocabulary {
            extra: &extra,
            ..OF_POLICY
        };
        let policy = Template::parse("{sasl_username}{x_y}", vocabulary).unwrap();
        let attribute = |name: &str| Part::Placeholder(Placeholder::Value(name.to_owned()));
        assert_eq!(policy.parts, [attribute("sasl_username"), attribute("x_y")]);
    }

    #[test]
    fn a_placeholder_may_name_a_part_of_a_value() {
        let extra = [
            "x".to_owned(),
            "x.domain".to_owned(),
            "sender.local".to_owned(),
        ];
        let vocabulary = Vocabulary {
            extra: &extra,
            ..OF_POLICY
        };
        let part = |name: &str, part| Some(Placeholder::Part(name.to_owned(), part));
        let value = |name: &str| Some(Placeholder::Value(name.to_owned()));
        for (name, expected) in [
            ("sender.domain", part("sender", ValuePart::Domain)),
            ("x.local", part("x", ValuePart::Local)),
            ("client_address.net", part("client_address", ValuePart::Net)),
            ("server_address.net", part("server_address", ValuePart::Net)),
            // These are names of their own.
            ("x.domain", value("x.domain")),
            ("sender.local", value("sender.local")),
            ("x.domain.domain", part("x.domain", ValuePart::Domain)),
            ("sender.net", None),
            ("x.net", None),
            ("sender.user", None),
            ("nobody.domain", None),
            ("sender.", None),
            (".domain", None),
        ] {
            let text = format!("{{{name}}}");
            let template = Template::parse(&text, vocabulary);
            let found = template.as_ref().map(|t| t.parts.as_slice()).ok();
            let expected = expected.map(|placeholder| [Part::Placeholder(placeholder)]);
            assert_eq!(found, expected.as_ref().map(|parts| &parts[..]), "{name}");
            if let Ok(template) = template {
                assert_eq!(template.to_string(), text);
            }
        }
        assert!(Template::parse("{key.domain}", OF_LOOKUPS).is_err());
    }

    #[test]
    fn a_text_with_an_unknown_placeholder_is_refused() {
        for (text, vocabulary, expected) in [
            ("{kee}", OF_LOOKUPS, "\"{kee}\" is not a placeholder"),
            ("{sender}", OF_LOOKUPS, "lookups have {key}"),
            ("{key}", OF_POLICY, "policy has the attributes"),
            ("{x_y}", OF_POLICY, "extra-attributes"),
            ("{*}", OF_POLICY, "\"{*}\" is not a placeholder"),
            (
                "{sender.net}",
                OF_POLICY,
                "\"{sender.net}\" is not a placeholder",
            ),
            ("a{key", OF_LOOKUPS, "not closed"),
        ] {
            let error = Template::parse(text, vocabulary).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
