//! Why Redis has given no answer.

use redis::{ErrorKind, RedisError};

use crate::observe::log::printable_text;
use crate::store::error::StoreError;

/// Why Redis has given no answer.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The connection broke: it is not known whether Redis has done what it was asked.
    Broken(String),
    /// Redis does not know the script.
    NoScript,
    /// Anything else.
    Other(String),
}

const PASSWORD: &str = "Redis wants a password";

impl Failure {
    pub(super) fn not_understood() -> Self {
        Self::Other("the answer of Redis is not understood".to_owned())
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match (error.kind(), error.code()) {
            (_, Some("NOAUTH")) => Self::Other(PASSWORD.to_owned()),
            (_, Some("NOSCRIPT")) => Self::NoScript,
            (_, Some(code)) => Self::Other(refused(code, error.detail())),
            (ErrorKind::Io, _) => Self::Broken(format!("the connection broke: {}", text(&error))),
            (ErrorKind::AuthenticationFailed, _) => {
                Self::Other("cannot log in: wrong user or password".to_owned())
            }
            _ => Self::Other(format!(
                "an answer that is not understood: {}",
                text(&error)
            )),
        }
    }
}

/// Returns why Redis has refused a command, without the trace of a script.
fn refused(code: &str, detail: Option<&str>) -> String {
    let detail = detail.unwrap_or_default();
    // Before a login Redis refuses long commands, whatever they are.
    if detail.contains("unauthenticated") {
        return PASSWORD.to_owned();
    }
    let text = match detail.split_once(": -") {
        // Redis 6 puts its own trace before the answer that the script has got.
        Some((trace, text)) if trace.contains("script") => text.to_owned(),
        _ => format!("{code} {detail}"),
    };
    let text = text.split(" script: ").next().unwrap_or_default();
    printable_text(text.trim_end_matches([' ', '.']))
}

fn text(error: &RedisError) -> String {
    printable_text(&error.to_string())
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self(match failure {
            Failure::Broken(text) | Failure::Other(text) => text,
            // It has been sent with the question before.
            Failure::NoScript => "NOSCRIPT in answer to a script".to_owned(),
        })
    }
}
