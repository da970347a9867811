//! The credentials of a call: the keys that set `Authorization`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::HeaderValue;

use super::file::{Entry, Section, table};
use super::keys::BASIC_AUTH;
use super::oauth::{self, OAuth};
use super::reader::Reader;
use super::secret::{HeaderSecret, Secret, Source, any_secret, header_secret, sensitive};
use super::tls::Tls;

/// The keys that set `Authorization`.
pub(super) const AUTHORIZATION_KEYS: [&str; 3] = ["bearer-token", "basic-auth", "oauth2"];

/// The one credential in `Authorization`.
#[derive(Clone, Debug, PartialEq)]
pub enum Credential {
    /// `Bearer`, RFC 6750.
    Bearer(HeaderSecret),
    /// `Basic`, RFC 7617.
    Basic {
        /// Where the user's name comes from.
        user: Source,
        /// Where the password comes from.
        password: Source,
        /// The header; absent where one of the two could not be read.
        value: Option<HeaderValue>,
    },
    /// `Bearer`, with a token that is fetched from a token server.
    OAuth(Box<OAuth>),
}

/// Reads the one credential; `headers` has dropped those that it displaces.
pub(super) fn read(reader: &mut Reader<'_, '_>, tls: &Tls) -> Option<Credential> {
    let mut found: Vec<_> = AUTHORIZATION_KEYS
        .into_iter()
        .filter_map(|name| reader.section.take(name))
        .collect();
    found.sort_by_key(|entry| entry.key_span.start);
    let entry = found.first()?;
    if let Some(second) = found.get(1) {
        let text = format!(
            "{} is set as well, and only one of them can be sent; remove one",
            entry.key
        );
        reader
            .report
            .error(second.key_span.clone(), &second.path, text);
    }
    match entry.key {
        "bearer-token" => header_secret(entry, "Bearer ", reader.secret_policy, reader.report)
            .map(Credential::Bearer),
        "basic-auth" => basic(reader, entry),
        _ => {
            let settings = oauth::read(reader, entry, tls)?;
            Some(Credential::OAuth(Box::new(settings)))
        }
    }
}

fn basic<'t>(reader: &mut Reader<'_, 't>, entry: &Entry<'t>) -> Option<Credential> {
    let table = table(entry, reader.report)?;
    let mut section = Section::new(&entry.path, entry.key_span.clone(), table, BASIC_AUTH);
    let user = section.take("user");
    let password = section.take("password");
    section.finish(reader.report);
    let (Some(user_entry), Some(password)) = (user, password) else {
        reader.error(
            entry.value.span(),
            &entry.path,
            "must have the keys user and password",
        );
        return None;
    };
    let user = basic_part(reader, &user_entry);
    let password = basic_part(reader, &password);
    let (user, password) = (user?, password?);
    if user.expose().contains(':') {
        let text = "contains a colon, which ends the user name in basic authentication";
        reader.error(user_entry.value.span(), &user_entry.path, text);
    }
    let is_absent = user.is_absent() || password.is_absent();
    let pair = BASE64.encode(format!("{}:{}", user.expose(), password.expose()));
    Some(Credential::Basic {
        user: user.source().clone(),
        password: password.source().clone(),
        value: sensitive(&format!("Basic {pair}")).filter(|_| !is_absent),
    })
}

/// Reads a user's name or password. RFC 7617 forbids control characters in both.
fn basic_part(reader: &mut Reader<'_, '_>, entry: &Entry<'_>) -> Option<Secret> {
    let secret = any_secret(entry, reader.secret_policy, reader.report)?;
    if HeaderSecret::new("", &secret).is_none() {
        let text = "contains a character that cannot be sent in a header";
        reader.error(entry.value.span(), &entry.path, text);
        return None;
    }
    Some(secret)
}
