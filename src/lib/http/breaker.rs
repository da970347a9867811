//! The circuit breaker of a target: after a number of failures in a row it is open, the target is
//! down, and only one call at a time probes whether it answers again.
//!
//! A target is also down, but called, while it fails: no connection to it can be opened, or calls
//! that differ fail one after the other, whether or not another target answers in its place.

use std::time::Duration;

use tokio::time::Instant;

use super::health::{CallDigest, Failures};
use crate::config;
use crate::observe::changes::{Change, ChangeLog};
use crate::sync::Mutex;

/// The circuit breaker of one target.
#[derive(Debug, Default)]
pub struct Breaker {
    settings: Option<config::Breaker>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Failures in a row.
    failures: Failures,
    /// While the breaker is open: when the next probe may be sent.
    down_until: Option<Instant>,
    /// When the breaker last opened.
    opened_at: Option<Instant>,
    /// Since when it fails.
    failing_since: Option<Instant>,
    /// Since when another target answers in its place.
    replaced_since: Option<Instant>,
    /// When it last gave an answer that was not left to another target.
    accepted_at: Option<Instant>,
    /// While the breaker is open: the pause before the next probe.
    pause: Duration,
    /// Whether a probe is in flight.
    is_probing: bool,
    /// After a failure: until when other targets are tried first.
    deferred_until: Option<Instant>,
    /// When any call last had an answer.
    answered_at: Option<Instant>,
    /// When a connection that several calls may have shared was last lost.
    lost_at: Option<Instant>,
    log: ChangeLog,
}

/// How long other targets are tried first where no pause is configured.
const DEFAULT_PAUSE: Duration = Duration::from_secs(5);

/// The first pause of a target that is down. It doubles up to the configured one. A restart of a
/// backend takes about as long, and mail must not wait longer than the restart.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

impl Breaker {
    /// Makes a closed breaker. Without settings it never opens.
    pub fn new(settings: Option<config::Breaker>) -> Self {
        Self {
            settings,
            state: Mutex::default(),
        }
    }

    /// Returns the permit for a call, unless the target is down. While it is down, the permit is
    /// that of the one probe, and the next one is given out only after this one is dropped.
    pub fn permit(&self) -> Option<Permit<'_>> {
        let mut state = self.state.lock();
        let is_probe = match state.down_until {
            None => false,
            Some(until) if state.is_probing || Instant::now() < until => return None,
            Some(_) => true,
        };
        state.is_probing |= is_probe;
        Some(Permit {
            breaker: self,
            is_probe,
        })
    }

    /// Returns whether there is no permit for a call at this moment.
    pub fn would_reject(&self) -> bool {
        let state = self.state.lock();
        let is_down = |until| state.is_probing || Instant::now() < until;
        state.down_until.is_some_and(is_down)
    }

    /// Returns whether other targets are to be tried first, because this one has failed lately.
    ///
    /// After the pause one call is told to try it first; the pause begins again for all others, so
    /// that they do not all wait for a target that may still be failing.
    pub fn is_deferred(&self) -> bool {
        let mut state = self.state.lock();
        let Some(until) = state.deferred_until else {
            return false;
        };
        let now = Instant::now();
        if now >= until {
            state.deferred_until = Some(now + self.pause());
        }
        now < until
    }

    /// Returns whether any call had an answer within this time.
    pub fn has_answered_within(&self, time: Duration) -> bool {
        let answered_at = self.state.lock().answered_at;
        answered_at.is_some_and(|answered_at| answered_at.elapsed() < time)
    }

    /// Returns when the target went down, unless it is up.
    pub fn down_since(&self) -> Option<Instant> {
        self.state.lock().down_since()
    }

    /// Records at the end of a call whether another target has answered in place of this one, which
    /// failed at this moment. It is down if the failure was that of its connection, or if those in a
    /// row are evidence against it: until its next answer, or where it was replaced, until the next that
    /// is not left to another target. A change is logged under the lock, as in `record_success`.
    pub fn record_failing(
        &self,
        failed_at: Instant,
        is_unreachable: bool,
        is_replaced: bool,
        on_change: impl FnOnce(Change),
    ) {
        let mut state = self.state.lock();
        let up_at = match is_replaced {
            true => state.accepted_at,
            false => state.answered_at,
        };
        if up_at.is_some_and(|at| at > failed_at) {
            return;
        }
        let was_down = state.down_since().is_some();
        if !was_down && !is_unreachable && !state.failures.are_evidence() {
            return;
        }
        if is_replaced {
            state.replaced_since.get_or_insert(failed_at);
        } else if !was_down {
            state.failing_since = state.failures.first_at.or(Some(failed_at));
        }
        if let Some(change) = state.log.down_again(was_down) {
            on_change(change);
        }
    }

    fn pause(&self) -> Duration {
        self.settings
            .map_or(DEFAULT_PAUSE, |settings| settings.pause)
    }
}

impl State {
    fn down_since(&self) -> Option<Instant> {
        let open_since = self.down_until.and(self.opened_at);
        let since = [open_since, self.failing_since, self.replaced_since];
        since.into_iter().flatten().min()
    }
}

/// The permit for one call. Dropped without a record, as when Postfix goes away during the call, it
/// leaves the breaker as it is.
#[derive(Debug)]
pub struct Permit<'b> {
    breaker: &'b Breaker,
    is_probe: bool,
}

impl Permit<'_> {
    /// Records an answer, and whether it was left to another target, as that of a lookup with 500
    /// is. A change is logged under the lock, so that lines come in the order of the changes.
    pub fn record_success(self, is_accepted: bool, on_change: impl FnOnce(Change)) {
        let mut state = self.breaker.state.lock();
        let was_down = state.down_since().is_some();
        let now = Some(Instant::now());
        state.failures = Failures::default();
        state.failing_since = None;
        state.deferred_until = None;
        state.down_until = None;
        state.answered_at = now;
        if is_accepted {
            state.replaced_since = None;
            state.accepted_at = now;
        }
        if was_down
            && state.down_since().is_none()
            && let Some(change) = state.log.up()
        {
            on_change(change);
        }
    }

    /// Records the loss of a connection that other calls may have shared. All calls that began
    /// before it was lost count as one failure: with HTTP/2, one lost connection can end more calls
    /// than the number of failures that opens the breaker.
    pub fn record_lost_connection(
        self,
        call: CallDigest,
        began: Instant,
        on_change: impl FnOnce(Change),
    ) {
        let mut state = self.breaker.state.lock();
        if !self.is_probe && state.lost_at.is_some_and(|lost_at| began <= lost_at) {
            return;
        }
        state.lost_at = Some(Instant::now());
        drop(state);
        self.record_failure(call, on_change);
    }

    /// Records the failure of a call, and logs a change as `record_success` does.
    pub fn record_failure(self, call: CallDigest, on_change: impl FnOnce(Change)) {
        let mut state = self.breaker.state.lock();
        state.deferred_until = Some(Instant::now() + self.breaker.pause());
        state.failures.add(call);
        let Some(settings) = self.breaker.settings else {
            return;
        };
        if state.failures.count < settings.failures {
            return;
        }
        let was_down = state.down_since().is_some();
        let was_closed = state.down_until.is_none();
        // Calls that began before the target went down fail for the same cause as those that opened
        // the breaker, so only a probe makes the pause longer.
        if was_closed || self.is_probe {
            let now = Instant::now();
            let pause = match was_closed {
                true => FIRST_PAUSE,
                false => state.pause * 2,
            };
            state.pause = pause.min(settings.pause);
            state.down_until = Some(now + state.pause);
            if was_closed {
                state.opened_at = Some(now);
            }
        }
        if let Some(change) = state.log.down_again(was_down) {
            on_change(change);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.state.lock().is_probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(permit: Permit<'_>) -> Option<Change> {
        let mut logged = None;
        permit.record_success(true, |change| logged = Some(change));
        logged
    }

    fn failed(permit: Permit<'_>) -> Option<Change> {
        failed_with(0, permit)
    }

    fn failed_with(call: CallDigest, permit: Permit<'_>) -> Option<Change> {
        let mut logged = None;
        permit.record_failure(call, |change| logged = Some(change));
        logged
    }

    /// Ends the call that failed last, without an answer of another target.
    fn failing(breaker: &Breaker, is_unreachable: bool) -> Option<Change> {
        let mut logged = None;
        breaker.record_failing(Instant::now(), is_unreachable, false, |change| {
            logged = Some(change);
        });
        logged
    }

    const DOWN: Option<Change> = Some(Change::Down { suppressed: 0 });

    fn breaker() -> Breaker {
        Breaker::new(Some(config::Breaker {
            failures: 2,
            pause: Duration::from_secs(5),
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_fails_in_a_row_is_down_and_probed_by_one_after_each_pause() {
        let breaker = breaker();
        assert_eq!(failed(breaker.permit().unwrap()), None);
        assert_eq!(answered(breaker.permit().unwrap()), None);
        assert_eq!(failed(breaker.permit().unwrap()), None);
        let late = breaker.permit().unwrap();
        assert_eq!(breaker.down_since(), None);
        assert_eq!(failed(breaker.permit().unwrap()), DOWN);
        let since = Some(Instant::now());
        assert_eq!(failed(late), None);
        for pause in [500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            tokio::time::advance(Duration::from_millis(pause - 1)).await;
            assert!(breaker.permit().is_none(), "{pause}");
            tokio::time::advance(Duration::from_millis(1)).await;
            let probe = breaker.permit().unwrap();
            assert!(breaker.permit().is_none());
            assert_eq!(failed(probe), None);
            assert_eq!(breaker.down_since(), since);
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        // A probe whose peer has gone away tells nothing.
        drop(breaker.permit().unwrap());
        let probe = breaker.permit().unwrap();
        assert_eq!(answered(probe), Some(Change::Up));
        assert_eq!(breaker.down_since(), None);
        assert_eq!(answered(breaker.permit().unwrap()), None);
        // After an answer the first pause is short again.
        failed(breaker.permit().unwrap());
        failed(breaker.permit().unwrap());
        tokio::time::advance(FIRST_PAUSE).await;
        assert!(breaker.permit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_lost_with_one_connection_are_one_failure() {
        let breaker = breaker();
        let lost = |began| {
            let mut logged = None;
            let permit = breaker.permit().unwrap();
            permit.record_lost_connection(0, began, |change| logged = Some(change));
            logged
        };
        let first = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        for _ in 0..100 {
            assert_eq!(lost(first), None);
        }
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(lost(Instant::now()), DOWN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_goes_down_and_up_again_does_not_fill_the_log() {
        let breaker = breaker();
        let mut lines = Vec::new();
        for _ in 0..30 {
            lines.extend(failed(breaker.permit().unwrap()));
            lines.extend(failed(breaker.permit().unwrap()));
            tokio::time::advance(FIRST_PAUSE).await;
            lines.extend(answered(breaker.permit().unwrap()));
        }
        // 15 s, the first line of which is at once.
        let suppressed = 19;
        let expected = [DOWN, Some(Change::Up), Some(Change::Down { suppressed })];
        assert_eq!(
            lines[..3].iter().copied().map(Some).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(lines[3..], [Change::Up]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_stays_down_is_logged_as_down_in_the_end() {
        let breaker = breaker();
        let mut lines = Vec::new();
        for _ in 0..2 {
            lines.extend(failed(breaker.permit().unwrap()));
            lines.extend(failed(breaker.permit().unwrap()));
            tokio::time::advance(FIRST_PAUSE).await;
            lines.extend(answered(breaker.permit().unwrap()));
        }
        failed(breaker.permit().unwrap());
        lines.extend(failed(breaker.permit().unwrap()));
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(5)).await;
            lines.extend(failed(breaker.permit().unwrap()));
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        lines.extend(answered(breaker.permit().unwrap()));
        let again = Change::Down { suppressed: 1 };
        let expected = [DOWN, Some(Change::Up), Some(again), Some(Change::Up)];
        assert_eq!(lines.into_iter().map(Some).collect::<Vec<_>>(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_another_stands_in_for_is_down_until_its_next_good_answer() {
        let breaker = breaker();
        let replaced = |at| {
            let mut logged = None;
            breaker.record_failing(at, true, true, |change| logged = Some(change));
            logged
        };
        let first = Instant::now();
        failed(breaker.permit().unwrap());
        breaker.record_failing(first, false, true, |_| {
            unreachable!("one key is no evidence")
        });
        assert_eq!(replaced(first), DOWN);
        assert_eq!(breaker.down_since(), Some(first));
        assert!(breaker.permit().is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        // That the breaker opens is no second line.
        assert_eq!(failed(breaker.permit().unwrap()), None);
        assert_eq!(replaced(Instant::now()), None);
        assert_eq!(breaker.down_since(), Some(first));
        tokio::time::advance(FIRST_PAUSE).await;
        // A 500 closes the breaker, and another target answers still.
        let mut logged = None;
        let permit = breaker.permit().unwrap();
        permit.record_success(false, |change| logged = Some(change));
        assert_eq!((logged, breaker.down_since()), (None, Some(first)));
        tokio::time::advance(FIRST_PAUSE).await;
        assert_eq!(answered(breaker.permit().unwrap()), Some(Change::Up));
        // A call that failed before that answer ends after it.
        assert_eq!(replaced(first), None);
        assert_eq!(breaker.down_since(), None);
        // Too soon for another line; it comes with a later failure.
        tokio::time::advance(FIRST_PAUSE).await;
        assert_eq!(replaced(Instant::now()), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(replaced(Instant::now()), DOWN);
        assert_eq!(answered(breaker.permit().unwrap()), Some(Change::Up));
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_has_failed_comes_last_and_is_tried_by_one() {
        let breaker = breaker();
        assert!(!breaker.is_deferred());
        failed(breaker.permit().unwrap());
        assert!(breaker.is_deferred());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!breaker.is_deferred());
        assert!(breaker.is_deferred());
        answered(breaker.permit().unwrap());
        assert!(!breaker.is_deferred());
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_to_which_there_is_no_connection_is_down_at_once_until_any_answer() {
        let breaker = Breaker::new(None);
        let first = Instant::now();
        failed(breaker.permit().unwrap());
        assert_eq!(failing(&breaker, true), DOWN);
        tokio::time::advance(Duration::from_secs(20)).await;
        failed(breaker.permit().unwrap());
        assert_eq!(failing(&breaker, true), None);
        assert_eq!(breaker.down_since(), Some(first));
        let mut logged = None;
        let permit = breaker.permit().unwrap();
        permit.record_success(false, |change| logged = Some(change));
        assert_eq!((logged, breaker.down_since()), (Some(Change::Up), None));
        // A call that failed before that answer ends after it.
        breaker.record_failing(first, true, false, |_| unreachable!());
        assert_eq!(breaker.down_since(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn different_calls_that_fail_in_a_row_make_a_target_down_since_the_first() {
        let breaker = Breaker::new(None);
        let fail = |call| {
            failed_with(call, breaker.permit().unwrap());
            failing(&breaker, false)
        };
        assert_eq!([1, 2].map(fail), [None; 2]);
        answered(breaker.permit().unwrap());
        let first = Instant::now();
        for call in [1, 2] {
            assert_eq!(fail(call), None);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(breaker.down_since(), None);
        assert_eq!(fail(3), DOWN);
        assert_eq!(breaker.down_since(), Some(first));
        assert_eq!(answered(breaker.permit().unwrap()), Some(Change::Up));
    }

    #[test]
    fn without_settings_no_target_is_ever_skipped() {
        let breaker = Breaker::new(None);
        for _ in 0..100 {
            assert_eq!(failed(breaker.permit().unwrap()), None);
        }
    }
}
