//! The engines of the store, all of one shape.

use std::sync::Arc;

use super::error::StoreError;
use super::redis::{LIMITS, Redis};
use crate::config::{self, RedisUrl};
use crate::limits::{Decision, Question, Usage};

/// What keeps the use of limits beyond this process. Each engine bounds the time of a question.
#[derive(Debug)]
pub(super) enum Engine {
    Redis(Redis),
}

impl Engine {
    /// Makes the engine of a program, if the settings name one that there is.
    pub(super) fn new(
        settings: &config::Store,
        _program: &str,
    ) -> Result<Option<Self>, StoreError> {
        Ok(match settings {
            config::Store::Sqlite { .. } => None,
            config::Store::Redis {
                url,
                prefix,
                timeout,
            } => {
                let url = RedisUrl::parse(url.expose());
                let url = url.map_err(|why| StoreError(format!("its URL {why}")))?;
                Some(Self::Redis(Redis::new(&url, prefix, *timeout, LIMITS)?))
            }
        })
    }

    /// Opens the store for the service.
    pub(super) async fn open(&self) -> Result<(), StoreError> {
        match self {
            Self::Redis(redis) => redis.open().await,
        }
    }

    /// Answers a question.
    pub(super) async fn decide(&self, question: &Arc<Question>) -> Result<Decision, StoreError> {
        match self {
            Self::Redis(redis) => redis.decide(question).await,
        }
    }

    /// Returns the use of the accounts of a table, or of one account.
    pub(super) async fn usage(
        &self,
        table: &str,
        account: Option<&str>,
    ) -> Result<Vec<Usage>, StoreError> {
        match self {
            Self::Redis(redis) => redis.usage(table, account).await,
        }
    }

    /// Forgets what an account has used, and returns how many limits it had used.
    pub(super) async fn reset(&self, table: &str, account: &str) -> Result<usize, StoreError> {
        match self {
            Self::Redis(redis) => redis.reset(table, account).await,
        }
    }
}
