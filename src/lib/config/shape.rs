//! The shapes of values as TOML, for `show`.

use std::borrow::Cow;
use std::time::Duration;

use reqwest::header::HeaderValue;
use serde::{Serialize, Serializer};

use super::keys::{Key, Kind};
use super::secret::{HIDDEN, Source};
use super::template::Template;
use super::values;

/// The shapes that a value can have.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Shape<'c> {
    Text(String),
    Number(usize),
    Flag(bool),
    Strings(&'c [String]),
    List(Vec<Self>),
    Table(Pairs<'c>),
}

/// A table, its members in the order given.
pub(super) struct Pairs<'c>(pub(super) Vec<(Cow<'c, str>, Shape<'c>)>);

impl<'c, N: Into<Cow<'c, str>>> FromIterator<(N, Shape<'c>)> for Pairs<'c> {
    fn from_iter<I: IntoIterator<Item = (N, Shape<'c>)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter();
        Self(pairs.map(|(name, value)| (name.into(), value)).collect())
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Returns a table in the order of its keys, without those that have no value.
pub(super) fn table<'c>(
    keys: &[Key],
    kind: Kind,
    mut values: Vec<(&'static str, Option<Shape<'c>>)>,
) -> Pairs<'c> {
    let keys = keys.iter().filter(|key| key.is_of(kind));
    let pairs = keys.filter_map(|key| {
        let at = values.iter().position(|(name, _)| *name == key.name);
        debug_assert!(at.is_some(), "the key {} is not shown", key.name);
        let (name, value) = values.swap_remove(at?);
        Some((name, value?))
    });
    pairs.collect()
}

/// The values of keys, in any order.
pub(super) type Values<'c> = Vec<(&'static str, Option<Shape<'c>>)>;

pub(super) fn header_value(value: &HeaderValue) -> Shape<'static> {
    text(String::from_utf8_lossy(value.as_bytes()))
}

pub(super) fn text(value: impl ToString) -> Shape<'static> {
    Shape::Text(value.to_string())
}

pub(super) fn duration(duration: Duration) -> Shape<'static> {
    text(values::written(duration))
}

/// Returns the word for a value, or `false` for a value without a word.
pub(super) fn word<T: PartialEq>(words: &[(&str, T)], value: &T) -> Shape<'static> {
    let found = words.iter().find(|(_, of)| of == value);
    found.map_or(Shape::Flag(false), |(word, _)| text(word))
}

pub(super) fn some_strings(list: &[String]) -> Option<Shape<'_>> {
    (!list.is_empty()).then_some(Shape::Strings(list))
}

pub(super) fn some_table(table: Pairs<'_>) -> Option<Shape<'_>> {
    (!table.0.is_empty()).then_some(Shape::Table(table))
}

pub(super) fn hidden() -> Shape<'static> {
    text(HIDDEN)
}

/// Returns a template with its constants hidden: any of them may be a token.
pub(super) fn template(template: &Template) -> Shape<'static> {
    text(template.without_constants(HIDDEN))
}

/// Returns the place of a secret. One that stands in the configuration itself is hidden.
pub(super) fn source(source: &Source) -> Shape<'_> {
    let (kind, place) = match source {
        Source::Text => return hidden(),
        Source::Credential(name) => ("credential", name.clone()),
        Source::File(path) => ("file", path.display().to_string()),
        Source::Environment(name) => ("env", name.clone()),
    };
    Shape::Table([(kind, Shape::Text(place))].into_iter().collect())
}
