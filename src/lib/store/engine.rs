//! The engines of the store, all of one shape.

use std::sync::Arc;

use super::error::StoreError;
use crate::config;
use crate::limits::{Decision, Question, Usage};

/// What keeps the use of limits beyond this process. Each engine bounds the time of a question.
#[derive(Debug)]
pub(super) enum Engine {}

impl Engine {
    /// Makes the engine of a program, if the settings name one that there is.
    pub(super) fn new(_: &config::Store, _program: &str) -> Result<Option<Self>, StoreError> {
        Ok(None)
    }

    /// Opens the store for the service.
    pub(super) async fn open(&self) -> Result<(), StoreError> {
        match *self {}
    }

    /// Answers a question.
    pub(super) async fn decide(&self, _: &Arc<Question>) -> Result<Decision, StoreError> {
        match *self {}
    }

    /// Returns the use of the accounts of a table, or of one account.
    pub(super) async fn usage(&self, _: &str, _: Option<&str>) -> Result<Vec<Usage>, StoreError> {
        match *self {}
    }

    /// Forgets what an account has used, and returns how many limits it had used.
    pub(super) async fn reset(&self, _: &str, _: &str) -> Result<usize, StoreError> {
        match *self {}
    }
}
