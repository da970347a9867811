//! An endpoint: all keys of a table, each read once.

use std::iter;
use std::ops::Range;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};

use super::body::{self, Body, Parameters};
use super::counting::{self, Limits};
use super::credentials::{self, Credential};
use super::file::Section;
use super::headers::{self, HeaderText};
use super::limits::Limit;
use super::normalise::{self, Normalise};
use super::operations::{self, Operations, Own};
use super::problem::Report;
use super::reader::Reader;
use super::resilience::{self, Breaker, Cache};
use super::response::{self, Response, ResponseRules};
use super::secret::{HeaderSecret, SecretPolicy, Source};
use super::target::{self, Target};
use super::template::{Template, Wanted};
use super::transport::{self, Transport};
use super::{actions, login, values};
use crate::protocol::Facts;
use crate::protocol::facts::Content;
use crate::protocol::policy::rules::PolicyActions;
use crate::protocol::sasl::rules::Logins;

/// An HTTP endpoint: how a request is sent to it, and how its answer is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The URLs; the next one is tried where one has no answer. Empty in a table that counts without
    /// a call.
    pub targets: Vec<Target>,
    /// The method.
    pub method: Method,
    /// The parameters appended to the query of the target.
    pub query: Parameters,
    /// The body.
    pub body: Body,
    /// Further headers, sorted by name.
    pub headers: Vec<(HeaderName, HeaderText)>,
    /// Sent as `X-Auth-Token`.
    pub auth_token: Option<HeaderSecret>,
    /// Sent as `Authorization`.
    pub credential: Option<Credential>,
    /// Sent as `User-Agent`.
    pub user_agent: HeaderValue,
    /// Whether the keys `*`, `<>` and `"<>"` are looked up.
    pub special_keys: bool,
    /// How a key is normalised before it is looked up.
    pub normalise: Normalise,
    /// The attributes that placeholders may name in addition to Postfix's.
    pub extra_attributes: Vec<String>,
    /// How the answer is read.
    pub response_rules: ResponseRules,
    /// The actions of a policy table.
    pub actions: PolicyActions,
    /// How much an account may use; a table with limits counts, and its calls fetch numbers.
    pub limits: Vec<Limit>,
    /// What the table can do besides lookups.
    pub operations: Operations<Self>,
    /// The settings of a table of logins for its replies.
    pub logins: Logins,
    /// How connections are made.
    pub transport: Transport,
    /// Whether redirects to the same origin are followed.
    pub follows_redirects: bool,
    /// How often a lookup is sent again after its connection broke.
    pub retries: usize,
    /// The time for the whole call, retries and waiting included.
    pub request_timeout: Duration,
    /// The most bytes of an answer, after decompression.
    pub max_response: usize,
    /// The most calls in flight.
    pub max_in_flight: usize,
    /// How answers are cached, if they are.
    pub cache: Option<Cache>,
    /// When a target is skipped, if ever.
    pub breaker: Option<Breaker>,
}

/// Reads the endpoint of a table. For more than one protocol it reads the defaults in `[http]`, and
/// only reports problems.
pub(super) fn read(
    section: Section<'_>,
    protocols: &[&'static Facts],
    secret_policy: SecretPolicy,
    report: &mut Report,
) -> Option<Endpoint> {
    let rejected_before = report.rejected();
    let mut table = Reader::new(section, protocols, secret_policy, report);
    let reader = &mut table;
    let (actions, limits) = actions_and_limits(reader);
    let operations = operations::take(reader);
    let targets = target::read(reader);
    let (method, query, body) = body::read(reader, &targets);
    // Before the credentials, because this drops those that a nearer one displaces.
    let headers = headers::read(reader);
    let transport = transport::read(reader);
    let (logins, login) = login::read(reader);
    let mut endpoint = Endpoint {
        targets,
        method,
        query,
        body,
        headers,
        auth_token: headers::auth_token(reader),
        credential: credentials::read(reader, &transport.tls),
        user_agent: headers::user_agent(reader),
        special_keys: reader.boolean("special-keys"),
        normalise: normalise::read(reader),
        extra_attributes: reader.extra_attributes.clone(),
        response_rules: response::read(reader, &actions, login),
        actions,
        limits: limits.limits,
        request_timeout: request_timeout(reader, &logins),
        logins,
        operations: Operations::default(),
        transport,
        follows_redirects: transport::follows_redirects(reader),
        retries: reader.count("retries", 0..=10, 1),
        max_response: reader.size("max-response", 1 << 20),
        max_in_flight: reader.count("max-in-flight", 1..=1_000_000, 256),
        cache: resilience::cache(reader),
        breaker: resilience::breaker(reader),
    };
    complete_logins(reader, &mut endpoint);
    // A value that was rejected may have had the placeholder.
    let is_sound = reader.report.rejected() == rejected_before;
    if is_sound && !reader.is_default() {
        warn_of_any_200(reader, &endpoint.response_rules);
        if reader.facts().has_logins() {
            report_without_secret(reader, &endpoint);
            report_without_name(reader, &endpoint);
        } else if !endpoint.varies() {
            report_constant(reader, &endpoint.method);
        }
    }
    if endpoint.response_rules.require_header.is_empty() {
        warn_of_strangers(reader, limits.without_fallback);
    }
    for own in operations::read(operations, secret_policy, reader.report) {
        let operation = own.of;
        let call = endpoint.beside(own);
        endpoint.operations.put(operation, call);
    }
    let is_whole = !endpoint.targets.is_empty() || !reader.makes_calls();
    table.section.finish(table.report);
    is_whole.then_some(endpoint)
}

/// Reads what decides the kind of the table, and so which other keys it has.
fn actions_and_limits(reader: &mut Reader<'_, '_>) -> (PolicyActions, Limits) {
    let rejected_before = reader.report.rejected();
    let how = reader.counting();
    let call = how.and_then(|counting| counting.call.as_ref());
    if let Some(call) = call {
        reader.ask_as(std::slice::from_ref(call));
    }
    reader.extra_attributes = extra_attributes(reader);
    let mut actions = actions::read(reader);
    let limits = counting::read(reader, how, &actions.restriction_classes);
    if call.is_some() {
        // What such a table answers is the operator's.
        actions.permit_actions = true;
        // A limit that was rejected may have had a pointer.
        let is_sure = reader.report.rejected() == rejected_before;
        if !limits.makes_calls && (is_sure || reader.section.nearest(&["target"]).is_none()) {
            reader.make_no_calls();
        }
    }
    (actions, limits)
}

/// Warns of limits that a proxy's 404 would switch off.
fn warn_of_strangers(reader: &mut Reader<'_, '_>, without_fallback: Vec<(Range<usize>, String)>) {
    for (span, path) in without_fallback {
        let text = "points into the answer of target, and a 404 of a proxy would count as \"no \
                    such account\"; write a fallback, or let the API mark its answers, with \
                    require-header";
        reader.report.warning(span, &path, text);
    }
}

impl Endpoint {
    /// Returns this endpoint, and those for what the table can do besides lookups.
    pub fn with_operations(&self) -> impl Iterator<Item = &Self> {
        let operations = self.operations.named().into_iter();
        iter::once(self).chain(operations.filter_map(|(_, endpoint)| endpoint))
    }

    /// Returns whether the call has a value of the request.
    pub fn carries(&self, value: &str) -> bool {
        self.carries_wanted(Wanted::value(value))
    }

    fn carries_wanted(&self, wanted: Wanted<'_>) -> bool {
        body::carries(
            &self.targets,
            &self.query,
            &self.body,
            &self.headers,
            wanted,
        )
    }

    /// Returns the endpoint of a sub-table, which has a request of its own and everything else of
    /// this one.
    fn beside(&self, own: Own) -> Self {
        let inherited = self.headers.iter().filter(|(name, text)| {
            matches!(text, HeaderText::Fixed(_)) && !own.replaced.contains(name)
        });
        let mut headers: Vec<_> = inherited.cloned().chain(own.headers).collect();
        headers.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        let rules = self.response_rules.clone();
        let response_rules = ResponseRules {
            protocol: own.of.call,
            response: match own.of.call.content {
                Content::Rows => Response::Json,
                _ => rules.response,
            },
            value: own.value.or(rules.value),
            ..rules
        };
        Self {
            targets: own.targets,
            method: own.method,
            query: own.query,
            body: own.body,
            headers,
            response_rules,
            operations: Operations::default(),
            ..self.clone()
        }
    }

    /// Returns whether the call differs between the requests of one table.
    fn varies(&self) -> bool {
        let mut headers = self.headers.iter();
        self.targets.iter().all(Target::varies)
            || self.query.varies()
            || self.body.varies()
            || headers.any(|(_, text)| matches!(text, HeaderText::Filled(text) if text.varies()))
    }

    /// Returns whether a call of a login has a credential that is not that of the user.
    fn has_own_credential(&self) -> bool {
        let is_own = |credential: &Credential| !matches!(credential, Credential::Login { .. });
        self.auth_token.is_some()
            || self.transport.tls.identity.is_some()
            || self.credential.as_ref().is_some_and(is_own)
            || self.headers.iter().any(is_own_credential)
            || self.has_key_in_query()
            || self.body.has_own_credential()
    }

    /// Returns whether a parameter of the query is a credential that is the same for every login.
    fn has_key_in_query(&self) -> bool {
        let mut targets = self.targets.iter();
        let in_target = targets.any(|target| {
            let query = target.query.as_ref().map(Template::literal);
            let query = query.unwrap_or_default();
            let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
            names.any(headers::names_credential)
        });
        let in_query = match &self.query {
            Parameters::Each(pairs) => pairs
                .iter()
                .any(|(name, _)| headers::names_credential(name)),
            Parameters::None | Parameters::All => false,
        };
        // No password stands in a query.
        in_target || in_query
    }

    /// Returns whether a call of a login with the secret of this name has this value in it.
    fn carries_beside(&self, value: &str, secret: &str) -> bool {
        let wanted = |value| Wanted {
            value,
            secret: Some(secret),
        };
        let in_credential = match &self.credential {
            // It is left out as a whole where it is about another secret.
            Some(Credential::Login { user, password }) => {
                let has_it = |text: &Template| text.carries(wanted(value));
                password.carries(wanted(secret)) && (has_it(user) || has_it(password))
            }
            _ => false,
        };
        in_credential || self.carries_wanted(wanted(value))
    }

    /// Returns whether a call of a login has the secret of this name in it.
    fn carries_secret(&self, secret: &str) -> bool {
        self.carries_beside(secret, secret)
    }
}

/// Completes the endpoint of a table of logins, whose keys are all read.
fn complete_logins(reader: &Reader<'_, '_>, endpoint: &mut Endpoint) {
    let has_own_credential = endpoint.has_own_credential();
    let Some(rules) = &mut endpoint.response_rules.login else {
        return;
    };
    rules.has_own_credential = has_own_credential;
    let mechanisms = endpoint.logins.mechanisms.iter();
    let mut secrets: Vec<_> = mechanisms.map(|mechanism| mechanism.secret()).collect();
    secrets.sort_unstable();
    secrets.dedup();
    let carries_any = secrets
        .iter()
        .any(|secret| endpoint.carries(secret) || endpoint.carries_secret(secret));
    if !carries_any && endpoint.body == Body::None && body::has_body(&endpoint.method) {
        endpoint.body = login::default_body(reader, &secrets);
    }
}

/// Warns of logins that a proxy's page would accept.
fn warn_of_any_200(reader: &mut Reader<'_, '_>, rules: &ResponseRules) {
    let Some(login) = &rules.login else {
        return;
    };
    if login.accepted.is_none() && rules.require_header.is_empty() {
        let (span, path) = reader.place();
        let text = "a login is accepted for any 200, also for that of a proxy; write accepted, or \
                    let the API mark its answers, with require-header";
        reader.report.warning(span, &path, text);
    }
}

/// Reports a call that carries no secret, so that every login would have the same answer.
fn report_without_secret(reader: &mut Reader<'_, '_>, endpoint: &Endpoint) {
    let mut mechanisms = endpoint.logins.mechanisms.iter();
    let Some(mechanism) = mechanisms.find(|mechanism| !endpoint.carries_secret(mechanism.secret()))
    else {
        return;
    };
    let (name, secret) = (mechanism.name(), mechanism.secret());
    let (span, path) = reader.place();
    let text = format!(
        "the call for {name} does not carry the {secret}; write {{{secret}}} in json, form, \
         headers or basic-auth"
    );
    reader.error(span, &path, text);
}

/// Reports a call that does not say whose login it is: the password or the token of one user would
/// be taken for that of another.
fn report_without_name(reader: &mut Reader<'_, '_>, endpoint: &Endpoint) {
    let login = endpoint.response_rules.login.as_ref();
    let (Some(key), None) = (
        reader.facts().key,
        login.and_then(|login| login.user.as_ref()),
    ) else {
        return;
    };
    let mut mechanisms = endpoint.logins.mechanisms.iter();
    let mechanism = mechanisms.find(|mechanism| {
        let secret = mechanism.secret();
        endpoint.carries_secret(secret) && !endpoint.carries_beside(key, secret)
    });
    let Some(mechanism) = mechanism else {
        return;
    };
    let (name, secret) = (mechanism.name(), mechanism.secret());
    let (span, path) = reader.place();
    let text = format!(
        "the call for {name} does not carry the {key}, so that the {secret} of any user would be \
         good for every name; write {{{key}}} in it, or user for the name in the answer"
    );
    reader.error(span, &path, text);
}

/// Returns whether a header is a credential that does not come from the user: what is kept apart
/// from the configuration, and what has the name of a credential and nothing of the login.
fn is_own_credential((name, text): &(HeaderName, HeaderText)) -> bool {
    match text {
        HeaderText::Fixed(secret) if secret.source != Source::Text => true,
        HeaderText::Fixed(_) => headers::names_credential(name.as_str()),
        HeaderText::Filled(template) => {
            headers::names_credential(name.as_str()) && !template.is_of_login()
        }
    }
}

fn extra_attributes(reader: &mut Reader<'_, '_>) -> Vec<String> {
    let Some(entry) = reader.section.take("extra-attributes") else {
        return Vec::new();
    };
    let names = values::strings(&entry, reader.report).unwrap_or_default();
    let is_name = |name: &String| {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        !name.is_empty() && name.bytes().all(is_word)
    };
    if let Some(bad) = names.iter().find(|name| !is_name(name)) {
        let text = format!(
            "{bad:?} cannot be the name of an attribute; use letters, digits, \"-\", \"_\" \
             and \".\""
        );
        reader.error(entry.value.span(), &entry.path, text);
    }
    names
}

/// Reports a call that is the same for every request, so that all requests get the same answer.
fn report_constant(reader: &mut Reader<'_, '_>, method: &Method) {
    let text = if reader.facts().key.is_some() {
        "the call is the same for every key; write {key}, {local} or {domain} in target, query, \
         form, json or headers"
            .to_owned()
    } else if !reader.facts().is_open {
        let facts = reader.facts();
        let values = facts.values.iter().copied();
        let values: Vec<_> = values
            .filter(|value| !facts.constants.contains(value))
            .collect();
        format!(
            "the call is always the same; write {{{}}} in target, query, form, json or headers",
            values.join("}, {")
        )
    } else if body::has_body(method) {
        "the call is the same for every request; write a placeholder such as {sender}, or \"{*}\", \
         in target, query, form, json or headers ({request} is always the same)"
            .to_owned()
    } else {
        format!(
            "the call is the same for every request: method = \"{method}\" sends no form; write \
             query = \"{{*}}\", or method = \"POST\""
        )
    };
    let (place, path) = reader.place();
    reader.error(place, &path, text);
}

fn request_timeout(reader: &mut Reader<'_, '_>, logins: &Logins) -> Duration {
    let default = Duration::from_secs(5);
    let nearest = reader.section.nearest(&["request-timeout"]);
    let is_inherited = nearest.is_some_and(|(below, _)| below > 0);
    let facts = reader.facts();
    let most = login::longest_call(facts, logins);
    let Some(entry) = reader.section.take("request-timeout") else {
        return default.min(most);
    };
    let timeout = values::duration(&entry, reader.report).unwrap_or(default);
    if is_inherited {
        return timeout.min(most);
    }
    if timeout > most {
        let (client, waits) = (facts.client, facts.client_waits_secs);
        let with = match facts.has_logins() {
            true => format!("with failure-delay that is {} s, and ", facts.max_secs),
            false => String::new(),
        };
        let most = values::written(most);
        let text = format!("must be at most \"{most}\"; {with}{client} gives up after {waits} s");
        reader.error(entry.value.span(), &entry.path, text);
    }
    timeout.min(most)
}
