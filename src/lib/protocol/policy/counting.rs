//! What a policy request counts for limits, and the call for the numbers of an account.
//!
//! | `protocol_state` | recipients | messages | bytes |
//! |---|---|---|---|
//! | `RCPT` | one more | one in all | |
//! | `DATA` | `recipient_count` in all | one in all | |
//! | `END-OF-MESSAGE` | `recipient_count` in all | one in all | `size` in all |
//!
//! `instance` is the same in all requests about one message. Requests without it, and those of
//! other states, are about none, and are not counted.

use crate::outcome::{Failure, Outcome, Reason};
use crate::protocol::digest::digest;
use crate::protocol::facts::{Content, Count, Counting, Facts, Meaning, Message, Needs, PickedBy};
use crate::protocol::grammar::{MAX_SECS, POSTFIX_WAITS_SECS};
use crate::request::Request;

/// How policy requests are counted.
pub static COUNTING: Counting = Counting {
    counts: &[
        ("recipients", Count::Recipients),
        ("messages", Count::Messages),
        ("bytes", Count::Bytes),
    ],
    needs,
    message,
    passed: "DUNNO",
    call: Some(&NUMBERS),
};

/// The call for the numbers of an account. It counts nothing itself, so it is judged as a lookup.
static NUMBERS: Facts = Facts {
    name: "policy",
    client: "Postfix",
    serves: "policy delegation (SMTPD_POLICY_README)",
    query: ("", ""),
    picked_by: PickedBy::Socket,
    unknown: Reason::UnknownMap,
    max_in_flight: 1,
    max_secs: MAX_SECS,
    client_waits_secs: POSTFIX_WAITS_SECS,
    keeps_time: false,
    drain_within: None,
    is_repeatable: true,
    values: &["account"],
    secrets: &[],
    constants: &[],
    expansions: &[],
    key: None,
    shown: &[],
    outcomes: Outcome::NAMES,
    is_open: false,
    has_whole_json: false,
    raw_value: None,
    has_actions: true,
    has_cache: true,
    inherits_all: true,
    method: "GET",
    default_query: &[("account", "account")],
    answers_secrets: false,
    object_value: None,
    empty: Meaning::NotFound,
    status_404: Meaning::NotFound,
    unfit: Meaning::NotFound,
    content: Content::Document,
    has_parts: false,
    addresses: &[],
    counting: Some(&COUNTING),
    operations: &[],
};

/// When a request is made about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Recipient,
    Data,
    EndOfMessage,
}

fn state(request: &Request) -> Option<State> {
    request.value("instance").filter(|id| !id.is_empty())?;
    match request.value("protocol_state")? {
        b"RCPT" => Some(State::Recipient),
        // A BDAT is a DATA as well (smtpd.c).
        b"DATA" => Some(State::Data),
        b"END-OF-MESSAGE" => Some(State::EndOfMessage),
        _ => None,
    }
}

fn needs(request: &Request, count: Count) -> Result<Option<Needs>, Failure> {
    let Some(state) = state(request) else {
        return Ok(None);
    };
    Ok(match (count, state) {
        (Count::Recipients, State::Recipient) => Some(Needs::More(1)),
        (Count::Recipients, State::Data | State::EndOfMessage) => {
            // Postfix has accepted one at least, or it would not have come to DATA.
            let recipients = number(request, "recipient_count")?.max(1);
            Some(Needs::InAll(recipients))
        }
        (Count::Messages, _) => Some(Needs::InAll(1)),
        (Count::Bytes, State::EndOfMessage) => Some(Needs::InAll(number(request, "size")?)),
        // Before the end, `size` is what the client has announced, or nothing.
        (Count::Bytes, _) | (Count::Failures, _) => None,
    })
}

/// Returns a number that Postfix always sends. A request without it must not pass uncounted.
fn number(request: &Request, name: &'static str) -> Result<u64, Failure> {
    let text = request.value(name).unwrap_or_default();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        let detail = format!("{name} is no number");
        return Err(Failure::new(Reason::RequestNotUnderstood, detail));
    }
    let text = std::str::from_utf8(text).unwrap_or_default();
    // More digits than fit are more than any limit.
    Ok(text.parse().unwrap_or(u64::MAX))
}

fn message(request: &Request) -> Option<Message<'_>> {
    let state = state(request)?;
    Some(Message {
        id: request.value("instance")?,
        // What is needed in all can be asked for again and again.
        repeat: (state == State::Recipient).then(|| repeat(request)),
    })
}

/// Returns the digest of a request at RCPT. Postfix asks the same again after a broken connection;
/// for another recipient, something of this differs.
fn repeat(request: &Request) -> u128 {
    const PARTS: [&str; 6] = [
        "protocol_state",
        "recipient",
        "recipient_count",
        "queue_id",
        "size",
        "sender",
    ];
    digest(PARTS.map(|name| request.value(name).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request(text: &str) -> Request {
        let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Request {
            values: pairs
                .map(|(name, value)| (bytes(name), bytes(value)))
                .collect(),
            ..Request::default()
        }
    }

    #[test]
    fn what_a_request_needs_depends_on_its_state() {
        use Count::{Bytes, Failures, Messages, Recipients};
        use Needs::{InAll, More};
        for (text, count, expected) in [
            ("protocol_state=RCPT instance=a", Recipients, Some(More(1))),
            ("protocol_state=RCPT instance=a", Messages, Some(InAll(1))),
            ("protocol_state=RCPT instance=a size=9", Bytes, None),
            (
                "protocol_state=DATA instance=a recipient_count=3",
                Recipients,
                Some(InAll(3)),
            ),
            ("protocol_state=DATA instance=a", Messages, Some(InAll(1))),
            ("protocol_state=DATA instance=a size=9", Bytes, None),
            (
                "protocol_state=END-OF-MESSAGE instance=a recipient_count=3",
                Recipients,
                Some(InAll(3)),
            ),
            (
                "protocol_state=END-OF-MESSAGE instance=a",
                Messages,
                Some(InAll(1)),
            ),
            (
                "protocol_state=END-OF-MESSAGE instance=a size=9",
                Bytes,
                Some(InAll(9)),
            ),
            (
                "protocol_state=DATA instance=a recipient_count=0",
                Recipients,
                Some(InAll(1)),
            ),
            (
                "protocol_state=DATA instance=a recipient_count=99999999999999999999",
                Recipients,
                Some(InAll(u64::MAX)),
            ),
            ("protocol_state=RCPT instance=", Recipients, None),
            ("protocol_state=RCPT", Recipients, None),
            ("protocol_state=DATA recipient_count=3", Recipients, None),
            ("instance=a", Recipients, None),
            ("protocol_state=rcpt instance=a", Recipients, None),
            ("protocol_state=CONNECT instance=a", Recipients, None),
            ("protocol_state=EHLO instance=a", Messages, None),
            ("protocol_state=MAIL instance=a", Messages, None),
            ("protocol_state=VRFY instance=a", Recipients, None),
            ("protocol_state=ETRN instance=a", Recipients, None),
            ("protocol_state=RCPT instance=a", Failures, None),
        ] {
            assert_eq!(needs(&request(text), count), Ok(expected), "{text}");
            let is_about_one = text.contains("instance=a")
                && ["=RCPT ", "=DATA ", "=END-OF-MESSAGE "]
                    .iter()
                    .any(|state| text.contains(state));
            assert_eq!(message(&request(text)).is_some(), is_about_one, "{text}");
        }
    }

    #[test]
    fn a_number_that_is_missing_or_none_is_not_understood() {
        for (name, count) in [
            ("recipient_count", Count::Recipients),
            ("size", Count::Bytes),
        ] {
            for value in ["", "x", "-1", "+1", "1.0", "0x10", "1\u{a0}", "\u{661}"] {
                let text = format!("protocol_state=END-OF-MESSAGE instance=a {name}={value}");
                let failure = needs(&request(&text), count).unwrap_err();
                assert_eq!(failure.reason, Reason::RequestNotUnderstood, "{text}");
                assert_eq!(failure.detail, format!("{name} is no number"));
            }
            let text = "protocol_state=END-OF-MESSAGE instance=a";
            assert!(needs(&request(text), count).is_err(), "{name}");
        }
    }

    #[test]
    fn the_same_request_at_rcpt_has_the_same_digest_and_no_other_has() {
        let of = |text: &str| message(&request(text)).and_then(|message| message.repeat);
        let first = "protocol_state=RCPT instance=a sender=s recipient=r recipient_count=0 \
                     queue_id= size=0";
        assert!(of(first).is_some());
        // Neither its order nor what Postfix does not tell apart makes it another.
        let again = "size=0 recipient=r recipient_count=0 sender=s instance=a \
                     protocol_state=RCPT client_port=5";
        assert_eq!(of(first), of(again));
        for (from, to) in [
            ("recipient=r", "recipient=q"),
            ("sender=s", "sender=t"),
            ("recipient_count=0", "recipient_count=1"),
            ("queue_id=", "queue_id=A"),
            ("size=0", "size=1"),
        ] {
            assert_ne!(of(first), of(&first.replace(from, to)), "{to}");
        }
        assert_eq!(of("protocol_state=DATA instance=a"), None);
        assert_eq!(of("protocol_state=END-OF-MESSAGE instance=a"), None);
    }
}
