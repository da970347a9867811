//! The table HTTP → outcome for logins, the only one.
//!
//! | HTTP | outcome |
//! |---|---|
//! | an answer without the header of `require-header`; one that flags an `error` | temporary |
//! | a 2xx that is HTML, or whose body does not come to its end | temporary |
//! | 200, 201, 204 | accepted, where `accepted` agrees |
//! | 401, 403 | refused; temporary where the call has a credential of our own |
//! | every other status; no answer | temporary |
//!
//! The operator's `status` comes before this table, an exact status before a class. Nothing but an
//! answer that the API has given on purpose is a login, or the refusal of one.

use serde_json::value::RawValue;

use super::answer::nowhere;
use super::looks::trim_text;
use super::pointer::{Pointed, error_member, flags_error, follow, follow_only, missed};
use crate::config::{LoginRules, Place, ResponseRules, Sign, Verdict};
use crate::outcome::{Failure, Outcome, Reason, is_invisible};

/// An answer about a login.
pub struct LoginAnswer<'a> {
    /// The status.
    pub status: u16,
    /// Returns the lines of a header.
    pub header: &'a dyn Fn(&str) -> Vec<&'a [u8]>,
    /// The body, or why it cannot be read; absent if it is not needed.
    pub body: Option<Result<Vec<u8>, Failure>>,
    /// The name that was asked for.
    pub name: &'a str,
}

/// Returns the meaning of a status, which is looked at before the body.
pub fn verdict(status: u16, rules: &ResponseRules, login: &LoginRules) -> Verdict {
    let by_operator = rules.status.verdict(status);
    by_operator.unwrap_or(match status {
        200 | 201 | 204 => Verdict::Found,
        // They may be about our credential, and a user's program would forget its password.
        401 | 403 if !login.has_own_credential => Verdict::NotFound,
        _ => Verdict::Temporary,
    })
}

/// Returns whether an answer is not understood without its body.
pub fn needs_body(verdict: Verdict, login: &LoginRules) -> bool {
    let is_pointer = |place: &Option<Place>| matches!(place, Some(Place::Pointer(_)));
    match verdict {
        // Whatever is asked for in it, it must not be a proxy's page.
        Verdict::Found => true,
        Verdict::NotFound => is_pointer(&login.error) || is_pointer(&login.reason),
        Verdict::Done | Verdict::Temporary | Verdict::Permanent => false,
    }
}

/// Returns whether a header alone says that a login is good, so that nothing is missed in a body
/// that may have been cut short.
pub fn is_decided_by_head(login: &LoginRules) -> bool {
    let is_pointer = |place: &Option<Place>| matches!(place, Some(Place::Pointer(_)));
    let has_pointer = is_pointer(&login.user) || is_pointer(&login.error);
    matches!(login.accepted, Some(Sign::Header { .. })) && !has_pointer
}

/// Returns the outcome of an answer whose status has this meaning.
pub fn read(
    answer: &LoginAnswer<'_>,
    verdict: Verdict,
    rules: &ResponseRules,
    login: &LoginRules,
) -> Outcome {
    if !matches!(verdict, Verdict::Found | Verdict::NotFound) {
        return Outcome::Temporary(Reason::Answered(answer.status).into());
    }
    let document = match Document::of(answer, verdict, login) {
        Ok(document) => document,
        Err(failure) => return Outcome::Temporary(failure),
    };
    if has_error(answer, &document, rules, login) {
        let failure = Failure::new(Reason::ReportedError, "\"error\" finds one");
        return Outcome::Temporary(failure);
    }
    let is_good = match verdict {
        Verdict::Found => is_accepted(answer, &document, rules, login),
        _ => Ok(false),
    };
    match is_good {
        Err(failure) => Outcome::Temporary(failure),
        Ok(false) => refused(answer, &document, login),
        Ok(true) => match user(answer, &document, login) {
            Ok(user) => Outcome::Found(user),
            Err(failure) => Outcome::Temporary(failure),
        },
    }
}

/// The body of an answer.
struct Document<'a> {
    /// Its JSON, if it has any.
    root: Option<&'a RawValue>,
    /// Why it has none.
    flaw: &'static str,
}

impl<'a> Document<'a> {
    fn of(
        answer: &'a LoginAnswer<'_>,
        verdict: Verdict,
        login: &LoginRules,
    ) -> Result<Self, Failure> {
        let none = |flaw| Self { root: None, flaw };
        let body = match &answer.body {
            None => return Ok(none("no body")),
            Some(Ok(body)) => trim_text(body),
            // A refusal needs no more than its status, unless the body could take it back.
            Some(Err(_)) if verdict == Verdict::NotFound && login.error.is_none() => {
                return Ok(none("no body"));
            }
            Some(Err(failure)) => return Err(failure.clone()),
        };
        let page = || failure("HTML where the answer of an API is expected");
        // A refusal needs no body.
        let is_judged = verdict == Verdict::Found || login.error.is_some();
        if body.starts_with(b"<") && is_judged {
            return Err(page());
        }
        if body.is_empty() {
            return Ok(none("an empty body"));
        }
        let root = std::str::from_utf8(body).ok();
        let root = root.and_then(|text| serde_json::from_str(text).ok());
        if root.is_none() && is_judged && is_labelled_html(answer) {
            return Err(page());
        }
        Ok(Self {
            root,
            flaw: "not JSON",
        })
    }

    /// Returns what a pointer that points nowhere has missed.
    fn missed(&self, pointer: &str, key: &str, rules: &ResponseRules) -> String {
        self.root
            .map_or_else(String::new, |root| nowhere(key, pointer, root, rules))
    }

    /// Follows a JSON Pointer. Fails if there is no JSON, or if it has another shape.
    fn at(&self, pointer: &str, key: &str) -> Result<Option<&RawValue>, Failure> {
        let Some(root) = self.root else {
            let flaw = self.flaw;
            return Err(failure(format!("{flaw}, in which {key:?} could point")));
        };
        match follow_only(root, pointer) {
            Pointed::At(value) => Ok(Some(value)),
            Pointed::Nowhere => Ok(None),
            Pointed::Wrong => {
                let why = match follow(root, pointer) {
                    Pointed::At(_) => "a name occurs twice".to_owned(),
                    _ => missed(root, pointer),
                };
                Err(failure(format!("{key:?} points nowhere: {why}")))
            }
        }
    }
}

/// Returns whether the body is called HTML, whatever it begins with.
fn is_labelled_html(answer: &LoginAnswer<'_>) -> bool {
    (answer.header)("content-type").iter().any(|line| {
        let kind = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let is = |name: &[u8]| kind.trim_ascii().eq_ignore_ascii_case(name);
        is(b"text/html") || is(b"application/xhtml+xml")
    })
}

fn failure(detail: impl Into<std::borrow::Cow<'static, str>>) -> Failure {
    Failure::new(Reason::NotUnderstood, detail)
}

/// Returns whether an answer flags an error. A flag is not in a body without JSON.
fn has_error(
    answer: &LoginAnswer<'_>,
    document: &Document<'_>,
    rules: &ResponseRules,
    login: &LoginRules,
) -> bool {
    match (&login.error, &document.root) {
        (Some(Place::Header(name)), _) => {
            let lines = (answer.header)(name.as_str());
            lines.iter().any(|line| {
                let text = String::from_utf8_lossy(line);
                let is_nothing = ["", "0", "false"].contains(&text.as_ref());
                !is_nothing && !rules.no_error.iter().any(|none| *none == text)
            })
        }
        (Some(Place::Pointer(pointer)), Some(root)) => {
            // No member of an answer about a login holds a value that an error could displace.
            error_member(root, pointer, "")
                .is_some_and(|member| flags_error(member, &rules.no_error))
        }
        _ => false,
    }
}

/// Returns whether a login is good, although its status is.
fn is_accepted(
    answer: &LoginAnswer<'_>,
    document: &Document<'_>,
    rules: &ResponseRules,
    login: &LoginRules,
) -> Result<bool, Failure> {
    match &login.accepted {
        None => Ok(true),
        Some(Sign::Header { name, is }) => {
            let lines = (answer.header)(name.as_str());
            if lines.is_empty() {
                return Err(failure("without the header of \"accepted\""));
            }
            Ok(lines.iter().all(|line| *line == is.as_bytes()))
        }
        Some(Sign::Pointer(pointer)) => {
            let value = document.at(pointer, "accepted")?.map(RawValue::get);
            match value {
                Some("true") => Ok(true),
                Some("false") => Ok(false),
                None => Err(failure(document.missed(pointer, "accepted", rules))),
                Some(_) => Err(failure("\"accepted\" is neither true nor false")),
            }
        }
    }
}

/// Returns the name of the user who has logged in.
fn user(
    answer: &LoginAnswer<'_>,
    document: &Document<'_>,
    login: &LoginRules,
) -> Result<String, Failure> {
    let user = match &login.user {
        None => Some(answer.name.to_owned()),
        Some(Place::Header(name)) => header_text(answer, name.as_str()),
        Some(Place::Pointer(pointer)) => document.at(pointer, "user")?.and_then(text_of),
    };
    // A login as nobody would pass for one.
    user.filter(|user| !is_invisible(user) && !user.contains(char::is_control))
        .ok_or_else(|| failure("no name in \"user\""))
}

fn refused(answer: &LoginAnswer<'_>, document: &Document<'_>, login: &LoginRules) -> Outcome {
    let words = match &login.reason {
        None => None,
        Some(Place::Header(name)) => header_text(answer, name.as_str()),
        // A refusal without its words is still one.
        Some(Place::Pointer(pointer)) => {
            let value = document.at(pointer, "reason").ok().flatten();
            value.and_then(text_of)
        }
    };
    words.map_or(Outcome::NotFound, Outcome::Refused)
}

/// Returns the one line of a header, if it is text.
fn header_text(answer: &LoginAnswer<'_>, name: &str) -> Option<String> {
    match (answer.header)(name).as_slice() {
        [line] => String::from_utf8(line.to_vec()).ok(),
        _ => None,
    }
}

/// Returns the text of a string, or a number as it is written.
fn text_of(value: &RawValue) -> Option<String> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).ok(),
        Some(b'-' | b'0'..=b'9') => Some(raw.to_owned()),
        _ => None,
    }
}
