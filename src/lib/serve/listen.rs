//! Listening: connections are accepted, kept under the cap, and given to the threads that serve.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use rustix::io::Errno;
use tokio::select;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{debug, error, warn};

use super::connections::{ConnectionGuard, Connections};
use super::peer::End;
use super::socket::{Listener, Stream};
use super::workers::Workers;
use crate::observe::throttle::WARN_EVERY;

/// What the sockets of one kind share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What the log calls their connections.
    pub subject: &'static str,
    /// Counts the accepted connections.
    pub accepted: Option<IntCounter>,
    /// What happens to a connection beyond the cap.
    pub at_cap: AtCap,
    /// The connections, for the cap.
    pub connections: Arc<Connections>,
    /// The threads that serve them.
    pub workers: Arc<Workers>,
    /// Turns true when the program stops.
    pub stop: watch::Receiver<bool>,
}

/// What happens to a connection beyond the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtCap {
    /// It waits for another one to become idle or to close; those after it wait in the backlog.
    Wait,
    /// It is closed at once. For connections that are never idle: a burst of them would otherwise
    /// keep all later ones in the backlog until each has run into its timeout.
    Close,
}

/// How long to wait when the system has no descriptor or memory for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts the connections of one socket and serves each in a task of its own, until the program
/// stops; then waits for those that are left.
///
/// Ends early only if the socket itself fails.
pub async fn listen<F, S>(
    listener: Listener,
    cap: impl Fn() -> usize,
    shared: Shared,
    serve: F,
) -> io::Result<()>
where
    F: Fn(Stream, ConnectionGuard) -> S + Clone + Send + 'static,
    S: Future<Output = End> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut stop = shared.stop.clone();
    let mut warned = None;
    loop {
        while let Some(ended) = connections.try_join_next() {
            report(ended, shared.subject);
        }
        let accepted = select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                report(ended, shared.subject);
                continue;
            }
        };
        match accepted {
            Ok(accepted) => {
                if let Some(accepted) = &shared.accepted {
                    accepted.inc();
                }
                let Some(guard) = shared.admit(&cap).await else {
                    continue;
                };
                let assigned = shared.workers.least_loaded();
                let handle = assigned.handle.clone();
                let serve = serve.clone();
                let connection = async move {
                    let _assigned = assigned;
                    // On the assigned thread, so that its event loop gets the readiness events.
                    match accepted.attach() {
                        Ok(stream) => serve(stream, guard).await,
                        Err(error) => End::Broken(error),
                    }
                };
                connections.spawn_on(connection, &handle);
            }
            Err(error) if is_peers_fault(&error) => debug!("{}: lost: {error}", shared.subject),
            Err(error) if is_shortage(&error) => {
                warn_of_shortage(shared.subject, &error, &mut warned);
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended, shared.subject);
    }
    Ok(())
}

impl Shared {
    async fn admit(&self, cap: impl Fn() -> usize) -> Option<ConnectionGuard> {
        match self.at_cap {
            AtCap::Wait => Some(self.connections.admit(cap).await),
            AtCap::Close => self.connections.try_admit(cap()),
        }
    }
}

/// Warns at most once in a while: any client can cause a shortage by opening connections.
fn warn_of_shortage(subject: &str, error: &io::Error, warned: &mut Option<Instant>) {
    if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
        warn!("{subject}: cannot be accepted: {error}");
        *warned = Some(Instant::now());
    }
}

/// Logs how a connection ended, at debug unless it was our fault.
fn report(ended: Result<End, JoinError>, subject: &str) {
    match ended {
        Ok(end) => debug!("{subject}: closed: {end:?}"),
        Err(error) if error.is_panic() => error!("{subject}: lost: an internal error"),
        Err(_) => debug!("{subject}: closed: out of time"),
    }
}

/// Returns whether the connection failed before it was accepted. Any client can cause that, so it
/// must not end the listener (accept(2)).
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PERM
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NOTCONN
        )
    )
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}
