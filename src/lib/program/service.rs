//! A program that runs: its sockets served, its configuration read again, its end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::pin;
use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::config::Mode;
use crate::observe::log::{Level, Recorder};
use crate::observe::metrics::Metrics;
use crate::observe::status::{self, View};
use crate::program::descriptors::Descriptors;
use crate::program::notify;
use crate::program::startup::{
    Exit, Failure, load, plural, routes, sockets_named, tables_without_socket,
};
use crate::protocol::Protocol;
use crate::serve::connections::Connections;
use crate::serve::listen::{Shared, listen};
use crate::serve::socket::Socket;
use crate::serve::workers::Workers;
use crate::table::routes::{Live, Route};

/// A program that runs.
pub(crate) struct Service {
    pub(crate) path: PathBuf,
    /// Of the sockets it serves.
    pub(crate) names: Vec<String>,
    /// The most connections.
    pub(crate) cap: Arc<AtomicUsize>,
    pub(crate) live: Arc<Live>,
    pub(crate) level: Level,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) descriptors: Descriptors,
}

impl Service {
    /// Serves the sockets until a signal says stop.
    pub(crate) async fn run<P: Protocol>(
        &self,
        (sockets, metrics_sockets): (Vec<Socket>, Vec<Socket>),
        requests: Requests,
    ) -> Result<Exit, Failure> {
        let (stop, stopped) = watch::channel(false);
        let workers = Workers::start()
            .map_err(|error| (Exit::Software, format!("no threads to serve: {error}")))?;
        let shared = Shared {
            connections: Arc::new(Connections::default()),
            stop: stopped.clone(),
            recorder: Arc::new(Recorder::new(&self.metrics)),
            metrics: Arc::clone(&self.metrics),
            workers: Arc::new(workers),
        };
        let mut stopping = Stopping::listen()?;
        let Requests { reload, mut clear } = requests;
        let reloads = self.reload_at::<P>(reload, &shared.connections);
        pin!(reloads);
        let mut listeners = JoinSet::new();
        for socket in sockets {
            let route = Route::new(Arc::clone(&self.live), &socket.name);
            let cap = Arc::clone(&self.cap);
            let cap = move || cap.load(Ordering::Relaxed);
            let listener = socket
                .listen()
                .map_err(|e| (Exit::Software, e.to_string()))?;
            listeners.spawn(listen::<P, _>(listener, route, cap, shared.clone()));
        }
        let mut pages = JoinSet::new();
        for socket in metrics_sockets {
            let view = View {
                live: Arc::clone(&self.live),
                connections: Arc::clone(&shared.connections),
                metrics: Arc::clone(&self.metrics),
                places: Arc::clone(&self.descriptors.pages),
            };
            let listener = socket
                .listen()
                .map_err(|e| (Exit::Software, e.to_string()))?;
            pages.spawn(status::listen(listener, view, stopped.clone()));
        }
        let watchdog = tokio::spawn(notify::watchdog(Arc::clone(&shared.workers)));
        info!("ready: {}", self.status());
        notify::ready(&self.status());
        let ended = loop {
            select! {
                () = stopping.next() => break Ok(Exit::Done),
                // A file may be slow, or never come to an end: the other arms must not wait for it.
                never = &mut reloads => never,
                _ = clear.recv() => {
                    let count = self.live.routes().clear();
                    info!("cache: emptied of {}", plural(count, "answer"));
                }
                Some(ended) = listeners.join_next() => break Err(failed(ended)),
            }
        };
        info!(
            "stopping: {} left",
            plural(shared.connections.count(), "connection")
        );
        notify::stopping("stopping");
        // Nobody listens any more if every connection is gone.
        let _ = stop.send(true);
        shared.connections.stop();
        let drain_timeout = self.live.routes().server().drain_timeout;
        let drained = async { while listeners.join_next().await.is_some() {} };
        select! {
            drained = timeout(drain_timeout, drained) => if drained.is_err() {
                let count = shared.connections.count();
                warn!("stopped: cut off {}", plural(count, "connection"));
            },
            () = stopping.next() => warn!("stopped: at once"),
        }
        watchdog.abort();
        info!("stopped");
        ended
    }

    fn status(&self) -> String {
        let (tables, sockets) = self.live.routes().served(&self.names);
        let (tables, sockets) = (plural(tables, "table"), plural(sockets, "socket"));
        format!("serving {tables} on {sockets}")
    }

    /// Reads the configuration again at every signal.
    async fn reload_at<P: Protocol>(&self, mut signal: Signal, connections: &Connections) -> ! {
        loop {
            signal.recv().await;
            self.reload::<P>().await;
            // There may be room for more.
            connections.wake_waiters();
        }
    }

    async fn reload<P: Protocol>(&self) {
        info!("reload: reading {}", self.path.display());
        notify::reloading();
        let read = self.read_again::<P>().await;
        self.metrics.reload(read.is_ok());
        match read {
            Ok(()) => info!("reload: done: {}", self.status()),
            Err(problems) => {
                for problem in &problems {
                    warn!("reload: {problem}");
                }
                warn!("reload: refused: the configuration before it stays");
            }
        }
        notify::ready(&self.status());
    }

    /// Reads the file and goes over to it; says what is wrong with it if that can't be.
    async fn read_again<P: Protocol>(&self) -> Result<(), Vec<String>> {
        let (program, path) = (P::FACTS, self.path.clone());
        let (before, metrics) = (self.live.routes(), Arc::clone(&self.metrics));
        let (names, budget) = (self.names.clone(), self.descriptors.budget.clone());
        // Files may be slow, and connections are not to wait for them.
        let reading = tokio::task::spawn_blocking(move || {
            let (config, report) = load(program, &path, Mode::Serve(program));
            let mut problems: Vec<_> = report.problems().iter().map(|p| p.line.clone()).collect();
            let Some(config) = config else {
                return Err(problems);
            };
            let routes = routes::<P>(&config, Some(&before), &metrics, &budget)
                .map_err(|(_, text)| vec![text])?;
            let unmatched_sockets = routes.unmatched_sockets(names.iter().map(String::as_str));
            match unmatched_sockets.as_slice() {
                [] => {
                    problems.extend(tables_without_socket(program, &routes, &names));
                    Ok((config, routes, problems))
                }
                names => Err(vec![format!("{} would fit no table", sockets_named(names))]),
            }
        });
        let (config, routes, warnings) =
            reading.await.map_err(|error| vec![error.to_string()])??;
        self.level.set(config.level);
        for warning in warnings {
            warn!("reload: {warning}");
        }
        self.cap.store(
            self.descriptors
                .cap_by_descriptors(config.server.max_connections),
            Ordering::Relaxed,
        );
        self.live.exchange(routes);
        Ok(())
    }
}

fn failed(ended: Result<io::Result<()>, tokio::task::JoinError>) -> Failure {
    let cause = match ended {
        Ok(Ok(())) => "it ended".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    error!("a socket cannot be served any more: {cause}");
    (
        Exit::Software,
        format!("a socket cannot be served any more: {cause}"),
    )
}

/// The signals that ask for something while the program runs. One that comes before that is
/// dispatched then.
pub(crate) struct Requests {
    reload: Signal,
    /// Empties the caches.
    clear: Signal,
}

impl Requests {
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            reload: listen_to(SignalKind::hangup())?,
            clear: listen_to(SignalKind::user_defined1())?,
        })
    }
}

/// The signals that ask to stop. During the start they end the program.
struct Stopping {
    terminate: Signal,
    interrupt: Signal,
}

fn listen_to(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| (Exit::Software, format!("no signals: {error}")))
}

impl Stopping {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen_to(SignalKind::terminate())?,
            interrupt: listen_to(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
