//! The targets that one call has tried in vain: what their failures mean once the call has ended.

use std::fmt::Write as _;

use tokio::time::Instant;

use super::attempt::Attempt;
use super::breaker::Health;
use super::targets::Target;
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
    /// Adds a target whose attempt has failed.
    pub fn push(&mut self, target: &'t Target, attempt: Attempt) {
        self.0.push(Failed {
            target,
            at: Instant::now(),
            health: attempt.health,
            outcome: attempt.fetched.outcome,
        });
    }

    /// Returns the outcome where no target is left: the last failure, which names the others.
    pub fn into_outcome(mut self) -> Outcome {
        let Some(mut last) = self.0.pop() else {
            return Outcome::Temporary(Reason::Down.into());
        };
        self.name_in(&mut last.outcome, last.target);
        last.outcome
    }

    /// Ends the call with the answer of the target after these: they are down if it has made up for
    /// them, and named in its failure if it has not.
    pub fn end(&self, last: &Target, attempt: &mut Attempt, table: &str) {
        if attempt.health == Health::Healthy && attempt.fetched.outcome.failure().is_none() {
            // A shortage of this host is no failure of theirs, and an API that answers 500 to one key
            // is there: whoever can choose the key could call it down.
            let is_down =
                |f: &&Failed<'_>| matches!(f.health, Health::Unhealthy | Health::LostConnection);
            let failed = self.0.iter().filter(is_down);
            for Failed {
                target,
                at,
                outcome,
                ..
            } in failed
            {
                let what = format!("fails, and {} answers in its place", last.name);
                let log = |change| target.log_change(change, &what, outcome, table);
                target.breaker.record_replaced(*at, log);
            }
        }
        self.name_in(&mut attempt.fetched.outcome, last);
    }

    /// Adds the failures of these targets to that of the last one.
    fn name_in(&self, outcome: &mut Outcome, last: &Target) {
        /// A list may have any number of targets.
        const NAMED: usize = 3;
        let (Outcome::Temporary(failure) | Outcome::Permanent(failure)) = outcome else {
            return;
        };
        if self.0.is_empty() {
            return;
        }
        let mut detail = match failure.detail.as_ref() {
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
                    write!(detail, "; before it {failure}")
                }
                Some(failure) => write!(detail, "; before it {}: {failure}", target.name),
                None => Ok(()),
            };
        }
        if self.0.len() > NAMED {
            let _ = write!(detail, "; and {} more targets", self.0.len() - NAMED);
        }
        failure.detail = detail.into();
    }
}
