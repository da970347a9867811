//! One attempt at one target, and what it shows: an outcome, the health of the target, and whether
//! the next target may do better.

use std::borrow::Cow;
use std::sync::Arc;

use reqwest::header::{
    ALLOW, AsHeaderName, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    WWW_AUTHENTICATE,
};
use reqwest::{Response, StatusCode, Url};

use super::answer;
use super::body::{self, Wanted, drain};
use super::breaker::Breaker;
use super::error::{
    explained, is_broken_connection, is_late, is_local_shortage, is_no_http, is_shared_loss,
    is_unasked,
};
use super::freshness::{Fetched, Lifetime, lifetime};
use super::headers::sent_credentials;
use super::health::Health;
use super::in_flight::InFlightPermits;
use super::login::{self, LoginAnswer};
use super::send::{OutgoingCall, Progress, SendError, Sender};
use super::shown::Shown;
use crate::config::{LoginRules, ResponseRules, Verdict};
use crate::observe::verbose;
use crate::outcome::{Effect, Failure, Outcome, Reason};
use crate::protocol::Facts;

/// The end of one attempt.
#[derive(Debug)]
pub struct Attempt {
    /// What the request gets if this attempt is the last.
    pub fetched: Fetched,
    /// What it shows of the target.
    pub health: Health,
    /// Whether the next target is to be tried.
    pub try_next: bool,
    /// The rule that made the outcome, where it is shown and the outcome does not say it.
    rule: Option<String>,
}

impl Attempt {
    /// Calls one target.
    pub async fn make(
        sender: &Sender,
        url: &Url,
        call: &OutgoingCall,
        progress: &mut Progress,
    ) -> Self {
        let response = match sender.send(url, call, progress).await {
            Ok(response) => response,
            Err(error) => return Self::unanswered(sender, error, url, call, progress),
        };
        let rules = &sender.table.endpoint.response_rules;
        let status = response.status().as_u16();
        progress.status = Some(status);
        let lifetime = cache_lifetime(sender, &response);
        if !has_all(&response, &rules.require_header) {
            let outcome = answer::not_from_the_api(status);
            finish(response, sender, call).await;
            return Self {
                rule: None,
                fetched: outcome.into(),
                health: health(status, Verdict::Temporary),
                try_next: sender.is_repeatable(),
            };
        }
        let verdict = match &rules.login {
            Some(login) => login::verdict(status, rules, login),
            None => answer::verdict(status, rules),
        };
        let why = match verdict {
            Verdict::Found if rules.login.is_none() => Cow::Borrowed(""),
            _ => why_that_status(&response, sender, progress),
        };
        let Some(wanted) = wanted(sender, status, verdict) else {
            let mut outcome = match &rules.login {
                Some(login) => {
                    let (means, headers) = ((status, verdict), response.headers());
                    login_outcome((rules, login), means, headers, None, call)
                }
                None => answer::without_body(status, verdict),
            };
            explain(&mut outcome, why);
            finish(response, sender, call).await;
            return Self {
                rule: verbose::is_on().then(|| answer::rule_of_status(status, rules)),
                fetched: Fetched::new(outcome, lifetime),
                health: health(status, verdict),
                try_next: verdict == Verdict::Temporary && status >= 500 && sender.is_repeatable(),
            };
        };
        let most = sender.table.endpoint.max_response;
        let (headers, body) = body::read(response, most, wanted).await;
        if let Some(shown) = &call.shown {
            match &body {
                Ok(body) => shown.body(body),
                Err(part) => shown.part(&part.came),
            }
        }
        let content_type = header(&headers, CONTENT_TYPE).unwrap_or_default();
        let rule = match (&rules.login, &body) {
            (Some(_), _) => verbose::is_on().then(|| answer::rule_of_status(status, rules)),
            (None, Ok(body)) if call.shown.is_some() => {
                Some(answer::rule_of_body(status, content_type, body, rules))
            }
            (None, _) => None,
        };
        let body = body.map_err(|part| part.failure);
        let outcome = match (&rules.login, body) {
            (Some(login), body) => {
                let means = (status, verdict);
                let mut outcome = login_outcome((rules, login), means, &headers, Some(body), call);
                explain(&mut outcome, why);
                outcome
            }
            (None, Ok(body)) => answer::read(content_type, &body, rules),
            (None, Err(failure)) => Outcome::Temporary(Failure {
                effect: effect(progress),
                ..failure
            }),
        };
        Self {
            rule,
            fetched: Fetched::new(outcome, lifetime),
            health: health(status, verdict),
            try_next: false,
        }
    }

    fn unanswered(
        sender: &Sender,
        error: SendError,
        url: &Url,
        call: &OutgoingCall,
        progress: &Progress,
    ) -> Self {
        let error = match error {
            SendError::Http(error) => error,
            SendError::Credentials(failure) => {
                return Self {
                    fetched: Outcome::Temporary(failure).into(),
                    health: Health::Inconclusive,
                    try_next: false,
                    rule: None,
                };
            }
        };
        let way = sender.way(url, progress);
        let is_no_http = is_no_http(&error) || !way.is_known && is_unasked(&error);
        let health = if is_no_http {
            // Something answers there, and does so again however long the breaker waits.
            Health::Healthy
        } else if is_local_shortage(&error) {
            Health::Inconclusive
        } else if is_shared_loss(&error) {
            Health::LostConnection
        } else if error.is_connect() {
            Health::Unreachable
        } else {
            Health::Unhealthy
        };
        let is_unprocessed = error.is_connect() || sender.is_unprocessed(&error, call);
        let reason = if is_late(&error) {
            Reason::TimedOut
        } else if is_no_http {
            Reason::NotUnderstood
        } else {
            Reason::Unreachable
        };
        let mut failure = Failure::new(reason, explained(&error, &way));
        if !is_unprocessed {
            failure.effect = effect(progress);
        }
        Self {
            rule: None,
            health,
            // A policy request may have been counted if any of it was sent.
            try_next: is_unprocessed || sender.is_repeatable() && is_broken_connection(&error),
            fetched: Outcome::Temporary(failure).into(),
        }
    }

    /// Returns the end of an attempt that its deadline has cut off, and which is the first of its call
    /// or not.
    pub fn timed_out(
        sender: &Sender,
        url: &Url,
        progress: &Progress,
        breaker: &Breaker,
        is_first: bool,
    ) -> Self {
        let request_timeout = sender.table.endpoint.request_timeout;
        let late = || Failure::new(Reason::TimedOut, sender.way(url, progress).late());
        let (failure, health) = match progress.sent_at {
            None => (
                Failure::new(Reason::CredentialsUnavailable, "no token in time"),
                Health::Inconclusive,
            ),
            // Waiting for a permit, a token or another target can leave a target too little time. A
            // table of many requests would take such a target down, although it answers others, or
            // would if it were asked.
            Some(sent_at)
                if sent_at.elapsed() < request_timeout / 2
                    && (!is_first || breaker.has_answered_within(request_timeout)) =>
            {
                (late(), Health::Inconclusive)
            }
            Some(_) => (late(), Health::Unhealthy),
        };
        let failure = Failure {
            effect: effect(progress),
            ..failure
        };
        Self {
            fetched: Outcome::Temporary(failure).into(),
            health,
            try_next: false,
            rule: None,
        }
    }

    /// Adds to a failure of the target why no other one is tried.
    pub fn explain_end(&mut self) {
        let (Outcome::Temporary(failure), true) =
            (&mut self.fetched.outcome, self.health.is_failure())
        else {
            return;
        };
        let why = match failure.reason {
            Reason::TimedOut => "no time is left for another target",
            _ => "no other target is tried, since this one may have acted on it",
        };
        failure.detail = match &*failure.detail {
            "" => why.into(),
            detail => format!("{detail}; {why}").into(),
        };
    }

    /// Shows the outcome and the rule that made it, where calls are shown.
    pub fn show_outcome(&mut self, shown: Option<&Shown>, protocol: &Facts) {
        if let (Some(shown), Outcome::Temporary(failure) | Outcome::Permanent(failure)) =
            (shown, &mut self.fetched.outcome)
        {
            failure.detail = shown.message(&failure.detail).into();
        }
        let outcome = &self.fetched.outcome;
        verbose::means(|| {
            let why = outcome.failure().map(Failure::to_string);
            let parts = [
                Some(protocol.outcomes[outcome.number()].to_owned()),
                self.rule.clone(),
                why,
            ];
            parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
        });
    }
}

/// Returns what a call has changed that got no answer.
fn effect(progress: &Progress) -> Effect {
    match progress.may_have_arrived() {
        true => Effect::Unknown,
        false => Effect::Nothing,
    }
}

/// Returns the health of a target that has answered. Gateways say with these statuses that the
/// service behind them does not answer; an API that fails with 500 is there.
fn health(status: u16, verdict: Verdict) -> Health {
    match verdict {
        Verdict::Temporary if matches!(status, 502..=504) => Health::Unhealthy,
        _ => Health::Healthy,
    }
}

/// Reads the rest of an answer that is not needed, and shows it if calls are shown.
async fn finish(response: Response, sender: &Sender, call: &OutgoingCall) {
    match &call.shown {
        None => drain_in_background(response, &call.permits),
        // Boxed because it is rare, as in `send`.
        Some(shown) => Box::pin(shown.rest(response, sender.table.endpoint.max_response)).await,
    }
}

/// Reads the rest of an answer, so that its connection can be used again. Postfix does not wait for
/// that, but the call counts as in flight.
fn drain_in_background(response: Response, permits: &Option<Arc<InFlightPermits>>) {
    if response.content_length() == Some(0) {
        return;
    }
    let permits = permits.clone();
    tokio::spawn(async move {
        drain(response).await;
        drop(permits);
    });
}

/// Returns which body the outcome depends on, if it depends on one.
fn wanted(sender: &Sender, status: u16, verdict: Verdict) -> Option<Wanted> {
    let Some(login) = &sender.table.endpoint.response_rules.login else {
        return match verdict {
            Verdict::Found if sender.writes() => Some(Wanted::BodyIfAny),
            Verdict::Found => Some(Wanted::Body),
            _ => None,
        };
    };
    if !login::needs_body(verdict, login) {
        None
    } else if status == StatusCode::NO_CONTENT {
        Some(Wanted::Nothing)
    } else if login::is_decided_by_head(login) {
        Some(Wanted::BodyIfAny)
    } else {
        Some(Wanted::Body)
    }
}

/// Returns the outcome of an answer about a login, of whose status it is known what it means.
fn login_outcome(
    rules: (&ResponseRules, &LoginRules),
    (status, verdict): (u16, Verdict),
    headers: &HeaderMap,
    body: Option<Result<Vec<u8>, Failure>>,
    call: &OutgoingCall,
) -> Outcome {
    let lines = |name: &str| {
        let lines = headers.get_all(name).iter();
        lines.map(HeaderValue::as_bytes).collect()
    };
    let answer = LoginAnswer {
        status,
        header: &lines,
        body,
        name: &call.name,
    };
    login::read(&answer, verdict, rules.0, rules.1)
}

/// Adds to a failure why it is one, where it does not say so itself.
fn explain(outcome: &mut Outcome, why: Cow<'static, str>) {
    if let Outcome::Temporary(failure) | Outcome::Permanent(failure) = outcome
        && failure.detail.is_empty()
    {
        failure.detail = why;
    }
}

/// Returns how long an answer may be cached by its headers, where the table goes by them.
fn cache_lifetime(sender: &Sender, response: &Response) -> Lifetime {
    let cache = sender.table.endpoint.cache.as_ref();
    if !cache.is_some_and(|cache| cache.honour_http) {
        return Lifetime::default();
    }
    // Several lines of this header are one list (RFC 9110, section 5.3).
    let lines = response.headers().get_all(CACHE_CONTROL).iter();
    let control: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    let control = control.join(",");
    lifetime(|name| match name {
        "cache-control" => Some(&control),
        name => header(response.headers(), name),
    })
}

/// Returns whether an answer has each of these headers, with its value in one of its lines.
fn has_all(response: &Response, required: &[(HeaderName, HeaderValue)]) -> bool {
    required.iter().all(|(name, value)| {
        let mut lines = response.headers().get_all(name).iter();
        lines.any(|line| line == value)
    })
}

fn header(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The schemes and the methods that are named: any other word could be made of a secret.
const SCHEMES: [&str; 6] = ["Basic", "Bearer", "Digest", "DPoP", "Negotiate", "NTLM"];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Returns what there is to say of a status: where a redirect leads, which credential was not
/// accepted, or which methods are.
fn why_that_status(
    response: &Response,
    sender: &Sender,
    progress: &mut Progress,
) -> Cow<'static, str> {
    if let Some(why) = progress.not_followed.take() {
        return why;
    }
    let endpoint = &sender.table.endpoint;
    match response.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let sent = sent_credentials(endpoint);
            let asked = header(response.headers(), WWW_AUTHENTICATE).and_then(|value| {
                let asked = value.split([' ', ',']).next()?;
                let mut known = SCHEMES.into_iter();
                let scheme = known.find(|scheme| scheme.eq_ignore_ascii_case(asked))?;
                Some(format!("; it asks for {scheme}"))
            });
            format!("sent {sent}{}", asked.unwrap_or_default()).into()
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let method = &endpoint.method;
            let allowed = header(response.headers(), ALLOW).map(known_methods);
            let allowed = allowed.filter(|allowed| !allowed.is_empty());
            let allowed = allowed.map(|allowed| format!("; it allows {allowed}"));
            format!("to a {method}{}", allowed.unwrap_or_default()).into()
        }
        _ => Cow::Borrowed(""),
    }
}

/// Returns the methods that a header names, each of them once.
fn known_methods(allowed: &str) -> String {
    let mut known = Vec::new();
    for name in allowed.split(',').map(str::trim) {
        if METHODS.contains(&name) && !known.contains(&name) {
            known.push(name);
        }
    }
    known.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_is_named_once_and_no_other_word() {
        let allowed = "GET,GET, POST ,s3cret,GET,PUT,POST".to_owned() + &",GET".repeat(2000);
        assert_eq!(known_methods(&allowed), "GET, POST, PUT");
    }
}
