//! Tokens of OAuth 2: client credentials (RFC 6749, section 4.4), fetched once for all who wait.
//!
//! A token is renewed before it ends, while the one there is still in use, and once when a
//! backend answers 401. A server that is ill is not asked again at every request.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jsonwebtoken::{Header, encode};
use percent_encoding::percent_encode;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::body::body;
use super::call::ESCAPED;
use super::error::cause;
use crate::config::{
    ClientAuth, Compression, HttpVersion, OAuth, SigningKey, TokenServer, Transport,
};
use crate::observe::log::RequestId;
use crate::outcome::{Failure, Reason};
use crate::serve::workers::PerWorker;
use crate::sync::Mutex;

/// The most bytes of an answer of the server's.
const MAX_ANSWER: usize = 256 * 1024;

/// How long the body of a refusal is waited for, whose status says the most already.
const LONGEST_REFUSAL: Duration = Duration::from_millis(500);

/// How long a token lasts of which the server does not say.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

/// How long a server that is ill is left in peace: twice as long each time, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Returns how the server that gives tokens is reached, and whether that may take TLS.
pub fn way_to_server(settings: &OAuth, backend: &Transport) -> (Transport, bool) {
    let transport = Transport {
        // It is not behind the backend's socket.
        unix_socket: None,
        compression: Compression::None,
        http_version: HttpVersion::Auto,
        tls: settings.tls.clone(),
        ..backend.clone()
    };
    let is_https = match &settings.server {
        TokenServer::Token(url) => url.scheme() == "https",
        // What it tells may be.
        TokenServer::Issuer(_) => true,
    };
    (transport, is_https)
}

/// The tokens of one client at one server.
#[derive(Debug)]
pub struct Tokens {
    settings: Box<OAuth>,
    clients: PerWorker<Client>,
    /// What a fetch may take.
    patience: Duration,
    user_agent: HeaderValue,
    state: Mutex<State>,
    /// A fetch has ended.
    fetched: Notify,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// Where tokens come from, once the issuer has told.
    endpoint: Option<Url>,
    is_fetching: bool,
    failure: Option<(Failure, Instant)>,
    failures: u32,
    /// No token is thrown away until then: a new one was of no use.
    distrust: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Token {
    /// The value of `Authorization`.
    value: HeaderValue,
    renew_at: Instant,
    ends_at: Instant,
}

impl Tokens {
    /// Makes a source of tokens that has none yet.
    pub fn new(
        settings: Box<OAuth>,
        clients: PerWorker<Client>,
        patience: Duration,
        user_agent: HeaderValue,
    ) -> Self {
        Self {
            settings,
            clients,
            patience,
            user_agent,
            state: Mutex::default(),
            fetched: Notify::new(),
        }
    }

    /// Returns what stands in `Authorization`. Waits for a fetch that is under way, or begins one in
    /// the name of this request.
    pub async fn authorization(self: &Arc<Self>, id: &HeaderValue) -> Result<HeaderValue, Failure> {
        loop {
            let fetched = self.fetched.notified();
            tokio::pin!(fetched);
            fetched.as_mut().enable();
            {
                let mut state = self.state.lock();
                let now = Instant::now();
                let may_fetch = state
                    .failure
                    .as_ref()
                    .is_none_or(|(_, until)| *until <= now);
                let token = state.token.clone().filter(|token| token.ends_at > now);
                let is_due = token.as_ref().is_none_or(|token| token.renew_at <= now);
                if is_due && may_fetch && !state.is_fetching {
                    state.is_fetching = true;
                    tokio::spawn(Arc::clone(self).fetch(id.clone()));
                }
                if let Some(token) = token {
                    return Ok(token.value);
                }
                if let (false, Some((failure, _))) = (state.is_fetching, &state.failure) {
                    return Err(failure.clone());
                }
            }
            fetched.await;
        }
    }

    /// Throws a token away that a backend did not take, so that the next one is fetched. Tells
    /// whether there is sense in asking again.
    pub fn reject(&self, value: &HeaderValue) -> bool {
        let mut state = self.state.lock();
        if state.distrust.is_some_and(|until| until > Instant::now()) {
            return false;
        }
        if state
            .token
            .as_ref()
            .is_some_and(|token| token.value == value)
        {
            state.token = None;
        }
        true
    }

    /// Says that a fresh token was not taken either: it is not the token's fault.
    pub fn distrust(&self) {
        self.state.lock().distrust = Some(Instant::now() + PAUSE.1);
    }

    /// Fetches a token for everybody, whoever has asked and may have given up.
    async fn fetch(self: Arc<Self>, id: HeaderValue) {
        let fetched = self.ask(&id).await;
        {
            let mut state = self.state.lock();
            state.is_fetching = false;
            match fetched {
                Ok(token) => {
                    state.token = Some(token);
                    state.failure = None;
                    state.failures = 0;
                }
                Err(cause) => {
                    // The issuer may have another one by now.
                    state.endpoint = None;
                    let pause = PAUSE
                        .0
                        .saturating_mul(1 << state.failures.min(8))
                        .min(PAUSE.1);
                    let failure = Failure::new(Reason::CredentialsUnavailable, cause);
                    state.failure = Some((failure, Instant::now() + pause));
                    state.failures += 1;
                }
            }
        }
        self.fetched.notify_waiters();
    }

    async fn ask(&self, id: &HeaderValue) -> Result<Token, String> {
        let until = Instant::now() + self.patience;
        let endpoint = step("discovery", until, self.endpoint(id)).await?;
        step("token", until, self.token(endpoint, id)).await
    }

    async fn token(&self, endpoint: Url, id: &HeaderValue) -> Result<Token, String> {
        let (form, authorization) = self.form(&endpoint)?;
        let mut request = self
            .clients
            .local()
            .post(endpoint)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let answer: Answer = self.read(request, id).await?;
        if answer
            .token_type
            .is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer"))
        {
            return Err("the token is no bearer token".to_owned());
        }
        if answer.access_token.trim().is_empty() {
            return Err("the token is empty".to_owned());
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {}", answer.access_token))
            .map_err(|_| "the token cannot stand in a header".to_owned())?;
        value.set_sensitive(true);
        let seconds = answer.expires_in.and_then(Seconds::number);
        let lifetime = seconds.map_or(DEFAULT_LIFETIME, |seconds| {
            Duration::from_secs_f64(seconds.clamp(1.0, 86_400.0))
        });
        let now = Instant::now();
        Ok(Token {
            value,
            renew_at: now + lifetime - Duration::from_secs(60).min(lifetime / 5),
            // The backend's clock, and the way there.
            ends_at: now + lifetime - Duration::from_secs(5).min(lifetime / 20),
        })
    }

    /// Returns the token endpoint, which an issuer has to be asked for once.
    async fn endpoint(&self, id: &HeaderValue) -> Result<Url, String> {
        let issuer = match &self.settings.server {
            TokenServer::Token(url) => return Ok(url.clone()),
            TokenServer::Issuer(issuer) => issuer,
        };
        if let Some(known) = self.state.lock().endpoint.clone() {
            return Ok(known);
        }
        let mut place = issuer.clone();
        let path = issuer.path().trim_end_matches('/');
        place.set_path(&format!("{path}/.well-known/openid-configuration"));
        let found: Discovery = self.read(self.clients.local().get(place), id).await?;
        let plain = |text: &str| text.trim_end_matches('/').to_owned();
        if plain(&found.issuer) != plain(issuer.as_str()) {
            return Err("the issuer calls itself by another name".to_owned());
        }
        let endpoint = Url::parse(&found.token_endpoint)
            .ok()
            .filter(|url| url.scheme() == issuer.scheme() || url.scheme() == "https")
            .ok_or("the issuer's token endpoint is no URL to be trusted")?;
        self.state.lock().endpoint = Some(endpoint.clone());
        Ok(endpoint)
    }

    /// Reads a JSON answer. Of what is wrong with it only an error's code is said: all else may be a
    /// secret.
    async fn read<T: for<'de> Deserialize<'de>>(
        &self,
        request: reqwest::RequestBuilder,
        id: &HeaderValue,
    ) -> Result<T, String> {
        let request = request
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, &self.user_agent)
            .header("x-request-id", id);
        let response = request.send().await.map_err(|error| cause(&error))?;
        let status = response.status().as_u16();
        let (body, text) = if status == 200 {
            let body = body(response, MAX_ANSWER)
                .await
                .map_err(|failure| failure.reason.to_string())?;
            if let Ok(answer) = serde_json::from_slice(&body) {
                return Ok(answer);
            }
            (body, "their server's answer is not understood".to_owned())
        } else {
            let body = timeout(LONGEST_REFUSAL, body(response, MAX_ANSWER)).await;
            let body = body.ok().and_then(Result::ok).unwrap_or_default();
            (body, format!("their server answered {status}"))
        };
        Err(match error_code(&body) {
            Some(code) => format!("{text}: {code}"),
            None => text,
        })
    }

    /// Makes the form, and what stands in `Authorization` if the secret does not stand in it.
    fn form(&self, endpoint: &Url) -> Result<(String, Option<HeaderValue>), String> {
        let escape = |text: &str| percent_encode(text.as_bytes(), ESCAPED).to_string();
        let id = &self.settings.client_id;
        let mut pairs = vec![("grant_type", "client_credentials".to_owned())];
        if let Some(scope) = &self.settings.scope {
            pairs.push(("scope", scope.clone()));
        }
        for (name, value) in &self.settings.parameters {
            pairs.push((name, value.expose().to_owned()));
        }
        let mut authorization = None;
        match &self.settings.client_auth {
            ClientAuth::Basic(secret) => {
                // Both are escaped before they are joined (RFC 6749, section 2.3.1).
                let pair = format!("{}:{}", escape(id), escape(secret.expose()));
                let value = format!("Basic {}", BASE64.encode(pair));
                let mut value = HeaderValue::from_str(&value)
                    .map_err(|_| "the client's name cannot stand in a header".to_owned())?;
                value.set_sensitive(true);
                authorization = Some(value);
            }
            ClientAuth::Post(secret) => {
                pairs.push(("client_id", id.clone()));
                pairs.push(("client_secret", secret.expose().to_owned()));
            }
            ClientAuth::PrivateKeyJwt(key) => {
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                pairs.push(("client_id", id.clone()));
                pairs.push(("client_assertion_type", kind.to_owned()));
                pairs.push(("client_assertion", assertion(id, key, endpoint)?));
            }
        }
        let pairs: Vec<_> = pairs
            .into_iter()
            .map(|(name, value)| format!("{}={}", escape(name), escape(&value)))
            .collect();
        Ok((pairs.join("&"), authorization))
    }
}

/// Signs that we are who we say (RFC 7523, section 3), for a minute.
fn assertion(id: &str, key: &SigningKey, endpoint: &Url) -> Result<String, String> {
    let (algorithm, key) = key.key.as_ref().ok_or("the private key cannot be used")?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|error| error.to_string())?
        .as_secs();
    let name = RequestId::next().to_string();
    let claims = Claims {
        iss: id,
        sub: id,
        aud: endpoint.as_str(),
        jti: &name,
        iat: now,
        exp: now + 60,
    };
    encode(&Header::new(*algorithm), &claims, key).map_err(|error| error.to_string())
}

#[derive(Serialize)]
struct Claims<'c> {
    iss: &'c str,
    sub: &'c str,
    aud: &'c str,
    jti: &'c str,
    iat: u64,
    exp: u64,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
}

/// A number; some servers write it as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    fn number(self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Text(text) => text.trim().parse().ok().filter(|n: &f64| n.is_finite()),
        }
    }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    token_endpoint: String,
}

/// Does a part of the work in time; what goes wrong is said of it.
async fn step<T>(
    name: &str,
    until: Instant,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let done = timeout_at(until, work).await;
    done.unwrap_or_else(|_| Err("timed out".to_owned()))
        .map_err(|cause| format!("{name}: {cause}"))
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// The codes of errors (RFC 6749, sections 5.2 and 4.1.2.1).
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

/// Returns the code of an error, if there is one. Any other text is not shown: it may be a part of
/// the secret that was sent.
fn error_code(body: &[u8]) -> Option<&'static str> {
    let Refusal { error } = serde_json::from_slice(body).ok()?;
    let code = ERROR_CODES.into_iter().find(|code| *code == error);
    Some(code.unwrap_or("an error code that is not RFC 6749's"))
}
