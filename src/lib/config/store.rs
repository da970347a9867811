//! `[store]`: where the use of limits is kept.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::file::{Entry, Section};
use super::problem::Report;
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
    if let Some(fault) = url.as_ref().and_then(fault) {
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

/// Returns what is wrong with the URL of a Redis, without showing anything of it.
fn fault(url: &Secret) -> Option<&'static str> {
    const SHAPE: &str = "is not the URL of a Redis; write \"redis://HOST:PORT/DATABASE\", \
                         \"rediss://\" for TLS, or \"redis+unix:///PATH\" for a unix socket";
    if url.is_absent() {
        return None;
    }
    let Ok(parsed) = Url::parse(url.expose()) else {
        return Some(SHAPE);
    };
    let has_host = parsed.host_str().is_some_and(|host| !host.is_empty());
    let is_database = |path: &str| {
        let number = path.strip_prefix('/').unwrap_or(path);
        number.bytes().all(|b| b.is_ascii_digit())
    };
    match parsed.scheme() {
        // The client would take "#insecure" for permission to trust any server.
        _ if parsed.fragment().is_some() => Some("has a fragment, which is not allowed; remove it"),
        "redis" | "rediss" if !has_host => Some(SHAPE),
        "redis" | "rediss" if !is_database(parsed.path()) => {
            Some("has a path that is not the number of a database, such as \"/0\"")
        }
        "redis" | "rediss" => None,
        "redis+unix" if has_host || parsed.path().len() < 2 => Some(SHAPE),
        "redis+unix" => None,
        _ => Some(SHAPE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_redis_is_checked_for_its_shape() {
        for url in [
            "redis://h",
            "redis://h/",
            "redis://h:6379/0",
            "redis://user:pass@h/15",
            "redis://:p%40ss@[::1]:6379",
            "rediss://h:6380/2",
            "redis+unix:///run/redis.sock",
            "redis+unix:///run/redis.sock?db=1&pass=x",
        ] {
            assert_eq!(fault(&Secret::text(url)), None, "{url}");
        }
        for (url, expected) in [
            ("h:6379", "is not the URL"),
            ("http://h/", "is not the URL"),
            ("redis://", "is not the URL"),
            ("redis:///0", "is not the URL"),
            ("redis:h", "is not the URL"),
            ("unix:///run/redis.sock", "is not the URL"),
            ("redis+unix://run/redis.sock", "is not the URL"),
            ("redis+unix:///", "is not the URL"),
            ("redis://h:99999", "is not the URL"),
            ("redis://h/zero", "has a path"),
            ("redis://h/0/1", "has a path"),
            ("rediss://h/#insecure", "has a fragment"),
        ] {
            let found = fault(&Secret::text(url));
            assert!(
                found.is_some_and(|text| text.starts_with(expected)),
                "{url}: {found:?}"
            );
        }
    }
}
