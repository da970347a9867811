//! The answer of a token server: its JSON, or why it is none, in words that hold no secret.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::error::Category;
use tokio::time::timeout;

use super::body::{self, Wanted};
use super::looks::looks;
use super::redirect::Redirect;
use crate::outcome::Reason;

/// The most bytes of an answer from the token server.
const MAX_ANSWER: usize = 256 * 1024;

/// How long to wait for the body of an error response. Its status alone says most of it.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_millis(500);

/// Reads the JSON of an answer. Of an answer that is none, only what it looks like and the code of an
/// error go into the log: anything else in it may be a secret.
pub async fn read<T: for<'de> Deserialize<'de>>(
    response: Response,
    url: &Url,
) -> Result<T, String> {
    let status = response.status();
    let headers = response.headers().clone();
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (body, text, hint) = if status == StatusCode::OK {
        let (_, body) = body::read(response, MAX_ANSWER, Wanted::Body).await;
        let body = body.map_err(|part| match part.failure.reason {
            // Its limit is not that of the table.
            reason @ Reason::AnswerTooLong => format!("their server's answer: {reason}"),
            _ => format!("their server's answer: {}", part.failure),
        })?;
        let error = match serde_json::from_slice(&body) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let flaw = match error.classify() {
            Category::Data => lacking(&error),
            _ => looks(header(CONTENT_TYPE).unwrap_or_default(), &body),
        };
        let flaw = match error_code(&body) {
            Some(_) => String::new(),
            None => format!(": {flaw}"),
        };
        let text = format!("their server's answer is not understood{flaw}");
        (body, text, String::new())
    } else {
        let read = timeout(
            ERROR_BODY_TIMEOUT,
            body::read(response, MAX_ANSWER, Wanted::Body),
        )
        .await;
        let body = read.ok().and_then(|(_, body)| body.ok());
        let body = body.unwrap_or_default();
        let number = status.as_u16();
        let hint = if status.is_redirection() {
            let to = header(LOCATION).and_then(|location| url.join(location).ok());
            let redirect = Redirect {
                from: url,
                status: number,
                location: None,
            };
            let to = to.map(|to| format!(" to {}", redirect.describe(&to)));
            format!("{}, not followed", to.unwrap_or_default())
        } else if status == StatusCode::NOT_FOUND {
            "; is its URL right?".to_owned()
        } else {
            String::new()
        };
        (body, format!("their server answered {number}"), hint)
    };
    let code = error_code(&body).map_or_else(String::new, |code| format!(": {code}"));
    Err(format!("{text}{code}{hint}"))
}

/// Returns the difference of a server's clock, where it is so large that a statement of our identity
/// can be too old there, or not yet valid.
pub fn clock_difference(date: Option<&HeaderValue>) -> String {
    const MOST: u64 = 30;
    let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let Some(date) = date else {
        return String::new();
    };
    let (seconds, which) = match date.elapsed() {
        Ok(elapsed) => (elapsed.as_secs(), "behind"),
        Err(ahead) => (ahead.duration().as_secs(), "ahead of"),
    };
    match seconds {
        ..=MOST => String::new(),
        seconds => format!("; its clock is {seconds} s {which} ours"),
    }
}

/// Returns which member JSON lacks. Other errors may repeat what is in it.
fn lacking(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (member, _) = text.split_once(" at line ").unwrap_or_default();
    match member.strip_prefix("missing field ") {
        Some(member) => format!("JSON without {}", member.replace('`', "\"")),
        None => "JSON of another form".to_owned(),
    }
}

/// An error response (RFC 6749, section 5.2).
#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
}

/// The error codes (RFC 6749, sections 5.2 and 4.1.2.1).
const ERROR_CODES: [&str; 9] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
    "access_denied",
];

/// Returns the code of an error response, for the log. Any other text there may repeat the secret
/// that was sent.
fn error_code(body: &[u8]) -> Option<&'static str> {
    let ErrorResponse { error } = serde_json::from_slice(body).ok()?;
    let code = ERROR_CODES.into_iter().find(|code| *code == error);
    Some(code.unwrap_or("an error code that is not RFC 6749's"))
}
