//! The body of an answer: read to its end within a limit, or drained.

use std::convert::Infallible;
use std::io::Read as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, SizeHint};
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use reqwest::{Response, Version};
use tokio::time::timeout;

use super::error::cause;
use super::looks::trim_text;
use super::steps::Steps;
use crate::observe::verbose;
use crate::outcome::{Failure, Reason};

/// A body that was not read to its end, or not understood.
#[derive(Debug)]
pub struct Unread {
    /// Why.
    pub failure: Failure,
    /// What of it has come, for a query.
    pub came: Vec<u8>,
}

/// A body, or what there is of it. Boxed because it is rare: each call would have room for it.
pub type Read = Result<Vec<u8>, Box<Unread>>;

fn unread(failure: impl Into<Failure>, came: Vec<u8>) -> Box<Unread> {
    Box::new(Unread {
        failure: failure.into(),
        came,
    })
}

/// Which body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One that means something even if it is empty.
    Body,
    /// One that may as well not be there.
    BodyIfAny,
    /// None, whatever the headers say of one.
    Nothing,
}

/// Reads a body to its end, and returns it with the headers of the answer. The limit holds for the
/// bytes as they come and for those after decompression, so that a few bytes of gzip cannot fill the
/// memory.
#[expect(
    clippy::manual_async_fn,
    reason = "that would keep the answer twice: as its parameter and as a variable"
)]
pub fn read(
    mut response: Response,
    limit: usize,
    wanted: Wanted,
) -> impl Future<Output = (HeaderMap, Read)> + Send {
    async move {
        let version = response.version();
        let headers = std::mem::take(response.headers_mut());
        if wanted == Wanted::Nothing {
            return (headers, Ok(Vec::new()));
        }
        let length = response.content_length().unwrap_or(0);
        // Boxed where it is rare: each call would have room for it.
        let body = if usize::try_from(length).map_or(true, |length| length > limit) {
            Box::pin(beginning_of(response, limit)).await
        } else if version == Version::HTTP_2 {
            Box::pin(whole_stream(response, limit)).await
        } else {
            whole_body(&mut response, limit).await
        };
        let body = match body {
            Ok(bytes) if is_gzip(&headers) => inflate(bytes, limit),
            Err(part) if is_gzip(&headers) && verbose::is_query() => Err(inflated(*part, limit)),
            body => body,
        };
        let ends_with_connection = version < Version::HTTP_2 && !is_delimited(&headers);
        // A server that crashes after the head sends the same bytes. Read as an empty answer, this
        // could become "not found", and mail would bounce. The checksums of gzip show that it is
        // complete.
        let is_cut = |bytes: &Vec<u8>| {
            ends_with_connection && !is_gzip(&headers) && trim_text(bytes).is_empty()
        };
        let body = match body {
            Ok(bytes) if wanted == Wanted::Body && is_cut(&bytes) => {
                let why = "only the end of the connection ends an empty body";
                Err(unread(cut_short(why), bytes))
            }
            body => body,
        };
        (headers, body)
    }
}

/// Fails with a body that is longer than the limit, and with its beginning for a query.
async fn beginning_of(mut response: Response, limit: usize) -> Read {
    let start = match verbose::is_query() {
        true => response.chunk().await.ok().flatten(),
        false => None,
    };
    let start = start.unwrap_or_default();
    Err(unread(too_long(limit), beginning(&start).to_vec()))
}

fn is_gzip(headers: &HeaderMap) -> bool {
    let coding = headers.get(CONTENT_ENCODING);
    coding.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"gzip"))
}

/// Returns a body that notes when it is being sent.
pub fn noted(bytes: Bytes, steps: &Steps) -> reqwest::Body {
    reqwest::Body::wrap(NotedBody {
        bytes: Some(bytes).filter(|bytes| !bytes.is_empty()),
        steps: steps.clone(),
    })
}

struct NotedBody {
    bytes: Option<Bytes>,
    steps: Steps,
}

impl hyper::body::Body for NotedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.steps.note_sending();
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    /// hyper asks this for the first time when it writes the head. With that an empty body is sent,
    /// which is never asked for its bytes.
    fn is_end_stream(&self) -> bool {
        let is_sent = self.bytes.is_none();
        if is_sent {
            self.steps.note_sending();
        }
        is_sent
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.bytes.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(length as u64)
    }
}

/// Returns whether an HTTP/1 body says where it ends: by chunks or by its length (RFC 9112, section
/// 6.3). With any other Transfer-Encoding it ends with the connection, whatever its length says.
fn is_delimited(headers: &HeaderMap) -> bool {
    match headers.get_all(TRANSFER_ENCODING).iter().next_back() {
        None => headers.contains_key(CONTENT_LENGTH),
        Some(codings) => {
            let last = codings.as_bytes().rsplit(|byte| *byte == b',').next();
            last.is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
        }
    }
}

/// Reads an HTTP/1 body. hyper returns an error if it is cut short.
async fn whole_body(response: &mut Response, limit: usize) -> Read {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body = appended(body, &chunk, limit)?,
            Ok(None) => return Ok(body),
            Err(error) => return Err(unread(broken(&error), body)),
        }
    }
}

/// Reads an HTTP/2 body. hyper takes RST_STREAM with NO_ERROR for its end, but the body is complete
/// only if END_STREAM came before it (RFC 9113, section 8.1).
async fn whole_stream(response: Response, limit: usize) -> Read {
    let mut stream = reqwest::Body::from(response);
    let mut body = Vec::new();
    while let Some(frame) = stream.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Err(unread(broken(&error), body)),
        };
        if let Some(chunk) = frame.data_ref() {
            body = appended(body, chunk, limit)?;
        }
    }
    if stream.is_end_stream() {
        Ok(body)
    } else {
        let why = "the stream was reset before its end";
        Err(unread(cut_short(why), body))
    }
}

fn appended(mut body: Vec<u8>, chunk: &[u8], limit: usize) -> Read {
    if body.len() + chunk.len() > limit {
        body.extend_from_slice(beginning(chunk));
        return Err(unread(too_long(limit), body));
    }
    body.extend_from_slice(chunk);
    Ok(body)
}

/// Returns what is shown at most of bytes over the limit.
fn beginning(chunk: &[u8]) -> &[u8] {
    chunk.get(..1024).unwrap_or(chunk)
}

/// Decompresses a gzip body. Its checksums show that it is complete.
fn inflate(body: Vec<u8>, limit: usize) -> Read {
    let mut plain = Vec::new();
    // One byte more than allowed shows that the limit is exceeded; no more is inflated.
    let max = limit.saturating_add(1) as u64;
    let inflated = MultiGzDecoder::new(&*body)
        .take(max)
        .read_to_end(&mut plain);
    match inflated {
        Ok(length) if length > limit => Err(unread(too_long(limit), plain)),
        Ok(_) => Ok(plain),
        Err(_) => {
            let why = "not gzip, as its Content-Encoding says";
            let came = if plain.is_empty() { body } else { plain };
            Err(unread(cut_short(why), came))
        }
    }
}

/// Decompresses what has come of a gzip body.
fn inflated(part: Unread, limit: usize) -> Box<Unread> {
    let came = match inflate(part.came, limit) {
        Ok(plain) => plain,
        Err(part) => part.came,
    };
    unread(part.failure, came)
}

fn too_long(limit: usize) -> Failure {
    let detail = format!("more than the {limit} bytes of max-response");
    Failure::new(Reason::AnswerTooLong, detail)
}

fn broken(error: &reqwest::Error) -> Failure {
    Failure::new(Reason::NotUnderstood, cause(error))
}

fn cut_short(detail: &'static str) -> Failure {
    Failure::new(Reason::NotUnderstood, detail)
}

/// Reads the rest of an answer that is not needed, so that its connection can be used again. A body
/// that is too large or too slow for that is dropped with its connection.
pub async fn drain(mut response: Response) {
    const MAX_BYTES: usize = 64 * 1024;
    const MAX_TIME: Duration = Duration::from_secs(1);
    let drained = async {
        let mut seen = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            seen += chunk.len();
            if seen > MAX_BYTES {
                break;
            }
        }
    };
    // Dropping the response closes the connection where the body has not ended.
    let _ = timeout(MAX_TIME, drained).await;
}
