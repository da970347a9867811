//! Why a file cannot be used, in words for the log.

use std::fmt;
use std::path::Path;

use rusqlite::ErrorCode;

/// The device and the number of a file: another one at the same path has others.
pub type Identity = (u64, u64);

/// Why a file cannot be used.
#[derive(Debug)]
pub enum FileError {
    /// This one is damaged, or no database.
    Corrupt(String, Identity),
    /// Another process has locked it.
    Locked(String),
    /// Anything else. The file is left as it is.
    Unusable(String),
}

impl FileError {
    pub(super) fn new(path: &Path, identity: Identity, error: &rusqlite::Error) -> Self {
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
            Some(ErrorCode::DatabaseBusy) => Self::Locked(text),
            _ => Self::Unusable(text),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(text, _) | Self::Locked(text) | Self::Unusable(text) => f.write_str(text),
        }
    }
}
