//! How many lines of one kind go into the log, so that no sender can fill it.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::log::WARN_EVERY;
use crate::sync::Mutex;

/// Lets a number of lines through in any ten seconds, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the last lines were let through, the oldest first.
    passed: VecDeque<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// Makes a throttle for so many lines.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            state: Mutex::default(),
        }
    }

    /// Returns how many lines were suppressed before this one, or nothing to suppress this one.
    pub fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let is_old = |at: &Instant| now.duration_since(*at) >= WARN_EVERY;
        if state.passed.front().is_some_and(is_old) {
            state.passed.pop_front();
        }
        if state.passed.len() >= self.most {
            state.suppressed += 1;
            return None;
        }
        state.passed.push_back(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_ten_seconds_have_more_lines_than_may_pass() {
        let throttle = Throttle::new(2);
        let after = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        assert_eq!(throttle.pass(), Some(0));
        after(6).await;
        assert_eq!(throttle.pass(), Some(0));
        assert_eq!(throttle.pass(), None);
        after(3).await;
        assert_eq!(throttle.pass(), None);
        // The first line is ten seconds old, the second is not.
        after(1).await;
        assert_eq!(throttle.pass(), Some(2));
        assert_eq!(throttle.pass(), None);
        after(6).await;
        assert_eq!(throttle.pass(), Some(1));
        after(100).await;
        assert_eq!(throttle.pass(), Some(0));
        assert_eq!(throttle.pass(), Some(0));
        assert_eq!(throttle.pass(), None);
    }
}
