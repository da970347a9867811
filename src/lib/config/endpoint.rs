//! The keys of one endpoint, each taken and parsed once.

use std::ops::Range;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::Number;
use toml::Spanned;
use toml::de::DeValue;

use super::body::{Body, Json, Parameters};
use super::file::{Entry, Section, entries};
use super::headers::HeaderText;
use super::normalise::{Normalise, Pattern};
use super::problem::Report;
use super::secret::SecretPolicy;
use super::target::Target;
use super::template::{Template, Vocabulary};
use super::{Endpoint, values};
use crate::protocol::tcp_lookup::TcpLookup;
use crate::protocol::{Facts, Protocol as _};

/// Postfix gives up at 100 s, in all three protocols.
const LONGEST_REQUEST: Duration = Duration::from_secs(90);

/// Reads an endpoint for these programs; for more than one it is the defaults in `[http]`.
pub(super) fn endpoint(
    section: Section<'_>,
    protocols: &[&'static Facts],
    secrecy: SecretPolicy,
    report: &mut Report,
) -> Option<Endpoint> {
    let is_default = protocols.len() > 1;
    let rejected_before = report.rejected();
    let mut reader = Reader {
        protocols,
        says_not_found: false,
        extra_attributes: Vec::new(),
        secrecy,
        section,
        report,
    };
    reader.extra_attributes = reader.extra_attributes();
    let targets = if is_default {
        Vec::new()
    } else {
        reader.targets()
    };
    let method = reader.method();
    let query = reader.parameters("query");
    let form = reader.parameters("form");
    let json = reader.json();
    let headers = reader.headers();
    let auth_token = reader.auth_token();
    let transport = reader.transport();
    let credential = reader.credential(&transport.tls);
    let user_agent = reader.user_agent();
    let words = reader.words();
    let special_keys = reader.boolean("special-keys");
    let normalise = reader.normalise();
    let reading = reader.reading(&words);
    let follows_redirects = reader.follows_redirects();
    let retries = reader.count("retries", 0..=10, 1);
    let request_timeout = reader.request_timeout();
    let max_response = reader.size("max-response", 1 << 20);
    let max_in_flight = reader.count("max-in-flight", 1..=1_000_000, 256);
    let cache = reader.cache(is_default);
    let breaker = reader.breaker();

    let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
    let is_asked = form.is_some() || json.is_some();
    let query = match query {
        Some((_, query)) => query,
        None if reader.facts().default_query.is_empty() || is_asked => Parameters::None,
        None if targets.iter().any(Target::has_placeholder) => Parameters::None,
        None => reader.default_query(),
    };
    let body = reader.body(form, json, has_body || is_default, &query);
    let is_told = targets.iter().all(Target::varies)
        || query.varies()
        || body.varies()
        || headers
            .iter()
            .any(|(_, text)| matches!(text, HeaderText::Filled(text) if text.varies()));
    // What is wrong already may be where the placeholder was.
    let is_right = reader.report.rejected() == rejected_before;
    if !is_default && is_right && !is_told {
        reader.carries_nothing(&method, has_body);
    }
    let extra_attributes = reader.extra_attributes;
    reader.section.finish(reader.report);
    (!targets.is_empty()).then_some(Endpoint {
        targets,
        method,
        query,
        body,
        headers,
        auth_token,
        credential,
        user_agent,
        special_keys,
        normalise,
        extra_attributes,
        reading,
        words,
        transport,
        follows_redirects,
        retries,
        request_timeout,
        max_response,
        max_in_flight,
        cache,
        breaker,
    })
}

/// The keys of one endpoint. Those of the same kind are read in files of their own: headers,
/// identity, transport, reading, actions, steady.
pub(super) struct Reader<'r, 't> {
    /// The protocol of the table; for `[http]` all of them.
    protocols: &'r [&'static Facts],
    /// Whether the table itself, and not `[http]`, has `on-not-found`.
    pub(super) says_not_found: bool,
    extra_attributes: Vec<String>,
    pub(super) secrecy: SecretPolicy,
    pub(super) section: Section<'t>,
    pub(super) report: &'r mut Report,
}

type Place = Range<usize>;
type Found<'t, T> = Option<(Entry<'t>, T)>;

impl<'t> Reader<'_, 't> {
    /// Returns the facts that the defaults follow; those of `[http]` are only checked.
    pub(super) fn facts(&self) -> &'static Facts {
        self.protocols.first().copied().unwrap_or(TcpLookup::FACTS)
    }

    /// Returns whether a protocol that this section is for has a property.
    pub(super) fn any(&self, has: impl Fn(&Facts) -> bool) -> bool {
        self.protocols.iter().any(|facts| has(facts))
    }

    pub(super) fn error(&mut self, span: Place, path: &str, text: impl Into<String>) {
        self.report.error(span, path, text);
    }

    /// Returns where the table is named, for what is missing in it.
    pub(super) fn place(&self) -> (Place, String) {
        (self.section.span.clone(), self.section.path.clone())
    }

    pub(super) fn parse_template(&self, text: &str) -> Result<Template, String> {
        Template::parse(text, self.vocabulary())
    }

    /// Reads a text of the request, the constants of which may be secrets.
    fn template(&mut self, text: &str, span: Place, path: &str) -> Option<Template> {
        let Ok(template) = self.parse_template(text) else {
            let fault = self.vocabulary().fault();
            self.error(span, path, fault);
            return None;
        };
        if template.is_harmless() {
            self.report.layout().harmless.push(span);
        }
        Some(template)
    }

    pub(super) fn vocabulary(&self) -> Vocabulary<'_> {
        Vocabulary {
            protocols: self.protocols,
            extra: &self.extra_attributes,
        }
    }

    fn extra_attributes(&mut self) -> Vec<String> {
        let Some(entry) = self.section.take("extra-attributes") else {
            return Vec::new();
        };
        let names = values::strings(&entry, self.report).unwrap_or_default();
        let is_name = |name: &String| {
            let is_word = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
            !name.is_empty() && name.bytes().all(is_word)
        };
        if let Some(bad) = names.iter().find(|name| !is_name(name)) {
            let text = format!("{bad:?} is no name of an attribute");
            self.error(entry.value.span(), &entry.path, text);
        }
        names
    }

    fn targets(&mut self) -> Vec<Target> {
        let Some(entry) = self.section.take("target") else {
            let (place, path) = self.place();
            self.error(place, &path, "has no target");
            return Vec::new();
        };
        match entry.value.get_ref() {
            DeValue::Array(array) if !array.is_empty() => {
                let targets = array
                    .iter()
                    .filter_map(|value| self.target(value, &entry.path));
                let targets: Vec<_> = targets.collect();
                // Half a list would be another list.
                if targets.len() < array.len() {
                    Vec::new()
                } else {
                    targets
                }
            }
            _ => self.target(entry.value, &entry.path).into_iter().collect(),
        }
    }

    fn target(&mut self, value: &Spanned<DeValue<'_>>, path: &str) -> Option<Target> {
        let DeValue::String(text) = value.get_ref() else {
            self.error(value.span(), path, "must be a URL, or a list of URLs");
            return None;
        };
        match Target::parse(text, self.vocabulary()) {
            Ok(target) => {
                self.report.layout().harmless.push(value.span());
                Some(target)
            }
            Err(fault) => {
                if !fault.is_secret {
                    self.report.layout().harmless.push(value.span());
                }
                self.error(value.span(), path, fault.text);
                None
            }
        }
    }

    fn method(&mut self) -> Method {
        const METHODS: [&str; 4] = ["GET", "POST", "PUT", "PATCH"];
        let words = METHODS.map(|name| (name, name));
        let word = self.word("method", &words);
        // Each of these is a method, so the default is never used.
        Method::from_bytes(word.unwrap_or_else(|| self.facts().method).as_bytes())
            .unwrap_or_default()
    }

    /// The parameters of a lookup when nothing else says what is asked.
    fn default_query(&self) -> Parameters {
        let names = self.facts().default_query;
        let pair = |name: &&str| {
            let value = self
                .parse_template(&format!("{{{name}}}"))
                .unwrap_or_default();
            ((*name).to_owned(), value)
        };
        Parameters::Each(names.iter().map(pair).collect())
    }

    fn parameters(&mut self, name: &'static str) -> Found<'t, Parameters> {
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

    fn json(&mut self) -> Found<'t, Json> {
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
    fn body(
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

    /// Reports a call that would be the same for every request: one answer for everybody.
    fn carries_nothing(&mut self, method: &Method, has_body: bool) {
        let text = if self.facts().key.is_some() {
            "neither target nor query, form, json or headers have {key}, {local} or {domain}"
                .to_owned()
        } else if has_body {
            "carries nothing of the request: neither target nor query, form, json or headers have \
             a placeholder such as {sender}, or \"{*}\"; {request} is always the same"
                .to_owned()
        } else {
            format!(
                "carries nothing of the request: method = \"{method}\" sends no form; write \
                 query = \"{{*}}\", or method = \"POST\""
            )
        };
        let (place, path) = self.place();
        self.error(place, &path, text);
    }

    fn user_agent(&mut self) -> HeaderValue {
        let default = HeaderValue::from_static(concat!("postgate/", env!("CARGO_PKG_VERSION")));
        let Some(entry) = self.section.take("user-agent") else {
            return default;
        };
        let Some(text) = values::string(&entry, self.report) else {
            return default;
        };
        match HeaderValue::from_str(text) {
            Ok(value) if !value.is_empty() => value,
            _ => {
                let text = "is empty or holds a character that no header can hold";
                self.error(entry.value.span(), &entry.path, text);
                default
            }
        }
    }

    fn normalise(&mut self) -> Normalise {
        let Some(mut section) = self.section.take_members("normalise", self.report) else {
            return Normalise::default();
        };
        let lowercase = section
            .take_bool("lowercase")
            .and_then(|entry| values::boolean(&entry, self.report))
            .unwrap_or(false);
        let delimiter = section.take("delimiter").and_then(|entry| {
            let text = values::string(&entry, self.report)?;
            if text.is_empty() || !text.is_ascii() || text.contains('@') {
                let text = "must be one or more ASCII characters other than \"@\"";
                self.report.error(entry.value.span(), &entry.path, text);
            }
            Some(text.to_owned())
        });
        let pattern = section.take("pattern").and_then(|entry| {
            let text = values::string(&entry, self.report)?;
            // The whole key, whatever alternatives the pattern has. Alone as well, since "a)|(b" is
            // a pattern in brackets only.
            let regex = regex_lite::Regex::new(text)
                .and_then(|_| regex_lite::Regex::new(&format!("^(?:{text})$")));
            match regex {
                Ok(regex) => Some(Pattern {
                    text: text.to_owned(),
                    regex,
                }),
                Err(error) => {
                    let text = format!("{text:?} is no regular expression: {error}");
                    self.report.error(entry.value.span(), &entry.path, text);
                    None
                }
            }
        });
        section.finish(self.report);
        Normalise {
            lowercase,
            delimiter,
            pattern,
        }
    }

    fn request_timeout(&mut self) -> Duration {
        let default = Duration::from_secs(5);
        let Some(entry) = self.section.take("request-timeout") else {
            return default;
        };
        let timeout = values::duration(&entry, self.report).unwrap_or(default);
        if timeout > LONGEST_REQUEST {
            let text = "must be at most \"90s\": Postfix gives up at 100 s";
            self.error(entry.value.span(), &entry.path, text);
        }
        timeout
    }

    pub(super) fn duration(&mut self, name: &'static str, default: Duration) -> Duration {
        self.section
            .take(name)
            .and_then(|entry| values::duration(&entry, self.report))
            .unwrap_or(default)
    }

    fn size(&mut self, name: &'static str, default: usize) -> usize {
        self.section
            .take(name)
            .and_then(|entry| values::size(&entry, self.report))
            .unwrap_or(default)
    }

    fn count(
        &mut self,
        name: &'static str,
        bounds: std::ops::RangeInclusive<usize>,
        default: usize,
    ) -> usize {
        self.section
            .take(name)
            .and_then(|entry| values::count(&entry, bounds, self.report))
            .unwrap_or(default)
    }

    pub(super) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let entry = self.section.take(name)?;
        values::word(&entry, words, self.report)
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> bool {
        self.section
            .take_bool(name)
            .and_then(|entry| values::boolean(&entry, self.report))
            .unwrap_or(false)
    }
}
