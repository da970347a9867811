//! One open SQLite file, and the transactions on it.
//!
//! ```sql
//! CREATE TABLE usage (tbl TEXT, "limit" TEXT, account TEXT,
//!     used TEXT, expires INTEGER, state BLOB);
//! CREATE TABLE messages (tbl TEXT, instance TEXT, seen INTEGER, state BLOB);
//! ```
//!
//! `used` is for people, `state` is what counts (`format`), and times are seconds of the Unix
//! epoch. Every transaction reads what it needs: another process may have changed it since.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rusqlite::Connection;
use rustix::fs::Access as fs_access;

use super::error::{FileError, Identity};
use super::place::{
    Access, PAUSE, VERSION, beside, connect, identity, keep_log, make, real, set_up, unusable,
    version,
};
use super::rows::{Damage, Rows};
use super::sweep::Sweep;
use crate::limits::decide::decide;
use crate::limits::{Decision, Mode, Question, Usage};

/// An open file.
#[derive(Debug)]
pub struct File {
    connection: Connection,
    path: PathBuf,
    identity: Identity,
    /// The path of its log, and which file was there.
    log: (PathBuf, Option<Identity>),
    sweep: Sweep,
    damage: Damage,
}

impl File {
    /// Opens a file, and makes it first if need be.
    pub fn open(path: &Path, access: Access) -> Result<Self, FileError> {
        let began = Instant::now();
        loop {
            // SQLite does not always wait for another process that opens the same file.
            match Self::try_to_open(path, access) {
                Err(FileError::Locked(_)) if began.elapsed() < access.patience() => {
                    thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    }

    fn try_to_open(path: &Path, access: Access) -> Result<Self, FileError> {
        if access == Access::Service {
            make(path)?;
        }
        let which = identity(path).map_err(|error| unusable(path, access, &error))?;
        // SQLite would open it for reading, with a log that nobody may write to.
        let may = rustix::fs::access(path, fs_access::READ_OK | fs_access::WRITE_OK);
        may.map_err(|error| unusable(path, access, &error.into()))?;
        let connection = connect(path, access);
        let connection = connection.map_err(|error| FileError::new(path, which, &error))?;
        let mut file = Self {
            connection,
            path: path.to_owned(),
            identity: which,
            log: (beside(&real(path), "-wal"), None),
            sweep: Sweep::default(),
            damage: Damage::default(),
        };
        file.prepare(access)?;
        if !file.is_in_place() {
            return Err(file.unusable("it was replaced while it was opened"));
        }
        keep_log(&file.connection, false);
        file.log.1 = identity(&file.log.0).ok();
        Ok(file)
    }

    /// Checks that it is one of ours, and sets up what the service needs.
    fn prepare(&self, access: Access) -> Result<(), FileError> {
        // In one transaction: another process may be making the tables.
        let found = self.in_transaction("BEGIN", || {
            let tables = "SELECT EXISTS (SELECT * FROM sqlite_schema)";
            let has_tables = self.connection.query_row(tables, [], |row| row.get(0))?;
            Ok((version(&self.connection)?, has_tables))
        });
        match (self.checked(found)?, access) {
            ((VERSION, _), Access::Beside) => Ok(()),
            ((VERSION, _) | (0, false), Access::Service) => {
                let journal = self.checked(set_up(&self.connection))?;
                match &*journal {
                    "wal" => Ok(()),
                    _ => Err(self.unusable("SQLite cannot keep a write-ahead log there")),
                }
            }
            ((0, false), Access::Beside) => {
                Err(self.unusable("it has no tables: the service makes them when it starts"))
            }
            ((0, true), _) => Err(self.unusable("it is the database of something else")),
            ((found, _), _) => Err(self.unusable(&format!("its version {found} is unknown"))),
        }
    }

    /// Answers questions in one transaction: all of them, or none. The clock is read under the lock
    /// of the file, so that it does not run back from one process to the next.
    pub fn decide(
        &mut self,
        questions: &[Arc<Question>],
        clock: impl FnOnce() -> u64,
    ) -> Result<Vec<Decision>, FileError> {
        let is_reading = questions.iter().all(|q| q.mode == Mode::Peek);
        let begin = match is_reading {
            true => "BEGIN",
            false => "BEGIN IMMEDIATE",
        };
        let mut sweep = std::mem::take(&mut self.sweep);
        let decisions = self.in_transaction(begin, || {
            let now_ms = clock();
            let mut rows = Rows::new(&self.connection, now_ms, &self.damage);
            let decisions = questions
                .iter()
                .map(|question| decide(&mut rows, question, now_ms))
                .collect::<Result<_, _>>()?;
            if !is_reading {
                sweep.walk(&self.connection, questions.len(), now_ms)?;
            }
            Ok(decisions)
        });
        self.sweep = sweep;
        self.checked(decisions)
    }

    /// Returns the use of the accounts of a table, or of one account.
    pub fn usage(
        &self,
        table: &str,
        account: Option<&str>,
        now_ms: u64,
    ) -> Result<Vec<Usage>, FileError> {
        let rows = Rows::new(&self.connection, now_ms, &self.damage);
        self.checked(rows.usage(table, account))
    }

    /// Forgets what an account has used, and returns how many limits it had used.
    pub fn reset(&self, table: &str, account: &str) -> Result<usize, FileError> {
        let delete = "DELETE FROM usage WHERE tbl = ?1 AND account = ?2";
        self.checked(self.connection.execute(delete, [table, account]))
    }

    /// Writes what is in the log back into the file, as far as nobody is using it. Until then a
    /// power cut may lose it.
    pub fn checkpoint(&self) -> Result<(), FileError> {
        let checkpoint = "PRAGMA wal_checkpoint(PASSIVE)";
        self.checked(self.connection.query_row(checkpoint, [], |_| Ok(())))
    }

    /// Returns how many rows have been changed through this connection.
    pub fn changes(&self) -> u64 {
        self.connection.total_changes()
    }

    /// Returns whether the open file is still the one at its path, and its log is still there:
    /// without it, no other process sees what is in it.
    pub fn is_in_place(&self) -> bool {
        let is_there = identity(&self.path).is_ok_and(|identity| identity == self.identity);
        is_there && (self.log.1.is_none() || self.has_log())
    }

    fn has_log(&self) -> bool {
        identity(&self.log.0).ok() == self.log.1
    }

    /// Closes a corrupt file and leaves its log as it is.
    pub fn abandon(self) {
        keep_log(&self.connection, true);
    }

    /// Closes a file that is no longer at its path, and removes its log, which SQLite leaves there
    /// and would take for that of the file which is there. A log that was deleted alone is written
    /// back into the file first.
    pub fn forsake(self) {
        let Self { path, log, .. } = self;
        drop(self.connection);
        if log.1.is_some() && identity(&log.0).ok() == log.1 {
            let _ = fs::remove_file(log.0);
            let _ = fs::remove_file(beside(&real(&path), "-shm"));
        }
    }

    fn in_transaction<T>(
        &self,
        begin: &str,
        work: impl FnOnce() -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let run = |sql| self.connection.prepare_cached(sql)?.execute([]);
        run(begin)?;
        let done = work().and_then(|done| run("COMMIT").map(|_| done));
        // After some errors SQLite has rolled back already.
        if done.is_err() && !self.connection.is_autocommit() {
            let _ = run("ROLLBACK");
        }
        done
    }

    fn checked<T>(&self, result: rusqlite::Result<T>) -> Result<T, FileError> {
        result.map_err(|error| FileError::new(&self.path, self.identity, &error))
    }

    fn unusable(&self, why: &str) -> FileError {
        FileError::Unusable(format!("{}: {why}", self.path.display()))
    }
}
