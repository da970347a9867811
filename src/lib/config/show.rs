//! The configuration after inheritance, as TOML with the same meaning and without secrets.

use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tracing::level_filters::LevelFilter;

use super::body::{Body, Json, Parameters};
use super::credentials::Credential;
use super::endpoint::Endpoint;
use super::headers::HeaderText;
use super::keys::{
    BASIC_AUTH, BREAKER, CACHE, ENDPOINT, Kind, LIMIT, LOG, NORMALISE, OAUTH2, OPERATION, SERVER,
    STORE, TLS,
};
use super::limits::{Limit, RateSource, window_text};
use super::masked::without_query;
use super::normalise::Normalise;
use super::oauth::{ClientAuth, OAuth, TokenServer};
use super::resilience::{Breaker, Cache};
use super::resolve::{Config, Table};
use super::response::{Missing, Response, ResponseRules, Verdict};
use super::secret::Source;
use super::server::Server;
use super::shape::{
    Pairs, Shape, Values, duration, header_value, hidden, some_strings, some_table, source, table,
    template, text, word,
};
use super::show_logins;
use super::store::Store;
use super::target::Target;
use super::tls::{Tls, TlsVersion};
use super::transport::{Compression, HttpVersion, Proxy, Transport};
use crate::protocol::facts::Counting;
use crate::protocol::policy::rules::{FallbackAction, PolicyActions};
use crate::protocol::{self, Facts};

/// Returns the configuration as TOML.
pub fn show(config: &Config) -> Result<String, toml::ser::Error> {
    toml::to_string(&Shown(config))
}

struct Shown<'c>(&'c Config);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("log", &log(self.0.level))?;
        map.serialize_entry("server", &server(&self.0.server))?;
        if self.0.store != Store::default() {
            map.serialize_entry("store", &store(&self.0.store))?;
        }
        for protocol in protocol::ALL {
            let tables = self.0.tables_of(protocol);
            let tables: Pairs<'_> = tables
                .map(|table| (table.name.as_str(), Shape::Table(endpoint(table))))
                .collect();
            if !tables.0.is_empty() {
                map.serialize_entry(protocol.name, &tables)?;
            }
        }
        map.end()
    }
}

fn log(level: LevelFilter) -> Pairs<'static> {
    let level = level.to_string().to_lowercase();
    table(LOG, Kind::Defaults, vec![("level", Some(text(level)))])
}

fn server(server: &Server) -> Pairs<'static> {
    let idle_timeout = server.idle_timeout.map_or(Shape::Flag(false), duration);
    let values = vec![
        (
            "max-connections",
            Some(Shape::Number(server.max_connections)),
        ),
        ("read-timeout", Some(duration(server.read_timeout))),
        ("idle-timeout", Some(idle_timeout)),
        ("drain-timeout", Some(duration(server.drain_timeout))),
    ];
    table(SERVER, Kind::Defaults, values)
}

fn endpoint(of: &Table) -> Pairs<'_> {
    let endpoint = &of.endpoint;
    let kinds = [
        vec![("socket", Some(text(&of.socket)))],
        call(endpoint),
        credentials(endpoint),
        response(&endpoint.response_rules),
        show_logins::logins(endpoint),
        actions(&endpoint.actions),
        bounds(of),
        vec![("limits", limits(of))],
        operations(endpoint),
        transport(&endpoint.transport),
    ];
    let values = kinds.into_iter().flatten().collect();
    table(ENDPOINT, kind(of), values)
}

/// Returns the kind of a table.
fn kind(of: &Table) -> Kind {
    let (facts, endpoint) = (of.protocol, &of.endpoint);
    let call = match facts.counting {
        Some(counting) if !endpoint.limits.is_empty() => counting.call,
        _ => None,
    };
    match call {
        None => Kind::Asking(facts),
        Some(call) if endpoint.targets.is_empty() => Kind::Counting(call),
        Some(call) => Kind::Asking(call),
    }
}

fn call(endpoint: &Endpoint) -> Values<'_> {
    let (form, json, body) = match &endpoint.body {
        Body::None => (None, None, None),
        Body::Form(form) => (parameters(form), None, None),
        Body::Json(value) => (None, Some(json(value)), None),
        Body::Value(name) => (None, None, Some(text(format!("{{{name}}}")))),
    };
    let headers = endpoint.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), header(value)));
    vec![
        ("target", targets(&endpoint.targets)),
        ("method", Some(text(&endpoint.method))),
        ("query", parameters(&endpoint.query)),
        ("form", form),
        ("json", json),
        ("body", body),
        ("headers", some_table(headers.collect())),
        ("user-agent", Some(header_value(&endpoint.user_agent))),
        ("extra-attributes", some_strings(&endpoint.extra_attributes)),
        ("special-keys", Some(Shape::Flag(endpoint.special_keys))),
        ("normalise", some_table(normalise(&endpoint.normalise))),
    ]
}

/// Shows what a table can do besides lookups.
fn operations(endpoint: &Endpoint) -> Values<'_> {
    let named = endpoint.operations.named().into_iter();
    named.map(|(name, of)| (name, of.map(operation))).collect()
}

fn operation(of: &Endpoint) -> Shape<'_> {
    let value = of.response_rules.value.as_ref().map(text);
    let values = call(of).into_iter().chain([("value", value)]).collect();
    let kind = Kind::Asking(of.response_rules.protocol);
    Shape::Table(table(OPERATION, kind, values))
}

fn targets(targets: &[Target]) -> Option<Shape<'static>> {
    match targets {
        [] => None,
        [target] => Some(text(target.masked())),
        targets => {
            let targets = targets.iter().map(|target| text(target.masked()));
            Some(Shape::List(targets.collect()))
        }
    }
}

fn parameters(parameters: &Parameters) -> Option<Shape<'_>> {
    match parameters {
        Parameters::None => None,
        Parameters::All => Some(text("{*}")),
        Parameters::Each(pairs) => {
            let pairs = pairs.iter();
            let pairs = pairs.map(|(name, value)| (name.as_str(), template(value)));
            Some(Shape::Table(pairs.collect()))
        }
    }
}

fn json(value: &Json) -> Shape<'_> {
    match value {
        Json::Flag(flag) => Shape::Flag(*flag),
        Json::Number(_) => hidden(),
        Json::Text(text) => template(text),
        Json::All => text("{*}"),
        Json::List(list) => Shape::List(list.iter().map(json).collect()),
        Json::Object(members) => {
            let members = members.iter();
            let members = members.map(|(name, value)| (name.as_str(), json(value)));
            Shape::Table(members.collect())
        }
    }
}

fn header(value: &HeaderText) -> Shape<'_> {
    match value {
        HeaderText::Fixed(value) => source(&value.source),
        HeaderText::Filled(value) => template(value),
    }
}

fn normalise(normalise: &Normalise) -> Pairs<'_> {
    let pattern = normalise.pattern.as_ref();
    let values = vec![
        (
            "lowercase",
            normalise.lowercase.then_some(Shape::Flag(true)),
        ),
        ("delimiter", normalise.delimiter.as_ref().map(text)),
        ("pattern", pattern.map(|pattern| text(&pattern.text))),
    ];
    table(NORMALISE, Kind::Defaults, values)
}

fn credentials(endpoint: &Endpoint) -> Values<'_> {
    let auth_token = endpoint.auth_token.as_ref();
    let (mut bearer_token, mut basic_auth, mut oauth2) = (None, None, None);
    match &endpoint.credential {
        None => {}
        Some(Credential::Bearer(token)) => bearer_token = Some(source(&token.source)),
        Some(Credential::Basic { user, password, .. }) => {
            let values = vec![
                ("user", Some(source(user))),
                ("password", Some(source(password))),
            ];
            basic_auth = Some(Shape::Table(table(BASIC_AUTH, Kind::Defaults, values)));
        }
        Some(Credential::Login { user, password }) => {
            let values = vec![
                ("user", Some(template(user))),
                ("password", Some(template(password))),
            ];
            basic_auth = Some(Shape::Table(table(BASIC_AUTH, Kind::Defaults, values)));
        }
        Some(Credential::OAuth(settings)) => {
            oauth2 = Some(Shape::Table(oauth(settings, &endpoint.transport.tls)));
        }
    }
    vec![
        ("auth-token", auth_token.map(|token| source(&token.source))),
        ("bearer-token", bearer_token),
        ("basic-auth", basic_auth),
        ("oauth2", oauth2),
    ]
}

fn oauth<'c>(settings: &'c OAuth, backend: &Tls) -> Pairs<'c> {
    let (token_url, issuer) = match &settings.server {
        TokenServer::Token(url) => (Some(text(without_query(url))), None),
        TokenServer::Issuer(url) => (None, Some(text(without_query(url)))),
    };
    let (secret, key, method) = match &settings.client_auth {
        ClientAuth::Basic(secret) => (Some(source(secret.source())), None, "basic"),
        ClientAuth::Post(secret) => (Some(source(secret.source())), None, "post"),
        ClientAuth::PrivateKeyJwt(key) => (None, Some(source(&key.source)), "private-key-jwt"),
    };
    let parameters = settings.parameters.iter();
    let parameters = parameters.map(|(name, value)| (name.as_str(), source(value.source())));
    let values = vec![
        ("token-url", token_url),
        ("issuer", issuer),
        ("client-id", Some(text(&settings.client_id))),
        ("client-secret", secret),
        ("private-key", key),
        ("auth-method", Some(text(method))),
        ("scope", settings.scope.as_ref().map(text)),
        ("parameters", some_table(parameters.collect())),
        ("tls", some_table(tls(&settings.tls, &backend.for_tokens()))),
    ];
    table(OAUTH2, Kind::Defaults, values)
}

fn response(rules: &ResponseRules) -> Values<'_> {
    vec![
        ("response", Some(word(&Response::WORDS, &rules.response))),
        ("value", rules.value.as_ref().map(text)),
        ("missing", Some(word(&Missing::WORDS, &rules.missing))),
        (
            "error",
            match &rules.login {
                Some(login) => login.error.as_ref().map(show_logins::place),
                None => rules.error.as_ref().map(text),
            },
        ),
        ("no-error", some_strings(&rules.no_error)),
        ("list-separator", Some(text(&rules.list_separator))),
        ("true-value", Some(text(&rules.true_value))),
        (
            "require-header",
            some_table(require_header(&rules.require_header)),
        ),
        ("status", some_table(status(rules))),
    ]
}

fn require_header(headers: &[(HeaderName, HeaderValue)]) -> Pairs<'_> {
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| (name.as_str(), header_value(value)))
        .collect()
}

fn status(rules: &ResponseRules) -> Pairs<'static> {
    let (statuses, words) = (&rules.status, Verdict::words(rules.protocol));
    let exact = statuses.exact.iter().map(|(n, v)| (n.to_string(), v));
    let classes = statuses.classes.iter().map(|(n, v)| (format!("{n}xx"), v));
    let all = exact.chain(classes);
    all.map(|(name, verdict)| (name, word(&words, verdict)))
        .collect()
}

fn actions(actions: &PolicyActions) -> Values<'_> {
    let classes = Shape::Strings(&actions.restriction_classes);
    vec![
        ("on-not-found", Some(action(&actions.on_not_found))),
        ("on-temporary", Some(action(&actions.on_temporary))),
        ("on-permanent", Some(action(&actions.on_permanent))),
        ("permit-actions", Some(Shape::Flag(actions.permit_actions))),
        ("restriction-classes", Some(classes)),
    ]
}

fn action(action: &FallbackAction) -> Shape<'_> {
    match action {
        FallbackAction::Action(action) => text(action),
        FallbackAction::Disconnect => text("disconnect"),
    }
}

fn bounds(of: &Table) -> Values<'_> {
    let endpoint = &of.endpoint;
    let redirects = endpoint.follows_redirects.then_some("same-origin");
    let breaker = endpoint.breaker.as_ref().map(breaker);
    vec![
        ("request-timeout", Some(duration(endpoint.request_timeout))),
        ("retries", Some(Shape::Number(endpoint.retries))),
        ("max-response", Some(Shape::Number(endpoint.max_response))),
        ("max-in-flight", Some(Shape::Number(endpoint.max_in_flight))),
        (
            "redirects",
            Some(redirects.map_or(Shape::Flag(false), text)),
        ),
        (
            "cache",
            endpoint
                .cache
                .as_ref()
                .map(|c| Shape::Table(cache(c, kind(of)))),
        ),
        (
            "breaker",
            Some(breaker.map_or(Shape::Flag(false), Shape::Table)),
        ),
    ]
}

fn limits(of: &Table) -> Option<Shape<'_>> {
    let counting = of.protocol.counting?;
    let limits = of.endpoint.limits.iter();
    let limits: Vec<_> = limits
        .map(|one| Shape::Table(limit(of.protocol, counting, one)))
        .collect();
    (!limits.is_empty()).then_some(Shape::List(limits))
}

fn limit<'c>(facts: &'static Facts, counting: &'static Counting, limit: &'c Limit) -> Pairs<'c> {
    let by = match limit.by.as_slice() {
        [one] => text(one),
        several => Shape::List(several.iter().map(text).collect()),
    };
    let rates = limit.rates.iter().map(|(window, source)| {
        let source = match source {
            RateSource::Fixed(most) => number(*most),
            RateSource::Pointer(pointer) => text(pointer),
        };
        (window_text(*window), source)
    });
    let fallback = limit.fallback.iter().flatten();
    let fallback = fallback.map(|(window, most)| (window_text(*window), number(*most)));
    let values = vec![
        ("name", Some(text(&limit.name))),
        ("by", Some(by)),
        ("delimiter", limit.delimiter.as_ref().map(text)),
        ("rates", Some(Shape::Table(rates.collect()))),
        ("fallback", some_table(fallback.collect())),
        ("count", Some(word(counting.counts, &limit.count))),
        ("refused", Some(Shape::Flag(limit.charges_refused))),
        ("exempt", some_strings(&limit.exempt)),
        ("on-exceeded", Some(text(&limit.on_exceeded))),
        ("dry-run", Some(Shape::Flag(limit.is_dry_run))),
    ];
    table(LIMIT, Kind::Asking(facts), values)
}

fn number(number: u64) -> Shape<'static> {
    Shape::Number(usize::try_from(number).unwrap_or(usize::MAX))
}

fn store(store: &Store) -> Pairs<'_> {
    let (path, redis) = match store {
        Store::Sqlite { path } => (path.as_ref(), None),
        Store::Redis {
            url,
            prefix,
            timeout,
        } => (None, Some((url, prefix, timeout))),
    };
    let values = vec![
        ("path", path.map(|path| text(path.display()))),
        ("redis", redis.map(|(url, ..)| source(url.source()))),
        ("prefix", redis.map(|(_, prefix, _)| text(prefix))),
        ("timeout", redis.map(|(.., timeout)| duration(*timeout))),
    ];
    table(STORE, Kind::Defaults, values)
}

fn cache(cache: &Cache, kind: Kind) -> Pairs<'_> {
    let lifetime = |ttl: Duration| {
        if ttl.is_zero() {
            Shape::Flag(false)
        } else {
            duration(ttl)
        }
    };
    let values = vec![
        ("ttl", Some(lifetime(cache.ttl))),
        ("negative-ttl", Some(lifetime(cache.negative_ttl))),
        ("stale-if-error", cache.stale_if_error.map(duration)),
        ("refresh-ahead", cache.refresh_ahead.map(duration)),
        ("honour-http", Some(Shape::Flag(cache.honour_http))),
        ("max-entries", Some(Shape::Number(cache.max_entries))),
        ("max-bytes", Some(Shape::Number(cache.max_bytes))),
        ("shared", Some(Shape::Flag(cache.is_shared))),
        ("by", some_strings(&cache.by)),
    ];
    table(CACHE, kind, values)
}

fn breaker(breaker: &Breaker) -> Pairs<'static> {
    let values = vec![
        ("failures", Some(Shape::Number(breaker.failures))),
        ("pause", Some(duration(breaker.pause))),
    ];
    table(BREAKER, Kind::Defaults, values)
}

fn transport(transport: &Transport) -> Values<'_> {
    let proxy = match &transport.proxy {
        Proxy::None => Shape::Flag(false),
        Proxy::Environment => text("environment"),
        Proxy::Url(url) => text(url),
    };
    let unix_socket = transport.unix_socket.as_ref();
    vec![
        ("connect-timeout", Some(duration(transport.connect_timeout))),
        ("pool-idle", Some(duration(transport.pool_idle))),
        ("tls", some_table(tls(&transport.tls, &Tls::default()))),
        (
            "http-version",
            Some(word(&HttpVersion::WORDS, &transport.http_version)),
        ),
        ("proxy", Some(proxy)),
        (
            "compression",
            Some(word(&Compression::WORDS, &transport.compression)),
        ),
        ("unix-socket", unix_socket.map(|path| text(path.display()))),
    ]
}

/// Shows what differs from the settings that would be inherited.
fn tls<'c>(tls: &'c Tls, inherited: &Tls) -> Pairs<'c> {
    let ca = match &tls.ca {
        Some(ca) => text(ca.path.display()),
        None => Shape::Flag(false),
    };
    let identity = tls.identity.as_ref();
    let cert = identity.map(|identity| text(identity.certificates.path.display()));
    let key = identity.map(|identity| match &identity.key {
        Source::File(path) => text(path.display()),
        elsewhere => source(elsewhere),
    });
    let version = word(&TlsVersion::WORDS, &tls.min_version);
    let values = vec![
        ("ca", (tls.ca != inherited.ca).then_some(ca)),
        ("client-cert", cert),
        ("client-key", key),
        (
            "min-version",
            (tls.min_version != inherited.min_version).then_some(version),
        ),
        ("verify", (!tls.verify).then_some(Shape::Flag(false))),
    ];
    table(TLS, Kind::Defaults, values)
}
