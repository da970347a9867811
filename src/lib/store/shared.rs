//! The answers that all hosts share, where the store is a Redis.
//!
//! They have the store's connections and its health: while it is down there are none, and a look-up
//! may be what finds it back.

use std::time::Duration;

use super::Store;
use super::engine::Engine;
use super::redis::Redis;
use super::redis::shared::{First, Generation, Shared, new_generation};

impl Store {
    /// Returns what is kept under a name of a table, such as `socketmap.aliases`; none while the
    /// store is down.
    pub async fn look_up(&self, table: &str, name: &str) -> Option<Shared> {
        let redis = self.redis()?;
        let permit = self.health.permit()?;
        let first = First {
            try_out: permit.is_try(),
            begin: self.emptied.generation(table),
        };
        let shared = self
            .ask_with(permit, redis.look_up(table, name, first))
            .await?;
        if let Some(generation) = first.begin {
            self.emptied.has_begun(table, generation);
        }
        Some(shared)
    }

    /// Keeps an answer that was asked for in a generation of its table.
    pub async fn keep(
        &self,
        table: &str,
        name: &str,
        generation: &Generation,
        answer: &[u8],
        lifetime: Duration,
    ) {
        // That it can be kept does not show that a question about limits would be answered.
        if !self.is_up() {
            return;
        }
        if let (Some(redis), Some(permit)) = (self.redis(), self.health.permit()) {
            let kept = redis.keep(table, name, generation, answer, lifetime);
            self.ask_with(permit, kept).await;
        }
    }

    /// Empties a table: from here on, nothing of what it has now is used by this process. `begin`
    /// has to follow, for the other hosts.
    pub fn empty(&self, table: &str) {
        self.emptied.add(table, new_generation());
    }

    /// Empties a table for all hosts, and returns whether that is done. If not, the next look-up
    /// does it once the store is back.
    pub async fn begin(&self, table: &str) -> bool {
        let (Some(redis), Some(generation)) = (self.redis(), self.emptied.generation(table)) else {
            return true;
        };
        let Some(permit) = self.health.permit() else {
            return false;
        };
        let try_out = permit.is_try();
        let begun = self.ask_with(permit, redis.begin(table, &generation, try_out));
        if begun.await.is_some() {
            self.emptied.has_begun(table, generation);
            return true;
        }
        false
    }

    /// Returns the Redis, if the store is one.
    fn redis(&self) -> Option<&Redis> {
        match self.engine.as_ref()? {
            Engine::Redis(redis) => Some(redis),
            Engine::Sqlite(_) => None,
        }
    }
}
