//! Picks the table of a request: by the name in the request, or by the name of the socket.

use std::collections::HashMap;
use std::sync::Arc;

use super::Backend;
use super::calls::Usable;
use super::endpoint::Endpoint;
use super::limits::Counters;
use crate::config::{self, Config, Server};
use crate::http::client::Clients;
use crate::http::pool::{ConnectionBudget, RetainedPools, hosts_of};
use crate::http::shared::Shared;
use crate::http::tls::Authorities;
use crate::observe::metrics::Metrics;
use crate::observe::state::State;
use crate::protocol::Facts;
use crate::protocol::facts::PickedBy;
use crate::serve::peer::Timeouts;
use crate::store::Store;
use crate::sync::RwLock;

/// The tables of one program, from one reading of the configuration.
#[derive(Debug)]
pub struct Routes {
    protocol: &'static Facts,
    server: Server,
    /// Where the use of limits and shared answers are kept, and the settings of that; only if a
    /// table has any.
    counters: Option<(config::Store, Arc<Counters>)>,
    by_name: HashMap<Box<[u8]>, Arc<Endpoint>>,
    /// Used where the socket picks the table.
    by_socket: HashMap<String, Arc<Endpoint>>,
}

impl Routes {
    /// Makes the tables. Those that have not changed are taken over with their connections, caches
    /// and breakers; and the store, with what it has counted.
    pub fn new(
        protocol: &'static Facts,
        config: &Config,
        before: Option<&Self>,
        usable: Usable,
        metrics: &Arc<Metrics>,
        budget: &ConnectionBudget,
    ) -> Result<Self, String> {
        let counters = counters(protocol, config, before, metrics)?;
        let mut authorities = Authorities::default();
        let tables: Vec<_> = config
            .tables_of(protocol)
            .map(|table| {
                (
                    table,
                    before
                        .and_then(|routes| routes.unchanged(table, &mut authorities))
                        .filter(|kept| keeps_in(kept, counters.as_ref())),
                )
            })
            .collect();
        let idle = idle_per_host(&tables, budget);
        let calls = Arc::clone(&budget.calls);
        let mut shared = Shared::new(
            Arc::clone(metrics),
            calls,
            Clients::new(idle, authorities, budget.resolver.clone()),
        );
        let mut by_name = HashMap::new();
        let mut by_socket = HashMap::new();
        for (table, kept) in tables {
            let endpoint = match kept {
                Some(endpoint) => Arc::clone(endpoint),
                None => {
                    let counters = counters.as_ref().map(|(_, counters)| counters);
                    let endpoint = Endpoint::new(table.clone(), usable, counters, &mut shared);
                    let cause = |cause| format!("the HTTP client cannot be set up: {cause}");
                    Arc::new(endpoint.map_err(cause)?)
                }
            };
            by_socket.insert(table.socket.clone(), Arc::clone(&endpoint));
            by_name.insert(table.name.as_bytes().into(), endpoint);
        }
        Ok(Self {
            protocol,
            server: config.server,
            counters,
            by_name,
            by_socket,
        })
    }

    /// Returns the endpoint of a table, if it is configured in the same way and trusts the same
    /// authorities.
    fn unchanged(
        &self,
        table: &config::Table,
        authorities: &mut Authorities,
    ) -> Option<&Arc<Endpoint>> {
        let endpoint = self.by_name.get(table.name.as_bytes())?;
        let is_unchanged = endpoint.table() == table && endpoint.still_trusts(authorities);
        is_unchanged.then_some(endpoint)
    }

    /// Returns the store, if a table uses it.
    pub fn store(&self) -> Option<&Store> {
        let (_, counters) = self.counters.as_ref()?;
        Some(&counters.store)
    }

    /// Returns whether these routes have the store of others.
    pub fn shares_store_with(&self, other: &Self) -> bool {
        match (&self.counters, &other.counters) {
            (Some((_, one)), Some((_, other))) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Returns the `[server]` settings.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Returns the table of a name.
    pub fn named(&self, name: &[u8]) -> Option<&Arc<Endpoint>> {
        let any = || self.by_name.get(b"*".as_slice());
        match self.protocol.picked_by {
            PickedBy::Request => self.by_name.get(name).or_else(any),
            PickedBy::Socket => self.by_name.get(name),
        }
    }

    /// Returns the table of a socket. A single table has every socket.
    fn behind(&self, socket: &str) -> Option<&Arc<Endpoint>> {
        match self.by_name.len() {
            1 => self.by_name.values().next(),
            _ => self.by_socket.get(socket),
        }
    }

    /// Returns the sockets without a table, each once. Where the request picks the table, there are
    /// none.
    pub fn unmatched_sockets<'s>(
        &self,
        sockets: impl IntoIterator<Item = &'s str>,
    ) -> Vec<&'s str> {
        let mut unmatched_sockets: Vec<_> = sockets
            .into_iter()
            .filter(|socket| !self.has_table(socket))
            .collect();
        unmatched_sockets.sort_unstable();
        unmatched_sockets.dedup();
        unmatched_sockets
    }

    /// Returns the sockets that had a table of their own before and would have another one, which is
    /// left as the only one; each with the names of both. Nobody has said that its requests are for
    /// that table.
    pub fn displaced_sockets<'s>(
        &'s self,
        before: &'s Self,
        sockets: impl IntoIterator<Item = &'s str>,
    ) -> Vec<[&'s str; 3]> {
        let is_by_socket = self.protocol.picked_by == PickedBy::Socket;
        if !is_by_socket || before.tables() < 2 || self.tables() != 1 {
            return Vec::new();
        }
        let displaced = sockets.into_iter().filter_map(|socket| {
            let own = before.by_socket.get(socket)?;
            let other = self.behind(socket)?;
            let names = [own, other].map(|endpoint| &*endpoint.table().name);
            let is_said = self.by_socket.contains_key(socket) || names[0] == names[1];
            (!is_said).then(|| [socket, names[0], names[1]])
        });
        let mut displaced: Vec<_> = displaced.collect();
        displaced.sort_unstable();
        displaced.dedup();
        displaced
    }

    fn has_table(&self, socket: &str) -> bool {
        self.protocol.picked_by == PickedBy::Request || self.behind(socket).is_some()
    }

    /// Returns how many tables have one of these sockets, and how many of these sockets have a
    /// table.
    pub fn served(&self, sockets: &[String]) -> (usize, usize) {
        let tables = match self.protocol.picked_by {
            PickedBy::Request => self.tables(),
            PickedBy::Socket if self.tables() == 1 => 1,
            PickedBy::Socket => self
                .by_socket
                .keys()
                .filter(|name| sockets.contains(name))
                .count(),
        };
        let sockets = sockets.iter().filter(|socket| self.has_table(socket));
        (tables, sockets.count())
    }

    /// Returns the names of the sockets that tables are configured for.
    pub fn expected_sockets(&self) -> Vec<&str> {
        let mut names: Vec<_> = match self.protocol.picked_by {
            PickedBy::Request => Vec::new(),
            PickedBy::Socket => self
                .by_name
                .values()
                .map(|e| e.table().socket.as_str())
                .collect(),
        };
        names.sort_unstable();
        names
    }

    /// Returns the current state of each table.
    pub fn states(&self) -> Vec<State> {
        self.by_name
            .values()
            .map(|endpoint| endpoint.state())
            .collect()
    }

    /// Empties every cache and returns how many entries there were.
    pub fn clear(&self) -> usize {
        self.by_name.values().map(|endpoint| endpoint.clear()).sum()
    }

    /// Returns how many tables there are.
    pub fn tables(&self) -> usize {
        self.by_name.len()
    }
}

/// Returns the counters of a program whose tables use the store. They are taken over unless their
/// settings have changed.
fn counters(
    protocol: &'static Facts,
    config: &Config,
    before: Option<&Routes>,
    metrics: &Metrics,
) -> Result<Option<(config::Store, Arc<Counters>)>, String> {
    let mut tables = config.tables_of(protocol);
    if !tables.any(config::Table::uses_store) {
        return Ok(None);
    }
    let before = before.and_then(|routes| routes.counters.as_ref());
    if let Some(kept) = before.filter(|(settings, _)| *settings == config.store) {
        return Ok(Some(kept.clone()));
    }
    let store = Store::new(&config.store, protocol.name)
        .map_err(|cause| format!("the store cannot be set up: {cause}"))?
        .with_meter(metrics.store_meter());
    let counters = Arc::new(Counters::new(Arc::new(store)));
    Ok(Some((config.store.clone(), counters)))
}

/// Returns whether a table uses no store, or the one of these counters.
fn keeps_in(endpoint: &Endpoint, counters: Option<&(config::Store, Arc<Counters>)>) -> bool {
    match (endpoint.store(), counters) {
        (None, _) => true,
        (Some(own), Some((_, counters))) => Arc::ptr_eq(own, &counters.store),
        (Some(_), None) => false,
    }
}

/// Returns how many idle connections there may be for each host of the tables that are made anew.
fn idle_per_host(
    tables: &[(&config::Table, Option<&Arc<Endpoint>>)],
    budget: &ConnectionBudget,
) -> usize {
    let mut retained = RetainedPools::default();
    for endpoint in tables.iter().filter_map(|(_, kept)| *kept) {
        for (pool, calls) in endpoint.pools() {
            retained.add(pool, hosts_of(calls));
        }
    }
    let others = tables.iter().filter(|(_, kept)| kept.is_none());
    let others = others.flat_map(|(table, _)| table.endpoint.with_operations());
    retained.idle_per_host(budget, others)
}

/// The current routes, which a reload replaces.
#[derive(Debug)]
pub struct Live(RwLock<Arc<Routes>>);

impl Live {
    /// Makes these the current routes.
    pub fn new(routes: Routes) -> Self {
        Self(RwLock::new(Arc::new(routes)))
    }

    /// Returns the current routes.
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.0.read())
    }

    /// Replaces the routes. Calls in flight finish with the old ones.
    pub fn exchange(&self, routes: Routes) {
        *self.0.write() = Arc::new(routes);
    }
}

/// The tables of one socket.
#[derive(Clone, Debug)]
pub struct Route {
    live: Arc<Live>,
    socket: Arc<str>,
}

impl Route {
    /// Returns the tables of a socket with this name.
    pub fn new(live: Arc<Live>, socket: &str) -> Self {
        Self {
            live,
            socket: socket.into(),
        }
    }
}

impl Backend for Route {
    type Table = Endpoint;

    fn table(&self, map: Option<&[u8]>) -> Option<Arc<Endpoint>> {
        let routes = self.live.routes();
        match (routes.protocol.picked_by, map) {
            (PickedBy::Request, Some(map)) => routes.named(map).cloned(),
            (PickedBy::Request, None) => None,
            (PickedBy::Socket, _) => routes.behind(&self.socket).cloned(),
        }
    }

    fn timeouts(&self) -> Timeouts {
        let routes = self.live.routes();
        Timeouts {
            read: routes.server.read_timeout,
            idle: routes.server.idle_timeout,
        }
    }
}
