//! Dovecot's dict protocol, as dict-client.c speaks it (the driver "proxy").
//!
//! ```text
//! line:   command field *(TAB field) LF     byte 1 escapes: "1t" a tab, "1n" LF, "1r" CR, "10" NUL
//!
//! hello:  H major minor type user dict      first of all; not answered
//! lookup: L key user                        O value | N | F reason
//! list:   I flags most path user            *(O key value) (empty line | F reason)
//! write:  B id user expires                 begins a transaction
//!         S id key value                    sets a key
//!         U id key                          unsets it
//!         A id key difference               adds to it
//!         T id seconds nanoseconds          the time of the transaction, which is not used
//!         V id yes                          hides it from the log
//!         R id                              rolls it back
//!         C id                              commits it: O id | N id | F id reason | W id reason
//! ```
//!
//! Keys begin with `shared/` or `priv/`; a key of the latter kind belongs to the user. Versions 3
//! (2.3.17 and newer) and 4 (2.4) have the user in each command. Version 2 has it in the hello
//! alone, and its lists have one or several paths. Only version 4 has `expires`. Fields behind the
//! known ones are ignored.
//!
//! Only L, I and C are answered, in this order of the requests: a client takes any line for the
//! answer to its oldest command, and that of 2.3 crashes if it asked nothing. A server could answer
//! in another order with the numbers of commands (`*` and `+`), but version 2.0 has none.

mod facts;
mod fields;
mod hello;
mod lists;
mod transactions;

use bytes::{Bytes, BytesMut};

use self::fields::{fields, number, plain, put, unescape};
use self::hello::Hello;
use self::lists::list;
use self::transactions::{Id, Transactions};
use crate::outcome::{Effect, Outcome, Reason, Row};
use crate::protocol::facts::Facts;
use crate::protocol::frame::{Line, Lines};
use crate::protocol::grammar::{MAX_REQUEST, Protocol, Step, Tag, Unsayable};
use crate::reply::Reply;
use crate::request::{Change, Request};

/// The server's side of the dict protocol.
#[derive(Debug, Default)]
pub struct Dict {
    lines: Lines,
    hello: Option<Hello>,
    transactions: Transactions,
}

/// Enough for most replies.
const USUAL_REPLY: usize = 64;

/// A line that breaks the grammar. What follows it cannot be trusted.
struct Malformed;

impl Protocol for Dict {
    const FACTS: &'static Facts = &facts::FACTS;

    type Rules = ();

    fn open((): &()) -> (Self, Bytes) {
        (Self::default(), Bytes::new())
    }

    fn next_step(&mut self, input: &mut BytesMut) -> Step {
        loop {
            let place = match self.lines.find(input, MAX_REQUEST) {
                Line::NeedMore => return Step::NeedMore,
                Line::At(place) => place,
                Line::TooLong => return refuse(Reason::RequestTooLong),
            };
            // Obeyed where it is: what is kept of it is copied.
            let end = place.end;
            let line = input.get(place).unwrap_or_default();
            let obeyed = self.command(line.strip_suffix(b"\r").unwrap_or(line));
            self.lines.skip(input, end);
            match obeyed {
                Ok(None) => {}
                Ok(Some(step)) => return step,
                Err(Malformed) => return refuse(Reason::RequestNotUnderstood),
            }
        }
    }

    fn reply(&mut self, tag: Tag, outcome: &Outcome, (): &()) -> Result<Reply, Unsayable> {
        let mut line = BytesMut::with_capacity(USUAL_REPLY);
        match (Awaited::from(tag), outcome) {
            (Awaited::Nothing, _) => return Ok(Reply::Close),
            (Awaited::Value, Outcome::Found(value)) => {
                put_line(b'O', &[value.as_bytes()], &mut line);
            }
            (Awaited::Value, Outcome::NotFound) => put_line(b'N', &[b""], &mut line),
            (Awaited::Rows, Outcome::Done | Outcome::NotFound) => line.extend_from_slice(b"\n"),
            (
                Awaited::Value | Awaited::Rows,
                Outcome::Temporary(failure) | Outcome::Permanent(failure),
            ) => {
                put_line(b'F', &[failure.reason.to_string().as_bytes()], &mut line);
            }
            (Awaited::Commit(id), outcome) => put_commit(id, outcome, &mut line)?,
            (Awaited::Value | Awaited::Rows, _) => return Err(unsayable()),
        }
        Ok(Reply::Send(line.freeze()))
    }

    fn question(name: &[u8], arguments: &[&[u8]]) -> Option<Result<Request, &'static str>> {
        let mut arguments = arguments.iter().map(|one| Bytes::copy_from_slice(one));
        let hello = Hello {
            dict: Bytes::copy_from_slice(name),
            user: None,
            has_expiry: false,
        };
        let key = arguments.next()?;
        let user = arguments.next().unwrap_or_default();
        let request = hello.request(&key, &user);
        Some(request.map_err(|_| "the key must begin with \"shared/\" or \"priv/\""))
    }

    /// A row always has a value, if an empty one: a client of 2.3 panics without it.
    fn put_row(&self, row: &Row, out: &mut BytesMut) {
        put_line(b'O', &[&row.key, row.value.as_bytes()], out);
    }
}

fn put_commit(id: Id, outcome: &Outcome, line: &mut BytesMut) -> Result<(), Unsayable> {
    let id = id.to_string();
    let id = id.as_bytes();
    match outcome {
        Outcome::Done => put_line(b'O', &[id], line),
        Outcome::NotFound | Outcome::Refused(_) => put_line(b'N', &[id], line),
        Outcome::Permanent(failure) if failure.reason == Reason::NoSuchKey => {
            put_line(b'N', &[id], line);
        }
        Outcome::Temporary(failure) | Outcome::Permanent(failure) => {
            let status = match failure.effect {
                Effect::Unknown | Effect::PartOrMore => b'W',
                Effect::Nothing | Effect::Part => b'F',
            };
            put_line(status, &[id, failure.reason.to_string().as_bytes()], line);
        }
        Outcome::Found(_) => return Err(unsayable()),
    }
    Ok(())
}

fn put_line(status: u8, fields: &[&[u8]], out: &mut BytesMut) {
    let length: usize = fields
        .iter()
        .map(|field| field.len().saturating_add(1))
        .sum();
    out.reserve(length.saturating_add(1));
    for (at, field) in fields.iter().enumerate() {
        out.extend_from_slice(&[if at == 0 { status } else { b'\t' }]);
        put(field, out);
    }
    out.extend_from_slice(b"\n");
}

fn refuse(reason: Reason) -> Step {
    Step::Refuse(Outcome::Permanent(reason.into()))
}

fn unsayable() -> Unsayable {
    Unsayable(Reason::ValueCannotBeSent.into())
}

/// What a client waits for, as the tag of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// Nothing: the connection is closed.
    Nothing,
    Value,
    Rows,
    Commit(Id),
}

/// Tags above this one are those of commits, each with the number of its transaction.
const FIRST_COMMIT: u64 = 1 << 32;

impl From<Awaited> for Tag {
    fn from(awaited: Awaited) -> Self {
        Self(match awaited {
            Awaited::Nothing => 0,
            Awaited::Value => 1,
            Awaited::Rows => 2,
            Awaited::Commit(id) => FIRST_COMMIT.saturating_add(id.into()),
        })
    }
}

impl From<Tag> for Awaited {
    fn from(tag: Tag) -> Self {
        match tag.0 {
            0 => Self::Nothing,
            1 => Self::Value,
            2 => Self::Rows,
            commit => Self::Commit(Id::try_from(commit.saturating_sub(FIRST_COMMIT)).unwrap_or(0)),
        }
    }
}

impl Dict {
    /// Obeys one line; returns a step where it is to be answered.
    fn command(&mut self, line: &[u8]) -> Result<Option<Step>, Malformed> {
        let (command, rest) = line.split_first().ok_or(Malformed)?;
        let mut fields = fields(rest);
        if *command == b'H' {
            let is_first = self.hello.is_none();
            let hello = Hello::parse(fields).filter(|_| is_first);
            self.hello = Some(hello.ok_or(Malformed)?);
            return Ok(None);
        }
        let hello = self.hello.as_ref().ok_or(Malformed)?;
        match command {
            b'L' => {
                let key = plain(fields.next().ok_or(Malformed)?);
                let user = hello.user(fields.next());
                let request = hello.request(&key, &user);
                Ok(Some(step(Awaited::Value, request)))
            }
            b'I' => {
                let request = list(hello, fields).ok_or(Malformed)?;
                Ok(Some(step(Awaited::Rows, request)))
            }
            b'C' => {
                let id = fields.next().and_then(number).ok_or(Malformed)?;
                let awaited = Awaited::Commit(id);
                Ok(Some(match self.transactions.end(id) {
                    Some(transaction) => step(awaited, transaction.commit(hello)),
                    None => {
                        let outcome = Outcome::Permanent(self.transactions.missing());
                        Step::Answer(awaited.into(), outcome)
                    }
                }))
            }
            _ => {
                let id = fields.next().and_then(number).ok_or(Malformed)?;
                self.prepare(*command, id, fields).ok_or(Malformed)?;
                Ok(None)
            }
        }
    }

    /// Obeys a command of a transaction that is not committed yet.
    fn prepare<'l>(
        &mut self,
        command: u8,
        id: Id,
        mut fields: impl Iterator<Item = &'l [u8]>,
    ) -> Option<()> {
        let transactions = &mut self.transactions;
        let mut next = || fields.next().map(unescape);
        match command {
            b'B' => {
                let hello = self.hello.as_ref()?;
                let user = hello.user(fields.next());
                let expires = fields.next().filter(|_| hello.has_expiry);
                let expires = expires.map_or(Some(0), number)?;
                transactions.begin(id, user, expires)?;
            }
            b'S' => transactions.add(id, Change::Set, next()?, next()?),
            b'U' => transactions.add(id, Change::Unset, next()?, Bytes::new()),
            b'A' => transactions.add(id, Change::Increment, next()?, next()?),
            b'V' => transactions.hide(id),
            b'R' => drop(transactions.end(id)),
            b'T' => {}
            _ => return None,
        }
        Some(())
    }
}

fn step(awaited: Awaited, request: Result<Request, Reason>) -> Step {
    match request {
        Ok(request) => Step::Ask(awaited.into(), request),
        Err(reason) => Step::Answer(awaited.into(), Outcome::Permanent(reason.into())),
    }
}
