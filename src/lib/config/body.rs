//! The method, the query and the body of a call.

use reqwest::Method;
use serde_json::Number;
use toml::Spanned;
use toml::de::DeValue;

use super::file::{Entry, entries};
use super::reader::Reader;
use super::target::Target;
use super::template::Template;
use super::values;

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
}

impl Body {
    pub(super) fn varies(&self) -> bool {
        match self {
            Self::None => false,
            Self::Form(form) => form.varies(),
            Self::Json(json) => json.varies(),
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
    /// The object of all attributes.
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
}

type Found<'t, T> = Option<(Entry<'t>, T)>;

/// Reads the method, the query and the body. Where nothing else carries the request, the protocol's
/// default query or a form does.
pub(super) fn read(reader: &mut Reader<'_, '_>, targets: &[Target]) -> (Method, Parameters, Body) {
    let method = method(reader);
    let query = parameters(reader, "query");
    let form = parameters(reader, "form");
    let json = json(reader);
    let has_content = form.is_some() || json.is_some();
    let query = match query {
        Some((_, query)) => query,
        None if has_content || targets.iter().any(Target::has_placeholder) => Parameters::None,
        None => default_query(reader),
    };
    let body = body(reader, form, json, &method, &query);
    (method, query, body)
}

/// Returns whether a call of this method has a body.
pub(super) fn has_body(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

fn method(reader: &mut Reader<'_, '_>) -> Method {
    const METHODS: [&str; 4] = ["GET", "POST", "PUT", "PATCH"];
    let words = METHODS.map(|name| (name, name));
    let word = reader.word("method", &words);
    // Each of these words is a method, so the last default is never used.
    Method::from_bytes(word.unwrap_or_else(|| reader.facts().method).as_bytes()).unwrap_or_default()
}

/// Returns the protocol's default query.
fn default_query(reader: &Reader<'_, '_>) -> Parameters {
    let names = reader.facts().default_query;
    if names.is_empty() {
        return Parameters::None;
    }
    let pair = |name: &&str| {
        let value = reader
            .parse_template(&format!("{{{name}}}"))
            .unwrap_or_default();
        ((*name).to_owned(), value)
    };
    Parameters::Each(names.iter().map(pair).collect())
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
        DeValue::String(text) if text == "{*}" && reader.any(|facts| facts.is_open) => {
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
    method: &Method,
    query: &Parameters,
) -> Body {
    // A table that inherits a body may have a method of its own.
    let has_body = has_body(method) || reader.is_default();
    if let (Some(_), Some((entry, _))) = (&form, &json) {
        let text = "form is set as well, and a call has only one body; remove one of them";
        reader.error(entry.key_span.clone(), &entry.path, text);
    }
    let place = match (&form, &json) {
        (Some((entry, _)), _) | (_, Some((entry, _))) => Some(entry),
        (None, None) => None,
    };
    if let (Some(entry), false) = (place, has_body) {
        let text = "needs a method with a body: POST, PUT or PATCH";
        reader.report.error(entry.value.span(), &entry.path, text);
    }
    match (form, json) {
        (Some((_, form)), _) => Body::Form(form),
        (None, Some((_, json))) => Body::Json(json),
        // A constant query carries nothing of the request.
        (None, None) if reader.any(|facts| facts.is_open) && has_body && !query.varies() => {
            Body::Form(Parameters::All)
        }
        (None, None) => Body::None,
    }
}
