//! Connections: taken from the sockets, kept under the cap, brought to an end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::select;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{debug, error, warn};

use crate::observe::log::{Recorder, WARN_EVERY};
use crate::observe::metrics::Metrics;
use crate::protocol::Protocol;
use crate::serve::connections::{ConnectionGuard, Connections};
use crate::serve::socket::{Listener, Stream, Taken};
use crate::serve::workers::Workers;
use crate::session::{Context, End, serve};
use crate::table::Backend;

/// What every connection of a program shares.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The connections, for the cap.
    pub connections: Arc<Connections>,
    /// Turns true when the program stops.
    pub stop: watch::Receiver<bool>,
    /// Where every request is recorded.
    pub recorder: Arc<Recorder>,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
    /// The threads that serve them.
    pub workers: Arc<Workers>,
}

/// How long to wait when the system has no descriptor or memory for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves one socket until the program stops, then waits for the connections that it has brought.
///
/// Ends early only if the socket itself fails.
pub async fn listen<P, B>(
    listener: Listener,
    backend: B,
    cap: impl Fn() -> usize,
    shared: Shared,
) -> io::Result<()>
where
    P: Protocol,
    B: Backend + Clone,
{
    let mut connections = JoinSet::new();
    let mut stop = shared.stop.clone();
    let mut warned = None;
    loop {
        while let Some(ended) = connections.try_join_next() {
            report(ended, &shared.metrics);
        }
        let accepted = select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                report(ended, &shared.metrics);
                continue;
            }
        };
        match accepted {
            Ok(taken) => {
                shared.metrics.connections_accepted.inc();
                // At the cap this one waits, and all after it in the socket's backlog.
                let guard = shared.connections.admit(&cap).await;
                let assigned = shared.workers.least_loaded();
                let handle = assigned.handle.clone();
                let backend = backend.clone();
                let shared = shared.clone();
                let serve = async move {
                    let _assigned = assigned;
                    connection::<P, B>(taken, &guard, &backend, &shared).await
                };
                connections.spawn_on(serve, &handle);
            }
            Err(error) if is_peers_fault(&error) => debug!("connection: lost: {error}"),
            Err(error) if is_shortage(&error) => {
                // Strangers can bring this about, so it is not said every time.
                if warned.is_none_or(|at: Instant| at.elapsed() >= WARN_EVERY) {
                    warn!("connection: cannot be taken: {error}");
                    warned = Some(Instant::now());
                }
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended, &shared.metrics);
    }
    Ok(())
}

async fn connection<P, B>(
    taken: Taken,
    guard: &ConnectionGuard,
    backend: &B,
    shared: &Shared,
) -> End
where
    P: Protocol,
    B: Backend,
{
    let context = Context {
        guard,
        recorder: &shared.recorder,
    };
    match taken.attach() {
        Ok(Stream::Tcp(stream)) => serve::<P, B, _>(stream, backend, context).await,
        Ok(Stream::Unix(stream)) => serve::<P, B, _>(stream, backend, context).await,
        Err(error) => End::Broken(error),
    }
}

/// Says how a connection ended: of no interest unless it was our fault.
fn report(ended: Result<End, JoinError>, metrics: &Metrics) {
    match ended {
        Ok(end) => {
            if matches!(end, End::Evicted) {
                metrics.connections_evicted.inc();
            }
            debug!("connection: closed: {end:?}");
        }
        Err(error) if error.is_panic() => error!("connection: lost: a fault of this program"),
        Err(_) => debug!("connection: closed: out of time"),
    }
}

/// A connection that was gone before it was taken, as any stranger can have it.
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
