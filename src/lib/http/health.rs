//! The health of a target: what an attempt shows of it, and when failures in a row are evidence
//! against it, and not against one key.

use tokio::time::Instant;

/// What an attempt has shown of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Healthy,
    /// There is no connection to it, whatever it would be asked.
    Unreachable,
    /// It does not answer, or says that it cannot.
    Unhealthy,
    /// It has lost a connection that other calls may have shared.
    LostConnection,
    /// It was not called, or not for long enough.
    Inconclusive,
}

impl Health {
    /// Returns whether the attempt failed for a reason of the target's own.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::Unhealthy | Self::LostConnection
        )
    }
}

/// A digest by which calls that ask the same are recognised.
pub type CallDigest = u64;

/// As many different calls that fail in a row are evidence. Those for one key are none: a stranger
/// may know a key to which the API is slow, and Postfix asks for it again and again.
const DIFFERENT: usize = 3;

/// As many failures in a row are evidence whatever is asked, since a table may only ever be asked for
/// one key. By default the breaker opens after as many.
const EQUAL: usize = 10;

/// Failures in a row.
#[derive(Debug, Default)]
pub struct Failures {
    /// How many there are.
    pub count: usize,
    /// When the first of them was recorded.
    pub first_at: Option<Instant>,
    /// Some of the calls that failed, all of them different.
    calls: Vec<CallDigest>,
}

impl Failures {
    /// Adds a call that has failed.
    pub fn add(&mut self, call: CallDigest) {
        self.count = self.count.saturating_add(1);
        self.first_at.get_or_insert_with(Instant::now);
        if self.calls.len() < DIFFERENT && !self.calls.contains(&call) {
            self.calls.push(call);
        }
    }

    /// Returns whether they are evidence against the target.
    pub fn are_evidence(&self) -> bool {
        self.calls.len() >= DIFFERENT || self.count >= EQUAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_calls_are_evidence_sooner_than_equal_ones() {
        for (calls, expected) in [
            (&[1, 2][..], false),
            (&[1, 2, 3], true),
            (&[1, 2, 1, 2, 1, 2, 1, 2, 1], false),
            (&[1; 9], false),
            (&[1; 10], true),
        ] {
            let mut failures = Failures::default();
            calls.iter().for_each(|call| failures.add(*call));
            assert_eq!(failures.are_evidence(), expected, "{calls:?}");
        }
    }
}
