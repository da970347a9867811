//! What keeps an endpoint steady: kept answers, and peace for a target that is down.

use std::time::Duration;

use super::file::Section;
use super::reader::Reader;
use super::template::Template;
use super::values;

/// How answers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// How long a value is good.
    pub ttl: Duration,
    /// How long a "not found" is good.
    pub negative_ttl: Duration,
    /// How long after that it may still be said while no better one is to be had.
    pub stale_if_error: Option<Duration>,
    /// How long before its end it is asked for again, if it is asked for at all.
    pub refresh_ahead: Option<Duration>,
    /// Whether the backend's own word on lifetimes comes first.
    pub honour_http: bool,
    /// The most answers.
    pub max_entries: usize,
    /// The most memory for them, about.
    pub max_bytes: usize,
    /// The attributes that make a policy question.
    pub by: Vec<String>,
}

/// When a target is left in peace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// After so many failures in a row.
    pub failures: usize,
    /// For so long.
    pub pause: Duration,
}

impl Reader<'_, '_> {
    pub(super) fn cache(&mut self, is_default: bool) -> Option<Cache> {
        let mut section = self.section.take_members("cache", self.report)?;
        let by = self.by(&mut section, is_default);
        let ttl = self.lifetime(&mut section, "ttl", Duration::from_secs(60));
        let negative_ttl = self.lifetime(&mut section, "negative-ttl", Duration::from_secs(10));
        let mut duration = |name| {
            let entry = section.take(name)?;
            values::duration(&entry, self.report)
        };
        let stale_if_error = duration("stale-if-error");
        let refresh_ahead = duration("refresh-ahead");
        let honour_http = section
            .take_bool("honour-http")
            .and_then(|entry| values::boolean(&entry, self.report))
            .unwrap_or(false);
        let max_entries = section
            .take("max-entries")
            .and_then(|entry| values::count(&entry, 1..=100_000_000, self.report))
            .unwrap_or(10_000);
        let max_bytes = section
            .take("max-bytes")
            .and_then(|entry| values::size(&entry, self.report))
            .unwrap_or(16 << 20);
        section.finish(self.report);
        Some(Cache {
            ttl,
            negative_ttl,
            stale_if_error,
            refresh_ahead,
            honour_http,
            max_entries,
            max_bytes,
            by,
        })
    }

    /// A lifetime; `false` is none at all.
    fn lifetime(
        &mut self,
        section: &mut Section<'_>,
        name: &'static str,
        default: Duration,
    ) -> Duration {
        if section.is_off(name) {
            section.take_bool(name);
            return Duration::ZERO;
        }
        let entry = section.take(name);
        let lifetime = entry.and_then(|entry| values::duration(&entry, self.report));
        lifetime.unwrap_or(default)
    }

    fn by(&mut self, section: &mut Section<'_>, is_default: bool) -> Vec<String> {
        let Some(entry) = section.take("by") else {
            if !is_default && self.facts().is_open {
                let text =
                    "needs by = [...], the attributes that make a question; or cache = false";
                self.report.error(section.span.clone(), &section.path, text);
            }
            return Vec::new();
        };
        let names = values::strings(&entry, self.report).unwrap_or_default();
        let is_known =
            |name: &&String| Template::parse(&format!("{{{name}}}"), self.vocabulary()).is_ok();
        if let Some(bad) = names.iter().find(|name| !is_known(name)) {
            let text =
                format!("{bad:?} is no attribute of SMTPD_POLICY_README or extra-attributes");
            self.report.error(entry.value.span(), &entry.path, text);
        } else if names.is_empty() {
            let text = "must name the attributes that make a question";
            self.report.error(entry.value.span(), &entry.path, text);
        }
        names
    }

    pub(super) fn breaker(&mut self) -> Option<Breaker> {
        let mut breaker = Breaker {
            failures: 10,
            pause: Duration::from_secs(5),
        };
        let is_off = self.section.is_off("breaker");
        let Some(mut section) = self.section.take_members("breaker", self.report) else {
            return (!is_off).then_some(breaker);
        };
        if let Some(entry) = section.take("failures") {
            let failures = values::count(&entry, 1..=1_000_000, self.report);
            breaker.failures = failures.unwrap_or(breaker.failures);
        }
        if let Some(entry) = section.take("pause") {
            breaker.pause = values::duration(&entry, self.report).unwrap_or(breaker.pause);
        }
        section.finish(self.report);
        Some(breaker)
    }
}
