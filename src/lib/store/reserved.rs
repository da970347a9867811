//! Units that are reserved, and given back if they were not used.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::Store;
use super::clock::now_ms;
use crate::limits::{Decision, Mode, Question};

/// Units that a question has reserved. Dropped without `keep`, they are given back.
///
/// What this process cannot give back because it was killed stays used until it has left its
/// window: a limit is never exceeded, and somebody who is at the limit waits a little longer.
pub struct Reserved {
    store: Arc<Store>,
    /// What gives them back; none once that is done, or not to be done.
    release: Option<Question>,
    /// Whether they were counted in the memory of this process. They are given back where they were
    /// counted: units of others must not be.
    is_in_memory: bool,
}

impl Store {
    /// Answers a question whose mode is `Reserve`, and returns what it has reserved.
    pub async fn reserve(self: &Arc<Self>, question: Question) -> (Decision, Option<Reserved>) {
        let question = Arc::new(question);
        let (decision, is_in_memory) = self.decide_somewhere(&question).await;
        let reserved = decision.refusal.is_none().then(|| Reserved {
            store: Arc::clone(self),
            release: Some(Question {
                mode: Mode::Release(decision.at_ms),
                ..Arc::unwrap_or_clone(question)
            }),
            is_in_memory,
        });
        (decision, reserved)
    }

    async fn release(&self, question: Question, is_in_memory: bool) {
        let question = Arc::new(question);
        match &self.engine {
            Some(engine) if !is_in_memory => {
                // If it has no answer, they stay used.
                let _ = self.ask(engine.decide(&question)).await;
            }
            _ => {
                self.memory.lock().decide(&question, now_ms());
            }
        }
    }
}

impl Reserved {
    /// Leaves the units used.
    pub fn keep(mut self) {
        self.release = None;
    }

    /// Gives the units back.
    pub async fn give_back(mut self) {
        if let Some(release) = self.release.take() {
            let (store, is_in_memory) = (Arc::clone(&self.store), self.is_in_memory);
            // A task, so that it is done even if nobody waits for it any more.
            let task = tokio::spawn(async move { store.release(release, is_in_memory).await });
            let _ = task.await;
        }
    }
}

impl fmt::Debug for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reserved = f.debug_struct("Reserved");
        reserved.field("release", &self.release);
        reserved.finish_non_exhaustive()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let (Some(release), Ok(runtime)) = (self.release.take(), Handle::try_current()) {
            let (store, is_in_memory) = (Arc::clone(&self.store), self.is_in_memory);
            runtime.spawn(async move { store.release(release, is_in_memory).await });
        }
    }
}
