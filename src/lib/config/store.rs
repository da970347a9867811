//! `[store]`: where the use of limits is kept.

use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;

/// Where the use of limits is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Store {
    /// An SQLite file of this host; without a path the file of the program.
    Sqlite {
        /// The file.
        path: Option<PathBuf>,
    },
    /// A Redis or Valkey for all hosts.
    Redis {
        /// Its URL, which may hold a password.
        url: Secret,
        /// What the name of each key begins with.
        prefix: String,
        /// The time for one question, connecting included.
        timeout: Duration,
    },
}

impl Default for Store {
    fn default() -> Self {
        Self::Sqlite { path: None }
    }
}
