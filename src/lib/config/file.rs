//! The file as it is written: every value with its place, in layers that inherit from each other.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Key, Kind};
use super::problem::{Layout, Report};

/// A key and its value, with their places.
#[derive(Clone, Debug)]
pub(super) struct Entry<'t> {
    /// The key with the tables around it, such as `socketmap.users.target`.
    pub(super) path: String,
    pub(super) key: &'t str,
    pub(super) key_span: Range<usize>,
    pub(super) value: &'t Spanned<DeValue<'t>>,
}

impl Entry<'_> {
    /// Returns whether this entry removes an inherited one.
    fn is_false(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Boolean(false))
    }

    pub(super) fn is_true(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Boolean(true))
    }
}

/// A table, and below it those from which it inherits.
#[derive(Debug, Default)]
pub(super) struct Section<'t> {
    pub(super) path: String,
    /// The place of the name of the table, to report what is missing.
    pub(super) span: Range<usize>,
    /// The entries of each table, the lowest first; the last is the table itself.
    layers: Vec<Vec<Entry<'t>>>,
    keys: &'static [Key],
    kind: Kind,
    taken: Vec<&'static str>,
}

impl<'t> Section<'t> {
    /// Makes a section of a table that has these keys.
    pub(super) fn new(
        path: &str,
        span: Range<usize>,
        table: &'t DeTable<'t>,
        keys: &'static [Key],
    ) -> Self {
        Self {
            path: path.to_owned(),
            span,
            layers: vec![entries(path, table)],
            keys,
            ..Self::default()
        }
    }

    /// Limits the keys to those of one kind of table.
    pub(super) fn of(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Limits the keys to those of another kind. Keys that are taken before stay taken.
    pub(super) fn turn_into(&mut self, kind: Kind) {
        self.kind = kind;
    }

    /// Lets this section inherit from a table.
    pub(super) fn over(mut self, base: Option<(&str, &'t DeTable<'t>)>) -> Self {
        if let Some((path, table)) = base {
            self.layers.insert(0, entries(path, table));
        }
        self
    }

    /// Returns the entry of a key in the table itself.
    pub(super) fn own(&self, name: &str) -> Option<&Entry<'t>> {
        let own = self.layers.last()?;
        own.iter().find(|entry| entry.key == name)
    }

    /// Inherits only what says nothing of requests and answers.
    pub(super) fn inherit_general_keys(&mut self) {
        let own = self.layers.len().saturating_sub(1);
        for layer in self.layers.iter_mut().take(own) {
            let key = |name: &str| self.keys.iter().find(|key| key.name == name);
            layer.retain(|entry| key(entry.key).is_some_and(|key| key.is_general));
        }
    }

    /// Takes the entry of a key; `false` removes an inherited one.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Entry<'t>> {
        let (_, entry) = self.take_all(name).into_iter().next_back()?;
        (!entry.is_false()).then_some(entry)
    }

    /// Takes the entry of a key for which `false` is a value.
    pub(super) fn take_bool(&mut self, name: &'static str) -> Option<Entry<'t>> {
        self.take_all(name).into_iter().next_back().map(|(_, e)| e)
    }

    /// Returns whether the nearest entry of a key is `false`.
    pub(super) fn is_off(&self, name: &str) -> bool {
        let named = |layer: &'_ Vec<Entry<'t>>| layer.iter().position(|entry| entry.key == name);
        let nearest = self
            .layers
            .iter()
            .rev()
            .find_map(|layer| Some(&layer[named(layer)?]));
        nearest.is_some_and(Entry::is_false)
    }

    /// Takes a table whose members are inherited one by one.
    pub(super) fn take_members(&mut self, name: &'static str, report: &mut Report) -> Option<Self> {
        let mut members: Option<Self> = None;
        let own = self.layers.len().saturating_sub(1);
        let mut nearest = own;
        for (layer, entry) in self.take_all(name) {
            nearest = layer;
            // "tls = false" removes everything that stands below it.
            if entry.is_false() {
                members = None;
                continue;
            }
            let Some(table) = table(&entry, report) else {
                continue;
            };
            let layer = entries(&entry.path, table);
            match &mut members {
                Some(section) => section.layers.push(layer),
                None => {
                    members = Some(Self {
                        layers: vec![layer],
                        keys: self.key(name).map_or(&[], |key| key.members),
                        kind: self.kind,
                        ..Self::default()
                    });
                }
            }
            if let Some(section) = &mut members {
                section.path = entry.path;
                section.span = entry.value.span();
            }
        }
        // An inherited table may have keys of other protocols: an empty layer above it has none to
        // be reported.
        if let Some(section) = members.as_mut().filter(|_| nearest < own) {
            section.layers.push(Vec::new());
        }
        members
    }

    /// Returns the nearest entry of each key that was not taken, in the order of the file, with its
    /// distance: how many layers it stands below the table itself.
    pub(super) fn rest(self) -> Vec<(usize, Entry<'t>)> {
        let mut rest: Vec<(usize, Entry<'t>)> = Vec::new();
        let below = (0..self.layers.len()).rev();
        for (below, layer) in below.zip(self.layers) {
            for entry in layer {
                // Names of headers are the same in any case (RFC 9110, section 5.1).
                rest.retain(|(_, e)| !e.key.eq_ignore_ascii_case(entry.key));
                if !entry.is_false() {
                    rest.push((below, entry));
                }
            }
        }
        rest
    }

    /// Returns which of these keys has the nearest entry, and its distance.
    pub(super) fn nearest(&self, names: &[&'static str]) -> Option<(usize, &'static str)> {
        let place = |name: &'static str| {
            let named = |layer: &'_ Vec<Entry<'t>>| layer.iter().position(|e| e.key == name);
            let mut layers = self.layers.iter().rev().enumerate();
            let (below, entry) = layers.find_map(|(i, layer)| Some((i, &layer[named(layer)?])))?;
            (!entry.is_false()).then_some((below, name))
        };
        names.iter().filter_map(|name| place(name)).min()
    }

    /// Drops the entries of these keys that stand further away than this distance.
    pub(super) fn keep_nearest(&mut self, below: usize, names: &[&str]) {
        let lower = self.layers.len().saturating_sub(below.saturating_add(1));
        for layer in self.layers.iter_mut().take(lower) {
            layer.retain(|entry| !names.contains(&entry.key));
        }
    }

    /// Reports entries of unknown keys in the table itself. Inherited ones are reported where they
    /// stand.
    pub(super) fn finish(self, report: &mut Report) {
        let keys = self.keys.iter().filter(|key| key.is_of(self.kind));
        let known: Vec<_> = keys.map(|key| key.name).collect();
        let unread = known.iter().find(|name| !self.taken.contains(name));
        debug_assert_eq!(unread, None, "nothing reads this key of {}", self.path);
        for entry in self.layers.into_iter().next_back().into_iter().flatten() {
            let text = match self.keys.iter().find(|key| key.name == entry.key) {
                Some(key) => key.refusal(self.kind),
                None => unknown("key", entry.key, &known),
            };
            report.error(entry.key_span, &entry.path, text);
        }
    }

    fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    fn take_all(&mut self, name: &'static str) -> Vec<(usize, Entry<'t>)> {
        let key = self.key(name);
        debug_assert!(key.is_some(), "{name} is not in the table of keys");
        self.taken.push(name);
        let mut found = Vec::new();
        if !key.is_some_and(|key| key.is_of(self.kind)) {
            return found;
        }
        for (i, layer) in self.layers.iter_mut().enumerate() {
            if let Some(at) = layer.iter().position(|entry| entry.key == name) {
                found.push((i, layer.remove(at)));
            }
        }
        found
    }
}

/// Returns the entries of a table, in the order of the file.
pub(super) fn entries<'t>(path: &str, table: &'t DeTable<'t>) -> Vec<Entry<'t>> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| Entry {
            path: join(path, key.get_ref()),
            key: key.get_ref(),
            key_span: key.span(),
            value,
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    entries
}

/// Returns the table in an entry, or reports that it is none.
pub(super) fn table<'t>(entry: &Entry<'t>, report: &mut Report) -> Option<&'t DeTable<'t>> {
    match entry.value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => {
            report.error(entry.value.span(), &entry.path, "must be a table");
            None
        }
    }
}

/// Returns the message for an unknown word, with the known one that is nearest.
pub(super) fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), *name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1) || has_stem_of(word, name))
        .min();
    match nearest {
        Some((_, name)) => format!("unknown {what}; did you mean \"{name}\"?"),
        None => format!("unknown {what}"),
    }
}

/// Returns whether most of a word, and at least four characters, is how the name begins as well:
/// "retry" is near to "retries".
fn has_stem_of(word: &str, name: &str) -> bool {
    let same = word.chars().zip(name.chars()).take_while(|(a, b)| a == b);
    let stem = same.count();
    stem >= 4 && stem * 5 >= word.chars().count() * 4
}

/// Notes the places of the keys and values of a table, and of the tables in it.
pub(super) fn lay_out(table: &DeTable<'_>, layout: &mut Layout) {
    for (key, value) in table.iter() {
        layout.keys.push(key.span());
        lay_out_value(value, layout);
    }
}

fn lay_out_value(value: &Spanned<DeValue<'_>>, layout: &mut Layout) {
    match value.get_ref() {
        DeValue::Table(table) => lay_out(table, layout),
        DeValue::Array(array) => array.iter().for_each(|v| lay_out_value(v, layout)),
        _ => layout.values.push(value.span()),
    }
}

fn join(path: &str, key: &str) -> String {
    let is_bare = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let dot = if path.is_empty() { "" } else { "." };
    if is_bare {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}{key:?}")
    }
}
