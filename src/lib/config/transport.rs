//! How connections to a backend are made.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::reader::Reader;
use super::tls::{self, Tls};
use super::values;

/// How connections to a backend are made. Endpoints with equal settings share connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Transport {
    /// The time for name resolution, connection and TLS handshake.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept.
    pub pool_idle: Duration,
    /// The settings of TLS.
    pub tls: Tls,
    /// The proxy.
    pub proxy: Proxy,
    /// The unix socket to connect to, whatever the host of the target.
    pub unix_socket: Option<PathBuf>,
    /// What is compressed.
    pub compression: Compression,
    /// The version of HTTP.
    pub http_version: HttpVersion,
}

/// The proxy through which connections are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// No proxy.
    None,
    /// The proxy that the environment names (`HTTPS_PROXY` and the like).
    Environment,
    /// The proxy with this URL.
    Url(Url),
}

/// The version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// Over TLS the version that the server prefers (RFC 7301), otherwise 1.1.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, over plain TCP with prior knowledge (RFC 9113, section 3.3).
    Http2,
}

impl HttpVersion {
    pub(super) const WORDS: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("1.1", Self::Http1),
        ("2", Self::Http2),
    ];
}

/// What is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// Answers, if the backend compresses them.
    Response,
    /// Answers, and the bodies of calls.
    Both,
}

impl Compression {
    pub(super) const WORDS: [(&'static str, Self); 2] =
        [("response", Self::Response), ("both", Self::Both)];
}

pub(super) fn read(reader: &mut Reader<'_, '_>) -> Transport {
    Transport {
        connect_timeout: reader.duration("connect-timeout", Duration::from_secs(2)),
        pool_idle: reader.duration("pool-idle", Duration::from_secs(30)),
        tls: tls::read(reader),
        proxy: proxy(reader),
        unix_socket: unix_socket(reader),
        compression: reader
            .word("compression", &Compression::WORDS)
            .unwrap_or(Compression::None),
        http_version: reader
            .word("http-version", &HttpVersion::WORDS)
            .unwrap_or(HttpVersion::Auto),
    }
}

pub(super) fn follows_redirects(reader: &mut Reader<'_, '_>) -> bool {
    reader
        .word("redirects", &[("same-origin", true)])
        .unwrap_or(false)
}

fn unix_socket(reader: &mut Reader<'_, '_>) -> Option<PathBuf> {
    let entry = reader.section.take("unix-socket")?;
    let path = values::string(&entry, reader.report)?;
    if !path.starts_with('/') {
        let text = format!("{path:?} is not an absolute path");
        reader.error(entry.value.span(), &entry.path, text);
    }
    Some(path.into())
}

fn proxy(reader: &mut Reader<'_, '_>) -> Proxy {
    let Some(entry) = reader.section.take("proxy") else {
        return Proxy::None;
    };
    let Some(text) = values::private_string(&entry, reader.report) else {
        return Proxy::None;
    };
    // A URL may have a password, so it is shown only after it has turned out to have none.
    if text == "environment" {
        reader.report.layout().harmless.push(entry.value.span());
        return Proxy::Environment;
    }
    let url = Url::parse(text).ok().filter(|url| {
        let is_plain = url.username().is_empty() && url.password().is_none();
        ["http", "https"].contains(&url.scheme()) && url.has_host() && is_plain
    });
    if url.is_none() {
        let text = "must be \"environment\", or an http or https URL without a user";
        reader.error(entry.value.span(), &entry.path, text);
    } else {
        reader.report.layout().harmless.push(entry.value.span());
    }
    url.map_or(Proxy::None, Proxy::Url)
}
