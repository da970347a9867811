//! The configuration as it is after inheritance, as TOML that means the same; no secret is shown.

use std::borrow::Cow;
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tracing::level_filters::LevelFilter;

use super::secret::{Secret, Source};
use super::{
    Config, Credential, Endpoint, Missing, Parameters, Response, Server, Statuses, Table, Verdict,
};
use crate::program::Program;
use crate::reply::Said;

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
        for program in Program::ALL {
            let tables: Pairs<'_> = self
                .0
                .tables_of(program)
                .map(|table| (table.name.as_str(), Shape::Table(endpoint(table))))
                .collect();
            if !tables.0.is_empty() {
                map.serialize_entry(program.name(), &tables)?;
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
        target,
        method,
        query,
        form,
        headers,
        auth_token,
        credential,
        user_agent,
        special_keys,
        reading,
        words,
        request_timeout,
        connect_timeout,
        max_response,
        max_in_flight,
    } = &table.endpoint;
    let mut pairs = vec![("target", text(target)), ("method", text(method))];
    let mut add = |name, value| pairs.extend(value_of(name, value));
    add(
        "socket",
        (table.program != Program::Socketmap).then(|| text(&table.socket)),
    );
    add("user-agent", Some(text(user_agent)));
    add("auth-token", auth_token.as_ref().map(secret));
    if let Some(Credential::Bearer(token)) = credential {
        add("bearer-token", Some(secret(token)));
    }
    add("response", Some(text(response(reading.response))));
    add("value", reading.value.as_ref().map(text));
    add("missing", Some(text(missing(reading.missing))));
    add("list-separator", Some(text(&reading.list_separator)));
    add("true-value", Some(text(&reading.true_value)));
    add(
        "special-keys",
        table
            .program
            .is_lookup()
            .then_some(Shape::Flag(*special_keys)),
    );
    if table.program == Program::Policy {
        add("on-not-found", Some(said(&words.on_not_found)));
        add("on-temporary", Some(said(&words.on_temporary)));
        add("on-permanent", Some(said(&words.on_permanent)));
        add("permit-actions", Some(Shape::Flag(words.permit_actions)));
        add(
            "restriction-classes",
            Some(Shape::List(&words.restriction_classes)),
        );
    }
    add("request-timeout", Some(duration(*request_timeout)));
    add("connect-timeout", Some(duration(*connect_timeout)));
    add("max-response", Some(Shape::Number(*max_response)));
    add("max-in-flight", Some(Shape::Number(*max_in_flight)));
    add("query", parameters(query));
    add("form", parameters(form));
    if let Some(Credential::Basic { user, password }) = credential {
        let pair = [("user", secret(user)), ("password", secret(password))];
        add("basic-auth", Some(Shape::Table(pair.into_iter().collect())));
    }
    let headers: Pairs<'_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), secret(value)))
        .collect();
    add(
        "headers",
        (!headers.0.is_empty()).then_some(Shape::Table(headers)),
    );
    let statuses = statuses(&reading.status);
    add(
        "status",
        (!statuses.0.is_empty()).then_some(Shape::Table(statuses)),
    );
    pairs.into_iter().collect()
}

fn value_of<'c>(name: &'static str, value: Option<Shape<'c>>) -> Option<(&'static str, Shape<'c>)> {
    value.map(|value| (name, value))
}

/// A secret in the configuration itself is hidden; of any other its place is shown.
fn secret(secret: &Secret) -> Shape<'_> {
    let (kind, place) = match secret.source() {
        Source::Text => return text("(hidden)"),
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
                .map(|(name, value)| (name.as_str(), text(value)));
            Some(Shape::Table(pairs.collect()))
        }
    }
}

fn said(said: &Said) -> Shape<'_> {
    match said {
        Said::Action(action) => text(action),
        Said::Disconnect => text("disconnect"),
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
