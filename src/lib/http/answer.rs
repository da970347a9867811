//! The table HTTP → outcome, the only one.
//!
//! | HTTP | lookups | policy |
//! |---|---|---|
//! | 200 with a value | found | found |
//! | 200 with `null`, `false`, `""`, `[]`, or an empty text | not found | temporary |
//! | 204 | not found | not found |
//! | 404 | not found | permanent |
//! | 401, 403, 407, 408, 425, 429, 5xx, anything not in this table | temporary | temporary |
//! | 3xx and every other 4xx | permanent | permanent |
//! | any other 2xx; a 200 that cannot be read | temporary | temporary |
//!
//! The operator's `status` comes before this table, an exact status before a class.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::looks::{is_html, looks, trim_text};
use super::pointer::{Pointed, error_member, flags_error, follow, members, missed};

use crate::config::{Missing, Response, ResponseRules, Verdict};
use crate::observe::verbose;
use crate::outcome::{Failure, Outcome, Reason, is_blank};
use crate::protocol::facts::{Content, Meaning};

/// Returns the meaning of a status, which is looked at before the body.
pub fn verdict(status: u16, rules: &ResponseRules) -> Verdict {
    let is_write = rules.protocol.content == Content::Written;
    // What the operator says of lookups and lists would be wrong for a write.
    let configured = rules.status.verdict(status).filter(|_| !is_write);
    configured.unwrap_or_else(|| match status {
        200..=299 if is_write => Verdict::Found,
        200 => Verdict::Found,
        204 => Verdict::NotFound,
        404 => meaning(rules.protocol.status_404),
        401 | 403 | 407 | 408 | 425 | 429 => Verdict::Temporary,
        300..=499 => Verdict::Permanent,
        _ => Verdict::Temporary,
    })
}

/// Returns the rule by which a status decides, for people.
pub fn rule_of_status(status: u16, rules: &ResponseRules) -> String {
    match rules.status.verdict(status) {
        Some(_) => format!("{status}, by \"status\""),
        None => status.to_string(),
    }
}

/// Returns the rule by which a body decides, for people.
pub fn rule_of_body(status: u16, content_type: &str, body: &[u8], rules: &ResponseRules) -> String {
    let kind = match (rules.response, is_json(content_type)) {
        (Response::Json, _) => "JSON",
        (Response::Text, _) => "text",
        (Response::Auto, true) => "JSON, by its content type",
        (Response::Auto, false) => "text, by its content type",
    };
    let value = match value(content_type, body, rules) {
        Ok(Value::Text(_)) => "a value",
        Ok(Value::Empty) => "empty",
        Ok(Value::Nowhere(_)) if rules.missing == Missing::NotFound => "missing = \"not-found\"",
        Ok(Value::Nowhere(_)) => "missing = \"temporary\"",
        Err(_) => "no value",
    };
    let pointer = match &rules.value {
        Some(pointer) => format!(" at {pointer:?}"),
        None => String::new(),
    };
    format!("{status}, read as {kind}: {value}{pointer}")
}

fn meaning(meaning: Meaning) -> Verdict {
    match meaning {
        Meaning::NotFound => Verdict::NotFound,
        Meaning::Done => Verdict::Done,
        Meaning::Temporary => Verdict::Temporary,
        Meaning::Permanent => Verdict::Permanent,
    }
}

/// Returns the outcome of a status whose body is not read.
pub fn without_body(status: u16, verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Found | Verdict::Temporary => Outcome::Temporary(Reason::Answered(status).into()),
        Verdict::NotFound => Outcome::NotFound,
        Verdict::Done => Outcome::Done,
        Verdict::Permanent => Outcome::Permanent(Reason::Answered(status).into()),
    }
}

/// Returns the outcome of an answer that comes from a proxy or another server, and not from the
/// API.
pub fn not_from_the_api(status: u16) -> Outcome {
    let detail = format!("{status} without the header of \"require-header\"");
    Outcome::Temporary(failure(detail))
}

/// Returns the outcome of a body.
pub fn read(content_type: &str, body: &[u8], rules: &ResponseRules) -> Outcome {
    if rules.protocol.content == Content::Written {
        return written(
            content_type,
            is_read_as_json(content_type, rules),
            body,
            rules,
        );
    }
    match value(content_type, body, rules) {
        // Checked here for all kinds of values: a list, too, may be joined to nothing but blanks.
        Ok(Value::Text(text)) if rules.protocol.content == Content::Value && is_blank(&text) => {
            not_understood("the value has no word in it")
        }
        Ok(Value::Text(text)) => Outcome::Found(text),
        Ok(Value::Nowhere(_)) if rules.missing == Missing::NotFound => Outcome::NotFound,
        Ok(Value::Nowhere(why)) => Outcome::Temporary(failure(why)),
        Ok(Value::Empty) if rules.protocol.empty == Meaning::NotFound => Outcome::NotFound,
        Ok(Value::Empty) => not_understood("empty where an action is expected"),
        Err(failure) => Outcome::Temporary(failure),
    }
}

fn value(content_type: &str, body: &[u8], rules: &ResponseRules) -> Result<Value, Failure> {
    match rules.protocol.content {
        _ if is_read_as_json(content_type, rules) => read_json(content_type, body, rules),
        Content::Text => read_whole_text(content_type, body),
        _ => read_text(content_type, body),
    }
}

fn is_read_as_json(content_type: &str, rules: &ResponseRules) -> bool {
    match rules.response {
        Response::Json => true,
        Response::Text => false,
        Response::Auto => is_json(content_type),
    }
}

/// The value in a body.
enum Value {
    Text(String),
    /// `null`, `false`, or an empty string, list or text.
    Empty,
    /// There is no value where `value` points, and what it has missed.
    Nowhere(String),
}

fn failure(detail: impl Into<Cow<'static, str>>) -> Failure {
    Failure::new(Reason::NotUnderstood, detail)
}

fn not_understood(detail: &'static str) -> Outcome {
    Outcome::Temporary(failure(detail))
}

fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    media_type == "application/json" || media_type.ends_with("+json")
}

/// Reads one line of text. An error page shows by its body and not by its content type, since some
/// frameworks send every answer as text/html.
fn read_text(content_type: &str, body: &[u8]) -> Result<Value, Failure> {
    let text = trim_text(body);
    if text.starts_with(b"<") {
        let looks = looks(content_type, body);
        return Err(failure(format!("no line of text, but {looks}")));
    }
    if text.is_empty() {
        return Ok(Value::Empty);
    }
    if text.contains(&b'\n') || text.contains(&b'\r') {
        let looks = looks(content_type, body);
        return Err(failure(format!(
            "several lines where one is expected: {looks}"
        )));
    }
    match String::from_utf8(text.to_vec()) {
        Ok(text) => Ok(Value::Text(text)),
        Err(_) => Err(Failure::new(Reason::ValueCannotBeSent, "not UTF-8")),
    }
}

/// Reads text of any number of lines, exactly as it is.
fn read_whole_text(content_type: &str, body: &[u8]) -> Result<Value, Failure> {
    if is_html(content_type, body) {
        let looks = looks(content_type, body);
        return Err(failure(format!("no text, but {looks}")));
    }
    match String::from_utf8(body.to_vec()) {
        Ok(text) => Ok(Value::Text(text)),
        Err(_) => Err(Failure::new(Reason::ValueCannotBeSent, "not UTF-8")),
    }
}

/// Returns the outcome of a write that a 2xx says is done.
fn written(content_type: &str, is_json: bool, body: &[u8], rules: &ResponseRules) -> Outcome {
    if is_html(content_type, body) {
        let looks = looks(content_type, body);
        return Outcome::Temporary(failure(format!("not an answer of an API, but {looks}")));
    }
    if !is_json || rules.error.is_none() || trim_text(body).is_empty() {
        return Outcome::Done;
    }
    match read_json(content_type, body, rules) {
        Ok(_) => Outcome::Done,
        Err(failure) => Outcome::Temporary(failure),
    }
}

fn read_json(content_type: &str, body: &[u8], rules: &ResponseRules) -> Result<Value, Failure> {
    let text = std::str::from_utf8(body).map_err(|_| failure("not UTF-8"))?;
    let root: &RawValue = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let looks = looks(content_type, body);
        failure(format!(
            "not JSON at line {line} column {column}, but {looks}"
        ))
    })?;
    let is_object = root.get().starts_with('{');
    let pointer = match &rules.value {
        // A write brings no value, wherever that of a lookup is.
        _ if rules.protocol.content == Content::Written => "",
        Some(pointer) => pointer.as_str(),
        None if is_object => rules.protocol.object_value.unwrap_or(""),
        None => "",
    };
    if let Some(error) = &rules.error
        && let Some(member) = error_member(root, error, pointer)
        && flags_error(member, &rules.no_error)
    {
        let detail = format!("\"error\" finds one at {error:?}");
        return Err(Failure::new(Reason::ReportedError, detail));
    }
    match follow(root, pointer) {
        Pointed::At(value) => match rules.protocol.content {
            // An answer about a login is not read here.
            Content::Value | Content::Login => scalar_or_list(value, rules),
            Content::Text => text_of(value),
            Content::Document => Ok(document(value)),
            Content::Rows if value.get() == "null" => Ok(Value::Empty),
            Content::Rows => Ok(Value::Text(value.get().to_owned())),
            Content::Written => Ok(Value::Empty),
        },
        Pointed::Nowhere => Ok(Value::Nowhere(nowhere("value", pointer, root, rules))),
        Pointed::Wrong => Err(failure(nowhere("value", pointer, root, rules))),
    }
}

/// Returns what the pointer of a key has missed. The names of an answer may be addresses, so that
/// only a query shows those that are there.
pub fn nowhere(key: &str, pointer: &str, root: &RawValue, rules: &ResponseRules) -> String {
    let mut text = format!(
        "{key:?} points nowhere in the answer: {}",
        missed(root, pointer)
    );
    if verbose::is_query() && !rules.protocol.answers_secrets {
        let names = members(root, pointer);
        if !names.is_empty() {
            text.push_str(&format!("; there is {}", names.join(", ")));
        }
    }
    text
}

fn scalar_or_list(value: &RawValue, rules: &ResponseRules) -> Result<Value, Failure> {
    if !value.get().starts_with('[') {
        return match scalar(value, rules)? {
            Some(text) => Ok(Value::Text(text)),
            None => Ok(Value::Empty),
        };
    }
    let elements: Vec<&RawValue> =
        serde_json::from_str(value.get()).map_err(|_| failure("not JSON"))?;
    let mut joined = String::new();
    for (i, element) in elements.iter().enumerate() {
        let text = scalar(element, rules)?.filter(|text| !is_blank(text));
        let text = text.ok_or_else(|| failure("an empty element in a list"))?;
        if i > 0 {
            joined.push_str(&rules.list_separator);
        }
        joined.push_str(&text);
    }
    Ok(if elements.is_empty() {
        Value::Empty
    } else {
        Value::Text(joined)
    })
}

/// Returns the text of a string, a number as it is written, or `true`; nothing if the value is
/// empty.
fn scalar(value: &RawValue, rules: &ResponseRules) -> Result<Option<String>, Failure> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => {
            let text: String =
                serde_json::from_str(raw).map_err(|_| failure("a string that is not Unicode"))?;
            Ok((!text.is_empty()).then_some(text))
        }
        Some(b'-' | b'0'..=b'9') => Ok(Some(raw.to_owned())),
        Some(b't') => Ok(Some(rules.true_value.clone())),
        Some(b'f' | b'n') => Ok(None),
        Some(b'{') => Err(failure(
            "an object where a value is expected; \"value\" can point into it",
        )),
        _ => Err(failure("a nested list")),
    }
}

/// Returns the text of a string, or other JSON as it is written.
fn text_of(value: &RawValue) -> Result<Value, Failure> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'n') => Ok(Value::Empty),
        Some(b'"') => serde_json::from_str(raw)
            .map(Value::Text)
            .map_err(|_| failure("a string that is not Unicode")),
        _ => Ok(Value::Text(raw.to_owned())),
    }
}

/// Returns JSON as it is written, unless it is one of the values that are empty for a lookup.
fn document(value: &RawValue) -> Value {
    let raw = value.get();
    let is_empty_list = raw.starts_with('[') && raw[1..raw.len() - 1].trim().is_empty();
    if is_empty_list || ["null", "false", "\"\""].contains(&raw) {
        return Value::Empty;
    }
    Value::Text(raw.to_owned())
}

/// Returns the whole numbers that JSON Pointers find in a document, which is an object. 0 and
/// `null` are none.
pub fn numbers<'p>(
    document: &str,
    pointers: impl IntoIterator<Item = &'p str>,
) -> Result<Vec<Option<u64>>, Failure> {
    let root: &RawValue = serde_json::from_str(document).map_err(|_| failure("not JSON"))?;
    if !root.get().starts_with('{') {
        return Err(failure(
            "no object, which would hold the numbers of a limit",
        ));
    }
    let pointers = pointers.into_iter();
    pointers.map(|pointer| number(root, pointer)).collect()
}

fn number(root: &RawValue, pointer: &str) -> Result<Option<u64>, Failure> {
    let Pointed::At(value) = follow(root, pointer) else {
        return Err(failure(format!("{pointer:?} points nowhere in the answer")));
    };
    match value.get() {
        "null" | "0" => Ok(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            // More digits than fit are more than any account uses.
            Ok(Some(digits.parse().unwrap_or(u64::MAX)))
        }
        _ => Err(failure(format!(
            "{pointer:?} is no whole number from 0 in the answer"
        ))),
    }
}
