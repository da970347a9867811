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
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::{Missing, Response, ResponseRules, Verdict};
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
        Ok(Value::Nowhere) if rules.missing == Missing::NotFound => "missing = \"not-found\"",
        Ok(Value::Nowhere) => "missing = \"temporary\"",
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
        Ok(Value::Nowhere) if rules.missing == Missing::NotFound => Outcome::NotFound,
        Ok(Value::Nowhere) => not_understood("\"value\" points nowhere in the answer"),
        Ok(Value::Empty) if rules.protocol.empty == Meaning::NotFound => Outcome::NotFound,
        Ok(Value::Empty) => not_understood("empty where an action is expected"),
        Err(failure) => Outcome::Temporary(failure),
    }
}

fn value(content_type: &str, body: &[u8], rules: &ResponseRules) -> Result<Value, Failure> {
    match rules.protocol.content {
        _ if is_read_as_json(content_type, rules) => read_json(body, rules),
        Content::Text => read_whole_text(content_type, body),
        _ => read_text(body),
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
    /// There is no value where `value` points.
    Nowhere,
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
fn read_text(body: &[u8]) -> Result<Value, Failure> {
    let text = trim_text(body);
    if text.starts_with(b"<") {
        return Err(failure("HTML where a line of text is expected"));
    }
    if text.is_empty() {
        return Ok(Value::Empty);
    }
    if text.contains(&b'\n') || text.contains(&b'\r') {
        return Err(failure("several lines where one is expected"));
    }
    match String::from_utf8(text.to_vec()) {
        Ok(text) => Ok(Value::Text(text)),
        Err(_) => Err(Failure::new(Reason::ValueCannotBeSent, "not UTF-8")),
    }
}

/// Reads text of any number of lines, exactly as it is.
fn read_whole_text(content_type: &str, body: &[u8]) -> Result<Value, Failure> {
    if is_html(content_type, body) {
        return Err(failure("HTML where text is expected"));
    }
    match String::from_utf8(body.to_vec()) {
        Ok(text) => Ok(Value::Text(text)),
        Err(_) => Err(Failure::new(Reason::ValueCannotBeSent, "not UTF-8")),
    }
}

/// Returns whether a body is a page for a person, as error pages of proxies are. Its label alone
/// says little, as some frameworks send every answer as text/html, and so does a "<" alone.
fn is_html(content_type: &str, body: &[u8]) -> bool {
    let text = trim_text(body);
    let begins_with = |tag: &str| {
        let start = text.get(..tag.len()).unwrap_or_default();
        start.eq_ignore_ascii_case(tag.as_bytes())
    };
    let is_labelled = content_type
        .trim()
        .to_ascii_lowercase()
        .starts_with("text/html");
    is_labelled && begins_with("<") || begins_with("<!doctype html") || begins_with("<html")
}

/// Returns the outcome of a write that a 2xx says is done.
fn written(content_type: &str, is_json: bool, body: &[u8], rules: &ResponseRules) -> Outcome {
    if is_html(content_type, body) {
        return not_understood("HTML where an API would answer");
    }
    if !is_json || rules.error.is_none() || trim_text(body).is_empty() {
        return Outcome::Done;
    }
    match read_json(body, rules) {
        Ok(_) => Outcome::Done,
        Err(failure) => Outcome::Temporary(failure),
    }
}

/// Returns a text without the blanks around it and without a byte order mark, which some editors
/// and languages write.
pub fn trim_text(body: &[u8]) -> &[u8] {
    let text = body.trim_ascii();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.trim_ascii()
}

fn read_json(body: &[u8], rules: &ResponseRules) -> Result<Value, Failure> {
    let text = std::str::from_utf8(body).map_err(|_| failure("not UTF-8"))?;
    let root: &RawValue = serde_json::from_str(text).map_err(|error| {
        failure(format!(
            "not JSON at line {} column {}",
            error.line(),
            error.column()
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
        && flags_error(member, rules)
    {
        return Err(Reason::ReportedError.into());
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
        Pointed::Nowhere => Ok(Value::Nowhere),
        Pointed::Wrong => Err(failure("\"value\" points through a value without members")),
    }
}

/// The result of following a JSON Pointer.
pub(super) enum Pointed<'j> {
    At(&'j RawValue),
    /// An object, a list or `null` has no such member.
    Nowhere,
    /// The answer has another shape, so that it says nothing about the key.
    Wrong,
}

/// Returns the member that may flag an error. Where the pointer meets a value without members, it
/// is that value: an API that usually sends `{"error": {"message": "down"}}` may send `{"error":
/// "down"}`.
pub(super) fn error_member<'j>(
    root: &'j RawValue,
    mut error: &str,
    value: &str,
) -> Option<&'j RawValue> {
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

/// Returns whether a member flags an error.
pub(super) fn flags_error(member: &RawValue, rules: &ResponseRules) -> bool {
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
    !is_nothing && !rules.no_error.contains(&text)
}

/// Follows a JSON Pointer.
pub(super) fn follow<'j>(root: &'j RawValue, pointer: &str) -> Pointed<'j> {
    let mut value = root;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        let member = Member(&token);
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

/// Reads an object or a list and returns the member of this name or index, the last one if a name
/// occurs more than once. Nothing else of it is kept in memory.
#[derive(Clone, Copy)]
struct Member<'t>(&'t str);

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
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
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
