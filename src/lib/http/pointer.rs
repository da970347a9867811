//! JSON Pointers (RFC 6901) into an answer, which is not read into a tree.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

/// The result of following a JSON Pointer.
pub enum Pointed<'j> {
    /// There is a value.
    At(&'j RawValue),
    /// An object, a list or `null` has no such member.
    Nowhere,
    /// The answer has another shape, so that it says nothing about the key.
    Wrong,
}

/// Returns the member that may flag an error. Where the pointer meets a value without members, it
/// is that value: an API that usually sends `{"error": {"message": "down"}}` may send `{"error":
/// "down"}`.
pub fn error_member<'j>(root: &'j RawValue, mut error: &str, value: &str) -> Option<&'j RawValue> {
    loop {
        match follow(root, error) {
            Pointed::At(member) => return Some(member),
            Pointed::Nowhere => return None,
            Pointed::Wrong => (error, _) = error.rsplit_once('/')?,
        }
        // A member that also holds the value, as the whole answer does, flags no error.
        let rest = value.strip_prefix(error);
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return None;
        }
    }
}

/// Returns whether a member flags an error. As text it may be one that flags none.
pub fn flags_error(member: &RawValue, no_error: &[String]) -> bool {
    let raw = member.get();
    let text = match raw.as_bytes().first() {
        Some(b'"') => match serde_json::from_str(raw) {
            Ok(text) => text,
            // A string that is not Unicode, and so not empty.
            Err(_) => return true,
        },
        _ => raw.to_owned(),
    };
    let is_zero = || text.parse().is_ok_and(|number: f64| number == 0.0);
    let is_nothing = match raw.as_bytes().first() {
        Some(b'"') => text.is_empty(),
        Some(b'n' | b'f') => true,
        Some(b'[' | b'{') => raw[1..raw.len() - 1].trim().is_empty(),
        Some(b't') => false,
        _ => is_zero(),
    };
    !is_nothing && !no_error.contains(&text)
}

/// Follows a JSON Pointer.
pub fn follow<'j>(root: &'j RawValue, pointer: &str) -> Pointed<'j> {
    walk(root, pointer, Repeats::LastCounts)
}

/// Follows a JSON Pointer as `follow` does, where a name that occurs more than once has no meaning.
pub fn follow_only<'j>(root: &'j RawValue, pointer: &str) -> Pointed<'j> {
    walk(root, pointer, Repeats::AreWrong)
}

fn walk<'j>(root: &'j RawValue, pointer: &str, repeats: Repeats) -> Pointed<'j> {
    let mut value = root;
    for token in pointer.split('/').skip(1) {
        let token = match token.contains('~') {
            true => Cow::Owned(token.replace("~1", "/").replace("~0", "~")),
            false => Cow::Borrowed(token),
        };
        let member = Member(&token, repeats);
        let raw = value.get();
        let is_list = raw.starts_with('[');
        // PHP and others write an object without members as a list.
        let is_empty_list = is_list && raw[1..raw.len() - 1].trim().is_empty();
        match raw.as_bytes().first() {
            Some(b'n') => return Pointed::Nowhere,
            Some(b'[') if is_empty_list => return Pointed::Nowhere,
            Some(b'[') if member.index().is_none() => return Pointed::Wrong,
            Some(b'[' | b'{') => {}
            _ => return Pointed::Wrong,
        }
        match serde_json::Deserializer::from_str(raw).deserialize_any(member) {
            Ok(Some(found)) => value = found,
            Ok(None) => return Pointed::Nowhere,
            Err(_) => return Pointed::Wrong,
        }
    }
    Pointed::At(value)
}

/// What names mean that occur more than once in an object.
#[derive(Clone, Copy, PartialEq)]
enum Repeats {
    LastCounts,
    AreWrong,
}

/// Reads an object or a list and returns the member of this name or index. Nothing else of it is
/// kept in memory.
#[derive(Clone, Copy)]
struct Member<'t>(&'t str, Repeats);

impl Member<'_> {
    /// Returns the index that a token stands for (RFC 6901, section 4).
    fn index(self) -> Option<usize> {
        let is_index = self.0 == "0" || !self.0.starts_with(['0', '+']);
        is_index.then(|| self.0.parse().ok())?
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(IsName(self.0))? {
            if is_it {
                if found.is_some() && self.1 == Repeats::AreWrong {
                    return Err(A::Error::custom("a name that occurs twice"));
                }
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut at = 0;
        while let Some(value) = list.next_element::<&RawValue>()? {
            if Some(at) == self.index() {
                found = Some(value);
            }
            at += 1;
        }
        Ok(found)
    }
}

/// Reads a name and returns whether it is this one. No name is copied.
struct IsName<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<bool, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// Returns what a pointer that has no value has missed, or what stands in its way, in words of the
/// configuration.
pub fn missed(root: &RawValue, pointer: &str) -> String {
    let (mut parent, mut value) = ("", root);
    loop {
        let rest = &pointer[parent.len()..];
        let token = rest.get(1..).unwrap_or_default().split('/').next();
        let token = token.unwrap_or_default();
        let next = &pointer[..(parent.len() + 1 + token.len()).min(pointer.len())];
        match follow(root, next) {
            Pointed::At(found) if next.len() < pointer.len() => (parent, value) = (next, found),
            _ => return missed_in(parent, value, token),
        }
    }
}

fn missed_in(parent: &str, value: &RawValue, token: &str) -> String {
    let raw = value.get();
    let is_index = Member(token, Repeats::LastCounts).index().is_some();
    let kind = match raw.as_bytes().first() {
        Some(b'{') => None,
        Some(b'[') if raw[1..raw.len() - 1].trim().is_empty() => Some("an empty list"),
        Some(b'[') if is_index => None,
        Some(b'[') => Some("a list"),
        Some(b'"') => Some("a string"),
        Some(b'n') => Some("null"),
        Some(b't' | b'f') => Some("true or false"),
        _ => Some("a number"),
    };
    match (kind, parent) {
        (None, "") => format!("no {token:?}"),
        (None, parent) => format!("no {token:?} in {parent:?}"),
        (Some(kind), "") => format!("the answer is {kind}"),
        (Some(kind), parent) => format!("{parent:?} is {kind}"),
    }
}

/// Returns the first names of the members of the object where a pointer has missed one.
pub fn members(root: &RawValue, pointer: &str) -> Vec<String> {
    let mut at = pointer;
    while let Some((parent, _)) = at.rsplit_once('/') {
        if let Pointed::At(value) = follow(root, parent) {
            let names = serde_json::Deserializer::from_str(value.get()).deserialize_any(Names);
            return names.unwrap_or_default();
        }
        at = parent;
    }
    Vec::new()
}

/// Reads an object and returns the first names of its members.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        const MOST: usize = 8;
        let mut names = Vec::new();
        while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
            if names.len() < MOST {
                names.push(name);
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_that_points_nowhere_says_what_it_has_missed_and_what_there_is() {
        let root = r#"{"data": {"id": 1, "a/b": {"x": 2}}, "list": [1], "none": null,
            "empty": [], "word": "w"}"#;
        let root: &RawValue = serde_json::from_str(root).unwrap();
        for (pointer, expected, there) in [
            (
                "/mail",
                "no \"mail\"",
                vec!["data", "list", "none", "empty", "word"],
            ),
            ("/data/mail", "no \"mail\" in \"/data\"", vec!["id", "a/b"]),
            ("/data/a~1b/y", "no \"y\" in \"/data/a~1b\"", vec!["x"]),
            (
                "/mail/address",
                "no \"mail\"",
                vec!["data", "list", "none", "empty", "word"],
            ),
            ("/list/1", "no \"1\" in \"/list\"", vec![]),
            ("/none/x", "\"/none\" is null", vec![]),
            ("/list/x", "\"/list\" is a list", vec![]),
            ("/list/0/x", "\"/list/0\" is a number", vec![]),
            ("/empty/0", "\"/empty\" is an empty list", vec![]),
            ("/word/x/y", "\"/word\" is a string", vec![]),
        ] {
            assert!(!matches!(follow(root, pointer), Pointed::At(_)));
            assert_eq!(missed(root, pointer), expected, "{pointer}");
            assert_eq!(members(root, pointer), there, "{pointer}");
        }
    }
}
