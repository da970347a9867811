//! The messages of SMTP clients: base64, and what each mechanism has in it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::zeroize::Zeroizing;

use super::rules::Mechanism;
use crate::outcome::{Outcome, is_invisible};

/// Separates the fields of both messages that have a token.
const FIELD: u8 = 1;

/// Who a client says it is, and how it proves that.
pub(super) struct Credentials<'m> {
    pub(super) name: Cow<'m, str>,
    pub(super) secret: &'m str,
}

/// Returns the bytes of a message, which are overwritten when they are dropped.
pub(super) fn decode(base64: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // An empty initial response (RFC 4954, section 4).
    if base64 == b"=" {
        return Some(Zeroizing::default());
    }
    let most = base64::decoded_len_estimate(base64.len());
    // Decoded in place: a buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(vec![0; most]);
    let length = BASE64.decode_slice(base64, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// The refusal of a message that its mechanism does not have.
pub(super) fn malformed() -> Outcome {
    Outcome::Refused("malformed message".to_owned())
}

/// Reads the message of a mechanism that has only one, or returns the refusal of what is wrong.
pub(super) fn read(mechanism: Mechanism, message: &[u8]) -> Result<Credentials<'_>, Outcome> {
    match mechanism {
        Mechanism::Plain => plain(message),
        Mechanism::Xoauth2 => xoauth2(message),
        Mechanism::Oauthbearer => oauthbearer(message),
        Mechanism::Login => Err(malformed()),
    }
}

/// `[authorization id] NUL name NUL password` (RFC 4616).
fn plain(message: &[u8]) -> Result<Credentials<'_>, Outcome> {
    let mut parts = message.split(|byte| *byte == 0);
    let (Some(other), Some(name), Some(password)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed());
    };
    // A NUL in the password: a backend that reads it as a C string would see its beginning only.
    let has_nul = parts.next().is_some();
    if has_nul || !other.is_empty() && other != name {
        return Err(Outcome::NotFound);
    }
    Ok(Credentials {
        name: Cow::Borrowed(user(name)?),
        secret: text(password)?,
    })
}

/// `user=name ^A auth=Bearer token ^A ^A`.
fn xoauth2(message: &[u8]) -> Result<Credentials<'_>, Outcome> {
    let name = value(message, b"user=").ok_or_else(malformed)?;
    Ok(Credentials {
        name: Cow::Borrowed(user(name)?),
        secret: token(message)?,
    })
}

/// `n,[a=name],^A [key=value ^A ...] auth=Bearer token ^A ^A` (RFC 7628, RFC 5801).
fn oauthbearer(message: &[u8]) -> Result<Credentials<'_>, Outcome> {
    let header = message.split(|byte| *byte == FIELD).next();
    let header = header.unwrap_or_default();
    // "p=" would bind the login to the TLS channel, which only smtpd knows.
    let header = header
        .strip_prefix(b"n,")
        .or_else(|| header.strip_prefix(b"y,"));
    let name = header.and_then(|header| header.strip_suffix(b","));
    let name = match name.ok_or_else(malformed)? {
        b"" => return Err(Outcome::NotFound),
        name => name.strip_prefix(b"a=").ok_or_else(malformed)?,
    };
    Ok(Credentials {
        name: unquote(user(name)?).ok_or_else(malformed)?,
        secret: token(message)?,
    })
}

/// Returns the name that a GS2 header has, in which a comma is `=2C` and an equals sign `=3D`.
fn unquote(name: &str) -> Option<Cow<'_, str>> {
    if name.contains(',') {
        return None;
    }
    let mut pieces = name.split('=');
    let first = pieces.next().unwrap_or_default();
    if first.len() == name.len() {
        return Some(Cow::Borrowed(name));
    }
    let mut plain = first.to_owned();
    for piece in pieces {
        let (sign, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            (None, None) => return None,
        };
        plain.push(sign);
        plain.push_str(rest);
    }
    Some(Cow::Owned(plain))
}

/// Returns the bearer token of a message. The name of its scheme has no case (RFC 9110, section
/// 11.1).
fn token(message: &[u8]) -> Result<&str, Outcome> {
    const SCHEME: &[u8] = b"bearer ";
    if !message.ends_with(&[FIELD, FIELD]) {
        return Err(malformed());
    }
    let auth = value(message, b"auth=").ok_or_else(malformed)?;
    match auth.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => text(token),
        _ => Err(malformed()),
    }
}

/// Returns the value of the first field that begins with this key.
fn value<'m>(message: &'m [u8], key: &[u8]) -> Option<&'m [u8]> {
    let mut fields = message.split(|byte| *byte == FIELD);
    fields.find_map(|field| field.strip_prefix(key))
}

/// Returns the name of a user, or its refusal.
pub(super) fn user(bytes: &[u8]) -> Result<&str, Outcome> {
    text(bytes).and_then(|name| match is_invisible(name) {
        true => Err(Outcome::NotFound),
        false => Ok(name),
    })
}

/// Returns a name or a secret as text, or the refusal of one that no account can have.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Outcome> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.contains('\0') => Ok(text),
        _ => Err(Outcome::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all<const N: usize>(mechanism: Mechanism, rows: [(&[u8], &str); N]) {
        for (message, expected) in rows {
            let seen = match read(mechanism, message) {
                Ok(credentials) => format!("{} {}", credentials.name, credentials.secret),
                Err(Outcome::NotFound) => "refused".to_owned(),
                Err(Outcome::Refused(words)) => words,
                Err(other) => format!("{other:?}"),
            };
            assert_eq!(seen, expected, "{}", message.escape_ascii());
        }
    }

    const MALFORMED: &str = "malformed message";

    #[test]
    fn messages_of_plain() {
        read_all(
            Mechanism::Plain,
            [
                (b"\0joe@x\0pw", "joe@x pw"),
                (b"joe\0joe\0pw", "joe pw"),
                (b"\0joe\0p w\t\n", "joe p w\t\n"),
                ("\0j\u{f6}e\0\u{20ac}".as_bytes(), "j\u{f6}e \u{20ac}"),
                (b"ann\0joe\0pw", "refused"),
                (b"\0\0pw", "refused"),
                (b"\0joe\0", "refused"),
                ("\0\u{a0}\u{3000}\0pw".as_bytes(), "refused"),
                ("\0\u{200b}\0pw".as_bytes(), "refused"),
                ("\0j\u{200b}\0\u{a0}".as_bytes(), "j\u{200b} \u{a0}"),
                (b"\0joe\0p\0w", "refused"),
                (b"\0j\xff\0pw", "refused"),
                (b"\0joe\0\xff", "refused"),
                (b"", MALFORMED),
                (b"joe", MALFORMED),
                (b"joe\0pw", MALFORMED),
            ],
        );
    }

    #[test]
    fn messages_of_xoauth2() {
        read_all(
            Mechanism::Xoauth2,
            [
                (b"user=joe@x\x01auth=Bearer t.k-n\x01\x01", "joe@x t.k-n"),
                (b"user=joe\x01auth=bEARER t\x01\x01", "joe t"),
                (b"auth=Bearer t\x01user=joe\x01\x01", "joe t"),
                (b"user=\x01auth=Bearer t\x01\x01", "refused"),
                (b"user=joe\x01auth=Bearer \x01\x01", "refused"),
                (b"user=joe\x01auth=Bearer t\x01", MALFORMED),
                (b"user=joe\x01auth=Bearer t", MALFORMED),
                (b"user=joe\x01auth=Basic dDp0\x01\x01", MALFORMED),
                (b"user=joe\x01auth=\x01\x01", MALFORMED),
                (b"user=joe\x01\x01", MALFORMED),
                (b"auth=Bearer t\x01\x01", MALFORMED),
                (b"", MALFORMED),
            ],
        );
    }

    #[test]
    fn messages_of_oauthbearer() {
        read_all(
            Mechanism::Oauthbearer,
            [
                (
                    b"n,a=joe@x,\x01host=h\x01port=25\x01auth=Bearer t\x01\x01",
                    "joe@x t",
                ),
                (b"y,a=joe,\x01auth=Bearer t\x01\x01", "joe t"),
                (b"n,a=j=2Co=3De=2C,\x01auth=Bearer t\x01\x01", "j,o=e, t"),
                (b"n,,\x01auth=Bearer t\x01\x01", "refused"),
                (b"n,a=,\x01auth=Bearer t\x01\x01", "refused"),
                (b"n,a=j=2,\x01auth=Bearer t\x01\x01", MALFORMED),
                (b"n,a=j,e,\x01auth=Bearer t\x01\x01", MALFORMED),
                (b"n,joe,\x01auth=Bearer t\x01\x01", MALFORMED),
                (b"p=tls-unique,a=joe,\x01auth=Bearer t\x01\x01", MALFORMED),
                (b"n,a=joe\x01auth=Bearer t\x01\x01", MALFORMED),
                (b"a=joe,\x01auth=Bearer t\x01\x01", MALFORMED),
                (b"n,a=joe,\x01\x01", MALFORMED),
                (b"\x01", MALFORMED),
                (b"", MALFORMED),
            ],
        );
    }

    #[test]
    fn base64_is_whole_or_none() {
        for (text, expected) in [
            ("", Some("")),
            ("=", Some("")),
            ("am9l", Some("joe")),
            ("am8=", Some("jo")),
            ("am8", None),
            ("am8==", None),
            ("am9", None),
            ("a m9l", None),
            ("am9l\t", None),
            ("*", None),
        ] {
            let seen = decode(text.as_bytes());
            let seen = seen.as_deref().map(Vec::as_slice);
            assert_eq!(seen, expected.map(str::as_bytes), "{text}");
        }
    }
}
