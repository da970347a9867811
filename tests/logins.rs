//! The table HTTP → outcome of logins, a row for each case.

use postgate::config::{
    LoginRules, Missing, Place, Response, ResponseRules, Sign, Statuses, Verdict,
};
use postgate::http::login::{LoginAnswer, is_decided_by_head, needs_body, read, verdict};
use postgate::outcome::{Failure, Outcome, Reason};
use postgate::protocol::Protocol as _;
use postgate::protocol::sasl::Sasl;
use reqwest::header::{HeaderName, HeaderValue};

const NAME: &str = "joe@example.org";

fn rules(no_error: &[&str], status: Statuses) -> ResponseRules {
    ResponseRules {
        protocol: Sasl::FACTS,
        response: Response::Json,
        value: None,
        missing: Missing::Temporary,
        error: None,
        no_error: no_error.iter().map(|text| (*text).to_owned()).collect(),
        list_separator: ",".to_owned(),
        true_value: "1".to_owned(),
        status,
        require_header: Vec::new(),
        login: None,
    }
}

fn login() -> LoginRules {
    LoginRules {
        accepted: None,
        user: None,
        reason: None,
        error: None,
        has_own_credential: false,
    }
}

fn pointer(pointer: &str) -> Option<Place> {
    Some(Place::Pointer(pointer.to_owned()))
}

fn header(name: &'static str) -> Option<Place> {
    Some(Place::Header(HeaderName::from_static(name)))
}

/// The outcome of an answer: its status, its headers as lines, and its body as far as it is read.
fn outcome_by(login: &LoginRules, rules: &ResponseRules, answer: (u16, &str, &str)) -> Outcome {
    let (status, headers, body) = answer;
    let verdict = verdict(status, rules, login);
    let lines = |wanted: &str| {
        let lines = headers.lines().filter_map(|line| line.split_once(": "));
        let lines = lines.filter(|(name, _)| *name == wanted);
        lines.map(|(_, value)| value.as_bytes()).collect()
    };
    let body = match body {
        "(broken)" => Err(Failure::from(Reason::AnswerTooLong)),
        body => Ok(body.as_bytes().to_vec()),
    };
    let answer = LoginAnswer {
        status,
        header: &lines,
        body: needs_body(verdict, login).then_some(body),
        name: NAME,
    };
    read(&answer, verdict, rules, login)
}

/// An outcome in a word or two.
fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Found(user) => format!("accepted {user}"),
        Outcome::Done => "done".to_owned(),
        Outcome::NotFound => "refused".to_owned(),
        Outcome::Refused(words) => format!("refused: {words}"),
        Outcome::Temporary(failure) => format!("temporary: {}", failure.reason),
        Outcome::Permanent(failure) => format!("permanent: {}", failure.reason),
    }
}

const GOOD: &str = "accepted joe@example.org";
const BAD: &str = "temporary: backend answer not understood";
const ERROR: &str = "temporary: backend reported an error";

#[track_caller]
fn all(login: &LoginRules, rows: &[((u16, &str, &str), &str)]) {
    for (answer, expected) in rows {
        let seen = short(&outcome_by(
            login,
            &rules(&[], Statuses::default()),
            *answer,
        ));
        assert_eq!(seen, *expected, "{answer:?}");
    }
}

#[test]
fn only_three_statuses_are_a_login_and_two_a_refusal() {
    let rules = rules(&[], Statuses::default());
    let own = LoginRules {
        has_own_credential: true,
        ..login()
    };
    for status in 100..=599 {
        let expected = match status {
            200 | 201 | 204 => Verdict::Found,
            401 | 403 => Verdict::NotFound,
            _ => Verdict::Temporary,
        };
        assert_eq!(verdict(status, &rules, &login()), expected, "{status}");
        let expected = match status {
            401 | 403 => Verdict::Temporary,
            _ => expected,
        };
        assert_eq!(verdict(status, &rules, &own), expected, "{status}");
    }
}

#[test]
fn what_the_operator_writes_of_a_status_comes_first() {
    let statuses = Statuses {
        exact: vec![(401, Verdict::NotFound), (200, Verdict::Temporary)],
        classes: vec![(4, Verdict::Temporary), (2, Verdict::Found)],
    };
    let rules = rules(&[], statuses);
    let own = LoginRules {
        has_own_credential: true,
        ..login()
    };
    for (status, expected) in [
        (401, Verdict::NotFound),
        (403, Verdict::Temporary),
        (200, Verdict::Temporary),
        (202, Verdict::Found),
        (500, Verdict::Temporary),
    ] {
        assert_eq!(verdict(status, &rules, &own), expected, "{status}");
    }
}

#[test]
fn by_its_status_alone() {
    all(
        &login(),
        &[
            ((200, "", ""), GOOD),
            ((200, "", "anything"), GOOD),
            ((200, "", "{\"message\":\"success\"}"), GOOD),
            ((201, "", ""), GOOD),
            ((204, "", ""), GOOD),
            ((401, "", "(broken)"), "refused"),
            ((403, "", "<html>"), "refused"),
            ((400, "", ""), "temporary: backend answered 400"),
            ((404, "", ""), "temporary: backend answered 404"),
            ((422, "", ""), "temporary: backend answered 422"),
            ((429, "", ""), "temporary: backend answered 429"),
            ((202, "", ""), "temporary: backend answered 202"),
            ((302, "", ""), "temporary: backend answered 302"),
            ((500, "", ""), "temporary: backend answered 500"),
            ((503, "", ""), "temporary: backend answered 503"),
            // A page of a proxy, and a body that does not come to its end.
            ((200, "", "<html>welcome</html>"), BAD),
            ((200, "", " \n\u{feff}<!DOCTYPE html>"), BAD),
            ((200, "content-type: text/html", "Sign in: <form>"), BAD),
            ((200, "content-type: Text/HTML; charset=utf-8", "hi"), BAD),
            ((201, "content-type: application/xhtml+xml", "hi"), BAD),
            ((200, "content-type: text/html", ""), GOOD),
            ((200, "content-type: text/html", " {\"a\": 1}"), GOOD),
            ((200, "content-type: text/plain", "hi"), GOOD),
            ((403, "content-type: text/html", "Sign in"), "refused"),
            ((200, "", "(broken)"), "temporary: backend answer too long"),
        ],
    );
}

#[test]
fn by_a_member_that_must_be_true() {
    let login = LoginRules {
        accepted: Some(Sign::Pointer("/auth/ok".to_owned())),
        ..login()
    };
    all(
        &login,
        &[
            ((200, "", "{\"auth\":{\"ok\":true}}"), GOOD),
            ((200, "", "{\"auth\":{\"ok\":true,\"ok\":false}}"), BAD),
            ((200, "", "{\"auth\":{\"ok\":false}}"), "refused"),
            ((200, "", "{\"auth\":{\"ok\":1}}"), BAD),
            ((200, "", "{\"auth\":{\"ok\":\"true\"}}"), BAD),
            ((200, "", "{\"auth\":{\"ok\":null}}"), BAD),
            ((200, "", "{\"auth\":{\"ok\":[true]}}"), BAD),
            ((200, "", "{\"auth\":{}}"), BAD),
            ((200, "", "{\"auth\":true}"), BAD),
            ((200, "", "{}"), BAD),
            ((200, "", "true"), BAD),
            ((200, "", "{\"auth\":{\"ok\":true}"), BAD),
            ((200, "", "OK"), BAD),
            ((200, "", ""), BAD),
            ((204, "", ""), BAD),
            ((200, "", "<html>"), BAD),
            // What is said twice is not said.
            ((200, "", "{\"auth\":{\"ok\":true,\"ok\":true}}"), BAD),
            ((200, "", "{\"auth\":{\"ok\":false,\"ok\":true}}"), BAD),
            ((200, "", "{\"auth\":{},\"auth\":{\"ok\":true}}"), BAD),
            // A refusal by its status needs no member, and a failure is none.
            ((401, "", ""), "refused"),
            ((401, "", "{\"auth\":{\"ok\":true}}"), "refused"),
            (
                (500, "", "{\"auth\":{\"ok\":true}}"),
                "temporary: backend answered 500",
            ),
        ],
    );
    assert!(!is_decided_by_head(&login));
}

#[test]
fn by_a_header() {
    let login = LoginRules {
        accepted: Some(Sign::Header {
            name: HeaderName::from_static("auth-status"),
            is: HeaderValue::from_static("OK"),
        }),
        user: header("auth-user"),
        reason: header("auth-status"),
        ..login()
    };
    all(
        &login,
        &[
            ((200, "auth-status: OK\nauth-user: joe", ""), "accepted joe"),
            (
                (204, "auth-status: OK\nauth-user: j\u{f6}e", ""),
                "accepted j\u{f6}e",
            ),
            ((200, "auth-status: Locked", ""), "refused: Locked"),
            ((200, "auth-status: ok\nauth-user: joe", ""), "refused: ok"),
            (
                (200, "auth-status: OK\nauth-status: no\nauth-user: joe", ""),
                "refused",
            ),
            ((200, "auth-user: joe", ""), BAD),
            ((200, "auth-status: OK", ""), BAD),
            ((200, "auth-status: OK\nauth-user: ", ""), BAD),
            ((200, "auth-status: OK\nauth-user:  , ", ""), BAD),
            ((200, "auth-status: OK\nauth-user: a\tb", ""), BAD),
            // A name that nobody sees: a no-break space, and one without width.
            ((200, "auth-status: OK\nauth-user: \u{a0}\u{3000}", ""), BAD),
            ((200, "auth-status: OK\nauth-user: \u{200b}", ""), BAD),
            (
                (200, "auth-status: OK\nauth-user: joe\nauth-user: ann", ""),
                BAD,
            ),
            ((200, "auth-status: OK\nauth-user: joe", "<html>"), BAD),
            ((401, "auth-status: Expired", ""), "refused: Expired"),
            (
                (500, "auth-status: OK\nauth-user: joe", ""),
                "temporary: backend answered 500",
            ),
        ],
    );
    assert!(is_decided_by_head(&login));
}

#[test]
fn the_name_is_in_the_answer() {
    let login = LoginRules {
        user: pointer("/user/login"),
        ..login()
    };
    all(
        &login,
        &[
            ((200, "", "{\"user\":{\"login\":\"joe\"}}"), "accepted joe"),
            (
                (200, "", "{\"user\":{\"login\":\"j\\u00f6e\"}}"),
                "accepted j\u{f6}e",
            ),
            ((200, "", "{\"user\":{\"login\":1042}}"), "accepted 1042"),
            ((200, "", "{\"user\":{\"login\":\"\"}}"), BAD),
            ((200, "", "{\"user\":{\"login\":\" ,\"}}"), BAD),
            ((200, "", "{\"user\":{\"login\":\"joe\\tx=y\"}}"), BAD),
            ((200, "", "{\"user\":{\"login\":\"joe\\n\"}}"), BAD),
            ((200, "", "{\"user\":{\"login\":\"joe\\u0000\"}}"), BAD),
            ((200, "", "{\"user\":{\"login\":\"joe\\u007f\"}}"), BAD),
            ((200, "", "{\"user\":{\"login\":\"\\ud800\"}}"), BAD),
            ((200, "", "{\"user\":{\"login\":null}}"), BAD),
            ((200, "", "{\"user\":{\"login\":true}}"), BAD),
            ((200, "", "{\"user\":{\"login\":[\"joe\"]}}"), BAD),
            ((200, "", "{\"user\":{}}"), BAD),
            ((200, "", "{\"user\":\"joe\"}"), BAD),
            ((200, "", "joe"), BAD),
            ((204, "", ""), BAD),
            ((401, "", ""), "refused"),
        ],
    );
}

#[test]
fn the_words_of_a_refusal_are_in_the_answer() {
    let login = LoginRules {
        accepted: Some(Sign::Pointer("/ok".to_owned())),
        reason: pointer("/message"),
        ..login()
    };
    all(
        &login,
        &[
            ((401, "", "{\"message\":\"locked\"}"), "refused: locked"),
            (
                (200, "", "{\"ok\":false,\"message\":\"a\\tb\\nOK\\t1\"}"),
                "refused: a\tb\nOK\t1",
            ),
            ((401, "", "{\"message\":[\"locked\"]}"), "refused"),
            ((401, "", "{\"message\":null}"), "refused"),
            ((401, "", "{}"), "refused"),
            ((403, "", "<html>no</html>"), "refused"),
            ((403, "", ""), "refused"),
            ((401, "", "(broken)"), "refused"),
            ((200, "", "{\"ok\":true,\"message\":\"hello\"}"), GOOD),
        ],
    );
}

#[test]
fn an_error_comes_before_everything_but_the_status_of_a_failure() {
    let by_pointer = LoginRules {
        accepted: Some(Sign::Pointer("/ok".to_owned())),
        error: pointer("/error"),
        ..login()
    };
    all(
        &by_pointer,
        &[
            ((200, "", "{\"ok\":true,\"error\":\"down\"}"), ERROR),
            ((200, "", "{\"ok\":false,\"error\":{\"code\":1}}"), ERROR),
            ((401, "", "{\"error\":true}"), ERROR),
            ((200, "", "{\"ok\":true,\"error\":null}"), GOOD),
            ((200, "", "{\"ok\":false,\"error\":\"\"}"), "refused"),
            ((401, "", "{\"error\":false}"), "refused"),
            ((401, "", ""), "refused"),
            // Whether such an answer flags an error is not known.
            ((401, "", "<html>blocked</html>"), BAD),
            ((401, "", "(broken)"), "temporary: backend answer too long"),
            ((503, "", "{}"), "temporary: backend answered 503"),
        ],
    );
    let by_header = LoginRules {
        error: header("auth-error-code"),
        ..login()
    };
    let rules = rules(&["535 5.7.0"], Statuses::default());
    for (answer, expected) in [
        ((200, "", ""), GOOD),
        ((200, "auth-error-code: 451 4.3.0", ""), ERROR),
        ((401, "auth-error-code: 451 4.3.0", ""), ERROR),
        ((401, "auth-error-code: 535 5.7.0", ""), "refused"),
        ((200, "auth-error-code: 0", ""), GOOD),
        ((200, "auth-error-code: ", ""), GOOD),
        ((200, "auth-error-code: 0\nauth-error-code: 1", ""), ERROR),
    ] {
        let seen = short(&outcome_by(&by_header, &rules, answer));
        assert_eq!(seen, expected, "{answer:?}");
    }
}
