//! Deadlines of calls, with timers that are reused.
//!
//! Setting a timer takes a lock and, in an idle loop, wakes that loop once more. Moving a running
//! timer to a later moment costs next to nothing.

use std::pin::Pin;

use tokio::select;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::sync::Mutex;

/// The timers of one event loop that run without a call that waits for them.
#[derive(Debug, Default)]
pub struct Timers(Mutex<Vec<Pin<Box<Sleep>>>>);

impl Timers {
    /// Waits for a future until a deadline. The future is borrowed: by value, it would take room in
    /// the caller and again in this future.
    pub async fn until<F: Future>(
        &self,
        deadline: Instant,
        awaited: Pin<&mut F>,
    ) -> Option<F::Output> {
        let left = self.0.lock().pop();
        let mut timer = match left {
            Some(mut timer) => {
                timer.as_mut().reset(deadline);
                timer
            }
            None => Box::pin(sleep_until(deadline)),
        };
        let output = select! {
            biased;
            output = awaited => Some(output),
            () = &mut timer => None,
        };
        self.0.lock().push(timer);
        output
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_used_again_goes_off_in_time() {
        let timers = Timers::default();
        let start = Instant::now();
        // Later, earlier, as it was, and over already.
        for milliseconds in [50, 200, 60, 60, 0] {
            let begun = Instant::now();
            let deadline = begun + MS * milliseconds;
            assert_eq!(timers.until(deadline, pin!(pending::<()>())).await, None);
            assert!((deadline..=deadline + MS).contains(&Instant::now()));
            assert_eq!(timers.0.lock().len(), 1);
        }
        assert!(start.elapsed() >= 370 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_in_time_is_not_cut_off_by_an_older_deadline() {
        let timers = Timers::default();
        for _ in 0..10 {
            let deadline = Instant::now() + 50 * MS;
            let work = async {
                tokio::time::sleep(40 * MS).await;
                7
            };
            assert_eq!(timers.until(deadline, pin!(work)).await, Some(7));
        }
        advance(100 * MS).await;
        let deadline = Instant::now() + 50 * MS;
        assert_eq!(timers.until(deadline, pin!(ready(8))).await, Some(8));
        assert_eq!(timers.0.lock().len(), 1);
    }
}
