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
    /// What reserves them.
    question: Arc<Question>,
    has_ended: bool,
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
        self.send_unsent().await;
        let id = self.ids.next();
        let question = Arc::new(Question {
            table,
            message: None,
            parts,
            mode: Mode::Reserve(id),
        });
        let permit = self.health.permit();
        // From here on there may be a reservation, whoever stops waiting for it.
        let mut reserved = Reserved {
            store: Arc::clone(self),
            id,
            question: Arc::clone(&question),
            has_ended: false,
            is_in_memory: self.engine.is_none() || permit.is_none(),
        };
        let answer = match (&self.engine, permit) {
            (Some(engine), Some(permit)) => self.ask_with(permit, engine.decide(&question)).await,
            _ => None,
        };
        let decision = match answer {
            Some(decision) => decision,
            None => {
                if !reserved.is_in_memory {
                    // The engine may answer it all the same, later.
                    self.unsent.add(reserved.end_with(Mode::Release(id)));
                    reserved.is_in_memory = true;
                }
                self.memory.lock().decide(&question, now_ms())
            }
        };
        if decision.refusal.is_some() {
            reserved.has_ended = true;
            return (decision, None);
        }
        (decision, Some(reserved))
    }

    /// Ends a reservation.
    async fn end(&self, question: Arc<Question>, is_in_memory: bool) -> Decision {
        if let Some(engine) = &self.engine
            && !is_in_memory
        {
            if let Some(decision) = self.ask(engine.decide(&question)).await {
                return decision;
            }
            self.unsent.add(Arc::clone(&question));
        }
        // Until the engine is back, the limit holds here.
        self.memory.lock().decide(&question, now_ms())
    }
}

impl Reserved {
    /// Charges the units, and returns what limits say that only count.
    pub async fn keep(mut self) -> Option<Decision> {
        let mode = Mode::Keep(self.id);
        self.end(mode).await
    }

    /// Releases the units.
    pub async fn release(mut self) {
        let mode = Mode::Release(self.id);
        self.end(mode).await;
    }

    async fn end(&mut self, mode: Mode) -> Option<Decision> {
        let question = self.end_with(mode);
        self.has_ended = true;
        let (store, is_in_memory) = (Arc::clone(&self.store), self.is_in_memory);
        // A task, so that it is done even if nobody waits for it any more.
        let task = tokio::spawn(async move { store.end(question, is_in_memory).await });
        task.await.ok()
    }

    /// Returns the question that ends the reservation.
    fn end_with(&self, mode: Mode) -> Arc<Question> {
        Arc::new(Question {
            mode,
            ..Question::clone(&self.question)
        })
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
        if self.has_ended {
            return;
        }
        let release = self.end_with(Mode::Release(self.id));
        if self.is_in_memory {
            self.store.memory.lock().decide(&release, now_ms());
            return;
        }
        // At the end of the program there may be no task any more; `close` sends it then.
        self.store.unsent.add(release);
        if let Ok(runtime) = Handle::try_current() {
            let store = Arc::clone(&self.store);
            runtime.spawn(async move { store.send_unsent().await });
        }
    }
}
