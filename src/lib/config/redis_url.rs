//! The URL of a Redis or Valkey.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

/// Where a Redis or Valkey is, and who asks it.
#[derive(Clone)]
pub struct RedisUrl {
    /// Where it is.
    pub address: RedisAddress,
    /// The user of its access control list; without one the default user.
    pub user: Option<String>,
    password: Option<SecretString>,
    /// The number of the database.
    pub database: u32,
}

/// Where a Redis or Valkey is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAddress {
    /// A host and a port, with or without TLS.
    Tcp {
        /// A name or an address, which has no brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether by TLS.
        is_tls: bool,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// What an URL that cannot be read should be.
const FORMS: &str = "must be redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// with the \
                     same for TLS, or redis+unix:///PATH[?db=DATABASE&user=USER&pass=PASSWORD], \
                     with %XX for special characters";

impl RedisUrl {
    /// Reads an URL. The error does not show it, since it may hold a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| FORMS)?;
        if url.fragment().is_some() {
            return Err(FORMS);
        }
        match url.scheme() {
            "redis" => Self::tcp(&url, false),
            "rediss" => Self::tcp(&url, true),
            "redis+unix" => Self::unix(&url),
            _ => Err(FORMS),
        }
    }

    fn tcp(url: &Url, is_tls: bool) -> Result<Self, &'static str> {
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = decoded(host.ok_or(FORMS)?)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if url.query().is_some() {
            return Err(FORMS);
        }
        let database = url.path().trim_start_matches('/');
        Self {
            address: RedisAddress::Tcp {
                host: host.to_owned(),
                port: url.port().unwrap_or(6379),
                is_tls,
            },
            user: some(decoded(url.username())?),
            password: some(decoded(url.password().unwrap_or_default())?).map(Into::into),
            database: number(database)?,
        }
        .checked()
    }

    fn unix(url: &Url) -> Result<Self, &'static str> {
        let is_bare = url.host_str().is_none_or(str::is_empty) && url.username().is_empty();
        let path = decoded(url.path())?;
        if !is_bare || path.trim_start_matches('/').is_empty() {
            return Err(FORMS);
        }
        let (mut user, mut password, mut database) = (None, None, 0);
        // Read by hand: in a form `+` would be a blank.
        for pair in url.query().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match name {
                "db" => database = number(&value)?,
                "user" => user = some(value),
                "pass" => password = some(value),
                "" => {}
                _ => return Err(FORMS),
            }
        }
        Self {
            address: RedisAddress::Unix(path.into()),
            user,
            password: password.map(Into::into),
            database,
        }
        .checked()
    }

    fn checked(self) -> Result<Self, &'static str> {
        match (&self.user, &self.password) {
            (Some(_), None) => Err("has a user without a password"),
            _ => Ok(self),
        }
    }

    /// Returns the password, which may only be sent.
    pub fn password(&self) -> Option<&str> {
        self.password.as_ref().map(ExposeSecret::expose_secret)
    }
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let bytes = percent_decode_str(text).decode_utf8();
    bytes.map(Into::into).map_err(|_| FORMS)
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn number(text: &str) -> Result<u32, &'static str> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match text {
        "" => Ok(0),
        _ if is_number => text.parse().map_err(|_| FORMS),
        _ => Err(FORMS),
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = (RedisAddress, Option<String>, Option<String>, u32);

    fn parts(text: &str) -> Result<Parts, &'static str> {
        let url = RedisUrl::parse(text)?;
        assert_eq!(format!("{url:?}"), "(hidden)");
        let password = url.password().map(str::to_owned);
        Ok((url.address, url.user, password, url.database))
    }

    fn tcp(host: &str, port: u16, is_tls: bool) -> RedisAddress {
        let host = host.to_owned();
        RedisAddress::Tcp { host, port, is_tls }
    }

    #[test]
    fn urls_are_read() {
        let unix = |path: &str| RedisAddress::Unix(path.into());
        let some = |text: &str| Some(text.to_owned());
        let rows: [(&str, Parts); 9] = [
            (
                "redis://db.example.org",
                (tcp("db.example.org", 6379, false), None, None, 0),
            ),
            ("redis://db:6380/", (tcp("db", 6380, false), None, None, 0)),
            ("rediss://db/3", (tcp("db", 6379, true), None, None, 3)),
            (
                "redis://[::1]:7000/15",
                (tcp("::1", 7000, false), None, None, 15),
            ),
            (
                "redis://:s%40c%2Fret@db",
                (tcp("db", 6379, false), None, some("s@c/ret"), 0),
            ),
            (
                "rediss://mail:a+b@db:1/1",
                (tcp("db", 1, true), some("mail"), some("a+b"), 1),
            ),
            (
                "redis+unix:///run/redis.sock",
                (unix("/run/redis.sock"), None, None, 0),
            ),
            (
                "redis+unix:///run/a%20b?db=2&user=mail&pass=a%26+b",
                (unix("/run/a b"), some("mail"), some("a&+b"), 2),
            ),
            ("redis+unix:///r?pass=x", (unix("/r"), None, some("x"), 0)),
        ];
        for (text, wanted) in rows {
            assert_eq!(parts(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn other_urls_are_refused_without_showing_them() {
        let rows = [
            "",
            "db",
            "db:6379",
            "http://db",
            "redis:",
            "redis://",
            "redis:///1",
            "redis://db/x",
            "redis://db/-1",
            "redis://db/1/2",
            "redis://db?db=1",
            "redis://db:70000",
            "redis://db#insecure",
            "redis://:%ff@db",
            "redis+unix://",
            "redis+unix:///",
            "redis+unix://host/run/redis.sock",
            "redis+unix:///r?database=1",
            "redis+unix:///r?db=x",
            "unix:///run/redis.sock",
        ];
        for text in rows {
            assert_eq!(parts(text), Err(FORMS), "{text}");
        }
        for text in ["redis://mail@db", "redis+unix:///r?user=mail"] {
            assert_eq!(parts(text), Err("has a user without a password"), "{text}");
        }
    }
}
