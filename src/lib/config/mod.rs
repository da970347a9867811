//! The configuration the programs run on: made once from the file, immutable, and right.
//!
//! `file` finds the values with their places, `resolve` makes this out of them, `problem` shows
//! what is wrong with them, `show` writes it back as TOML.

mod actions;
mod credentials;
mod endpoint;
mod file;
mod headers;
mod problem;
mod reading;
mod resilience;
mod resolve;
mod secret;
mod show;
mod target;
mod template;
mod transport;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde_json::Number;
use tracing::level_filters::LevelFilter;

pub use credentials::signing_key;

pub use problem::{Problem, Report, Severity};
pub use resolve::Mode;
pub use secret::{Secret, Source};
pub use show::show;
pub use target::Target;
pub use template::{Part, Placeholder, Template, Vocabulary};
pub use transport::{authorities, client_identity, crypto_provider};

use crate::protocol::facts::Program;
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
    pub auth_token: Option<Secret>,
    /// Sent as `Authorization`.
    pub credential: Option<Credential>,
    /// Sent as `User-Agent`.
    pub user_agent: String,
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

/// How answers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// How long a value is good.
    pub ttl: Duration,
    /// How long a "not found" is good.
    pub negative_ttl: Duration,
    /// How long after that it may still be said while no better one is to be had.
    pub stale_if_error: Option<Duration>,
    /// How long before its end it is asked for again, if it is asked for at all.
    pub refresh_ahead: Option<Duration>,
    /// Whether the backend's own word on lifetimes comes first.
    pub honour_http: bool,
    /// The most answers.
    pub max_entries: usize,
    /// The most memory for them, about.
    pub max_bytes: usize,
    /// The attributes that make a policy question.
    pub by: Vec<String>,
}

/// When a target is left in peace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// After so many failures in a row.
    pub failures: usize,
    /// For so long.
    pub pause: Duration,
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

/// The value of a header.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderText {
    /// The same for every call.
    Fixed(Secret),
    /// With values of the request.
    Filled(Template),
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
    /// `Bearer` with a token fetched for the purpose.
    OAuth(Box<OAuth>),
}

/// Client credentials of OAuth 2 (RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth {
    /// Where tokens come from.
    pub server: TokenServer,
    /// Who we are there.
    pub client_id: String,
    /// How we prove it.
    pub proof: ClientAuth,
    /// What is asked for, names with blanks between them.
    pub scope: Option<String>,
    /// What the form for a token has besides.
    pub parameters: Vec<(String, Secret)>,
    /// How https is done there.
    pub tls: Tls,
}

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenServer {
    /// The token endpoint itself.
    Token(Url),
    /// An issuer that tells its token endpoint.
    Issuer(Url),
}

/// How a client proves who it is.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientAuth {
    /// The secret in `Authorization`.
    Basic(Secret),
    /// The secret in the form.
    Post(Secret),
    /// A signed assertion (RFC 7523, section 2.2).
    PrivateKeyJwt(Secret),
}

/// What is made of a key before it is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalise {
    /// Whether it is put into lower case.
    pub lowercase: bool,
    /// The characters at the first of which a local part is cut.
    pub delimiter: Option<String>,
    /// What a key has to match as a whole.
    pub pattern: Option<Pattern>,
}

/// A regular expression over a whole key.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As it is written.
    pub text: String,
    /// Ready to use, and tied to both ends.
    pub regex: regex_lite::Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// How connections to a backend are made; endpoints that agree in it share them.
#[derive(Clone, Debug, PartialEq)]
pub struct Transport {
    /// Name resolution, connection and TLS handshake.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept.
    pub pool_idle: Duration,
    /// For https.
    pub tls: Tls,
    /// Through whom.
    pub proxy: Proxy,
    /// Connect here, whatever the target's host.
    pub unix_socket: Option<PathBuf>,
    /// What is compressed.
    pub compression: Compression,
    /// The version of HTTP.
    pub http_version: HttpVersion,
}

/// How https is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// The authorities to trust instead of the system's.
    pub ca: Option<Pem>,
    /// The certificate to show, and its key.
    pub identity: Option<(Pem, Secret)>,
    /// The lowest version.
    pub min_version: TlsVersion,
    /// Whether the server's certificate is checked.
    pub verify: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            ca: None,
            identity: None,
            min_version: TlsVersion::Tls12,
            verify: true,
        }
    }
}

impl Tls {
    /// Returns what of it holds for a server of tokens as well: whom to trust instead of the system,
    /// and the lowest version. It is another server, which is to be checked in any case, and which
    /// has not asked who we are.
    pub fn for_tokens(&self) -> Self {
        Self {
            ca: self.ca.clone(),
            min_version: self.min_version,
            ..Self::default()
        }
    }
}

/// A PEM file and what was in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem {
    /// Where it is.
    pub path: PathBuf,
    /// What was in it, so that a reload notices another one.
    pub text: String,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Through whom connections are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Nobody.
    None,
    /// Whom the environment names.
    Environment,
    /// This one.
    Url(Url),
}

/// The version of HTTP that a backend is asked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// Over TLS what the server prefers (RFC 7301), otherwise 1.1.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, over plain TCP with prior knowledge (RFC 9113, section 3.3).
    Http2,
}

/// What is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// Answers, if the backend likes.
    Response,
    /// Answers, and bodies sent.
    Both,
}

/// How an answer is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseRules {
    /// Whether an empty answer means "not found", as for lookups.
    pub is_lookup: bool,
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
