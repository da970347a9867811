//! Lists: the answer of one call, and a lookup for each value that it lacks.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::Asked;
use crate::http::caller::Caller;
use crate::http::rows::{self, Entry};
use crate::observe::log::RequestId;
use crate::outcome::{Outcome, Reason, Row};
use crate::request::{Kind, List, Order, Request};

/// How many values of one list are looked up at once.
const AHEAD: usize = 8;

/// One list on its way to the client.
pub struct Lister<'l> {
    /// Looks up single keys.
    pub lookups: &'l Caller,
    /// Asks for lists, if the table has them.
    pub iterate: Option<&'l Caller>,
    /// Where rows go.
    pub rows: mpsc::Sender<Row>,
    /// The request for the list.
    pub asked: Asked,
}

impl Lister<'_> {
    /// Lists what a request asks for, and returns how that ended.
    pub async fn list(self, request: &Request) -> Outcome {
        let Kind::List(list) = &request.kind else {
            return Outcome::Permanent(Reason::RequestNotUnderstood.into());
        };
        let patience = Duration::from_secs(self.lookups.table().protocol.max_secs);
        let mut run = Run {
            lister: &self,
            left: list.most.unwrap_or(usize::MAX),
            calls: 0,
            patience,
            due: self.asked.at + patience,
        };
        let mut outcome = run.part(request, list).await;
        for more in &list.more {
            let (Outcome::Done | Outcome::NotFound, Kind::List(list)) = (&outcome, &more.kind)
            else {
                return outcome;
            };
            match run.part(more, list).await {
                Outcome::NotFound => {}
                ended => outcome = ended,
            }
        }
        outcome
    }
}

/// How far a list has come.
struct Run<'r> {
    lister: &'r Lister<'r>,
    /// How many rows the client still wants.
    left: usize,
    calls: usize,
    /// How long the client waits for a row.
    patience: Duration,
    /// When the next row has to be there.
    due: Instant,
}

/// The lookup of a value.
enum Lookup<'c> {
    InFlight(Pin<Box<dyn Future<Output = Outcome> + Send + 'c>>),
    Ready(Outcome),
}

impl<'r> Run<'r> {
    /// Lists what stands under one path.
    async fn part(&mut self, request: &Request, list: &List) -> Outcome {
        if list.is_exact {
            return self.single(request, list).await;
        }
        let Some(iterate) = self.lister.iterate else {
            return Outcome::Permanent(Reason::CannotBeListed.into());
        };
        let id = self.next_id();
        let document = match iterate.ask(request, id, self.due).await.outcome {
            Outcome::Found(document) => document,
            outcome => return outcome,
        };
        let mut entries = match rows::read(&document) {
            Ok(entries) => entries,
            Err(failure) => return Outcome::Temporary(failure),
        };
        drop(document);
        if !list.is_recursive {
            entries.retain(|entry| !entry.name.contains('/'));
        }
        if list.order == Some(Order::Key) {
            entries.sort_by(|one, other| one.name.cmp(&other.name));
        }
        if !list.has_values {
            for entry in &mut entries {
                entry.value = Some(String::new());
            }
        }
        match list.order {
            Some(Order::Value) => self.sorted_by_value(request, list, entries).await,
            Some(Order::Key) | None => self.in_order(request, list, entries).await,
        }
    }

    /// Lists the one row of the key itself.
    async fn single(&mut self, request: &Request, list: &List) -> Outcome {
        let id = self.next_id();
        let lookup = lookup_of(request);
        match self.lister.lookups.ask(&lookup, id, self.due).await.outcome {
            Outcome::Found(value) => {
                let value = if list.has_values {
                    value
                } else {
                    String::new()
                };
                let key = list.prefix.to_vec();
                self.send(Row { key, value }).await;
                Outcome::Done
            }
            outcome => outcome,
        }
    }

    /// Sends the rows as their values come.
    async fn in_order(&mut self, request: &Request, list: &List, entries: Vec<Entry>) -> Outcome {
        let mut entries = entries.into_iter();
        let mut lookups = VecDeque::new();
        while self.left > 0 {
            while lookups.len() < AHEAD.min(self.left)
                && let Some(entry) = entries.next()
            {
                let lookup = self.begin(request, list, &entry);
                lookups.push_back((entry.name, lookup));
            }
            let Some((name, outcome)) = self.next(&mut lookups).await else {
                break;
            };
            match outcome {
                Outcome::Found(value) => self.send(row(list, &name, value)).await,
                // The key is gone meanwhile.
                Outcome::NotFound => {}
                failure => return failure,
            }
        }
        Outcome::Done
    }

    /// Sends the rows once all values are there.
    async fn sorted_by_value(
        &mut self,
        request: &Request,
        list: &List,
        entries: Vec<Entry>,
    ) -> Outcome {
        let most = self.lister.lookups.table().endpoint.max_response;
        let (mut rows, mut bytes) = (Vec::new(), 0_usize);
        let mut entries = entries.into_iter();
        let mut lookups = VecDeque::new();
        loop {
            while lookups.len() < AHEAD
                && let Some(entry) = entries.next()
            {
                let lookup = self.begin(request, list, &entry);
                lookups.push_back((entry.name, lookup));
            }
            let Some((name, outcome)) = self.next(&mut lookups).await else {
                break;
            };
            match outcome {
                Outcome::Found(value) => {
                    bytes = bytes.saturating_add(value.len());
                    if bytes > most {
                        return Outcome::Temporary(Reason::AnswerTooLong.into());
                    }
                    rows.push(row(list, &name, value));
                }
                Outcome::NotFound => {}
                failure => return failure,
            }
        }
        rows.sort_by(|one, other| match one.value.cmp(&other.value) {
            Ordering::Equal => one.key.cmp(&other.key),
            order => order,
        });
        rows.truncate(self.left);
        for row in rows {
            self.send(row).await;
        }
        Outcome::Done
    }

    /// Begins the lookup of a value, or takes it from the answer.
    fn begin(&mut self, request: &Request, list: &List, entry: &Entry) -> Lookup<'r> {
        if let Some(value) = &entry.value {
            return Lookup::Ready(Outcome::Found(value.clone()));
        }
        let lookup = lookup_under(request, list, &entry.name);
        let (id, until) = (self.next_id(), Instant::now() + self.patience);
        let lookups = self.lister.lookups;
        Lookup::InFlight(Box::pin(async move {
            lookups.ask(&lookup, id, until).await.outcome
        }))
    }

    /// Waits for the first of the lookups, while all of them go on.
    async fn next(
        &self,
        lookups: &mut VecDeque<(String, Lookup<'r>)>,
    ) -> Option<(String, Outcome)> {
        lookups.front()?;
        let first = poll_fn(|cx| {
            let mut is_first_ready = false;
            for (at, (_, lookup)) in lookups.iter_mut().enumerate() {
                is_first_ready |= lookup.poll(cx).is_ready() && at == 0;
            }
            if is_first_ready {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        let is_in_time = timeout_at(self.due, first).await.is_ok();
        let (name, lookup) = lookups.pop_front()?;
        Some((
            name,
            match lookup {
                Lookup::Ready(outcome) if is_in_time => outcome,
                _ => Outcome::Temporary(Reason::TimedOut.into()),
            },
        ))
    }

    /// Hands a row over. If the client is gone, the list is dropped with its connection.
    async fn send(&mut self, row: Row) {
        let _ = self.lister.rows.send(row).await;
        self.left = self.left.saturating_sub(1);
        self.due = Instant::now() + self.patience;
    }

    fn next_id(&mut self) -> RequestId {
        let id = self.lister.asked.id.part(self.calls);
        self.calls += 1;
        id
    }
}

impl Lookup<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::InFlight(call) = self {
            let outcome = ready!(call.as_mut().poll(cx));
            *self = Self::Ready(outcome);
        }
        Poll::Ready(())
    }
}

fn row(list: &List, name: &str, value: String) -> Row {
    Row {
        key: [&list.prefix[..], name.as_bytes()].concat(),
        value,
    }
}

/// Returns the lookup of the key of a list.
fn lookup_of(request: &Request) -> Request {
    Request {
        kind: Kind::Lookup,
        ..request.clone()
    }
}

/// Returns the lookup of a name in a list.
fn lookup_under(request: &Request, list: &List, name: &str) -> Request {
    let path = request.value(list.key).unwrap_or_default();
    let slash = if path.is_empty() { &b""[..] } else { b"/" };
    let key = [path, slash, name.as_bytes()].concat();
    lookup_of(request).with(list.key, key.into())
}
