//! The credentials of a call: the keys that set `Authorization`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use toml::de::DeValue;

use super::file::{Entry, Section, table};
use super::keys::BASIC_AUTH;
use super::oauth::{self, OAuth};
use super::reader::Reader;
use super::secret::{HeaderSecret, Secret, Source, any_secret, header_secret, sensitive};
use super::template::Template;
use super::tls::Tls;
use super::values;

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
    /// `Basic`, with the name and the password of the login that is asked about.
    Login {
        /// The user's name.
        user: Template,
        /// The password.
        password: Template,
    },
    /// `Bearer`, with a token that is fetched from a token server.
    OAuth(Box<OAuth>),
}

/// Reads the one credential; `headers` has dropped those that it displaces.
pub(super) fn read(reader: &mut Reader<'_, '_>, tls: &Tls) -> Option<Credential> {
    let nearest = reader.section.nearest(&["basic-auth"]);
    let mut found: Vec<_> = AUTHORIZATION_KEYS
        .into_iter()
        .filter_map(|name| reader.section.take(name))
        .collect();
    found.sort_by_key(|entry| entry.key_span.start);
    let entry = found.first()?;
    let is_own = nearest.is_some_and(|(below, _)| below == 0);
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
        "bearer-token" => {
            reader.report_placeholder(entry, AUTHORIZATION.as_str());
            report_scheme(reader, entry);
            header_secret(entry, "Bearer ", reader.secret_policy, reader.report)
                .map(Credential::Bearer)
        }
        "basic-auth" => basic(reader, entry, is_own),
        _ => {
            let settings = oauth::read(reader, entry, tls)?;
            Some(Credential::OAuth(Box::new(settings)))
        }
    }
}

/// Reports a token with the word that is sent before it: no token has a blank (RFC 6750, section
/// 2.1).
fn report_scheme(reader: &mut Reader<'_, '_>, entry: &Entry<'_>) {
    const SCHEME: &str = "bearer ";
    let start = match entry.value.get_ref() {
        DeValue::String(text) => text.trim_start().get(..SCHEME.len()),
        _ => None,
    };
    if start.is_some_and(|start| start.eq_ignore_ascii_case(SCHEME)) {
        let text = "begins with \"Bearer\", which is sent before it anyway; write the token alone";
        reader.error(entry.value.span(), &entry.path, text);
    }
}

fn basic<'t>(reader: &mut Reader<'_, 't>, entry: &Entry<'t>, is_own: bool) -> Option<Credential> {
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
    if is_own && reader.facts().has_logins() && (is_template(&user_entry) || is_template(&password))
    {
        return login(reader, &user_entry, &password);
    }
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

/// Returns whether a text has placeholders, or braces that are none.
fn is_template(entry: &Entry<'_>) -> bool {
    matches!(entry.value.get_ref(), DeValue::String(text) if text.contains(['{', '}']))
}

/// Reads the credential that is that of each login.
fn login(
    reader: &mut Reader<'_, '_>,
    user: &Entry<'_>,
    password: &Entry<'_>,
) -> Option<Credential> {
    let mut read = |entry: &Entry<'_>| {
        let text = values::private_string(entry, reader.report)?;
        reader.template(text, entry.value.span(), &entry.path)
    };
    let (name, secret) = (read(user), read(password));
    let (name, secret) = (name?, secret?);
    if name.has_secret() || !name.has_placeholder() {
        let text = "must have a placeholder as the password has, such as {username}";
        reader.error(user.value.span(), &user.path, text);
    }
    if !secret.has_secret() {
        let text = "must be the password of the login, as user has a placeholder: {password}";
        reader.error(password.value.span(), &password.path, text);
    }
    Some(Credential::Login {
        user: name,
        password: secret,
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
