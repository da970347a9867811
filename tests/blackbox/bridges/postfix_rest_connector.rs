//! In place of postfix-rest-connector: a `GET` with the key in the query, a `POST` with a form of
//! all attributes, lists as answers, and actions as bare lines of text.

use serde_json::json;

use super::{
    page::Ready,
    place::{ODD, Place, TOKEN, failure, is_odd, one, path},
};
use crate::support::{
    backend::{self, Act, Request, Script, plain, response, status, typed},
    program::Binary,
};

const BRIDGE: &str = "postfix-rest-connector";

/// What the page says for every failure of the policy service.
const LATER: &str = "451 4.3.0 Policy service temporarily unavailable";
/// What the page says when the policy service refuses the question.
const REFUSED: &str = "554 5.3.0 Policy service refused the request";

/// The API, for all three programs.
fn api(request: &Request) -> Script {
    if request.header("x-auth-token") != Some(TOKEN) {
        return typed(401, "text/plain", "no token, no answer");
    }
    if request.header("x-request-id").is_none_or(str::is_empty) {
        return typed(400, "text/plain", "a request without an id");
    }
    match (request.method.as_str(), path(request)) {
        ("GET", "/transport" | "/v2/transport") => transport(request),
        ("GET", "/maps") => maps(request),
        ("POST", "/policy") => policy(request),
        _ => typed(405, "text/html", "<html>no such thing</html>"),
    }
}

fn list(values: &[&str]) -> Script {
    backend::json(json!(values).to_string())
}

fn unknown() -> Script {
    typed(404, "text/plain", "unknown")
}

fn transport(request: &Request) -> Script {
    let query = request.query();
    let Some(key) = one(&query, "key") else {
        return status(400);
    };
    match key {
        b"example.org" => list(&["smtp:[mx.example.org]:25"]),
        b"two.example.org" => list(&["r1", "r2"]),
        b"+ %&\xc2\xa7\xc3\x9f" => list(&["+ %&§ß"]),
        b"caf\xe9" | b"" => list(&["found"]),
        b"nothing.example.org" => list(&[]),
        b"moved.example.org" if path(request) == "/transport" => {
            let to = "/v2/transport?key=moved.example.org";
            response(302, &[("Location", to)], "moved")
        }
        b"moved.example.org" => list(&["smtp:[new.example.org]"]),
        b"abroad.example.org" => {
            let to = "http://localhost/transport?key=abroad.example.org";
            response(302, &[("Location", to)], "moved")
        }
        key if is_odd(key) => list(&["found"]),
        _ => unknown(),
    }
}

fn maps(request: &Request) -> Script {
    let query = request.query();
    if one(&query, "tenant") != Some(b"example") {
        return status(400);
    }
    match (one(&query, "name"), one(&query, "key")) {
        (Some(b"aliases"), Some(b"sales@example.org")) => {
            list(&["jane@example.org", "joe@example.org"])
        }
        (Some(b"aliases"), Some(b"nobody@example.org")) => list(&[]),
        (Some(b"aliases"), Some(b"caf\xe9@example.org" | b"")) => list(&["found"]),
        (Some(b"aliases"), Some(b"euro@example.org")) => list(&["€ 50%20/[a] b"]),
        (Some(b"aliases"), Some(b"numbers@example.org")) => backend::json("[1, 2.50]"),
        (Some(b"aliases"), Some(b"true@example.org")) => backend::json("[true]"),
        (Some(b"aliases"), Some(b"string@example.org")) => backend::json("\"no list\""),
        (Some(b"aliases"), Some(b"long@example.org")) => list(&[&"x".repeat(20_000)]),
        (Some(b"aliases"), Some(b"moved@example.org")) => {
            let to = "/maps?tenant=example&name=aliases&key=sales%40example.org";
            response(307, &[("Location", to)], "")
        }
        (Some(b"aliases"), Some(key)) if is_odd(key) => list(&["found"]),
        (Some(b"domains"), Some(b"example.org")) => list(&["example.org"]),
        (Some(b"a&key=b"), Some(b"k")) => list(&["the odd map"]),
        (Some(_), Some(_)) => unknown(),
        _ => status(400),
    }
}

fn policy(request: &Request) -> Script {
    match one(&request.form(), "recipient") {
        Some(b"reject@example.org") => plain("REJECT 5.1.1 no such user here"),
        Some(b"greylist@example.org") => plain("DEFER_IF_PERMIT 4.7.1 come back later"),
        Some(b"code@example.org") => plain("554 5.7.1 not for you\r\n"),
        Some(b"later@example.org") => plain("451 4.7.1 not yet"),
        Some(b"tag@example.org") => plain("  PREPEND X-Checked: grün\n"),
        Some(b"typed@example.org") => typed(200, "application/json", "REJECT not JSON at all"),
        Some(b"list@example.org") => plain("reject_unauth_destination, reject_unlisted_recipient"),
        Some(b"ok@example.org") => plain("OK"),
        _ => plain("DUNNO"),
    }
}

/// Answers that are failures to this bridge and to ours: the word and the reason of a lookup.
fn failures() -> Vec<(&'static str, Script, &'static str, &'static str)> {
    const STRANGE: &str = "backend answer not understood";
    let ok = backend::json;
    let body = |status| typed(status, "application/json", "[\"wrong\"]");
    vec![
        ("400", body(400), "PERM", "backend answered 400"),
        ("401", body(401), "TEMP", "backend answered 401"),
        ("422", body(422), "PERM", "backend answered 422"),
        ("429", body(429), "TEMP", "backend answered 429"),
        ("500", body(500), "TEMP", "backend answered 500"),
        ("503", body(503), "TEMP", "backend answered 503"),
        ("201", body(201), "TEMP", "backend answered 201"),
        ("204", status(204), "TEMP", "backend answered 204"),
        ("304", status(304), "TEMP", "backend answered 304"),
        ("an object", ok("{\"a\":1}"), "TEMP", STRANGE),
        ("a nested list", ok("[[\"a\"]]"), "TEMP", STRANGE),
        ("null in a list", ok("[null]"), "TEMP", STRANGE),
        ("nothing in a list", ok("[\"\"]"), "TEMP", STRANGE),
        ("half a list", ok("[\"a\""), "TEMP", STRANGE),
        ("an empty body", ok(""), "TEMP", STRANGE),
        (
            "a page of HTML",
            typed(200, "text/html", "<html>welcome</html>"),
            "TEMP",
            STRANGE,
        ),
        (
            "a value over every limit",
            list(&[&"x".repeat(100_000)]),
            "TEMP",
            "value cannot be sent",
        ),
        (
            "a broken connection",
            vec![Act::Close],
            "TEMP",
            "backend unreachable",
        ),
    ]
}

#[tokio::test]
async fn a_tcp_table_is_answered_as_before() {
    let mut place = Place::taken(Binary::TcpLookup, Ready::of(BRIDGE), api).await;
    let found = "200 smtp:[mx.example.org]:25";
    place.looks_up("", "example.org", found).await;
    place.looks_up("", "two.example.org", "200 r1,r2").await;
    let same = "200 +%20%25&%C2%A7%C3%9F";
    place.looks_up("", "+ %&§ß", same).await;
    place
        .looks_up("", "nothing.example.org", "500 not%20found")
        .await;
    place
        .looks_up("", "unknown.example.org", "500 not%20found")
        .await;
    for key in ODD {
        place.looks_up("", key, "200 found").await;
    }
    place.looks_up("", b"caf\xe9", "200 found").await;
    place.answers_itself("", "*", "500 not%20found").await;
    let request = place.requests().remove(0);
    assert_eq!(request.target, "/transport?key=example.org");
    assert_eq!(request.header("user-agent"), Some("Postfix REST Connector"));
    assert_eq!(request.body, b"");
    place.left().await;
}

#[tokio::test]
async fn a_question_in_pieces_is_one_question() {
    let mut place = Place::taken(Binary::TcpLookup, Ready::of(BRIDGE), api).await;
    for piece in [
        "g",
        "e",
        "t ",
        "two.example.org",
        "\nget nothing.example.org\nge",
    ] {
        place.peer().send(piece).await;
    }
    place.peer().expect("200 r1,r2\n500 not%20found\n").await;
    place.peer().send("t example.org\n").await;
    place.peer().expect("200 smtp:[mx.example.org]:25\n").await;
    assert_eq!(place.requests().len(), 3);
    place.left().await;
}

#[tokio::test]
async fn a_redirect_of_a_lookup_is_followed_on_the_same_origin_only() {
    let mut place = Place::taken(Binary::TcpLookup, Ready::of(BRIDGE), api).await;
    let found = "200 smtp:[new.example.org]";
    place.is_led_to("", "moved.example.org", found).await;
    let failed = "400 backend%20answered%20302";
    place.looks_up("", "abroad.example.org", failed).await;
    place.left().await;

    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let both = "OK jane@example.org,joe@example.org";
    place.is_led_to("aliases", "moved@example.org", both).await;
    place.left().await;
}

#[tokio::test]
async fn one_socketmap_table_serves_every_map() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let both = "OK jane@example.org,joe@example.org";
    place.looks_up("aliases", "sales@example.org", both).await;
    place
        .looks_up("domains", "example.org", "OK example.org")
        .await;
    place.looks_up("domains", "example.net", "NOTFOUND ").await;
    place
        .looks_up("aliases", "nobody@example.org", "NOTFOUND ")
        .await;
    place
        .looks_up("aliases", "else@example.org", "NOTFOUND ")
        .await;
    place.looks_up("a&key=b", "k", "OK the odd map").await;
    place.looks_up("nowhere", "k", "NOTFOUND ").await;
    let value = "OK € 50%20/[a] b";
    place.looks_up("aliases", "euro@example.org", value).await;
    place
        .looks_up("aliases", "numbers@example.org", "OK 1,2.50")
        .await;
    place.looks_up("aliases", "true@example.org", "OK 1").await;
    place
        .looks_up("aliases", "string@example.org", "OK no list")
        .await;
    let long = format!("OK {}", "x".repeat(20_000));
    place.looks_up("aliases", "long@example.org", &long).await;
    for key in ODD {
        place.looks_up("aliases", key, "OK found").await;
    }
    place
        .looks_up("aliases", b"caf\xe9@example.org", "OK found")
        .await;
    place.looks_up("aliases", "", "OK found").await;
    place.answers_itself("aliases", "<>", "NOTFOUND ").await;
    let requests = place.requests();
    let target = "/maps?tenant=example&name=aliases&key=sales%40example.org";
    assert_eq!(requests[0].target, target);
    let id = |number: usize| requests[number].header("x-request-id");
    assert_ne!(id(0), id(1));
    place.left().await;
}

#[tokio::test]
async fn every_action_of_the_policy_service_is_passed_on() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    for (recipient, action) in [
        ("accept@example.org", "DUNNO"),
        ("reject@example.org", "REJECT 5.1.1 no such user here"),
        (
            "greylist@example.org",
            "DEFER_IF_PERMIT 4.7.1 come back later",
        ),
        ("code@example.org", "554 5.7.1 not for you"),
        ("later@example.org", "451 4.7.1 not yet"),
        ("tag@example.org", "PREPEND X-Checked: grün"),
        ("typed@example.org", "REJECT not JSON at all"),
        (
            "list@example.org",
            "reject_unauth_destination, reject_unlisted_recipient",
        ),
        // Until the line for it is taken in.
        ("ok@example.org", LATER),
    ] {
        let attributes = format!("request=smtpd_access_policy\nrecipient={recipient}\n");
        place.decides(attributes, action).await;
    }
    place.left().await;
}

#[tokio::test]
async fn the_policy_service_may_permit_once_that_line_is_taken() {
    let ready = Ready::of(BRIDGE).with("permit-actions = true");
    let mut place = Place::taken(Binary::Policy, ready, api).await;
    place.decides("recipient=ok@example.org\n", "OK").await;
    place
        .decides("recipient=accept@example.org\n", "DUNNO")
        .await;
    place.left().await;
}

#[tokio::test]
async fn the_form_holds_every_attribute_in_its_order() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    let attributes: [(&[u8], &[u8]); 8] = [
        (b"request", b"smtpd_access_policy"),
        (b"helo_name", b"a&recipient=evil@example.org"),
        (b"sender", b"a+b%41=c d@example.org"),
        (b"recipient", b"reject@example.org"),
        (b"client_name", "grüße.example".as_bytes()),
        (b"ccert_subject", b"caf\xe9"),
        (b"sasl_username", b""),
        (b"client_name", b"again"),
    ];
    let mut lines = Vec::new();
    for (name, value) in attributes {
        lines.extend([name, b"=", value, b"\n"].concat());
    }
    place.decides(lines, "REJECT 5.1.1 no such user here").await;
    let seen = place.requests().remove(0);
    let expected = attributes.map(|(name, value)| (name.to_vec(), value.to_vec()));
    assert_eq!(seen.form(), expected);
    assert_eq!(seen.target, "/policy");
    place.left().await;
}

#[tokio::test]
async fn policy_questions_in_pieces_are_answered_one_by_one() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    place.peer().send("a=b\n").await;
    place.peer().send("\na").await;
    place.peer().expect("action=DUNNO\n\n").await;
    place.peer().send("=c\n\n").await;
    place.peer().expect("action=DUNNO\n\n").await;
    let bodies: Vec<_> = place.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies, [b"a=b", b"a=c"]);
    place.left().await;
}

#[tokio::test]
async fn no_failure_of_a_lookup_is_said_as_not_found() {
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
        let mut place = Place::taken(binary, Ready::of(BRIDGE), api).await;
        for (row, script, word, reason) in failures() {
            let expected_reply = failure(binary, word, reason);
            place.when("aliases", row, script, &expected_reply).await;
        }
        place.left().await;
    }
}

#[tokio::test]
async fn an_api_that_keeps_silent_is_said_as_a_timeout() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let expected_reply = "TIMEOUT backend timed out";
    place
        .when("aliases", "silence", vec![Act::Hang], expected_reply)
        .await;
    place.left().await;
}

#[tokio::test]
async fn every_failure_of_the_policy_service_is_451_or_554() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    let answer = |status| typed(status, "text/plain", "DUNNO");
    for (row, script, action) in [
        ("400", answer(400), REFUSED),
        ("404", answer(404), REFUSED),
        ("422", answer(422), REFUSED),
        // These three do not mean that the mail is at fault.
        ("401", answer(401), LATER),
        ("403", answer(403), LATER),
        ("429", answer(429), LATER),
        ("500", answer(500), LATER),
        ("503", answer(503), LATER),
        ("201", answer(201), LATER),
        ("204", status(204), LATER),
        ("302", response(302, &[("Location", "/login")], ""), LATER),
        ("an empty body", plain(""), LATER),
        ("blanks", plain(" \r\n"), LATER),
        ("several lines", plain("DUNNO\naction=OK"), LATER),
        ("a bare code", plain("554"), LATER),
        ("no action at all", plain("accept"), LATER),
        ("HTML", typed(200, "text/html", "<html>hello</html>"), LATER),
        ("called HTML", typed(200, "text/html", "DUNNO"), "DUNNO"),
        ("a broken connection", vec![Act::Close], LATER),
        ("silence", vec![Act::Hang], LATER),
    ] {
        place.when("", row, script, action).await;
    }
    place.left().await;
}

#[tokio::test]
async fn every_4xx_rejects_once_that_line_is_taken() {
    let ready = Ready::of(BRIDGE).with("status = { \"4xx\" = \"permanent\" }");
    let mut place = Place::taken(Binary::Policy, ready, api).await;
    for number in [400, 401, 403, 404, 429] {
        let row = number.to_string();
        place.when("", &row, status(number), REFUSED).await;
    }
    place.when("", "204", status(204), LATER).await;
    place.when("", "302", status(302), LATER).await;
    place.when("", "503", status(503), LATER).await;
    place.left().await;
}

#[tokio::test]
async fn a_wrong_token_makes_mail_wait() {
    let lookups = [
        (Binary::TcpLookup, "400 backend%20answered%20401"),
        (Binary::Socketmap, "TEMP backend answered 401"),
    ];
    for (binary, expected_reply) in lookups {
        let mut place = Place::taken_with("another", binary, Ready::of(BRIDGE), api).await;
        place
            .looks_up("aliases", "sales@example.org", expected_reply)
            .await;
        place.left().await;
    }
    let mut place = Place::taken_with("another", Binary::Policy, Ready::of(BRIDGE), api).await;
    place.decides("recipient=accept@example.org\n", LATER).await;
    place.left().await;
}
