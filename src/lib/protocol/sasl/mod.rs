//! Dovecot's auth protocol, the server's side, as Postfix speaks it (xsasl_dovecot_server.c).
//!
//! ```text
//! greeting:  VERSION TAB 1 TAB 2 LF              before anything is read
//!            1*(MECH TAB name TAB plaintext LF) SPID TAB pid LF CUID TAB number LF
//!            COOKIE TAB 32 hexadecimal digits LF DONE LF
//! client:    VERSION TAB 1 TAB minor LF  CPID TAB pid LF
//! request:   AUTH TAB id TAB mechanism *(TAB name [= value]) [TAB resp= base64] LF
//!            CONT TAB id TAB base64 LF           the answer to a challenge
//! reply:     CONT TAB id TAB [base64] LF         a challenge; the last tab is needed
//!            OK TAB id TAB user= name LF         the client is this user
//!            FAIL TAB id [TAB user= name] TAB reason= text LF
//! ```
//!
//! Postfix says 535 to every FAIL, and the user's program then forgets the password. So a failure
//! closes the connection, which Postfix calls temporary (454). It gives up after 10 s. An OK with
//! an empty name would be a login as nobody.
//!
//! Without a greeting smtpd ends, and its port with it. The line `MECH` has to stand before `SPID`.

mod exchanges;
mod message;
pub mod rules;

use core::time::Duration;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use memchr::memmem;
use secrecy::zeroize::Zeroize as _;

use self::exchanges::{Awaits, Exchange, Exchanges};
use self::rules::{COUNTING, Logins, Mechanism};
use super::facts::{Content, Facts, Meaning, PickedBy};
use super::frame::{Line, Lines};
use super::grammar::{Protocol, Step, Tag, Unsayable};
use crate::outcome::{Failure, Outcome, Reason, is_invisible};
use crate::reply::Reply;
use crate::request::{Request, Secret};

/// Dovecot's own limit of a line. smtpd sends at most 12,288 bytes of a client's message
/// (`smtpd_sasl_response_limit`).
const MAX_LINE: usize = 16_384;

/// The longest reply that Dovecot's own clients read.
const MAX_REPLY: usize = 8_192;

/// The most bytes of the words of a refusal.
const MAX_REASON: usize = 200;

/// The server's side of Dovecot's auth protocol.
#[derive(Debug)]
pub struct Sasl {
    lines: Lines,
    mechanisms: Vec<Mechanism>,
    /// The time since the connection was opened.
    now: Duration,
    has_version: bool,
    waiting: Exchanges,
    /// The logins that are being answered.
    asked: Vec<Asked>,
}

/// A login that is being answered.
#[derive(Debug)]
struct Asked {
    id: u64,
    /// The name that the client gave, as far as it is known.
    name: Option<Bytes>,
    /// The mechanism, if the backend is asked.
    mechanism: Option<Mechanism>,
}

impl Protocol for Sasl {
    const FACTS: &'static Facts = &Facts {
        name: "sasl",
        client: "Postfix",
        serves: "logins (Dovecot's auth protocol)",
        query: (
            "NAME USER",
            "table NAME about USER, with the password typed or piped",
        ),
        picked_by: PickedBy::Socket,
        unknown: Reason::UnknownMap,
        max_in_flight: 16,
        keeps_time: true,
        max_secs: 8,
        // AUTH_TIMEOUT (xsasl_dovecot_server.c).
        client_waits_secs: 10,
        // A new smtpd waits 10 s for the greeting of the next program, and without it ends.
        drain_within: Some(Duration::from_secs(1)),
        is_repeatable: true,
        values: &[
            "username",
            "client_address",
            "server_address",
            "mechanism",
            "service",
            "secured",
        ],
        secrets: &["password", "token"],
        constants: &[],
        expansions: &[],
        key: Some("username"),
        shown: &["username", "client_address", "mechanism"],
        outcomes: ["accepted", "done", "refused", "temporary", "permanent"],
        is_open: false,
        has_whole_json: false,
        raw_value: None,
        inherits_all: false,
        has_actions: false,
        has_cache: true,
        method: "POST",
        default_query: &[],
        answers_secrets: false,
        object_value: None,
        empty: Meaning::Temporary,
        status_404: Meaning::Temporary,
        unfit: Meaning::NotFound,
        content: Content::Login,
        has_parts: true,
        addresses: &["client_address", "server_address"],
        counting: Some(&COUNTING),
        operations: &[],
    };

    type Rules = Logins;

    fn open(rules: &Logins) -> (Self, Bytes) {
        let sasl = Self {
            lines: Lines::default(),
            mechanisms: rules.mechanisms.clone(),
            now: Duration::ZERO,
            has_version: false,
            waiting: Exchanges::default(),
            asked: Vec::new(),
        };
        (sasl, greeting(&rules.mechanisms))
    }

    fn at(&mut self, age: Duration) {
        self.now = age;
        self.waiting.expire(age);
    }

    fn next_step(&mut self, input: &mut BytesMut) -> Step {
        loop {
            let end = match self.lines.find(input, MAX_LINE) {
                Line::NeedMore => return Step::NeedMore,
                Line::At(line) => line.end,
                Line::TooLong => return refuse(Reason::RequestTooLong),
            };
            let mut line = self.lines.cut(input, end);
            let step = self.line(&line);
            // It may have a password, and its memory is that of later lines.
            line.as_mut().zeroize();
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn reply(&mut self, tag: Tag, outcome: &Outcome, rules: &Logins) -> Result<Reply, Unsayable> {
        let words = match outcome {
            Outcome::Found(user) => {
                let line = ok(tag.0, user)?;
                self.answered(tag.0);
                return Ok(Reply::Send(line));
            }
            Outcome::NotFound => &rules.refusal,
            Outcome::Refused(words) => words,
            Outcome::Done => return Err(unsayable()),
            Outcome::Temporary(_) | Outcome::Permanent(_) => return Ok(Reply::Close),
        };
        let asked = self.answered(tag.0);
        let name = asked.as_ref().and_then(|asked| asked.name.as_deref());
        let fail = fail(tag.0, name, words, &rules.refusal);
        let mechanism = asked.and_then(|asked| asked.mechanism);
        let Some((mechanism, why)) = mechanism.and_then(|m| Some((m, error_of(m)?))) else {
            return Ok(Reply::Send(fail));
        };
        // A refused token is explained in a challenge first (RFC 7628, section 3.2.3).
        self.waiting.add(Exchange {
            id: tag.0,
            mechanism,
            request: Request::default(),
            awaits: Awaits::Anything(fail),
            since: self.now,
        });
        Ok(Reply::Send(challenge(tag.0, why)))
    }

    /// Logs in with a password, or with a token where there are no passwords.
    fn query(name: &[u8], secret: &str, rules: &Logins) -> Option<Step> {
        let mut mechanisms = rules.mechanisms.iter().copied();
        let by_password = mechanisms.clone().find(|m| m.secret() == "password");
        let mechanism = by_password.or_else(|| mechanisms.next())?;
        let login = message::user(name).and_then(|name| {
            let secret = message::text(secret.as_bytes())?;
            let about = about(mechanism, [b"service=smtp".as_slice()].into_iter());
            Ok(complete(about, mechanism, Some(name), secret))
        });
        Some(match login {
            Ok(request) => Step::Ask(Tag::default(), request),
            Err(refusal) => Step::Answer(Tag::default(), refusal),
        })
    }
}

impl Sasl {
    /// Takes one line; returns nothing if it asks for nothing.
    fn line(&mut self, line: &[u8]) -> Option<Step> {
        let mut fields = line.split(|byte| *byte == b'\t');
        match (fields.next().unwrap_or_default(), self.has_version) {
            (b"VERSION", _) => {
                if fields.next() != Some(b"1") {
                    let failure = Failure::new(
                        Reason::RequestNotUnderstood,
                        "another version of the auth protocol",
                    );
                    return Some(refuse(failure));
                }
                self.has_version = true;
                None
            }
            (b"CPID", true) => None,
            (b"AUTH", true) => Some(self.auth(line)),
            (b"CONT", true) => Some(self.cont(line)),
            (b"CANCEL", true) => {
                self.waiting.take(number(fields.next())?);
                None
            }
            _ => Some(refuse(Reason::RequestNotUnderstood)),
        }
    }

    /// Begins a login.
    fn auth(&mut self, line: &[u8]) -> Step {
        // The response is the last field, and may itself be anything.
        let (line, response) = match memmem::find(line, b"\tresp=") {
            Some(at) => {
                let (head, rest) = line.split_at_checked(at).unwrap_or_default();
                (head, rest.strip_prefix(b"\tresp="))
            }
            None => (line, None),
        };
        let mut fields = line.split(|byte| *byte == b'\t').skip(1);
        let id = number(fields.next());
        let (Some(id), Some(name)) = (id, fields.next().filter(|name| !name.is_empty())) else {
            return refuse(Reason::RequestNotUnderstood);
        };
        if self.waiting.has(id) || self.asked.iter().any(|asked| asked.id == id) {
            let failure = Failure::new(Reason::RequestNotUnderstood, "an id that is in use");
            return refuse(failure);
        }
        let mechanism = Mechanism::named(name).filter(|found| self.mechanisms.contains(found));
        let Some(mechanism) = mechanism else {
            return self.answer(id, None, Outcome::Refused("unknown mechanism".to_owned()));
        };
        let exchange = Exchange {
            id,
            mechanism,
            request: about(mechanism, fields),
            awaits: Awaits::First,
            since: self.now,
        };
        match response {
            Some(response) => self.message(exchange, response),
            None => {
                let text = match mechanism {
                    Mechanism::Login => "Username:",
                    _ => "",
                };
                self.challenge(exchange, text)
            }
        }
    }

    /// Goes on with a login.
    fn cont(&mut self, line: &[u8]) -> Step {
        let mut fields = line.splitn(3, |byte| *byte == b'\t').skip(1);
        let (Some(id), Some(data)) = (number(fields.next()), fields.next()) else {
            return refuse(Reason::RequestNotUnderstood);
        };
        match self.waiting.take(id) {
            Some(exchange) => self.message(exchange, data),
            None => {
                let failure = Failure::new(Reason::RequestNotUnderstood, "CONT of an unknown id");
                refuse(failure)
            }
        }
    }

    /// Takes a message of the SMTP client.
    fn message(&mut self, exchange: Exchange, base64: &[u8]) -> Step {
        let id = exchange.id;
        if let Awaits::Anything(line) = exchange.awaits {
            return Step::Send(line);
        }
        let Some(message) = message::decode(base64) else {
            return self.answer(id, None, message::malformed());
        };
        let (mechanism, request) = (exchange.mechanism, exchange.request);
        let read = match (mechanism, &exchange.awaits) {
            (Mechanism::Login, Awaits::First) => match message::user(&message) {
                Ok(name) => {
                    let exchange = Exchange {
                        request: with_name(request, name),
                        awaits: Awaits::Password,
                        ..exchange
                    };
                    return self.challenge(exchange, "Password:");
                }
                Err(refusal) => Err(refusal),
            },
            (Mechanism::Login, _) => message::text(&message).map(|password| (None, password)),
            _ => message::read(mechanism, &message).map(|c| (Some(c.name), c.secret)),
        };
        match read {
            Ok((name, secret)) => {
                let request = complete(request, mechanism, name.as_deref(), secret);
                self.asked.push(Asked {
                    id,
                    name: name_of(&request),
                    mechanism: Some(mechanism),
                });
                Step::Ask(Tag(id), request)
            }
            Err(refusal) => self.answer(id, name_of(&request), refusal),
        }
    }

    fn challenge(&mut self, exchange: Exchange, text: &str) -> Step {
        let id = exchange.id;
        self.waiting.add(Exchange {
            since: self.now,
            ..exchange
        });
        Step::Send(challenge(id, text))
    }

    /// Answers a login without the backend.
    fn answer(&mut self, id: u64, name: Option<Bytes>, refusal: Outcome) -> Step {
        self.asked.push(Asked {
            id,
            name,
            mechanism: None,
        });
        Step::Answer(Tag(id), refusal)
    }

    fn answered(&mut self, id: u64) -> Option<Asked> {
        let at = self.asked.iter().position(|asked| asked.id == id)?;
        Some(self.asked.swap_remove(at))
    }
}

/// Returns what Postfix says about a client, as the beginning of a request.
fn about<'l>(mechanism: Mechanism, fields: impl Iterator<Item = &'l [u8]>) -> Request {
    let value = |name: &'static str, value: Bytes| (Bytes::from_static(name.as_bytes()), value);
    // With room for the name.
    let mut values = Vec::with_capacity(6);
    values.push(value(
        "mechanism",
        Bytes::from_static(mechanism.name().as_bytes()),
    ));
    let mut secured = "false";
    for field in fields {
        let (name, text) = match memchr::memchr(b'=', field) {
            Some(at) => field.split_at_checked(at).unwrap_or_default(),
            None => (field, &b""[..]),
        };
        let text = text.strip_prefix(b"=").unwrap_or(text);
        let name = match name {
            b"service" => "service",
            b"rip" => "client_address",
            b"lip" => "server_address",
            b"secured" => {
                secured = "true";
                continue;
            }
            _ => continue,
        };
        values.push(value(name, Bytes::copy_from_slice(text)));
    }
    values.push(value("secured", Bytes::from_static(secured.as_bytes())));
    Request {
        values,
        ..Request::default()
    }
}

fn with_name(mut request: Request, name: &str) -> Request {
    let name = Bytes::copy_from_slice(name.as_bytes());
    request
        .values
        .insert(0, (Bytes::from_static(b"username"), name));
    request
}

/// Completes a request, with the name if it has none yet.
fn complete(about: Request, mechanism: Mechanism, name: Option<&str>, secret: &str) -> Request {
    let request = match name {
        Some(name) => with_name(about, name),
        None => about,
    };
    Request {
        secret: Some(Box::new(Secret::new(mechanism.secret(), secret))),
        ..request
    }
}

fn name_of(request: &Request) -> Option<Bytes> {
    request.value("username").map(Bytes::copy_from_slice)
}

/// Returns a number without a sign.
fn number(field: Option<&[u8]>) -> Option<u64> {
    let digits = std::str::from_utf8(field?).ok()?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| digits.parse().ok())?
}

fn refuse(failure: impl Into<Failure>) -> Step {
    Step::Refuse(Outcome::Temporary(failure.into()))
}

fn greeting(mechanisms: &[Mechanism]) -> Bytes {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let number = number.saturating_add(1);
    let random = RandomState::new();
    let (high, low) = (random.hash_one(number), random.hash_one(!number));
    let mut text = "VERSION\t1\t2\n".to_owned();
    for mechanism in mechanisms {
        // A write into a string does not fail.
        let _ = writeln!(text, "MECH\t{}\tplaintext", mechanism.name());
    }
    let pid = std::process::id();
    let _ = write!(
        text,
        "SPID\t{pid}\nCUID\t{number}\nCOOKIE\t{high:016x}{low:016x}\nDONE\n"
    );
    text.into()
}

fn challenge(id: u64, text: &str) -> Bytes {
    format!("CONT\t{id}\t{}\n", BASE64.encode(text)).into()
}

/// Returns the challenge after which a client knows that its token was refused.
fn error_of(mechanism: Mechanism) -> Option<&'static str> {
    match mechanism {
        Mechanism::Plain | Mechanism::Login => None,
        Mechanism::Xoauth2 => Some(r#"{"status":"401","schemes":"bearer"}"#),
        Mechanism::Oauthbearer => Some(r#"{"status":"invalid_token"}"#),
    }
}

/// Returns the line that makes the client this user.
fn ok(id: u64, user: &str) -> Result<Bytes, Unsayable> {
    // With no room to spare, it becomes the reply without a copy.
    let line = ["OK\t", &id.to_string(), "\tuser=", user, "\n"].concat();
    if is_invisible(user) || user.contains(char::is_control) || line.len() > MAX_REPLY {
        return Err(unsayable());
    }
    Ok(line.into())
}

fn unsayable() -> Unsayable {
    Unsayable(Reason::ValueCannotBeSent.into())
}

/// Returns the line of a refusal. Nothing in it can end the line or a field of it.
fn fail(id: u64, name: Option<&[u8]>, words: &str, default: &str) -> Bytes {
    let mut line = format!("FAIL\t{id}");
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    let room = MAX_REPLY.saturating_sub(MAX_REASON.saturating_mul(2));
    if let Some(name) = name
        && !name.contains(char::is_control)
        && name.len() < room
    {
        line.push_str("\tuser=");
        line.push_str(name);
    }
    let reason = match printable(words) {
        reason if reason.is_empty() => printable(default),
        reason => reason,
    };
    line.push_str("\treason=");
    line.push_str(&reason);
    line.push('\n');
    line.into()
}

/// Returns words without control characters, and not too many.
fn printable(words: &str) -> String {
    let is_blank = |c: char| c.is_control() || c.is_whitespace();
    let mut text = String::new();
    for c in words.trim_matches(is_blank).chars() {
        if text.len().saturating_add(c.len_utf8()) > MAX_REASON {
            break;
        }
        text.push(if is_blank(c) { ' ' } else { c });
    }
    text
}
