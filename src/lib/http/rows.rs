//! The rows of a list, as an answer has them.
//!
//! ```text
//! { "a": "1", "b": { "c": 2 } }                        names and their values
//! [ { "key": "a", "value": "1" }, { "key": "b" } ]     the same; what has no value is looked up
//! [ "a", "b" ]                                         names, whose values are looked up
//! ```
//!
//! A value is read as that of a lookup: the text of a string, any other JSON as it is written, and
//! `null` is none.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::outcome::{Failure, Reason};

/// A row, before its value is looked up if it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, relative to the list.
    pub name: String,
    /// Its value, where the answer has one.
    pub value: Option<String>,
}

/// Returns the rows in a JSON document, in its order.
pub fn read(document: &str) -> Result<Vec<Entry>, Failure> {
    let mut json = serde_json::Deserializer::from_str(document);
    let entries = match document.as_bytes().first() {
        Some(b'{' | b'[') => json.deserialize_any(Entries),
        _ => {
            return Err(failure(
                "neither an object nor a list, where rows are expected",
            ));
        }
    };
    let entries =
        entries.map_err(|_| failure("a row that is neither a name nor a key and a value"))?;
    if entries.iter().any(|entry| entry.name.is_empty()) {
        return Err(failure("a row without a name"));
    }
    Ok(entries)
}

fn failure(detail: &'static str) -> Failure {
    Failure::new(Reason::NotUnderstood, detail)
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            // A key whose value is `null` is not there.
            let value = text::<A::Error>(value)?;
            entries.extend(value.map(|value| Entry {
                name,
                value: Some(value),
            }));
        }
        Ok(entries)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(element) = list.next_element::<&RawValue>()? {
            entries.extend(entry::<A::Error>(element)?);
        }
        Ok(entries)
    }
}

/// Reads an element of a list; nothing for a key whose value is `null`.
fn entry<E: serde::de::Error>(element: &RawValue) -> Result<Option<Entry>, E> {
    let raw = element.get();
    match raw.as_bytes().first() {
        Some(b'{') => {
            let pair: Pair<'_> = serde_json::from_str(raw).map_err(E::custom)?;
            let Some(value) = pair.value else {
                return Ok(Some(Entry {
                    name: pair.key,
                    value: None,
                }));
            };
            Ok(text::<E>(value)?.map(|value| Entry {
                name: pair.key,
                value: Some(value),
            }))
        }
        Some(b'"' | b'0'..=b'9' | b'-') => Ok(Some(Entry {
            name: text::<E>(element)?.unwrap_or_default(),
            value: None,
        })),
        _ => Err(E::custom("no row")),
    }
}

#[derive(serde::Deserialize)]
struct Pair<'p> {
    key: String,
    #[serde(borrow, default, deserialize_with = "also_null")]
    value: Option<&'p RawValue>,
}

/// Reads a value that may be `null`, which is not the same as none.
fn also_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

/// Returns the text of a string, other JSON as it is written, and nothing for `null`.
fn text<E: serde::de::Error>(value: &RawValue) -> Result<Option<String>, E> {
    match value.get().as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => serde_json::from_str(value.get())
            .map(Some)
            .map_err(E::custom),
        _ => Ok(Some(value.get().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(document: &str) -> Result<String, String> {
        let entries = read(document).map_err(|failure| failure.detail.into_owned())?;
        let shown = entries.into_iter().map(|entry| match entry.value {
            Some(value) => format!("{}={value}", entry.name),
            None => entry.name,
        });
        Ok(shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn rows_are_read_from_objects_and_lists_in_their_order() {
        for (document, expected) in [
            (
                r#"{"b":"1","a/c":{"d": [2]},"e":3.10,"f":true,"g":""}"#,
                r#"b=1 a/c={"d": [2]} e=3.10 f=true g="#,
            ),
            (r#"{"a":null,"b":"\u00fc\n"}"#, "b=\u{fc}\n"),
            (r#"["b","a/c","\t"]"#, "b a/c \t"),
            (r"[5, -7, 10]", "5 -7 10"),
            (
                r#"[{"key":"a","value":"1","more":[]},{"value":{"b":2},"key":"c"}]"#,
                r#"a=1 c={"b":2}"#,
            ),
            (
                r#"[{"key":"a"},"b",{"key":"c","value":"1"},{"key":"d","value":null}]"#,
                "a b c=1",
            ),
            (r"{}", ""),
            (r"[ ]", ""),
        ] {
            assert_eq!(shown(document).as_deref(), Ok(expected), "{document}");
        }
    }

    #[test]
    fn what_has_no_rows_is_not_understood() {
        for document in [
            r#""a""#,
            "5",
            "true",
            "false",
            r"[[]]",
            r"[null]",
            r"[true]",
            r#"["a", null]"#,
            r#"[{"name":"a"}]"#,
            r#"[{"key":5}]"#,
            r#"[""]"#,
            r#"{"":"a"}"#,
            r#"[{"key":""}]"#,
        ] {
            assert!(
                shown(document).is_err(),
                "{document}: {:?}",
                shown(document)
            );
        }
    }
}
