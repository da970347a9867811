//! Secrets: where they are kept, and a value that cannot be shown.

use std::env::VarError;
use std::fmt;
use std::io;
use std::path::PathBuf;

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use toml::de::DeValue;

use super::file::{Entry, Section, table};
use super::keys::SECRET;
use super::problem::Report;
use super::values::{place, plain};

/// The text in place of a secret.
pub const HIDDEN: &str = "(hidden)";

/// The place where a secret is kept.
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

/// A value that appears in no log, error or debug output.
#[derive(Clone)]
pub struct Secret {
    source: Source,
    value: SecretString,
}

impl Secret {
    /// Makes a secret from a value in the configuration.
    pub fn text(value: &str) -> Self {
        Self {
            source: Source::Text,
            value: value.into(),
        }
    }

    /// Reads a secret from its place. One line feed at the end is not part of it.
    pub fn fetch(source: Source) -> io::Result<Self> {
        let mut value = match &source {
            Source::Text => String::new(),
            Source::Credential(name) => std::fs::read_to_string(credential_path(name)?)?,
            Source::File(path) => std::fs::read_to_string(path)?,
            Source::Environment(name) => std::env::var(name).map_err(without_value)?,
        };
        // Editors and `echo` end a file with one; further ones may belong to the secret.
        if value.ends_with('\n') {
            value.pop();
        }
        Ok(Self {
            source,
            value: value.into(),
        })
    }

    /// Makes a secret that could not be read, for a check outside the unit that has it.
    pub fn absent(source: Source) -> Self {
        Self {
            source,
            value: SecretString::default(),
        }
    }

    /// Returns whether the secret could not be read.
    pub(super) fn is_absent(&self) -> bool {
        self.source != Source::Text && self.expose().is_empty()
    }

    /// Returns the place where it is kept.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Returns the value, which may only be sent.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

/// The value of a header that has a secret in it.
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderSecret {
    /// The place where the secret is kept.
    pub source: Source,
    /// The whole value; absent where the secret could not be read.
    pub value: Option<HeaderValue>,
}

impl HeaderSecret {
    /// Puts a secret after a prefix. Fails if a header cannot have it.
    pub(super) fn new(prefix: &str, secret: &Secret) -> Option<Self> {
        let value = match secret.is_absent() {
            true => None,
            false => Some(sensitive(&format!("{prefix}{}", secret.expose()))?),
        };
        Some(Self {
            source: secret.source().clone(),
            value,
        })
    }
}

/// Returns the value of a header, marked so that no log shows it and that HTTP/2 does not put it
/// into its table of headers (RFC 7541, section 7.1.3).
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for HeaderSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Returns an error without the value, which the text of a `VarError` shows.
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

/// Whether the secrets of a table have to be readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretPolicy {
    /// A secret that cannot be read is an error.
    Required,
    /// A secret that cannot be read is worth a warning.
    Warn,
    /// The secrets are another program's, whose unit may have credentials that this one has not.
    Ignore,
}

/// Returns a secret as the value of a header, with a prefix.
pub(super) fn header_secret(
    entry: &Entry<'_>,
    prefix: &str,
    secret_policy: SecretPolicy,
    report: &mut Report,
) -> Option<HeaderSecret> {
    let secret = any_secret(entry, secret_policy, report)?;
    let header = HeaderSecret::new(prefix, &secret);
    if header.is_none() {
        let text = "contains a character that cannot be sent in a header";
        report.error(entry.value.span(), &entry.path, text);
    }
    header
}

/// Returns a secret. The policy decides whether it may be absent.
pub(super) fn any_secret(
    entry: &Entry<'_>,
    secret_policy: SecretPolicy,
    report: &mut Report,
) -> Option<Secret> {
    let secret = match entry.value.get_ref() {
        DeValue::String(text) if text.is_empty() => Err("is empty"),
        DeValue::String(text) => Ok(Secret::text(text)),
        DeValue::Table(_) => return fetched(entry, secret_policy, report),
        _ => Err(
            "must be a string, { credential = \"NAME\" }, { file = \"/path\" } or \
             { env = \"NAME\" }",
        ),
    };
    secret
        .map_err(|text| report.error(entry.value.span(), &entry.path, text))
        .ok()
}

fn fetched(entry: &Entry<'_>, secret_policy: SecretPolicy, report: &mut Report) -> Option<Secret> {
    let mut section = Section::new(
        &entry.path,
        entry.value.span(),
        table(entry, report)?,
        SECRET,
    );
    let mut sources = Vec::new();
    if let Some(from) = section.take("credential") {
        let no_name = "must be the name of a credential";
        match place(&from, no_name, report)? {
            name if name.is_empty() || name.contains('/') || name.starts_with('.') => {
                report.error(from.value.span(), &from.path, no_name);
                return None;
            }
            name => sources.push(Source::Credential(name.to_owned())),
        }
    }
    if let Some(from) = section.take("file") {
        let path = place(&from, "must be the path of a file", report)?;
        sources.push(Source::File(path.into()));
    }
    if let Some(from) = section.take("env") {
        let name = place(&from, "must be the name of an environment variable", report)?;
        sources.push(Source::Environment(name.to_owned()));
    }
    section.finish(report);
    let (Some(source), true) = (sources.pop(), sources.is_empty()) else {
        let text = "must have exactly one of the keys credential, file and env";
        report.error(entry.value.span(), &entry.path, text);
        return None;
    };
    fetch(source, entry, secret_policy, report)
}

pub(super) fn fetch(
    source: Source,
    entry: &Entry<'_>,
    secret_policy: SecretPolicy,
    report: &mut Report,
) -> Option<Secret> {
    let here = match secret_policy {
        SecretPolicy::Warn => " here",
        SecretPolicy::Required | SecretPolicy::Ignore => "",
    };
    let text = match Secret::fetch(source.clone()) {
        Ok(secret) if !secret.expose().is_empty() => return Some(secret),
        Ok(_) => format!("{source:?} is empty"),
        Err(error) => format!("{source:?} cannot be read{here}: {}", plain(&error)),
    };
    match secret_policy {
        SecretPolicy::Ignore => {}
        SecretPolicy::Warn => report.warning(entry.value.span(), &entry.path, text),
        SecretPolicy::Required => {
            report.error(entry.value.span(), &entry.path, text);
            return None;
        }
    }
    Some(Secret::absent(source))
}
