//! Whether the store answers, and who may ask it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::error::StoreError;
use crate::observe::changes::{Change, ChangeLog};
use crate::sync::Mutex;

/// While the store is down, it is asked at most once in this time, by one question.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Whether the store answers.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Counts the changes between up and down. A question that began before a change says nothing
    /// about the time after it.
    changes: u64,
    /// While the store is down: who may ask it.
    down: Option<Down>,
    log: ChangeLog,
}

#[derive(Debug)]
struct Down {
    next_try: Instant,
    is_trying: bool,
}

impl Health {
    /// Returns the permit for a question to the store. While the store is down, only one question
    /// at a time has one, and one in a second.
    pub fn permit(&self) -> Option<Permit<'_>> {
        let mut state = self.0.lock();
        let changes = state.changes;
        let is_try = state.down.is_some();
        if let Some(down) = &mut state.down {
            let now = Instant::now();
            if down.is_trying || now < down.next_try {
                return None;
            }
            down.is_trying = true;
            down.next_try = now + TRY_EVERY;
        }
        Some(Permit {
            health: self,
            changes,
            is_try,
        })
    }

    /// Returns whether the store answered last.
    pub fn is_up(&self) -> bool {
        self.0.lock().down.is_none()
    }
}

/// The permit for one question. Dropped without a record, as when Postfix goes away meanwhile, it
/// leaves the health as it is.
#[derive(Debug)]
pub struct Permit<'h> {
    health: &'h Health,
    changes: u64,
    is_try: bool,
}

impl Permit<'_> {
    /// Returns whether the store is down, and this question finds out whether it is back.
    pub fn is_try(&self) -> bool {
        self.is_try
    }

    /// Records an answer.
    pub fn record_answer(self) {
        let mut state = self.health.0.lock();
        if state.changes == self.changes && state.down.is_some() {
            state.down = None;
            state.changes += 1;
            log(state.log.up(), None);
        }
    }

    /// Records a failure.
    pub fn record_failure(self, error: &StoreError) {
        let mut state = self.health.0.lock();
        if state.changes != self.changes {
            return;
        }
        if state.down.is_some() {
            log(state.log.still_down(), Some(error));
            return;
        }
        state.changes += 1;
        state.down = Some(Down {
            next_try: Instant::now() + TRY_EVERY,
            is_trying: false,
        });
        log(state.log.down(), Some(error));
    }
}

/// Logs a change, under the lock of the state: so the lines come in the order of the changes.
fn log(change: Option<Change>, error: Option<&StoreError>) {
    let meanwhile = "until it is back, this process counts in its memory and shares no answers";
    match (change, error) {
        (Some(Change::Down { suppressed: 0 }), Some(error)) => {
            warn!("store: {error}: {meanwhile}");
        }
        (Some(Change::Down { suppressed }), Some(error)) => warn!(
            "store: {error}: {meanwhile}; {suppressed} times down and up again since the last \
             such line"
        ),
        (Some(Change::Up), _) => info!("store: it is back, and what it has counted holds again"),
        _ => {}
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.health.0.lock();
        // The one who tries is the only one that has begun since the store went down.
        if state.changes == self.changes
            && let Some(down) = &mut state.down
        {
            down.is_trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A permit for a question, and its end.
    #[derive(Default)]
    struct Asked {
        health: Health,
    }

    impl Asked {
        fn answer(&self, permit: Permit<'_>) {
            permit.record_answer();
        }

        fn fail(&self, permit: Permit<'_>) {
            let error = StoreError("gone".to_owned());
            permit.record_failure(&error);
        }

        fn permit(&self) -> Option<Permit<'_>> {
            self.health.permit()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_down_is_asked_by_one_question_in_a_second() {
        let asked = Asked::default();
        asked.answer(asked.permit().unwrap());
        assert!(asked.health.is_up());
        asked.fail(asked.permit().unwrap());
        assert!(!asked.health.is_up());
        for _ in 0..5 {
            tokio::time::advance(TRY_EVERY - Duration::from_millis(1)).await;
            assert!(asked.permit().is_none());
            tokio::time::advance(Duration::from_millis(1)).await;
            let permit = asked.permit().unwrap();
            // The others do not wait for it, however long it takes.
            tokio::time::advance(TRY_EVERY * 3).await;
            assert!(asked.permit().is_none());
            asked.fail(permit);
            assert!(!asked.health.is_up());
            // A permit that is dropped is free for the next.
            drop(asked.permit().unwrap());
            tokio::time::advance(TRY_EVERY).await;
            asked.fail(asked.permit().unwrap());
        }
        tokio::time::advance(TRY_EVERY).await;
        asked.answer(asked.permit().unwrap());
        assert!(asked.health.is_up());
        assert!(asked.permit().is_some() && asked.permit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_began_before_a_change_says_nothing_about_the_time_after_it() {
        let asked = Asked::default();
        let [first, second, third, fourth] = std::array::from_fn(|_| asked.permit().unwrap());
        asked.fail(first);
        asked.fail(second);
        asked.answer(third);
        assert!(!asked.health.is_up());
        tokio::time::advance(TRY_EVERY).await;
        asked.answer(asked.permit().unwrap());
        asked.fail(fourth);
        assert!(asked.health.is_up());
    }
}
