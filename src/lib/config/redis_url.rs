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

/// As people write it in a message: without the user and the password.
impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

const SHAPE: &str = "is not the URL of a Redis; write \"redis://HOST:PORT/DATABASE\", \
                     \"rediss://\" for TLS, or \"redis+unix:///PATH\" for a unix socket";

const NO_PASSWORD: &str = "has a user without a password; add it, or remove the user";

const DATABASE: &str = "has no number of a database where it should be; write \"/0\" at its end, or \
                        \"?db=0\" for a unix socket";

impl RedisUrl {
    /// Reads an URL. The error does not show it, since it may hold a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| SHAPE)?;
        // Other clients take "#insecure" for permission to trust any server.
        if url.fragment().is_some() {
            return Err("has a fragment, which is not allowed; remove it");
        }
        match url.scheme() {
            "redis" => Self::tcp(&url, false),
            "rediss" => Self::tcp(&url, true),
            "redis+unix" => Self::unix(&url),
            _ => Err(SHAPE),
        }
    }

    fn tcp(url: &Url, is_tls: bool) -> Result<Self, &'static str> {
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = decoded(host.ok_or(SHAPE)?)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if url.query().is_some() {
            return Err("has a query, which only the URL of a unix socket may have; remove it");
        }
        let database = url.path().strip_prefix('/').unwrap_or_default();
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
            return Err(SHAPE);
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
                _ => return Err("has a parameter that is not db, user or pass; remove it"),
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
            (Some(_), None) => Err(NO_PASSWORD),
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
    bytes.map(Into::into).map_err(|_| SHAPE)
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn number(text: &str) -> Result<u32, &'static str> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match text {
        "" => Ok(0),
        _ if is_number => text.parse().map_err(|_| DATABASE),
        _ => Err(DATABASE),
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
            ("", SHAPE),
            ("db", SHAPE),
            ("db:6379", SHAPE),
            ("http://db", SHAPE),
            ("unix:///run/redis.sock", SHAPE),
            ("redis:", SHAPE),
            ("redis:db", SHAPE),
            ("redis://", SHAPE),
            ("redis:///1", SHAPE),
            ("redis://db:70000", SHAPE),
            ("redis://:%ff@db", SHAPE),
            ("redis+unix://", SHAPE),
            ("redis+unix:///", SHAPE),
            ("redis+unix://host/run/redis.sock", SHAPE),
            ("redis://db/x", DATABASE),
            ("redis://db/-1", DATABASE),
            ("redis://db/1/2", DATABASE),
            ("redis://db/99999999999", DATABASE),
            ("redis+unix:///r?db=x", DATABASE),
            ("redis://mail@db", NO_PASSWORD),
            ("redis+unix:///r?user=mail", NO_PASSWORD),
            (
                "rediss://db/#insecure",
                "has a fragment, which is not allowed; remove it",
            ),
        ];
        for (text, wanted) in rows {
            assert_eq!(parts(text), Err(wanted), "{text}");
        }
        for text in ["redis://db?db=1", "redis+unix:///r?database=1"] {
            let found = parts(text).unwrap_err();
            assert!(
                found.starts_with("has a ") && found.ends_with("remove it"),
                "{found}"
            );
        }
    }
}
