//! In place of postfix-rest-api-connector: the same questions as postfix-rest-connector's, every
//! 2xx an answer, and actions with `action=` before them.

use serde_json::json;

use super::{
    page::Ready,
    place::{ODD, Place, TOKEN, failure, is_odd, one, path},
};
use crate::support::{
    backend::{self, Act, Request, Script, plain, response, status, typed},
    program::Binary,
    replies::LATER,
};

const BRIDGE: &str = "postfix-rest-api-connector";

/// What is said when the policy service refuses the question.
const REFUSED: &str = "DEFER_IF_PERMIT 4.3.5 Policy service configuration problem";

/// The API, for all three programs.
fn api(request: &Request) -> Script {
    if request.header("x-auth-token") != Some(TOKEN) {
        return typed(401, "application/json", "{\"error\":\"unauthorized\"}");
    }
    if request.header("user-agent") != Some("Postfix-API") {
        return status(400);
    }
    match (request.method.as_str(), path(request)) {
        ("GET", "/transport") => lookup(request, None),
        ("GET", "/maps") => lookup(request, Some(())),
        ("POST", "/policy") => policy(request),
        ("POST", "/policy/") => plain("action=REJECT from the other place"),
        _ => status(405),
    }
}

/// A lookup of a route, or of a map with a name.
fn lookup(request: &Request, named: Option<()>) -> Script {
    let query = request.query();
    let name = one(&query, "name");
    let (Some(key), true) = (one(&query, "key"), named.is_some() == name.is_some()) else {
        return status(400);
    };
    let list = |values: &[&str]| json!(values).to_string();
    match (name, key) {
        (None, b"example.org") => backend::json(list(&["smtp:[mx.example.org]:25"])),
        (Some(b"aliases"), b"sales@example.org") => {
            backend::json(list(&["jane@example.org", "joe@example.org"]))
        }
        (Some(b"routes"), b"example.org") => backend::json(list(&["smtp:[mx.example.org]:25"])),
        // Its content type is not looked at, nor which 2xx it is.
        (_, b"created@example.org") => typed(201, "text/html", list(&["made"])),
        (_, b"partial@example.org") => typed(206, "text/plain", list(&["part"])),
        (_, b"nothing@example.org") => backend::json("[]"),
        (_, b"null@example.org") => backend::json("null"),
        (_, b"string@example.org") => backend::json("\"no list\""),
        (_, b"true@example.org") => backend::json("true"),
        (_, b"caf\xe9@example.org" | b"") => backend::json(list(&["found"])),
        (_, key) if is_odd(key) => backend::json(list(&["found"])),
        _ => typed(404, "application/json", "{\"error\":\"not found\"}"),
    }
}

fn policy(request: &Request) -> Script {
    match one(&request.form(), "recipient") {
        Some(b"reject@example.org") => plain("action=REJECT 5.7.1 not here"),
        Some(b"defer@example.org") => plain("action=DEFER 4.7.1 in an hour\n\n"),
        Some(b"code@example.org") => typed(202, "text/plain", "action=550 5.1.1 nobody"),
        Some(b"bare@example.org") => plain("HOLD for a look"),
        Some(b"typed@example.org") => typed(200, "application/json", "action=DUNNO"),
        Some(b"ok@example.org") => plain("action=OK"),
        Some(b"moved@example.org") => response(307, &[("Location", "/policy/")], ""),
        _ => plain("action=DUNNO"),
    }
}

#[tokio::test]
async fn a_tcp_table_is_answered_as_before() {
    let mut place = Place::taken(Binary::TcpLookup, Ready::of(BRIDGE), api).await;
    let found = "200 smtp:[mx.example.org]:25";
    place.looks_up("", "example.org", found).await;
    place.looks_up("", "created@example.org", "200 made").await;
    place.looks_up("", "partial@example.org", "200 part").await;
    for key in [
        "nothing@example.org",
        "null@example.org",
        "else@example.org",
    ] {
        place.looks_up("", key, "500 not%20found").await;
    }
    // The key's quoting is Postfix's own, so it is undone before the API is asked.
    for key in ODD {
        place.looks_up("", key, "200 found").await;
    }
    place
        .looks_up("", b"caf\xe9@example.org", "200 found")
        .await;
    place.answers_itself("", "*", "500 not%20found").await;
    assert_eq!(place.requests()[0].target, "/transport?key=example.org");
    place.left().await;
}

#[tokio::test]
async fn a_socketmap_value_is_not_quoted() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let both = "OK jane@example.org,joe@example.org";
    place.looks_up("aliases", "sales@example.org", both).await;
    let route = "OK smtp:[mx.example.org]:25";
    place.looks_up("routes", "example.org", route).await;
    place
        .looks_up("aliases", "created@example.org", "OK made")
        .await;
    place
        .looks_up("aliases", "nothing@example.org", "NOTFOUND ")
        .await;
    place
        .looks_up("aliases", "null@example.org", "NOTFOUND ")
        .await;
    place
        .looks_up("aliases", "else@example.org", "NOTFOUND ")
        .await;
    place
        .looks_up("aliases", "string@example.org", "OK no list")
        .await;
    place.looks_up("aliases", "true@example.org", "OK 1").await;
    for key in ODD {
        place.looks_up("aliases", key, "OK found").await;
    }
    place.looks_up("aliases", "", "OK found").await;
    let target = "/maps?name=aliases&key=sales%40example.org";
    assert_eq!(place.requests()[0].target, target);
    place.left().await;
}

#[tokio::test]
async fn two_questions_at_once_get_two_answers() {
    let mut place = Place::taken(Binary::TcpLookup, Ready::of(BRIDGE), api).await;
    place
        .peer()
        .send("get example.org\nget else@example.org\n")
        .await;
    let both = "200 smtp:[mx.example.org]:25\n500 not%20found\n";
    place.peer().expect(both).await;
    place.left().await;

    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    let two = "recipient=a@example.org\n\nrecipient=reject@example.org\n\n";
    place.peer().send(two).await;
    let both = "action=DUNNO\n\naction=REJECT 5.7.1 not here\n\n";
    place.peer().expect(both).await;
    place.left().await;
}

#[tokio::test]
async fn every_action_of_the_policy_service_is_passed_on() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    for (recipient, action) in [
        ("accept@example.org", "DUNNO"),
        ("reject@example.org", "REJECT 5.7.1 not here"),
        ("defer@example.org", "DEFER 4.7.1 in an hour"),
        ("code@example.org", "550 5.1.1 nobody"),
        ("typed@example.org", "DUNNO"),
        // As that bridge's own README has it, although it refused this.
        ("bare@example.org", "HOLD for a look"),
        // Until the line for it is taken in.
        ("ok@example.org", LATER),
    ] {
        place
            .decides(format!("recipient={recipient}\n"), action)
            .await;
    }
    place.left().await;

    let ready = Ready::of(BRIDGE).with("permit-actions = true");
    let mut place = Place::taken(Binary::Policy, ready, api).await;
    place.decides("recipient=ok@example.org\n", "OK").await;
    place.left().await;
}

#[tokio::test]
async fn no_attribute_can_add_another_one() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    let lines = "helo_name=a&recipient=accept@example.org\nsender=a+b%41@example.org\n\
                 recipient=reject@example.org\n";
    place.decides(lines, "REJECT 5.7.1 not here").await;
    let form = place.requests()[0].form();
    let helo = Some(&b"a&recipient=accept@example.org"[..]);
    assert_eq!(one(&form, "helo_name"), helo);
    assert_eq!(one(&form, "sender"), Some(&b"a+b%41@example.org"[..]));
    assert_eq!(form.len(), 3);
    place.left().await;
}

#[tokio::test]
async fn no_failure_of_a_lookup_is_said_as_not_found() {
    const STRANGE: &str = "backend answer not understood";
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
        let mut place = Place::taken(binary, Ready::of(BRIDGE), api).await;
        let too_long = json!(["x".repeat(100_000)]).to_string();
        let ok = |body: &str| backend::json(body);
        for (row, script, word, reason) in [
            ("204", status(204), "TEMP", "backend answered 204"),
            ("302", status(302), "TEMP", "backend answered 302"),
            ("400", status(400), "PERM", "backend answered 400"),
            ("401", status(401), "TEMP", "backend answered 401"),
            ("429", status(429), "TEMP", "backend answered 429"),
            ("500", status(500), "TEMP", "backend answered 500"),
            ("503", status(503), "TEMP", "backend answered 503"),
            ("not JSON", ok("Internal error"), "TEMP", STRANGE),
            ("an object", ok("{\"error\":\"down\"}"), "TEMP", STRANGE),
            ("null in a list", ok("[\"a\",null]"), "TEMP", STRANGE),
            ("nothing in a list", ok("[\"\"]"), "TEMP", STRANGE),
            ("a nested list", ok("[[\"a\"]]"), "TEMP", STRANGE),
            ("an empty 200", ok(""), "TEMP", STRANGE),
            (
                "a value over every limit",
                ok(&too_long),
                "TEMP",
                "value cannot be sent",
            ),
            (
                "a broken connection",
                vec![Act::Close],
                "TEMP",
                "backend unreachable",
            ),
        ] {
            let expected_reply = failure(binary, word, reason);
            place.when("aliases", row, script, &expected_reply).await;
        }
        place.left().await;
    }
}

#[tokio::test]
async fn every_failure_of_the_policy_service_defers() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    let answer = |status| typed(status, "text/plain", "action=DUNNO");
    for (row, script, action) in [
        ("400", answer(400), REFUSED),
        ("404", answer(404), REFUSED),
        ("401", answer(401), LATER),
        ("429", answer(429), LATER),
        ("500", answer(500), LATER),
        ("204", status(204), LATER),
        ("302", status(302), LATER),
        ("an empty body", plain(""), LATER),
        ("an empty action", plain("action="), LATER),
        ("action= twice", plain("action=action=DUNNO"), LATER),
        ("two actions", plain("action=DUNNO\naction=OK"), LATER),
        ("an object", backend::json("{\"action\":\"DUNNO\"}"), LATER),
        ("no action at all", plain("accept"), LATER),
        (
            "called HTML",
            typed(200, "text/html", "action=DUNNO"),
            "DUNNO",
        ),
        ("a broken connection", vec![Act::Close], LATER),
    ] {
        place.when("", row, script, action).await;
    }
    place.left().await;
}

#[tokio::test]
async fn a_redirect_of_a_policy_question_is_followed_with_its_form() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    let question = "action=REJECT from the other place\n\n";
    place.peer().send("recipient=moved@example.org\n\n").await;
    place.peer().expect(question).await;
    let requests = place.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].body, b"recipient=moved%40example.org");
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
