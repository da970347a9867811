//! The HTTP clients: one for each set of transport settings in each thread that serves, shared by
//! the tables with these settings.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, redirect};
use rustls::{ClientConfig, RootCertStore};

use super::error::cause;
use super::oauth::token_transport;
use super::pool::Pool;
use super::resolver::Resolver;
use super::tls::{Authorities, client_config};
use crate::config::{Credential, Endpoint, HttpVersion, Proxy, Target, Tls, Transport};

/// The interval of pings on an HTTP/2 connection. With the time for the answer it is well below the
/// default of request-timeout: a dead connection is found while its calls still have time, and the
/// next calls get another one.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// How long the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The clients made so far, and what they share.
#[derive(Debug)]
pub struct Clients {
    made: Vec<(Transport, bool, Arc<Pool>)>,
    /// One for each set of TLS settings, so that its tables resume each other's sessions.
    tls: Vec<(Tls, HttpVersion, ClientConfig)>,
    authorities: Authorities,
    resolver: Resolver,
    /// The most idle connections that a client keeps for each host.
    idle: usize,
}

impl Clients {
    /// Makes the state before the first client.
    pub fn new(idle: usize, authorities: Authorities, resolver: Resolver) -> Self {
        Self {
            made: Vec::new(),
            tls: Vec::new(),
            authorities,
            resolver,
            idle,
        }
    }

    /// Returns the clients with these settings, one in each thread that serves: each call over a
    /// connection of another thread would have to wake that thread.
    pub fn pool(&mut self, transport: &Transport, is_https: bool) -> Result<Arc<Pool>, String> {
        let found = self
            .made
            .iter()
            .find(|(t, https, _)| t == transport && *https == is_https);
        if let Some((_, _, pool)) = found {
            return Ok(Arc::clone(pool));
        }
        let tls = match tls_use(transport, is_https) {
            TlsUse::Always => Some(self.tls(transport)?),
            // No setting asks for TLS, so a system without authorities is no error here.
            TlsUse::Possible => self.tls(transport).ok(),
            TlsUse::Never => None,
        };
        let (idle, resolver) = (self.idle, &self.resolver);
        let pool = Pool::new(|idle| build(transport, tls.clone(), resolver, idle), idle);
        let pool = Arc::new(pool.map_err(|error| cause(&error))?);
        self.made
            .push((transport.clone(), is_https, Arc::clone(&pool)));
        Ok(pool)
    }

    /// Returns the system's authorities if an endpoint trusts them.
    pub fn authorities_of(&mut self, endpoint: &Endpoint) -> Option<Arc<RootCertStore>> {
        let is_https = endpoint.targets.iter().any(Target::is_https);
        let tokens = match &endpoint.credential {
            Some(Credential::OAuth(settings)) => {
                Some(token_transport(settings, &endpoint.transport))
            }
            _ => None,
        };
        let depends = depends_on_system(&endpoint.transport, is_https)
            || tokens.is_some_and(|(transport, is_https)| depends_on_system(&transport, is_https));
        depends.then(|| self.authorities.read().ok())?
    }

    fn tls(&mut self, transport: &Transport) -> Result<ClientConfig, String> {
        let (tls, version) = (&transport.tls, transport.http_version);
        let is_same = |made: &Tls, of: HttpVersion| made == tls && of == version;
        if let Some((_, _, config)) = self.tls.iter().find(|(made, of, _)| is_same(made, *of)) {
            return Ok(config.clone());
        }
        let config = client_config(tls, version, &mut self.authorities)?;
        self.tls.push((tls.clone(), version, config.clone()));
        Ok(config)
    }
}

/// Whether connections use TLS.
enum TlsUse {
    Always,
    /// The environment may name a proxy of https.
    Possible,
    Never,
}

fn tls_use(transport: &Transport, is_https: bool) -> TlsUse {
    match (&transport.unix_socket, &transport.proxy) {
        _ if is_https => TlsUse::Always,
        (None, Proxy::Environment) => TlsUse::Possible,
        (None, Proxy::Url(url)) if url.scheme() == "https" => TlsUse::Always,
        _ => TlsUse::Never,
    }
}

fn depends_on_system(transport: &Transport, is_https: bool) -> bool {
    let tls = &transport.tls;
    let is_encrypted = !matches!(tls_use(transport, is_https), TlsUse::Never);
    is_encrypted && tls.verify && tls.ca.is_none()
}

fn build(
    transport: &Transport,
    tls: Option<ClientConfig>,
    resolver: &Resolver,
    idle: usize,
) -> Result<Client, reqwest::Error> {
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        // `send` makes the retries. With none allowed, reqwest keeps no copy of each request.
        .retry(reqwest::retry::never().max_retries_per_request(0))
        .referer(false)
        .dns_resolver(resolver.clone())
        .connect_timeout(transport.connect_timeout)
        .pool_idle_timeout(transport.pool_idle)
        .pool_max_idle_per_host(idle)
        // With HTTP/2 one connection carries all calls, and a call that times out does not close
        // it.
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true);
    builder = match transport.http_version {
        HttpVersion::Auto => builder,
        HttpVersion::Http1 => builder.http1_only(),
        HttpVersion::Http2 => builder.http2_prior_knowledge(),
    };
    // There is no proxy before a unix socket, and the backend must not get the proxy's password.
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
    match tls {
        Some(config) => builder.tls_backend_preconfigured(config).build(),
        // Without this call reqwest would read the system's authorities.
        None => builder.tls_certs_only([]).build(),
    }
}
