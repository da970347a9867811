//! The keys of a table of logins: what is offered, and how the answer to a login is read.

use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use toml::de::DeValue;

use super::body::{Body, Json};
use super::file::{Entry, Section, table};
use super::keys::{Key, PLACE, SIGN};
use super::reader::Reader;
use super::values;
use crate::protocol::Facts;
use crate::protocol::sasl::rules::{Logins, Mechanism};

/// How the answer to a login is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginRules {
    /// What the answer to a good login has; if absent, its status is enough.
    pub accepted: Option<Sign>,
    /// Where the answer has the name of the user; if absent, it is the name that was asked for.
    pub user: Option<Place>,
    /// Where the answer has the words of a refusal.
    pub reason: Option<Place>,
    /// Where the answer flags an error.
    pub error: Option<Place>,
    /// Whether a call has a credential of our own, about which a 401 or a 403 may be.
    pub has_own_credential: bool,
}

/// A place in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A JSON Pointer into the body.
    Pointer(String),
    /// A header.
    Header(HeaderName),
}

/// What an answer has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// `true` where this JSON Pointer leads.
    Pointer(String),
    /// A header with this value.
    Header {
        /// Its name.
        name: HeaderName,
        /// Its value.
        is: HeaderValue,
    },
}

/// Reads the settings of a table of logins; those of other tables are never used.
pub(super) fn read(reader: &mut Reader<'_, '_>) -> (Logins, Option<LoginRules>) {
    let mut logins = Logins::default();
    if let Some(mechanisms) = mechanisms(reader) {
        logins.mechanisms = mechanisms;
    }
    if reader.section.is_off("failure-delay") {
        reader.section.take_bool("failure-delay");
        logins.failure_delay = None;
    } else if let Some(entry) = reader.section.take("failure-delay") {
        let delay = values::duration(&entry, reader.report).or(logins.failure_delay);
        let facts = reader.facts();
        let most = Duration::from_secs(facts.max_secs.saturating_sub(1));
        if delay > Some(most) {
            let most = values::written(most);
            let text = format!(
                "must be at most \"{most}\"; with request-timeout that is {} s, and {} gives up \
                 after {} s",
                facts.max_secs, facts.client, facts.client_waits_secs
            );
            reader.error(entry.value.span(), &entry.path, text);
        }
        logins.failure_delay = delay.map(|delay| delay.min(most));
    }
    let accepted = take(reader, "accepted").and_then(|entry| sign(reader, &entry));
    let user = take(reader, "user").and_then(|entry| place(reader, &entry));
    let reason = take(reader, "reason").and_then(|entry| reason(reader, &entry, &mut logins));
    let has_logins = !reader.is_default() && reader.facts().has_logins();
    let rules = has_logins.then(|| LoginRules {
        accepted,
        user,
        reason,
        error: take(reader, "error").and_then(|entry| place(reader, &entry)),
        has_own_credential: false,
    });
    (logins, rules)
}

fn take<'t>(reader: &mut Reader<'_, 't>, name: &'static str) -> Option<Entry<'t>> {
    reader.section.take(name)
}

fn mechanisms(reader: &mut Reader<'_, '_>) -> Option<Vec<Mechanism>> {
    let entry = take(reader, "mechanisms")?;
    let names = values::strings(&entry, reader.report)?;
    let mut found = Vec::new();
    for name in &names {
        let known = Mechanism::WORDS.iter().find(|(word, _)| word == name);
        match known {
            Some((_, mechanism)) if found.contains(mechanism) => {
                reader.error(
                    entry.value.span(),
                    &entry.path,
                    format!("{name:?} is repeated"),
                );
            }
            Some((_, mechanism)) => found.push(*mechanism),
            None => {
                let words = Mechanism::WORDS.map(|(word, _)| word).join(", ");
                let text = format!("{name:?} is not a mechanism; there are {words}");
                reader.error(entry.value.span(), &entry.path, text);
            }
        }
    }
    if names.is_empty() {
        let text = "must have a mechanism: without one, smtpd ends";
        reader.error(entry.value.span(), &entry.path, text);
    }
    (!found.is_empty()).then_some(found)
}

/// Returns the words of every refusal, or the place where an answer has them.
fn reason(reader: &mut Reader<'_, '_>, entry: &Entry<'_>, logins: &mut Logins) -> Option<Place> {
    match entry.value.get_ref() {
        DeValue::String(text) if !text.starts_with('/') => {
            reader.report.layout().harmless.push(entry.value.span());
            let is_short = text.len() <= 200;
            if text.trim().is_empty() || text.contains(char::is_control) || !is_short {
                let text = "must be a line of at most 200 bytes, a JSON Pointer such as \
                            \"/message\", or { header = \"NAME\" }";
                reader.error(entry.value.span(), &entry.path, text);
            } else {
                logins.refusal = text.to_string();
            }
            None
        }
        _ => place(reader, entry),
    }
}

/// Returns a JSON Pointer or a header.
fn place(reader: &mut Reader<'_, '_>, entry: &Entry<'_>) -> Option<Place> {
    if let DeValue::String(_) = entry.value.get_ref() {
        return values::pointer(entry, reader.report).map(Place::Pointer);
    }
    let mut section = members(reader, entry, PLACE)?;
    let name = header_name(reader, &mut section);
    section.finish(reader.report);
    name.map(Place::Header)
}

fn sign(reader: &mut Reader<'_, '_>, entry: &Entry<'_>) -> Option<Sign> {
    if let DeValue::String(_) = entry.value.get_ref() {
        return values::pointer(entry, reader.report).map(Sign::Pointer);
    }
    let mut section = members(reader, entry, SIGN)?;
    let name = header_name(reader, &mut section);
    let is = section.take("is");
    section.finish(reader.report);
    let Some(is) = is else {
        let text = "must have the key is, the value of the header after a good login";
        reader.error(entry.value.span(), &entry.path, text);
        return None;
    };
    let text = values::string(&is, reader.report)?;
    match HeaderValue::from_str(text) {
        Ok(value) if !text.is_empty() && text.trim() == text => Some(Sign::Header {
            name: name?,
            is: value,
        }),
        _ => {
            let text = "is empty or contains a character that cannot be sent in a header";
            reader.error(is.value.span(), &is.path, text);
            None
        }
    }
}

fn members<'t>(
    reader: &mut Reader<'_, '_>,
    entry: &Entry<'t>,
    keys: &'static [Key],
) -> Option<Section<'t>> {
    let DeValue::Table(_) = entry.value.get_ref() else {
        let text = "must be a JSON Pointer such as \"/member\", or a table with the key header";
        reader.error(entry.value.span(), &entry.path, text);
        return None;
    };
    let table = table(entry, reader.report)?;
    Some(Section::new(
        &entry.path,
        entry.key_span.clone(),
        table,
        keys,
    ))
}

fn header_name(reader: &mut Reader<'_, '_>, section: &mut Section<'_>) -> Option<HeaderName> {
    let Some(entry) = section.take("header") else {
        let (span, path) = (section.span.clone(), section.path.clone());
        reader.error(
            span,
            &path,
            "must have the key header, the name of a header",
        );
        return None;
    };
    let text = values::string(&entry, reader.report)?;
    let name = HeaderName::try_from(text).ok();
    if name.is_none() {
        reader.error(entry.value.span(), &entry.path, "is not a header name");
    }
    name
}

/// Returns the JSON that is sent where nothing else carries a login.
pub(super) fn default_body(reader: &Reader<'_, '_>, secrets: &[&'static str]) -> Body {
    let names = ["username"].into_iter().chain(secrets.iter().copied());
    let names = names.chain(["client_address", "mechanism", "service"]);
    let members = names.map(|name| {
        let template = reader.parse_template(&format!("{{{name}}}"));
        (name.to_owned(), Json::Text(template.unwrap_or_default()))
    });
    Body::Json(Json::Object(members.collect()))
}

/// The most time that a call may take, if a refusal is kept back for so long after it.
pub(super) fn longest_call(facts: &Facts, logins: &Logins) -> Duration {
    let most = Duration::from_secs(facts.max_secs);
    match logins.failure_delay {
        Some(delay) if facts.has_logins() => most.saturating_sub(delay),
        _ => most,
    }
}
