//! OAuth 2 tokens by client credentials (RFC 6749, section 4.4), one fetch for all calls that wait.
//!
//! A token is renewed before it expires, while calls still use it, and once when a backend answers
//! 401. After a failure the token server is asked again only after a pause.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jsonwebtoken::{Header, encode};
use percent_encoding::percent_encode;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, USER_AGENT};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::body;
use super::call::ESCAPED;
use super::error::{cause, explained};
use super::shown::{token_request, token_response};
use super::steps::{Steps, Way};
use super::token_answer::{clock_difference, read};
use crate::config::{
    ClientAuth, Compression, HttpVersion, OAuth, SigningKey, TokenServer, Transport,
};
use crate::observe::log::RequestId;
use crate::outcome::{Failure, Reason};
use crate::serve::workers::PerWorker;
use crate::sync::Mutex;

/// The lifetime of a token where the server states none.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

/// The first pause after a failed fetch. It doubles with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after a failed fetch.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Returns the transport to the token server, and whether it may need TLS.
pub fn token_transport(settings: &OAuth, backend: &Transport) -> (Transport, bool) {
    let transport = Transport {
        // The socket leads to the backend, and the token server is elsewhere.
        unix_socket: None,
        compression: Compression::None,
        http_version: HttpVersion::Auto,
        tls: settings.tls.clone(),
        ..backend.clone()
    };
    let is_https = match &settings.server {
        TokenServer::Token(url) => url.scheme() == "https",
        // Even an issuer of http can name a token endpoint of https.
        TokenServer::Issuer(_) => true,
    };
    (transport, is_https)
}

/// The tokens of one client at one token server.
#[derive(Debug)]
pub struct Tokens {
    settings: Box<OAuth>,
    clients: PerWorker<Client>,
    transport: Transport,
    fetch_timeout: Duration,
    user_agent: HeaderValue,
    state: Mutex<State>,
    /// Notified when a fetch has ended.
    fetched: Notify,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// The token endpoint, once the issuer has named it.
    endpoint: Option<Url>,
    is_fetching: bool,
    /// The last failure, and when the next fetch may start.
    failure: Option<(Failure, Instant)>,
    /// Failures in a row.
    failures: u32,
    /// Until then a 401 does not discard a token: a fresh one was rejected too.
    keep_until: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Token {
    /// The value of `Authorization`.
    value: HeaderValue,
    renew_at: Instant,
    expires_at: Instant,
}

impl Tokens {
    /// Makes a source of tokens. The first call fetches the first token.
    pub fn new(
        settings: Box<OAuth>,
        (clients, transport): (PerWorker<Client>, Transport),
        fetch_timeout: Duration,
        user_agent: HeaderValue,
    ) -> Self {
        Self {
            settings,
            clients,
            transport,
            fetch_timeout,
            user_agent,
            state: Mutex::default(),
            fetched: Notify::new(),
        }
    }

    /// Returns the value of `Authorization`. Starts a fetch if one is due, under the id of this
    /// request, and waits for it if there is no token meanwhile.
    pub async fn authorization(self: &Arc<Self>, id: &HeaderValue) -> Result<HeaderValue, Failure> {
        loop {
            let fetched = self.fetched.notified();
            tokio::pin!(fetched);
            // Before the state is read: a fetch that ends after that must not be missed.
            fetched.as_mut().enable();
            {
                let mut state = self.state.lock();
                let now = Instant::now();
                let may_fetch = state
                    .failure
                    .as_ref()
                    .is_none_or(|(_, until)| *until <= now);
                let token = state.token.clone().filter(|token| token.expires_at > now);
                let is_due = token.as_ref().is_none_or(|token| token.renew_at <= now);
                if is_due && may_fetch && !state.is_fetching {
                    state.is_fetching = true;
                    // A task of its own: the fetch is for all waiting calls, and must not end with
                    // the call that started it.
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

    /// Discards a token that a backend has rejected, so that the next call fetches another one.
    /// Returns whether the call is to be sent again.
    pub fn reject(&self, value: &HeaderValue) -> bool {
        let mut state = self.state.lock();
        if state.keep_until.is_some_and(|until| until > Instant::now()) {
            return false;
        }
        // Many calls are rejected with the same token; only the first may discard it, and not the
        // fresh one that was fetched since.
        if state
            .token
            .as_ref()
            .is_some_and(|token| token.value == value)
        {
            state.token = None;
        }
        true
    }

    /// Records that a backend has rejected a fresh token too. The cause is not the token, so for a
    /// while a 401 starts no fetch: each request would otherwise make one.
    pub fn fresh_rejected(&self) {
        self.state.lock().keep_until = Some(Instant::now() + MAX_PAUSE);
    }

    /// Fetches a token for all waiting calls, and notifies them.
    async fn fetch(self: Arc<Self>, id: HeaderValue) {
        let fetched = self.request(&id).await;
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
                    // The issuer may have moved its token endpoint.
                    state.endpoint = None;
                    let pause = FIRST_PAUSE
                        .saturating_mul(1 << state.failures.min(8))
                        .min(MAX_PAUSE);
                    let failure = Failure::new(Reason::CredentialsUnavailable, cause);
                    state.failure = Some((failure, Instant::now() + pause));
                    state.failures += 1;
                }
            }
        }
        self.fetched.notify_waiters();
    }

    async fn request(&self, id: &HeaderValue) -> Result<Token, String> {
        let deadline = Instant::now() + self.fetch_timeout;
        let endpoint = self.endpoint(id, deadline).await;
        let endpoint = endpoint.map_err(|why| format!("discovery: {why}"))?;
        let token = self.token(endpoint, id, deadline).await;
        token.map_err(|why| format!("token: {why}"))
    }

    async fn token(
        &self,
        endpoint: Url,
        id: &HeaderValue,
        deadline: Instant,
    ) -> Result<Token, String> {
        let (form, authorization) = self.form(&endpoint)?;
        let mut request = self
            .clients
            .local()
            .post(endpoint)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let answer: TokenResponse = self.send(request, form.into(), id, deadline).await?;
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
            // Before its end: the backend's clock may be ahead, and the call takes time.
            expires_at: now + lifetime - Duration::from_secs(5).min(lifetime / 20),
        })
    }

    /// Returns the token endpoint, which an issuer is asked for once (OpenID Connect Discovery
    /// 1.0).
    async fn endpoint(&self, id: &HeaderValue, deadline: Instant) -> Result<Url, String> {
        let issuer = match &self.settings.server {
            TokenServer::Token(url) => return Ok(url.clone()),
            TokenServer::Issuer(issuer) => issuer,
        };
        if let Some(known) = self.state.lock().endpoint.clone() {
            return Ok(known);
        }
        let mut discovery = issuer.clone();
        let path = issuer.path().trim_end_matches('/');
        discovery.set_path(&format!("{path}/.well-known/openid-configuration"));
        let request = self.clients.local().get(discovery);
        let found: Discovery = self.send(request, Bytes::new(), id, deadline).await?;
        let plain = |text: &str| text.trim_end_matches('/').to_owned();
        // Discovery 1.0, section 4.3: another name could be that of an impostor.
        if plain(&found.issuer) != plain(issuer.as_str()) {
            return Err("the issuer names another issuer".to_owned());
        }
        let endpoint = Url::parse(&found.token_endpoint)
            .ok()
            // The client's secret is sent there, so an issuer of https must not lead to http.
            .filter(|url| url.scheme() == issuer.scheme() || url.scheme() == "https")
            .ok_or("the issuer's token endpoint is not a trusted URL")?;
        self.state.lock().endpoint = Some(endpoint.clone());
        Ok(endpoint)
    }

    /// Sends a request and reads its JSON answer, before the deadline.
    async fn send<T: for<'de> Deserialize<'de>>(
        &self,
        request: reqwest::RequestBuilder,
        body: Bytes,
        id: &HeaderValue,
        deadline: Instant,
    ) -> Result<T, String> {
        let steps = Steps::new(Instant::now());
        let request = request
            .body(body::noted(body, &steps))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, &self.user_agent)
            .header("x-request-id", id);
        let (client, request) = request.build_split();
        let request = request.map_err(|error| cause(&error))?;
        token_request(&request);
        let url = request.url().clone();
        let way = Way {
            steps: &steps,
            url: &url,
            transport: &self.transport,
            is_known: false,
            is_sent_once: false,
        };
        let answered = async {
            let response = steps.follow(Instant::now(), client.execute(request)).await;
            let response = response.map_err(|error| explained(&error, &way))?;
            token_response(&response);
            let date = response.headers().get(DATE).cloned();
            let answer = read(response, &url).await;
            answer.map_err(|why| match &self.settings.client_auth {
                ClientAuth::PrivateKeyJwt(_) => why + &clock_difference(date.as_ref()),
                _ => why,
            })
        };
        let in_time = timeout_at(deadline, answered).await;
        in_time.unwrap_or_else(|_| Err(way.late()))
    }

    /// Returns the form, and the value of `Authorization` if the secret goes there.
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
                // Both parts are escaped before they are joined (RFC 6749, section 2.3.1).
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

/// Returns a signed statement of the client's identity (RFC 7523, section 3), valid for a minute.
fn assertion(id: &str, key: &SigningKey, endpoint: &Url) -> Result<String, String> {
    let (algorithm, key) = key.key.as_ref().ok_or("the private key cannot be used")?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|error| error.to_string())?
        .as_secs();
    // A server may refuse a statement that it has seen (`jti` in RFC 7523, section 3).
    let unique = RequestId::next().to_string();
    let claims = Claims {
        iss: id,
        sub: id,
        aud: endpoint.as_str(),
        jti: &unique,
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

/// The answer of a token endpoint (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
}

/// A number of seconds, which some servers write as a string.
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
