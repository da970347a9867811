//! HTTP clients: for each way to connect one in each thread that serves, shared by the endpoints
//! that agree in it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Certificate, Client, Identity, redirect, tls};
use rustix::io::Errno;

use super::pool::Pool;
use crate::config::{
    Body, Compression, Credential, Endpoint, HeaderText, HttpVersion, Proxy, Response, TlsVersion,
    Transport,
};
use crate::workers::Each;

/// How often an HTTP/2 connection is asked for a sign of life, and how long it may take for it.
const PING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2));

/// The clients made so far.
#[derive(Debug)]
pub struct Clients {
    made: Vec<(Transport, bool, Arc<Pool>)>,
    /// How many idle connections a client keeps for each host.
    idle: usize,
}

impl Clients {
    /// Begins with none.
    pub fn new(idle: usize) -> Self {
        Self {
            made: Vec::new(),
            idle,
        }
    }

    /// Returns the clients for this way to connect. Each thread that serves has one: a connection
    /// of another thread's would have to wake that thread for every call.
    pub fn pool(
        &mut self,
        transport: &Transport,
        is_https: bool,
    ) -> Result<Arc<Pool>, reqwest::Error> {
        let found = self
            .made
            .iter()
            .find(|(t, https, _)| t == transport && *https == is_https);
        if let Some((_, _, pool)) = found {
            return Ok(Arc::clone(pool));
        }
        let idle = self.idle;
        let pool = Arc::new(Pool {
            clients: Each::make(|| build(transport, is_https, idle))?,
            idle,
        });
        self.made
            .push((transport.clone(), is_https, Arc::clone(&pool)));
        Ok(pool)
    }
}

fn build(transport: &Transport, is_https: bool, idle: usize) -> Result<Client, reqwest::Error> {
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        // With no retry allowed it keeps no copy of the request for one.
        .retry(reqwest::retry::never().max_retries_per_request(0))
        .referer(false)
        .connect_timeout(transport.connect_timeout)
        .pool_idle_timeout(transport.pool_idle)
        .pool_max_idle_per_host(idle)
        // One connection carries all calls, and a call that times out does not end it.
        .http2_keep_alive_interval(PING.0)
        .http2_keep_alive_timeout(PING.1)
        .http2_keep_alive_while_idle(true);
    builder = match transport.http_version {
        HttpVersion::Auto => builder,
        HttpVersion::Http1 => builder.http1_only(),
        HttpVersion::Http2 => builder.http2_prior_knowledge(),
    };
    // No proxy stands before a unix socket, and its password is not for the backend.
    let proxy = match &transport.unix_socket {
        Some(path) => {
            builder = builder.unix_socket(path.clone());
            &Proxy::None
        }
        None => &transport.proxy,
    };
    match proxy {
        Proxy::None => builder = builder.no_proxy(),
        Proxy::Environment => {}
        Proxy::Url(url) => {
            builder = builder.no_proxy().proxy(reqwest::Proxy::all(url.clone())?);
        }
    }
    let is_proxy_https = match proxy {
        Proxy::None => false,
        Proxy::Environment => true,
        Proxy::Url(url) => url.scheme() == "https",
    };
    if !is_https && !is_proxy_https {
        // The system's certificates cost memory and time, and a machine may have none.
        return builder.tls_certs_only([]).build();
    }
    let tls = &transport.tls;
    if let Some(ca) = &tls.ca {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(ca.text.as_bytes())?);
    }
    if let Some((cert, key)) = &tls.identity {
        let pem = format!("{}\n{}", cert.text, key.expose());
        builder = builder.identity(Identity::from_pem(pem.as_bytes())?);
    }
    builder
        .tls_version_min(match tls.min_version {
            TlsVersion::Tls12 => tls::Version::TLS_1_2,
            TlsVersion::Tls13 => tls::Version::TLS_1_3,
        })
        .tls_danger_accept_invalid_certs(!tls.verify)
        .build()
}

/// The headers that every call of an endpoint has. All of them were proved to be sound when the
/// configuration was read.
pub fn headers(endpoint: &Endpoint) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, text: &str| {
        if let Ok(mut value) = HeaderValue::from_str(text) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    };
    let accept = match endpoint.reading.response {
        Response::Json => "application/json",
        Response::Text => "text/plain",
        Response::Auto => "application/json, text/plain",
    };
    put(ACCEPT, accept);
    put(USER_AGENT, &endpoint.user_agent);
    if endpoint.transport.compression != Compression::None {
        put(ACCEPT_ENCODING, "gzip");
    }
    match &endpoint.body {
        Body::None => {}
        Body::Form(_) => put(CONTENT_TYPE, "application/x-www-form-urlencoded"),
        Body::Json(_) => put(CONTENT_TYPE, "application/json"),
    }
    if endpoint.body != Body::None && endpoint.transport.compression == Compression::Both {
        put(CONTENT_ENCODING, "gzip");
    }
    if let Some(token) = &endpoint.auth_token {
        put(HeaderName::from_static("x-auth-token"), token.expose());
    }
    match &endpoint.credential {
        // A token of OAuth's is put into each call when it is made.
        None | Some(Credential::OAuth(_)) => {}
        Some(Credential::Bearer(token)) => {
            put(AUTHORIZATION, &format!("Bearer {}", token.expose()));
        }
        Some(Credential::Basic { user, password }) => {
            let pair = BASE64.encode(format!("{}:{}", user.expose(), password.expose()));
            put(AUTHORIZATION, &format!("Basic {pair}"));
        }
    }
    for (name, text) in &endpoint.headers {
        if let HeaderText::Fixed(value) = text {
            put(name.clone(), value.expose());
        }
    }
    headers
}

/// Tells whether a connection broke before it had brought an answer.
pub fn is_broken_connection(error: &reqwest::Error) -> bool {
    !error.is_timeout() && !error.is_connect() && !error.is_builder() && !is_no_http(error)
}

/// Tells whether what came back is not HTTP.
pub fn is_no_http(error: &reqwest::Error) -> bool {
    sources(error)
        .filter_map(|e| e.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_parse)
}

/// Returns whether the server has provably not processed the call (RFC 9113, sections 6.8 and 8.7),
/// or whether none of it was sent. h2 gives an error that comes from a GOAWAY to the streams above
/// its last one only.
pub fn is_unprocessed(error: &reqwest::Error) -> bool {
    let is_refused = |error: &h2::Error| {
        let is_refusal = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (error.is_go_away() || is_refusal)
    };
    sources(error).any(|error| {
        error.downcast_ref().is_some_and(is_refused)
            || error.downcast_ref().is_some_and(hyper::Error::is_canceled)
    })
}

/// Returns whether a connection of HTTP/2 was lost, and not a stream alone. Other calls may have
/// been lost with it.
pub fn is_shared_loss(error: &reqwest::Error) -> bool {
    sources(error).any(|error| {
        let is_lost = |error: &h2::Error| !error.is_reset();
        // Only a ping that was not answered is a timeout of hyper's own.
        error.downcast_ref().is_some_and(is_lost)
            || error.downcast_ref().is_some_and(hyper::Error::is_timeout)
    })
}

/// Returns whether no connection was made for a want of our own: descriptors, memory or ports.
pub fn is_want_of_ours(error: &reqwest::Error) -> bool {
    const WANTS: [Errno; 5] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
    ];
    let is_want =
        |error: &io::Error| Errno::from_io_error(error).is_some_and(|e| WANTS.contains(&e));
    error.is_connect() && sources(error).any(|error| error.downcast_ref().is_some_and(is_want))
}

/// Returns the innermost error's words: the outer ones hold the URL.
pub fn cause(error: &reqwest::Error) -> String {
    sources(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

fn sources(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}
