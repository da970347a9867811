//! The threads that serve. Each has an event loop of its own. A connection stays in the loop that
//! it was assigned to, with its calls and timers, so that no request is handed from thread to
//! thread.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The most threads: two answer far more requests than a mail server makes, and each more takes
/// memory.
const MOST: usize = 2;

/// The number of threads: two where this process may use two processors. CPUAffinity= and
/// CPUQuota= count, as they are at the start.
static COUNT: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, |most| most.get().min(MOST)));

/// Returns how many threads serve.
pub fn count() -> usize {
    *COUNT
}

thread_local! {
    /// The number of this thread. Threads that do not serve count as the first.
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// One value for each of the threads that serve.
#[derive(Clone, Debug)]
pub struct PerWorker<T>(Vec<T>);

impl<T: Default> Default for PerWorker<T> {
    fn default() -> Self {
        Self((0..*COUNT).map(|_| T::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// Makes a value for each thread.
    pub fn make<E>(mut make: impl FnMut() -> Result<T, E>) -> Result<Self, E> {
        (0..*COUNT)
            .map(|_| make())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Returns the value of the current thread.
    pub fn local(&self) -> &T {
        &self.0[WORKER.get() % self.0.len()]
    }
}

/// The threads of a running program. They end when this is dropped.
#[derive(Debug)]
pub struct Workers {
    first: Worker,
    others: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    /// Ends the thread when it is dropped; absent for the main thread, which is the first worker.
    _stop: Option<oneshot::Sender<()>>,
}

impl Workers {
    /// Starts the threads; the calling thread is the first worker.
    pub fn start() -> io::Result<Self> {
        Self::of(*COUNT)
    }

    fn of(count: usize) -> io::Result<Self> {
        let first = Worker {
            handle: Handle::current(),
            connections: Arc::default(),
            _stop: None,
        };
        let mut others = Vec::new();
        for number in 1..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (stop, stopped) = oneshot::channel();
            others.push(Worker {
                handle: runtime.handle().clone(),
                connections: Arc::default(),
                _stop: Some(stop),
            });
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    WORKER.set(number);
                    let _ = runtime.block_on(stopped);
                    // Reading a file may block for ever, and must not keep the program from ending.
                    runtime.shutdown_background();
                })?;
        }
        Ok(Self { first, others })
    }

    /// Assigns a connection to the thread with the fewest.
    pub fn least_loaded(&self) -> Assignment {
        let mut least = &self.first;
        for worker in &self.others {
            if worker.connections() < least.connections() {
                least = worker;
            }
        }
        least.connections.fetch_add(1, Ordering::Relaxed);
        Assignment {
            handle: least.handle.clone(),
            connections: Arc::clone(&least.connections),
        }
    }

    /// Returns once every loop has run a task that was queued now.
    pub async fn all_responded(&self) {
        for worker in std::iter::once(&self.first).chain(&self.others) {
            // An error means that the loop has ended, and the program with it.
            let _ = worker.handle.spawn(async {}).await;
        }
    }
}

impl Worker {
    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// One connection assigned to a thread, until this is dropped.
#[derive(Debug)]
pub struct Assignment {
    /// The loop of the thread.
    pub handle: Handle,
    connections: Arc<AtomicUsize>,
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::select;

    use super::*;

    #[tokio::test]
    async fn a_connection_goes_where_there_are_the_fewest() {
        let workers = Workers::of(2).unwrap();
        let loads = || [&workers.first, &workers.others[0]].map(Worker::connections);
        let assignments: Vec<_> = (0..4).map(|_| workers.least_loaded()).collect();
        assert_eq!(loads(), [2, 2]);
        let mut assignments = assignments.into_iter();
        let (first, _second, third) = (assignments.next(), assignments.next(), assignments.next());
        drop((first, third));
        assert_eq!(loads(), [0, 2]);
        let _more = [workers.least_loaded(), workers.least_loaded()];
        assert_eq!(loads(), [2, 2]);
    }

    #[tokio::test]
    async fn each_thread_knows_itself_and_what_it_has() {
        let workers = Workers::of(2).unwrap();
        let each = Arc::new(PerWorker(vec![10, 11]));
        assert_eq!(*each.local(), 10);
        let other = Arc::clone(&each);
        let value = workers.others[0]
            .handle
            .spawn(async move { *other.local() });
        assert_eq!(value.await.unwrap(), 11);
    }

    #[tokio::test]
    async fn all_have_responded_only_when_the_slowest_has() {
        let workers = Workers::of(2).unwrap();
        workers.all_responded().await;
        let (go_on, held) = mpsc::channel::<()>();
        let (started, is_blocked) = oneshot::channel();
        let holding = workers.others[0].handle.spawn(async move {
            started.send(()).unwrap();
            held.recv()
        });
        is_blocked.await.unwrap();
        let mut round = std::pin::pin!(workers.all_responded());
        for _ in 0..100 {
            select! {
                biased;
                () = &mut round => panic!("one of them hangs"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(go_on);
        round.await;
        assert!(holding.await.unwrap().is_err());
    }
}
