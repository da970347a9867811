//! Texts with placeholders: `{key}`; `{{` and `}}` are braces.

use std::fmt;

use crate::protocol::{self, Facts};

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
    /// The name of the map or table.
    Name,
    /// The key up to its last `@`.
    Local,
    /// The key from its last `@` on.
    Domain,
}

/// Which placeholders a text may have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vocabulary<'v> {
    /// The protocols of the text, which may have the placeholders of each of them.
    pub protocols: &'v [&'static Facts],
    /// Further attributes that the operator has named.
    pub extra: &'v [String],
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

    fn known(self) -> &'static str {
        let any = |has: fn(&Facts) -> bool| self.protocols.iter().any(|facts| has(facts));
        match (any(|facts| facts.key.is_some()), any(|facts| facts.is_open)) {
            (true, false) => "lookups have {key}, {name}, {local} and {domain}",
            (false, true) => {
                "policy has the attributes of SMTPD_POLICY_README and those in extra-attributes"
            }
            _ => "[http] can have those of lookups and those of policy",
        }
    }
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

    /// Returns whether the text has a placeholder.
    pub fn has_placeholder(&self) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Placeholder(_)))
    }

    /// Returns whether the text differs between the requests of one table. The name of a map does
    /// not depend on the key, and `request` is always `smtpd_access_policy`.
    pub(super) fn varies(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Literal(_) | Part::Placeholder(Placeholder::Name) => false,
            Part::Placeholder(Placeholder::Value(name)) => !is_constant(name),
            Part::Placeholder(_) => true,
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
    if any(&|facts| facts.key.is_some())
        && let Some((_, found)) = LOOKUP.iter().find(|(n, _)| *n == name)
    {
        return Ok(found.clone());
    }
    let is_extra = vocabulary.extra.iter().any(|extra| extra == name);
    if is_extra || any(&|facts| facts.values.contains(&name)) {
        return Ok(Placeholder::Value(name.to_owned()));
    }
    // A text that does not look like a name may be part of a secret.
    let is_name = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'*');
    let shown = if is_name { name } else { "…" };
    let known = vocabulary.known();
    Err(format!("\"{{{shown}}}\" is not a placeholder: {known}"))
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(text) => {
                    f.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                Part::Placeholder(Placeholder::Value(name)) => write!(f, "{{{name}}}")?,
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
    };
    const OF_POLICY: Vocabulary<'static> = Vocabulary {
        protocols: &[Policy::FACTS],
        extra: &[],
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
    fn a_text_with_an_unknown_placeholder_is_refused() {
        for (text, vocabulary, expected) in [
            ("{kee}", OF_LOOKUPS, "\"{kee}\" is not a placeholder"),
            ("{sender}", OF_LOOKUPS, "lookups have {key}"),
            ("{key}", OF_POLICY, "policy has the attributes"),
            ("{x_y}", OF_POLICY, "extra-attributes"),
            ("{*}", OF_POLICY, "\"{*}\" is not a placeholder"),
            ("a{key", OF_LOOKUPS, "not closed"),
        ] {
            let error = Template::parse(text, vocabulary).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
