//! Cache and breaker: what an endpoint answers while its backend is slow or down.

use std::time::Duration;

use super::file::Section;
use super::reader::Reader;
use super::template::{Part, Placeholder, Template};
use super::values;

/// How answers are cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// How long a value is fresh.
    pub ttl: Duration,
    /// How long a "not found" is fresh.
    pub negative_ttl: Duration,
    /// How much longer a stale value may be used while the backend fails.
    pub stale_if_error: Option<Duration>,
    /// How long before its end a value in use is fetched again.
    pub refresh_ahead: Option<Duration>,
    /// Whether the headers of an answer have priority.
    pub honour_http: bool,
    /// The most entries.
    pub max_entries: usize,
    /// The most bytes that the entries may take, approximately.
    pub max_bytes: usize,
    /// Whether answers are kept in the store's Redis as well, for all hosts.
    pub is_shared: bool,
    /// The attributes whose values make two policy requests equal.
    pub by: Vec<String>,
}

/// When a target is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// The failures in a row that open the breaker.
    pub failures: usize,
    /// The longest time between two probes.
    pub pause: Duration,
}

pub(super) fn cache(reader: &mut Reader<'_, '_>) -> Option<Cache> {
    let mut section = reader.section.take_members("cache", reader.report)?;
    let by = by(reader, &mut section);
    let ttl = lifetime(reader, &mut section, "ttl", Duration::from_secs(60));
    // A refusal is never kept: whoever has the right password is to find it right.
    let default = match reader.facts().has_logins() && !reader.is_default() {
        true => Duration::ZERO,
        false => Duration::from_secs(10),
    };
    let negative_ttl = lifetime(reader, &mut section, "negative-ttl", default);
    let mut duration = |name| {
        let entry = section.take(name)?;
        values::duration(&entry, reader.report)
    };
    let stale_if_error = duration("stale-if-error");
    let refresh_ahead = duration("refresh-ahead");
    let mut flag = |name| {
        let entry = section.take_bool(name);
        entry
            .and_then(|entry| values::boolean(&entry, reader.report))
            .unwrap_or(false)
    };
    let honour_http = flag("honour-http");
    let is_shared = flag("shared");
    let max_entries = section
        .take("max-entries")
        .and_then(|entry| values::count(&entry, 1..=100_000_000, reader.report))
        .unwrap_or(10_000);
    let max_bytes = section
        .take("max-bytes")
        .and_then(|entry| values::size(&entry, reader.report))
        .unwrap_or(16 << 20);
    section.finish(reader.report);
    Some(Cache {
        ttl,
        negative_ttl,
        stale_if_error,
        refresh_ahead,
        honour_http,
        max_entries,
        max_bytes,
        is_shared,
        by,
    })
}

/// Reads a lifetime; `false` is none at all.
fn lifetime(
    reader: &mut Reader<'_, '_>,
    section: &mut Section<'_>,
    name: &'static str,
    default: Duration,
) -> Duration {
    if section.is_off(name) {
        section.take_bool(name);
        return Duration::ZERO;
    }
    let entry = section.take(name);
    let lifetime = entry.and_then(|entry| values::duration(&entry, reader.report));
    lifetime.unwrap_or(default)
}

fn by(reader: &mut Reader<'_, '_>, section: &mut Section<'_>) -> Vec<String> {
    let Some(entry) = section.take("by") else {
        if !reader.is_default() && reader.facts().is_open {
            let text = "must have by = [...], the attributes that make requests equal; or write \
                        cache = false";
            reader
                .report
                .error(section.span.clone(), &section.path, text);
        }
        return Vec::new();
    };
    let names = values::strings(&entry, reader.report).unwrap_or_default();
    let is_known = |name: &&String| {
        let template = Template::parse(&format!("{{{name}}}"), reader.vocabulary());
        let value = Part::Placeholder(Placeholder::Value((*name).clone()));
        template.is_ok_and(|template| template.parts == [value])
    };
    if let Some(bad) = names.iter().find(|name| !is_known(name)) {
        let text =
            format!("{bad:?} is not an attribute of SMTPD_POLICY_README or extra-attributes");
        reader.report.error(entry.value.span(), &entry.path, text);
    } else if names.is_empty() {
        let text = "must name the attributes that make requests equal";
        reader.report.error(entry.value.span(), &entry.path, text);
    }
    names
}

pub(super) fn breaker(reader: &mut Reader<'_, '_>) -> Option<Breaker> {
    let mut breaker = Breaker {
        failures: 10,
        pause: Duration::from_secs(5),
    };
    let is_off = reader.section.is_off("breaker");
    let Some(mut section) = reader.section.take_members("breaker", reader.report) else {
        return (!is_off).then_some(breaker);
    };
    if let Some(entry) = section.take("failures") {
        let failures = values::count(&entry, 1..=1_000_000, reader.report);
        breaker.failures = failures.unwrap_or(breaker.failures);
    }
    if let Some(entry) = section.take("pause") {
        breaker.pause = values::duration(&entry, reader.report).unwrap_or(breaker.pause);
    }
    section.finish(reader.report);
    Some(breaker)
}
