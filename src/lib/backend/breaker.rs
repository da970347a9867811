//! Peace for a target that is down: after so many failures in a row it is asked again only now and
//! then, by one call at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config;

/// What is known of one target.
#[derive(Debug, Default)]
pub struct Breaker {
    settings: Option<config::Breaker>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: usize,
    /// Since the target is down: when it may be asked again.
    down_until: Option<Instant>,
    /// Whether a call is finding out if it is up again.
    is_probed: bool,
    /// Since it has failed: until when other targets come first.
    avoided_until: Option<Instant>,
    /// When it has last answered anybody.
    answered_at: Option<Instant>,
}

/// How long other targets come first where no pause is configured.
const PAUSE: Duration = Duration::from_secs(5);

/// A change that is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has failed too often.
    Down,
    /// It answers again.
    Up,
}

impl Breaker {
    /// Makes one that knows nothing yet; without settings it never interferes.
    pub fn new(settings: Option<config::Breaker>) -> Self {
        Self {
            settings,
            state: Mutex::default(),
        }
    }

    /// Asks for a call; nothing if the target is to be left in peace.
    pub fn permit(&self) -> Option<Permit<'_>> {
        let mut state = self.lock();
        let is_probe = match state.down_until {
            None => false,
            Some(until) if state.is_probed || Instant::now() < until => return None,
            Some(_) => true,
        };
        state.is_probed |= is_probe;
        Some(Permit {
            breaker: self,
            is_probe,
        })
    }

    /// Tells whether a call would be refused at this moment.
    pub fn is_closed(&self) -> bool {
        let state = self.lock();
        let is_down = |until| state.is_probed || Instant::now() < until;
        state.down_until.is_some_and(is_down)
    }

    /// Tells whether other targets are to be asked first: it has failed lately. When that is long
    /// enough ago, one call is told to try.
    pub fn is_avoided(&self) -> bool {
        let mut state = self.lock();
        let Some(until) = state.avoided_until else {
            return false;
        };
        let now = Instant::now();
        if now >= until {
            state.avoided_until = Some(now + self.pause());
        }
        now < until
    }

    /// Tells whether the target has answered anybody within this time.
    pub fn has_answered_within(&self, time: Duration) -> bool {
        let answered_at = self.lock().answered_at;
        answered_at.is_some_and(|answered_at| answered_at.elapsed() < time)
    }

    /// Tells whether the target is asked, and not left in peace.
    pub fn is_up(&self) -> bool {
        self.lock().down_until.is_none()
    }

    fn pause(&self) -> Duration {
        self.settings.map_or(PAUSE, |settings| settings.pause)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave for one call. If it is dropped without a word, nothing was learnt.
#[derive(Debug)]
pub struct Permit<'b> {
    breaker: &'b Breaker,
    is_probe: bool,
}

impl Permit<'_> {
    /// Says that the target has answered. A change is told before the next one can come about.
    pub fn answered(self, tell: impl FnOnce(Change)) {
        let mut state = self.breaker.lock();
        state.failures = 0;
        state.avoided_until = None;
        state.answered_at = Some(Instant::now());
        if state.down_until.take().is_some() {
            tell(Change::Up);
        }
    }

    /// Says that it has not. A change is told before the next one can come about.
    pub fn failed(self, tell: impl FnOnce(Change)) {
        let mut state = self.breaker.lock();
        state.avoided_until = Some(Instant::now() + self.breaker.pause());
        let Some(settings) = self.breaker.settings else {
            return;
        };
        state.failures = state.failures.saturating_add(1);
        if state.failures < settings.failures {
            return;
        }
        let was_up = state.down_until.is_none();
        // Calls that began before it was down do not prolong its peace.
        if was_up || self.is_probe {
            state.down_until = Some(Instant::now() + settings.pause);
        }
        if was_up {
            tell(Change::Down);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.lock().is_probed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(permit: Permit<'_>) -> Option<Change> {
        let mut told = None;
        permit.answered(|change| told = Some(change));
        told
    }

    fn failed(permit: Permit<'_>) -> Option<Change> {
        let mut told = None;
        permit.failed(|change| told = Some(change));
        told
    }

    fn breaker() -> Breaker {
        Breaker::new(Some(config::Breaker {
            failures: 2,
            pause: Duration::from_secs(5),
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_fails_in_a_row_is_left_in_peace_and_probed_by_one() {
        let breaker = breaker();
        assert_eq!(failed(breaker.permit().unwrap()), None);
        assert_eq!(answered(breaker.permit().unwrap()), None);
        assert_eq!(failed(breaker.permit().unwrap()), None);
        let late = breaker.permit().unwrap();
        assert_eq!(failed(breaker.permit().unwrap()), Some(Change::Down));
        assert!(breaker.permit().is_none());
        assert_eq!(failed(late), None);
        tokio::time::advance(Duration::from_secs(5)).await;
        let probe = breaker.permit().unwrap();
        assert!(breaker.permit().is_none());
        assert_eq!(failed(probe), None);
        assert!(breaker.permit().is_none());
        tokio::time::advance(Duration::from_secs(5)).await;
        // A probe whose peer has gone away tells nothing.
        drop(breaker.permit().unwrap());
        let probe = breaker.permit().unwrap();
        assert_eq!(answered(probe), Some(Change::Up));
        assert_eq!(answered(breaker.permit().unwrap()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_has_failed_comes_last_and_is_tried_by_one() {
        let breaker = breaker();
        assert!(!breaker.is_avoided());
        failed(breaker.permit().unwrap());
        assert!(breaker.is_avoided());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!breaker.is_avoided());
        assert!(breaker.is_avoided());
        answered(breaker.permit().unwrap());
        assert!(!breaker.is_avoided());
    }

    #[test]
    fn without_settings_nobody_is_left_in_peace() {
        let breaker = Breaker::new(None);
        for _ in 0..100 {
            assert_eq!(failed(breaker.permit().unwrap()), None);
        }
    }
}
