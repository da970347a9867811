//! The key of a request: normalised once, for the cache and for the call.

use std::borrow::Cow;

use crate::config::{Normalise, Table};
use crate::outcome::Outcome;
use crate::request::Request;

/// Returns the request with its key normalised, or its outcome where the backend is not to be asked
/// for this key. A request without a key stays as it is.
pub fn normalise<'r>(request: &'r Request, table: &Table) -> Result<Cow<'r, Request>, Outcome> {
    let Some(name) = table.protocol.key else {
        return Ok(Cow::Borrowed(request));
    };
    let (key, endpoint) = (request.value(name).unwrap_or_default(), &table.endpoint);
    if is_not_asked(key, table) {
        return Err(Outcome::NotFound);
    }
    match normal_key(key, &endpoint.normalise) {
        None => Err(Outcome::NotFound),
        Some(Cow::Borrowed(_)) => Ok(Cow::Borrowed(request)),
        Some(Cow::Owned(key)) => Ok(Cow::Owned(request.clone().with(name, key.into()))),
    }
}

/// Returns why the backend is not to be asked for the key of a request, for people.
pub fn why_no_call(request: &Request, table: &Table) -> &'static str {
    let key = table.protocol.key.and_then(|name| request.value(name));
    match key.unwrap_or_default() {
        key if is_not_asked(key, table) => {
            "Postfix asks for \"*\" and \"<>\" itself; special-keys = true"
        }
        _ => "it does not match normalise.pattern",
    }
}

/// Returns whether a key is that of no address or domain, and the table is not asked for such keys.
fn is_not_asked(key: &[u8], table: &Table) -> bool {
    !table.protocol.has_logins() && !table.endpoint.special_keys && is_special(key)
}

/// Returns whether Postfix asks for this key on its own account, in transport_maps and in sender
/// maps. Any answer but "not found" would change the route of all mail.
fn is_special(key: &[u8]) -> bool {
    matches!(key, b"*" | b"<>" | b"\"<>\"")
}

/// Returns the normalised key, or nothing for a key that the pattern does not match.
fn normal_key<'k>(key: &'k [u8], normalise: &Normalise) -> Option<Cow<'k, [u8]>> {
    let mut key = Cow::Borrowed(key);
    if normalise.lowercase {
        key = Cow::Owned(lower_case(&key));
    }
    if let Some(delimiter) = &normalise.delimiter {
        cut_extension(&mut key, delimiter.as_bytes());
    }
    if let Some(pattern) = &normalise.pattern {
        let text = std::str::from_utf8(&key).ok()?;
        pattern.regex.is_match(text).then_some(())?;
    }
    Some(key)
}

/// Returns a key in lower case.
pub fn lower_case(key: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(key) {
        Ok(text) => text.to_lowercase().into_bytes(),
        Err(_) => key.to_ascii_lowercase(),
    }
}

/// Takes the extension off the local part of an address, as split_addr(3) does: never all of it,
/// and not off the addresses of the mail system itself.
pub fn cut_extension(key: &mut Cow<'_, [u8]>, delimiter: &[u8]) {
    const OWN: [&[u8]; 3] = [b"postmaster", b"mailer-daemon", b"double-bounce"];
    let Some(at) = key.iter().rposition(|b| *b == b'@') else {
        return;
    };
    let local = &key[..at];
    let lower = local.to_ascii_lowercase();
    let is_list = delimiter.contains(&b'-')
        && (lower.starts_with(b"owner-") || lower.len() > 8 && lower.ends_with(b"-request"));
    if OWN.contains(&lower.as_slice()) || is_list {
        return;
    }
    match local.iter().position(|b| delimiter.contains(b)) {
        None | Some(0) => {}
        Some(end) => {
            let cut = [&key[..end], &key[at..]].concat();
            *key = Cow::Owned(cut);
        }
    }
}
