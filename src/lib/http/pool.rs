//! The clients of a table, and the share of idle connections that each may keep.
//!
//! Each connection takes a descriptor, in use or idle, and descriptors have a limit.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Url};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::resolver::Resolver;
use crate::config::{Credential, Endpoint, TokenServer, Transport};
use crate::serve::workers::{PerWorker, count};
use crate::sync::Mutex;

/// The limits of the connections to backends, for all tables together.
#[derive(Clone, Debug)]
pub struct ConnectionBudget {
    /// The calls in flight.
    pub calls: Arc<Semaphore>,
    /// The number of idle connections.
    pub idle: usize,
    /// Looks up the hosts of all connections.
    pub resolver: Resolver,
}

impl ConnectionBudget {
    /// Makes a budget of calls in flight and of idle connections.
    pub fn new(calls: usize, idle: usize) -> Self {
        Self {
            calls: Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS))),
            idle,
            resolver: Resolver::default(),
        }
    }

    /// Makes a budget without limits.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX, usize::MAX)
    }
}

/// The clients for one set of transport settings, one in each thread that serves. Each client keeps
/// idle connections of its own for each host.
#[derive(Debug)]
pub struct Pool {
    /// The clients that reuse connections.
    pub clients: PerWorker<Client>,
    /// The most idle connections that each of them keeps for a host.
    pub idle: usize,
    /// The clients that open a connection for each call.
    single_use: PerWorker<SingleUse>,
}

/// How long after a 5xx a connection may still be closed by the server, which then does it at once.
const CLOSING_TIME: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct SingleUse {
    client: Client,
    /// The origins that may be closing an idle connection, and until when.
    closing: Mutex<Vec<(String, Instant)>>,
}

impl Pool {
    /// Makes the clients of a pool with this limit of idle connections.
    pub fn new<E>(build: impl Fn(usize) -> Result<Client, E>, idle: usize) -> Result<Self, E> {
        let single_use = || {
            Ok(SingleUse {
                client: build(0)?,
                closing: Mutex::default(),
            })
        };
        Ok(Self {
            clients: PerWorker::make(|| build(idle))?,
            idle,
            single_use: PerWorker::make(single_use)?,
        })
    }

    /// Notes that an HTTP/1 server has answered 5xx. Many servers then close the connection without
    /// "Connection: close" in the answer (uvicorn does), and a call sent over it meanwhile is lost.
    pub fn may_be_closing(&self, url: &Url) {
        let (origin, until) = (origin(url), Instant::now() + CLOSING_TIME);
        let mut closing = self.single_use.local().closing.lock();
        closing.retain(|(other, _)| *other != origin);
        closing.push((origin, until));
    }

    /// Returns the client for a call.
    ///
    /// A call that must not be sent twice gets a connection of its own for a short time after a
    /// 5xx: if it were lost with an idle connection, no one could know whether the server has
    /// processed it.
    pub fn client(&self, url: &Url, may_be_resent: bool) -> &Client {
        let single_use = self.single_use.local();
        match !may_be_resent && single_use.has_closing(url) {
            true => &single_use.client,
            false => self.clients.local(),
        }
    }
}

impl SingleUse {
    fn has_closing(&self, url: &Url) -> bool {
        let mut closing = self.closing.lock();
        if closing.is_empty() {
            return false;
        }
        let now = Instant::now();
        closing.retain(|(_, until)| now < *until);
        let origin = origin(url);
        closing.iter().any(|(other, _)| *other == origin)
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The pools of tables that a reload does not change, which keep their idle connections.
#[derive(Debug, Default)]
pub struct RetainedPools<'p> {
    seen: HashSet<(*const Pool, &'p str)>,
    /// The idle connections that they may hold in each thread.
    idle: usize,
}

impl<'p> RetainedPools<'p> {
    /// Adds the pool of a table. Tables that share a pool and a host share the idle connections.
    pub fn add(&mut self, pool: &'p Pool, hosts: impl IntoIterator<Item = Host<'p>>) {
        for host in hosts {
            if self.seen.insert((pool, host.name)) {
                let idle = pool.idle.saturating_mul(host.count);
                self.idle = self.idle.saturating_add(idle);
            }
        }
    }

    /// Returns the most idle connections that a client of the other tables may keep for each host.
    ///
    /// Zero is possible, and only costs time: each call then opens a connection, for which the
    /// limit of calls in flight reserves a descriptor.
    pub fn idle_per_host<'e>(
        &self,
        budget: &ConnectionBudget,
        others: impl Iterator<Item = &'e Endpoint>,
    ) -> usize {
        let mut hosts: Vec<(Host<'_>, &Transport)> = Vec::new();
        for endpoint in others {
            for host in hosts_of(endpoint) {
                let pair = (host, &endpoint.transport);
                if !hosts.contains(&pair) {
                    hosts.push(pair);
                }
            }
        }
        let hosts: usize = hosts.iter().map(|(host, _)| host.count).sum();
        let per_worker = budget.idle / count();
        per_worker.saturating_sub(self.idle) / hosts.max(1)
    }
}

/// A host that calls go to, or a group of hosts under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'e> {
    name: &'e str,
    count: usize,
}

/// Returns the hosts that the calls of a table go to.
pub fn hosts_of(endpoint: &Endpoint) -> impl Iterator<Item = Host<'_>> {
    let targets = endpoint.targets.iter().map(|target| Host {
        name: &target.origin,
        count: 1,
    });
    let tokens = match &endpoint.credential {
        Some(Credential::OAuth(settings)) => Some(match &settings.server {
            TokenServer::Token(url) => Host {
                name: url.as_str(),
                count: 1,
            },
            // The token endpoint that the issuer names may be on another host.
            TokenServer::Issuer(url) => Host {
                name: url.as_str(),
                count: 2,
            },
        }),
        _ => None,
    };
    targets.chain(tokens)
}
