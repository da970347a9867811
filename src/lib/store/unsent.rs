//! Ends of reservations that the engine has not confirmed: they are asked again once it answers.
//!
//! Without this, a refusal during an outage would be charged to the memory of this process alone, and
//! each outage would give an account its whole limit again.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use crate::limits::{Mode, Question};
use crate::sync::Mutex;

/// The most that are kept. Beyond that the oldest goes.
const MOST: usize = 1024;

/// The questions, the oldest first, each of which can be asked twice.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    questions: Mutex<VecDeque<Arc<Question>>>,
    /// Held by the task that asks them.
    asking: AsyncMutex<()>,
}

impl Unsent {
    /// Keeps a question.
    pub(super) fn add(&self, question: Arc<Question>) {
        let mut questions = self.questions.lock();
        if questions.len() >= MOST {
            // What is not released expires. What is not charged would be lost.
            let release = |question: &Arc<Question>| matches!(question.mode, Mode::Release(_));
            let oldest = questions.iter().position(release).unwrap_or_default();
            questions.remove(oldest);
        }
        questions.push_back(question);
    }

    /// Returns whether there is any.
    pub(super) fn has_any(&self) -> bool {
        !self.questions.lock().is_empty()
    }

    /// Waits until nobody else asks them.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.asking.lock().await
    }

    /// Returns the oldest, if there is any.
    pub(super) fn take(&self) -> Option<Taken<'_>> {
        let question = self.questions.lock().pop_front()?;
        Some(Taken {
            unsent: self,
            question: Some(question),
        })
    }
}

/// A question that is being asked. Dropped without an answer, it is kept.
pub(super) struct Taken<'u> {
    unsent: &'u Unsent,
    question: Option<Arc<Question>>,
}

impl Taken<'_> {
    /// Returns the question.
    pub(super) fn question(&self) -> Option<Arc<Question>> {
        self.question.clone()
    }

    /// Notes that it has its answer.
    pub(super) fn answered(mut self) {
        self.question = None;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(question) = self.question.take() {
            self.unsent.questions.lock().push_front(question);
        }
    }
}
