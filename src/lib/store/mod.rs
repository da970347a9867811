//! The store: where the use of limits is kept beyond this process.
//!
//! A store that fails never stops mail and never opens the gate: until its engine is back
//! (`health`), this process counts in its own memory. That is kept for the next time: an engine that
//! fails again and again would otherwise give an account its whole limit each time.

mod clock;
mod emptied;
mod engine;
pub mod error;
pub mod health;
mod ids;
pub mod redis;
pub mod reserved;
pub mod shared;
pub mod sqlite;
mod unsent;

use std::cmp::Ordering;
use std::sync::Arc;

use tokio::time::Instant;

use crate::config;
use crate::limits::memory::Memory;
use crate::limits::{Decision, Mode, Question, Usage};
use crate::observe::meter::StoreMeter;
use crate::sync::Mutex;
use clock::now_ms;
use emptied::Emptied;
use engine::Engine;
use health::{Health, Permit};
use ids::Ids;
use unsent::Unsent;

pub use error::StoreError;

/// The store of one program.
#[derive(Debug, Default)]
pub struct Store {
    /// None: the memory of this process alone.
    engine: Option<Engine>,
    health: Health,
    /// What was counted whenever the engine was down.
    memory: Mutex<Memory>,
    meter: Option<StoreMeter>,
    emptied: Emptied,
    ids: Ids,
    unsent: Unsent,
}

impl Store {
    /// Makes the store of a program, such as `policy`. It is opened by its first question, and an
    /// SQLite file is made by `open` alone.
    pub fn new(settings: &config::Store, program: &str) -> Result<Self, StoreError> {
        Ok(Self {
            engine: Some(Engine::new(settings, program)?),
            ..Self::default()
        })
    }

    /// Counts its questions here.
    pub fn with_meter(self, meter: StoreMeter) -> Self {
        Self {
            meter: Some(meter),
            ..self
        }
    }

    /// Opens the store for the service, which makes an SQLite file that is not there. A failure is
    /// logged, and the store is asked again by later questions.
    pub async fn open(&self) {
        if let Some(engine) = &self.engine {
            let _ = self.ask(engine.open()).await;
        }
    }

    /// Answers a question; if the store fails, from the memory of this process.
    pub async fn decide(&self, question: Question) -> Decision {
        self.decide_somewhere(&Arc::new(question)).await.0
    }

    /// Answers a question, and returns whether that was from the memory of this process.
    async fn decide_somewhere(&self, question: &Arc<Question>) -> (Decision, bool) {
        let answer = match &self.engine {
            Some(engine) => self.ask(engine.decide(question)).await,
            None => None,
        };
        match answer {
            Some(decision) => (decision, false),
            None => (self.memory.lock().decide(question, now_ms()), true),
        }
    }

    /// Asks the engine, unless it is down, and returns its answer, if there is one.
    async fn ask<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
        let permit = self.health.permit()?;
        self.ask_with(permit, answer).await
    }

    async fn ask_with<T>(
        &self,
        permit: Permit<'_>,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Option<T> {
        let began = Instant::now();
        let answer = answer.await;
        if let Some(meter) = &self.meter {
            meter.question(began.elapsed());
        }
        match answer {
            Ok(answer) => {
                permit.record_answer();
                Some(answer)
            }
            Err(error) => {
                permit.record_failure(&error);
                None
            }
        }
    }

    /// Asks the engine, whether it was down or not, and returns why it has no answer.
    pub async fn fault(&self) -> Option<StoreError> {
        let nothing = Arc::new(Question {
            table: Arc::default(),
            message: None,
            parts: Vec::new(),
            mode: Mode::Peek,
        });
        self.engine.as_ref()?.decide(&nothing).await.err()
    }

    /// Returns the use of the accounts of a table, or of one account, from the store itself: those
    /// that have used most of their limit come first.
    pub async fn usage(
        &self,
        table: &str,
        account: Option<&str>,
    ) -> Result<Vec<Usage>, StoreError> {
        let mut usage = match &self.engine {
            Some(engine) => engine.usage(table, account).await?,
            None => self.memory.lock().usage(table, account, now_ms()),
        };
        usage.sort_by(by_share);
        Ok(usage)
    }

    /// Forgets what an account has used, and returns how many limits it had used.
    pub async fn reset(&self, table: &str, account: &str) -> Result<usize, StoreError> {
        match &self.engine {
            Some(engine) => engine.reset(table, account).await,
            None => Ok(self.memory.lock().reset(table, account)),
        }
    }

    /// Closes the store at the end of the program. A question after that opens it again.
    pub async fn close(&self) {
        self.send_unsent().await;
        // Another task may be asking the last of them.
        let _turn = self.unsent.turn().await;
        if let Some(engine) = &self.engine {
            engine.close().await;
        }
    }

    /// Asks the engine what it has not confirmed.
    async fn send_unsent(&self) {
        if let Some(engine) = &self.engine
            && self.unsent.has_any()
        {
            let _turn = self.unsent.turn().await;
            while let Some(taken) = self.unsent.take()
                && let Some(question) = taken.question()
                && self.ask(engine.decide(&question)).await.is_some()
            {
                taken.answered();
            }
        }
    }

    /// Returns whether the store answers.
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }
}

/// Orders the largest share of a limit first, then the largest use without a limit.
fn by_share(a: &Usage, b: &Usage) -> Ordering {
    let share = |usage: &Usage| usage.most.map(|most| usage.used as f64 / most as f64);
    let order = match (share(a), share(b)) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    let order = order.then(b.used.cmp(&a.used));
    order.then_with(|| (&a.account, &a.limit, a.window).cmp(&(&b.account, &b.limit, b.window)))
}
