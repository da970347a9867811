//! The configuration the programs run on: made once from the file, immutable, and right.
//!
//! `file` finds the values with their places, `resolve` makes this out of them, `problem` shows
//! what is wrong with them, `show` writes it back as TOML.

mod actions;
mod body;
mod credentials;
mod endpoint;
mod file;
mod headers;
mod keys;
mod normalise;
mod oauth;
mod problem;
mod reading;
mod resilience;
mod resolve;
mod secret;
mod server;
mod show;
mod target;
mod template;
mod tls;
mod transport;
mod values;

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use tracing::level_filters::LevelFilter;

pub use body::{Body, Json, Parameters};
pub use credentials::Credential;
pub use headers::HeaderText;
pub use keys::key_names;
pub use normalise::{Normalise, Pattern};
pub use oauth::{ClientAuth, OAuth, SigningKey, TokenServer};
pub use problem::{Problem, Report, Severity};
pub use resilience::{Breaker, Cache};
pub use resolve::Mode;
pub use secret::{HeaderSecret, Secret, Source};
pub use server::Server;
pub use show::show;
pub use target::Target;
pub use template::{Part, Placeholder, Template, Vocabulary};
pub use tls::{Certificates, ClientIdentity, Tls, TlsVersion, crypto_provider};
pub use transport::{Compression, HttpVersion, Proxy, Transport};

use crate::protocol::Facts;
use crate::reply::PolicyActions;

/// Reads the whole file.
///
/// The report holds every problem; there is a configuration if none of them is an error.
pub fn load(path: &Path, mode: Mode) -> (Option<Config>, Report) {
    let mut report = Report::new(path);
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let config = resolve::resolve(&text, mode, &mut report);
            report.render(&text);
            (config.filter(|_| !report.has_errors()), report)
        }
        Err(error) => {
            report.unreadable(&error);
            (None, report)
        }
    }
}

/// Everything in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[log]` `level`.
    pub level: LevelFilter,
    /// Every table of every program.
    pub tables: Vec<Table>,
}

impl Config {
    /// Returns the tables of one program.
    pub fn tables_of(&self, protocol: &'static Facts) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(move |t| t.protocol == protocol)
    }
}

/// One table of one program: a name that Postfix or a socket uses, and the endpoint behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The protocol that asks it.
    pub protocol: &'static Facts,
    /// The name of the table; `*` takes every other map name of a socketmap.
    pub name: String,
    /// The `FileDescriptorName=` of the sockets that serve it; unused by socketmap.
    pub socket: String,
    /// What is asked.
    pub endpoint: Endpoint,
}

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

/// How an answer is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseRules {
    /// What an empty value and a 404 mean, and where an object holds the value by default.
    pub protocol: &'static Facts,
    /// What the body is.
    pub response: Response,
    /// JSON Pointer to the value; if absent the root, or `/action` of a policy object.
    pub value: Option<String>,
    /// What a pointer to nothing means.
    pub missing: Missing,
    /// JSON Pointer to what flags an error.
    pub error: Option<String>,
    /// What stands there although there is none.
    pub no_error: Vec<String>,
    /// Joins a list.
    pub list_separator: String,
    /// What a JSON `true` becomes.
    pub true_value: String,
    /// What the operator has written of statuses.
    pub status: Statuses,
    /// The headers without which an answer is not the API's.
    pub require_header: Vec<(HeaderName, HeaderValue)>,
}

/// What the body of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// JSON.
    Json,
    /// One line of text.
    Text,
    /// One or the other, by its content type.
    Auto,
}

/// What a `value` that points nowhere means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The answer is not understood.
    Temporary,
    /// There is no such key.
    NotFound,
}

/// What a status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The body is the answer.
    Found,
    /// There is no such key.
    NotFound,
    /// Ask again later.
    Temporary,
    /// Somebody must mend a setting.
    Permanent,
}

/// The operator's `status`, which wins over the built-in table; exact ones win over classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses {
    /// By status.
    pub exact: Vec<(u16, Verdict)>,
    /// By the first digit of the status.
    pub classes: Vec<(u16, Verdict)>,
}

impl Statuses {
    /// Returns what the operator has written of this status.
    pub fn verdict(&self, status: u16) -> Option<Verdict> {
        let find = |list: &[(u16, Verdict)], wanted: u16| {
            list.iter().find(|(s, _)| *s == wanted).map(|(_, v)| *v)
        };
        find(&self.exact, status).or_else(|| find(&self.classes, status / 100))
    }
}
