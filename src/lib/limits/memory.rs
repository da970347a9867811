//! The states of accounts and messages in the memory of this process, for as long as there is no
//! store.

use std::collections::HashMap;
use std::convert::Infallible;

use super::decide::{Account, AccountKey, Known, Ledger, decide, is_known};
use super::{Decision, Question, Usage};

/// The most accounts, and the most messages. Beyond that those go that lose least by it: the ones
/// that are furthest from their limit.
const MAX_ENTRIES: usize = 200_000;

/// The table, the limit and the account.
type Key = (Box<str>, Box<str>, Box<str>);

/// The states of accounts and messages.
#[derive(Debug, Default)]
pub struct Memory {
    /// Each account, and when it expires.
    accounts: HashMap<Key, (Account, u64)>,
    messages: HashMap<(Box<str>, Box<str>), Known>,
    now_ms: u64,
}

impl Memory {
    /// Drops the half that is furthest from its limits.
    fn drop_half(&mut self) {
        let states = self.accounts.values();
        let mut shares: Vec<_> = states.map(|(account, _)| share(account)).collect();
        let middle = shares.len() / 2;
        let (_, &mut middle, _) = shares.select_nth_unstable(middle);
        let above = shares.iter().filter(|share| **share > middle).count();
        let mut equals = shares.len() / 2 - above;
        self.accounts.retain(|_, (account, _)| {
            let share = share(account);
            let is_equal = share == middle && equals > 0;
            equals -= usize::from(is_equal);
            share > middle || is_equal
        });
    }

    /// Answers a question.
    pub fn decide(&mut self, question: &Question, now_ms: u64) -> Decision {
        self.now_ms = now_ms;
        self.make_room();
        let Ok(decision) = decide(self, question, now_ms);
        decision
    }

    /// Returns the use of the accounts of a table, or of one account.
    pub fn usage(&self, table: &str, account: Option<&str>, now_ms: u64) -> Vec<Usage> {
        let accounts = self.accounts.iter().filter(|((t, _, a), _)| {
            **t == *table && account.is_none_or(|account| **a == *account)
        });
        accounts
            .flat_map(|((_, limit, account), (state, _))| {
                state.clone().usage(limit, account, now_ms)
            })
            .collect()
    }

    /// Forgets what an account has used, and returns how many limits it had used.
    pub fn reset(&mut self, table: &str, account: &str) -> usize {
        let before = self.accounts.len();
        self.accounts
            .retain(|(t, _, a), _| **t != *table || **a != *account);
        before - self.accounts.len()
    }

    /// Drops what has expired once there are too many entries; if that is not enough, the accounts
    /// that have used the least part of their limit, and every message, which costs a message a
    /// second charge at most. Somebody who may send for many accounts must not be able to push out
    /// the one that is at its limit.
    fn make_room(&mut self) {
        if self.messages.len() >= MAX_ENTRIES {
            let now_ms = self.now_ms;
            self.messages.retain(|_, known| is_known(known, now_ms));
            if self.messages.len() >= MAX_ENTRIES / 2 {
                self.messages.clear();
            }
        }
        if self.accounts.len() >= MAX_ENTRIES {
            let now_ms = self.now_ms;
            self.accounts.retain(|_, (_, expires)| *expires > now_ms);
        }
        if self.accounts.len() >= MAX_ENTRIES {
            self.drop_half();
        }
    }
}

/// Returns the part of its limit that an account has used, in thousandths. One with reserved units
/// counts as above its limit: there are few, and none may be forgotten.
fn share(account: &Account) -> u64 {
    if account.held.units() > 0 {
        return u64::MAX;
    }
    let shares = account.windows.iter().map(|window| match window.most {
        Some(most) => window.frames.used().saturating_mul(1000) / most.max(1),
        None => 0,
    });
    shares.max().unwrap_or_default()
}

impl Ledger for Memory {
    type Error = Infallible;

    fn account(&mut self, key: &AccountKey<'_>) -> Result<Account, Infallible> {
        let found = self.accounts.get(&owned(key));
        Ok(found
            .map(|(account, _)| account.clone())
            .unwrap_or_default())
    }

    fn set_account(&mut self, key: &AccountKey<'_>, account: &Account) -> Result<(), Infallible> {
        if account.is_empty() {
            self.accounts.remove(&owned(key));
            return Ok(());
        }
        let expires = account.expires_ms(self.now_ms);
        self.accounts.insert(owned(key), (account.clone(), expires));
        Ok(())
    }

    fn message(&mut self, table: &str, id: &str) -> Result<Option<Known>, Infallible> {
        Ok(self.messages.get(&(table.into(), id.into())).cloned())
    }

    fn set_message(&mut self, table: &str, id: &str, known: &Known) -> Result<(), Infallible> {
        self.messages
            .insert((table.into(), id.into()), known.clone());
        Ok(())
    }
}

fn owned(key: &AccountKey<'_>) -> Key {
    (key.table.into(), key.limit.into(), key.account.into())
}
