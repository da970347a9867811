//! The table HTTP → outcome, a row for each case.

use postgate::config::{Missing, Response, ResponseRules, Statuses, Verdict};
use postgate::http::answer::{numbers, read, verdict, without_body};
use postgate::outcome::{Outcome, Reason};
use postgate::protocol::dict::Dict;
use postgate::protocol::facts::Content;
use postgate::protocol::policy::Policy;
use postgate::protocol::tcp_lookup::TcpLookup;
use postgate::protocol::{Facts, Protocol as _};

fn rules(protocol: &'static Facts, response: Response) -> ResponseRules {
    ResponseRules {
        protocol,
        response,
        value: None,
        missing: Missing::Temporary,
        error: None,
        no_error: Vec::new(),
        list_separator: ",".to_owned(),
        true_value: "1".to_owned(),
        status: Statuses::default(),
        require_header: Vec::new(),
        login: None,
    }
}

fn lookup() -> ResponseRules {
    rules(TcpLookup::FACTS, Response::Json)
}

fn policy() -> ResponseRules {
    rules(Policy::FACTS, Response::Auto)
}

/// An outcome in a word or two, without what is for the log alone.
fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Found(value) => format!("found {value}"),
        Outcome::Done => "done".to_owned(),
        Outcome::NotFound => "not found".to_owned(),
        Outcome::Refused(words) => format!("refused: {words}"),
        Outcome::Temporary(failure) => format!("temporary: {}", failure.reason),
        Outcome::Permanent(failure) => format!("permanent: {}", failure.reason),
    }
}

const BAD: &str = "temporary: backend answer not understood";

#[test]
fn statuses_have_a_meaning_each() {
    for status in 100..=599 {
        let expected = match status {
            200 => (Verdict::Found, Verdict::Found),
            204 => (Verdict::NotFound, Verdict::NotFound),
            404 => (Verdict::NotFound, Verdict::Permanent),
            401 | 403 | 407 | 408 | 425 | 429 => (Verdict::Temporary, Verdict::Temporary),
            300..=499 => (Verdict::Permanent, Verdict::Permanent),
            _ => (Verdict::Temporary, Verdict::Temporary),
        };
        let found = (verdict(status, &lookup()), verdict(status, &policy()));
        assert_eq!(found, expected, "{status}");
    }
}

#[test]
fn what_the_operator_writes_of_a_status_comes_first() {
    let mut reading = lookup();
    reading.status = Statuses {
        exact: vec![(410, Verdict::NotFound), (200, Verdict::Temporary)],
        classes: vec![(4, Verdict::Permanent), (2, Verdict::Found)],
    };
    for (status, expected) in [
        (410, Verdict::NotFound),
        (404, Verdict::Permanent),
        (401, Verdict::Permanent),
        (200, Verdict::Temporary),
        (204, Verdict::Found),
        (503, Verdict::Temporary),
        (301, Verdict::Permanent),
    ] {
        assert_eq!(verdict(status, &reading), expected, "{status}");
    }
}

#[test]
fn a_status_without_an_answer_says_which_it_was() {
    for (status, verdict, expected) in [
        (503, Verdict::Temporary, "temporary: backend answered 503"),
        (301, Verdict::Permanent, "permanent: backend answered 301"),
        (404, Verdict::NotFound, "not found"),
    ] {
        assert_eq!(short(&without_body(status, verdict)), expected);
    }
}

#[test]
fn json_answers_of_lookups() {
    for (body, expected) in [
        (r#""a""#, "found a"),
        (r#" "a" "#, "found a"),
        (r#"" a ""#, "found  a "),
        (r#""\u00fc\n\u0000""#, "found \u{fc}\n\0"),
        ("1", "found 1"),
        ("-0", "found -0"),
        ("1.0", "found 1.0"),
        ("1e3", "found 1e3"),
        ("1E+3", "found 1E+3"),
        ("12345678901234567890123", "found 12345678901234567890123"),
        ("true", "found 1"),
        ("false", "not found"),
        ("null", "not found"),
        (r#""""#, "not found"),
        ("[]", "not found"),
        (" [ ] ", "not found"),
        (r#"["a"]"#, "found a"),
        (r#"["a", "b,c", 1.50, true]"#, "found a,b,c,1.50,1"),
        (r#"[""]"#, BAD),
        ("[null]", BAD),
        (r#"["a", false]"#, BAD),
        (r#"[["a"]]"#, BAD),
        (r#"[{"a": 1}]"#, BAD),
        (r#"{"a": 1}"#, BAD),
        ("{}", BAD),
        ("", BAD),
        (" ", BAD),
        ("a", BAD),
        (r#""a" x"#, BAD),
        (r#""a"#, BAD),
        (r#"["a","#, BAD),
        (r#"["a",]"#, BAD),
        ("01", BAD),
        ("NaN", BAD),
        (r#""\ud800""#, BAD),
        ("<html><body>502</body></html>", BAD),
        ("\u{feff}\"a\"", BAD),
        (" \r\n\t\"v\"\n ", "found v"),
        (r#""a b""#, "found a b"),
        (r#""  x ""#, "found   x "),
        (
            r#""\u00e9\"\\\/\ud83d\ude00""#,
            "found \u{e9}\"\\/\u{1f600}",
        ),
        (r#""50%20off%""#, "found 50%20off%"),
        (r#""a\tb""#, "found a\tb"),
        (
            r#""smtp:[mx.example.com]:25""#,
            "found smtp:[mx.example.com]:25",
        ),
        ("\"+ %&§ß\"", "found + %&§ß"),
        ("0", "found 0"),
        ("-1", "found -1"),
        ("2.50", "found 2.50"),
        (
            "0.1234567890123456789012345678901234567890",
            "found 0.1234567890123456789012345678901234567890",
        ),
        (r#"["0123456789"]"#, "found 0123456789"),
        (r#"["a",1,true,2.50]"#, "found a,1,1,2.50"),
        ("[false]", BAD),
        (r#"["a",""]"#, BAD),
        // serde_json's own mark of a number.
        (r#"{"$serde_json::private::Number":"7"}"#, BAD),
        ("alice@example.com", BAD),
        ("007", BAD),
        ("\"v\"\n\"w\"", BAD),
    ] {
        let outcome = read("application/json", body.as_bytes(), &lookup());
        assert_eq!(short(&outcome), expected, "{body}");
        // Policy reads values alike, but has nothing to say of an empty one.
        let expected = match expected {
            "not found" => BAD,
            other => other,
        };
        let outcome = read("application/json", body.as_bytes(), &policy());
        assert_eq!(short(&outcome), expected, "policy: {body}");
    }
    assert_eq!(short(&read("", b"\"\xff\"", &lookup())), BAD);
    let deep = "[".repeat(500_000);
    assert_eq!(short(&read("", deep.as_bytes(), &lookup())), BAD);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(short(&read("", deep.as_bytes(), &lookup())), BAD);
}

#[test]
fn a_value_without_a_word_in_it_is_not_understood() {
    // Postfix takes such a value of an access table for "permit" (check_table_result()).
    for body in [
        r#"" ""#,
        r#""\t""#,
        r#""\r""#,
        r#""\n""#,
        r#"",""#,
        r#"", ,\r\n\t""#,
        r#"[" "]"#,
        r#"[","]"#,
        r#"["a", "\t"]"#,
        r#"["a", ", "]"#,
        r#"["", ""]"#,
    ] {
        for reading in [lookup(), policy()] {
            let outcome = read("application/json", body.as_bytes(), &reading);
            assert_eq!(short(&outcome), BAD, "{body}");
        }
    }
    let mut text = lookup();
    text.response = Response::Text;
    for body in [",", " , ", ",\t,", ",,,\r\n"] {
        assert_eq!(short(&read("text/plain", body.as_bytes(), &text)), BAD);
    }
    let mut said = lookup();
    said.list_separator = " ".to_owned();
    assert_eq!(short(&read("", br#"["a", "b"]"#, &said)), "found a b");
    // A word is whatever mystrtok() finds between them.
    for (body, expected) in [(r#"" a,""#, "found  a,"), (r#""\u000b""#, "found \u{b}")] {
        assert_eq!(short(&read("", body.as_bytes(), &lookup())), expected);
    }
}

#[test]
fn a_pointer_leads_to_the_value() {
    let body =
        br#"{"a": {"b/c": ["x", {"~": "y"}], "n": null, "": "e"}, "k": "first", "k": "last"}"#;
    for (pointer, expected) in [
        ("", BAD),
        ("/k", "found last"),
        ("/a/b~1c/0", "found x"),
        ("/a/b~1c/1/~0", "found y"),
        ("/a/b~1c", BAD),
        ("/a/", "found e"),
        ("/a/n", "not found"),
        ("/a/n/x", BAD),
        ("/a/b~1c/2", BAD),
        ("/a/b~1c/00", BAD),
        ("/a/b~1c/+1", BAD),
        ("/a/b~1c/-", BAD),
        ("/nothing", BAD),
        ("/k/x", BAD),
    ] {
        let mut reading = lookup();
        reading.value = Some(pointer.to_owned());
        assert_eq!(short(&read("", body, &reading)), expected, "{pointer}");
    }
}

#[test]
fn a_pointer_to_nothing_means_what_the_operator_says() {
    let mut reading = lookup();
    reading.value = Some("/data".to_owned());
    reading.missing = Missing::NotFound;
    for (body, expected) in [
        ("{}", "not found"),
        (r#"{"data": null}"#, "not found"),
        (r#"{"data": "a"}"#, "found a"),
        (r#"{"other": 1}"#, "not found"),
        ("null", "not found"),
        ("[]", "not found"),
        ("[ ]", "not found"),
        ("[1]", BAD),
        ("true", BAD),
        ("\"oops\"", BAD),
        ("5", BAD),
        (r#"{"data": {}}"#, BAD),
        ("not JSON", BAD),
        ("", BAD),
    ] {
        assert_eq!(
            short(&read("", body.as_bytes(), &reading)),
            expected,
            "{body}"
        );
    }
}

#[test]
fn the_operator_chooses_separator_and_truth() {
    let mut reading = lookup();
    reading.list_separator = " | ".to_owned();
    reading.true_value = "yes".to_owned();
    let outcome = read("", br#"["a", true, "b"]"#, &reading);
    assert_eq!(short(&outcome), "found a | yes | b");
}

#[test]
fn text_answers_are_one_line_and_no_page() {
    let mut reading = lookup();
    reading.response = Response::Text;
    for (content_type, body, expected) in [
        ("text/plain", "a b", "found a b"),
        ("", "\t a \r\n", "found a"),
        ("application/json", "\"a\"", "found \"a\""),
        ("text/plain", "", "not found"),
        ("text/plain", " \r\n", "not found"),
        ("text/plain", "a\nb", BAD),
        ("text/plain", "a\rb", BAD),
        ("text/html", "a", "found a"),
        ("Text/HTML; charset=utf-8", "a", "found a"),
        ("text/html", "<p>a", BAD),
        ("text/plain", "<HTML>", BAD),
        ("text/plain", " <!DOCTYPE html><p>", BAD),
        // A mark of the encoding is no part of the text.
        ("text/plain", "\u{feff}a", "found a"),
        ("text/plain", "\u{feff}", "not found"),
        ("text/plain", "\u{feff} <html>", BAD),
        ("text/plain", " \u{feff}\n<html>", BAD),
        ("text/plain", "a b\r\n", "found a b"),
        ("text/plain", "\u{e9}", "found \u{e9}"),
        ("text/plain", "12345", "found 12345"),
        ("text/plain", " \n\n", "not found"),
        ("text/plain", "a\nb\n", BAD),
        ("text/plain", " <p>v", BAD),
        ("text/plain", "a\0b", "found a\0b"),
    ] {
        let outcome = read(content_type, body.as_bytes(), &reading);
        assert_eq!(short(&outcome), expected, "{content_type}: {body:?}");
    }
    for body in [&b"\xfc"[..], b"a\xffb"] {
        let outcome = read("text/plain", body, &reading);
        assert_eq!(
            short(&outcome),
            format!("temporary: {}", Reason::ValueCannotBeSent)
        );
    }
}

#[test]
fn policy_answers_are_read_by_their_content_type_and_never_empty() {
    for (content_type, body, expected) in [
        ("text/plain", "DUNNO", "found DUNNO"),
        ("", "action=DUNNO\n\n", "found action=DUNNO"),
        ("text/plain", "\"DUNNO\"", "found \"DUNNO\""),
        ("application/json", "\"DUNNO\"", "found DUNNO"),
        (
            "application/problem+json; charset=utf-8",
            "\"DUNNO\"",
            "found DUNNO",
        ),
        (
            "application/json",
            r#"{"action": "REJECT x"}"#,
            "found REJECT x",
        ),
        ("application/json", "{}", BAD),
        ("application/json", r#"{"action": null}"#, BAD),
        ("application/json", r#"{"action": ""}"#, BAD),
        ("application/json", r#"{"action": {}}"#, BAD),
        ("application/json", "null", BAD),
        ("application/json", "false", BAD),
        ("application/json", "[]", BAD),
        ("application/json", "\"\"", BAD),
        ("application/json", "DUNNO", BAD),
        ("application/json", "", BAD),
        ("text/plain", "", BAD),
        ("text/plain", "\n", BAD),
        // What Flask and PHP label every answer with, unless told otherwise.
        ("text/html", "DUNNO", "found DUNNO"),
        ("Text/HTML; charset=utf-8", "\u{feff}DUNNO", "found DUNNO"),
        ("application/xhtml+xml", "DUNNO", "found DUNNO"),
        ("text/html", "", BAD),
        ("text/html", "<p>DUNNO", BAD),
        ("text/html", " \r\n\t<!doctype html>", BAD),
        ("text/html", "\u{feff}<html>", BAD),
        ("text/html", "\n\u{feff} <html>", BAD),
        ("text/html", "DUNNO\n<p>", BAD),
        ("text/plain", "<html>", BAD),
        ("text/plain", "action=DUNNO", "found action=DUNNO"),
        ("text/plain", "  REJECT text \r\n", "found REJECT text"),
        (
            "application/json",
            "\"action=REJECT text\"",
            "found action=REJECT text",
        ),
        (
            "application/json",
            r#"{"other":[1],"action":"DUNNO"}"#,
            "found DUNNO",
        ),
        (
            "application/json; charset=utf-8",
            r#"{"action":"DUNNO"}"#,
            "found DUNNO",
        ),
        ("text/html; charset=utf-8", "<p>DUNNO</p>", BAD),
        ("text/plain", "<html>DUNNO</html>", BAD),
        ("text/plain", " \n\n", BAD),
        ("application/json", r#"{"action":false}"#, BAD),
        ("application/json", r#"{"action":450}"#, "found 450"),
        ("application/json", r#"{"action":true}"#, "found 1"),
        (
            "application/json",
            r#"{"action":["REJECT"],"action":{}}"#,
            BAD,
        ),
        ("application/json", r#"{"Action":"DUNNO"}"#, BAD),
        ("application/json", r#"{"result":{"action":"DUNNO"}}"#, BAD),
        ("application/json", "450", "found 450"),
        ("application/json", "\"450\"", "found 450"),
        (
            "application/json",
            r#""DUNNO\nREJECT text""#,
            "found DUNNO\nREJECT text",
        ),
        ("application/json", r#""DUNNO\u0000""#, "found DUNNO\0"),
        (
            "application/json",
            r#""DUNNO\u2028REJECT""#,
            "found DUNNO\u{2028}REJECT",
        ),
    ] {
        let outcome = read(content_type, body.as_bytes(), &policy());
        assert_eq!(short(&outcome), expected, "{content_type}: {body:?}");
    }
    for body in [&b"REJECT \xff"[..], b"\xffDUNNO", b"REJECT caf\xe9"] {
        let outcome = read("text/plain", body, &policy());
        assert_eq!(
            short(&outcome),
            format!("temporary: {}", Reason::ValueCannotBeSent)
        );
    }
}

#[test]
fn a_member_can_flag_an_error() {
    let reported = "temporary: backend reported an error";
    let mut reading = lookup();
    reading.value = Some("/v".to_owned());
    reading.error = Some("/e".to_owned());
    reading.no_error = vec!["none".to_owned(), "200".to_owned(), "true".to_owned()];
    for (error, expected) in [
        ("null", "found a"),
        ("false", "found a"),
        ("0", "found a"),
        ("-0.0", "found a"),
        ("0e5", "found a"),
        (r#""""#, "found a"),
        ("[ ]", "found a"),
        ("{}", "found a"),
        (r#""none""#, "found a"),
        ("200", "found a"),
        (r#""200""#, "found a"),
        ("true", "found a"),
        ("1", reported),
        ("500", reported),
        (r#""None""#, reported),
        (r#""boom \ud800""#, reported),
        (r#"" ""#, reported),
        (r#""0""#, reported),
        ("[0]", reported),
        (r#"{"code": 0}"#, reported),
    ] {
        let body = format!(r#"{{"v": "a", "e": {error}}}"#);
        assert_eq!(
            short(&read("", body.as_bytes(), &reading)),
            expected,
            "{error}"
        );
    }
    assert_eq!(short(&read("", br#"{"v": "a"}"#, &reading)), "found a");
    assert_eq!(
        short(&read("", br#"{"v": null, "e": "x"}"#, &reading)),
        reported
    );
    assert_eq!(short(&read("", b"[1]", &reading)), BAD);
}

#[test]
fn what_stands_in_the_way_of_an_error_flags_it_unless_it_may_hold_the_value() {
    let reported = "temporary: backend reported an error";
    for (value, error, body, expected) in [
        ("/v", "/e/m", r#"{"v": null, "e": "down"}"#, reported),
        ("/v", "/e/m", r#"{"v": "a", "e": "none"}"#, "found a"),
        ("/v", "/e/m", r#"{"v": "a", "e": null}"#, "found a"),
        ("/v", "/e/m", r#"{"v": "a", "e": false}"#, "found a"),
        ("/v", "/e/m", r#"{"v": "a", "e": 0}"#, "found a"),
        ("/v", "/e/m", r#"{"v": "a", "e": ""}"#, "found a"),
        ("/v", "/e/m", r#"{"v": "a", "e": []}"#, "found a"),
        ("/v", "/e/m", r#"{"v": "a", "e": {}}"#, "found a"),
        ("/v", "/e/m", r#"{"v": "a", "e": {"c": 5}}"#, "found a"),
        ("/v", "/e/m", r#"{"v": "a", "e": true}"#, reported),
        ("/v", "/e/m", r#"{"v": "a", "e": 5}"#, reported),
        ("/v", "/e/m", r#"{"v": "a", "e": ["down"]}"#, reported),
        ("/v", "/e/a/b", r#"{"v": "a", "e": "down"}"#, reported),
        ("/v", "/e/a/b", r#"{"v": "a", "e": {"a": 5}}"#, reported),
        ("/v", "/vector/m", r#"{"v": "a", "vector": 5}"#, reported),
        ("", "/e", r#""a""#, "found a"),
        ("", "/e", r#"["a", "b"]"#, "found a,b"),
        ("", "/e/m", "5", "found 5"),
        ("/v", "/e", r#""a""#, BAD),
        ("/d", "/d/e", r#"{"d": "a"}"#, "found a"),
        ("/d/v", "/d/e", r#"{"d": "a"}"#, BAD),
        ("/d/v", "/d/e/m", r#"{"d": {"v": null, "e": 5}}"#, reported),
    ] {
        let mut reading = lookup();
        reading.value = Some(value.to_owned());
        reading.error = Some(error.to_owned());
        reading.no_error = vec!["none".to_owned()];
        reading.missing = Missing::NotFound;
        let outcome = read("", body.as_bytes(), &reading);
        assert_eq!(short(&outcome), expected, "{value} {error} {body}");
    }
}

/// The facts of a call that is read for its JSON.
fn facts(content: Content) -> &'static Facts {
    match content {
        Content::Value => TcpLookup::FACTS,
        Content::Login => panic!("logins are read elsewhere"),
        Content::Text => Dict::FACTS,
        Content::Rows => operation("iterate"),
        Content::Written => operation("set"),
        // The call for the numbers of an account.
        Content::Document => {
            let counting = Policy::FACTS.counting.expect("policies count");
            counting.call.expect("a call")
        }
    }
}

/// The facts of the calls for what a dict can do besides lookups.
fn operation(name: &str) -> &'static Facts {
    let mut operations = Dict::FACTS.operations.iter();
    operations.find(|one| one.name == name).expect(name).call
}

#[test]
fn an_answer_may_be_read_for_its_json() {
    for (body, text, document) in [
        ("\"a b\"", "found a b", "found \"a b\""),
        ("\"\\u00e4\\n\"", "found \u{e4}\n", "found \"\\u00e4\\n\""),
        (" 5.0 ", "found 5.0", "found 5.0"),
        ("true", "found true", "found true"),
        (
            "\n{\"a\" : [1, 2]}\n",
            "found {\"a\" : [1, 2]}",
            "found {\"a\" : [1, 2]}",
        ),
        ("[ {} ]", "found [ {} ]", "found [ {} ]"),
        ("{}", "found {}", "found {}"),
        ("null", "not found", "not found"),
        ("false", "found false", "not found"),
        ("\"\"", "found ", "not found"),
        ("\" , \"", "found  , ", "found \" , \""),
        ("[]", "found []", "not found"),
        ("[ ]", "found [ ]", "not found"),
        ("", BAD, BAD),
        ("{\"a\": 1", BAD, BAD),
        ("{\"a\": 1} x", BAD, BAD),
        ("<html>", BAD, BAD),
        ("\"\\ud800\"", BAD, "found \"\\ud800\""),
    ] {
        for (content, expected) in [(Content::Text, text), (Content::Document, document)] {
            let rules = rules(facts(content), Response::Json);
            let outcome = read("text/html", body.as_bytes(), &rules);
            assert_eq!(short(&outcome), expected, "{content:?}: {body}");
        }
    }
    for (body, expected) in [
        ("{}", "found {}"),
        (" [ ] ", "found [ ]"),
        ("null", "not found"),
        // No rows, and no list either, which is said by those who read them.
        ("false", "found false"),
        ("\"\"", "found \"\""),
        ("", BAD),
    ] {
        let rules = rules(facts(Content::Rows), Response::Json);
        let outcome = read("", body.as_bytes(), &rules);
        assert_eq!(short(&outcome), expected, "{body}");
    }
    let pointed = ResponseRules {
        value: Some("/data".to_owned()),
        error: Some("/error".to_owned()),
        ..rules(facts(Content::Document), Response::Json)
    };
    for (body, expected) in [
        ("{\"data\": {\"a\": 1}}", "found {\"a\": 1}"),
        ("{\"data\": null}", "not found"),
        ("{\"other\": 1}", BAD),
        ("[1]", BAD),
        (
            "{\"data\": {\"a\": 1}, \"error\": \"x\"}",
            "temporary: backend reported an error",
        ),
    ] {
        let outcome = read("", body.as_bytes(), &pointed);
        assert_eq!(short(&outcome), expected, "{body}");
    }
}

#[test]
fn a_text_of_a_dict_is_the_whole_body() {
    const NOT_UTF8: &str = "temporary: value cannot be sent";
    for (content_type, body, expected) in [
        ("", &b"keep;\r\n\n"[..], "found keep;\r\n\n"),
        ("text/plain", b"  a, b  ", "found   a, b  "),
        ("text/plain", b"", "found "),
        ("text/html", b"no page", "found no page"),
        ("text/plain", b"<3", "found <3"),
        ("text/html; charset=utf-8", b"\n<b>502</b>", BAD),
        ("text/plain", b"<!DOCTYPE html><p>", BAD),
        ("", b"\xef\xbb\xbf <HTML>", BAD),
        ("", b"\xff", NOT_UTF8),
        ("application/json", b"\"a\"", "found \"a\""),
    ] {
        let rules = rules(Dict::FACTS, Response::Text);
        let outcome = read(content_type, body, &rules);
        assert_eq!(short(&outcome), expected, "{}", body.escape_ascii());
    }
    for (content_type, expected) in [("application/json", "found a"), ("", "found \"a\"")] {
        let rules = rules(Dict::FACTS, Response::Auto);
        let outcome = read(content_type, b"\"a\"", &rules);
        assert_eq!(short(&outcome), expected, "{content_type}");
    }
}

#[test]
fn a_write_is_done_if_a_2xx_says_so() {
    for name in ["set", "unset", "increment", "commit"] {
        let mut rules = rules(operation(name), Response::Json);
        // What the operator says of statuses is about lookups.
        rules.status.classes = vec![
            (2, Verdict::NotFound),
            (4, Verdict::Found),
            (5, Verdict::Found),
        ];
        rules.status.exact = vec![(404, Verdict::Found)];
        for status in 100..=599 {
            let expected = match status {
                200..=299 => Verdict::Found,
                404 if name == "unset" => Verdict::Done,
                404 if name == "increment" => Verdict::NotFound,
                401 | 403 | 407 | 408 | 425 | 429 => Verdict::Temporary,
                300..=499 => Verdict::Permanent,
                _ => Verdict::Temporary,
            };
            assert_eq!(verdict(status, &rules), expected, "{name}: {status}");
        }
    }
    let reported = "temporary: backend reported an error";
    for (response, content_type, error, body, expected) in [
        (Response::Json, "", "", "", "done"),
        (Response::Json, "", "", "null", "done"),
        (Response::Json, "", "", "anything", "done"),
        (Response::Json, "", "", "false", "done"),
        (Response::Json, "text/html", "", "thank you", "done"),
        (Response::Json, "text/html", "", "<h1>Welcome</h1>", BAD),
        (Response::Text, "", "", "\n<!doctype HTML>", BAD),
        (Response::Json, "", "/error", "", "done"),
        (Response::Json, "", "/error", " \n", "done"),
        (Response::Json, "", "/error", "{\"error\": null}", "done"),
        (Response::Json, "", "/error", "{}", "done"),
        (Response::Json, "", "/error", "[]", "done"),
        (Response::Json, "", "/error", "5", "done"),
        (
            Response::Json,
            "",
            "/error",
            "{\"error\": \"full\"}",
            reported,
        ),
        (Response::Json, "", "/error", "OK", BAD),
        (
            Response::Text,
            "",
            "/error",
            "{\"error\": \"full\"}",
            "done",
        ),
        (Response::Auto, "text/plain", "/error", "OK", "done"),
        (
            Response::Auto,
            "application/json",
            "/error",
            "{\"error\": 1}",
            reported,
        ),
    ] {
        let rules = ResponseRules {
            // The value of a lookup is somewhere else.
            value: Some("/data/value".to_owned()),
            error: (!error.is_empty()).then(|| error.to_owned()),
            ..rules(operation("set"), response)
        };
        let outcome = read(content_type, body.as_bytes(), &rules);
        assert_eq!(
            short(&outcome),
            expected,
            "{response:?} {content_type} {error} {body}"
        );
    }
}

#[test]
fn the_numbers_of_an_account_are_whole() {
    let cases: [(&str, Result<Option<u64>, &str>); 22] = [
        ("{\"a\": 5}", Ok(Some(5))),
        ("{\"a\": 1, \"a\": 5}", Ok(Some(5))),
        ("{\"a\": 18446744073709551615}", Ok(Some(u64::MAX))),
        ("{\"a\": 99999999999999999999999}", Ok(Some(u64::MAX))),
        ("{\"a\": 0}", Ok(None)),
        ("{\"a\": null}", Ok(None)),
        ("{}", Err("points nowhere")),
        ("{\"b\": 5}", Err("points nowhere")),
        ("{\"a\": -1}", Err("no whole number")),
        ("{\"a\": -0}", Err("no whole number")),
        ("{\"a\": 5.0}", Err("no whole number")),
        ("{\"a\": 5e3}", Err("no whole number")),
        ("{\"a\": \"5\"}", Err("no whole number")),
        ("{\"a\": \"\"}", Err("no whole number")),
        ("{\"a\": true}", Err("no whole number")),
        ("{\"a\": false}", Err("no whole number")),
        ("{\"a\": []}", Err("no whole number")),
        ("{\"a\": {}}", Err("no whole number")),
        ("[5]", Err("no object")),
        ("5", Err("no object")),
        ("\"{\\\"a\\\": 5}\"", Err("no object")),
        ("x", Err("not JSON")),
    ];
    for (document, expected) in cases {
        match (numbers(document, ["/a"]), expected) {
            (Ok(numbers), Ok(expected)) => assert_eq!(numbers, [expected], "{document}"),
            (Err(failure), Err(expected)) => {
                assert_eq!(failure.reason, Reason::NotUnderstood, "{document}");
                assert!(failure.detail.contains(expected), "{document}: {failure:?}");
            }
            (found, expected) => panic!("{document}: {found:?}, expected {expected:?}"),
        }
    }
    let document = "{\"a\": {\"b/c\": [1, 2]}, \"d\": 0}";
    let found = numbers(document, ["/d", "/a/b~1c/1", "/a/b~1c/0"]);
    assert_eq!(found, Ok(vec![None, Some(2), Some(1)]));
    assert!(numbers(document, ["/d", "/a/b~1c/2"]).is_err());
}
