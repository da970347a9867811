//! How many connections to backends there may be: each takes a descriptor, in use or idle.

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

/// The room for the connections of all tables together.
#[derive(Clone, Debug)]
pub struct Room {
    /// Calls at once.
    pub calls: Arc<Semaphore>,
    /// Idle connections.
    pub idle: usize,
    /// Finds their hosts.
    pub resolver: Resolver,
}

impl Room {
    /// Room for so many.
    pub fn new(calls: usize, idle: usize) -> Self {
        Self {
            calls: Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS))),
            idle,
            resolver: Resolver::default(),
        }
    }

    /// Room without an end.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX, usize::MAX)
    }
}

/// The clients for one way to connect, one in each thread that serves. Each keeps idle connections
/// of its own for every host.
#[derive(Debug)]
pub struct Pool {
    /// The clients.
    pub clients: PerWorker<Client>,
    /// How many idle connections each of them keeps for a host.
    pub idle: usize,
    /// Clients that use a connection for one call only.
    single_use: PerWorker<SingleUse>,
}

/// How long a connection may take to be closed after a 5xx. Servers that do so close it at once.
const CLOSING: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct SingleUse {
    client: Client,
    /// The origins that may be about to close an idle connection, and until when.
    closing: Mutex<Vec<(String, Instant)>>,
}

impl Pool {
    /// Makes the clients of a pool, each with the most idle connections that are given.
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

    /// Notes that a server of HTTP/1 has answered 5xx. Many close the connection then without saying
    /// so in the answer (uvicorn), and a call that is sent meanwhile is lost.
    pub fn may_be_closing(&self, url: &Url) {
        let (origin, until) = (origin(url), Instant::now() + CLOSING);
        let mut closing = self.single_use.local().closing.lock();
        closing.retain(|(other, _)| *other != origin);
        closing.push((origin, until));
    }

    /// Returns the client for a call. One that cannot be sent again if its connection breaks gets a
    /// connection of its own while an idle one may be about to be closed.
    pub fn client(&self, url: &Url, can_be_sent_again: bool) -> &Client {
        let single_use = self.single_use.local();
        match !can_be_sent_again && single_use.has_one_closing(url) {
            true => &single_use.client,
            false => self.clients.local(),
        }
    }
}

impl SingleUse {
    fn has_one_closing(&self, url: &Url) -> bool {
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

/// The pools of the tables that a reload leaves as they are, each with a host.
#[derive(Debug, Default)]
pub struct Kept<'p>(HashSet<(*const Pool, &'p str)>, usize);

impl<'p> Kept<'p> {
    /// Adds what one table has; tables that share pool and host share the idle connections.
    pub fn add(&mut self, pool: &'p Pool, hosts: impl IntoIterator<Item = Host<'p>>) {
        for host in hosts {
            if self.0.insert((pool, host.name)) {
                let idle = pool.idle.saturating_mul(host.count);
                self.1 = self.1.saturating_add(idle);
            }
        }
    }

    /// Returns how many idle connections a client may keep for each host of these tables, which
    /// have no pools yet. None at all is slow, but each call gets a connection.
    pub fn share<'e>(&self, room: &Room, tables: impl Iterator<Item = &'e Endpoint>) -> usize {
        let mut hosts: Vec<(Host<'_>, &Transport)> = Vec::new();
        for endpoint in tables {
            for host in hosts_of(endpoint) {
                let pair = (host, &endpoint.transport);
                if !hosts.contains(&pair) {
                    hosts.push(pair);
                }
            }
        }
        let hosts: usize = hosts.iter().map(|(host, _)| host.count).sum();
        let in_each_thread = room.idle / count();
        in_each_thread.saturating_sub(self.1) / hosts.max(1)
    }
}

/// A host, or some that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'e> {
    name: &'e str,
    count: usize,
}

/// Returns the hosts that calls of this table go to.
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
            // The tokens may be had from another host.
            TokenServer::Issuer(url) => Host {
                name: url.as_str(),
                count: 2,
            },
        }),
        _ => None,
    };
    targets.chain(tokens)
}
