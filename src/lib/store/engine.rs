//! The engines of the store, all of one shape.

use std::sync::Arc;

use super::error::StoreError;
use super::redis::{LIMITS, Redis};
use super::sqlite::Sqlite;
use crate::config::{self, RedisUrl};
use crate::limits::{Decision, Question, Usage};

/// What keeps the use of limits beyond this process. Each engine bounds the time of a question.
#[derive(Debug)]
pub(super) enum Engine {
    /// An SQLite file of this host.
    Sqlite(Sqlite),
    /// A Redis or Valkey for all hosts.
    Redis(Box<Redis>),
}

impl Engine {
    /// Makes the engine of a program.
    pub(super) fn new(settings: &config::Store, program: &str) -> Result<Self, StoreError> {
        Ok(match settings {
            config::Store::Sqlite { path } => Self::Sqlite(Sqlite::new(path.as_deref(), program)?),
            config::Store::Redis {
                url,
                prefix,
                timeout,
            } => {
                let url = RedisUrl::parse(url.expose());
                let url = url.map_err(|why| StoreError(format!("its URL {why}")))?;
                let redis = Redis::new(&url, prefix, *timeout, LIMITS)?;
                Self::Redis(Box::new(redis))
            }
        })
    }

    /// Opens the store for the service.
    pub(super) async fn open(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.open().await,
            Self::Redis(redis) => redis.open().await,
        }
    }

    /// Answers a question.
    pub(super) async fn decide(&self, question: &Arc<Question>) -> Result<Decision, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.decide(question).await,
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
            Self::Sqlite(sqlite) => sqlite.usage(table, account).await,
            Self::Redis(redis) => redis.usage(table, account).await,
        }
    }

    /// Forgets what an account has used, and returns how many limits it had used.
    pub(super) async fn reset(&self, table: &str, account: &str) -> Result<usize, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.reset(table, account).await,
            Self::Redis(redis) => redis.reset(table, account).await,
        }
    }

    /// Closes the store at the end of the program.
    pub(super) async fn close(&self) {
        match self {
            // What could not be closed is whole all the same.
            Self::Sqlite(sqlite) => drop(sqlite.close().await),
            Self::Redis(_) => {}
        }
    }
}
