//! The open transactions of a connection: operations that are to be committed together.

use std::collections::HashMap;

use bytes::Bytes;

use super::fields::number;
use super::hello::Hello;
use crate::outcome::{Failure, Reason};
use crate::request::{Change, Kind, Operation, Request, Write};

/// The most transactions that a connection may have open.
const MAX_OPEN: usize = 64;

/// The most operations of a transaction.
const MAX_OPERATIONS: usize = 1_000;

/// The most bytes of the keys and values of a transaction.
const MAX_BYTES: usize = 1 << 20;

/// The number that the client gives a transaction.
pub(super) type Id = u32;

/// The open transactions of a connection.
#[derive(Debug, Default)]
pub(super) struct Transactions(HashMap<Id, Transaction>);

/// An open transaction. Only few of them have many operations, but a client may leave all of them
/// open, so they are kept small until they are committed.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    user: Bytes,
    expires: u64,
    /// Whether the log must not show its keys.
    is_hidden: bool,
    operations: Vec<(Change, Bytes, Bytes)>,
    bytes: usize,
    /// Why it cannot be committed.
    fault: Option<Reason>,
}

impl Transactions {
    /// Begins a transaction, unless there are too many: then its operations are dropped, and its
    /// commit fails. Fails if there is one of this number.
    pub(super) fn begin(&mut self, id: Id, user: Bytes, expires: u64) -> Option<()> {
        if self.0.contains_key(&id) {
            return None;
        }
        if self.0.len() < MAX_OPEN {
            let transaction = Transaction {
                user,
                expires,
                ..Transaction::default()
            };
            self.0.insert(id, transaction);
        }
        Some(())
    }

    /// Returns why there is no transaction of a number.
    pub(super) fn missing(&self) -> Failure {
        if self.0.len() < MAX_OPEN {
            return Failure::new(Reason::RequestNotUnderstood, "no such transaction");
        }
        Failure::new(Reason::RequestTooLong, "too many open transactions")
    }

    /// Adds an operation. Without a transaction of this number it is dropped, as nothing may be
    /// replied to it; the commit says so.
    pub(super) fn add(&mut self, id: Id, change: Change, key: Bytes, value: Bytes) {
        if let Some(transaction) = self.0.get_mut(&id) {
            transaction.add(change, key, value);
        }
    }

    /// Hides what a transaction changes from the log.
    pub(super) fn hide(&mut self, id: Id) {
        if let Some(transaction) = self.0.get_mut(&id) {
            transaction.is_hidden = true;
        }
    }

    /// Takes a transaction out, to commit it or to roll it back.
    pub(super) fn end(&mut self, id: Id) -> Option<Transaction> {
        self.0.remove(&id)
    }
}

impl Transaction {
    fn add(&mut self, change: Change, key: Bytes, value: Bytes) {
        if self.fault.is_some() {
            return;
        }
        self.bytes = self.bytes.saturating_add(key.len());
        self.bytes = self.bytes.saturating_add(value.len());
        let is_too_long = self.operations.len() >= MAX_OPERATIONS || self.bytes > MAX_BYTES;
        if is_too_long {
            self.fault = Some(Reason::RequestTooLong);
        } else if change == Change::Increment && difference(&value).is_none() {
            self.fault = Some(Reason::RequestNotUnderstood);
        }
        if self.fault.is_some() {
            self.operations = Vec::new();
        } else {
            self.operations.push((change, key, value));
        }
    }

    /// Returns the request to write it, or why it cannot be written.
    pub(super) fn commit(self, hello: &Hello) -> Result<Request, Reason> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let operations = self.operations.into_iter();
        let operations = operations.map(|(change, key, value)| {
            let mut request = hello.request(&key, &self.user)?;
            request.values.push((Bytes::from_static(b"value"), value));
            Ok(Operation {
                change,
                key,
                request,
            })
        });
        let write = Write {
            operations: operations.collect::<Result<_, _>>()?,
            expires: self.expires,
            is_hidden: self.is_hidden,
        };
        Ok(Request {
            table: Some(hello.dict.clone()),
            values: vec![
                (Bytes::from_static(b"user"), self.user),
                (Bytes::from_static(b"dict"), hello.dict.clone()),
            ],
            kind: Kind::Write(Box::new(write)),
            needs: None,
            secret: None,
        })
    }
}

/// Returns what an increment adds.
fn difference(value: &[u8]) -> Option<i64> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    number::<u64>(digits)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(transactions: &mut Transactions, id: Id) -> Option<Result<usize, Reason>> {
        let hello = Hello {
            dict: Bytes::from_static(b"d"),
            user: None,
            has_expiry: false,
        };
        let transaction = transactions.end(id)?;
        Some(transaction.commit(&hello).map(|request| {
            let Kind::Write(write) = request.kind else {
                panic!("no write");
            };
            write.operations.len()
        }))
    }

    fn set(transactions: &mut Transactions, id: Id, value: Bytes) {
        let key = Bytes::from_static(b"shared/k");
        transactions.add(id, Change::Set, key, value);
    }

    #[test]
    fn a_transaction_has_bounds_and_says_so_at_its_commit() {
        for (operations, length, expected) in [
            (1_000, 1, Ok(1_000)),
            (1_001, 1, Err(Reason::RequestTooLong)),
            (16, 65_528, Ok(16)),
            (16, 65_529, Err(Reason::RequestTooLong)),
        ] {
            let mut transactions = Transactions::default();
            transactions.begin(1, Bytes::new(), 0).unwrap();
            for _ in 0..operations {
                set(&mut transactions, 1, vec![b'x'; length].into());
            }
            assert_eq!(committed(&mut transactions, 1), Some(expected));
        }
    }

    #[test]
    fn a_connection_has_a_bounded_number_of_open_transactions() {
        let mut transactions = Transactions::default();
        for id in 0..65 {
            transactions.begin(id, Bytes::new(), 0).unwrap();
        }
        set(&mut transactions, 64, Bytes::new());
        assert_eq!(committed(&mut transactions, 64), None);
        assert_eq!(transactions.begin(63, Bytes::new(), 0), None);
        assert_eq!(committed(&mut transactions, 63), Some(Ok(0)));
        transactions.begin(63, Bytes::new(), 0).unwrap();
        set(&mut transactions, 63, Bytes::new());
        assert_eq!(committed(&mut transactions, 63), Some(Ok(1)));
    }

    #[test]
    fn a_difference_is_a_whole_number_with_or_without_a_minus() {
        for value in [
            "0",
            "5",
            "-18",
            "9223372036854775807",
            "-9223372036854775808",
        ] {
            assert!(difference(value.as_bytes()).is_some(), "{value}");
        }
        for value in ["", "-", "+5", "--5", "1.5", "x", "9223372036854775808"] {
            assert_eq!(difference(value.as_bytes()), None, "{value}");
        }
    }
}
