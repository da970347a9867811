//! The method, the query and the body of a call.

use reqwest::Method;
use reqwest::header::HeaderName;
use serde_json::Number;
use toml::Spanned;
use toml::de::DeValue;

use super::file::{Entry, entries};
use super::headers::{HeaderText, names_credential};
use super::reader::Reader;
use super::target::Target;
use super::template::{SECRET_IN_A_URL, Template, Wanted};
use super::values;
use crate::protocol::facts::Content;

/// The parameters of a query or a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameters {
    /// Nothing.
    None,
    /// These parameters, in this order.
    Each(Vec<(String, Template)>),
    /// Every attribute, in the order in which Postfix sent it.
    All,
}

impl Parameters {
    pub(super) fn varies(&self) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Each(pairs) => pairs.iter().any(|(_, value)| value.varies()),
        }
    }

    pub(super) fn carries(&self, wanted: Wanted<'_>) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Each(pairs) => pairs.iter().any(|(_, text)| text.carries(wanted)),
        }
    }
}

/// The body of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Nothing.
    None,
    /// A form.
    Form(Parameters),
    /// A JSON document.
    Json(Json),
    /// The value of the request that has this name, as it is.
    Value(&'static str),
}

impl Body {
    pub(super) fn varies(&self) -> bool {
        match self {
            Self::None => false,
            Self::Form(form) => form.varies(),
            Self::Json(json) => json.varies(),
            Self::Value(_) => true,
        }
    }

    /// Returns whether a field is a credential that is the same for every login.
    pub(super) fn has_own_credential(&self) -> bool {
        match self {
            Self::None | Self::Value(_) | Self::Form(Parameters::None | Parameters::All) => false,
            Self::Form(Parameters::Each(pairs)) => pairs
                .iter()
                .any(|(name, text)| names_credential(name) && !text.is_of_login()),
            Self::Json(json) => json.has_own_credential(),
        }
    }

    /// Returns whether the body has a value of the request.
    pub(super) fn carries(&self, wanted: Wanted<'_>) -> bool {
        match self {
            Self::None => false,
            Self::Form(form) => form.carries(wanted),
            Self::Json(json) => json.carries(wanted),
            Self::Value(name) => *name == wanted.value,
        }
    }
}

/// JSON with placeholders in its strings.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(Template),
    /// The object of all attributes, or of a whole transaction.
    All,
    /// A list.
    List(Vec<Self>),
    /// An object, its members in the order of the file.
    Object(Vec<(String, Self)>),
}

impl Json {
    pub(super) fn varies(&self) -> bool {
        match self {
            Self::Flag(_) | Self::Number(_) => false,
            Self::Text(text) => text.varies(),
            Self::All => true,
            Self::List(list) => list.iter().any(Self::varies),
            Self::Object(members) => members.iter().any(|(_, value)| value.varies()),
        }
    }

    fn carries(&self, wanted: Wanted<'_>) -> bool {
        match self {
            Self::Flag(_) | Self::Number(_) => false,
            Self::Text(text) => text.carries(wanted),
            Self::All => true,
            Self::List(list) => list.iter().any(|json| json.carries(wanted)),
            Self::Object(members) => members.iter().any(|(_, json)| json.carries(wanted)),
        }
    }

    fn has_own_credential(&self) -> bool {
        let is_own = |(name, json): &(String, Self)| match json {
            Self::Text(text) => names_credential(name) && !text.is_of_login(),
            json => json.has_own_credential(),
        };
        match self {
            Self::Flag(_) | Self::Number(_) | Self::Text(_) | Self::All => false,
            Self::List(list) => list.iter().any(Self::has_own_credential),
            Self::Object(members) => members.iter().any(is_own),
        }
    }

    /// Returns whether the object of all that a request has is in it.
    pub(super) fn has_all(&self) -> bool {
        match self {
            Self::All => true,
            Self::Flag(_) | Self::Number(_) | Self::Text(_) => false,
            Self::List(list) => list.iter().any(Self::has_all),
            Self::Object(members) => members.iter().any(|(_, json)| json.has_all()),
        }
    }
}

type Found<'t, T> = Option<(Entry<'t>, T)>;

/// Reads the method, the query and the body. Where nothing else carries the request, the protocol's
/// default query or a form does.
pub(super) fn read(reader: &mut Reader<'_, '_>, targets: &[Target]) -> (Method, Parameters, Body) {
    let method = method(reader);
    let query = parameters(reader, "query");
    let form = parameters(reader, "form");
    let json = json(reader);
    let raw = raw(reader);
    let has_content = form.is_some() || json.is_some();
    let query = match query {
        Some((_, query)) => query,
        None if has_content || targets.iter().any(Target::has_placeholder) => Parameters::None,
        None => default_query(reader),
    };
    let body = body(reader, form, json, raw, (&method, &query));
    (method, query, body)
}

/// Reads the body that is a value and nothing else.
fn raw<'t>(reader: &mut Reader<'_, 't>) -> Found<'t, &'static str> {
    let value = reader.facts().raw_value?;
    let entry = reader.section.take("body")?;
    let text = values::private_string(&entry, reader.report)?;
    if text != format!("{{{value}}}") {
        let text = format!(
            "must be \"{{{value}}}\", without other text beside it; form and json can have more"
        );
        reader.error(entry.value.span(), &entry.path, text);
        return None;
    }
    reader.report.layout().harmless.push(entry.value.span());
    Some((entry, value))
}

/// Returns whether a call of these parts has a value of the request.
pub(super) fn carries(
    targets: &[Target],
    query: &Parameters,
    body: &Body,
    headers: &[(HeaderName, HeaderText)],
    wanted: Wanted<'_>,
) -> bool {
    let is_in =
        |text: &HeaderText| matches!(text, HeaderText::Filled(text) if text.carries(wanted));
    !targets.is_empty() && targets.iter().all(|target| target.carries(wanted))
        || query.carries(wanted)
        || body.carries(wanted)
        || headers.iter().any(|(_, text)| is_in(text))
}

/// Returns whether a call of this method has a body.
pub(super) fn has_body(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

fn method(reader: &mut Reader<'_, '_>) -> Method {
    const METHODS: [&str; 4] = ["GET", "POST", "PUT", "PATCH"];
    const OF_WRITES: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];
    let methods = match reader.facts().content {
        Content::Written => OF_WRITES,
        _ => METHODS,
    };
    let words = methods.map(|name| (name, name));
    let word = reader.word("method", &words);
    // Each of these words is a method, so the last default is never used.
    Method::from_bytes(word.unwrap_or_else(|| reader.facts().method).as_bytes()).unwrap_or_default()
}

/// Returns the protocol's default query.
fn default_query(reader: &Reader<'_, '_>) -> Parameters {
    let pairs = reader.facts().default_query;
    if pairs.is_empty() {
        return Parameters::None;
    }
    let pair = |(name, placeholder): &(&str, &str)| {
        let value = reader
            .parse_template(&format!("{{{placeholder}}}"))
            .unwrap_or_default();
        ((*name).to_owned(), value)
    };
    Parameters::Each(pairs.iter().map(pair).collect())
}

pub(super) fn parameters<'t>(
    reader: &mut Reader<'_, 't>,
    name: &'static str,
) -> Found<'t, Parameters> {
    let entry = reader.section.take(name)?;
    let table = match entry.value.get_ref() {
        DeValue::String(text) if text == "{*}" && reader.any(|facts| facts.is_open) => {
            reader.report.layout().harmless.push(entry.value.span());
            return Some((entry, Parameters::All));
        }
        DeValue::Table(table) => table,
        _ => {
            let text = if reader.any(|facts| facts.is_open) {
                "must be a table, or \"{*}\" for all attributes"
            } else {
                "must be a table"
            };
            reader.error(entry.value.span(), &entry.path, text);
            return None;
        }
    };
    let mut pairs = Vec::new();
    for pair in entries(&entry.path, table) {
        if let Some(text) = values::private_string(&pair, reader.report) {
            let template = reader.template(text, pair.value.span(), &pair.path);
            if name == "query" && template.as_ref().is_some_and(Template::has_secret) {
                reader.error(pair.value.span(), &pair.path, SECRET_IN_A_URL);
            }
            pairs.extend(template.map(|template| (pair.key.to_owned(), template)));
        }
    }
    Some((entry, Parameters::Each(pairs)))
}

pub(super) fn json<'t>(reader: &mut Reader<'_, 't>) -> Found<'t, Json> {
    let entry = reader.section.take("json")?;
    let json = json_value(reader, entry.value, &entry.path)?;
    Some((entry, json))
}

fn json_value<'t>(
    reader: &mut Reader<'_, 't>,
    value: &'t Spanned<DeValue<'t>>,
    path: &str,
) -> Option<Json> {
    let number = match value.get_ref() {
        DeValue::Boolean(flag) => {
            reader.report.layout().harmless.push(value.span());
            return Some(Json::Flag(*flag));
        }
        DeValue::String(text)
            if text == "{*}" && reader.any(|facts| facts.is_open || facts.has_whole_json) =>
        {
            reader.report.layout().harmless.push(value.span());
            return Some(Json::All);
        }
        DeValue::String(text) => {
            return reader.template(text, value.span(), path).map(Json::Text);
        }
        DeValue::Array(array) => {
            let list = array
                .iter()
                .filter_map(|value| json_value(reader, value, path));
            return Some(Json::List(list.collect()));
        }
        DeValue::Table(table) => {
            let members = entries(path, table).into_iter().filter_map(|member| {
                let value = json_value(reader, member.value, &member.path)?;
                Some((member.key.to_owned(), value))
            });
            return Some(Json::Object(members.collect()));
        }
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(Number::from),
        DeValue::Float(number) => number.as_str().parse().ok().and_then(Number::from_f64),
        DeValue::Datetime(_) => None,
    };
    if number.is_none() {
        let text = "is not a JSON value; write a string";
        reader.error(value.span(), path, text);
    }
    number.map(Json::Number)
}

/// Returns the body of a call, if its method has one.
fn body<'t>(
    reader: &mut Reader<'_, 't>,
    form: Found<'t, Parameters>,
    json: Found<'t, Json>,
    raw: Found<'t, &'static str>,
    (method, query): (&Method, &Parameters),
) -> Body {
    // A table that inherits a body may have a method of its own.
    let has_body = has_body(method) || reader.is_default();
    let entries: [Option<Entry<'_>>; 3] = [
        form.as_ref().map(|(entry, _)| entry.clone()),
        json.as_ref().map(|(entry, _)| entry.clone()),
        raw.as_ref().map(|(entry, _)| entry.clone()),
    ];
    let mut entries = entries.into_iter().flatten();
    if let Some(first) = entries.next() {
        for other in entries {
            let text = format!(
                "{} is set as well, and a call has only one body; remove one of them",
                first.key
            );
            reader
                .report
                .error(other.key_span.clone(), &other.path, text);
        }
        if !has_body {
            let text = "needs a method with a body: POST, PUT or PATCH";
            reader.report.error(first.value.span(), &first.path, text);
        }
    }
    match (form, json, raw) {
        (Some((_, form)), ..) => Body::Form(form),
        (None, Some((_, json)), _) => Body::Json(json),
        (None, None, Some((_, value))) => Body::Value(value),
        (None, None, None) if !has_body => Body::None,
        (None, None, None) if reader.any(|facts| facts.has_whole_json) => Body::Json(Json::All),
        // A constant query carries nothing of the request.
        (None, None, None) if reader.any(|facts| facts.is_open) && !query.varies() => {
            Body::Form(Parameters::All)
        }
        (None, None, None) => Body::None,
    }
}
