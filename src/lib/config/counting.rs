//! Reads the limits of a table.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::file::{Entry, Section, entries, table};
use super::keys::LIMIT;
use super::limits::{Exceeding, Limit, MAX_NUMBER, RateSource};
use super::problem::Report;
use super::reader::Reader;
use super::template::{Template, Vocabulary};
use super::values;
use crate::protocol::facts::Counting;
use crate::protocol::policy::action;

/// The placeholders of `on-exceeded`.
const WORDS: &[&str] = &["name", "limit", "used", "window", "wait"];

const ON_EXCEEDED: &str =
    "DEFER_IF_PERMIT 4.7.1 Limit of {limit} in {window} reached, try again in {wait}";

/// The most limits of a table: each is a state to be read and written for every request.
const MAX_LIMITS: usize = 16;

/// The most windows of a limit.
const MAX_WINDOWS: usize = 4;

/// The limits of a table as they are read.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) limits: Vec<Limit>,
    /// Whether a rate is a JSON Pointer, so that the table makes calls.
    pub(super) makes_calls: bool,
    /// The rates that are JSON Pointers and have no fallback.
    pub(super) without_fallback: Vec<(Range<usize>, String)>,
}

/// Reads the limits of a table whose requests can be counted.
pub(super) fn read(
    reader: &mut Reader<'_, '_>,
    counting: Option<&'static Counting>,
    classes: &[String],
) -> Limits {
    let mut found = Limits::default();
    let entry = reader.section.take("limits");
    let (Some(entry), Some(counting)) = (entry, counting) else {
        return found;
    };
    let no_list = format!("must be a list of tables; write [[{}]]", entry.path);
    let array = match entry.value.get_ref() {
        DeValue::Array(array) if (1..=MAX_LIMITS).contains(&array.len()) => array,
        DeValue::Array(array) => {
            let text = format!(
                "has {} limits; there must be 1 to {MAX_LIMITS}",
                array.len()
            );
            reader.error(entry.key_span.clone(), &entry.path, text);
            return found;
        }
        _ => {
            reader.error(entry.value.span(), &entry.path, no_list);
            return found;
        }
    };
    for value in array.iter() {
        let DeValue::Table(own) = value.get_ref() else {
            reader.error(value.span(), &entry.path, no_list.as_str());
            continue;
        };
        let limit = OneLimit {
            section: Section::new(&entry.path, value.span(), own, LIMIT).of(reader.section.kind()),
            vocabulary: Vocabulary {
                protocols: reader.requests,
                extra: &reader.extra_attributes,
                words: &[],
            },
            counting,
            report: reader.report,
        };
        let limit = limit.read(classes, &mut found);
        found.limits.extend(limit);
    }
    found
}

/// A limit whose keys are being read.
struct OneLimit<'r, 't> {
    section: Section<'t>,
    vocabulary: Vocabulary<'r>,
    counting: &'static Counting,
    report: &'r mut Report,
}

impl<'t> OneLimit<'_, 't> {
    fn read(mut self, classes: &[String], found: &mut Limits) -> Option<Limit> {
        self.require(&["name", "by", "rates"]);
        let name = self.name(&found.limits);
        let by = self.by();
        let delimiter = self.section.take("delimiter");
        let delimiter = delimiter.and_then(|entry| values::delimiter(&entry, self.report));
        let rates = self.rates(found);
        let fallback = self.fallback(&rates);
        let count = self.section.take("count");
        let count = count.and_then(|entry| values::word(&entry, self.counting.counts, self.report));
        let default = self.counting.counts.first().map(|(_, count)| *count);
        let charges_refused = self.boolean("refused");
        let exempt = self.exempt();
        let is_dry_run = self.boolean("dry-run");
        let on_exceeded = self.section.take("on-exceeded");
        let text = on_exceeded.as_ref().map_or(Some(ON_EXCEEDED), |entry| {
            values::string(entry, self.report)
        });
        let limit = Limit {
            name: name.unwrap_or_default(),
            by,
            delimiter,
            rates,
            fallback,
            count: count.or(default)?,
            charges_refused,
            exempt,
            on_exceeded: Template::default(),
            is_dry_run,
        };
        let limit = with_action(limit, text.unwrap_or(ON_EXCEEDED), classes);
        if let (Some(entry), Err(text)) = (on_exceeded, &limit) {
            self.report
                .error(entry.value.span(), &entry.path, text.as_str());
        }
        self.section.finish(self.report);
        limit.ok()
    }

    /// Reports which of these keys the limit lacks.
    fn require(&mut self, names: &[&'static str]) {
        let mut missing = names.to_vec();
        missing.retain(|name| self.section.nearest(&[*name]).is_none());
        if !missing.is_empty() {
            let keys = if missing.len() == 1 { "key" } else { "keys" };
            let text = format!("lacks the {keys} {}", missing.join(", "));
            let span = self.section.span.clone();
            self.report.error(span, &self.section.path, text);
        }
    }

    fn boolean(&mut self, name: &'static str) -> bool {
        let entry = self.section.take_bool(name);
        entry
            .and_then(|entry| values::boolean(&entry, self.report))
            .unwrap_or(false)
    }

    /// Reads the name, which stands in labels, keys of the store and columns of `--limits`.
    fn name(&mut self, others: &[Limit]) -> Option<String> {
        const MAX_NAME: usize = 64;
        let entry = self.section.take("name")?;
        let name = values::string(&entry, self.report)?;
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let text = if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(is_word) {
            format!(
                "{name:?} is not a name; a name has 1 to {MAX_NAME} letters, digits, \"-\" and \"_\""
            )
        } else if others.iter().any(|other| other.name == name) {
            format!("another limit of this table has the name {name:?}; choose a different one")
        } else {
            return Some(name.to_owned());
        };
        self.report.error(entry.value.span(), &entry.path, text);
        None
    }

    fn by(&mut self) -> Vec<Template> {
        let Some(entry) = self.section.take("by") else {
            return Vec::new();
        };
        let texts: Vec<_> = match entry.value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![entry.value],
        };
        if texts.is_empty() {
            let text = "must be a text such as \"{sasl_username}\", or a list of texts";
            self.report.error(entry.value.span(), &entry.path, text);
        }
        let mut templates: Vec<Template> = Vec::new();
        for value in texts {
            let template = match value.get_ref() {
                DeValue::String(text) if text.is_empty() => Err("is empty".to_owned()),
                DeValue::String(text) => Template::parse(text, self.vocabulary),
                _ => Err("must be a text, or a list of texts".to_owned()),
            };
            self.report.layout().harmless.push(value.span());
            let has_end = templates.last().is_some_and(|last| !last.has_placeholder());
            match template {
                Ok(template) if template.has_secret() => {
                    let text = "has a password or a token, and accounts are kept and logged";
                    self.report.error(value.span(), &entry.path, text);
                }
                Ok(_) if has_end => {
                    let text = "is never used, because the text before it has no placeholder, and \
                                so is always there; write that one last";
                    self.report.error(value.span(), &entry.path, text);
                }
                Ok(template) => templates.push(template),
                Err(text) => self.report.error(value.span(), &entry.path, text),
            }
        }
        templates
    }

    fn rates(&mut self, found: &mut Limits) -> Vec<(Duration, RateSource)> {
        let Some(entry) = self.section.take("rates") else {
            return Vec::new();
        };
        let has_call = self.counting.call.is_some();
        let rates = self.windows(&entry, |value| match value.get_ref() {
            DeValue::String(pointer) if has_call => {
                found.makes_calls = true;
                let is_pointer = pointer.starts_with('/') && values::is_pointer(pointer);
                is_pointer.then(|| RateSource::Pointer(pointer.to_string()))
            }
            _ => number(value).map(RateSource::Fixed),
        });
        let has_pointer = rates
            .iter()
            .any(|(_, s)| matches!(s, RateSource::Pointer(_)));
        if has_pointer && self.section.nearest(&["fallback"]).is_none() {
            let place = (entry.value.span(), entry.path);
            found.without_fallback.push(place);
        }
        rates
    }

    fn fallback(&mut self, rates: &[(Duration, RateSource)]) -> Option<Vec<(Duration, u64)>> {
        let entry = self.section.take("fallback")?;
        let fallback = self.windows(&entry, number);
        let mut sources = rates.iter().map(|(_, source)| source);
        let mut windows: Vec<_> = rates.iter().map(|(window, _)| window).collect();
        windows.extend(fallback.iter().map(|(window, _)| window));
        windows.sort_unstable();
        windows.dedup();
        let text = if sources.all(|source| matches!(source, RateSource::Fixed(_))) {
            "is for rates that are JSON Pointers, and no rate of this limit is one; remove it"
                .to_owned()
        } else if windows.len() > MAX_WINDOWS {
            format!(
                "has {} windows together with rates; there must be at most {MAX_WINDOWS}",
                windows.len()
            )
        } else {
            return Some(fallback);
        };
        // Rates that were rejected have been reported.
        if !rates.is_empty() {
            self.report.error(entry.value.span(), &entry.path, text);
        }
        Some(fallback)
    }

    /// Reads a table of windows and their numbers.
    fn windows<T>(
        &mut self,
        entry: &Entry<'t>,
        mut number: impl FnMut(&Spanned<DeValue<'t>>) -> Option<T>,
    ) -> Vec<(Duration, T)> {
        let Some(members) = table(entry, self.report) else {
            return Vec::new();
        };
        let members = entries(&entry.path, members);
        if !(1..=MAX_WINDOWS).contains(&members.len()) {
            let text = format!(
                "has {} windows; there must be 1 to {MAX_WINDOWS}, as in {{ \"1h\" = 100 }}",
                members.len()
            );
            self.report.error(entry.value.span(), &entry.path, text);
        }
        let mut windows = Vec::new();
        for member in members {
            self.report.layout().harmless.push(member.value.span());
            let window = match window(member.key) {
                Ok(window) if windows.iter().any(|(other, _)| *other == window) => {
                    Err("stands for the same window as a key before it; remove one".to_owned())
                }
                window => window,
            };
            match (window, number(member.value)) {
                (Ok(window), Some(number)) => windows.push((window, number)),
                (Err(text), _) => self.report.error(member.key_span, &member.path, text),
                (_, None) => {
                    let has_pointers = entry.key == "rates" && self.counting.call.is_some();
                    let text = no_number(has_pointers);
                    self.report.error(member.value.span(), &member.path, text);
                }
            }
        }
        windows
    }

    fn exempt(&mut self) -> Vec<String> {
        let Some(entry) = self.section.take("exempt") else {
            return Vec::new();
        };
        let accounts = values::strings(&entry, self.report).unwrap_or_default();
        if accounts
            .iter()
            .any(|account| ["", "@"].contains(&account.as_str()))
        {
            let text = "must be a list of accounts, or of domains such as \"@example.com\"";
            self.report.error(entry.value.span(), &entry.path, text);
        }
        accounts
            .iter()
            .map(|account| account.to_lowercase())
            .collect()
    }
}

fn window(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_secs(60);
    const LONGEST: Duration = Duration::from_secs(31 * 86_400);
    values::with_unit(text)
        .filter(|window| (SHORTEST..=LONGEST).contains(window))
        .ok_or_else(|| format!("{text:?} is not a window; write \"1m\" to \"31d\", as \"1h\""))
}

fn number(value: &Spanned<DeValue<'_>>) -> Option<u64> {
    values::integer(value).filter(|number| (1..=MAX_NUMBER).contains(number))
}

fn no_number(has_pointers: bool) -> String {
    let or_pointer = match has_pointers {
        true => ", or a JSON Pointer such as \"/per_hour\"",
        false => "",
    };
    format!("must be a whole number from 1 to {MAX_NUMBER}{or_pointer}")
}

/// Returns a limit with its action, which must be one whatever its placeholders stand for.
fn with_action(limit: Limit, text: &str, classes: &[String]) -> Result<Limit, String> {
    let vocabulary = Vocabulary {
        words: WORDS,
        ..Vocabulary::default()
    };
    let on_exceeded = Template::parse(text, vocabulary)?;
    let limit = Limit {
        on_exceeded,
        ..limit
    };
    let mut windows: Vec<_> = limit.rates.iter().map(|(window, _)| *window).collect();
    windows.extend(limit.fallback.iter().flatten().map(|(window, _)| *window));
    // The action may depend on the number of digits: "4.7.1" and "4.7.1000" are not alike.
    let numbers = (0..20).map(|exponent| 10_u64.pow(exponent));
    for number in numbers.chain([u64::MAX]) {
        for window in &windows {
            let exceeding = Exceeding {
                limit: number,
                used: number,
                window: *window,
                // No time has a longer text.
                wait: Duration::from_secs(99),
            };
            let action = limit.action(&exceeding);
            if let Err(fault) = action::parse(&action, true, classes) {
                let filled_in = if limit.on_exceeded.has_placeholder() {
                    "filled in, "
                } else {
                    ""
                };
                return Err(format!("{filled_in}{text:?} is {}", fault.text()));
            }
        }
    }
    Ok(limit)
}
