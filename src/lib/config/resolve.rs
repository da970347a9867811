//! From the file to the configuration: every table is read, every problem is collected.

use std::collections::HashMap;
use std::time::Duration;

use toml::de::{DeTable, DeValue};
use tracing::level_filters::LevelFilter;

use super::endpoint::{self, Endpoint};
use super::file::{Entry, Section, entries, lay_out, table};
use super::keys::{ENDPOINT, FILE, Key, Kind, LOG, SERVER, STORE};
use super::problem::Report;
use super::secret::SecretPolicy;
use super::server::{Server, log_level, server};
use super::store::{self, Store};
use super::values;
use crate::protocol::facts::PickedBy;
use crate::protocol::{self, Facts};

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[log]` `level`.
    pub level: LevelFilter,
    /// `[store]`.
    pub store: Store,
    /// The tables of all protocols.
    pub tables: Vec<Table>,
}

impl Config {
    /// Lets no table keep its answers for other hosts, or find those of others.
    pub fn share_no_caches(&mut self) {
        let caches = self
            .tables
            .iter_mut()
            .filter_map(|table| table.endpoint.cache.as_mut());
        caches.for_each(|cache| cache.is_shared = false);
    }

    /// Returns the tables of one protocol.
    pub fn tables_of(&self, protocol: &'static Facts) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(move |t| t.protocol == protocol)
    }
}

/// A table: the name that Postfix or a socket uses, and the endpoint behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The protocol that serves it.
    pub protocol: &'static Facts,
    /// The name of the table; `*` takes every other map name of a socketmap.
    pub name: String,
    /// The `FileDescriptorName=` of its sockets; empty where the request names the table.
    pub socket: String,
    /// The endpoint that is asked.
    pub endpoint: Endpoint,
}

impl Table {
    /// Returns whether the table needs the store.
    pub fn uses_store(&self) -> bool {
        !self.endpoint.limits.is_empty() || self.shares_cache()
    }

    /// Returns whether its answers are kept for all hosts.
    pub fn shares_cache(&self) -> bool {
        let cache = self.endpoint.cache.as_ref();
        cache.is_some_and(|cache| cache.is_shared)
    }
}

/// The purpose for which the configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To run this protocol's program: every secret of its tables has to be readable.
    Serve(&'static Facts),
    /// To look into the store of this program, perhaps outside the unit that has the credentials
    /// of its tables: only the secret of the store has to be readable.
    Store(&'static Facts),
    /// To check or show it, perhaps outside the unit that has the credentials.
    Check,
}

impl Mode {
    fn secret_policy(self, program: Option<&'static Facts>) -> SecretPolicy {
        match self {
            Self::Check => SecretPolicy::Warn,
            Self::Serve(serving) if program == Some(serving) => SecretPolicy::Required,
            Self::Serve(_) | Self::Store(_) => SecretPolicy::Ignore,
        }
    }

    /// Returns the policy for the secret of the store, which only a program uses that has limits or
    /// shares a cache.
    fn store_policy(self, tables: &[Table]) -> SecretPolicy {
        let uses_it = |table: &&Table| table.uses_store();
        match self {
            Self::Check => SecretPolicy::Warn,
            Self::Serve(serving) | Self::Store(serving) => {
                let mut using = tables.iter().filter(uses_it);
                if using.any(|table| table.protocol == serving) {
                    SecretPolicy::Required
                } else {
                    SecretPolicy::Ignore
                }
            }
        }
    }
}

/// Makes the configuration from the text of a file, and reports its problems.
pub(super) fn resolve(text: &str, mode: Mode, report: &mut Report) -> Option<Config> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            report.syntax(error.span(), error.message());
        }
        return None;
    }
    let root = root.get_ref();
    // Before anything is read, so that a quoted line hides the values that nothing reads.
    lay_out(root, report.layout());
    let mut file = Section::new("", 0..0, root, FILE);

    let http = file
        .take("http")
        .and_then(|e| Some((e.clone(), table(&e, report)?)));
    if let Some((entry, http)) = &http {
        let section = Section::new("http", entry.key_span.clone(), http, ENDPOINT);
        let inheriting = protocol::ALL.into_iter().filter(|facts| facts.inherits_all);
        let inheriting: Vec<_> = inheriting.collect();
        endpoint::read(section, &inheriting, mode.secret_policy(None), report);
    }
    let server = take_section(&mut file, "server", SERVER, report)
        .map_or_else(Server::default, |section| server(section, report));
    let level = take_section(&mut file, "log", LOG, report)
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
    for protocol in protocol::ALL {
        if let Some(entry) = file.take(protocol.name)
            && let Some(tables) = table(&entry, report)
        {
            for entry in entries(protocol.name, tables) {
                reader.read(protocol, &entry, report);
            }
        }
    }
    // After the tables, since they decide whether its secret is needed.
    let store_policy = mode.store_policy(&reader.found);
    let store = take_section(&mut file, "store", STORE, report)
        .map_or_else(Store::default, |section| {
            store::read(section, store_policy, report)
        });
    if matches!(store, Store::Sqlite { .. }) {
        report_shared(root, report);
    }
    file.finish(report);
    Some(Config {
        server,
        level,
        store,
        tables: reader.found,
    })
}

/// Reports each cache of the file that is to be shared, where there is nothing to share it in.
fn report_shared(root: &DeTable<'_>, report: &mut Report) {
    let is_program = |entry: &&Entry<'_>| protocol::ALL.iter().any(|p| p.name == entry.key);
    let all = entries("", root);
    let tables = all.iter().filter(is_program).flat_map(members);
    let http = all.iter().filter(|entry| entry.key == "http").cloned();
    for entry in http.chain(tables) {
        let caches = members(&entry).into_iter().filter(|e| e.key == "cache");
        let shared = caches.flat_map(|cache| members(&cache));
        for entry in shared.filter(|e| e.key == "shared" && e.is_true()) {
            let text = "needs the key redis of [store], where all hosts keep their answers";
            report.error(entry.value.span(), &entry.path, text);
        }
    }
}

fn members<'t>(entry: &Entry<'t>) -> Vec<Entry<'t>> {
    match entry.value.get_ref() {
        DeValue::Table(table) => entries(&entry.path, table),
        _ => Vec::new(),
    }
}

fn take_section<'t>(
    file: &mut Section<'t>,
    name: &'static str,
    keys: &'static [Key],
    report: &mut Report,
) -> Option<Section<'t>> {
    let entry = file.take(name)?;
    Some(Section::new(
        name,
        entry.key_span.clone(),
        table(&entry, report)?,
        keys,
    ))
}

/// The tables of all protocols, as they are read one after the other.
struct Tables<'t> {
    base: Option<(&'t str, &'t DeTable<'t>)>,
    mode: Mode,
    drain_timeout: Duration,
    found: Vec<Table>,
    /// The path of the table that has each name of a socket.
    sockets: HashMap<(&'static Facts, String), String>,
}

impl<'t> Tables<'t> {
    fn read(&mut self, protocol: &'static Facts, entry: &Entry<'t>, report: &mut Report) {
        let Some(own) = table(entry, report) else {
            return;
        };
        self.check_name(protocol, entry, report);
        let mut section = Section::new(&entry.path, entry.key_span.clone(), own, ENDPOINT)
            .of(Kind::Asking(protocol))
            .over(self.base);
        if !protocol.inherits_all {
            section.inherit_general_keys();
        }
        let socket = self.socket(protocol, &mut section, entry, report);
        let Some(endpoint) = endpoint::read(
            section,
            &[protocol],
            self.mode.secret_policy(Some(protocol)),
            report,
        ) else {
            return;
        };
        let makes_calls = !endpoint.targets.is_empty();
        let is_slow = endpoint.request_timeout > self.drain_timeout;
        if makes_calls && is_slow && protocol.drain_within.is_none() {
            let text = format!(
                "request-timeout is longer than server.drain-timeout ({:?} > {:?}), so a stop may \
                 cut a call short; change one of them",
                endpoint.request_timeout, self.drain_timeout
            );
            report.warning(entry.key_span.clone(), &entry.path, text);
        }
        self.found.push(Table {
            protocol,
            name: entry.key.to_owned(),
            socket,
            endpoint,
        });
    }

    /// In main.cf the name of a map stands between a colon and a blank, and in `LISTEN_FDNAMES` the
    /// name of a socket between colons (sd_listen_fds(3)).
    fn check_name(&self, protocol: &'static Facts, entry: &Entry<'_>, report: &mut Report) {
        let is_bad = |c: char| c == ':' || c.is_whitespace() || c.is_control();
        if entry.key.is_empty() || entry.key.contains(is_bad) {
            let text = "the name of a table must not be empty or contain a colon or a blank";
            report.error(entry.key_span.clone(), &entry.path, text);
        } else if protocol.picked_by == PickedBy::Socket && entry.key == "*" {
            let others = protocol::ALL.iter();
            let others = others.filter(|facts| facts.picked_by == PickedBy::Request);
            let others: Vec<_> = others.map(|facts| facts.name).collect();
            let text = format!(
                "only {} can have a table \"*\" for every other name; choose another name",
                others.join(" and ")
            );
            report.error(entry.key_span.clone(), &entry.path, text);
        }
    }

    fn socket(
        &mut self,
        protocol: &'static Facts,
        section: &mut Section<'t>,
        table: &Entry<'_>,
        report: &mut Report,
    ) -> String {
        if protocol.picked_by == PickedBy::Request {
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
            let text =
                "\"metrics\" is reserved for sockets that serve metrics; choose another name";
            report.error(span.clone(), path, text);
        } else if written.is_some() && (name.is_empty() || name.contains([':', ' '])) {
            let text = format!(
                "{name:?} cannot be a FileDescriptorName=; it must not be empty or contain a colon \
                 or a blank"
            );
            report.error(span.clone(), path, text);
        }
        let taken = self
            .sockets
            .insert((protocol, name.clone()), table.path.clone());
        if let Some(other) = taken {
            report.error(
                span,
                path,
                format!("the socket \"{name}\" already serves {other}; choose another name"),
            );
        }
        name
    }
}
