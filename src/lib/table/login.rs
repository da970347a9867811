//! The logins of a table: which are asked about, when their outcome is said, and what the cache knows
//! them by.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use tokio::time::{Instant, sleep, timeout_at};

use super::cache::CacheKey;
use super::{Asked, Table};
use crate::http::call::Call;
use crate::outcome::{Outcome, Reason};
use crate::protocol::sasl::rules::{Logins, Mechanism};
use crate::request::Request;

/// Returns whether the table still offers the mechanism of a login: a connection keeps the greeting
/// that it began with, and a reload may have taken the mechanism back.
pub fn is_offered(request: &Request, logins: &Logins) -> bool {
    let mechanism = request.value("mechanism").and_then(Mechanism::named);
    mechanism.is_some_and(|mechanism| logins.mechanisms.contains(&mechanism))
}

/// Answers a login by its deadline, and keeps a refusal back.
#[expect(
    clippy::manual_async_fn,
    reason = "that would keep the request twice: as its parameter and as a variable"
)]
pub fn answer<T: Table>(
    table: Arc<T>,
    mut request: Request,
    asked: Asked,
    deadline: Instant,
) -> impl Future<Output = (Outcome, Option<Request>)> + Send {
    async move {
        let too_late = || Outcome::Temporary(Reason::TimedOut.into());
        let outcome = {
            // Boxed, so that both parts are of a size that glibc keeps for each thread.
            let mut answer = Box::pin(table.login(&request, asked));
            table.until(deadline, answer.as_mut()).await
        };
        let mut outcome = outcome.unwrap_or_else(too_late);
        // It has gone where it goes, and must not wait with the outcome.
        request.secret = None;
        if let Some(pause) = table.pause_before(&outcome) {
            // Boxed, so that a login without a pause has no room for it.
            let kept_back = Box::pin(timeout_at(deadline, after(pause, outcome)));
            outcome = kept_back.await.unwrap_or_else(|_| too_late());
        }
        (outcome, Some(request))
    }
}

/// Returns an outcome after a pause.
pub async fn after(pause: Duration, outcome: Outcome) -> Outcome {
    sleep(pause).await;
    outcome
}

/// Makes cache keys that have everything of a login that its call carries, and from which none of
/// it can be found by trying: the key of the digest is random, and gone with the program.
pub struct LoginKeys(hmac::Key);

impl LoginKeys {
    /// Makes a random key. Fails if the system gives no random bytes.
    pub fn random() -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| "the system has no random bytes".to_owned())?;
        Ok(Self(key))
    }

    /// Returns the cache key of a call.
    pub fn of(&self, call: &Call) -> CacheKey {
        let mut digest = hmac::Context::with_key(&self.0);
        // Each part has its length before it, so that no part can be made to look like two.
        let mut put = |part: &[u8]| {
            digest.update(&part.len().to_le_bytes());
            digest.update(part);
        };
        call.urls
            .iter()
            .for_each(|url| put(url.as_str().as_bytes()));
        for (name, value) in &call.headers {
            put(name.as_str().as_bytes());
            put(value.as_bytes());
        }
        put(call.body.as_deref().unwrap_or_default());
        put(call.name.as_bytes());
        digest.sign().as_ref().into()
    }
}

impl fmt::Debug for LoginKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
