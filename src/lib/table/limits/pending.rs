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
        self.leave(&mut logins);
        if let Some(first) = logins.calls.get(&self.call)
            && (first.is_asking || for_trying)
        {
            return Some(Wait::Same(first.outcome.clone()));
        }
        let account = logins.accounts.get_mut(&key)?;
        let is_worth_it = account.asking > 0 || (for_trying && account.trying > 0);
        is_worth_it.then(|| {
            account.waiting += 1;
            Wait::Room(Queued {
                pending: Arc::clone(&self.pending),
                next: Arc::clone(&account.next),
                key,
            })
        })
    }

    /// Takes the login from its accounts, and wakes the next of each.
    fn leave(&mut self, logins: &mut Logins) {
        let is_asking = self.is_asking;
        for key in self.keys.drain(..) {
            logins.change(&key, |account| {
                match is_asking {
                    true => account.asking -= 1,
                    false => account.trying -= 1,
                }
                if account.waiting > 0 {
                    account.next.notify_one();
                }
            });
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
        self.leave(&mut pending.0.lock());
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
