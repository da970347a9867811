//! In place of podop as Mailu runs it: the key in the path, JSON strings, 404 for what there is
//! not, no token.

use serde_json::json;

use super::{
    page::Ready,
    place::{ODD, Place, failure, is_odd, segment},
};
use crate::support::{
    backend::{self, Act, Request, Script, response, status, typed},
    program::Binary,
};

const BRIDGE: &str = "podop";

/// The internal API of an administration such as Mailu's.
fn api(request: &Request) -> Script {
    if request.method != "GET" || !request.body.is_empty() {
        return status(405);
    }
    for table in TABLES {
        if let Some(key) = segment(request, &format!("/internal/postfix/{}/", table.0)) {
            return table.1(&key);
        }
    }
    status(500)
}

type Lookup = fn(&[u8]) -> Script;

const TABLES: [(&str, Lookup); 9] = [
    ("transport", transport),
    ("alias", alias),
    ("dane", dane),
    ("domain", domain),
    ("mailbox", mailbox),
    ("recipient/map", recipient_map),
    ("sender/map", sender_map),
    ("sender/login", sender_login),
    ("sender/rate", sender_rate),
];

fn string(value: &str) -> Script {
    backend::json(json!(value).to_string())
}

fn unknown() -> Script {
    typed(
        404,
        "text/html",
        "<!doctype html><title>404 Not Found</title>",
    )
}

fn transport(key: &[u8]) -> Script {
    match key {
        b"relayed.example.org" => string("smtp:[10.0.0.5]:25"),
        b"broken.example.org" => status(400),
        _ => unknown(),
    }
}

fn alias(key: &[u8]) -> Script {
    match key {
        b"sales@example.org" => string("jane@example.org,joe@example.org"),
        b"\xc3\xbc@example.org" => string("umlaut@example.org"),
        b"moved@example.org" => {
            let to = "/internal/postfix/alias/sales%40example.org";
            response(308, &[("Location", to)], "")
        }
        b"caf\xe9@example.org" => string("found"),
        key if is_odd(key) => string("found"),
        _ => unknown(),
    }
}

fn dane(key: &[u8]) -> Script {
    match key {
        b"signed.example.org" => string("dane-only"),
        _ => unknown(),
    }
}

fn domain(key: &[u8]) -> Script {
    match key {
        b"example.org" => string("example.org"),
        _ => unknown(),
    }
}

fn mailbox(key: &[u8]) -> Script {
    match key {
        b"jane@example.org" => string("jane@example.org"),
        _ => unknown(),
    }
}

/// Takes back what `sender_map` has made of a sender.
fn recipient_map(key: &[u8]) -> Script {
    match key {
        b"SRS0=ABCD=XY=example.net=joe@example.org" => string("joe@example.net"),
        _ => unknown(),
    }
}

fn sender_map(key: &[u8]) -> Script {
    match key {
        b"joe@example.net" => string("SRS0=ABCD=XY=example.net=joe@example.org"),
        _ => unknown(),
    }
}

fn sender_login(key: &[u8]) -> Script {
    match key {
        b"jane@example.org" => string("jane@example.org"),
        _ => unknown(),
    }
}

fn sender_rate(key: &[u8]) -> Script {
    match key {
        b"busy@example.org" => string("450 4.2.1 You are sending too many emails too fast."),
        b"lost@example.org" => vec![Act::Close],
        _ => unknown(),
    }
}

#[tokio::test]
async fn the_maps_are_answered_as_before() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let both = "OK jane@example.org,joe@example.org";
    let rewritten = "SRS0=ABCD=XY=example.net=joe@example.org";
    let rate = "OK 450 4.2.1 You are sending too many emails too fast.";
    for (map, key, expected_reply) in [
        ("alias", "sales@example.org", both),
        ("alias", "ü@example.org", "OK umlaut@example.org"),
        ("alias", "else@example.org", "NOTFOUND "),
        ("dane", "signed.example.org", "OK dane-only"),
        ("dane", ".example.org", "NOTFOUND "),
        ("dane", "[mx.example.org]:25", "NOTFOUND "),
        ("domain", "example.org", "OK example.org"),
        ("domain", "example.net", "NOTFOUND "),
        ("domain", "[192.0.2.1]", "NOTFOUND "),
        ("mailbox", "jane@example.org", "OK jane@example.org"),
        ("mailbox", "sales@example.org", "NOTFOUND "),
        ("recipientmap", rewritten, "OK joe@example.net"),
        ("recipientmap", "jane@example.org", "NOTFOUND "),
        ("sendermap", "joe@example.net", &format!("OK {rewritten}")),
        ("sendermap", "jane@example.org", "NOTFOUND "),
        ("transport", "relayed.example.org", "OK smtp:[10.0.0.5]:25"),
        ("transport", "example.org", "NOTFOUND "),
        (
            "transport",
            "broken.example.org",
            "PERM backend answered 400",
        ),
        ("senderlogin", "jane@example.org", "OK jane@example.org"),
        // An access table: what is found is an action.
        ("senderrate", "busy@example.org", rate),
        ("senderrate", "idle@example.org", "NOTFOUND "),
        // The API counts every call, so there is no second one.
        ("senderrate", "lost@example.org", "TEMP backend unreachable"),
    ] {
        place.looks_up(map, key, expected_reply).await;
    }
    let targets: Vec<_> = place.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(targets[0], "/internal/postfix/alias/sales%40example.org");
    assert_eq!(targets[1], "/internal/postfix/alias/%C3%BC%40example.org");
    place.left().await;
}

#[tokio::test]
async fn a_key_stays_within_its_segment() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    for key in ODD {
        place.looks_up("alias", key, "OK found").await;
    }
    place
        .looks_up("alias", b"caf\xe9@example.org", "OK found")
        .await;
    for key in ["", ".", "..", "*"] {
        place.answers_itself("alias", key, "NOTFOUND ").await;
    }
    place.left().await;
}

#[tokio::test]
async fn a_map_that_is_not_there_is_a_failure() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let expected_reply = "PERM unknown map";
    place
        .answers_itself("aliases", "sales@example.org", expected_reply)
        .await;
    place
        .answers_itself("../alias", "sales@example.org", expected_reply)
        .await;
    place.left().await;
}

#[tokio::test]
async fn a_redirect_is_followed() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let both = "OK jane@example.org,joe@example.org";
    place.is_led_to("alias", "moved@example.org", both).await;
    place.left().await;
}

#[tokio::test]
async fn two_questions_in_one_piece_are_both_answered() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let two = "18:domain example.org,18:domain example.net,";
    place.peer().send(two).await;
    place.peer().expect("14:OK example.org,9:NOTFOUND ,").await;
    let long = format!("alias {}@example.org", "x".repeat(2000));
    let framed = format!("{}:{long},", long.len());
    place.peer().send(framed).await;
    place.peer().expect("9:NOTFOUND ,").await;
    place.peer().send("7:nothing,").await;
    place.peer().expect("27:PERM request not understood,").await;
    place.left().await;
}

#[tokio::test]
async fn what_is_no_json_string_is_never_said_as_python_would_write_it() {
    const STRANGE: &str = "TEMP backend answer not understood";
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    for (row, body, expected_reply) in [
        ("a list", "[\"r1\",\"r2\"]", "OK r1,r2"),
        ("true", "true", "OK 1"),
        ("a number", "25", "OK 25"),
        ("null", "null", "NOTFOUND "),
        ("an empty list", "[]", "NOTFOUND "),
        ("an empty string", "\"\"", "NOTFOUND "),
        ("an object", "{\"a\":\"b\"}", STRANGE),
        ("a bare word", "single", STRANGE),
        ("nothing", "", STRANGE),
    ] {
        place
            .when("alias", row, backend::json(body), expected_reply)
            .await;
    }
    place.left().await;
}

#[tokio::test]
async fn every_failure_makes_mail_wait() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    for (row, script, word, reason) in [
        ("401", status(401), "TEMP", "backend answered 401"),
        ("500", status(500), "TEMP", "backend answered 500"),
        ("502", status(502), "TEMP", "backend answered 502"),
        (
            "500 with a value",
            typed(500, "application/json", "\"jane@example.org\""),
            "TEMP",
            "backend answered 500",
        ),
        ("201", status(201), "TEMP", "backend answered 201"),
        ("204", status(204), "TEMP", "backend answered 204"),
        (
            "HTML",
            typed(200, "text/html", "<html>starting</html>"),
            "TEMP",
            "backend answer not understood",
        ),
        (
            "a broken connection",
            vec![Act::Close],
            "TEMP",
            "backend unreachable",
        ),
    ] {
        let expected_reply = failure(Binary::Socketmap, word, reason);
        place.when("alias", row, script, &expected_reply).await;
    }
    place.left().await;
}
