//! The requests and their replies. Both are functions of a key, so the key is enough to check every
//! reply byte by byte.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::client::{Binary, framed, question, rcpt};

/// A program, by the protocol that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Postfix(Binary),
    Dict,
    Sasl,
}

/// All programs, in the order of the output.
pub(crate) const PROGRAMS: [Program; 5] = [
    Program::Postfix(Binary::TcpLookup),
    Program::Postfix(Binary::Socketmap),
    Program::Postfix(Binary::Policy),
    Program::Dict,
    Program::Sasl,
];

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postfix(binary) => binary.name(),
            Self::Dict => "dict",
            Self::Sasl => "sasl",
        }
    }
}

/// One request and its right reply, as bytes.
pub(crate) struct Question {
    /// What a connection sends before its first request.
    pub(crate) hello: Vec<u8>,
    /// The end of what the server sends before its first reply.
    pub(crate) greeting: &'static [u8],
    pub(crate) asked: Vec<u8>,
    pub(crate) expected: Vec<u8>,
    /// Where the number of the request goes, if each has to differ from all others.
    number: Option<Range<usize>>,
}

/// The password of every user.
const PASSWORD: &str = "correct horse battery staple";

/// The place of a number that has not been written yet.
const NUMBER: &str = "0123456789abcdef";

impl Question {
    /// Makes the request to a program for a key, in a table of this name if the protocol names one.
    pub(crate) fn of(program: Program, table: &str, key: &str) -> Self {
        match program {
            Program::Postfix(binary) => Self::of_postfix(binary, table, key),
            Program::Dict => Self {
                // As Dovecot 2.3 does.
                hello: format!("H3\t2\t0\t\t{table}\n").into_bytes(),
                greeting: b"",
                asked: format!("Lshared/{key}\t\n").into_bytes(),
                // The value of a dict is JSON as it is written.
                expected: format!("O[\"{}\"]\n", value(key.as_bytes())).into_bytes(),
                number: None,
            },
            Program::Sasl => Self {
                hello: b"VERSION\t1\t0\nCPID\t339\n".to_vec(),
                greeting: b"DONE\n",
                // The number is free again with the reply.
                asked: format!(
                    "AUTH\t1\tPLAIN\tservice=smtp\tnologin\tlip=192.0.2.1\trip=198.51.100.7\t\
                     secured\tresp={}\n",
                    BASE64.encode(format!("\0{key}\0{PASSWORD}"))
                )
                .into_bytes(),
                expected: format!("OK\t1\tuser={}\n", value(key.as_bytes())).into_bytes(),
                number: None,
            },
        }
    }

    fn of_postfix(binary: Binary, table: &str, key: &str) -> Self {
        let value = value(key.as_bytes());
        let (asked, said) = match binary {
            Binary::TcpLookup => (question(binary, table, key), format!("200 {value}")),
            Binary::Socketmap => (question(binary, table, key), format!("OK {value}")),
            Binary::Policy => (
                rcpt(&[("recipient", key), ("sasl_username", key)]),
                format!("PREPEND X-Bench: {value}"),
            ),
        };
        Self {
            hello: Vec::new(),
            greeting: b"",
            asked,
            expected: framed(binary, said),
            number: None,
        }
    }

    /// Makes the request that a limit decides: one message, with one recipient.
    pub(crate) fn of_limit(account: &str) -> Self {
        let asked = rcpt(&[
            ("protocol_state", "DATA"),
            ("recipient_count", "1"),
            ("instance", NUMBER),
            ("sasl_username", account),
        ]);
        let mut places = asked.windows(NUMBER.len());
        let number = places.position(|bytes| bytes == NUMBER.as_bytes());
        Self {
            hello: Vec::new(),
            greeting: b"",
            asked,
            expected: framed(Binary::Policy, "DUNNO"),
            number: number.map(|at| at..at + NUMBER.len()),
        }
    }

    /// Makes the request to a server that sends back what it reads.
    pub(crate) fn echoed(self) -> Self {
        Self {
            hello: Vec::new(),
            greeting: b"",
            expected: self.asked.clone(),
            ..self
        }
    }

    /// Makes the request to the backend itself.
    pub(crate) fn of_backend(key: &str) -> Self {
        Self {
            hello: Vec::new(),
            greeting: b"",
            asked: format!("GET /?key={key} HTTP/1.1\r\nHost: backend\r\n\r\n").into_bytes(),
            expected: json_answer(key.as_bytes()).into_bytes(),
            number: None,
        }
    }

    /// Writes the request with this number.
    pub(crate) fn write(&self, number: usize, asked: &mut Vec<u8>) {
        asked.clone_from(&self.asked);
        if let Some(place) = &self.number {
            asked[place.clone()].copy_from_slice(format!("{number:016x}").as_bytes());
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

/// Returns the backend's response to a login.
pub(crate) fn login_answer(name: &[u8]) -> String {
    let body = format!("{{\"ok\":true,\"user\":\"{}\"}}", value(name));
    response("application/json", &body)
}

fn response(content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}
