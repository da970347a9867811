//! The configuration as it is after inheritance, as TOML that means the same; no secret is shown.

use std::borrow::Cow;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tracing::level_filters::LevelFilter;

use super::body::{Body, Json, Parameters};
use super::credentials::Credential;
use super::endpoint::Endpoint;
use super::headers::HeaderText;
use super::normalise::Normalise;
use super::oauth::{ClientAuth, OAuth, TokenServer};
use super::resilience::Cache;
use super::resolve::{Config, Table};
use super::response::{Missing, Response, Statuses, Verdict};
use super::secret::{Secret, Source};
use super::server::Server;
use super::target::Target;
use super::template::Template;
use super::tls::{Tls, TlsVersion};
use super::transport::{Compression, HttpVersion, Proxy};
use crate::protocol;
use crate::protocol::facts::PickedBy;
use crate::reply::FallbackAction;

/// Writes the whole configuration.
pub fn show(config: &Config) -> Result<String, toml::ser::Error> {
    toml::to_string(&Shown(config))
}

struct Shown<'c>(&'c Config);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let log: Pairs<'_> = [("level", text(level(self.0.level)))].into_iter().collect();
        map.serialize_entry("log", &log)?;
        map.serialize_entry("server", &server(&self.0.server))?;
        for protocol in protocol::ALL {
            let tables: Pairs<'_> = self
                .0
                .tables_of(protocol)
                .map(|table| (table.name.as_str(), Shape::Table(endpoint(table))))
                .collect();
            if !tables.0.is_empty() {
                map.serialize_entry(protocol.name, &tables)?;
            }
        }
        map.end()
    }
}

/// A table, its members in the order given.
struct Pairs<'c>(Vec<(Cow<'c, str>, Shape<'c>)>);

impl<'c, N: Into<Cow<'c, str>>> FromIterator<(N, Shape<'c>)> for Pairs<'c> {
    fn from_iter<I: IntoIterator<Item = (N, Shape<'c>)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
        )
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// The few shapes a value can have.
#[derive(Serialize)]
#[serde(untagged)]
enum Shape<'c> {
    Text(String),
    Number(usize),
    Flag(bool),
    List(&'c [String]),
    Shapes(Vec<Self>),
    Table(Pairs<'c>),
}

fn text(value: impl ToString) -> Shape<'static> {
    Shape::Text(value.to_string())
}

fn level(level: LevelFilter) -> String {
    level.to_string().to_lowercase()
}

fn duration(duration: Duration) -> Shape<'static> {
    let millis = duration.as_millis();
    text(if millis.is_multiple_of(1_000) {
        format!("{}s", millis / 1_000)
    } else {
        format!("{millis}ms")
    })
}

fn server(server: &Server) -> Pairs<'static> {
    [
        ("max-connections", Shape::Number(server.max_connections)),
        ("read-timeout", duration(server.read_timeout)),
        (
            "idle-timeout",
            server.idle_timeout.map_or(Shape::Flag(false), duration),
        ),
        ("drain-timeout", duration(server.drain_timeout)),
    ]
    .into_iter()
    .collect()
}

fn endpoint(table: &Table) -> Pairs<'_> {
    let Endpoint {
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
        response_rules,
        actions,
        transport,
        follows_redirects,
        retries,
        request_timeout,
        max_response,
        max_in_flight,
        cache,
        breaker,
    } = &table.endpoint;
    let facts = table.protocol;
    let mut pairs = vec![("target", one_or_list(targets)), ("method", text(method))];
    let mut add = |name, value| pairs.extend(value_of(name, value));
    add(
        "socket",
        (facts.picked_by == PickedBy::Socket).then(|| text(&table.socket)),
    );
    add("user-agent", Some(header_text(user_agent)));
    add(
        "auth-token",
        auth_token.as_ref().map(|token| source(&token.source)),
    );
    add("response", Some(text(response(response_rules.response))));
    add("value", response_rules.value.as_ref().map(text));
    add("missing", Some(text(missing(response_rules.missing))));
    add("error", response_rules.error.as_ref().map(text));
    add("no-error", some_list(&response_rules.no_error));
    add("require-header", required(&response_rules.require_header));
    add("list-separator", Some(text(&response_rules.list_separator)));
    add("true-value", Some(text(&response_rules.true_value)));
    add(
        "special-keys",
        facts.key.is_some().then_some(Shape::Flag(*special_keys)),
    );
    if facts.has_actions {
        add("on-not-found", Some(said(&actions.on_not_found)));
        add("on-temporary", Some(said(&actions.on_temporary)));
        add("on-permanent", Some(said(&actions.on_permanent)));
        add("permit-actions", Some(Shape::Flag(actions.permit_actions)));
        add(
            "restriction-classes",
            Some(Shape::List(&actions.restriction_classes)),
        );
        add("extra-attributes", some_list(extra_attributes));
    }
    add("request-timeout", Some(duration(*request_timeout)));
    add("connect-timeout", Some(duration(transport.connect_timeout)));
    add("retries", Some(Shape::Number(*retries)));
    add("pool-idle", Some(duration(transport.pool_idle)));
    add("max-response", Some(Shape::Number(*max_response)));
    add("max-in-flight", Some(Shape::Number(*max_in_flight)));
    add(
        "proxy",
        match &transport.proxy {
            Proxy::None => Some(Shape::Flag(false)),
            Proxy::Environment => Some(text("environment")),
            Proxy::Url(url) => Some(text(url)),
        },
    );
    add(
        "redirects",
        Some(word_or_false(follows_redirects.then_some("same-origin"))),
    );
    add(
        "compression",
        Some(word_or_false(match transport.compression {
            Compression::None => None,
            Compression::Response => Some("response"),
            Compression::Both => Some("both"),
        })),
    );
    add(
        "http-version",
        Some(text(match transport.http_version {
            HttpVersion::Auto => "auto",
            HttpVersion::Http1 => "1.1",
            HttpVersion::Http2 => "2",
        })),
    );
    add(
        "unix-socket",
        transport
            .unix_socket
            .as_ref()
            .map(|path| text(path.display())),
    );
    add("query", parameters(query));
    match body {
        Body::None => {}
        Body::Form(form) => add("form", parameters(form)),
        Body::Json(value) => add("json", Some(json(value))),
    }
    match credential {
        None => {}
        Some(Credential::Bearer(token)) => add("bearer-token", Some(source(&token.source))),
        Some(Credential::Basic { user, password, .. }) => {
            let pair = [("user", source(user)), ("password", source(password))];
            add("basic-auth", Some(Shape::Table(pair.into_iter().collect())));
        }
        Some(Credential::OAuth(settings)) => add(
            "oauth2",
            Some(Shape::Table(oauth(settings, &transport.tls))),
        ),
    }
    let headers: Pairs<'_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), header(value)))
        .collect();
    add("headers", some_table(headers));
    add("status", some_table(statuses(&response_rules.status)));
    add("normalise", some_table(normalised(normalise)));
    add("tls", some_table(tls(&transport.tls, &Tls::default())));
    add(
        "cache",
        cache.as_ref().map(|settings| Shape::Table(kept(settings))),
    );
    add(
        "breaker",
        Some(breaker.as_ref().map_or(Shape::Flag(false), |settings| {
            let pairs = [
                ("failures", Shape::Number(settings.failures)),
                ("pause", duration(settings.pause)),
            ];
            Shape::Table(pairs.into_iter().collect())
        })),
    );
    pairs.into_iter().collect()
}

fn one_or_list(targets: &[Target]) -> Shape<'static> {
    match targets {
        [target] => text(target),
        targets => Shape::Shapes(targets.iter().map(text).collect()),
    }
}

fn some_list(list: &[String]) -> Option<Shape<'_>> {
    (!list.is_empty()).then_some(Shape::List(list))
}

fn some_table(table: Pairs<'_>) -> Option<Shape<'_>> {
    (!table.0.is_empty()).then_some(Shape::Table(table))
}

fn word_or_false(word: Option<&str>) -> Shape<'static> {
    word.map_or(Shape::Flag(false), text)
}

fn json(value: &Json) -> Shape<'_> {
    match value {
        Json::Flag(flag) => Shape::Flag(*flag),
        Json::Number(_) => text(HIDDEN),
        Json::Text(template) => filled(template),
        Json::All => text("{*}"),
        Json::List(list) => Shape::Shapes(list.iter().map(json).collect()),
        Json::Object(members) => {
            let members = members
                .iter()
                .map(|(name, value)| (name.as_str(), json(value)));
            Shape::Table(members.collect())
        }
    }
}

fn header(value: &HeaderText) -> Shape<'_> {
    match value {
        HeaderText::Fixed(value) => source(&value.source),
        HeaderText::Filled(template) => filled(template),
    }
}

/// Hides what stands between the placeholders, as a quoted line does.
fn filled(template: &Template) -> Shape<'static> {
    text(template.without_constants(HIDDEN))
}

fn oauth<'c>(settings: &'c OAuth, backend: &Tls) -> Pairs<'c> {
    let (server, url) = match &settings.server {
        TokenServer::Token(url) => ("token-url", url),
        TokenServer::Issuer(url) => ("issuer", url),
    };
    let (key, value, method) = match &settings.client_auth {
        ClientAuth::Basic(value) => ("client-secret", secret(value), "basic"),
        ClientAuth::Post(value) => ("client-secret", secret(value), "post"),
        ClientAuth::PrivateKeyJwt(key) => ("private-key", source(&key.source), "private-key-jwt"),
    };
    let scope = settings.scope.as_ref().map(|scope| ("scope", text(scope)));
    let parameters = settings.parameters.iter();
    let parameters = parameters.map(|(name, value)| (name.as_str(), secret(value)));
    let parameters: Pairs<'_> = parameters.collect();
    [
        (server, text(url)),
        ("client-id", text(&settings.client_id)),
        ("auth-method", text(method)),
        (key, value),
    ]
    .into_iter()
    .chain(scope)
    .chain(some_table(parameters).map(|parameters| ("parameters", parameters)))
    .chain(some_table(tls(&settings.tls, &backend.for_tokens())).map(|tls| ("tls", tls)))
    .collect()
}

fn normalised(normalise: &Normalise) -> Pairs<'_> {
    let lowercase = normalise
        .lowercase
        .then_some(("lowercase", Shape::Flag(true)));
    let delimiter = normalise.delimiter.as_ref().map(|d| ("delimiter", text(d)));
    let pattern = normalise
        .pattern
        .as_ref()
        .map(|p| ("pattern", text(&p.text)));
    lowercase
        .into_iter()
        .chain(delimiter)
        .chain(pattern)
        .collect()
}

fn kept(cache: &Cache) -> Pairs<'_> {
    let lifetime = |ttl: Duration| {
        if ttl.is_zero() {
            Shape::Flag(false)
        } else {
            duration(ttl)
        }
    };
    let some = |name, value: Option<Duration>| value.map(|value| (name, duration(value)));
    [
        ("ttl", lifetime(cache.ttl)),
        ("negative-ttl", lifetime(cache.negative_ttl)),
        ("honour-http", Shape::Flag(cache.honour_http)),
        ("max-entries", Shape::Number(cache.max_entries)),
        ("max-bytes", Shape::Number(cache.max_bytes)),
    ]
    .into_iter()
    .chain(some("stale-if-error", cache.stale_if_error))
    .chain(some("refresh-ahead", cache.refresh_ahead))
    .chain((!cache.by.is_empty()).then_some(("by", Shape::List(&cache.by))))
    .collect()
}

/// Shows what differs from the settings that would be taken over.
fn tls<'c>(tls: &'c Tls, inherited: &Tls) -> Pairs<'c> {
    let mut pairs = Vec::new();
    match &tls.ca {
        ca if *ca == inherited.ca => {}
        Some(ca) => pairs.push(("ca", text(ca.path.display()))),
        None => pairs.push(("ca", Shape::Flag(false))),
    }
    if let Some(identity) = &tls.identity {
        let path = &identity.certificates.path;
        pairs.push(("client-cert", text(path.display())));
        pairs.push((
            "client-key",
            match &identity.key {
                Source::File(path) => text(path.display()),
                elsewhere => source(elsewhere),
            },
        ));
    }
    if tls.min_version != inherited.min_version {
        let version = match tls.min_version {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        };
        pairs.push(("min-version", text(version)));
    }
    if !tls.verify {
        pairs.push(("verify", Shape::Flag(false)));
    }
    pairs.into_iter().collect()
}

fn value_of<'c>(name: &'static str, value: Option<Shape<'c>>) -> Option<(&'static str, Shape<'c>)> {
    value.map(|value| (name, value))
}

/// What is shown for what is hidden.
const HIDDEN: &str = "(hidden)";

fn secret(value: &Secret) -> Shape<'_> {
    source(value.source())
}

/// A secret in the configuration itself is hidden; of any other its place is shown.
fn source(source: &Source) -> Shape<'_> {
    let (kind, place) = match source {
        Source::Text => return text(HIDDEN),
        Source::Credential(name) => ("credential", name.clone()),
        Source::File(path) => ("file", path.display().to_string()),
        Source::Environment(name) => ("env", name.clone()),
    };
    Shape::Table([(kind, Shape::Text(place))].into_iter().collect())
}

fn parameters(parameters: &Parameters) -> Option<Shape<'_>> {
    match parameters {
        Parameters::None => None,
        Parameters::All => Some(text("{*}")),
        Parameters::Each(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (name.as_str(), filled(value)));
            Some(Shape::Table(pairs.collect()))
        }
    }
}

fn required(headers: &[(HeaderName, HeaderValue)]) -> Option<Shape<'_>> {
    let pairs = headers.iter();
    let pairs = pairs.map(|(name, value)| (name.as_str(), header_text(value)));
    (!headers.is_empty()).then(|| Shape::Table(pairs.collect()))
}

fn header_text(value: &HeaderValue) -> Shape<'static> {
    text(String::from_utf8_lossy(value.as_bytes()))
}

fn said(said: &FallbackAction) -> Shape<'_> {
    match said {
        FallbackAction::Action(action) => text(action),
        FallbackAction::Disconnect => text("disconnect"),
    }
}

fn statuses(statuses: &Statuses) -> Pairs<'static> {
    let exact = statuses
        .exact
        .iter()
        .map(|(status, v)| (status.to_string(), *v));
    let classes = statuses
        .classes
        .iter()
        .map(|(class, v)| (format!("{class}xx"), *v));
    exact
        .chain(classes)
        .map(|(name, v)| (name, text(verdict(v))))
        .collect()
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Found => "found",
        Verdict::NotFound => "not-found",
        Verdict::Temporary => "temporary",
        Verdict::Permanent => "permanent",
    }
}

fn response(response: Response) -> &'static str {
    match response {
        Response::Json => "json",
        Response::Text => "text",
        Response::Auto => "auto",
    }
}

fn missing(missing: Missing) -> &'static str {
    match missing {
        Missing::Temporary => "temporary",
        Missing::NotFound => "not-found",
    }
}
