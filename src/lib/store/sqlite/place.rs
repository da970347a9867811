//! The file at its path: how it is made, told from another, and connected to.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{process, thread};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::error::{FileError, Identity};
use crate::store::clock::now_ms;

/// The version of the schema (`PRAGMA user_version`). 0 is a file that has just been made.
pub(super) const VERSION: i64 = 1;

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

/// The pause before a file that is locked is tried again.
pub(super) const PAUSE: Duration = Duration::from_millis(1);

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
    pub(super) fn patience(self) -> Duration {
        match self {
            Self::Service => Duration::from_millis(250),
            Self::Beside => Duration::from_secs(5),
        }
    }
}

/// Makes a file that only its owner may read, unless there is one. It gets its name once it has its
/// tables: processes that make them in one file at once may lock each other out.
pub(super) fn make(path: &Path) -> Result<(), FileError> {
    if path.exists() {
        return Ok(());
    }
    let path = &real(path);
    let new = beside(path, &format!(".new-{}-{}", process::id(), now_ms()));
    let made = create(&new).map_err(|error| unusable(path, Access::Service, &error));
    let made = made.and_then(|()| {
        let connection = connect(&new, Access::Service)
            .and_then(|connection| set_up(&connection).map(|_| connection));
        let connection = connection.map_err(|error| FileError::new(path, (0, 0), &error))?;
        keep_log(&connection, false);
        drop(connection);
        match fs::hard_link(&new, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(unusable(path, Access::Service, &error))
            }
            _ => Ok(()),
        }
    });
    let _ = fs::remove_file(&new);
    made
}

/// Makes an empty file, with the same mode whatever the umask.
fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

/// Sets up the write-ahead log, and the tables if there are none, and returns what the log is then.
pub(super) fn set_up(connection: &Connection) -> rusqlite::Result<String> {
    let mode = "PRAGMA journal_mode = WAL";
    let mode = connection.query_row(mode, [], |row| row.get(0))?;
    if version(connection)? == 0 {
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        // Another process may have made them meanwhile.
        if version(&transaction)? == 0 {
            transaction.execute_batch(SCHEMA)?;
        }
        transaction.commit()?;
    }
    Ok(mode)
}

/// Returns the version of the tables.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Connects to a file, whose log is kept if nobody says otherwise: it may be none of ours.
pub(super) fn connect(path: &Path, access: Access) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    keep_log(&connection, true);
    // SQLite's own pauses grow, and a process that never stops writing would go first each time.
    let mut began = Instant::now();
    connection.busy_handler(Some(move |tries| {
        if tries == 0 {
            began = Instant::now();
        }
        thread::sleep(PAUSE);
        began.elapsed() < access.patience()
    }))?;
    connection.execute_batch(SETTINGS)?;
    Ok(connection)
}

/// Sets whether the log stays as it is when the last connection is closed.
pub(super) fn keep_log(connection: &Connection, keeps: bool) {
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

/// Returns the path that a symlink leads to. SQLite puts the files that belong to a file there.
pub(super) fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| match fs::read_link(path) {
        // There is no file yet, or no longer. An absolute target replaces the folder.
        Ok(target) => path.with_file_name("").join(target),
        Err(_) => path.to_owned(),
    })
}

/// Returns the path of a file that belongs to another.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(suffix);
    PathBuf::from(path)
}

/// Says why there is no file, and what would make it.
pub(super) fn unusable(path: &Path, access: Access, error: &io::Error) -> FileError {
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
