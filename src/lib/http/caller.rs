//! One endpoint's calls: the only code that asks a backend.

use std::borrow::Cow;
use std::io::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::GzEncoder;
use reqwest::header::{
    AUTHORIZATION, AsHeaderName, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue, LOCATION,
};
use reqwest::{Method, StatusCode, Url, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::info;

use super::answer;
use super::body::{body, drain};
use super::breaker::{Breaker, Change};
use super::call::{Call, compose};
use super::client::headers;
use super::error::{
    cause, is_broken_connection, is_dead_connection, is_dropped_before_its_body, is_local_shortage,
    is_no_http, is_shared_loss, is_unprocessed,
};
use super::freshness::{Fetched, Lifetime, lifetime};
use super::oauth::Tokens;
use super::pool::Pool;
use super::redirect::{self, Redirect};
use super::shared::Shared;
use crate::config::{self, Compression, Verdict};
use crate::observe::log::RequestId;
use crate::observe::metrics::Meter;
use crate::outcome::{Failure, Outcome, Reason};
use crate::request::Request;
use crate::serve::timers::Timers;
use crate::serve::workers::PerWorker;

/// How often a call is sent again that the server did not process. A server that ends its
/// connections after a few calls refuses what many have asked over one of them in the meantime.
const MAX_REFUSALS: usize = 32;

/// A server that refuses one call takes the next at once over another connection; one that refuses
/// all of them should not be asked as fast as it can refuse.
fn pause_before(refusals: usize) -> Duration {
    match refusals {
        0 | 1 => Duration::ZERO,
        2..8 => Duration::from_millis(1 << (refusals - 2)),
        _ => Duration::from_millis(50),
    }
}

/// Makes the calls of one table, with the connections and the limit that they share.
#[derive(Debug)]
pub struct Caller {
    table: config::Table,
    pool: Arc<Pool>,
    timers: PerWorker<Timers>,
    headers: HeaderMap,
    in_flight: Arc<Semaphore>,
    /// The calls of all tables together.
    calls: Arc<Semaphore>,
    tokens: Option<Arc<Tokens>>,
    /// One for each target, in their order, and what it is called.
    breakers: Vec<Breaker>,
    names: Vec<String>,
    meter: Meter,
}

/// A call on its way: what stays the same however often it is sent.
struct OutgoingCall<'c> {
    composed: &'c Call,
    /// Shared by all tries: a copy for each would be a multiple of what Postfix has sent.
    body: Option<Bytes>,
    id: HeaderValue,
    /// Among the calls in flight, for as long as anything of this one is.
    permits: Arc<InFlightPermits>,
}

/// A place among the calls in flight: of its table, and of all tables.
#[derive(Debug)]
struct InFlightPermits {
    _of_table: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// How far the call of a target has come.
struct Progress {
    /// Since when the target is asked; not while a token is waited for.
    sent_at: Option<Instant>,
    status: Option<u16>,
}

impl Caller {
    /// Makes a caller of what is configured.
    pub fn new(table: config::Table, shared: &mut Shared) -> Result<Self, String> {
        let endpoint = &table.endpoint;
        let is_https = endpoint.targets.iter().any(config::Target::is_https);
        Ok(Self {
            pool: shared.clients.pool(&endpoint.transport, is_https)?,
            timers: PerWorker::default(),
            headers: headers(endpoint),
            in_flight: Arc::new(Semaphore::new(endpoint.max_in_flight)),
            calls: Arc::clone(&shared.calls),
            tokens: shared.tokens(endpoint)?,
            breakers: endpoint
                .targets
                .iter()
                .map(|_| Breaker::new(endpoint.breaker))
                .collect(),
            names: target_names(&endpoint.targets),
            meter: shared.metrics.meter(&table.name),
            table,
        })
    }

    /// Returns the configuration it was made of.
    pub fn table(&self) -> &config::Table {
        &self.table
    }

    /// Returns where its connections are.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Returns where its calls and requests are counted.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Returns how many calls are under way.
    pub fn in_flight(&self) -> usize {
        let free = self.in_flight.available_permits();
        self.table.endpoint.max_in_flight.saturating_sub(free)
    }

    /// Returns each target, and whether it is asked.
    pub fn targets(&self) -> Vec<(String, bool)> {
        let targets = self.names.iter().zip(&self.breakers);
        targets
            .map(|(name, breaker)| (name.clone(), breaker.is_up()))
            .collect()
    }

    fn is_repeatable(&self) -> bool {
        self.table.protocol.is_repeatable
    }

    /// Asks, if there is anything to be asked, within the time there is for it.
    pub async fn ask(&self, request: &Request, id: RequestId) -> Fetched {
        let mut composed = match compose(&self.table, request) {
            Ok(composed) => composed,
            Err(outcome) => return outcome.into(),
        };
        // No use to wait for a place if nobody is to be asked.
        if self.breakers.iter().all(Breaker::would_reject) {
            return Outcome::Temporary(Reason::Down.into()).into();
        }
        let deadline = Instant::now() + self.table.endpoint.request_timeout;
        let Ok(Some(permits)) = timeout_at(deadline, self.acquire_permits()).await else {
            return Outcome::Temporary(Reason::Busy.into()).into();
        };
        let call = OutgoingCall {
            permits: Arc::new(permits),
            body: composed.body.take().map(|body| self.body(body)),
            composed: &composed,
            id: HeaderValue::try_from(id.to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("-")),
        };
        self.try_targets(&call, deadline).await
    }

    /// Waits for a place in flight.
    async fn acquire_permits(&self) -> Option<InFlightPermits> {
        Some(InFlightPermits {
            _of_table: Arc::clone(&self.in_flight).acquire_owned().await.ok()?,
            _of_all: Arc::clone(&self.calls).acquire_owned().await.ok()?,
        })
    }

    /// Asks the targets in their order, until one knows an answer.
    async fn try_targets(&self, call: &OutgoingCall<'_>, deadline: Instant) -> Fetched {
        let mut last = Outcome::Temporary(Reason::Down.into());
        for at in self.target_order() {
            let (Some(url), Some(breaker)) = (call.composed.urls.get(at), self.breakers.get(at))
            else {
                continue;
            };
            let Some(permit) = breaker.permit() else {
                continue;
            };
            let started = Instant::now();
            let mut progress = Progress {
                sent_at: self.tokens.is_none().then_some(started),
                status: None,
            };
            let attempt = {
                let attempt = pin!(self.try_target(url, call, &mut progress));
                self.timers.local().until(deadline, attempt).await
            };
            let (fetched, health, try_next) =
                attempt.unwrap_or_else(|| self.timed_out(&progress, breaker));
            if progress.sent_at.is_some() || progress.status.is_some() {
                self.meter.call(progress.status, started.elapsed());
            }
            let log_change = |change| self.log_change(change, at);
            match health {
                Health::Healthy => permit.record_success(log_change),
                Health::Unhealthy => permit.record_failure(log_change),
                Health::LostConnection => permit.record_lost_connection(started, log_change),
                Health::Inconclusive => {}
            }
            if !try_next {
                return fetched;
            }
            last = fetched.outcome;
        }
        last.into()
    }

    /// Says what becomes of a call at its deadline. A target that had little time for this answer,
    /// or none, since others had taken it, is not blamed while it answers those others.
    fn timed_out(&self, progress: &Progress, breaker: &Breaker) -> (Fetched, Health, bool) {
        let time = self.table.endpoint.request_timeout;
        let (failure, health) = match progress.sent_at {
            None => (
                Failure::new(Reason::CredentialsUnavailable, "timed out"),
                Health::Inconclusive,
            ),
            Some(sent_at) if sent_at.elapsed() < time / 2 && breaker.has_answered_within(time) => {
                (Reason::TimedOut.into(), Health::Inconclusive)
            }
            Some(_) => (Reason::TimedOut.into(), Health::Unhealthy),
        };
        (Outcome::Temporary(failure).into(), health, false)
    }

    /// Returns the targets in their order; those that failed lately come last.
    fn target_order(&self) -> Vec<usize> {
        let mut target_order: Vec<usize> = (0..self.breakers.len()).collect();
        if target_order.len() > 1 {
            target_order
                .sort_by_cached_key(|at| self.breakers.get(*at).is_some_and(Breaker::is_deferred));
        }
        target_order
    }

    /// Says, once, that a target is down or up again.
    fn log_change(&self, change: Change, at: usize) {
        let table = &self.table.name;
        let target = self.names.get(at).map_or("", String::as_str);
        match change {
            Change::Down { suppressed: 0 } => info!(
                table,
                "{table}: down: {target} is skipped until it answers a probe"
            ),
            Change::Down { suppressed } => info!(
                table,
                "{table}: down: {target} is skipped until it answers a probe; \
                 {suppressed} times down and up again since the last such line"
            ),
            Change::Up => info!(table, "{table}: up: {target} answers again"),
        }
    }

    /// Asks one target; tells how it is, and whether the next one may know better.
    async fn try_target(
        &self,
        url: &Url,
        call: &OutgoingCall<'_>,
        progress: &mut Progress,
    ) -> (Fetched, Health, bool) {
        let response = match self.send_with_credentials(url, call, progress).await {
            Ok(response) => response,
            Err(SendError::Credentials(failure)) => {
                return (
                    Outcome::Temporary(failure).into(),
                    Health::Inconclusive,
                    false,
                );
            }
            Err(SendError::Http(error)) => {
                // A policy request may have been counted if any of it was sent.
                let try_next = error.is_connect()
                    || self.is_unprocessed(&error)
                    || self.is_repeatable() && is_broken_connection(&error);
                let health = if is_no_http(&error) {
                    Health::Healthy
                } else if is_local_shortage(&error) {
                    Health::Inconclusive
                } else if is_shared_loss(&error) {
                    Health::LostConnection
                } else {
                    Health::Unhealthy
                };
                return (Outcome::Temporary(failure(&error)).into(), health, try_next);
            }
        };
        let reading = &self.table.endpoint.reading;
        let status = response.status().as_u16();
        progress.status = Some(status);
        let lifetime = self.lifetime(&response);
        let is_from_the_api = has_all(&response, &reading.require_header);
        let verdict = match is_from_the_api {
            true => answer::verdict(status, reading),
            false => Verdict::Temporary,
        };
        let health = match verdict {
            Verdict::Temporary if matches!(status, 502..=504) => Health::Unhealthy,
            _ => Health::Healthy,
        };
        match verdict {
            Verdict::Found => {}
            verdict => {
                let mut outcome = answer::without_body(status, verdict);
                if let Outcome::Temporary(failure) | Outcome::Permanent(failure) = &mut outcome
                    && (300..400).contains(&status)
                {
                    let why = self.redirect(response.url(), &response).err();
                    failure.detail = why.map_or(Cow::Borrowed("too many redirects"), Cow::Owned);
                }
                let try_next = !is_from_the_api || verdict == Verdict::Temporary && status >= 500;
                let (outcome, lifetime) = match is_from_the_api {
                    true => (outcome, lifetime),
                    false => (answer::not_from_the_api(status), Lifetime::default()),
                };
                if response.content_length() != Some(0) {
                    let permits = Arc::clone(&call.permits);
                    tokio::spawn(async move {
                        drain(response).await;
                        drop(permits);
                    });
                }
                return (
                    Fetched { outcome, lifetime },
                    health,
                    try_next && self.is_repeatable(),
                );
            }
        }
        let content_type = header(&response, CONTENT_TYPE)
            .unwrap_or_default()
            .to_owned();
        let outcome = match body(response, self.table.endpoint.max_response).await {
            Ok(body) => answer::read(&content_type, &body, reading),
            Err(failure) => Outcome::Temporary(failure),
        };
        (Fetched { outcome, lifetime }, health, false)
    }

    /// Returns what the backend says of its answer's lifetime, where that is asked for.
    fn lifetime(&self, response: &reqwest::Response) -> Lifetime {
        let cache = self.table.endpoint.cache.as_ref();
        if !cache.is_some_and(|cache| cache.honour_http) {
            return Lifetime::default();
        }
        // Of this header several lines are one list.
        let lines = response.headers().get_all(CACHE_CONTROL).iter();
        let control: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
        let control = control.join(",");
        lifetime(|name| match name {
            "cache-control" => Some(&control),
            name => header(response, name),
        })
    }

    /// Sends a call with a token, if one is needed; with a new one after a 401, once.
    async fn send_with_credentials(
        &self,
        url: &Url,
        call: &OutgoingCall<'_>,
        progress: &mut Progress,
    ) -> Result<reqwest::Response, SendError> {
        let Some(tokens) = &self.tokens else {
            return self.send(url, call, None).await;
        };
        let token = tokens
            .authorization(&call.id)
            .await
            .map_err(SendError::Credentials)?;
        progress.sent_at = Some(Instant::now());
        let response = self.send(url, call, Some(&token)).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !tokens.reject(&token) {
            return Ok(response);
        }
        progress.status = Some(response.status().as_u16());
        Box::pin(drain(response)).await;
        progress.sent_at = None;
        let token = tokens
            .authorization(&call.id)
            .await
            .map_err(SendError::Credentials)?;
        progress.sent_at = Some(Instant::now());
        let response = self.send(url, call, Some(&token)).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            tokens.distrust();
        }
        Ok(response)
    }

    /// Sends a call and waits for the head of its answer, following redirects if that is wanted.
    async fn send(
        &self,
        url: &Url,
        call: &OutgoingCall<'_>,
        token: Option<&HeaderValue>,
    ) -> Result<reqwest::Response, SendError> {
        let mut retries = self.table.endpoint.retries;
        let mut refusals = 0;
        let mut redirects = 0;
        let mut url = Cow::Borrowed(url);
        loop {
            let request = self.request(&url, call, token);
            let client = self.pool.client(&url, self.is_repeatable() && retries > 0);
            let answer = client.execute(request).await;
            if let Ok(response) = &answer
                && response.status().is_server_error()
                && response.version() < Version::HTTP_2
            {
                self.pool.may_be_closing(&url);
            }
            match answer {
                Ok(response) if !response.status().is_redirection() => return Ok(response),
                Ok(response) => match self.redirect(&url, &response) {
                    Ok(next) if redirects < redirect::MAX_REDIRECTS => {
                        // Rare, so it takes no room in every connection.
                        Box::pin(drain(response)).await;
                        redirects += 1;
                        url = Cow::Owned(next);
                    }
                    _ => return Ok(response),
                },
                Err(error) if refusals < MAX_REFUSALS && self.is_unprocessed(&error) => {
                    // Rare, so it takes no room in every connection.
                    Box::pin(sleep(pause_before(refusals))).await;
                    refusals += 1;
                }
                Err(error) if retries > 0 && self.may_repeat(&error) => retries -= 1,
                Err(error) => return Err(SendError::Http(error)),
            }
        }
    }

    /// Returns whether a call was not processed, so that it may be sent again whatever it asks. A head
    /// alone is no request where a body belongs to it.
    fn is_unprocessed(&self, error: &reqwest::Error) -> bool {
        let endpoint = &self.table.endpoint;
        let has_body = endpoint.method != Method::GET;
        is_unprocessed(error)
            || (has_body || self.is_repeatable())
                && is_dropped_before_its_body(error, endpoint.transport.http_version)
    }

    /// A lookup is sent again if the connection broke before an answer; a policy request, which
    /// may have been counted, only if there was no connection at all.
    fn may_repeat(&self, error: &reqwest::Error) -> bool {
        if self.is_repeatable() {
            is_broken_connection(error)
        } else {
            error.is_connect() && !error.is_timeout()
        }
    }

    /// Returns where a redirect is followed to, or why it is not.
    fn redirect(&self, from: &Url, response: &reqwest::Response) -> Result<Url, String> {
        let redirect = Redirect {
            from,
            status: response.status().as_u16(),
            location: header(response, LOCATION),
        };
        let endpoint = &self.table.endpoint;
        redirect.follow(endpoint.follows_redirects, &endpoint.method)
    }

    fn request(
        &self,
        url: &Url,
        call: &OutgoingCall<'_>,
        token: Option<&HeaderValue>,
    ) -> reqwest::Request {
        let method = &self.table.endpoint.method;
        let mut request = reqwest::Request::new(method.clone(), url.clone());
        let mut headers = self.headers.clone();
        headers.insert(HeaderName::from_static("x-request-id"), call.id.clone());
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        for (name, value) in &call.composed.headers {
            headers.insert(name, value.clone());
        }
        if *method != Method::GET {
            let body = call.body.clone().unwrap_or_default();
            if body.is_empty() {
                // Some servers want to be told.
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            *request.body_mut() = Some(body.into());
        }
        *request.headers_mut() = headers;
        request
    }

    /// Returns the body as it is sent.
    fn body(&self, body: Vec<u8>) -> Bytes {
        if self.table.endpoint.transport.compression != Compression::Both {
            return body.into_boxed_slice().into();
        }
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        // To write into memory does not fail.
        let _ = encoder.write_all(&body);
        encoder.finish().unwrap_or_default().into()
    }
}

/// Why there is no answer to be looked at.
enum SendError {
    Credentials(Failure),
    Http(reqwest::Error),
}

/// How a target has shown itself.
enum Health {
    Healthy,
    Unhealthy,
    /// It has lost a connection that other calls may have shared.
    LostConnection,
    /// It was not asked at all, or not for long.
    Inconclusive,
}

/// Returns what the targets are called: where they are, and, where that is not enough, their number.
fn target_names(targets: &[config::Target]) -> Vec<String> {
    let count = |origin: &str| targets.iter().filter(|t| t.origin == origin).count();
    let name = |(at, target): (usize, &config::Target)| match count(&target.origin) {
        1 => target.origin.clone(),
        _ => format!("{} #{}", target.origin, at + 1),
    };
    targets.iter().enumerate().map(name).collect()
}

/// Returns whether an answer has all of these headers, each with its value in one of its lines.
fn has_all(response: &reqwest::Response, required: &[(HeaderName, HeaderValue)]) -> bool {
    required.iter().all(|(name, value)| {
        let mut lines = response.headers().get_all(name).iter();
        lines.any(|line| line == value)
    })
}

fn header(response: &reqwest::Response, name: impl AsHeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

fn failure(error: &reqwest::Error) -> Failure {
    let reason = if error.is_timeout() && !is_dead_connection(error) {
        return Reason::TimedOut.into();
    } else if is_no_http(error) {
        Reason::NotUnderstood
    } else {
        Reason::Unreachable
    };
    Failure::new(reason, cause(error))
}
