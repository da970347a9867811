//! What a table can do besides lookups: sub-tables with a request of their own, and everything else
//! of the table.

use std::ops::Range;

use reqwest::Method;
use reqwest::header::HeaderName;

use super::body::{self, Body, Parameters};
use super::file::{Entry, Section, entries, table};
use super::headers::{self, HeaderText};
use super::keys::{Kind, OPERATION};
use super::problem::Report;
use super::reader::Reader;
use super::secret::SecretPolicy;
use super::target::{self, Target};
use super::template::Wanted;
use super::values;
use crate::protocol::facts::{Content, Operation};

/// The calls for what a table can do besides lookups, if it has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Operations<C> {
    /// For lists.
    pub iterate: Option<Box<C>>,
    /// For operations that set a key.
    pub set: Option<Box<C>>,
    /// For operations that remove a key.
    pub unset: Option<Box<C>>,
    /// For operations that add to a number.
    pub increment: Option<Box<C>>,
    /// For whole transactions, in place of those for single operations.
    pub commit: Option<Box<C>>,
}

impl<C> Default for Operations<C> {
    fn default() -> Self {
        Self {
            iterate: None,
            set: None,
            unset: None,
            increment: None,
            commit: None,
        }
    }
}

impl<C> Operations<C> {
    /// Returns them with their names.
    pub fn named(&self) -> [(&'static str, Option<&C>); 5] {
        [
            ("iterate", self.iterate.as_deref()),
            ("set", self.set.as_deref()),
            ("unset", self.unset.as_deref()),
            ("increment", self.increment.as_deref()),
            ("commit", self.commit.as_deref()),
        ]
    }

    /// Puts a call in its place.
    pub(super) fn put(&mut self, operation: &Operation, call: C) {
        let place = match operation.name {
            "iterate" => &mut self.iterate,
            "set" => &mut self.set,
            "unset" => &mut self.unset,
            "increment" => &mut self.increment,
            _ => &mut self.commit,
        };
        *place = Some(Box::new(call));
    }
}

/// The request of a sub-table.
pub(super) struct Own {
    pub(super) of: &'static Operation,
    pub(super) targets: Vec<Target>,
    pub(super) method: Method,
    pub(super) query: Parameters,
    pub(super) body: Body,
    pub(super) headers: Vec<(HeaderName, HeaderText)>,
    /// The headers of the table that it sets or removes.
    pub(super) replaced: Vec<HeaderName>,
    /// Where in the answer the rows are.
    pub(super) value: Option<String>,
}

/// Takes the sub-tables out of a table.
pub(super) fn take<'t>(reader: &mut Reader<'_, 't>) -> Vec<(&'static Operation, Entry<'t>)> {
    let operations = reader.facts().operations.iter();
    let taken = operations.filter_map(|one| Some((one, reader.section.take(one.name)?)));
    taken.collect()
}

/// Reads the sub-tables of a table.
pub(super) fn read(
    taken: Vec<(&'static Operation, Entry<'_>)>,
    secret_policy: SecretPolicy,
    report: &mut Report,
) -> Vec<Own> {
    let whole = taken.iter().find(|(one, _)| one.call.has_whole_json);
    let single = |one: &Operation| one.call.content == Content::Written && !one.call.has_whole_json;
    if let Some((whole, _)) = whole {
        for (_, entry) in taken.iter().filter(|(one, _)| single(one)) {
            let text = format!(
                "{} is there as well, and takes whole transactions in place of single operations; \
                 remove one of them",
                whole.name
            );
            report.error(entry.key_span.clone(), &entry.path, text);
        }
    }
    let taken = taken.iter();
    let owns = taken.filter_map(|(one, entry)| own(one, entry, secret_policy, report));
    owns.collect()
}

fn own(
    one: &'static Operation,
    entry: &Entry<'_>,
    secret_policy: SecretPolicy,
    report: &mut Report,
) -> Option<Own> {
    let own = table(entry, report)?;
    let rejected_before = report.rejected();
    let section = Section::new(&entry.path, entry.key_span.clone(), own, OPERATION)
        .of(Kind::Asking(one.call));
    let replaced = replaced_headers(&section);
    let calls = [one.call];
    let mut reader = Reader::new(section, &calls, secret_policy, report);
    let targets = target::read(&mut reader);
    let (method, query, body) = body::read(&mut reader, &targets);
    let headers = headers::read_own(&mut reader);
    let value = reader.section.take("value");
    let value = value.and_then(|entry| values::pointer(&entry, reader.report));
    let (span, path) = reader.place();
    reader.section.finish(reader.report);
    let own = Own {
        of: one,
        targets,
        method,
        query,
        body,
        headers,
        replaced,
        value,
    };
    // A value that was rejected may have had what is missing.
    if report.rejected() == rejected_before {
        report_missing(&own, (span, path), report);
    }
    (!own.targets.is_empty()).then_some(own)
}

/// Returns the names of the headers that a sub-table sets or removes.
fn replaced_headers(section: &Section<'_>) -> Vec<HeaderName> {
    let Some(entry) = section.own("headers") else {
        return Vec::new();
    };
    match entry.value.get_ref() {
        toml::de::DeValue::Table(table) => entries(&entry.path, table)
            .iter()
            .filter_map(|entry| HeaderName::try_from(entry.key).ok())
            .collect(),
        _ => Vec::new(),
    }
}

/// Reports a call that does not carry what it is for.
fn report_missing(own: &Own, (span, path): (Range<usize>, String), report: &mut Report) {
    let call = own.of.call;
    let carries = |name| {
        let wanted = Wanted::value(name);
        body::carries(&own.targets, &own.query, &own.body, &own.headers, wanted)
    };
    let text = if call.has_whole_json {
        let has_all = matches!(&own.body, Body::Json(json) if json.has_all());
        if has_all {
            return;
        }
        "the operations are sent nowhere; write json = \"{*}\", or \"{*}\" in it".to_owned()
    } else if call.raw_value.is_some() && own.body == Body::None {
        "needs a body: write body = \"{value}\", or form or json with {value}".to_owned()
    } else if let Some(value) = call.raw_value.filter(|value| !carries(value)) {
        format!("the value is sent nowhere; write {{{value}}} in form or json")
    } else if !["key", "scope", "user"].into_iter().any(carries) {
        "the call is the same for every key; write {key} or {/path*} in target, or {key} in query, \
         form, json or headers"
            .to_owned()
    } else {
        return;
    };
    report.error(span, &path, text);
}
