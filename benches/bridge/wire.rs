//! The requests and their replies. Both are functions of a key, so the key is enough to check every
//! reply byte by byte.

use std::fmt::Write as _;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP, with the backend itself.
    Http,
    TcpLookup,
    Socketmap,
    Policy,
}

/// One request and its right reply, as bytes.
pub(crate) struct Question {
    pub(crate) asked: Vec<u8>,
    pub(crate) expected: Vec<u8>,
}

impl Wire {
    /// Those of Postfix.
    pub(crate) const BRIDGED: [Self; 3] = [Self::TcpLookup, Self::Socketmap, Self::Policy];

    /// Returns the name, which is also that of the program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::TcpLookup => "tcp-lookup",
            Self::Socketmap => "socketmap",
            Self::Policy => "policy",
        }
    }

    /// Makes the request for a key, to a table of this name if the protocol names one.
    pub(crate) fn question(self, table: &str, key: &str) -> Question {
        let value = value(key.as_bytes());
        let (asked, expected) = match self {
            Self::Http => (
                format!("GET /?key={key} HTTP/1.1\r\nHost: backend\r\n\r\n"),
                json_answer(key.as_bytes()),
            ),
            Self::TcpLookup => (format!("get {key}\n"), format!("200 {value}\n")),
            Self::Socketmap => (
                netstring(&format!("{table} {key}")),
                netstring(&format!("OK {value}")),
            ),
            Self::Policy => (
                policy_request(key),
                format!("action=PREPEND X-Bench: {value}\n\n"),
            ),
        };
        Question {
            asked: asked.into_bytes(),
            expected: expected.into_bytes(),
        }
    }
}

/// Returns the key with this number.
pub(crate) fn key(number: usize) -> String {
    format!("user{number}@d{}.example", number % 50)
}

/// Returns the value of a key.
fn value(key: &[u8]) -> String {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    format!("{hash:016x}@v.example")
}

/// Returns the backend's response to a lookup.
pub(crate) fn json_answer(key: &[u8]) -> String {
    response("application/json", &format!("[\"{}\"]", value(key)))
}

/// Returns the backend's response to a policy request about a recipient.
pub(crate) fn text_answer(recipient: &[u8]) -> String {
    let body = format!("PREPEND X-Bench: {}", value(recipient));
    response("text/plain", &body)
}

fn response(content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

pub(crate) fn netstring(payload: &str) -> String {
    format!("{}:{payload},", payload.len())
}

/// A policy request as Postfix 3.8 sends it at RCPT time.
fn policy_request(recipient: &str) -> String {
    let mut request = String::new();
    for (name, value) in [
        ("request", "smtpd_access_policy"),
        ("protocol_state", "RCPT"),
        ("protocol_name", "ESMTP"),
        ("client_address", "192.0.2.17"),
        ("client_name", "mail.sender.example"),
        ("client_port", "41022"),
        ("reverse_client_name", "mail.sender.example"),
        ("server_address", "198.51.100.5"),
        ("server_port", "25"),
        ("helo_name", "mail.sender.example"),
        ("sender", "someone@sender.example"),
        ("recipient", recipient),
        ("recipient_count", "0"),
        ("queue_id", ""),
        ("instance", "5c1a.65f0b1c2.8f0a1.0"),
        ("size", "18210"),
        ("etrn_domain", ""),
        ("stress", ""),
        ("sasl_method", "plain"),
        ("sasl_username", recipient),
        ("sasl_sender", ""),
        ("ccert_subject", ""),
        ("ccert_issuer", ""),
        ("ccert_fingerprint", ""),
        ("ccert_pubkey_fingerprint", ""),
        ("encryption_protocol", "TLSv1.3"),
        ("encryption_cipher", "TLS_AES_256_GCM_SHA384"),
        ("encryption_keysize", "256"),
        ("policy_context", ""),
        ("compatibility_level", "3.6"),
        ("mail_version", "3.8.6"),
    ] {
        // Writing to a string does not fail.
        let _ = writeln!(request, "{name}={value}");
    }
    request.push('\n');
    request
}
