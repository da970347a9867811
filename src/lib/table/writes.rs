//! Writes: the operations of a transaction, in order and one call each, or all of them in one call.
//!
//! An operation is done only if the backend says so. The first that is not ends the transaction;
//! those before it stay done, and the log says how many these are.

use tokio::time::Instant;
use tracing::warn;

use super::Asked;
use super::operations::Operations;
use crate::http::call::compose;
use crate::http::send::OutgoingCall;
use crate::observe::log::RequestId;
use crate::observe::throttle::left_behind;
use crate::outcome::{Effect, Failure, Outcome, Reason};
use crate::request::{Request, Write};

/// Writes what a request asks for, for the table of this name.
pub async fn write(
    table: &str,
    operations: &Operations,
    request: &Request,
    write: &Write,
    asked: Asked,
) -> Outcome {
    let id = asked.id;
    if write.operations.is_empty() {
        return Outcome::Done;
    }
    if let Some(commit) = &operations.commit {
        let mut begun = Begun::new(table, id, write.operations.len());
        let outcome = commit.ask(request, id, asked.until(commit)).await.outcome;
        begun.has_ended = true;
        return outcome;
    }
    let mut changes = write.operations.iter().map(|operation| operation.change);
    if changes.any(|change| operations.of(change).is_none()) {
        return Outcome::Permanent(Reason::ReadOnly.into());
    }
    if write.expires > 0 {
        let detail = "the value expires, which only the sub-table commit can send";
        return Outcome::Permanent(Failure::new(Reason::ValueCannotBeSent, detail));
    }
    // All calls are made before the first is sent: what is known to fail must not fail half-way.
    let mut calls = Vec::with_capacity(write.operations.len());
    for operation in &write.operations {
        let Some(caller) = operations.of(operation.change) else {
            return Outcome::Permanent(Reason::ReadOnly.into());
        };
        match compose(caller.table(), &operation.request) {
            Ok(call) => calls.push((caller, call)),
            Err(outcome) => return outcome,
        }
    }
    let mut begun = Begun::new(table, id, calls.len());
    for (caller, call) in calls {
        let until = asked.until(caller);
        let mut call = OutgoingCall::new(call, None, id.part(begun.done));
        let outcome = caller.make(&mut call, until).await.outcome;
        if outcome != Outcome::Done {
            begun.has_ended = true;
            return ended(outcome, begun.done, begun.all, until);
        }
        begun.done += 1;
    }
    begun.has_ended = true;
    Outcome::Done
}

/// A transaction that has begun. Dropped before its end, as when its client goes away or the program
/// stops, it has no outcome that would be logged.
struct Begun<'t> {
    table: &'t str,
    id: RequestId,
    done: usize,
    all: usize,
    has_ended: bool,
}

impl<'t> Begun<'t> {
    fn new(table: &'t str, id: RequestId, all: usize) -> Self {
        Self {
            table,
            id,
            done: 0,
            all,
            has_ended: false,
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let Some(suppressed) = left_behind() else {
            return;
        };
        let others = match suppressed {
            0 => String::new(),
            n => format!(" ({n} more like this)"),
        };
        let (table, request_id) = (self.table, self.id.to_string());
        warn!(
            table,
            request_id,
            "{table}: a transaction was cut off: {} of {} operations are done, and others may \
             have been done nevertheless{others}",
            self.done,
            self.all
        );
    }
}

/// Returns the outcome of a transaction that ends with this outcome of an operation.
fn ended(outcome: Outcome, done: usize, all: usize, until: Instant) -> Outcome {
    if done == 0 {
        return outcome;
    }
    let part = |failure: Failure| {
        // The client stops waiting with some of it sent, whatever becomes of the rest.
        let is_over = Instant::now() >= until;
        let effect = match failure.effect {
            Effect::Nothing if !is_over => Effect::Part,
            _ => Effect::PartOrMore,
        };
        let colon = if failure.detail.is_empty() { "" } else { ": " };
        let detail = format!(
            "{done} of {all} operations are done{colon}{}",
            failure.detail
        );
        Failure {
            detail: detail.into(),
            effect,
            ..failure
        }
    };
    match outcome {
        Outcome::Temporary(failure) => Outcome::Temporary(part(failure)),
        Outcome::Permanent(failure) => Outcome::Permanent(part(failure)),
        Outcome::NotFound => Outcome::Permanent(part(Reason::NoSuchKey.into())),
        outcome => outcome,
    }
}
