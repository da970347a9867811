//! The threads that serve. Each has a loop of its own, and a connection stays with the one it was
//! given to, with all that happens for it: nothing is handed from thread to thread on the way.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// More than two take memory and bring nothing that a mail server could ask for.
const MOST: usize = 2;

/// How many there are: two where this process may use two processors, by its CPUAffinity= and its
/// CPUQuota= when it starts.
static COUNT: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, |most| most.get().min(MOST)));

/// Returns how many threads serve.
pub fn count() -> usize {
    *COUNT
}

thread_local! {
    /// Which of them this thread is. All others count as the first.
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Something that each of the threads that serve has for itself.
#[derive(Clone, Debug)]
pub struct PerWorker<T>(Vec<T>);

impl<T: Default> Default for PerWorker<T> {
    fn default() -> Self {
        Self((0..*COUNT).map(|_| T::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// Makes one for each.
    pub fn make<E>(mut make: impl FnMut() -> Result<T, E>) -> Result<Self, E> {
        (0..*COUNT)
            .map(|_| make())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Returns that of this thread. What is taken here is to be used here.
    pub fn local(&self) -> &T {
        &self.0[WORKER.get() % self.0.len()]
    }
}

/// The threads of a program that runs; they end with it.
#[derive(Debug)]
pub struct Workers {
    first: Worker,
    others: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    /// Ends the thread when it is dropped; the first one is the thread of the program itself.
    _stop: Option<oneshot::Sender<()>>,
}

impl Workers {
    /// Starts them; the thread that calls is the first.
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
                    // A thread that reads a file may still be waiting.
                    runtime.shutdown_background();
                })?;
        }
        Ok(Self { first, others })
    }

    /// Takes a place where there are the fewest connections.
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

    /// Returns when each of them has gone round once more.
    pub async fn all_responded(&self) {
        for worker in std::iter::once(&self.first).chain(&self.others) {
            // It fails only when the program ends.
            let _ = worker.handle.spawn(async {}).await;
        }
    }
}

impl Worker {
    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub struct Assignment {
    /// The loop of its thread.
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
        let _places = [workers.least_loaded(), workers.least_loaded()];
        assert_eq!(loads(), [2, 2]);
    }

    #[tokio::test]
    async fn each_thread_knows_itself_and_what_it_has() {
        let workers = Workers::of(2).unwrap();
        let each = Arc::new(PerWorker(vec![10, 11]));
        assert_eq!(*each.local(), 10);
        let there = Arc::clone(&each);
        let there = workers.others[0]
            .handle
            .spawn(async move { *there.local() });
        assert_eq!(there.await.unwrap(), 11);
    }

    #[tokio::test]
    async fn all_all_responded_only_when_the_slowest_has() {
        let workers = Workers::of(2).unwrap();
        workers.all_responded().await;
        let (go_on, held) = mpsc::channel::<()>();
        let (said, is_held) = oneshot::channel();
        let holding = workers.others[0].handle.spawn(async move {
            said.send(()).unwrap();
            held.recv()
        });
        is_held.await.unwrap();
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
