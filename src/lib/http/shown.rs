//! A call as `--query --verbose` shows it: as it is sent and answered, without its secrets.
//!
//! Credentials and constants of the configuration are replaced where they are sent. A backend may
//! repeat them, so their bytes are replaced in its answers as well.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::body::Body as _;
use percent_encoding::percent_encode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, Url, Version};
use tokio::time::timeout;

use super::body::{self, Wanted};
use super::call::{Call, ESCAPED, compose};
use super::looks;
use super::secrets::Secrets;
use crate::config::{ClientAuth, Credential, HIDDEN, Table, without_query};
use crate::observe::verbose::{self, Side, in_one_line, seen, show};
use crate::outcome::is_unseen;
use crate::request::{Request, Secret};
use crate::sync::Mutex;

/// The most bytes of a body that are shown.
const MAX_BODY: usize = 1024;

/// How long to wait for a body that decides nothing.
const BODY_TIMEOUT: Duration = Duration::from_millis(500);

/// A shorter credential, or a shorter constant, would be found in answers that do not repeat it.
const SHORTEST_CREDENTIAL: usize = 4;
const SHORTEST_CONSTANT: usize = 8;

/// A call as it is shown.
#[derive(Debug)]
pub struct Shown {
    call: Call,
    /// The URLs as they are sent.
    urls: Vec<Url>,
    secrets: Mutex<Secrets>,
    /// The last call and the head of its answer.
    last: Mutex<String>,
    /// Whether nothing of an answer is shown but its status and what its body is.
    hides_answers: bool,
}

impl Shown {
    /// Returns how a call is shown, if calls are shown.
    pub fn of(table: &Table, request: &Request, call: &Call) -> Option<Box<Self>> {
        if !verbose::is_query() {
            return None;
        }
        let masked = Table {
            endpoint: table.endpoint.masked(),
            ..table.clone()
        };
        let mut secrets = Secrets::default();
        for constant in table.endpoint.constants() {
            let shortest = match constant.is_credential {
                true => SHORTEST_CREDENTIAL,
                false => SHORTEST_CONSTANT,
            };
            secrets.put(&constant.text, shortest);
        }
        if let Some(Credential::OAuth(settings)) = &table.endpoint.credential
            && let ClientAuth::Basic(secret) | ClientAuth::Post(secret) = &settings.client_auth
        {
            secrets.put(secret.expose(), SHORTEST_CREDENTIAL);
        }
        let mut request = Cow::Borrowed(request);
        if let Some(secret) = &request.secret {
            secrets.put(secret.expose(), SHORTEST_CREDENTIAL);
            let hidden = Secret::new(secret.name(), HIDDEN);
            request.to_mut().secret = Some(Box::new(hidden));
        }
        Some(Box::new(Self {
            // It was composed before, with other constants.
            call: compose(&masked, &request).ok()?,
            urls: call.urls.clone(),
            hides_answers: table.protocol.answers_secrets,
            secrets: Mutex::new(secrets),
            last: Mutex::default(),
        }))
    }

    /// Shows a request that is sent.
    pub fn request(&self, request: &reqwest::Request) {
        let mut headers = request.headers().clone();
        self.learn(&headers);
        let (method, url) = (request.method().as_str(), self.url(request.url()));
        if !verbose::is_on() {
            verbose::keep(None);
            *self.last.lock() = plain(&format!("{method} {url}"));
            return;
        }
        for (name, value) in &self.call.headers {
            headers.insert(name, value.clone());
        }
        if let Some(length) = length(request) {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        let body = self.call.body.as_deref();
        let mut text = head_of_request(method, &url, &headers);
        if let Some(body) = body.filter(|body| !body.is_empty()) {
            text.push('\n');
            text.push_str(&beginning(body));
        }
        show(Side::Sent, &plain(&text));
    }

    /// Returns the URL as it is shown. A redirect may lead to one that repeats the query.
    fn url(&self, url: &Url) -> Url {
        let at = self.urls.iter().position(|known| known == url);
        if let Some(shown) = at.and_then(|at| self.call.urls.get(at)) {
            return shown.clone();
        }
        without_query(url)
    }

    /// Notes the credentials in the headers of a request.
    fn learn(&self, headers: &HeaderMap) {
        let mut secrets = self.secrets.lock();
        for value in headers.values().filter(|value| value.is_sensitive()) {
            let text = String::from_utf8_lossy(value.as_bytes());
            secrets.put(&text, SHORTEST_CREDENTIAL);
            let (scheme, token) = text.split_once(' ').unwrap_or_default();
            secrets.put(token, SHORTEST_CREDENTIAL);
            let pair = BASE64.decode(token).ok().filter(|_| scheme == "Basic");
            let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
            if let Some((_, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) {
                secrets.put(password, SHORTEST_CREDENTIAL);
            }
        }
    }

    /// Shows the status and the headers of an answer.
    pub fn response(&self, response: &Response) {
        if !verbose::is_on() {
            let status = response.status();
            let label = response.headers().get(CONTENT_TYPE);
            let label = label.map(|label| String::from_utf8_lossy(label.as_bytes()));
            let last = &mut *self.last.lock();
            let label = match label.as_deref() {
                None => "no Content-Type",
                Some(label) if self.hides_answers => {
                    looks::label(label).unwrap_or("another Content-Type")
                }
                Some(label) => &self.message(label),
            };
            // Writing to a string does not fail.
            let _ = write!(last, " answered {} ({label})", status.as_u16());
            verbose::keep(Some(in_one_line(last)));
            return;
        }
        let shown = |name: &HeaderName| {
            !self.hides_answers || [CONTENT_TYPE, CONTENT_LENGTH].contains(name)
        };
        show(
            Side::Came,
            &self.redacted(&head_of_response(response, shown)),
        );
    }

    /// Shows a body.
    pub fn body(&self, body: &[u8]) {
        if !verbose::is_on() {
            if !self.hides_answers && !body.is_empty() {
                self.keep(body);
            }
            return;
        }
        if self.hides_answers {
            let bytes = body.len();
            show(Side::Came, &format!("{HIDDEN} ({bytes} bytes)"));
            return;
        }
        // The cut must not leave a part of a secret that could have been found.
        let text = self.redacted(&String::from_utf8_lossy(body));
        show(Side::Came, &beginning(text.as_bytes()));
    }

    /// Shows what has come of a body that is not whole.
    pub fn part(&self, came: &[u8]) {
        if came.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(came);
        let text = self.secrets.lock().redacted_part(&text);
        self.body(text.as_bytes());
    }

    /// Keeps the beginning of a body, for a query that fails or finds nothing.
    fn keep(&self, body: &[u8]) {
        /// Enough for the words of most errors.
        const MOST: usize = 200;
        let text = in_one_line(&self.redacted(&String::from_utf8_lossy(body)));
        let text = seen(&text);
        let beginning: String = text.chars().take(MOST).collect();
        let rest = if beginning.len() < text.len() {
            "..."
        } else {
            ""
        };
        let last = in_one_line(&self.last.lock());
        verbose::keep(Some(format!("{last}: {beginning}{rest}")));
    }

    /// Reads and shows the body of an answer that decides nothing.
    pub async fn rest(&self, response: Response, limit: usize) {
        match timeout(BODY_TIMEOUT, body::read(response, limit, Wanted::BodyIfAny)).await {
            Ok((_, Ok(body))) if body.is_empty() && verbose::is_on() => {
                show(Side::Came, "(no body)");
            }
            Ok((_, Ok(body))) => self.body(&body),
            Ok((_, Err(part))) => {
                self.part(&part.came);
                if verbose::is_on() {
                    show(Side::Came, &format!("({})", part.failure));
                }
            }
            Err(_) if !verbose::is_on() => {}
            Err(_) => show(Side::Came, "(the body did not come within 500 ms)"),
        }
    }

    /// Returns a message as it is shown. It may have names of the answer in it: no secret, no order
    /// to the terminal, and not a megabyte.
    pub fn message(&self, text: &str) -> String {
        const MOST: usize = 400;
        let text = in_one_line(&self.redacted(text));
        let mut seen = text.chars().filter(|c| !is_unseen(*c));
        let mut message: String = seen.by_ref().take(MOST).collect();
        if seen.next().is_some() {
            message.push_str("...");
        }
        message
    }

    fn redacted(&self, text: &str) -> String {
        self.secrets.lock().redacted(text)
    }
}

/// Returns text in which a constant stands as it is shown, and not percent-encoded.
fn plain(text: &str) -> String {
    let encoded = percent_encode(HIDDEN.as_bytes(), ESCAPED).to_string();
    text.replace(&encoded, HIDDEN)
}

/// Returns the length of the body of a request that has one.
fn length(request: &reqwest::Request) -> Option<u64> {
    let length = request.body().and_then(|body| body.size_hint().exact());
    length.filter(|length| *length > 0)
}

/// Shows the request for a token, whose body has the secret of the client.
pub fn token_request(request: &reqwest::Request) {
    if verbose::is_on() {
        let method = request.method().as_str();
        let url = without_query(request.url());
        let mut text = plain(&head_of_request(method, &url, request.headers()));
        if length(request).is_some() {
            text.push('\n');
            text.push_str(HIDDEN);
        }
        show(Side::Sent, &text);
    }
}

/// Shows the answer to a request for a token: its body holds the token, or may repeat the secret.
pub fn token_response(response: &Response) {
    if verbose::is_on() {
        let mut text = format!("{:?} {}\n", response.version(), response.status());
        if let Some(kind) = response.headers().get(CONTENT_TYPE) {
            put_header("content-type", kind, &mut text);
        }
        text.push('\n');
        text.push_str(HIDDEN);
        show(Side::Came, &text);
    }
}

fn head_of_request(method: &str, url: &Url, headers: &HeaderMap) -> String {
    let mut text = format!("{method} {url}\n");
    // hyper adds this one, or what HTTP/2 has in its place.
    if let Some(host) = url.host_str() {
        let port = url.port().map(|port| format!(":{port}"));
        // Writing to a string does not fail.
        let _ = writeln!(text, "host: {host}{}", port.unwrap_or_default());
    }
    for (name, value) in headers {
        put_header(name.as_str(), value, &mut text);
    }
    text
}

fn head_of_response(response: &Response, is_shown: impl Fn(&HeaderName) -> bool) -> String {
    let version = match response.version() {
        Version::HTTP_2 => "HTTP/2".to_owned(),
        other => format!("{other:?}"),
    };
    let mut text = format!("{version} {}\n", response.status());
    for (name, value) in response.headers() {
        if is_shown(name) {
            put_header(name.as_str(), value, &mut text);
        }
    }
    text
}

fn put_header(name: &str, value: &HeaderValue, text: &mut String) {
    let value = match value.is_sensitive() {
        true => HIDDEN.into(),
        false => String::from_utf8_lossy(value.as_bytes()),
    };
    // Writing to a string does not fail.
    let _ = writeln!(text, "{name}: {value}");
}

/// Returns the beginning of a body, and how long it is if that is not all.
fn beginning(body: &[u8]) -> String {
    match body.get(..MAX_BODY) {
        Some(start) if start.len() < body.len() => {
            let start = String::from_utf8_lossy(start);
            format!("{start}\n(the first {MAX_BODY} of {} bytes)", body.len())
        }
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}
