//! Who is connected: the cap on connections, and who has to leave for the next one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The connections of one program.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<Open>,
    /// Counts the moments at which a connection came to rest, in their order.
    clock: AtomicU64,
    /// A connection has come to rest or has left.
    changed: Notify,
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
    evicted: Notify,
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
        let mut has_evicted = false;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(presence) = self.try_enter(cap()) {
                return presence;
            }
            if !has_evicted {
                has_evicted = self.evict();
            }
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
            evicted: Notify::new(),
        });
        open.seats.insert(id, Arc::clone(&seat));
        Some(Presence {
            connections: Arc::clone(self),
            id,
            seat,
        })
    }

    /// Tells the connection that has rested longest to leave, if any rests.
    fn evict(&self) -> bool {
        let open = self.lock();
        loop {
            let resting = open.seats.values().filter_map(|seat| {
                let since = seat.resting_since.load(Ordering::Acquire);
                (since != BUSY && since != EVICTED).then_some((since, seat))
            });
            let Some((since, seat)) = resting.min_by_key(|(since, _)| *since) else {
                return false;
            };
            if seat.change(since, EVICTED) {
                seat.evicted.notify_one();
                return true;
            }
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
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Presence {
    connections: Arc<Connections>,
    id: u64,
    seat: Arc<Seat>,
}

impl Presence {
    /// Comes to rest: nothing has been asked that is not answered.
    pub fn rest(&self) {
        if self.seat.change(BUSY, self.connections.tick()) {
            self.connections.changed.notify_waiters();
        }
    }

    /// Gets busy. Fails if it was told to leave before.
    pub fn wake(&self) -> bool {
        let since = self.seat.resting_since.load(Ordering::Acquire);
        since == BUSY || since != EVICTED && self.seat.change(since, BUSY)
    }

    /// Waits until the connection is told to leave.
    pub async fn evicted(&self) {
        self.seat.evicted.notified().await;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.connections.lock().seats.remove(&self.id);
        self.connections.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
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
        second.evicted().await;
        assert!(!second.wake());
        assert!(first.wake());
        assert_eq!(connections.count(), 2);
        drop(second);
        let _third = third.await.unwrap();
        assert_eq!(connections.count(), 2);
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
        first.evicted().await;
        drop(first);
        second.await.unwrap();
    }
}
