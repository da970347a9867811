//! Addresses of hosts, by getaddrinfo(3) on a few threads of their own.
//!
//! A DNS server that does not answer holds a thread for half a minute, and a thread cannot be
//! interrupted. So calls that need the same name share one lookup, and lookups have threads that do
//! nothing else. In tokio's pool for blocking work they could keep a reload from reading its files
//! and the program from ending.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::thread;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::oneshot;

use super::steps::{Step, note, note_addresses};
use crate::sync::Mutex;

/// The most threads. Each waits for one name, so this is how many names may get no answer before
/// other names have to wait.
const MOST_THREADS: usize = 8;

/// Looks up the names of hosts, each name once at a time.
#[derive(Clone)]
pub struct Resolver(Arc<Lookups>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::of(|name| (name, 0).to_socket_addrs().map(Iterator::collect))
    }
}

type Addresses = Vec<SocketAddr>;
type LookUp = dyn Fn(&str) -> io::Result<Addresses> + Send + Sync;
type Answer = Result<Addresses, Failed>;

struct Lookups {
    /// Looks up one name, and blocks until there is an answer.
    look_up: Box<LookUp>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The calls that wait for an answer, by name.
    waiting: HashMap<String, Vec<oneshot::Sender<Answer>>>,
    /// The names that no thread has taken yet.
    queue: VecDeque<String>,
    threads: usize,
}

/// Why there are no addresses.
#[derive(Clone, Debug)]
enum Failed {
    /// The system's error.
    Lookup(io::ErrorKind, String),
    NoThread,
}

/// No thread could be started for a lookup, which says nothing about the target.
#[derive(Debug)]
pub struct NoThread;

impl fmt::Display for NoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no thread can be started to look up the name; see TasksMax=")
    }
}

impl Error for NoThread {}

impl Resolver {
    fn of(look_up: impl Fn(&str) -> io::Result<Addresses> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Lookups {
            look_up: Box::new(look_up),
            state: Mutex::default(),
        }))
    }

    /// Returns the addresses of a host that is no backend.
    pub async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self.join_or_start(name).await {
            Ok(Ok(addresses)) => Ok(addresses.iter().map(SocketAddr::ip).collect()),
            Ok(Err(Failed::Lookup(kind, text))) => Err(io::Error::new(kind, text)),
            Ok(Err(Failed::NoThread)) | Err(_) => Err(io::Error::other(NoThread)),
        }
    }

    /// Joins the lookup of a name that is pending, or starts one.
    fn join_or_start(&self, name: &str) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.0.state.lock();
        if let Some(waiting) = state.waiting.get_mut(name) {
            // Senders of calls that have given up would pile up for as long as the lookup takes.
            waiting.retain(|sender| !sender.is_closed());
            waiting.push(sender);
            return receiver;
        }
        state.waiting.insert(name.to_owned(), vec![sender]);
        state.queue.push_back(name.to_owned());
        if state.threads < MOST_THREADS {
            let lookups = Arc::clone(&self.0);
            let thread = thread::Builder::new().name("resolver".to_owned());
            match thread.spawn(move || lookups.work()) {
                Ok(_) => state.threads += 1,
                // A running thread takes the name later.
                Err(_) if state.threads > 0 => {}
                Err(_) => state.fail_all(),
            }
        }
        receiver
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        note(Step::Lookup);
        let answer = self.join_or_start(name.as_str());
        Box::pin(async move {
            match answer.await {
                Ok(Ok(addresses)) => {
                    note_addresses(&addresses);
                    Ok(Box::new(addresses.into_iter()) as Addrs)
                }
                Ok(Err(Failed::Lookup(kind, text))) => Err(io::Error::new(kind, text).into()),
                Ok(Err(Failed::NoThread)) | Err(_) => Err(NoThread.into()),
            }
        })
    }
}

impl Lookups {
    /// Looks up the names in the queue until it is empty.
    fn work(&self) {
        while let Some(name) = self.next() {
            let found = (self.look_up)(&name);
            let answer = found.map_err(|error| Failed::Lookup(error.kind(), error.to_string()));
            let waiting = self.state.lock().waiting.remove(&name);
            for sender in waiting.into_iter().flatten() {
                let _ = sender.send(answer.clone());
            }
        }
    }

    /// Takes the next name that a call waits for. If there is none, the thread has to end; it is
    /// counted off under the same lock, so that a name queued after that starts another one.
    fn next(&self) -> Option<String> {
        let mut state = self.state.lock();
        while let Some(name) = state.queue.pop_front() {
            let waiting = state.waiting.get(&name).into_iter().flatten();
            if waiting.into_iter().any(|sender| !sender.is_closed()) {
                return Some(name);
            }
            state.waiting.remove(&name);
        }
        state.threads -= 1;
        None
    }
}

impl State {
    fn fail_all(&mut self) {
        self.queue.clear();
        for sender in self.waiting.drain().flat_map(|(_, waiting)| waiting) {
            let _ = sender.send(Err(Failed::NoThread));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A resolver that does not answer for names that begin with "dead" until the test ends, and
    /// the names that it has begun with.
    fn resolver() -> (Resolver, mpsc::Receiver<String>, mpsc::Sender<()>) {
        let (begun, seen) = mpsc::channel();
        let (test, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let resolver = Resolver::of(move |name| {
            let _ = begun.send(name.to_owned());
            if name.starts_with("dead") {
                let _ = held.lock().recv();
            }
            match name {
                "unknown" => Err(io::Error::other("Name or service not known")),
                _ => Ok(vec!["192.0.2.1:0".parse().unwrap()]),
            }
        });
        (resolver, seen, test)
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_stalls_no_other_and_is_looked_up_once() {
        let (resolver, seen, test) = resolver();
        let dead: Vec<_> = (0..100).map(|_| resolver.join_or_start("dead")).collect();
        assert_eq!(seen.recv().unwrap(), "dead");
        for _ in 0..3 {
            let found = resolver.join_or_start("alive").await.unwrap().unwrap();
            assert_eq!(found, ["192.0.2.1:0".parse().unwrap()]);
            let failed = resolver
                .join_or_start("unknown")
                .await
                .unwrap()
                .unwrap_err();
            assert!(matches!(failed, Failed::Lookup(_, text) if text.contains("not known")));
        }
        drop(test);
        for answer in dead {
            assert!(answer.await.unwrap().is_ok());
        }
        assert!(!seen.try_iter().any(|name| name == "dead"));
    }

    #[tokio::test]
    async fn lookups_are_bounded_in_number_and_nobody_is_looked_up_in_vain() {
        let (resolver, seen, test) = resolver();
        let mut dead: Vec<_> = (0..MOST_THREADS)
            .map(|number| resolver.join_or_start(&format!("dead-{number}")))
            .collect();
        let mut begun: Vec<_> = (0..MOST_THREADS).map(|_| seen.recv().unwrap()).collect();
        begun.sort();
        let given_up = resolver.join_or_start("given-up");
        let late = resolver.join_or_start("late");
        assert_eq!(resolver.0.state.lock().threads, MOST_THREADS);
        drop(given_up);
        drop(test);
        for answer in dead.drain(..) {
            assert!(answer.await.unwrap().is_ok());
        }
        assert!(late.await.unwrap().is_ok());
        assert!(resolver.join_or_start("afterwards").await.unwrap().is_ok());
        let names: Vec<_> = seen.try_iter().collect();
        assert_eq!(names, ["late", "afterwards"]);
    }
}
