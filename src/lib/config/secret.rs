//! Secrets: where they come from, and a value that cannot be shown.

use std::env::VarError;
use std::fmt;
use std::io;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

/// Where a secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// The configuration itself.
    Text,
    /// A credential of the unit (`LoadCredential=`).
    Credential(String),
    /// A file.
    File(PathBuf),
    /// The environment.
    Environment(String),
}

/// A value that no log, error or debug output can hold.
#[derive(Clone)]
pub struct Secret {
    source: Source,
    value: SecretString,
}

impl Secret {
    /// Makes a secret of what stands in the configuration.
    pub fn text(value: &str) -> Self {
        Self {
            source: Source::Text,
            value: value.into(),
        }
    }

    /// Fetches a secret from where it is kept. One line feed at its end is not part of it.
    pub fn fetch(source: Source) -> io::Result<Self> {
        let mut value = match &source {
            Source::Text => String::new(),
            Source::Credential(name) => std::fs::read_to_string(credential_path(name)?)?,
            Source::File(path) => std::fs::read_to_string(path)?,
            Source::Environment(name) => std::env::var(name).map_err(without_value)?,
        };
        if value.ends_with('\n') {
            value.pop();
        }
        Ok(Self {
            source,
            value: value.into(),
        })
    }

    /// Makes a secret that is not there, for a look at a configuration outside its unit.
    pub fn absent(source: Source) -> Self {
        Self {
            source,
            value: SecretString::default(),
        }
    }

    /// Returns where it comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Returns the value, to be sent and nothing else.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

/// The words of a `VarError` itself would show the value.
fn without_value(error: VarError) -> io::Error {
    match error {
        VarError::NotPresent => io::Error::new(io::ErrorKind::NotFound, "not set"),
        VarError::NotUnicode(_) => io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"),
    }
}

fn credential_path(name: &str) -> io::Result<PathBuf> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no credentials here: the unit needs LoadCredential=",
        )
    })?;
    Ok(PathBuf::from(folder).join(name))
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.expose() == other.expose()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Credential(name) => write!(f, "credential {name:?}"),
            Self::File(path) => write!(f, "file {path:?}"),
            Self::Environment(name) => write!(f, "environment variable {name:?}"),
        }
    }
}
