//! Bodies of answers: read up to a limit, or drained.

use std::time::Duration;

use tokio::time::timeout;

use super::client::cause;
use crate::outcome::{Failure, Reason};

/// Reads a body up to its limit, which counts what compression hides.
pub async fn body(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, Failure> {
    let too_long = || Failure::from(Reason::AnswerTooLong);
    let length = response.content_length().unwrap_or(0);
    if usize::try_from(length).map_or(true, |length| length > limit) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => return Err(too_long()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(Failure::new(Reason::NotUnderstood, cause(&error))),
        }
    }
}

/// Reads what is left of an answer that has been understood already, so that its connection can
/// be used again; not for long, and not much. What takes longer is cut off with its connection.
pub async fn drain(mut response: reqwest::Response) {
    const MOST: usize = 64 * 1024;
    const LONGEST: Duration = Duration::from_secs(1);
    let drained = async {
        let mut seen = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            seen += chunk.len();
            if seen > MOST {
                break;
            }
        }
    };
    // What is still to come is not waited for any longer.
    let _ = timeout(LONGEST, drained).await;
}
