//! The actions of a policy reply: access(5) and SMTPD_POLICY_README, as check_table_result() in
//! smtpd_check.c reads them.
//!
//! An action is one line of printable UTF-8 and one of:
//!
//! - a word with the arguments Postfix accepts for it: `DUNNO`, `REJECT text`, `FILTER x:y`, …;
//! - `4NN text` or `5NN text`: without the text Postfix would permit, and after an enhanced status
//!   code alone it would read beyond the text (dsn_split() in dsn_util.c);
//! - names of restrictions without arguments and of listed restriction classes, split at blanks
//!   and commas.
//!
//! At anything else Postfix answers 451 and notifies its postmaster at best, or permits at worst.

use crate::outcome::{Failure, Reason};
use crate::protocol::grammar::Unsayable;
use crate::protocol::policy::rules::{FallbackAction, PolicyActions};

/// The most bytes of an action: an SMTP reply line has room for about as many.
const MAX_ACTION: usize = 500;

/// Why a text is not an allowed action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An empty text, which Postfix takes for "permit".
    Empty,
    /// A NUL or a line break.
    SeveralLines,
    /// More than 500 bytes.
    TooLong,
    /// A control character.
    Unprintable,
    /// Only digits, which Postfix takes for "permit".
    BareNumber,
    /// An enhanced status code and nothing after it.
    BareCode,
    /// A known word without its argument.
    Argument,
    /// A permission that the operator has not allowed.
    Permit,
    /// A word that Postfix does not know.
    Unknown,
}

impl Fault {
    /// Returns a description for the operator.
    pub fn text(self) -> &'static str {
        match self {
            Self::Empty => "an empty action, which Postfix takes for permit",
            Self::SeveralLines => "an action with a line break or a NUL",
            Self::TooLong => "an action of more than 500 bytes",
            Self::Unprintable => "an action with a control character",
            Self::BareNumber => "a bare number, which Postfix takes for permit",
            Self::BareCode => {
                "a status code without a text, for which Postfix would take what its memory holds"
            }
            Self::Argument => "an action without the argument it needs",
            Self::Permit => "an action that permits, which permit-actions = true would allow",
            Self::Unknown => "not an action of access(5), nor a listed restriction class",
        }
    }
}

/// Returns the action in a backend's answer, if it is allowed.
pub fn from_backend<'a>(answer: &'a str, actions: &PolicyActions) -> Result<&'a str, Unsayable> {
    let action = answer.strip_prefix("action=").unwrap_or(answer);
    parse(action, actions.permit_actions, &actions.restriction_classes).map_err(|fault| {
        let reason = match fault {
            Fault::SeveralLines | Fault::TooLong => Reason::ValueCannotBeSent,
            _ => Reason::NotUnderstood,
        };
        Unsayable(Failure::new(reason, fault.text()))
    })
}

/// Returns the text without the blanks around it, if it is an action.
pub fn parse<'a>(text: &'a str, may_permit: bool, classes: &[String]) -> Result<&'a str, Fault> {
    if text.contains(['\0', '\n', '\r']) {
        return Err(Fault::SeveralLines);
    }
    let action = text.trim_matches([' ', '\t']);
    if action.len() > MAX_ACTION {
        return Err(Fault::TooLong);
    }
    if action.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Fault::Unprintable);
    }
    let (word, argument) = action.split_once([' ', '\t']).unwrap_or((action, ""));
    let argument = argument.trim_start_matches([' ', '\t']);
    check(action, word, argument, may_permit, classes).map(|()| action)
}

fn check(
    action: &str,
    word: &str,
    argument: &str,
    may_permit: bool,
    classes: &[String],
) -> Result<(), Fault> {
    let require = |is_right: bool| is_right.then_some(()).ok_or(Fault::Argument);
    match word.to_ascii_uppercase().as_str() {
        "" => Err(Fault::Empty),
        "OK" | "RELAY" if may_permit => Ok(()),
        "OK" | "RELAY" => Err(Fault::Permit),
        "REJECT" | "DEFER" | "DEFER_IF_PERMIT" | "DEFER_IF_REJECT" if is_code(argument) => {
            Err(Fault::BareCode)
        }
        "DUNNO" | "REJECT" | "DEFER" | "DEFER_IF_PERMIT" | "DEFER_IF_REJECT" | "INFO" | "WARN"
        | "HOLD" | "DISCARD" => Ok(()),
        "FILTER" => require(is_filter(argument)),
        "REDIRECT" | "BCC" => require(is_address(argument)),
        "PREPEND" => require(is_header(argument)),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            if argument.is_empty() {
                Err(Fault::BareNumber)
            } else if is_code(argument) {
                Err(Fault::BareCode)
            } else if digits.len() == 3 && digits.starts_with(['4', '5']) {
                Ok(())
            } else {
                Err(Fault::Unknown)
            }
        }
        _ => check_restrictions(action, may_permit, classes),
    }
}

/// Returns whether the argument is an enhanced status code (dsn_valid() in dsn_util.c).
fn is_code(argument: &str) -> bool {
    let is_number = |part: &str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    match argument.split('.').collect::<Vec<_>>()[..] {
        ["2" | "4" | "5", subject, detail] => is_number(subject) && is_number(detail),
        _ => false,
    }
}

fn is_filter(argument: &str) -> bool {
    argument
        .split_once(':')
        .is_some_and(|(transport, _)| !transport.is_empty() && !argument.contains([' ', '\t']))
}

/// Returns whether the argument is one address in internal form. Postfix takes the whole argument
/// for the address and would quote anything after it.
fn is_address(argument: &str) -> bool {
    argument
        .rsplit_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
        && !argument.contains([' ', '\t', ',', '<', '>', '"'])
}

/// Returns whether the argument begins with a header name and a colon (is_header()).
fn is_header(argument: &str) -> bool {
    argument
        .split_once(':')
        .is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()))
}

fn check_restrictions(action: &str, may_permit: bool, classes: &[String]) -> Result<(), Fault> {
    let mut names = action.split([' ', '\t', ',']).filter(|n| !n.is_empty());
    let mut found = Err(Fault::Unknown);
    for name in names.by_ref() {
        let is_listed = classes.iter().any(|class| class == name);
        let lower = name.to_ascii_lowercase();
        if !is_listed && !RESTRICTIONS.contains(&lower.as_str()) {
            return Err(Fault::Unknown);
        }
        if !is_listed && lower.starts_with("permit") && !may_permit {
            return Err(Fault::Permit);
        }
        found = Ok(());
    }
    found
}

/// Returns whether a mail may pass after this reply: what is not sure to stop it lets it pass.
pub fn lets_pass(reply: &FallbackAction) -> bool {
    let FallbackAction::Action(action) = reply else {
        // Postfix's own default action is a deferral.
        return false;
    };
    let word = action.split([' ', '\t', ',']).find(|word| !word.is_empty());
    let word = word.unwrap_or_default().to_ascii_lowercase();
    let is_code = word.len() == 3 && word.starts_with(['4', '5']);
    !is_code && !["reject", "defer", "defer_if_permit"].contains(&word.as_str())
}

/// Returns whether Postfix knows a restriction of this name, so that no class can have the name.
pub fn is_restriction(name: &str) -> bool {
    RESTRICTIONS.contains(&name.to_ascii_lowercase().as_str())
}

/// The restrictions without arguments (mail_params.h; generic_checks() in smtpd_check.c).
const RESTRICTIONS: [&str; 40] = [
    "defer",
    "defer_if_permit",
    "defer_if_reject",
    "defer_unauth_destination",
    "permit",
    "permit_auth_destination",
    "permit_inet_interfaces",
    "permit_mx_backup",
    "permit_mynetworks",
    "permit_naked_ip_address",
    "permit_sasl_authenticated",
    "permit_tls_all_clientcerts",
    "permit_tls_clientcerts",
    "reject",
    "reject_authenticated_sender_login_mismatch",
    "reject_invalid_helo_hostname",
    "reject_invalid_hostname",
    "reject_known_sender_login_mismatch",
    "reject_multi_recipient_bounce",
    "reject_non_fqdn_helo_hostname",
    "reject_non_fqdn_hostname",
    "reject_non_fqdn_recipient",
    "reject_non_fqdn_sender",
    "reject_plaintext_session",
    "reject_sender_login_mismatch",
    "reject_unauth_destination",
    "reject_unauth_pipelining",
    "reject_unauthenticated_sender_login_mismatch",
    "reject_unknown_client",
    "reject_unknown_client_hostname",
    "reject_unknown_helo_hostname",
    "reject_unknown_hostname",
    "reject_unknown_recipient_domain",
    "reject_unknown_reverse_client_hostname",
    "reject_unknown_sender_domain",
    "reject_unlisted_recipient",
    "reject_unlisted_sender",
    "reject_unverified_recipient",
    "reject_unverified_sender",
    "warn_if_reject",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_taken_or_refused() {
        let classes = ["greylist".to_owned()];
        for (text, expected) in [
            ("DUNNO", Ok("DUNNO")),
            ("dunno", Ok("dunno")),
            (" DUNNO \t", Ok("DUNNO")),
            ("REJECT", Ok("REJECT")),
            (
                "REJECT see https://x.test, \u{fc}",
                Ok("REJECT see https://x.test, \u{fc}"),
            ),
            (
                "DEFER_IF_PERMIT 4.7.1 later",
                Ok("DEFER_IF_PERMIT 4.7.1 later"),
            ),
            ("450 4.7.1 later", Ok("450 4.7.1 later")),
            ("521\tgo away", Ok("521\tgo away")),
            (
                "FILTER smtp:[127.0.0.1]:10025",
                Ok("FILTER smtp:[127.0.0.1]:10025"),
            ),
            ("REDIRECT a@b", Ok("REDIRECT a@b")),
            ("BCC a+b.c@d.test", Ok("BCC a+b.c@d.test")),
            ("550 5.7.1 x", Ok("550 5.7.1 x")),
            ("550 5.7.1.", Ok("550 5.7.1.")),
            ("REJECT 5.7", Ok("REJECT 5.7")),
            ("REJECT 3.7.1", Ok("REJECT 3.7.1")),
            ("REJECT 5.7.1000", Ok("REJECT 5.7.1000")),
            ("INFO 5.7.1", Ok("INFO 5.7.1")),
            ("PREPEND X-A: b", Ok("PREPEND X-A: b")),
            (
                "reject_unauth_destination, greylist",
                Ok("reject_unauth_destination, greylist"),
            ),
            ("greylist", Ok("greylist")),
            (
                "WARN_IF_REJECT reject_unlisted_sender",
                Ok("WARN_IF_REJECT reject_unlisted_sender"),
            ),
            ("", Err(Fault::Empty)),
            (" ", Err(Fault::Empty)),
            (",", Err(Fault::Unknown)),
            ("450", Err(Fault::BareNumber)),
            ("550 ", Err(Fault::BareNumber)),
            ("12345", Err(Fault::BareNumber)),
            ("250 hello", Err(Fault::Unknown)),
            ("600 x", Err(Fault::Unknown)),
            ("4500 x", Err(Fault::Unknown)),
            ("OK", Err(Fault::Permit)),
            ("ok fine", Err(Fault::Permit)),
            ("RELAY", Err(Fault::Permit)),
            ("permit", Err(Fault::Permit)),
            ("reject_unauth_destination,permit", Err(Fault::Permit)),
            ("permit_mynetworks reject", Err(Fault::Permit)),
            ("accept", Err(Fault::Unknown)),
            ("HANGUP", Err(Fault::Unknown)),
            ("Greylist", Err(Fault::Unknown)),
            ("sleep 1", Err(Fault::Unknown)),
            ("check_client_access hash:/x", Err(Fault::Unknown)),
            ("Denied: see x", Err(Fault::Unknown)),
            // In mail_params.h, but smtpd(8) does not know it.
            (
                "reject_unknown_forward_client_hostname",
                Err(Fault::Unknown),
            ),
            ("action=DUNNO", Err(Fault::Unknown)),
            ("FILTER smtp", Err(Fault::Argument)),
            ("FILTER :x", Err(Fault::Argument)),
            ("450 4.7.1", Err(Fault::BareCode)),
            ("550  5.7.1 \t", Err(Fault::BareCode)),
            ("REJECT 5.7.1", Err(Fault::BareCode)),
            ("reject\t2.0.0", Err(Fault::BareCode)),
            ("DEFER 4.123.456", Err(Fault::BareCode)),
            ("DEFER_IF_PERMIT 4.7.1", Err(Fault::BareCode)),
            ("DEFER_IF_REJECT 4.7.1", Err(Fault::BareCode)),
            ("REDIRECT nobody", Err(Fault::Argument)),
            ("REDIRECT a@b, c@d", Err(Fault::Argument)),
            ("REDIRECT a@b x", Err(Fault::Argument)),
            ("REDIRECT a b@c", Err(Fault::Argument)),
            ("REDIRECT <a@b>", Err(Fault::Argument)),
            ("BCC \"a b\"@c", Err(Fault::Argument)),
            ("BCC A B <a@b>", Err(Fault::Argument)),
            ("BCC", Err(Fault::Argument)),
            ("PREPEND no header", Err(Fault::Argument)),
            ("PREPEND : x", Err(Fault::Argument)),
            ("REJECT a\nb", Err(Fault::SeveralLines)),
            ("REJECT a\r", Err(Fault::SeveralLines)),
            ("REJECT \0", Err(Fault::SeveralLines)),
            ("REJECT \u{1b}[0m", Err(Fault::Unprintable)),
        ] {
            assert_eq!(parse(text, false, &classes), expected, "{text:?}");
        }
        for text in ["OK", "relay", "permit", "reject_unauth_destination, permit"] {
            assert_eq!(parse(text, true, &classes), Ok(text));
        }
    }

    #[test]
    fn an_action_has_at_most_500_bytes() {
        let longest = format!("REJECT {}", "x".repeat(493));
        assert_eq!(parse(&longest, false, &[]), Ok(longest.as_str()));
        assert_eq!(
            parse(&format!("{longest}x"), false, &[]),
            Err(Fault::TooLong)
        );
    }

    #[test]
    fn only_a_sure_refusal_does_not_let_pass() {
        for (text, expected) in [
            ("DUNNO", true),
            ("OK", true),
            ("permit", true),
            ("WARN unknown", true),
            ("INFO x", true),
            ("HOLD", true),
            ("DISCARD", true),
            ("PREPEND X-A: b", true),
            ("FILTER smtp:x", true),
            ("REDIRECT a@b", true),
            ("DEFER_IF_REJECT 4.7.1 x", true),
            ("warn_if_reject reject", true),
            ("reject_unauth_destination", true),
            ("greylist", true),
            ("permit_mynetworks, reject", true),
            ("REJECT", false),
            ("reject", false),
            ("Defer\t4.7.1 x", false),
            ("DEFER_IF_PERMIT 4.3.0 x", false),
            ("defer_if_permit, greylist", false),
            ("450 4.7.1 later", false),
            ("554\tno", false),
        ] {
            assert!(
                parse(text, true, &["greylist".to_owned()]).is_ok(),
                "{text}"
            );
            let reply = FallbackAction::Action(text.to_owned());
            assert_eq!(lets_pass(&reply), expected, "{text}");
        }
        assert!(!lets_pass(&FallbackAction::Disconnect));
    }

    #[test]
    fn one_leading_attribute_name_is_taken_off() {
        let actions = PolicyActions::default();
        assert_eq!(from_backend("action=DUNNO", &actions), Ok("DUNNO"));
        let twice = from_backend("action=action=DUNNO", &actions).unwrap_err();
        assert_eq!(twice.0.reason, Reason::NotUnderstood);
        assert!(from_backend("action=", &actions).is_err());
        let permit = from_backend("OK", &actions).unwrap_err();
        assert!(permit.0.detail.contains("permit-actions"));
        let lines = from_backend("DUNNO\n\n", &actions).unwrap_err();
        assert_eq!(lines.0.reason, Reason::ValueCannotBeSent);
    }
}
