//! How many lines of one kind go into the log, so that no sender can fill it.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::Mutex;

/// The interval in which the same warning is logged once.
pub const WARN_EVERY: Duration = Duration::from_secs(10);

/// The lines about what writes have left behind. A client that goes away in the middle, again and
/// again, must not fill the log.
static LEFT_BEHIND: LazyLock<Throttle> = LazyLock::new(|| Throttle::new(10));

/// Returns how many lines about what a write has left behind were suppressed before this one, or
/// nothing to suppress this one.
pub fn left_behind() -> Option<u64> {
    LEFT_BEHIND.pass()
}

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
