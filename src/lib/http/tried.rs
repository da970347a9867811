//! The targets that one call has tried in vain: what their failures mean once the call has ended.

use std::fmt::Write as _;

use tokio::time::Instant;

use super::attempt::Attempt;
use super::health::Health;
use super::targets::Target;
use crate::observe::verbose;
use crate::outcome::{Outcome, Reason};

/// The targets that one call has tried in vain, in this order.
#[derive(Debug, Default)]
pub struct Tried<'t>(Vec<Failed<'t>>);

#[derive(Debug)]
struct Failed<'t> {
    target: &'t Target,
    at: Instant,
    health: Health,
    outcome: Outcome,
}

impl<'t> Tried<'t> {
    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a target whose attempt has failed.
    pub fn push(&mut self, target: &'t Target, attempt: Attempt) {
        self.0.push(Failed {
            target,
            at: Instant::now(),
            health: attempt.health,
            outcome: attempt.fetched.outcome,
        });
    }

    /// Ends the call where no target is left: with the last failure, which names the others.
    pub fn into_outcome(mut self, table: &str) -> Outcome {
        self.record(None, table);
        let Some(mut last) = self.0.pop() else {
            return Outcome::Temporary(Reason::Down.into());
        };
        self.name_in(&mut last.outcome, last.target);
        last.outcome
    }

    /// Ends the call with the answer of the target after these: they are down if it has made up for
    /// them, and named in its failure if it has not.
    pub fn end(&self, last: &Target, attempt: &mut Attempt, table: &str) {
        let outcome = &mut attempt.fetched.outcome;
        let is_answer = attempt.health == Health::Healthy && outcome.failure().is_none();
        self.record(is_answer.then_some(last), table);
        last.record_end(Instant::now(), attempt.health, outcome, None, table);
        self.name_in(outcome, last);
    }

    fn record(&self, replaced_by: Option<&Target>, table: &str) {
        for Failed {
            target,
            at,
            health,
            outcome,
        } in &self.0
        {
            target.record_end(*at, *health, outcome, replaced_by, table);
        }
    }

    /// Adds the failures of these targets to that of the last one. A query says them in any case.
    fn name_in(&self, outcome: &mut Outcome, last: &Target) {
        if self.0.is_empty() {
            return;
        }
        match outcome {
            Outcome::Temporary(failure) | Outcome::Permanent(failure) => {
                failure.detail = self.named_after(&failure.detail, last).into();
            }
            _ => verbose::keep_passed_over(|| {
                Some(format!("the answer is {}", self.named_after("", last)))
            }),
        }
    }

    /// Returns what is known of the last target, and the failures of these.
    fn named_after(&self, detail: &str, last: &Target) -> String {
        /// A list may have any number of targets.
        const NAMED: usize = 3;
        let mut text = match detail {
            "" => format!("from {}", last.name),
            detail => detail.to_owned(),
        };
        for Failed {
            target, outcome, ..
        } in self.0.iter().rev().take(NAMED)
        {
            // Writing to a string does not fail.
            let _ = match outcome.failure() {
                // Their details begin with the address.
                Some(failure) if matches!(failure.reason, Reason::Unreachable) => {
                    write!(text, "; before it {failure}")
                }
                Some(failure) => write!(text, "; before it {}: {failure}", target.name),
                None => Ok(()),
            };
        }
        if self.0.len() > NAMED {
            let _ = write!(text, "; and {} more targets", self.0.len() - NAMED);
        }
        text
    }
}
