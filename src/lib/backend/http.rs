//! The HTTP client: the only code that talks to a backend.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, redirect};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer;
use super::call::{Call, compose};
use crate::config::{self, Credential, Response, Verdict};
use crate::outcome::{Failure, Outcome, Reason};
use crate::reply::Words;
use crate::request::Request;

/// How long an idle connection to a backend is kept.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// One table's endpoint, with the connections and the limit that its calls share.
#[derive(Debug)]
pub struct Endpoint {
    table: config::Table,
    client: Client,
    headers: HeaderMap,
    in_flight: Semaphore,
}

impl Endpoint {
    /// Makes an endpoint of what is configured.
    pub fn new(table: config::Table, clients: &mut Clients) -> Result<Self, reqwest::Error> {
        let endpoint = &table.endpoint;
        Ok(Self {
            client: clients.client(endpoint)?,
            headers: headers(endpoint),
            in_flight: Semaphore::new(endpoint.max_in_flight),
            table,
        })
    }

    /// Returns the configuration it was made of.
    pub fn table(&self) -> &config::Table {
        &self.table
    }

    async fn call(&self, call: &Call, id: &str) -> Outcome {
        let endpoint = &self.table.endpoint;
        let response = match self.send(call, id).await {
            Ok(response) => response,
            Err(failure) => return Outcome::Temporary(failure),
        };
        let status = response.status().as_u16();
        match answer::verdict(status, &endpoint.reading) {
            Verdict::Found => {}
            verdict => {
                drain(response);
                return answer::without_body(status, verdict);
            }
        }
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        match body(response, endpoint.max_response).await {
            Ok(body) => answer::read(&content_type, &body, &endpoint.reading),
            Err(failure) => Outcome::Temporary(failure),
        }
    }

    /// Sends a call and waits for the head of its answer. A lookup is sent once more if the
    /// connection broke before that; a policy request is not, as it may have been counted.
    async fn send(&self, call: &Call, id: &str) -> Result<reqwest::Response, Failure> {
        let first = match self.client.execute(self.request(call, id)).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if !self.table.program.is_lookup() || !is_broken_connection(&first) {
            return Err(failure(&first));
        }
        let second = self.client.execute(self.request(call, id)).await;
        second.map_err(|error| failure(&error))
    }

    fn request(&self, call: &Call, id: &str) -> reqwest::Request {
        let method = &self.table.endpoint.method;
        let mut request = reqwest::Request::new(method.clone(), call.url.clone());
        *request.headers_mut() = self.headers.clone();
        if let Ok(id) = HeaderValue::from_str(id) {
            request
                .headers_mut()
                .insert(HeaderName::from_static("x-request-id"), id);
        }
        if *method != Method::GET {
            *request.body_mut() = Some(call.form.clone().unwrap_or_default().into());
        }
        request
    }
}

impl super::Table for Endpoint {
    fn name(&self) -> &str {
        &self.table.name
    }

    fn words(&self) -> &Words {
        &self.table.endpoint.words
    }

    async fn answer(&self, request: &Request, id: &str) -> Outcome {
        let call = match compose(&self.table, request) {
            Ok(call) => call,
            Err(outcome) => return outcome,
        };
        let deadline = Instant::now() + self.table.endpoint.request_timeout;
        let Ok(_permit) = timeout_at(deadline, self.in_flight.acquire()).await else {
            return Outcome::Temporary(Reason::Busy.into());
        };
        match timeout_at(deadline, self.call(&call, id)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Temporary(Reason::TimedOut.into()),
        }
    }
}

/// The clients that endpoints share: one for each way to connect.
#[derive(Debug, Default)]
pub struct Clients {
    by_setting: HashMap<(Duration, bool), Client>,
}

impl Clients {
    fn client(&mut self, endpoint: &config::Endpoint) -> Result<Client, reqwest::Error> {
        let setting = (endpoint.connect_timeout, endpoint.target.is_https());
        if let Some(client) = self.by_setting.get(&setting) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .http1_only()
            .referer(false)
            .connect_timeout(endpoint.connect_timeout)
            .pool_idle_timeout(POOL_IDLE);
        if !endpoint.target.is_https() {
            // The system's certificates cost memory and time, and a machine may have none.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build()?;
        self.by_setting.insert(setting, client.clone());
        Ok(client)
    }
}

/// The headers that every call of an endpoint has. All of them were proved to be sound when the
/// configuration was read.
fn headers(endpoint: &config::Endpoint) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, text: &str| {
        if let Ok(mut value) = HeaderValue::from_str(text) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    };
    let accept = match endpoint.reading.response {
        Response::Json => "application/json",
        Response::Text => "text/plain",
        Response::Auto => "application/json, text/plain",
    };
    put(ACCEPT, accept);
    put(reqwest::header::USER_AGENT, &endpoint.user_agent);
    if endpoint.form != config::Parameters::None {
        put(CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    if let Some(token) = &endpoint.auth_token {
        put(HeaderName::from_static("x-auth-token"), token.expose());
    }
    match &endpoint.credential {
        None => {}
        Some(Credential::Bearer(token)) => {
            put(AUTHORIZATION, &format!("Bearer {}", token.expose()));
        }
        Some(Credential::Basic { user, password }) => {
            let pair = BASE64.encode(format!("{}:{}", user.expose(), password.expose()));
            put(AUTHORIZATION, &format!("Basic {pair}"));
        }
    }
    for (name, value) in &endpoint.headers {
        put(name.clone(), value.expose());
    }
    headers
}

/// Reads a body up to its limit.
async fn body(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, Failure> {
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
/// be used again; not for long, and not much.
fn drain(mut response: reqwest::Response) {
    const MOST: usize = 64 * 1024;
    const LONGEST: Duration = Duration::from_secs(1);
    if response.content_length() == Some(0) {
        return;
    }
    tokio::spawn(timeout(LONGEST, async move {
        let mut seen = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            seen += chunk.len();
            if seen > MOST {
                break;
            }
        }
    }));
}

/// Tells whether a connection broke before it had brought an answer.
fn is_broken_connection(error: &reqwest::Error) -> bool {
    !error.is_timeout() && !error.is_connect() && !error.is_builder() && !is_no_http(error)
}

fn is_no_http(error: &reqwest::Error) -> bool {
    sources(error)
        .filter_map(|e| e.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_parse)
}

fn failure(error: &reqwest::Error) -> Failure {
    let reason = if error.is_timeout() {
        return Reason::TimedOut.into();
    } else if is_no_http(error) {
        Reason::NotUnderstood
    } else {
        Reason::Unreachable
    };
    Failure::new(reason, cause(error))
}

/// The innermost error: the outer ones hold the URL.
fn cause(error: &reqwest::Error) -> String {
    sources(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

fn sources(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}
