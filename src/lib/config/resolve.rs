//! The file into the configuration: every value parsed into its type, every mistake collected.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use toml::de::{DeTable, DeValue};
use tracing::level_filters::LevelFilter;

use super::file::{Entry, Section, entries, lay_out, table};
use super::problem::Report;
use super::secret::Secret;
use super::target::Target;
use super::template::Template;
use super::{
    Config, Credential, Endpoint, Missing, Parameters, Reading, Response, Server, Statuses, Table,
    Verdict, values,
};
use crate::program::Program;
use crate::protocol::action;
use crate::reply::{Said, Words};

/// What the configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To run on it: every secret has to be there.
    Serve,
    /// To look at it, perhaps outside the unit that has the credentials.
    Look,
}

/// Postfix gives up at 100 s, in all three protocols.
const LONGEST_REQUEST: Duration = Duration::from_secs(90);

/// Makes a configuration of the text, or reports why there is none.
pub(super) fn resolve(text: &str, mode: Mode, report: &mut Report) -> Option<Config> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            report.syntax(error.span(), error.message());
        }
        return None;
    }
    let root = root.get_ref();
    lay_out(root, report.layout());
    let mut file = Section::new("", 0..0, root);

    let http = file
        .take("http")
        .and_then(|e| Some((e.clone(), table(&e, report)?)));
    if let Some((entry, http)) = &http {
        let section = Section::new("http", entry.key_span.clone(), http);
        endpoint(section, &Program::ALL, mode, report);
    }
    let server = take_section(&mut file, "server", report)
        .map_or_else(Server::default, |section| server(section, report));
    let level = take_section(&mut file, "log", report)
        .map_or(LevelFilter::INFO, |section| log_level(section, report));
    let base = http
        .as_ref()
        .map(|(entry, table)| (entry.path.as_str(), *table));
    let mut reader = Tables {
        base,
        mode,
        drain_timeout: server.drain_timeout,
        found: Vec::new(),
        sockets: HashMap::new(),
    };
    for program in Program::ALL {
        if let Some(entry) = file.take(program.name())
            && let Some(tables) = table(&entry, report)
        {
            for entry in entries(program.name(), tables) {
                reader.read(program, &entry, report);
            }
        }
    }
    file.finish(report);
    Some(Config {
        server,
        level,
        tables: reader.found,
    })
}

fn take_section<'t>(
    file: &mut Section<'t>,
    name: &'static str,
    report: &mut Report,
) -> Option<Section<'t>> {
    let entry = file.take(name)?;
    Some(Section::new(
        name,
        entry.key_span.clone(),
        table(&entry, report)?,
    ))
}

fn server(mut section: Section<'_>, report: &mut Report) -> Server {
    let default = Server::default();
    let mut duration = |name| {
        let entry = section.take(name)?;
        values::duration(&entry, report)
    };
    let read_timeout = duration("read-timeout").unwrap_or(default.read_timeout);
    let idle_timeout = duration("idle-timeout");
    let drain_timeout = duration("drain-timeout").unwrap_or(default.drain_timeout);
    let max_connections = section
        .take("max-connections")
        .and_then(|entry| values::count(&entry, 1..=1_000_000, report))
        .unwrap_or(default.max_connections);
    section.finish(report);
    Server {
        max_connections,
        read_timeout,
        idle_timeout,
        drain_timeout,
    }
}

fn log_level(mut section: Section<'_>, report: &mut Report) -> LevelFilter {
    const LEVELS: [(&str, LevelFilter); 4] = [
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
    ];
    let level = section
        .take("level")
        .and_then(|e| values::word(&e, &LEVELS, report));
    section.finish(report);
    level.unwrap_or(LevelFilter::INFO)
}

/// The tables of all programs as they are read, one after the other.
struct Tables<'t> {
    base: Option<(&'t str, &'t DeTable<'t>)>,
    mode: Mode,
    drain_timeout: Duration,
    found: Vec<Table>,
    /// Which table has taken a socket's name.
    sockets: HashMap<(Program, String), String>,
}

impl<'t> Tables<'t> {
    fn read(&mut self, program: Program, entry: &Entry<'t>, report: &mut Report) {
        let Some(own) = table(entry, report) else {
            return;
        };
        self.check_name(program, entry, report);
        let mut section = Section::new(&entry.path, entry.key_span.clone(), own).over(self.base);
        let socket = self.socket(program, &mut section, entry, report);
        let Some(endpoint) = endpoint(section, &[program], self.mode, report) else {
            return;
        };
        if endpoint.request_timeout > self.drain_timeout {
            let text = format!(
                "request-timeout is longer than server.drain-timeout ({:?} > {:?}): a stop may cut a call short",
                endpoint.request_timeout, self.drain_timeout
            );
            report.warning(entry.key_span.clone(), &entry.path, text);
        }
        self.found.push(Table {
            program,
            name: entry.key.to_owned(),
            socket,
            endpoint,
        });
    }

    /// A map's name stands in main.cf between a colon and a blank; a socket's name in
    /// `LISTEN_FDNAMES` between colons (sd_listen_fds(3)).
    fn check_name(&self, program: Program, entry: &Entry<'_>, report: &mut Report) {
        let is_bad = |c: char| c == ':' || c.is_whitespace() || c.is_control();
        if entry.key.is_empty() || entry.key.contains(is_bad) {
            let text = "a name must not be empty, nor hold a colon or a blank";
            report.error(entry.key_span.clone(), &entry.path, text);
        } else if program != Program::Socketmap && entry.key == "*" {
            let text = "only socketmap has a table for every other name";
            report.error(entry.key_span.clone(), &entry.path, text);
        }
    }

    fn socket(
        &mut self,
        program: Program,
        section: &mut Section<'t>,
        table: &Entry<'_>,
        report: &mut Report,
    ) -> String {
        if program == Program::Socketmap {
            section.leave("socket", "a table of tcp-lookup or policy");
            return String::new();
        }
        let written = section.take("socket");
        let (name, span) = match &written {
            Some(entry) => (values::string(entry, report), entry.value.span()),
            None => (Some(table.key), table.key_span.clone()),
        };
        let path = written.as_ref().map_or(&table.path, |entry| &entry.path);
        let name = name.unwrap_or_default().to_owned();
        if name == "metrics" {
            let text = "\"metrics\" is kept for sockets that serve metrics; choose another name";
            report.error(span.clone(), path, text);
        } else if written.is_some() && (name.is_empty() || name.contains([':', ' '])) {
            let text = format!("{name:?} is no FileDescriptorName=");
            report.error(span.clone(), path, text);
        }
        let taken = self
            .sockets
            .insert((program, name.clone()), table.path.clone());
        if let Some(other) = taken {
            report.error(
                span,
                path,
                format!("the socket \"{name}\" serves {other} already"),
            );
        }
        name
    }
}

/// Reads an endpoint for these programs; for more than one it is the defaults in `[http]`.
fn endpoint(
    section: Section<'_>,
    programs: &[Program],
    mode: Mode,
    report: &mut Report,
) -> Option<Endpoint> {
    let is_default = programs.len() > 1;
    let is_lookup = programs.iter().any(|p| p.is_lookup());
    let is_policy = programs.contains(&Program::Policy);
    let mut reader = Reader {
        is_lookup,
        is_policy,
        programs,
        mode,
        section,
        report,
    };
    let target = if is_default {
        reader.section.leave("target", "a table");
        reader
            .section
            .leave("socket", "a table of tcp-lookup or policy");
        None
    } else {
        reader.target()
    };
    let method = reader.method();
    let query = reader.parameters("query");
    let form = reader.form();
    let headers = reader.headers();
    let auth_token = reader.secret("auth-token");
    let credential = reader.credential();
    let user_agent = reader.user_agent();
    let words = reader.words();
    let special_keys = reader.lookup_bool("special-keys");
    let reading = reader.reading();
    let request_timeout = reader.request_timeout();
    let connect_timeout = reader.duration("connect-timeout", Duration::from_secs(2));
    let max_response = reader.size("max-response", 1 << 20);
    let max_in_flight = reader.count("max-in-flight", 256);
    let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
    let (place, path) = (reader.section.span.clone(), reader.section.path.clone());
    reader.section.finish(reader.report);

    let target = target?;
    let query = match query {
        Some((_, query)) => query,
        None if !is_lookup || target.has_placeholder() => Parameters::None,
        None => default_query(programs),
    };
    let form = match form {
        Some((entry, _)) if !has_body => {
            let text = "needs a method with a body: POST, PUT or PATCH";
            report.error(entry.value.span(), &entry.path, text);
            Parameters::None
        }
        Some((_, form)) => form,
        None if is_policy && has_body && query == Parameters::None => Parameters::All,
        None => Parameters::None,
    };
    if is_lookup && !target.has_placeholder() && !has_placeholder(&query) {
        let text = "neither target nor query has a placeholder such as {key}";
        report.error(place, &path, text);
    }
    Some(Endpoint {
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
    })
}

fn has_placeholder(query: &Parameters) -> bool {
    match query {
        Parameters::None => false,
        Parameters::All => true,
        Parameters::Each(pairs) => pairs.iter().any(|(_, value)| value.has_placeholder()),
    }
}

/// The parameters of a lookup when nothing else says what is asked.
fn default_query(programs: &[Program]) -> Parameters {
    let names: &[&str] = match programs {
        [Program::Socketmap] => &["name", "key"],
        _ => &["key"],
    };
    let pair = |name: &&str| {
        let value = Template::parse(&format!("{{{name}}}"), programs).unwrap_or_default();
        ((*name).to_owned(), value)
    };
    Parameters::Each(names.iter().map(pair).collect())
}

/// The keys of one endpoint, each taken and parsed once.
struct Reader<'r, 't> {
    is_lookup: bool,
    is_policy: bool,
    programs: &'r [Program],
    mode: Mode,
    section: Section<'t>,
    report: &'r mut Report,
}

type Place = Range<usize>;

impl<'t> Reader<'_, 't> {
    fn error(&mut self, span: Place, path: &str, text: impl Into<String>) {
        self.report.error(span, path, text);
    }

    fn target(&mut self) -> Option<Target> {
        let Some(entry) = self.section.take("target") else {
            let (span, path) = (self.section.span.clone(), self.section.path.clone());
            self.error(span, &path, "has no target");
            return None;
        };
        let text = values::private_string(&entry, self.report)?;
        match Target::parse(text, self.programs) {
            Ok(target) => {
                self.report.layout().harmless.push(entry.value.span());
                Some(target)
            }
            Err(fault) => {
                if !fault.is_secret {
                    self.report.layout().harmless.push(entry.value.span());
                }
                self.error(entry.value.span(), &entry.path, fault.text);
                None
            }
        }
    }

    fn method(&mut self) -> Method {
        const METHODS: [(&str, usize); 4] = [("GET", 0), ("POST", 1), ("PUT", 2), ("PATCH", 3)];
        let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH];
        let default = if self.is_lookup {
            Method::GET
        } else {
            Method::POST
        };
        let Some(entry) = self.section.take("method") else {
            return default;
        };
        values::word(&entry, &METHODS, self.report)
            .and_then(|i| methods.get(i).cloned())
            .unwrap_or(default)
    }

    fn parameters(&mut self, name: &'static str) -> Option<(Entry<'t>, Parameters)> {
        let entry = self.section.take(name)?;
        let table = match entry.value.get_ref() {
            DeValue::String(text) if text == "{*}" && self.is_policy => {
                self.report.layout().harmless.push(entry.value.span());
                return Some((entry, Parameters::All));
            }
            DeValue::Table(table) => table,
            _ => {
                let text = if self.is_policy {
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
                match Template::parse(text, self.programs) {
                    Ok(template) => pairs.push((pair.key.to_owned(), template)),
                    Err(error) => self.error(pair.value.span(), &pair.path, error),
                }
            }
        }
        Some((entry, Parameters::Each(pairs)))
    }

    fn form(&mut self) -> Option<(Entry<'t>, Parameters)> {
        if !self.is_policy {
            self.section.leave("form", "a policy table");
            return None;
        }
        let entry = self.section.take("form")?;
        if values::string(&entry, self.report)? != "{*}" {
            let text = "must be \"{*}\", for all attributes in the order they came";
            self.error(entry.value.span(), &entry.path, text);
        }
        Some((entry, Parameters::All))
    }

    fn headers(&mut self) -> Vec<(HeaderName, Secret)> {
        let Some(section) = self.section.take_members("headers", self.report) else {
            return Vec::new();
        };
        let mut headers = Vec::new();
        for entry in section.rest() {
            let Ok(name) = HeaderName::try_from(entry.key) else {
                self.error(entry.key_span, &entry.path, "is no name of a header");
                continue;
            };
            if OUR_HEADERS.contains(&name.as_str()) {
                self.error(entry.key_span, &entry.path, "is set by the program itself");
                continue;
            }
            if let DeValue::String(text) = entry.value.get_ref() {
                match Template::parse(text, &[]) {
                    Ok(plain) => {
                        let literal = plain.literal();
                        if literal.is_empty() || HeaderValue::from_str(&literal).is_err() {
                            let text = "is empty or holds a character that no header can hold";
                            self.error(entry.value.span(), &entry.path, text);
                        }
                        headers.push((name, Secret::text(&literal)));
                    }
                    Err(_) => {
                        let text = "has a placeholder, which headers cannot have; write \"{{\" for a brace";
                        self.error(entry.value.span(), &entry.path, text);
                    }
                }
            } else if let Some(value) = values::secret(&entry, self.mode, self.report) {
                headers.push((name, value));
            }
        }
        headers
    }

    fn secret(&mut self, name: &'static str) -> Option<Secret> {
        let entry = self.section.take(name)?;
        values::secret(&entry, self.mode, self.report)
    }

    /// The nearest layer that names a credential has the say.
    fn credential(&mut self) -> Option<Credential> {
        let bearer = self.section.take_with_layer("bearer-token");
        let basic = self.section.take_with_layer("basic-auth");
        let layer = |found: &Option<(usize, Entry<'_>)>| found.as_ref().map(|(layer, _)| *layer);
        if let (Some((at, _)), Some((other, entry))) = (&bearer, &basic)
            && at == other
        {
            let text = "there is bearer-token already; only one of them can be sent";
            self.report.error(entry.key_span.clone(), &entry.path, text);
        }
        if layer(&bearer) > layer(&basic) {
            let (_, entry) = bearer?;
            values::secret(&entry, self.mode, self.report).map(Credential::Bearer)
        } else {
            let (_, entry) = basic?;
            self.basic(&entry)
        }
    }

    fn basic(&mut self, entry: &Entry<'t>) -> Option<Credential> {
        let table = table(entry, self.report)?;
        let mut section = Section::new(&entry.path, entry.key_span.clone(), table);
        let user = section.take("user");
        let password = section.take("password");
        section.finish(self.report);
        let (Some(user), Some(password)) = (user, password) else {
            self.error(
                entry.value.span(),
                &entry.path,
                "must have the keys user and password",
            );
            return None;
        };
        let (user_entry, user) = (&user, values::secret(&user, self.mode, self.report));
        let password = values::secret(&password, self.mode, self.report);
        let (user, password) = (user?, password?);
        if user.expose().contains(':') {
            let text = "holds a colon, which ends the name in basic authentication";
            self.error(user_entry.value.span(), &user_entry.path, text);
        }
        Some(Credential::Basic { user, password })
    }

    fn user_agent(&mut self) -> String {
        let default = concat!("postgate/", env!("CARGO_PKG_VERSION")).to_owned();
        let Some(entry) = self.section.take("user-agent") else {
            return default;
        };
        let Some(text) = values::string(&entry, self.report) else {
            return default;
        };
        if text.is_empty() || HeaderValue::from_str(text).is_err() {
            let text = "is empty or holds a character that no header can hold";
            self.error(entry.value.span(), &entry.path, text);
        }
        text.to_owned()
    }

    fn words(&mut self) -> Words {
        let default = Words::default();
        let names = [
            "on-not-found",
            "on-temporary",
            "on-permanent",
            "permit-actions",
            "restriction-classes",
        ];
        if !self.is_policy {
            for name in names {
                self.section.leave(name, "a policy table");
            }
            return default;
        }
        let restriction_classes = self.restriction_classes();
        let permit_actions = self.boolean("permit-actions");
        let mut said = |name, default| self.said(name, &restriction_classes).unwrap_or(default);
        Words {
            on_not_found: said("on-not-found", default.on_not_found),
            on_temporary: said("on-temporary", default.on_temporary),
            on_permanent: said("on-permanent", default.on_permanent),
            permit_actions,
            restriction_classes,
        }
    }

    fn restriction_classes(&mut self) -> Vec<String> {
        let Some(entry) = self.section.take("restriction-classes") else {
            return Vec::new();
        };
        let classes = values::strings(&entry, self.report).unwrap_or_default();
        let is_name = |name: &String| {
            let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            !name.is_empty() && name.bytes().all(is_word) && !action::is_restriction(name)
        };
        if let Some(bad) = classes.iter().find(|class| !is_name(class)) {
            let text = format!("{bad:?} is no name of a restriction class");
            self.error(entry.value.span(), &entry.path, text);
        }
        classes
    }

    fn said(&mut self, name: &'static str, classes: &[String]) -> Option<Said> {
        let entry = self.section.take(name)?;
        let text = values::string(&entry, self.report)?;
        if text == "disconnect" {
            return Some(Said::Disconnect);
        }
        match action::parse(text, true, classes) {
            Ok(action) => Some(Said::Action(action.to_owned())),
            Err(fault) => {
                self.error(
                    entry.value.span(),
                    &entry.path,
                    format!("{text:?} is {}", fault.text()),
                );
                None
            }
        }
    }

    fn reading(&mut self) -> Reading {
        const RESPONSES: [(&str, Response); 3] = [
            ("json", Response::Json),
            ("text", Response::Text),
            ("auto", Response::Auto),
        ];
        const MISSING: [(&str, Missing); 2] = [
            ("temporary", Missing::Temporary),
            ("not-found", Missing::NotFound),
        ];
        let response = self
            .word("response", &RESPONSES)
            .unwrap_or(if self.is_lookup {
                Response::Json
            } else {
                Response::Auto
            });
        let value = self
            .section
            .take("value")
            .and_then(|entry| values::pointer(&entry, self.report));
        Reading {
            is_lookup: self.is_lookup,
            response,
            value,
            missing: self.word("missing", &MISSING).unwrap_or(Missing::Temporary),
            list_separator: self.text("list-separator", ",", |text| !text.contains('\0')),
            true_value: self.text("true-value", "1", |text| {
                !text.is_empty() && !text.contains(['\0', '\n'])
            }),
            status: self.status(),
        }
    }

    fn text(&mut self, name: &'static str, default: &str, is_right: fn(&str) -> bool) -> String {
        let entry = self.section.take(name);
        let text = entry.as_ref().and_then(|e| values::string(e, self.report));
        if let (Some(entry), Some(text)) = (&entry, text)
            && !is_right(text)
        {
            let text = "is empty or holds a character that cannot be sent";
            self.error(entry.value.span(), &entry.path, text);
        }
        text.unwrap_or(default).to_owned()
    }

    fn status(&mut self) -> Statuses {
        const VERDICTS: [(&str, Verdict); 4] = [
            ("found", Verdict::Found),
            ("not-found", Verdict::NotFound),
            ("temporary", Verdict::Temporary),
            ("permanent", Verdict::Permanent),
        ];
        let mut statuses = Statuses::default();
        let Some(section) = self.section.take_members("status", self.report) else {
            return statuses;
        };
        for entry in section.rest() {
            let Some(verdict) = values::word(&entry, &VERDICTS, self.report) else {
                continue;
            };
            let class = entry
                .key
                .strip_suffix("xx")
                .and_then(|digit| digit.parse().ok());
            let exact = entry.key.parse().ok().filter(|_| entry.key.len() == 3);
            match (exact, class) {
                (Some(status @ 200..=599), _) => statuses.exact.push((status, verdict)),
                (_, Some(class @ 2..=5)) => statuses.classes.push((class, verdict)),
                _ => {
                    let text = "is no status from 200 to 599 and no class such as \"4xx\"";
                    self.error(entry.key_span, &entry.path, text);
                }
            }
        }
        statuses
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

    fn duration(&mut self, name: &'static str, default: Duration) -> Duration {
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

    fn count(&mut self, name: &'static str, default: usize) -> usize {
        self.section
            .take(name)
            .and_then(|entry| values::count(&entry, 1..=1_000_000, self.report))
            .unwrap_or(default)
    }

    fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let entry = self.section.take(name)?;
        values::word(&entry, words, self.report)
    }

    fn boolean(&mut self, name: &'static str) -> bool {
        self.section
            .take_bool(name)
            .and_then(|entry| values::boolean(&entry, self.report))
            .unwrap_or(false)
    }

    fn lookup_bool(&mut self, name: &'static str) -> bool {
        if self.is_lookup {
            return self.boolean(name);
        }
        self.section.leave(name, "a lookup table");
        false
    }
}

/// Headers that would break the call, or our own record of it.
const OUR_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];
