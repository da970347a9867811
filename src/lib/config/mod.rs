//! The configuration the programs run on: made once from the file, immutable, and right.
//!
//! `file` finds the values with their places, `resolve` makes this out of them, `problem` shows
//! what is wrong with them, `show` writes it back as TOML.

mod file;
mod problem;
mod resolve;
mod secret;
mod show;
mod target;
mod template;
mod values;

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderName;
use tracing::level_filters::LevelFilter;

pub use problem::{Problem, Report, Severity};
pub use resolve::Mode;
pub use secret::{Secret, Source};
pub use show::show;
pub use target::Target;
pub use template::{Part, Placeholder, Template};

use crate::program::Program;
use crate::reply::Words;

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
    pub fn tables_of(&self, program: Program) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(move |t| t.program == program)
    }
}

/// The limits toward Postfix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Connections at once, per program.
    pub max_connections: usize,
    /// From a request's first byte to its last, and for writing a reply.
    pub read_timeout: Duration,
    /// How long a connection may ask nothing; for ever if absent.
    pub idle_timeout: Option<Duration>,
    /// From SIGTERM to the end.
    pub drain_timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            read_timeout: Duration::from_secs(10),
            idle_timeout: None,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// One table of one program: a name that Postfix or a socket uses, and the endpoint behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Whose table it is.
    pub program: Program,
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
    /// Where to.
    pub target: Target,
    /// How.
    pub method: Method,
    /// Parameters appended to the target's own.
    pub query: Parameters,
    /// The parameters of a form body.
    pub form: Parameters,
    /// Further headers, in the order written.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Sent as `X-Auth-Token`.
    pub auth_token: Option<Secret>,
    /// Sent as `Authorization`.
    pub credential: Option<Credential>,
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// Whether the keys `*`, `<>` and `"<>"` are asked for.
    pub special_keys: bool,
    /// How the answer is read.
    pub reading: Reading,
    /// What a policy table says for each outcome.
    pub words: Words,
    /// The whole call, retries and waiting included.
    pub request_timeout: Duration,
    /// Name resolution, connection and TLS handshake.
    pub connect_timeout: Duration,
    /// The most bytes of a body.
    pub max_response: usize,
    /// The most calls at once.
    pub max_in_flight: usize,
}

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

/// The one credential in `Authorization`.
#[derive(Clone, Debug, PartialEq)]
pub enum Credential {
    /// `Bearer`, RFC 6750.
    Bearer(Secret),
    /// `Basic`, RFC 7617.
    Basic {
        /// The user's name.
        user: Secret,
        /// The user's password.
        password: Secret,
    },
}

/// How an answer is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Whether an empty answer means "not found", as for lookups.
    pub is_lookup: bool,
    /// What the body is.
    pub response: Response,
    /// JSON Pointer to the value; if absent the root, or `/action` of a policy object.
    pub value: Option<String>,
    /// What a pointer to nothing means.
    pub missing: Missing,
    /// Joins a list.
    pub list_separator: String,
    /// What a JSON `true` becomes.
    pub true_value: String,
    /// What the operator has written of statuses.
    pub status: Statuses,
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
