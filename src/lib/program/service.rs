//! A running program: it serves its sockets, reloads its configuration, and drains at the end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::pin;
use tokio::select;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::descriptors::Descriptors;
use super::exit::{Exit, Failure};
use super::messages::{plural, sockets_named};
use super::notify;
use super::signals::{RunSignals, StopSignals};
use super::tables::{Program, load, routes, tables_without_socket};
use crate::config::Mode;
use crate::observe::history::History;
use crate::observe::log::{Level, Recorder};
use crate::observe::metrics::Metrics;
use crate::observe::state::Snapshot;
use crate::observe::status::{self, View};
use crate::protocol::Protocol;
use crate::serve::connections::Connections;
use crate::serve::listen::{AtCap, Shared, listen};
use crate::serve::peer::End;
use crate::serve::socket::{Listener, Socket, Stream};
use crate::serve::workers::Workers;
use crate::session::{Context, serve};
use crate::store::Store;
use crate::table::Rules;
use crate::table::endpoint::Endpoint;
use crate::table::routes::{Live, Route, Routes};

/// How long the end of connections that are cut off may take.
const CUT_OFF: Duration = Duration::from_secs(1);

/// A running program.
pub(crate) struct Service {
    pub(crate) program: Program,
    pub(crate) path: PathBuf,
    /// The names of the sockets that it serves.
    pub(crate) names: Vec<String>,
    /// The most connections, which a reload changes.
    pub(crate) cap: Arc<AtomicUsize>,
    pub(crate) live: Arc<Live>,
    pub(crate) level: Level,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) descriptors: Descriptors,
}

impl Service {
    /// Serves the sockets until a signal stops the program.
    pub(crate) async fn run<P: Protocol>(
        &self,
        (sockets, metrics_sockets): (Vec<Socket>, Vec<Socket>),
        signals: RunSignals,
    ) -> Result<Exit, Failure>
    where
        Endpoint: Rules<P::Rules>,
    {
        let (stop, stopped) = watch::channel(false);
        let workers = Workers::start().map_err(|error| {
            (
                Exit::Software,
                format!("the threads cannot be started: {error}"),
            )
        })?;
        let shared = Shared {
            subject: "connection",
            accepted: Some(self.metrics.connections_accepted.clone()),
            at_cap: AtCap::Wait,
            connections: Arc::new(Connections::default()),
            workers: Arc::new(workers),
            stop: stopped,
        };
        let mut stopping = StopSignals::listen()?;
        let RunSignals { reload, mut clear } = signals;
        let reloads = self.reload_at(reload, &shared.connections);
        pin!(reloads);
        // Before the first request: what is counted without the store is forgotten once it is there.
        open_store(&self.live.routes()).await;
        let mut listeners = self.listen::<P>(sockets, &shared)?;
        let mut pages = self.listen_for_pages(metrics_sockets, &shared)?;
        let watchdog = tokio::spawn(notify::watchdog(Arc::clone(&shared.workers)));
        info!("ready: {}", self.status());
        notify::ready(&self.status());
        let ended = loop {
            select! {
                () = stopping.next() => break Ok(Exit::Done),
                // Reading a file can take long or never end: the other arms must not wait for it.
                never = &mut reloads => never,
                _ = clear.recv() => {
                    let count = self.live.routes().clear();
                    info!("cache: emptied of {}", plural(count, "answer"));
                }
                Some(ended) = listeners.join_next() => break Err(failed(ended)),
                Some(ended) = pages.join_next() => warn!("metrics: {}", failed(ended).1),
            }
        };
        self.drain(stop, &shared.connections, listeners, stopping)
            .await;
        if let Some(store) = self.live.routes().store() {
            // Calls that were cut off release what they have reserved.
            let _ = timeout(CUT_OFF, shared.connections.all_closed()).await;
            store.close().await;
        }
        watchdog.abort();
        info!("stopped");
        ended
    }

    /// Accepts connections of the protocol on its sockets.
    fn listen<P: Protocol>(
        &self,
        sockets: Vec<Socket>,
        shared: &Shared,
    ) -> Result<Listeners, Failure>
    where
        Endpoint: Rules<P::Rules>,
    {
        let recorder = Arc::new(Recorder::new(&self.metrics));
        let mut listeners = JoinSet::new();
        for socket in sockets {
            let cap = Arc::clone(&self.cap);
            let route = Route::new(Arc::clone(&self.live), &socket.name);
            let (recorder, metrics) = (Arc::clone(&recorder), Arc::clone(&self.metrics));
            let serve = move |stream, guard| {
                let (route, recorder) = (route.clone(), Arc::clone(&recorder));
                let metrics = Arc::clone(&metrics);
                async move {
                    let context = Context {
                        guard: &guard,
                        recorder: &recorder,
                    };
                    let end = match stream {
                        Stream::Tcp(stream) => serve::<P, _, _>(stream, &route, context).await,
                        Stream::Unix(stream) => serve::<P, _, _>(stream, &route, context).await,
                    };
                    if matches!(end, End::Evicted) {
                        metrics.connections_evicted.inc();
                    }
                    end
                }
            };
            let cap = move || cap.load(Ordering::Relaxed);
            listeners.spawn(listen(listener(socket)?, cap, shared.clone(), serve));
        }
        Ok(listeners)
    }

    /// Accepts connections to the pages. Their cap is separate, so that a client that holds many of
    /// them takes none from Postfix.
    fn listen_for_pages(
        &self,
        sockets: Vec<Socket>,
        shared: &Shared,
    ) -> Result<Listeners, Failure> {
        let mut listeners = JoinSet::new();
        if sockets.is_empty() {
            // Nobody will ask how the counters have grown.
            return Ok(listeners);
        }
        let history = Arc::<History>::default();
        let view = self.view(&shared.connections, &history);
        let metrics = Arc::clone(&self.metrics);
        listeners.spawn(async move { history.keep(&metrics).await });
        let shared = Shared {
            subject: "metrics: connection",
            accepted: None,
            at_cap: AtCap::Close,
            connections: Arc::default(),
            ..shared.clone()
        };
        let most = self.descriptors.pages;
        for socket in sockets {
            let view = view.clone();
            let serve = move |stream, guard| {
                let view = view.clone();
                async move {
                    let _guard = guard;
                    match stream {
                        Stream::Tcp(stream) => status::serve(stream, view).await,
                        Stream::Unix(stream) => status::serve(stream, view).await,
                    }
                    End::Eof
                }
            };
            listeners.spawn(listen(
                listener(socket)?,
                move || most,
                shared.clone(),
                serve,
            ));
        }
        Ok(listeners)
    }

    fn view(&self, connections: &Arc<Connections>, history: &Arc<History>) -> View {
        let (live, connections) = (Arc::clone(&self.live), Arc::clone(connections));
        View {
            metrics: Arc::clone(&self.metrics),
            history: Arc::clone(history),
            look: Arc::new(move || {
                let routes = live.routes();
                Snapshot {
                    connections: connections.count(),
                    store: routes.store().map(Store::is_up),
                    tables: routes.states(),
                }
            }),
        }
    }

    /// Drains: answers what has been asked, until the drain timeout or a second signal.
    async fn drain(
        &self,
        stop: watch::Sender<bool>,
        connections: &Connections,
        mut listeners: Listeners,
        mut stopping: StopSignals,
    ) {
        let left = plural(connections.count(), "connection");
        info!("stopping: {left} left");
        notify::stopping("stopping");
        // The receivers are gone if every listener has failed.
        let _ = stop.send(true);
        connections.stop();
        let drain_timeout = self.live.routes().server().drain_timeout;
        let most = self.program.facts.drain_within;
        let drain_timeout = most.map_or(drain_timeout, |most| most.min(drain_timeout));
        let drained = async { while listeners.join_next().await.is_some() {} };
        select! {
            drained = timeout(drain_timeout, drained) => if drained.is_err() {
                let count = connections.count();
                warn!("stopping: the drain timeout is over: {} closed", plural(count, "connection"));
            },
            () = stopping.next() => warn!("stopping: second signal: every connection is closed"),
        }
    }

    fn status(&self) -> String {
        let (tables, sockets) = self.live.routes().served(&self.names);
        let (tables, sockets) = (plural(tables, "table"), plural(sockets, "socket"));
        format!("serving {tables} on {sockets}")
    }

    /// Reloads the configuration at every signal.
    async fn reload_at(&self, mut signal: Signal, connections: &Connections) -> ! {
        loop {
            signal.recv().await;
            self.reload().await;
            // The cap may be higher.
            connections.wake_waiters();
        }
    }

    async fn reload(&self) {
        info!("reload: reading {}", self.path.display());
        notify::reloading();
        let read = self.read_again().await;
        self.metrics.reload(read.is_ok());
        match read {
            Ok(()) => info!("reload: done: {}", self.status()),
            Err(problems) => {
                for problem in &problems {
                    warn!("reload: {problem}");
                }
                warn!("reload: refused: the previous configuration stays in use");
            }
        }
        notify::ready(&self.status());
    }

    /// Reads the file and puts it into effect, or returns its problems.
    async fn read_again(&self) -> Result<(), Vec<String>> {
        let (program, path) = (self.program, self.path.clone());
        let (before, metrics) = (self.live.routes(), Arc::clone(&self.metrics));
        let (names, budget) = (self.names.clone(), self.descriptors.budget.clone());
        // Reading files can block; keep it off the serving threads.
        let reading = tokio::task::spawn_blocking(move || {
            let (config, report) = load(program.facts, &path, Mode::Serve(program.facts));
            let mut problems: Vec<_> = report.problems().iter().map(|p| p.line.clone()).collect();
            let Some(config) = config else {
                return Err(problems);
            };
            let routes = routes(&program, &config, Some(&before), &metrics, &budget)
                .map_err(|(_, text)| vec![text])?;
            let displaced = routes.displaced_sockets(&before, names.iter().map(String::as_str));
            if !displaced.is_empty() {
                let displaced = displaced.into_iter();
                return Err(displaced.map(|one| displaced_text(&program, one)).collect());
            }
            let unmatched_sockets = routes.unmatched_sockets(names.iter().map(String::as_str));
            match unmatched_sockets.as_slice() {
                [] => {
                    problems.extend(tables_without_socket(program.facts, &routes, &names));
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
        if !routes.shares_store_with(&self.live.routes()) {
            open_store(&routes).await;
        }
        self.live.exchange(routes);
        Ok(())
    }
}

/// Says that a socket would have another table.
fn displaced_text(program: &Program, [socket, own, other]: [&str; 3]) -> String {
    let name = program.facts.name;
    format!(
        "the socket {socket:?} was that of [{name}.{own}], and would be that of [{name}.{other}], \
         the only table that is left; close the socket and restart, or write its name as socket"
    )
}

/// Opens the store of these routes, if they have one.
async fn open_store(routes: &Routes) {
    if let Some(store) = routes.store() {
        store.open().await;
    }
}

/// The tasks that listen, one for each socket.
type Listeners = JoinSet<io::Result<()>>;

fn listener(socket: Socket) -> Result<Listener, Failure> {
    let listener = socket.listen();
    listener.map_err(|error| (Exit::Software, error.to_string()))
}

fn failed(ended: Result<io::Result<()>, tokio::task::JoinError>) -> Failure {
    let cause = match ended {
        Ok(Ok(())) => "it ended".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    (
        Exit::Software,
        format!("a listening socket failed: {cause}"),
    )
}
