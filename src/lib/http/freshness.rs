//! How long an answer may be cached, by its headers (RFC 9111 and RFC 5861).

use std::time::{Duration, SystemTime};

use crate::outcome::Outcome;

/// The result of a call.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The outcome.
    pub outcome: Outcome,
    /// How long the backend allows it to be cached.
    pub lifetime: Lifetime,
    /// How old it is, if it was found in the cache of all hosts. Its lifetime is then what the host
    /// that called the backend has decided.
    pub shared_age: Option<Duration>,
}

impl Fetched {
    /// Makes the result of a call to the backend.
    pub fn new(outcome: Outcome, lifetime: Lifetime) -> Self {
        Self {
            outcome,
            lifetime,
            shared_age: None,
        }
    }
}

impl From<Outcome> for Fetched {
    fn from(outcome: Outcome) -> Self {
        Self::new(outcome, Lifetime::default())
    }
}

/// How long an answer may be used, where its headers say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// From the start of its call.
    pub fresh: Option<Duration>,
    /// After that, in place of a failure.
    pub stale: Option<Duration>,
}

/// The longest lifetime that is accepted. A longer one is more likely a framework's default for
/// static files than a promise about this answer, and a changed address has to reach the mail.
const MAX_LIFETIME: Duration = Duration::from_secs(86_400);

/// Returns the lifetime that the headers of an answer give it (RFC 9111, section 4.2, and RFC 5861,
/// section 4). The lifetime of an answer that must not be stored is zero.
pub fn lifetime<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Lifetime {
    let age = header("age").and_then(seconds).unwrap_or_default();
    let control = header("cache-control").unwrap_or_default();
    let directives = || control.split(',').map(|d| d.trim().to_ascii_lowercase());
    let any = |wanted: &[&str]| directives().any(|d| wanted.contains(&name(&d)));
    let argument = |wanted: &str| {
        directives().find_map(|d| {
            let (name, value) = d.split_once('=')?;
            let seconds = || seconds(value.trim().trim_matches('"')).unwrap_or_default();
            (name.trim() == wanted).then(seconds)
        })
    };
    // This cache is a shared one, since it answers for many users: `private` forbids storing, and
    // `s-maxage` comes before `max-age` (RFC 9111, sections 5.2.2.7 and 5.2.2.10). There is no
    // revalidation here, so `no-cache` forbids it too.
    let fresh = if any(&["no-store", "no-cache", "private"]) {
        Some(Duration::ZERO)
    } else {
        let max_age = argument("s-maxage").or_else(|| argument("max-age"));
        max_age
            .or_else(|| until_expires(&header))
            .map(|max_age| max_age.saturating_sub(age).min(MAX_LIFETIME))
    };
    // These forbid stale answers even where the table's stale-if-error allows them.
    let stale = if any(&["must-revalidate", "proxy-revalidate", "s-maxage"]) {
        Some(Duration::ZERO)
    } else {
        argument("stale-if-error")
    };
    Lifetime { fresh, stale }
}

fn until_expires<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Option<Duration> {
    // A value that is no date, such as 0, means that the answer is stale (RFC 9111, section 5.3).
    let Ok(expires) = httpdate::parse_http_date(header("expires")?) else {
        return Some(Duration::ZERO);
    };
    let date = header("date")
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .unwrap_or_else(SystemTime::now);
    Some(expires.duration_since(date).unwrap_or_default())
}

fn name(directive: &str) -> &str {
    directive.split('=').next().unwrap_or_default().trim()
}

fn seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let seconds = text.parse().unwrap_or(u64::MAX);
    is_number.then(|| Duration::from_secs(seconds).min(MAX_LIFETIME))
}
