//! Units that are reserved, and released if they were not used.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::Store;
use super::clock::now_ms;
use crate::limits::{Decision, Mode, Part, Question};

/// Units that a question has reserved. Dropped without `keep`, they are released.
///
/// What this process cannot release, because it was killed or the store does not answer, expires
/// (`limits::held`).
pub struct Reserved {
    store: Arc<Store>,
    id: u64,
    /// What reserved them; none once that has ended.
    question: Option<Question>,
    /// Whether they were counted in the memory of this process, where they are kept or released
    /// then.
    is_in_memory: bool,
}

impl Store {
    /// Reserves the units of all parts if every limit of the table has room, and returns what it has
    /// reserved.
    pub async fn reserve(
        self: &Arc<Self>,
        table: Arc<str>,
        parts: Vec<Part>,
    ) -> (Decision, Option<Reserved>) {
        let id = self.ids.next();
        let question = Arc::new(Question {
            table,
            message: None,
            parts,
            mode: Mode::Reserve(id),
        });
        let (decision, is_in_memory) = self.decide_somewhere(&question).await;
        let reserved = decision.refusal.is_none().then(|| Reserved {
            store: Arc::clone(self),
            id,
            question: Some(Arc::unwrap_or_clone(question)),
            is_in_memory,
        });
        (decision, reserved)
    }

    async fn end(&self, question: Question, is_in_memory: bool) {
        let question = Arc::new(question);
        let is_done = match &self.engine {
            Some(engine) if !is_in_memory => self.ask(engine.decide(&question)).await.is_some(),
            _ => false,
        };
        // What the engine cannot count is counted here. What it cannot release is not here.
        if !is_done {
            self.memory.lock().decide(&question, now_ms());
        }
    }
}

impl Reserved {
    /// Charges the units.
    pub async fn keep(mut self) {
        let mode = Mode::Keep(self.id);
        self.end(mode).await;
    }

    /// Releases the units.
    pub async fn release(mut self) {
        let mode = Mode::Release(self.id);
        self.end(mode).await;
    }

    async fn end(&mut self, mode: Mode) {
        if let Some(question) = self.question.take() {
            let (store, is_in_memory) = (Arc::clone(&self.store), self.is_in_memory);
            let question = Question { mode, ..question };
            // A task, so that it is done even if nobody waits for it any more.
            let task = tokio::spawn(async move { store.end(question, is_in_memory).await });
            let _ = task.await;
        }
    }
}

impl fmt::Debug for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reserved = f.debug_struct("Reserved");
        reserved.field("question", &self.question);
        reserved.finish_non_exhaustive()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let (Some(question), Ok(runtime)) = (self.question.take(), Handle::try_current()) {
            let (store, is_in_memory) = (Arc::clone(&self.store), self.is_in_memory);
            let mode = Mode::Release(self.id);
            let question = Question { mode, ..question };
            runtime.spawn(async move { store.end(question, is_in_memory).await });
        }
    }
}
