//! `docs/api/openapi.yaml`, and what it says of a request and its answer.

use std::collections::BTreeSet;
use std::fs;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

const REPO: &str = env!("CARGO_MANIFEST_DIR");
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// A request to the API and its answer.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) method: String,
    /// Path and query, as sent.
    pub(super) target: String,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
    pub(super) status: u16,
    pub(super) answer_headers: Headers,
    pub(super) answer: Vec<u8>,
}

pub(super) type Headers = Vec<(String, String)>;

/// An operation and the status of its answer, both as they stand in the document.
pub(super) type Seen = (String, String);

/// A parameter of a request: where it stands, its name and its value.
type Given = (&'static str, String, String);

pub(super) struct Document(Value);

impl Document {
    pub(super) fn read() -> Self {
        let text = fs::read_to_string(format!("{REPO}/docs/api/openapi.yaml")).expect("a file");
        Self(yaml_serde::from_str(&text).expect("YAML"))
    }

    pub(super) fn root(&self) -> &Value {
        &self.0
    }

    /// Every operation, with its path and the parameters that the path shares.
    pub(super) fn operations(&self) -> Vec<(&str, &'static str, &Value)> {
        let mut found = Vec::new();
        for (path, item) in self.0["paths"].as_object().expect("paths") {
            for method in METHODS {
                if let Some(operation) = item.get(method) {
                    found.push((path.as_str(), method, operation));
                }
            }
        }
        found
    }

    /// What a reference leads to, or the value itself.
    pub(super) fn resolved<'d>(&'d self, value: &'d Value) -> &'d Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => self
                .0
                .pointer(reference.trim_start_matches('#'))
                .unwrap_or_else(|| panic!("{reference} leads nowhere")),
            None => value,
        }
    }

    /// Holds a value to a schema of the document.
    pub(super) fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        // References in it start at the root.
        let mut schema = schema.clone();
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::draft202012::options()
            .build(&schema)
            .expect("a schema");
        let errors: Vec<_> = validator
            .iter_errors(value)
            .map(|error| error.to_string())
            .collect();
        match errors[..] {
            [] => Ok(()),
            _ => Err(format!("{value}: {}", errors.join("; "))),
        }
    }

    /// Says which operation and answer an exchange is, or why it is none of the document.
    pub(super) fn judge(&self, exchange: &Exchange) -> Result<Seen, String> {
        let (path, query) = exchange
            .target
            .split_once('?')
            .map_or((exchange.target.as_str(), None), |(path, query)| {
                (path, Some(query))
            });
        let (template, values) = self
            .route(path)
            .ok_or_else(|| format!("no path of the document: {path}"))?;
        let item = &self.0["paths"][template];
        let operation = item
            .get(exchange.method.to_lowercase())
            .ok_or_else(|| format!("{template} has no {}", exchange.method))?;
        let name = operation["operationId"].as_str().expect("a name");
        let mut named = values;
        named.extend(
            fields(query.unwrap_or_default())
                .into_iter()
                .map(|(name, value)| ("query", name, value)),
        );
        let in_context = |error: String| format!("{name}: {error}");
        self.is_authorised(operation, exchange)
            .map_err(in_context)?;
        self.parameters(operation, named, &exchange.headers)
            .map_err(in_context)?;
        self.body(operation, exchange).map_err(in_context)?;
        let status = self.answer(operation, exchange).map_err(in_context)?;
        Ok((name.to_owned(), status))
    }

    /// The path of the document with the fewest placeholders, and what stands in their place.
    fn route(&self, path: &str) -> Option<(&str, Vec<Given>)> {
        let paths = self.0["paths"].as_object().expect("paths");
        let matches = paths.keys().filter_map(|template| {
            let parts: Vec<_> = template.split('/').collect();
            let segments: Vec<_> = path.split('/').collect();
            let is_same_length = parts.len() == segments.len();
            let mut values = Vec::new();
            for (part, segment) in parts.into_iter().zip(segments) {
                match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
                    Some(name) => values.push(("path", name.to_owned(), decoded(segment))),
                    None if part == segment => {}
                    None => return None,
                }
            }
            is_same_length.then_some((template.as_str(), values))
        });
        matches.min_by_key(|(_, values)| values.len())
    }

    fn is_authorised(&self, operation: &Value, exchange: &Exchange) -> Result<(), String> {
        let demanded = operation
            .get("security")
            .unwrap_or_else(|| &self.0["security"]);
        let is_met = |scheme: &str| {
            let scheme = &self.0["components"]["securitySchemes"][scheme];
            match scheme["type"].as_str().expect("a type") {
                "apiKey" => header(&exchange.headers, scheme["name"].as_str().expect("a name"))
                    .is_some_and(|value| !value.is_empty()),
                _ => header(&exchange.headers, "authorization").is_some_and(|value| {
                    let (word, _) = value.split_once(' ').unwrap_or_default();
                    word.eq_ignore_ascii_case(scheme["scheme"].as_str().expect("a scheme"))
                }),
            }
        };
        let alternatives = demanded.as_array().expect("a list");
        let is_one_met = alternatives.iter().any(|schemes| {
            let mut schemes = schemes.as_object().expect("schemes").keys();
            schemes.all(|scheme| is_met(scheme))
        });
        is_one_met
            .then_some(())
            .ok_or_else(|| "no credential of the document".to_owned())
    }

    fn parameters(
        &self,
        operation: &Value,
        given: Vec<Given>,
        headers: &Headers,
    ) -> Result<(), String> {
        let mut given = given;
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let parameter = self.resolved(parameter);
            let name = parameter["name"].as_str().expect("a name");
            let place = parameter["in"].as_str().expect("a place");
            let at = given
                .iter()
                .position(|(where_, given, _)| *where_ == place && given == name);
            let value = match (place, at) {
                ("header", _) => header(headers, name).map(str::to_owned),
                (_, Some(at)) => Some(given.swap_remove(at).2),
                (_, None) => None,
            };
            match value {
                Some(value) => self
                    .fits(&parameter["schema"], &Value::from(value))
                    .map_err(|error| format!("{place} {name}: {error}"))?,
                None if parameter["required"] == true => {
                    return Err(format!("no {name} in {place}"));
                }
                None => {}
            }
        }
        match &given[..] {
            [] => Ok(()),
            given => Err(format!("not in the document: {given:?}")),
        }
    }

    fn body(&self, operation: &Value, exchange: &Exchange) -> Result<(), String> {
        match operation.get("requestBody") {
            Some(body) => self
                .content(&body["content"], &exchange.headers, &exchange.body)
                .map_err(|error| format!("request: {error}")),
            None if exchange.body.is_empty() => Ok(()),
            None => Err("a request with a body".to_owned()),
        }
    }

    fn answer(&self, operation: &Value, exchange: &Exchange) -> Result<String, String> {
        let exact = exchange.status.to_string();
        let class = format!("{}XX", exchange.status / 100);
        let responses = operation["responses"].as_object().expect("responses");
        let (status, response) = responses
            .get_key_value(&exact)
            .or_else(|| responses.get_key_value(&class))
            .ok_or_else(|| format!("no status {exact}"))?;
        let response = self.resolved(response);
        for (name, rule) in response["headers"].as_object().into_iter().flatten() {
            let rule = self.resolved(rule);
            match header(&exchange.answer_headers, name) {
                Some(value) => self.fits(&rule["schema"], &Value::from(value))?,
                None if rule["required"] == true => return Err(format!("no header {name}")),
                None => {}
            }
        }
        match response.get("content") {
            Some(content) => self
                .content(content, &exchange.answer_headers, &exchange.answer)
                .map_err(|error| format!("{status}: {error}"))?,
            None if exchange.answer.is_empty() => {}
            None => return Err(format!("{status} with a body")),
        }
        Ok(status.clone())
    }

    /// Holds a body to what the document has for its type.
    fn content(&self, content: &Value, headers: &Headers, body: &[u8]) -> Result<(), String> {
        let label = header(headers, "content-type").ok_or("no Content-Type")?;
        let (kind, _) = label.split_once(';').unwrap_or((label, ""));
        let rule = content
            .get(kind)
            .ok_or_else(|| format!("no content of type {kind}"))?;
        let text = String::from_utf8_lossy(body);
        let value = match kind {
            "application/json" => serde_json::from_slice(body).map_err(|e| e.to_string())?,
            "application/x-www-form-urlencoded" => form(&text)?,
            _ => Value::from(text),
        };
        self.fits(&rule["schema"], &value)
    }

    /// Every operation with every status of its answers.
    pub(super) fn answers(&self) -> BTreeSet<Seen> {
        let mut answers = BTreeSet::new();
        for (_, _, operation) in self.operations() {
            let name = operation["operationId"].as_str().expect("a name");
            let responses = operation["responses"].as_object().expect("responses");
            answers.extend(
                responses
                    .keys()
                    .map(|status| (name.to_owned(), status.clone())),
            );
        }
        answers
    }
}

/// The only value of a header; two are as good as none.
fn header<'h>(headers: &'h Headers, name: &str) -> Option<&'h str> {
    let mut values = headers
        .iter()
        .filter(|(header, _)| header.eq_ignore_ascii_case(name));
    let value = values.next().map(|(_, value)| value.as_str());
    values.next().is_none().then_some(value)?
}

/// Decodes `%XX`; what is not UTF-8 is no matter of the document.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn fields(form: &str) -> Vec<(String, String)> {
    form.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(&value.replace('+', " "))))
        .collect()
}

fn form(text: &str) -> Result<Value, String> {
    let mut object = Map::new();
    for (name, value) in fields(text) {
        if object.insert(name.clone(), json!(value)).is_some() {
            return Err(format!("{name} twice"));
        }
    }
    Ok(object.into())
}
