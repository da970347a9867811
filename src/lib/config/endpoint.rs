//! One endpoint: its keys, each taken and parsed once.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};

use super::body::{Body, Parameters};
use super::credentials::Credential;
use super::file::Section;
use super::headers::HeaderText;
use super::normalise::Normalise;
use super::problem::Report;
use super::reader::Reader;
use super::resilience::{Breaker, Cache};
use super::response::ResponseRules;
use super::secret::{HeaderSecret, SecretPolicy};
use super::target::Target;
use super::transport::Transport;
use super::values;
use crate::protocol::Facts;
use crate::reply::PolicyActions;

/// One HTTP endpoint: how a request is put to it, and how its answer is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where to; the next one where one knows no answer.
    pub targets: Vec<Target>,
    /// How.
    pub method: Method,
    /// Parameters appended to the target's own.
    pub query: Parameters,
    /// What is sent besides.
    pub body: Body,
    /// Further headers, by name.
    pub headers: Vec<(HeaderName, HeaderText)>,
    /// Sent as `X-Auth-Token`.
    pub auth_token: Option<HeaderSecret>,
    /// Sent as `Authorization`.
    pub credential: Option<Credential>,
    /// Sent as `User-Agent`.
    pub user_agent: HeaderValue,
    /// Whether the keys `*`, `<>` and `"<>"` are asked for.
    pub special_keys: bool,
    /// What is made of a key before it is asked for.
    pub normalise: Normalise,
    /// Attributes that placeholders may name besides Postfix's own.
    pub extra_attributes: Vec<String>,
    /// How the answer is read.
    pub reading: ResponseRules,
    /// What a policy table says for each outcome.
    pub words: PolicyActions,
    /// How connections are made.
    pub transport: Transport,
    /// Whether a redirect on the same origin is followed.
    pub follows_redirects: bool,
    /// How often a lookup is asked again on a connection that broke.
    pub retries: usize,
    /// The whole call, retries and waiting included.
    pub request_timeout: Duration,
    /// The most bytes of a body.
    pub max_response: usize,
    /// The most calls at once.
    pub max_in_flight: usize,
    /// Whether and how answers are kept.
    pub cache: Option<Cache>,
    /// When a target is left in peace.
    pub breaker: Option<Breaker>,
}

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

impl Reader<'_, '_> {
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
}
