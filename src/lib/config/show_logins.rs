//! The keys of logins, for `show`.

use super::endpoint::Endpoint;
use super::login::{Place, Sign};
use super::shape::{Shape, Values, duration, header_value, text};

/// Returns the keys of a table of logins, with the values that every other table has by default.
pub(super) fn logins(endpoint: &Endpoint) -> Values<'_> {
    let (logins, rules) = (&endpoint.logins, endpoint.response_rules.login.as_ref());
    let mechanisms = logins.mechanisms.iter();
    let mechanisms = mechanisms.map(|mechanism| text(mechanism.name()));
    let reason = match rules.and_then(|rules| rules.reason.as_ref()) {
        Some(at) => place(at),
        None => text(&logins.refusal),
    };
    vec![
        ("mechanisms", Some(Shape::List(mechanisms.collect()))),
        (
            "accepted",
            rules.and_then(|rules| rules.accepted.as_ref()).map(sign),
        ),
        (
            "user",
            rules.and_then(|rules| rules.user.as_ref()).map(place),
        ),
        ("reason", Some(reason)),
        (
            "failure-delay",
            Some(logins.failure_delay.map_or(Shape::Flag(false), duration)),
        ),
    ]
}

/// Returns a place in an answer.
pub(super) fn place(place: &Place) -> Shape<'_> {
    match place {
        Place::Pointer(pointer) => text(pointer),
        Place::Header(name) => Shape::Table([("header", text(name))].into_iter().collect()),
    }
}

fn sign(sign: &Sign) -> Shape<'_> {
    match sign {
        Sign::Pointer(pointer) => text(pointer),
        Sign::Header { name, is } => {
            let members = [("header", text(name)), ("is", header_value(is))];
            Shape::Table(members.into_iter().collect())
        }
    }
}
