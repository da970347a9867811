//! How long an answer is good, by its headers (RFC 9111 and RFC 5861).

use std::time::{Duration, SystemTime};

use crate::outcome::Outcome;

/// What a call has brought.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its outcome.
    pub outcome: Outcome,
    /// How long the backend says it is good.
    pub lifetime: Lifetime,
}

/// How long an answer is good by a backend's own word; nothing where it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// From when it was asked for.
    pub fresh: Option<Duration>,
    /// After that, in place of a failure.
    pub stale: Option<Duration>,
}

impl From<Outcome> for Answered {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            lifetime: Lifetime::default(),
        }
    }
}

/// Returns how long a backend says that its answer is good (RFC 9111, section 4.2, and RFC 5861,
/// section 4). What may not be kept is good for no time.
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
    let fresh = if any(&["no-store", "no-cache", "private"]) {
        Some(Duration::ZERO)
    } else {
        let most = argument("s-maxage").or_else(|| argument("max-age"));
        most.or_else(|| until_it_expires(&header))
            .map(|most| most.saturating_sub(age).min(LONGEST))
    };
    let stale = if any(&["must-revalidate", "proxy-revalidate", "s-maxage"]) {
        Some(Duration::ZERO)
    } else {
        argument("stale-if-error")
    };
    Lifetime { fresh, stale }
}

fn until_it_expires<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Option<Duration> {
    // A date that is none means "already over".
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

/// The longest lifetime that is taken: a day.
const LONGEST: Duration = Duration::from_secs(86_400);

fn seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let seconds = text.parse().unwrap_or(u64::MAX);
    is_number.then(|| Duration::from_secs(seconds).min(LONGEST))
}
