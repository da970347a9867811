//! Logins under way, for limits of those that the backend refuses.
//!
//! Each has reserved a unit in the store, which is the limit. What is here only finds out whether
//! it is worth waiting where there is no room: units that this process has reserved may be given
//! back. Those that wait for an account are asked about one after the other, in their order.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::outcome::Outcome;
use crate::sync::Mutex;
use crate::table::cache::CacheKey;

/// An account of a limit: its table, its limit, its name.
pub type Key = (Arc<str>, Arc<str>, String);

/// The logins under way.
#[derive(Debug, Default)]
pub struct Pending(Mutex<Logins>);

#[derive(Debug, Default)]
struct Logins {
    accounts: HashMap<Key, Account>,
    /// By all that the call of a login carries: the first of those that are the same.
    calls: HashMap<CacheKey, First>,
    last_id: u64,
}

/// The first of the logins whose calls are the same.
#[derive(Debug)]
struct First {
    id: u64,
    is_asking: bool,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// The logins of one account.
#[derive(Debug, Default)]
struct Account {
    /// Those that ask the store whether there is room, and those that have got it.
    trying: usize,
    asking: usize,
    /// Those that wait for room, and what wakes the first of them.
    waiting: usize,
    next: Arc<Notify>,
}

/// A login under way, until this is dropped.
#[derive(Debug)]
pub struct Turn {
    pending: Arc<Pending>,
    keys: Vec<Key>,
    is_asking: bool,
    /// What its call carries.
    call: CacheKey,
    id: u64,
    outcome: watch::Sender<Option<Outcome>>,
}

/// What a login waits for that has no room.
#[derive(Debug)]
pub enum Wait {
    /// For room.
    Room(Queued),
    /// For the outcome of the same login: the same name and password from the same client.
    Same(watch::Receiver<Option<Outcome>>),
}

/// A place in the queue of an account, until this is dropped.
#[derive(Debug)]
pub struct Queued {
    pending: Arc<Pending>,
    key: Key,
    next: Arc<Notify>,
}

impl Pending {
    /// Begins a login, which asks the store next.
    pub fn begin(self: &Arc<Self>, keys: Vec<Key>, call: CacheKey) -> Turn {
        let mut logins = self.0.lock();
        for key in &keys {
            logins.accounts.entry(key.clone()).or_default().trying += 1;
        }
        logins.last_id += 1;
        let turn = Turn {
            pending: Arc::clone(self),
            keys,
            is_asking: false,
            call,
            id: logins.last_id,
            outcome: watch::Sender::new(None),
        };
        if !logins.calls.contains_key(&turn.call) {
            logins.set_first(&turn);
        }
        drop(logins);
        turn
    }
}

impl Logins {
    fn set_first(&mut self, turn: &Turn) {
        let first = First {
            id: turn.id,
            is_asking: turn.is_asking,
            outcome: turn.outcome.subscribe(),
        };
        self.calls.insert(Arc::clone(&turn.call), first);
    }

    /// Returns what a login may wait for that has no room in this account.
    fn wait(
        &mut self,
        pending: &Arc<Pending>,
        call: &CacheKey,
        key: Key,
        for_trying: bool,
    ) -> Option<Wait> {
        if let Some(first) = self.calls.get(call)
            && (first.is_asking || for_trying)
        {
            return Some(Wait::Same(first.outcome.clone()));
        }
        let account = self.accounts.get_mut(&key)?;
        let is_worth_it = account.asking > 0 || (for_trying && account.trying > 0);
        is_worth_it.then(|| {
            account.waiting += 1;
            Wait::Room(Queued {
                pending: Arc::clone(pending),
                next: Arc::clone(&account.next),
                key,
            })
        })
    }

    /// Wakes the next of those that wait for room in an account.
    fn wake(&self, key: &Key) {
        if let Some(account) = self.accounts.get(key)
            && account.waiting > 0
        {
            account.next.notify_one();
        }
    }

    /// Changes what is under way of an account, and forgets it if that is nothing.
    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.get_mut(key) {
            change(account);
            if account.trying + account.asking + account.waiting == 0 {
                self.accounts.remove(key);
            }
        }
    }
}

impl Turn {
    /// Notes that the login has room, and that its call begins.
    pub fn ask(&mut self) {
        let mut logins = self.pending.0.lock();
        self.is_asking = true;
        for key in &self.keys {
            logins.change(key, |account| {
                account.trying -= 1;
                account.asking += 1;
            });
        }
        let first = logins.calls.get(&self.call);
        if first.is_none_or(|first| first.id == self.id || !first.is_asking) {
            logins.set_first(self);
        }
    }

    /// Says the outcome to those that wait for it.
    pub fn end(self, outcome: &Outcome) {
        self.outcome.send_replace(Some(outcome.clone()));
    }

    /// Ends a login that has no room in the account with this number, and returns what it may wait
    /// for: room that others give back. `for_trying`: also the outcome of those that are only
    /// trying, which may have no room either.
    pub fn refused(mut self, at: usize, for_trying: bool) -> Option<Wait> {
        let pending = Arc::clone(&self.pending);
        let mut logins = pending.0.lock();
        let key = self.keys.get(at).cloned()?;
        let keys = self.keys.clone();
        // Those that wait for this one to be tried learn it, once: two that wait would otherwise
        // wake each other without end.
        self.leave(&mut logins, for_trying);
        let wait = logins.wait(&pending, &self.call, key, for_trying);
        if wait.is_none() && !for_trying {
            // It goes, so what woke it is the next one's.
            keys.iter().for_each(|key| logins.wake(key));
        }
        wait
    }

    /// Takes the login from its accounts, and wakes the next of each, if it has to.
    fn leave(&mut self, logins: &mut Logins, wakes: bool) {
        let is_asking = self.is_asking;
        for key in self.keys.drain(..) {
            logins.change(&key, |account| match is_asking {
                true => account.asking -= 1,
                false => account.trying -= 1,
            });
            if wakes {
                logins.wake(&key);
            }
        }
        let first = logins.calls.get(&self.call);
        if first.is_some_and(|first| first.id == self.id) {
            logins.calls.remove(&self.call);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let pending = Arc::clone(&self.pending);
        self.leave(&mut pending.0.lock(), true);
    }
}

impl Queued {
    /// Waits for the turn of this login. It has to begin again at once: no other is woken for what
    /// it was woken for.
    pub async fn turn(self) {
        self.next.notified().await;
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let mut logins = self.pending.0.lock();
        logins.change(&self.key, |account| account.waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn begin(pending: &Arc<Pending>, call: u8) -> Turn {
        let key = (Arc::from("sasl.t"), Arc::from("net"), "a".to_owned());
        pending.begin(vec![key], Arc::from([call]))
    }

    fn queue(turn: Turn, for_trying: bool) -> Queued {
        match turn.refused(0, for_trying) {
            Some(Wait::Room(queued)) => queued,
            other => panic!("{other:?}"),
        }
    }

    /// The store is asked again by those that wait only if there may be room.
    #[test]
    fn those_that_wait_do_not_wake_each_other() {
        let pending = Arc::default();
        let mut asking = begin(&pending, 0);
        asking.ask();
        let mut cx = Context::from_waker(Waker::noop());
        let mut first = Box::pin(queue(begin(&pending, 1), true).turn());
        assert!(first.as_mut().poll(&mut cx).is_pending());
        // Another one comes, which may be the last that was tried.
        let mut second = Box::pin(queue(begin(&pending, 2), true).turn());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        assert!(first.as_mut().poll(&mut cx).is_ready());
        // Without room it waits again, and wakes nobody.
        let mut first = Box::pin(queue(begin(&pending, 1), false).turn());
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        // The end of the one that has room wakes one of them, which goes and wakes the other.
        asking.end(&Outcome::NotFound);
        assert!(second.as_mut().poll(&mut cx).is_ready());
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert!(begin(&pending, 2).refused(0, false).is_none());
        assert_eq!(first.as_mut().poll(&mut cx), Poll::Ready(()));
    }
}
