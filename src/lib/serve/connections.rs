//! Who is connected: the cap on connections, and who has to leave for the next one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// The connections of one program.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<Open>,
    /// Counts the moments at which a connection came to rest, in their order.
    clock: AtomicU64,
    /// A connection has come to rest or has left, or the cap is another one.
    changed: Notify,
    /// How many wait for that.
    waiting: AtomicUsize,
    /// When the program was told to stop.
    stopped: OnceLock<Instant>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    seats: HashMap<u64, Arc<Seat>>,
}

/// One connection's state: since when it rests, or one of the words below.
#[derive(Debug)]
struct Seat {
    resting_since: AtomicU64,
    /// It has to leave, or all have to.
    told: Notify,
}

const BUSY: u64 = 0;
const EVICTED: u64 = u64::MAX;

impl Connections {
    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.lock().seats.len()
    }

    /// Waits for a place under the cap and takes it. At the cap the connection that has rested
    /// longest has to leave; where none rests, one has to end or to come to rest.
    pub async fn admit(self: &Arc<Self>, cap: impl Fn() -> usize) -> Presence {
        if let Some(presence) = self.try_enter(cap()) {
            return presence;
        }
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(presence) = self.try_enter(cap()) {
                return presence;
            }
            self.evict();
            changed.await;
        }
    }

    fn try_enter(self: &Arc<Self>, cap: usize) -> Option<Presence> {
        let mut open = self.lock();
        if open.seats.len() >= cap {
            return None;
        }
        open.last += 1;
        let id = open.last;
        let seat = Arc::new(Seat {
            // Who has just come is about to ask.
            resting_since: AtomicU64::new(BUSY),
            told: Notify::new(),
        });
        open.seats.insert(id, Arc::clone(&seat));
        Some(Presence {
            connections: Arc::clone(self),
            id,
            seat,
            last_said: AtomicU64::new(BUSY),
        })
    }

    /// Tells the connection that has rested longest to leave, if any rests, unless there are as
    /// many on their way out as wait to come in.
    fn evict(&self) {
        let open = self.lock();
        loop {
            let mut leaving = 0;
            let mut longest: Option<(u64, &Seat)> = None;
            for seat in open.seats.values() {
                match seat.resting_since.load(Ordering::SeqCst) {
                    BUSY => {}
                    EVICTED => leaving += 1,
                    since if longest.is_none_or(|(longest, _)| since < longest) => {
                        longest = Some((since, seat));
                    }
                    _ => {}
                }
            }
            if leaving >= self.waiting.load(Ordering::SeqCst) {
                return;
            }
            let Some((since, seat)) = longest else {
                return;
            };
            if seat.change(since, EVICTED) {
                seat.told.notify_one();
                return;
            }
        }
    }

    /// Tells every connection that the program stops.
    pub fn stop(&self) {
        self.stopped.get_or_init(Instant::now);
        for seat in self.lock().seats.values() {
            seat.told.notify_one();
        }
    }

    /// Lets those look again who wait, after something has changed: they have said that they wait
    /// before they looked, so one of the two sees the other.
    pub fn tell_waiting(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn change(&self, from: u64, to: u64) -> bool {
        self.resting_since
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// Somebody who waits, until this is dropped.
struct Waiting<'c>(&'c AtomicUsize);

impl<'c> Waiting<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// To make room for another one.
    Leave,
    /// The program stops.
    Stop,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Presence {
    connections: Arc<Connections>,
    id: u64,
    seat: Arc<Seat>,
    /// When it has last said something, if it has not come to rest since.
    last_said: AtomicU64,
}

impl Presence {
    /// Says something: its rest, if that follows, counts from here. A peer that has got its reply
    /// has been idle for longer than those it makes ask afterwards, in whichever thread.
    pub fn say(&self) {
        self.last_said
            .store(self.connections.tick(), Ordering::Relaxed);
    }

    /// Comes to rest: nothing has been asked that is not answered.
    pub fn rest(&self) {
        let since = match self.last_said.swap(BUSY, Ordering::Relaxed) {
            BUSY => self.connections.tick(),
            said => said,
        };
        if self.seat.change(BUSY, since) {
            self.connections.tell_waiting();
        }
    }

    /// Gets busy. Who was told to leave and asks at that moment stays, and another one has to leave.
    pub fn wake(&self) {
        if self.seat.resting_since.swap(BUSY, Ordering::SeqCst) == EVICTED {
            self.connections.tell_waiting();
        }
    }

    /// Waits until the program stops, and returns when that was. For a connection that is busy:
    /// no other word reaches it.
    pub async fn stopped(&self) -> Instant {
        loop {
            if let Some(stopped) = self.connections.stopped.get() {
                return *stopped;
            }
            self.seat.told.notified().await;
        }
    }

    /// Waits until the connection is told to leave, and tells why.
    pub async fn told(&self) -> Told {
        loop {
            if self.connections.stopped.get().is_some() {
                return Told::Stop;
            }
            if self.seat.resting_since.load(Ordering::SeqCst) == EVICTED {
                return Told::Leave;
            }
            // It may be an old word, which is not true any more.
            self.seat.told.notified().await;
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.connections.lock().seats.remove(&self.id);
        self.connections.tell_waiting();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn at_the_cap_the_one_that_rested_longest_leaves() {
        let connections = Arc::new(Connections::default());
        let first = connections.admit(|| 2).await;
        let second = connections.admit(|| 2).await;
        second.rest();
        first.rest();
        let third = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.admit(|| 2).await }
        });
        assert_eq!(second.told().await, Told::Leave);
        assert_eq!(connections.count(), 2);
        drop(second);
        let _third = third.await.unwrap();
        assert_eq!(connections.count(), 2);
    }

    #[tokio::test]
    async fn in_place_of_one_that_asks_when_it_is_told_to_leave_another_one_leaves() {
        let connections = Arc::new(Connections::default());
        let first = connections.admit(|| 2).await;
        let second = connections.admit(|| 2).await;
        first.rest();
        let third = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.admit(|| 2).await }
        });
        tokio::task::yield_now().await;
        first.wake();
        second.rest();
        assert_eq!(second.told().await, Told::Leave);
        drop(second);
        let _third = third.await.unwrap();
        // The word it was given then means nothing later.
        first.rest();
        let told = pin!(first.told());
        assert!(told.now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_cap_that_is_raised_lets_in_who_waits() {
        let connections = Arc::new(Connections::default());
        let cap = Arc::new(AtomicUsize::new(1));
        let first = connections.admit(|| 1).await;
        let second = tokio::spawn({
            let (connections, cap) = (Arc::clone(&connections), Arc::clone(&cap));
            async move { connections.admit(|| cap.load(Ordering::Relaxed)).await }
        });
        tokio::task::yield_now().await;
        cap.store(2, Ordering::Relaxed);
        connections.tell_waiting();
        let _second = second.await.unwrap();
        drop(first);
    }

    #[tokio::test]
    async fn where_all_are_busy_the_next_one_waits() {
        let connections = Arc::new(Connections::default());
        let first = connections.admit(|| 1).await;
        let second = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.admit(|| 1).await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        first.rest();
        assert_eq!(first.told().await, Told::Leave);
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn when_the_program_stops_all_are_told_whenever_they_listen() {
        let connections = Arc::new(Connections::default());
        let first = connections.admit(|| 9).await;
        let listening = tokio::spawn(async move { first.told().await });
        let second = connections.admit(|| 9).await;
        tokio::task::yield_now().await;
        connections.stop();
        assert_eq!(listening.await.unwrap(), Told::Stop);
        assert_eq!(second.told().await, Told::Stop);
        assert_eq!(second.told().await, Told::Stop);
        assert_eq!(connections.admit(|| 9).await.told().await, Told::Stop);
    }

    #[test]
    fn connections_of_several_threads_make_room_for_each_other() {
        const THREADS: usize = 4;
        const ALL: usize = 10_000;
        let connections = Arc::new(Connections::default());
        let admitted = AtomicUsize::new(0);
        // Each leaves only when it is told, so all would wait for ever if a word were lost.
        let come_and_go = async || {
            loop {
                let presence = connections.admit(|| 2).await;
                assert!(connections.count() <= 2);
                if admitted.fetch_add(1, Ordering::Relaxed) == ALL {
                    connections.stop();
                }
                presence.rest();
                if presence.told().await == Told::Stop {
                    break;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build();
                    runtime.unwrap().block_on(come_and_go());
                });
            }
        });
        assert_eq!(connections.count(), 0);
    }
}
