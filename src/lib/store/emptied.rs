//! The shared answers that were dropped here, and still have to be dropped in Redis.

use std::collections::HashMap;

use super::redis::shared::Generation;
use crate::sync::Mutex;

/// The tables that were emptied, and the generation that is still to begin in Redis.
#[derive(Debug, Default)]
pub(super) struct Emptied(Mutex<HashMap<String, Generation>>);

impl Emptied {
    pub(super) fn add(&self, table: &str, generation: Generation) {
        self.0.lock().insert(table.to_owned(), generation);
    }

    /// Returns the generation that is still to begin.
    pub(super) fn generation(&self, table: &str) -> Option<Generation> {
        self.0.lock().get(table).copied()
    }

    /// Notes that a generation has begun, unless the table was emptied again.
    pub(super) fn has_begun(&self, table: &str, generation: Generation) {
        let mut tables = self.0.lock();
        if tables.get(table) == Some(&generation) {
            tables.remove(table);
        }
    }
}
