//! The query and the body of a call.

use reqwest::Method;
use serde_json::Number;
use toml::Spanned;
use toml::de::DeValue;

use super::file::{Entry, entries};
use super::reader::Reader;
use super::template::Template;
use super::values;

/// What goes into a query or a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameters {
    /// Nothing.
    None,
    /// These, in this order.
    Each(Vec<(String, Template)>),
    /// Every attribute, in the order it came.
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
    /// An object, its members in the order written.
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

pub(super) type Found<'t, T> = Option<(Entry<'t>, T)>;

impl<'t> Reader<'_, 't> {
    pub(super) fn method(&mut self) -> Method {
        const METHODS: [&str; 4] = ["GET", "POST", "PUT", "PATCH"];
        let words = METHODS.map(|name| (name, name));
        let word = self.word("method", &words);
        // Each of these is a method, so the default is never used.
        Method::from_bytes(word.unwrap_or_else(|| self.facts().method).as_bytes())
            .unwrap_or_default()
    }

    /// The parameters of a lookup when nothing else says what is asked.
    pub(super) fn default_query(&self) -> Parameters {
        let names = self.facts().default_query;
        let pair = |name: &&str| {
            let value = self
                .parse_template(&format!("{{{name}}}"))
                .unwrap_or_default();
            ((*name).to_owned(), value)
        };
        Parameters::Each(names.iter().map(pair).collect())
    }

    pub(super) fn parameters(&mut self, name: &'static str) -> Found<'t, Parameters> {
        let entry = self.section.take(name)?;
        let table = match entry.value.get_ref() {
            DeValue::String(text) if text == "{*}" && self.any(|facts| facts.is_open) => {
                self.report.layout().harmless.push(entry.value.span());
                return Some((entry, Parameters::All));
            }
            DeValue::Table(table) => table,
            _ => {
                let text = if self.any(|facts| facts.is_open) {
                    "must be a table, or \"{*}\" for all attributes"
                } else {
                    "must be a table"
                };
                self.error(entry.value.span(), &entry.path, text);
                return None;
            }
        };
        let mut pairs = Vec::new();
        for pair in entries(&entry.path, table) {
            if let Some(text) = values::private_string(&pair, self.report) {
                let template = self.template(text, pair.value.span(), &pair.path);
                pairs.extend(template.map(|template| (pair.key.to_owned(), template)));
            }
        }
        Some((entry, Parameters::Each(pairs)))
    }

    pub(super) fn json(&mut self) -> Found<'t, Json> {
        let entry = self.section.take("json")?;
        let json = self.json_value(entry.value, &entry.path)?;
        Some((entry, json))
    }

    fn json_value(&mut self, value: &'t Spanned<DeValue<'t>>, path: &str) -> Option<Json> {
        let number = match value.get_ref() {
            DeValue::Boolean(flag) => {
                self.report.layout().harmless.push(value.span());
                return Some(Json::Flag(*flag));
            }
            DeValue::String(text) if text == "{*}" && self.any(|facts| facts.is_open) => {
                self.report.layout().harmless.push(value.span());
                return Some(Json::All);
            }
            DeValue::String(text) => {
                return self.template(text, value.span(), path).map(Json::Text);
            }
            DeValue::Array(array) => {
                let list = array
                    .iter()
                    .filter_map(|value| self.json_value(value, path));
                return Some(Json::List(list.collect()));
            }
            DeValue::Table(table) => {
                let members = entries(path, table).into_iter().filter_map(|member| {
                    let value = self.json_value(member.value, &member.path)?;
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
            let text = "is nothing that JSON has; write a string";
            self.error(value.span(), path, text);
        }
        number.map(Json::Number)
    }

    /// One body, if the method has one.
    pub(super) fn body(
        &mut self,
        form: Found<'t, Parameters>,
        json: Found<'t, Json>,
        has_body: bool,
        query: &Parameters,
    ) -> Body {
        if let (Some(_), Some((entry, _))) = (&form, &json) {
            let text = "there is a form already; only one of them can be sent";
            self.error(entry.key_span.clone(), &entry.path, text);
        }
        let place = match (&form, &json) {
            (Some((entry, _)), _) | (_, Some((entry, _))) => Some(entry),
            (None, None) => None,
        };
        if let (Some(entry), false) = (place, has_body) {
            let text = "needs a method with a body: POST, PUT or PATCH";
            self.report.error(entry.value.span(), &entry.path, text);
        }
        match (form, json) {
            (Some((_, form)), _) => Body::Form(form),
            (None, Some((_, json))) => Body::Json(json),
            // A constant query says nothing of the request.
            (None, None) if self.any(|facts| facts.is_open) && has_body && !query.varies() => {
                Body::Form(Parameters::All)
            }
            (None, None) => Body::None,
        }
    }
}
