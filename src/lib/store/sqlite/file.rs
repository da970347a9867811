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

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::Access as fs_access;

use super::rows::{Damage, Rows};
use super::sweep::Sweep;
use crate::limits::decide::decide;
use crate::limits::{Decision, Mode, Question, Usage};

/// The version of the schema (`PRAGMA user_version`). 0 is a file that has just been made.
const VERSION: i64 = 1;

const SCHEMA: &str = r#"
    CREATE TABLE usage (
        tbl TEXT NOT NULL, "limit" TEXT NOT NULL, account TEXT NOT NULL,
        used TEXT NOT NULL, expires INTEGER NOT NULL, state BLOB NOT NULL,
        PRIMARY KEY (tbl, "limit", account)
    ) WITHOUT ROWID;
    CREATE TABLE messages (
        tbl TEXT NOT NULL, instance TEXT NOT NULL,
        seen INTEGER NOT NULL, state BLOB NOT NULL,
        PRIMARY KEY (tbl, instance)
    ) WITHOUT ROWID;
    PRAGMA user_version = 1;
"#;

/// Settings of every connection. A checkpoint of the service takes a moment for so many pages at
/// most; most of them are written back before, by the thread for it. SQLite's own memory stays
/// below the cache, in KiB, whatever the number of accounts.
const SETTINGS: &str = "
    PRAGMA synchronous = NORMAL;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -4096;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA journal_size_limit = 33554432;
";

/// Who opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The service: it makes the file, and keeps few waiting.
    Service,
    /// Anybody else, beside the service: the file has to be there. One that root made would be
    /// closed to the service.
    Beside,
}

impl Access {
    /// Returns how long to wait for the lock of another process.
    fn patience(self) -> Duration {
        match self {
            Self::Service => Duration::from_millis(250),
            Self::Beside => Duration::from_secs(5),
        }
    }
}

/// The device and the number of a file: another one at the same path has others.
pub type Identity = (u64, u64);

/// Why a file cannot be used.
#[derive(Debug)]
pub enum FileError {
    /// This one is damaged, or no database.
    Corrupt(String, Identity),
    /// Anything else. The file is left as it is.
    Unusable(String),
}

/// An open file.
#[derive(Debug)]
pub struct File {
    connection: Connection,
    path: PathBuf,
    identity: Identity,
    /// Its log, which has the name of the file and `-wal`.
    log: Option<Identity>,
    sweep: Sweep,
    damage: Damage,
}

impl File {
    /// Opens a file, and makes it first if need be.
    pub fn open(path: &Path, access: Access) -> Result<Self, FileError> {
        if access == Access::Service {
            create(path).map_err(|error| unusable_file(path, access, &error))?;
        }
        let identity = identity(path).map_err(|error| unusable_file(path, access, &error))?;
        // SQLite would open it for reading, with a log that nobody may write to.
        let may = rustix::fs::access(path, fs_access::READ_OK | fs_access::WRITE_OK);
        may.map_err(|error| unusable_file(path, access, &error.into()))?;
        let connection = connect(path, access);
        let connection = connection.map_err(|error| FileError::new(path, identity, &error))?;
        let mut file = Self {
            connection,
            path: path.to_owned(),
            identity,
            log: None,
            sweep: Sweep::default(),
            damage: Damage::default(),
        };
        file.prepare(access)?;
        if !file.is_in_place() {
            return Err(file.unusable("it was replaced while it was opened"));
        }
        keep_log(&file.connection, false);
        file.log = self::identity(&beside(path, "-wal")).ok();
        Ok(file)
    }

    /// Sets up the write-ahead log and the tables.
    fn prepare(&self, access: Access) -> Result<(), FileError> {
        let connection = &self.connection;
        let version = || connection.pragma_query_value(None, "user_version", |row| row.get(0));
        let has_tables = || {
            let any = "SELECT EXISTS (SELECT * FROM sqlite_schema)";
            connection.query_row(any, [], |row| row.get::<_, bool>(0))
        };
        match (self.checked(version())?, access) {
            (VERSION, Access::Beside) => return Ok(()),
            (VERSION, Access::Service) => {}
            (0, _) if self.checked(has_tables())? => {
                return Err(self.unusable("it is the database of something else"));
            }
            (0, Access::Service) => {}
            (0, Access::Beside) => {
                let why = "it has no tables: the service makes them when it starts";
                return Err(self.unusable(why));
            }
            (found, _) => return Err(self.unusable(&format!("its version {found} is unknown"))),
        }
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        let mode: String = self.checked(mode)?;
        if mode != "wal" {
            return Err(self.unusable("SQLite cannot keep a write-ahead log there"));
        }
        let make = || match has_tables()? {
            // Another process may have made them meanwhile.
            true => Ok(()),
            false => connection.execute_batch(SCHEMA),
        };
        self.checked(self.in_transaction("BEGIN IMMEDIATE", make))
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

    /// Returns whether the open file is still the one at its path.
    pub fn is_in_place(&self) -> bool {
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
    }

    /// Closes a corrupt file and leaves its log as it is.
    pub fn abandon(self) {
        keep_log(&self.connection, true);
    }

    /// Closes a file that is no longer at its path, and removes its log, which SQLite leaves there
    /// and would take for that of the file which is there.
    pub fn forsake(self) {
        let Self { path, log, .. } = self;
        drop(self.connection);
        let log_path = beside(&path, "-wal");
        if log.is_some() && identity(&log_path).ok() == log {
            let _ = fs::remove_file(log_path);
            let _ = fs::remove_file(beside(&path, "-shm"));
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

impl FileError {
    fn new(path: &Path, identity: Identity, error: &rusqlite::Error) -> Self {
        let why = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt) => "it is damaged".to_owned(),
            Some(ErrorCode::NotADatabase) => "it is no database".to_owned(),
            Some(ErrorCode::DatabaseBusy) => "it is locked by another process".to_owned(),
            Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
            Some(ErrorCode::ReadOnly) => "it may not be written to".to_owned(),
            Some(ErrorCode::CannotOpen) => {
                "it cannot be opened, or its folder not written to".to_owned()
            }
            _ => error.to_string(),
        };
        let text = format!("{}: {why}", path.display());
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(text, identity)
            }
            _ => Self::Unusable(text),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(text, _) | Self::Unusable(text) => f.write_str(text),
        }
    }
}

/// Makes an empty file that only its owner may read, whatever the umask, unless there is one.
fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file.set_permissions(Permissions::from_mode(0o600)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn connect(path: &Path, access: Access) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Until it is known to be one of ours.
    keep_log(&connection, true);
    connection.busy_timeout(access.patience())?;
    connection.execute_batch(SETTINGS)?;
    Ok(connection)
}

/// Sets whether the log stays as it is when the last connection is closed.
fn keep_log(connection: &Connection, keeps: bool) {
    let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    // This fails for an unknown setting alone.
    let _ = connection.set_db_config(no_checkpoint, keeps);
}

/// Returns the identity of the file at a path. It is not opened: closing it would drop the locks
/// that this process has on it.
pub fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Returns the path of a file that belongs to another.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(suffix);
    PathBuf::from(path)
}

/// Says why there is no file, and what would make it.
fn unusable_file(path: &Path, access: Access, error: &io::Error) -> FileError {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let file = path.display();
    let text = match (error.kind(), access) {
        (io::ErrorKind::NotFound, Access::Service) => format!(
            "{}: there is no such folder (StateDirectory= in the unit makes it)",
            folder.display()
        ),
        (io::ErrorKind::NotFound, Access::Beside) => {
            format!("{file}: there is no such file: the service makes it when it starts")
        }
        _ => format!("{file}: {error}"),
    };
    FileError::Unusable(text)
}
