//! Plain values, each with the message for a wrong one.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::file::Entry;
use super::problem::Report;

/// Returns a string that may be shown.
pub(super) fn string<'t>(entry: &Entry<'t>, report: &mut Report) -> Option<&'t str> {
    report.layout().harmless.push(entry.value.span());
    private_string(entry, report)
}

/// Returns a string that may be a secret.
pub(super) fn private_string<'t>(entry: &Entry<'t>, report: &mut Report) -> Option<&'t str> {
    match entry.value.get_ref() {
        DeValue::String(text) => Some(text),
        _ => {
            report.error(entry.value.span(), &entry.path, "must be a string");
            None
        }
    }
}

/// Returns `true` or `false`.
pub(super) fn boolean(entry: &Entry<'_>, report: &mut Report) -> Option<bool> {
    report.layout().harmless.push(entry.value.span());
    match entry.value.get_ref() {
        DeValue::Boolean(value) => Some(*value),
        _ => {
            report.error(entry.value.span(), &entry.path, "must be true or false");
            None
        }
    }
}

/// Returns a list of strings.
pub(super) fn strings(entry: &Entry<'_>, report: &mut Report) -> Option<Vec<String>> {
    report.layout().harmless.push(entry.value.span());
    let DeValue::Array(array) = entry.value.get_ref() else {
        report.error(entry.value.span(), &entry.path, "must be a list of strings");
        return None;
    };
    let mut strings = Vec::new();
    for value in array.iter() {
        report.layout().harmless.push(value.span());
        match value.get_ref() {
            DeValue::String(text) => strings.push(text.to_string()),
            _ => report.error(value.span(), &entry.path, "must be a list of strings"),
        }
    }
    Some(strings)
}

/// Returns a whole number within bounds.
pub(super) fn count(
    entry: &Entry<'_>,
    bounds: std::ops::RangeInclusive<usize>,
    report: &mut Report,
) -> Option<usize> {
    report.layout().harmless.push(entry.value.span());
    let number = integer(entry.value).filter(|n| bounds.contains(n));
    if number.is_none() {
        let text = format!(
            "must be a whole number from {} to {}",
            bounds.start(),
            bounds.end()
        );
        report.error(entry.value.span(), &entry.path, text);
    }
    number
}

/// Returns a whole number from zero.
pub(super) fn integer<N: TryFrom<u64>>(value: &Spanned<DeValue<'_>>) -> Option<N> {
    match value.get_ref() {
        DeValue::Integer(n) => u64::from_str_radix(n.as_str(), n.radix())
            .ok()
            .and_then(|n| n.try_into().ok()),
        _ => None,
    }
}

/// Returns a number of bytes: a whole number, or a string with a unit.
pub(super) fn size(entry: &Entry<'_>, report: &mut Report) -> Option<usize> {
    const UNITS: [(&str, usize); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    const MOST: usize = 1 << 30;
    report.layout().harmless.push(entry.value.span());
    let bytes = match entry.value.get_ref() {
        DeValue::String(text) => UNITS.iter().find_map(|(unit, factor)| {
            let digits = text.strip_suffix(unit)?;
            whole(digits)?.checked_mul(u64::try_from(*factor).ok()?)
        }),
        _ => integer(entry.value),
    };
    let bytes = bytes.and_then(|n| usize::try_from(n).ok());
    let size = bytes.filter(|n| (1..=MOST).contains(n));
    if size.is_none() {
        let text = "must be a size from 1 byte to 1 GiB: a number of bytes, \"64KiB\" or \"1MiB\"";
        report.error(entry.value.span(), &entry.path, text);
    }
    size
}

/// Returns a duration, which is written with its unit.
pub(super) fn duration(entry: &Entry<'_>, report: &mut Report) -> Option<Duration> {
    report.layout().harmless.push(entry.value.span());
    let parsed = match entry.value.get_ref() {
        DeValue::String(text) => parse_duration(text).ok_or_else(|| {
            format!("{text:?} is not a duration; write \"500ms\", \"2s\" or \"5m\"")
        }),
        DeValue::Integer(number) => Err(format!(
            "{number} has no unit; write \"{number}s\" for seconds or \"{number}ms\" for \
             milliseconds"
        )),
        _ => Err("must be a duration such as \"500ms\", \"2s\" or \"5m\"".to_owned()),
    };
    match parsed {
        Ok(duration) if duration.is_zero() => {
            report.error(entry.value.span(), &entry.path, "must be longer than zero");
            None
        }
        Ok(duration) => Some(duration),
        Err(text) => {
            report.error(entry.value.span(), &entry.path, text);
            None
        }
    }
}

/// Returns a duration as the file has it.
pub(super) fn written(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1_000) {
        format!("{}s", millis / 1_000)
    } else {
        format!("{millis}ms")
    }
}

/// A longer duration is taken for a typing error.
const LONGEST: Duration = Duration::from_secs(86_400);

fn parse_duration(text: &str) -> Option<Duration> {
    with_unit(text).filter(|duration| *duration <= LONGEST)
}

/// The units of durations and their milliseconds, the largest first.
pub(super) const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Returns the duration that a text with a unit stands for.
pub(super) fn with_unit(text: &str) -> Option<Duration> {
    let millis = UNITS.iter().find_map(|(unit, factor)| {
        // What stands before the "s" of "5ms" is no number.
        whole(text.strip_suffix(unit)?)?.checked_mul(*factor)
    });
    millis.map(Duration::from_millis)
}

fn whole(digits: &str) -> Option<u64> {
    let is_plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_plain.then(|| digits.parse().ok())?
}

/// Returns the value that a word stands for.
pub(super) fn word<T: Copy>(
    entry: &Entry<'_>,
    words: &[(&str, T)],
    report: &mut Report,
) -> Option<T> {
    let text = string(entry, report)?;
    let found = words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, t)| *t);
    if found.is_none() {
        let quoted = words.iter().map(|(word, _)| format!("\"{word}\""));
        let names = one_of(&quoted.collect::<Vec<_>>());
        let text = format!("{text:?} is unknown; write {names}");
        report.error(entry.value.span(), &entry.path, text);
    }
    found
}

/// Returns names as alternatives: a, b or c.
fn one_of(names: &[String]) -> String {
    match names {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        names => names.concat(),
    }
}

/// Returns the path or the name of a value that is kept elsewhere. A key that stands here in place
/// of its path is not shown.
pub(super) fn place<'t>(entry: &Entry<'t>, no_place: &str, report: &mut Report) -> Option<&'t str> {
    let text = private_string(entry, report)?;
    if text.contains("-----BEGIN") || text.contains(char::is_control) {
        report.error(entry.value.span(), &entry.path, no_place);
        return None;
    }
    report.layout().harmless.push(entry.value.span());
    Some(text)
}

/// Returns the text of an I/O error without its number.
pub(super) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}

/// Returns a JSON Pointer, RFC 6901.
pub(super) fn pointer(entry: &Entry<'_>, report: &mut Report) -> Option<String> {
    let text = string(entry, report)?;
    if is_pointer(text) {
        return Some(text.to_owned());
    }
    let text =
        format!("{text:?} is not a JSON Pointer; write \"/member\" or \"/list/0\" (RFC 6901)");
    report.error(entry.value.span(), &entry.path, text);
    None
}

/// Returns whether a text is a JSON Pointer.
pub(super) fn is_pointer(text: &str) -> bool {
    let is_escaped = |token: &str| {
        token
            .split('~')
            .skip(1)
            .all(|t| t.starts_with('0') || t.starts_with('1'))
    };
    text.is_empty() || text.starts_with('/') && text.split('/').all(is_escaped)
}

/// Returns the characters that begin an extension of a local part.
pub(super) fn delimiter(entry: &Entry<'_>, report: &mut Report) -> Option<String> {
    let text = string(entry, report)?;
    if text.is_empty() || !text.is_ascii() || text.contains('@') {
        let text = "must be one or more ASCII characters other than \"@\"";
        report.error(entry.value.span(), &entry.path, text);
    }
    Some(text.to_owned())
}
