//! One HTTP exchange with one target: the request, its retries, and the head of its answer.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::write::GzEncoder;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION,
};
use reqwest::{Method, Response, StatusCode, Url, Version};
use secrecy::zeroize::Zeroizing;
use tokio::time::{Instant, sleep};

use super::body::{drain, noted};
use super::call::Call;
use super::error::{explained, is_broken_connection, is_dropped_before_its_body, is_unprocessed};
use super::headers::headers;
use super::health::CallDigest;
use super::in_flight::InFlightPermits;
use super::oauth::Tokens;
use super::pool::Pool;
use super::redirect::{MAX_REDIRECTS, Redirect};
use super::shared::Shared;
use super::shown::Shown;
use super::steps::{Steps, Way};
use crate::config::{self, Compression};
use crate::observe::log::RequestId;
use crate::observe::verbose;
use crate::outcome::Failure;
use crate::protocol::facts::Content;

/// How often a call that the server did not process is sent again.
///
/// A server that closes each connection after a few calls refuses all that were sent over the same
/// connection meanwhile, so that one call can be refused many times in a row.
const MAX_REFUSALS: usize = 32;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const NO_ID: HeaderValue = HeaderValue::from_static("-");

/// Sends the calls of one table.
#[derive(Debug)]
pub struct Sender {
    /// The configuration of the table.
    pub table: config::Table,
    pool: Arc<Pool>,
    /// Those of every call, with a place for its id: a copy has no room for one more.
    headers: HeaderMap,
    tokens: Option<Arc<Tokens>>,
    /// Whether anything has ever answered.
    has_answered: AtomicBool,
    /// The key of the digests of its calls.
    digests: RandomState,
}

/// A call, as it is sent to each target and at each retry.
pub struct OutgoingCall {
    /// The URLs, one for each target.
    pub urls: Vec<Url>,
    /// The name whose login this is, or empty.
    pub name: String,
    /// Held for as long as anything of this call is in flight.
    pub permits: Option<Arc<InFlightPermits>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Shared by all attempts: a copy for each would let Postfix's bytes take a multiple of their
    /// memory.
    body: Option<Bytes>,
    id: HeaderValue,
    /// How it is shown, if calls are shown.
    pub shown: Option<Box<Shown>>,
}

impl OutgoingCall {
    /// Makes the outgoing call of a composed one.
    pub fn new(call: Call, shown: Option<Box<Shown>>, id: RequestId) -> Self {
        Self {
            urls: call.urls,
            name: call.name,
            permits: None,
            headers: call.headers,
            body: call.body,
            id: id_header(id),
            shown,
        }
    }
}

/// Without the headers and the body, which may have a secret.
impl fmt::Debug for OutgoingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut call = f.debug_struct("OutgoingCall");
        call.field("id", &self.id).finish_non_exhaustive()
    }
}

/// How far an attempt has come. It outlives the attempt, which its deadline may cut off.
#[derive(Debug)]
pub struct Progress {
    /// When the request was sent; none while the attempt waits for a token.
    pub sent_at: Option<Instant>,
    /// The status of the last answer.
    pub status: Option<u16>,
    /// Why the redirect that it is was not followed.
    pub not_followed: Option<Cow<'static, str>>,
    /// What it waits for.
    steps: Steps,
    /// Whether it makes a difference that the backend has acted on the request.
    is_write: bool,
}

impl Progress {
    /// Returns whether the backend may have acted on a write.
    pub fn may_have_arrived(&self) -> bool {
        self.is_write && self.steps.has_sent()
    }
}

/// How often a call has been sent again, for each reason.
#[derive(Default)]
struct Again {
    retries: usize,
    refusals: usize,
    redirects: usize,
}

/// What comes after an answer, or after none. What is waited for is boxed because it is rare: its
/// state would take room in each connection from Postfix.
enum Next {
    End(reqwest::Result<Response>),
    Send,
    SendAfter(Pin<Box<dyn Future<Output = ()> + Send>>),
    Follow(Box<Url>, Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum SendError {
    /// There is no token for the call.
    Credentials(Failure),
    /// The client says so.
    Http(reqwest::Error),
}

impl Sender {
    /// Makes a sender for a table.
    pub fn new(table: config::Table, shared: &mut Shared) -> Result<Self, String> {
        let endpoint = &table.endpoint;
        let is_https = endpoint.targets.iter().any(config::Target::is_https);
        let mut headers = headers(endpoint);
        headers.insert(REQUEST_ID, NO_ID);
        Ok(Self {
            pool: shared.clients.pool(&endpoint.transport, is_https)?,
            headers,
            tokens: shared.tokens(endpoint)?,
            has_answered: AtomicBool::new(false),
            digests: RandomState::new(),
            table,
        })
    }

    /// Returns where its connections are.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Returns whether the calls do no harm if they are sent twice.
    pub fn is_repeatable(&self) -> bool {
        self.table.protocol.is_repeatable
    }

    /// Returns whether the calls are writes.
    pub fn writes(&self) -> bool {
        self.table.protocol.content == Content::Written
    }

    /// Returns the digest of what a call asks of a target. Nothing that may hold a password is in it.
    pub fn digest(&self, url: &Url, call: &OutgoingCall) -> CallDigest {
        let mut hasher = self.digests.build_hasher();
        url.hash(&mut hasher);
        call.name.hash(&mut hasher);
        if self.table.protocol.secrets.is_empty() && !self.writes() {
            call.headers.hash(&mut hasher);
            call.body.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Returns the progress of an attempt that begins at this moment.
    pub fn progress(&self, started: Instant) -> Progress {
        Progress {
            sent_at: self.tokens.is_none().then_some(started),
            status: None,
            not_followed: None,
            steps: Steps::new(started),
            is_write: self.writes(),
        }
    }

    /// Sends a call, with a token if the table needs one, and after a 401 once more with a fresh
    /// one.
    pub async fn send(
        &self,
        url: &Url,
        call: &OutgoingCall,
        progress: &mut Progress,
    ) -> Result<Response, SendError> {
        match &self.tokens {
            None => self.send_with(None, url, call, progress).await,
            // Boxed, so that other calls have no room for it.
            Some(tokens) => Box::pin(self.send_as(tokens, url, call, progress)).await,
        }
    }

    async fn send_as(
        &self,
        tokens: &Arc<Tokens>,
        url: &Url,
        call: &OutgoingCall,
        progress: &mut Progress,
    ) -> Result<Response, SendError> {
        let token = tokens
            .authorization(&call.id)
            .await
            .map_err(SendError::Credentials)?;
        progress.sent_at = Some(Instant::now());
        let response = self.send_with(Some(&token), url, call, progress).await?;
        let status = response.status();
        if status != StatusCode::UNAUTHORIZED || !tokens.reject(&token) {
            return Ok(response);
        }
        verbose::means(|| "401: sent again with a fresh token".to_owned());
        progress.status = Some(status.as_u16());
        drain(response).await;
        progress.sent_at = None;
        let token = tokens
            .authorization(&call.id)
            .await
            .map_err(SendError::Credentials)?;
        progress.sent_at = Some(Instant::now());
        let response = self.send_with(Some(&token), url, call, progress).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            tokens.fresh_rejected();
        }
        Ok(response)
    }

    /// Sends a call until there is an answer or no retry is left, and follows its redirects.
    async fn send_with(
        &self,
        token: Option<&HeaderValue>,
        url: &Url,
        call: &OutgoingCall,
        progress: &mut Progress,
    ) -> Result<Response, SendError> {
        let mut again = Again::default();
        let mut redirected: Option<Box<Url>> = None;
        let mut sent_at = progress.sent_at.unwrap_or_else(Instant::now);
        loop {
            let to = redirected.as_deref().unwrap_or(url);
            let sending = self.begin(&again, to, call, token, progress);
            let answer = progress.steps.follow(sent_at, sending).await;
            let to = redirected.as_deref().unwrap_or(url);
            let wait = match self.judge(answer, &mut again, to, call, progress) {
                Next::End(answer) => return answer.map_err(SendError::Http),
                Next::Send => None,
                Next::SendAfter(wait) => Some(wait),
                Next::Follow(next, wait) => {
                    redirected = Some(next);
                    Some(wait)
                }
            };
            if let Some(wait) = wait {
                wait.await;
            }
            sent_at = Instant::now();
        }
    }

    /// Begins to send a call.
    fn begin(
        &self,
        again: &Again,
        url: &Url,
        call: &OutgoingCall,
        token: Option<&HeaderValue>,
        progress: &Progress,
    ) -> impl Future<Output = reqwest::Result<Response>> + use<> {
        let request = self.request(url, call, token, progress);
        if let Some(shown) = &call.shown {
            shown.request(&request);
        }
        let may_be_resent = self.is_repeatable() && self.has_retry(again);
        self.pool.client(url, may_be_resent).execute(request)
    }

    /// Decides what comes after an answer, or after none.
    fn judge(
        &self,
        answer: reqwest::Result<Response>,
        again: &mut Again,
        url: &Url,
        call: &OutgoingCall,
        progress: &mut Progress,
    ) -> Next {
        let error = match answer {
            Ok(response) => return self.judge_response(response, again, url, call, progress),
            Err(error) => error,
        };
        let why = || explained(&error, &self.way(url, progress));
        if again.refusals < MAX_REFUSALS && self.is_unprocessed(&error, call) {
            verbose::means(|| format!("not processed, so sent again: {}", why()));
            let pause = pause_before(again.refusals);
            again.refusals += 1;
            return Next::SendAfter(Box::pin(sleep(pause)));
        }
        if self.has_retry(again) && self.may_repeat(&error) {
            verbose::means(|| format!("sent again: {}", why()));
            again.retries += 1;
            return Next::Send;
        }
        Next::End(Err(error))
    }

    fn judge_response(
        &self,
        response: Response,
        again: &mut Again,
        url: &Url,
        call: &OutgoingCall,
        progress: &mut Progress,
    ) -> Next {
        // Read first: a write would take the cache line from the other threads, each time.
        if !self.has_answered.load(Ordering::Relaxed) {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        if let Some(shown) = &call.shown {
            shown.response(&response);
        }
        if response.status().is_server_error() && response.version() < Version::HTTP_2 {
            self.pool.may_be_closing(url);
        }
        match self.redirect(url, &response) {
            None => {}
            Some(Ok(next)) if again.redirects < MAX_REDIRECTS => {
                again.redirects += 1;
                let next = Box::new(next);
                return Next::Follow(next, Box::pin(drain_and_follow(response)));
            }
            Some(Ok(_)) => progress.not_followed = Some("too many redirects".into()),
            Some(Err(why)) => progress.not_followed = Some(why.into()),
        }
        Next::End(Ok(response))
    }

    /// Returns where a call goes, and how far it has come.
    pub fn way<'c>(&'c self, url: &'c Url, progress: &'c Progress) -> Way<'c> {
        Way {
            steps: &progress.steps,
            url,
            transport: &self.table.endpoint.transport,
            is_known: self.has_answered.load(Ordering::Relaxed),
            is_sent_once: !self.is_repeatable(),
        }
    }

    /// Returns whether a call was provably not processed, so that it may be sent again whatever it
    /// asks.
    pub fn is_unprocessed(&self, error: &reqwest::Error, call: &OutgoingCall) -> bool {
        let endpoint = &self.table.endpoint;
        // Where a request has a body, a server cannot have acted on its head alone.
        let has_body = call.body.as_ref().is_some_and(|body| !body.is_empty());
        is_unprocessed(error)
            || (has_body || self.is_repeatable())
                && is_dropped_before_its_body(error, endpoint.transport.http_version)
    }

    fn has_retry(&self, again: &Again) -> bool {
        again.retries < self.table.endpoint.retries
    }

    /// Returns whether a failed call may be sent again.
    fn may_repeat(&self, error: &reqwest::Error) -> bool {
        if self.is_repeatable() {
            is_broken_connection(error)
        } else {
            // A policy server counts, so a request that may have arrived must not arrive twice.
            error.is_connect() && !error.is_timeout()
        }
    }

    /// Returns where a redirect leads, or why it is not followed; nothing for any other answer.
    fn redirect(&self, from: &Url, response: &Response) -> Option<Result<Url, String>> {
        let status = response.status();
        if !status.is_redirection() {
            return None;
        }
        let location = response.headers().get(LOCATION);
        let redirect = Redirect {
            from,
            status: status.as_u16(),
            location: location.and_then(|location| location.to_str().ok()),
        };
        let endpoint = &self.table.endpoint;
        Some(redirect.follow(endpoint.follows_redirects, &endpoint.method))
    }

    fn request(
        &self,
        url: &Url,
        call: &OutgoingCall,
        token: Option<&HeaderValue>,
        progress: &Progress,
    ) -> reqwest::Request {
        let method = &self.table.endpoint.method;
        let mut request = reqwest::Request::new(method.clone(), url.clone());
        let mut headers = self.headers.clone();
        headers.insert(REQUEST_ID, call.id.clone());
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        for (name, value) in &call.headers {
            headers.insert(name, value.clone());
        }
        let body = match *method {
            Method::GET => Bytes::new(),
            _ => call.body.clone().unwrap_or_default(),
        };
        if body.is_empty() && *method != Method::GET {
            // Some servers answer 411 to a POST without it (RFC 9110, section 8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        *request.body_mut() = Some(noted(body, &progress.steps));
        *request.headers_mut() = headers;
        request
    }

    /// Gives a call its permits, and its body the compression that the table asks for.
    pub fn prepare(&self, call: &mut OutgoingCall, permits: InFlightPermits) {
        call.permits = Some(Arc::new(permits));
        call.body = call.body.take().map(|body| self.encoded(body));
    }

    fn encoded(&self, body: Bytes) -> Bytes {
        if self.table.endpoint.transport.compression != Compression::Both {
            return body;
        }
        let room = match self.table.protocol.secrets {
            [] => 0,
            // More than gzip makes of any body: a buffer that grows would leave copies behind.
            _ => body.len() + body.len() / 8 + 1024,
        };
        let mut encoder = GzEncoder::new(Vec::with_capacity(room), flate2::Compression::fast());
        // A write into memory does not fail.
        let _ = encoder.write_all(&body);
        let encoded = encoder.finish().unwrap_or_default();
        match room {
            0 => encoded.into(),
            _ => Bytes::from_owner(Zeroizing::new(encoded)),
        }
    }
}

async fn drain_and_follow(response: Response) {
    drain(response).await;
    verbose::means(|| "the redirect is followed".to_owned());
}

fn id_header(id: RequestId) -> HeaderValue {
    // Longer than any id.
    let mut buffer = [0; 64];
    let mut rest = &mut buffer[..];
    // An id that does not fit would be sent as far as it does.
    let _ = write!(rest, "{id}");
    let spare = rest.len();
    let text = &buffer[..buffer.len() - spare];
    HeaderValue::from_bytes(text).unwrap_or(NO_ID)
}

/// Returns how long to wait before a call is sent again that the server did not process.
///
/// A server that refuses one call for a reason of the connection takes it at once over the next
/// one; a server that refuses every call must not be asked in a tight loop.
fn pause_before(refusals: usize) -> Duration {
    match refusals {
        0 | 1 => Duration::ZERO,
        2..8 => Duration::from_millis(1 << (refusals - 2)),
        _ => Duration::from_millis(50),
    }
}
