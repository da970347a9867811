//! `[store]`: where the use of limits is kept.

use std::path::PathBuf;
use std::time::Duration;

use super::file::{Entry, Section};
use super::problem::Report;
use super::redis_url::RedisUrl;
use super::secret::{Secret, SecretPolicy, any_secret};
use super::values;

/// Where the use of limits is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Store {
    /// An SQLite file of this host; without a path the file of the program.
    Sqlite {
        /// The file.
        path: Option<PathBuf>,
    },
    /// A Redis or Valkey for all hosts.
    Redis {
        /// Its URL, which may hold a password.
        url: Secret,
        /// What the name of each key begins with.
        prefix: String,
        /// The time for one question, connecting included.
        timeout: Duration,
    },
}

impl Default for Store {
    fn default() -> Self {
        Self::Sqlite { path: None }
    }
}

const PREFIX: &str = "postgate:";

const TIMEOUT: Duration = Duration::from_millis(250);

/// Every request of a table with limits waits so long while Redis hangs.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads `[store]`.
pub(super) fn read(
    mut section: Section<'_>,
    secret_policy: SecretPolicy,
    report: &mut Report,
) -> Store {
    let path = section.take("path");
    let redis = section.take("redis");
    let prefix = section.take("prefix");
    let timeout = section.take("timeout");
    section.finish(report);
    let Some(redis) = redis else {
        for entry in [prefix, timeout].into_iter().flatten() {
            let text = "is for Redis, and the key redis is not set; remove it";
            report.error(entry.key_span, &entry.path, text);
        }
        return Store::Sqlite {
            path: path.and_then(|entry| file(&entry, report)),
        };
    };
    if let Some(entry) = path {
        let text = "redis is set as well, and there is only one store; remove one of them";
        report.error(entry.key_span, &entry.path, text);
    }
    let url = any_secret(&redis, secret_policy, report);
    let known = url.as_ref().filter(|url| !url.is_absent());
    if let Some(Err(fault)) = known.map(|url| RedisUrl::parse(url.expose())) {
        report.error(redis.value.span(), &redis.path, fault);
    }
    Store::Redis {
        url: url.unwrap_or_else(|| Secret::text("")),
        prefix: prefix.map_or_else(|| PREFIX.to_owned(), |entry| key_prefix(&entry, report)),
        timeout: timeout.map_or(TIMEOUT, |entry| time(&entry, report)),
    }
}

fn file(entry: &Entry<'_>, report: &mut Report) -> Option<PathBuf> {
    let path = values::string(entry, report)?;
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        let text = format!("{path:?} is not the absolute path of a file");
        report.error(entry.value.span(), &entry.path, text);
    }
    Some(path.into())
}

/// Reads what the name of each key begins with. Braces would choose the slot of a key in a cluster,
/// and blanks would make it hard to name in `redis-cli`.
fn key_prefix(entry: &Entry<'_>, report: &mut Report) -> String {
    let prefix = values::string(entry, report).unwrap_or_default();
    let is_odd = |c: char| !c.is_ascii_graphic() || "{}*?[]\\\"'".contains(c);
    if prefix.is_empty() || prefix.contains(is_odd) {
        let text = format!(
            "{prefix:?} is not a prefix; write printable ASCII without blanks, quotes, brackets, \
             braces, \"*\", \"?\" and \"\\\""
        );
        report.error(entry.value.span(), &entry.path, text);
    }
    prefix.to_owned()
}

fn time(entry: &Entry<'_>, report: &mut Report) -> Duration {
    let timeout = values::duration(entry, report).unwrap_or(TIMEOUT);
    if timeout > LONGEST_TIMEOUT {
        let text = "must be at most \"10s\": while Redis hangs, requests wait for so long";
        report.error(entry.value.span(), &entry.path, text);
    }
    timeout
}
