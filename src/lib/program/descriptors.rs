//! Shares out the limit on open files, so that a program never runs out of descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::http::pool::ConnectionBudget;

/// The most descriptors of each kind, fixed for the life of the program.
#[derive(Clone, Debug)]
pub(crate) struct Descriptors {
    limit: Option<u64>,
    /// Connections from the mail server.
    connections: usize,
    /// Connections to backends: as many as from Postfix, whose protocols have one request in flight.
    /// Further calls wait.
    pub(crate) budget: ConnectionBudget,
    /// Connections to the metrics sockets.
    pub(crate) pages: usize,
}

impl Descriptors {
    /// Raises the soft limit to the hard one, and shares it out for a program with this many
    /// sockets.
    pub(crate) fn share_out(sockets: usize) -> Self {
        raise_limit();
        Self::of(getrlimit(Resource::Nofile).current, sockets)
    }

    fn of(limit: Option<u64>, sockets: usize) -> Self {
        let shares = Shares::of(limit, sockets);
        Self {
            limit,
            connections: shares.connections,
            budget: ConnectionBudget::new(shares.calls, shares.idle),
            pages: shares.pages,
        }
    }

    /// Returns the number of connections, capped by the descriptors for them. Warns if that is
    /// less.
    pub(crate) fn cap_by_descriptors(&self, connections: usize) -> usize {
        let most = self.connections;
        if let Some(limit) = self.limit
            && connections > most
        {
            warn!(
                "descriptors: {limit} are enough for {most} connections, not for {connections}: \
                 raise LimitNOFILE= or lower server.max-connections"
            );
        }
        connections.min(most)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Shares {
    connections: usize,
    calls: usize,
    idle: usize,
    pages: usize,
}

impl Shares {
    fn of(limit: Option<u64>, sockets: usize) -> Self {
        /// Standard streams, event loops, log, systemd, files and the resolver.
        const OWN: usize = 22;
        /// Enough for every scraper; a client that holds pages open can hold no more.
        const MOST_PAGES: usize = 32;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        // Each socket takes one, and one more for a connection that it has accepted at the cap.
        let own = sockets.saturating_mul(2).saturating_add(OWN);
        let rest = limit.unwrap_or(usize::MAX).saturating_sub(own);
        let connections = (rest / 8 * 3 + rest % 8 * 3 / 8).max(1);
        let pages = (rest / 16).clamp(1, MOST_PAGES);
        let idle = rest.saturating_sub(connections.saturating_mul(2).saturating_add(pages));
        Self {
            connections,
            calls: connections,
            idle,
            pages,
        }
    }
}

fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // If this fails, the soft limit stays in force.
    let _ = setrlimit(Resource::Nofile, raised);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_never_more_than_there_are() {
        for sockets in [1, 2, 5, 100] {
            for limit in (0..2_000).chain([65_536, 1 << 20]) {
                let shares = Shares::of(Some(limit), sockets);
                let all = shares.connections + shares.calls + shares.idle + shares.pages;
                let rest = usize::try_from(limit)
                    .unwrap()
                    .saturating_sub(22 + 2 * sockets);
                assert!(all <= rest.max(3), "{limit}: {shares:?}");
            }
        }
    }

    #[test]
    fn a_small_limit_is_enough_for_some_connections_and_a_usual_one_for_all() {
        assert_eq!(Shares::of(Some(64), 2).connections, 14);
        assert!(Shares::of(Some(65_536), 5).connections >= 24_000);
        assert!(Shares::of(None, 5).connections > 1 << 32);
    }
}
