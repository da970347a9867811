//! The headers of a call, and which of them are credentials.

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use toml::de::DeValue;

use super::credentials::AUTHORIZATION_KEYS;
use super::file::{Entry, Section};
use super::reader::Reader;
use super::secret::{HeaderSecret, Secret, header_secret};
use super::template::Template;
use super::values;

/// The value of a header.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderText {
    /// The same for every call.
    Fixed(HeaderSecret),
    /// With placeholders.
    Filled(Template),
}

pub(super) fn read(reader: &mut Reader<'_, '_>) -> Vec<(HeaderName, HeaderText)> {
    let section = reader.section.take_members("headers", reader.report);
    let mut entries = section.map_or_else(Vec::new, Section::rest);
    if !reader.is_default() && !reader.facts().inherits_all {
        // Those with placeholders are about requests, and others than these.
        entries.retain(|(below, entry)| *below == 0 || is_constant(entry));
    }
    let nearest = nearest_credential(reader, &entries);
    reader.section.keep_nearest(nearest, &CREDENTIAL_KEYS);
    headers(reader, entries, nearest)
}

/// Reads the headers of a call whose credentials are those of its table.
pub(super) fn read_own(reader: &mut Reader<'_, '_>) -> Vec<(HeaderName, HeaderText)> {
    let section = reader.section.take_members("headers", reader.report);
    let (credentials, entries): (Vec<_>, Vec<_>) = section
        .map_or_else(Vec::new, Section::rest)
        .into_iter()
        .partition(|(_, entry)| is_credential(entry.key));
    for (_, entry) in credentials {
        let text = "is a credential, and those are of the whole table; write it there";
        reader.error(entry.key_span, &entry.path, text);
    }
    headers(reader, entries, 0)
}

/// Returns whether a header has no placeholder.
fn is_constant(entry: &Entry<'_>) -> bool {
    match entry.value.get_ref() {
        DeValue::String(text) => !text.replace("{{", "").contains('{'),
        _ => true,
    }
}

fn headers(
    reader: &mut Reader<'_, '_>,
    entries: Vec<(usize, Entry<'_>)>,
    nearest: usize,
) -> Vec<(HeaderName, HeaderText)> {
    let mut headers = Vec::new();
    for (below, entry) in entries {
        let Ok(name) = HeaderName::try_from(entry.key) else {
            reader.error(entry.key_span, &entry.path, "is not a header name");
            continue;
        };
        if OUR_HEADERS.contains(&name.as_str()) {
            reader.error(
                entry.key_span,
                &entry.path,
                "is set by the program itself; remove it",
            );
            continue;
        }
        if is_credential(entry.key) && (below > nearest || is_set_by_a_key(reader, &name, &entry)) {
            continue;
        }
        let value = match entry.value.get_ref() {
            DeValue::String(text) => header(reader, text, &entry),
            _ => header_secret(&entry, "", reader.secret_policy, reader.report)
                .map(HeaderText::Fixed),
        };
        headers.extend(value.map(|value| (name, value)));
    }
    headers.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    headers
}

/// Returns the distance of the nearest credential of any kind. It displaces all that stand further
/// away, because those were written for another host.
fn nearest_credential(reader: &Reader<'_, '_>, headers: &[(usize, Entry<'_>)]) -> usize {
    let by_key = reader
        .section
        .nearest(&CREDENTIAL_KEYS)
        .map(|(below, _)| below);
    let by_header = headers
        .iter()
        .filter(|(_, entry)| is_credential(entry.key))
        .map(|(below, _)| *below);
    by_header.chain(by_key).min().unwrap_or(usize::MAX)
}

/// Reports a header that a key sets as well.
fn is_set_by_a_key(reader: &mut Reader<'_, '_>, name: &HeaderName, entry: &Entry<'_>) -> bool {
    let keys = if *name == AUTHORIZATION {
        &AUTHORIZATION_KEYS[..]
    } else {
        &["auth-token"]
    };
    let Some((_, key)) = reader.section.nearest(keys) else {
        return false;
    };
    let text = format!("{key} is set as well, and only one of them can be sent; remove one");
    reader.error(entry.key_span.clone(), &entry.path, text);
    true
}

fn header(reader: &mut Reader<'_, '_>, text: &str, entry: &Entry<'_>) -> Option<HeaderText> {
    let Ok(template) = reader.parse_template(text) else {
        let fault = reader.vocabulary().fault();
        reader.error(entry.value.span(), &entry.path, fault);
        return None;
    };
    if template.is_harmless() {
        reader.report.layout().harmless.push(entry.value.span());
    }
    let literal = template.literal();
    let is_empty = literal.is_empty() && !template.has_placeholder();
    let Some(fixed) = HeaderSecret::new("", &Secret::text(&literal)).filter(|_| !is_empty) else {
        let text = "is empty or contains a character that cannot be sent in a header";
        reader.error(entry.value.span(), &entry.path, text);
        return None;
    };
    Some(if template.has_placeholder() {
        HeaderText::Filled(template)
    } else {
        HeaderText::Fixed(fixed)
    })
}

pub(super) fn user_agent(reader: &mut Reader<'_, '_>) -> HeaderValue {
    let default = HeaderValue::from_static(concat!("postgate/", env!("CARGO_PKG_VERSION")));
    let Some(entry) = reader.section.take("user-agent") else {
        return default;
    };
    reader.report_placeholder(&entry, "user-agent");
    let Some(text) = values::string(&entry, reader.report) else {
        return default;
    };
    match HeaderValue::from_str(text) {
        Ok(value) if !value.is_empty() => value,
        _ => {
            let text = "is empty or contains a character that cannot be sent in a header";
            reader.error(entry.value.span(), &entry.path, text);
            default
        }
    }
}

pub(super) fn auth_token(reader: &mut Reader<'_, '_>) -> Option<HeaderSecret> {
    let entry = reader.section.take("auth-token")?;
    reader.report_placeholder(&entry, "x-auth-token");
    header_secret(&entry, "", reader.secret_policy, reader.report)
}

/// The keys that set a credential.
const CREDENTIAL_KEYS: [&str; 4] = ["auth-token", "bearer-token", "basic-auth", "oauth2"];

/// Returns whether a name is that of a credential, such as `X-Api-Key`.
pub(super) fn names_credential(name: &str) -> bool {
    /// Words of names that go with nothing else.
    const WORDS: [&str; 9] = [
        "authorization",
        "apikey",
        "cookie",
        "credential",
        "credentials",
        "key",
        "password",
        "secret",
        "token",
    ];
    let mut words = name.split(['-', '_', '.']);
    words.any(|word| WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

/// Returns whether one of these keys sets the header of this name.
pub(super) fn is_credential(name: &str) -> bool {
    ["authorization", "x-auth-token"].contains(&name.to_ascii_lowercase().as_str())
}

/// Headers that describe the connection or the body, or tie a call to its line in the log.
const OUR_HEADERS: [&str; 13] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];
