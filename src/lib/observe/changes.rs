//! Changes between up and down, and which of them are logged.

use std::time::Duration;

use tokio::time::Instant;

/// The interval in which the log says once that something is down.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A change of state to be logged: of a target, or of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is down.
    Down {
        /// How often it has gone down since the last such line.
        suppressed: usize,
    },
    /// It answers again.
    Up,
}

/// Decides which changes are logged, so that what goes up and down does not fill the log.
#[derive(Debug, Default)]
pub struct ChangeLog {
    /// When a line last said that it is down.
    down_at: Option<Instant>,
    /// Whether the last line said so.
    logged_down: bool,
    /// How often it has gone down since that line.
    suppressed: usize,
}

impl ChangeLog {
    /// Returns the line of something that goes down, unless there was one within the interval.
    pub fn down(&mut self) -> Option<Change> {
        let now = Instant::now();
        if self.down_at.is_some_and(|at| now - at < LOG_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.down_at = Some(now);
        self.logged_down = true;
        let suppressed = std::mem::take(&mut self.suppressed);
        Some(Change::Down { suppressed })
    }

    /// Returns the line that was suppressed, once its interval is over, for what has stayed down:
    /// otherwise the log would say "up" of what is down for good.
    pub fn still_down(&mut self) -> Option<Change> {
        let is_logged = self.logged_down || self.suppressed == 0;
        let change = if is_logged { None } else { self.down() };
        match change {
            Some(Change::Down { suppressed }) => Some(Change::Down {
                suppressed: suppressed - 1,
            }),
            _ => {
                // `down` has counted a change that is none.
                self.suppressed -= usize::from(!is_logged);
                None
            }
        }
    }

    /// Returns the line of something that is down, whether or not it was down before.
    pub fn down_again(&mut self, was_down: bool) -> Option<Change> {
        match was_down {
            true => self.still_down(),
            false => self.down(),
        }
    }

    /// Returns an "up" for each "down" that was logged, so that the last line is always right.
    pub fn up(&mut self) -> Option<Change> {
        std::mem::take(&mut self.logged_down).then_some(Change::Up)
    }
}
