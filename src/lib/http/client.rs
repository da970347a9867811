//! HTTP clients: for each way to connect one in each thread that serves, shared by the endpoints
//! that agree in it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, redirect};
use rustls::{ClientConfig, RootCertStore};

use super::error::cause;
use super::oauth::way_to_server;
use super::pool::Pool;
use super::resolver::Resolver;
use super::tls::{Authorities, client_config};
use crate::config::{Credential, Endpoint, HttpVersion, Proxy, Target, Tls, Transport};

/// How often an HTTP/2 connection is asked for a sign of life, and how long it may take for it. Both
/// together are well below the default of request-timeout, so that a dead connection is known before
/// its calls are given up, and the next calls get another one.
const PING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(1));

/// The clients made so far, and what they share.
#[derive(Debug)]
pub struct Clients {
    made: Vec<(Transport, bool, Arc<Pool>)>,
    /// One for each way to do TLS.
    tls: Vec<(Tls, HttpVersion, ClientConfig)>,
    authorities: Authorities,
    resolver: Resolver,
    /// How many idle connections a client keeps for each host.
    idle: usize,
}

impl Clients {
    /// Begins with none.
    pub fn new(idle: usize, authorities: Authorities, resolver: Resolver) -> Self {
        Self {
            made: Vec::new(),
            tls: Vec::new(),
            authorities,
            resolver,
            idle,
        }
    }

    /// Returns the clients for this way to connect. Each thread that serves has one: a connection
    /// of another thread's would have to wake that thread for every call.
    pub fn pool(&mut self, transport: &Transport, is_https: bool) -> Result<Arc<Pool>, String> {
        let found = self
            .made
            .iter()
            .find(|(t, https, _)| t == transport && *https == is_https);
        if let Some((_, _, pool)) = found {
            return Ok(Arc::clone(pool));
        }
        let tls = match speaks_tls(transport, is_https) {
            Needed::Always => Some(self.tls(transport)?),
            // The proxy that the environment names may be one of https.
            Needed::Perhaps => self.tls(transport).ok(),
            Needed::Never => None,
        };
        let (idle, resolver) = (self.idle, &self.resolver);
        let pool = Pool::new(|idle| build(transport, tls.clone(), resolver, idle), idle);
        let pool = Arc::new(pool.map_err(|error| cause(&error))?);
        self.made
            .push((transport.clone(), is_https, Arc::clone(&pool)));
        Ok(pool)
    }

    /// Returns the system's authorities, where an endpoint depends on them.
    pub fn authorities_of(&mut self, endpoint: &Endpoint) -> Option<Arc<RootCertStore>> {
        let is_https = endpoint.targets.iter().any(Target::is_https);
        let tokens = match &endpoint.credential {
            Some(Credential::OAuth(settings)) => Some(way_to_server(settings, &endpoint.transport)),
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

/// Whether a way to connect takes TLS.
enum Needed {
    Always,
    Perhaps,
    Never,
}

fn speaks_tls(transport: &Transport, is_https: bool) -> Needed {
    match (&transport.unix_socket, &transport.proxy) {
        _ if is_https => Needed::Always,
        (None, Proxy::Environment) => Needed::Perhaps,
        (None, Proxy::Url(url)) if url.scheme() == "https" => Needed::Always,
        _ => Needed::Never,
    }
}

fn depends_on_system(transport: &Transport, is_https: bool) -> bool {
    let tls = &transport.tls;
    let is_encrypted = !matches!(speaks_tls(transport, is_https), Needed::Never);
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
        // With no retry allowed it keeps no copy of the request for one.
        .retry(reqwest::retry::never().max_retries_per_request(0))
        .referer(false)
        .dns_resolver(resolver.clone())
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
    match tls {
        Some(config) => builder.tls_backend_preconfigured(config).build(),
        // Without any it would read the system's authorities.
        None => builder.tls_certs_only([]).build(),
    }
}
