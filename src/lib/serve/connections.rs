//! The open connections: their cap, and which one is evicted for the next.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use atomic_waker::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::sync::Mutex;

/// The connections of one program.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<Open>,
    /// A logical clock: the order in which connections became idle, without reading the time.
    clock: AtomicU64,
    /// A connection has become idle or has closed, or the cap has changed.
    changed: Notify,
    /// How many new connections wait for that.
    waiting: AtomicUsize,
    /// When the shutdown began.
    stopped: OnceLock<Instant>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    slots: HashMap<u64, Arc<Slot>>,
}

/// One connection's state: since when it is idle, or one of the two values below.
#[derive(Debug)]
struct Slot {
    idle_since: AtomicU64,
    /// Wakes it for a notice.
    waker: AtomicWaker,
}

const BUSY: u64 = 0;
const EVICTED: u64 = u64::MAX;

impl Connections {
    /// Returns how many connections are open.
    pub fn count(&self) -> usize {
        self.open.lock().slots.len()
    }

    /// Waits until every connection is closed.
    pub async fn all_closed(&self) {
        let _waiting = Waiter::new(&self.waiting);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Waits until there is room under the cap, and admits a connection.
    ///
    /// At the cap the connection that has been idle longest is evicted. Where none is idle, the new
    /// one waits until another one closes or becomes idle.
    pub async fn admit(self: &Arc<Self>, cap: impl Fn() -> usize) -> ConnectionGuard {
        if let Some(guard) = self.try_admit(cap()) {
            return guard;
        }
        // Counted before the first look, which `wake_waiters` relies on.
        let _waiting = Waiter::new(&self.waiting);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed, although nothing waits for it yet.
            changed.as_mut().enable();
            if let Some(guard) = self.try_admit(cap()) {
                return guard;
            }
            self.evict();
            changed.await;
        }
    }

    /// Admits a connection if there is room under the cap.
    pub fn try_admit(self: &Arc<Self>, cap: usize) -> Option<ConnectionGuard> {
        let mut open = self.open.lock();
        if open.slots.len() >= cap {
            return None;
        }
        open.last += 1;
        let id = open.last;
        let slot = Arc::new(Slot {
            // Its first request is on its way.
            idle_since: AtomicU64::new(BUSY),
            waker: AtomicWaker::new(),
        });
        open.slots.insert(id, Arc::clone(&slot));
        Some(ConnectionGuard {
            connections: Arc::clone(self),
            id,
            slot,
            last_reply: AtomicU64::new(BUSY),
        })
    }

    /// Evicts the connection that has been idle longest, unless as many are closing already as wait
    /// to be admitted: a burst of new connections must not evict one idle connection each time that
    /// one of them checks again.
    fn evict(&self) {
        let open = self.open.lock();
        loop {
            let mut leaving = 0;
            let mut longest: Option<(u64, &Slot)> = None;
            for slot in open.slots.values() {
                match slot.idle_since.load(Ordering::SeqCst) {
                    BUSY => {}
                    EVICTED => leaving += 1,
                    since if longest.is_none_or(|(longest, _)| since < longest) => {
                        longest = Some((since, slot));
                    }
                    _ => {}
                }
            }
            if leaving >= self.waiting.load(Ordering::SeqCst) {
                return;
            }
            let Some((since, slot)) = longest else {
                return;
            };
            // Fails if the peer has asked meanwhile; then the next longest is looked for.
            if slot.change(since, EVICTED) {
                slot.waker.wake();
                return;
            }
        }
    }

    /// Notifies every connection of the shutdown.
    pub fn stop(&self) {
        self.stopped.get_or_init(Instant::now);
        for slot in self.open.lock().slots.values() {
            slot.waker.wake();
        }
    }

    /// Wakes the connections that wait to be admitted, so that they check again.
    ///
    /// A waiter counts itself before it checks, and a change is made before its waiters are
    /// counted, both in one total order (`SeqCst`). So either the waiter sees the change, or the
    /// change sees the waiter, and no wake-up is lost. Without waiters this is a single load.
    pub fn wake_waiters(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Slot {
    fn change(&self, from: u64, to: u64) -> bool {
        self.idle_since
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// A new connection that waits, until this is dropped.
struct Waiter<'c>(&'c AtomicUsize);

impl<'c> Waiter<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Another connection needs its slot.
    Evict,
    /// The program stops.
    Shutdown,
}

/// One connection's slot under the cap, free again when this is dropped.
#[derive(Debug)]
pub struct ConnectionGuard {
    connections: Arc<Connections>,
    id: u64,
    slot: Arc<Slot>,
    /// When it last replied, if it has not been idle since.
    last_reply: AtomicU64,
}

impl ConnectionGuard {
    /// Notes a reply: if the connection becomes idle after it, it has been idle from here.
    ///
    /// Otherwise the order of idle connections would depend on which thread runs first. A peer that
    /// got its reply before another one has been idle longer.
    pub fn mark_replied(&self) {
        self.last_reply
            .store(self.connections.tick(), Ordering::Relaxed);
    }

    /// Marks the connection idle: every request has its reply.
    pub fn mark_idle(&self) {
        let since = match self.last_reply.swap(BUSY, Ordering::Relaxed) {
            BUSY => self.connections.tick(),
            replied => replied,
        };
        if self.slot.change(BUSY, since) {
            self.connections.wake_waiters();
        }
    }

    /// Marks the connection busy. A peer that sends a request at the moment of its eviction stays,
    /// and the waiters evict another one.
    pub fn mark_busy(&self) {
        if self.slot.idle_since.swap(BUSY, Ordering::SeqCst) == EVICTED {
            self.connections.wake_waiters();
        }
    }

    /// Waits for the shutdown, and returns when it began. A busy connection gets no other notice.
    pub async fn stopped(&self) -> Instant {
        poll_fn(|cx| {
            self.slot.waker.register(cx.waker());
            match self.connections.stopped.get() {
                Some(stopped) => Poll::Ready(*stopped),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Waits until the connection has to end, and returns why.
    pub async fn notice(&self) -> Notice {
        poll_fn(|cx| {
            // Before the looks, so that no change is missed.
            self.slot.waker.register(cx.waker());
            if self.connections.stopped.get().is_some() {
                return Poll::Ready(Notice::Shutdown);
            }
            match self.slot.idle_since.load(Ordering::SeqCst) {
                EVICTED => Poll::Ready(Notice::Evict),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.connections.open.lock().slots.remove(&self.id);
        self.connections.wake_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn at_the_cap_the_connection_that_has_been_idle_longest_is_evicted() {
        let connections = Arc::new(Connections::default());
        let first = connections.admit(|| 2).await;
        let second = connections.admit(|| 2).await;
        second.mark_idle();
        first.mark_idle();
        let third = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.admit(|| 2).await }
        });
        assert_eq!(second.notice().await, Notice::Evict);
        assert_eq!(connections.count(), 2);
        drop(second);
        let _third = third.await.unwrap();
        assert_eq!(connections.count(), 2);
    }

    #[tokio::test]
    async fn a_connection_that_asks_at_its_eviction_stays_and_another_one_is_evicted() {
        let connections = Arc::new(Connections::default());
        let first = connections.admit(|| 2).await;
        let second = connections.admit(|| 2).await;
        first.mark_idle();
        let third = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.admit(|| 2).await }
        });
        tokio::task::yield_now().await;
        first.mark_busy();
        second.mark_idle();
        assert_eq!(second.notice().await, Notice::Evict);
        drop(second);
        let _third = third.await.unwrap();
        // The earlier notice means nothing later.
        first.mark_idle();
        let notice = pin!(first.notice());
        assert!(notice.now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_raised_cap_admits_a_connection_that_waits() {
        let connections = Arc::new(Connections::default());
        let cap = Arc::new(AtomicUsize::new(1));
        let first = connections.admit(|| 1).await;
        let second = tokio::spawn({
            let (connections, cap) = (Arc::clone(&connections), Arc::clone(&cap));
            async move { connections.admit(|| cap.load(Ordering::Relaxed)).await }
        });
        tokio::task::yield_now().await;
        cap.store(2, Ordering::Relaxed);
        connections.wake_waiters();
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
        first.mark_idle();
        assert_eq!(first.notice().await, Notice::Evict);
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn a_shutdown_reaches_every_connection_whenever_it_listens() {
        let connections = Arc::new(Connections::default());
        let first = connections.admit(|| 9).await;
        let listening = tokio::spawn(async move { first.notice().await });
        let second = connections.admit(|| 9).await;
        tokio::task::yield_now().await;
        connections.stop();
        assert_eq!(listening.await.unwrap(), Notice::Shutdown);
        assert_eq!(second.notice().await, Notice::Shutdown);
        assert_eq!(second.notice().await, Notice::Shutdown);
        assert_eq!(
            connections.admit(|| 9).await.notice().await,
            Notice::Shutdown
        );
    }

    #[test]
    fn connections_of_several_threads_make_room_for_each_other() {
        const THREADS: usize = 4;
        const ALL: usize = 10_000;
        let connections = Arc::new(Connections::default());
        let admitted = AtomicUsize::new(0);
        // Each ends only by a notice, so all would wait for ever if one were lost.
        let come_and_go = async || {
            loop {
                let guard = connections.admit(|| 2).await;
                assert!(connections.count() <= 2);
                if admitted.fetch_add(1, Ordering::Relaxed) == ALL {
                    connections.stop();
                }
                guard.mark_idle();
                if guard.notice().await == Notice::Shutdown {
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
