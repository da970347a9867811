//! In place of userli-postfix-adapter: the lookups of userli's API, with a bearer token, the
//! address in the path, and lists or booleans as answers.

use serde_json::json;

use super::{
    page::Ready,
    place::{Place, TOKEN, failure, segment},
};
use crate::support::{
    backend::{self, Act, Request, Script, response, status, typed},
    program::Binary,
};

const BRIDGE: &str = "userli-postfix-adapter";

const MAPS: [&str; 4] = ["alias", "domain", "mailbox", "senders"];

/// userli's lookup API: it compares byte for byte, and knows no extensions.
fn api(request: &Request) -> Script {
    let bearer = format!("Bearer {TOKEN}");
    if request.header("authorization") != Some(&bearer) {
        return typed(401, "application/json", "{\"error\":\"Unauthorized\"}");
    }
    if request.method != "GET" {
        return status(405);
    }
    for map in MAPS {
        if let Some(key) = segment(request, &format!("/api/postfix/{map}/")) {
            let body = match map {
                "alias" => alias(&key),
                "domain" => json!(matches!(key.as_slice(), b"example.org" | b"x?y=1&z")),
                "mailbox" => json!(key == b"jane.doe@example.org"),
                _ => senders(&key),
            };
            return match key.as_slice() {
                b"moved@example.org" => {
                    let to = "/api/postfix/alias/sales%40example.org";
                    response(301, &[("Location", to)], "")
                }
                _ => backend::json(body.to_string()),
            };
        }
    }
    // The router of the framework, which knows no slash within a parameter.
    typed(
        404,
        "text/html",
        "<!doctype html><html>No route found</html>",
    )
}

fn alias(key: &[u8]) -> serde_json::Value {
    match key {
        b"sales@example.org" => json!(["jane.doe@example.org", "joe@example.org"]),
        _ => json!([]),
    }
}

fn senders(key: &[u8]) -> serde_json::Value {
    match key {
        b"sales@example.org" => json!(["jane.doe@example.org", "joe@example.org"]),
        b"jane.doe@example.org" => json!(["jane.doe@example.org"]),
        _ => json!([]),
    }
}

#[tokio::test]
async fn the_four_maps_are_answered_as_before() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let both = "OK jane.doe@example.org,joe@example.org";
    for (map, key, expected_reply) in [
        ("alias", "sales@example.org", both),
        ("alias", "else@example.org", "NOTFOUND "),
        ("domain", "example.org", "OK 1"),
        ("domain", "example.net", "NOTFOUND "),
        ("mailbox", "jane.doe@example.org", "OK 1"),
        ("mailbox", "else@example.org", "NOTFOUND "),
        ("senders", "sales@example.org", both),
        ("senders", "jane.doe@example.org", "OK jane.doe@example.org"),
        ("senders", "else@example.org", "NOTFOUND "),
    ] {
        place.looks_up(map, key, expected_reply).await;
    }
    let request = place.requests().remove(0);
    assert_eq!(request.target, "/api/postfix/alias/sales%40example.org");
    assert_eq!(request.header("accept"), Some("application/json"));
    place.left().await;
}

#[tokio::test]
async fn addresses_are_asked_for_in_lower_case_and_without_extension() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let both = "OK jane.doe@example.org,joe@example.org";
    place.looks_up("alias", "Sales@Example.ORG", both).await;
    place
        .looks_up("alias", "sales+Offers+x@example.org", both)
        .await;
    place.looks_up("senders", "SALES+@example.org", both).await;
    place
        .looks_up("mailbox", "Jane.Doe+x@example.org", "OK 1")
        .await;
    place.looks_up("domain", "EXAMPLE.org", "OK 1").await;
    let asked = place.requests();
    assert_eq!(asked[1].target, "/api/postfix/alias/sales%40example.org");
    place.left().await;
}

#[tokio::test]
async fn what_is_no_address_of_userli_is_not_asked_for() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    for key in [
        "",
        "+x@example.org",
        "@example.org",
        "sales",
        "sales@",
        "a b@example.org",
        "\"john doe\"@example.org",
        "a=b;c,d@example.org",
        "SRS0=xx=yy=example.net=sales@example.org",
        "50%@example.org",
        "grüße@example.org",
        "a/b@example.org",
        "ok@x/../../alias/z",
        "../../admin",
        "a@b@example.org",
        "<>",
    ] {
        for map in ["alias", "mailbox", "senders"] {
            place.answers_itself(map, key, "NOTFOUND ").await;
        }
    }
    place
        .answers_itself("alias", b"caf\xe9@example.org", "NOTFOUND ")
        .await;
    for key in ["", ".", "..", "../auth", "a/b", "sales@example.org", "*"] {
        place.answers_itself("domain", key, "NOTFOUND ").await;
    }
    place.left().await;
}

#[tokio::test]
async fn a_domain_stays_within_its_segment() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    place.looks_up("domain", "x?y=1&z", "OK 1").await;
    place.looks_up("domain", "%zz", "NOTFOUND ").await;
    place.looks_up("domain", "grüße.example", "NOTFOUND ").await;
    let targets: Vec<_> = place.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(targets[0], "/api/postfix/domain/x%3Fy%3D1%26z");
    assert_eq!(targets[1], "/api/postfix/domain/%25zz");
    place.left().await;
}

#[tokio::test]
async fn another_map_is_a_failure_and_the_connection_stays() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    place
        .answers_itself("unknownmap", "somekey", "PERM unknown map")
        .await;
    place.peer().send("14:invalidrequest,").await;
    place.peer().expect("27:PERM request not understood,").await;
    place.looks_up("domain", "example.org", "OK 1").await;
    place.left().await;
}

#[tokio::test]
async fn a_redirect_is_followed_with_the_token() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let both = "OK jane.doe@example.org,joe@example.org";
    place.is_led_to("alias", "moved@example.org", both).await;
    place.left().await;
}

#[tokio::test]
async fn a_status_is_looked_at_before_its_body() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let body = |status, body: &str| typed(status, "application/json", body);
    let strange = "backend answer not understood";
    for (row, script, word, reason) in [
        (
            "500 true",
            body(500, "true"),
            "TEMP",
            "backend answered 500",
        ),
        ("500 []", body(500, "[]"), "TEMP", "backend answered 500"),
        (
            "401",
            body(401, "{\"error\":\"x\"}"),
            "TEMP",
            "backend answered 401",
        ),
        ("403", body(403, "[]"), "TEMP", "backend answered 403"),
        // No lookup of userli's says this: the base URL is wrong.
        ("404", body(404, "[]"), "TEMP", "backend answered 404"),
        ("204", status(204), "TEMP", "backend answered 204"),
        ("an object", body(200, "{}"), "TEMP", strange),
        (
            "HTML",
            typed(200, "text/html", "<html>login</html>"),
            "TEMP",
            strange,
        ),
        ("nothing", body(200, ""), "TEMP", strange),
        (
            "a broken connection",
            vec![Act::Close],
            "TEMP",
            "backend unreachable",
        ),
    ] {
        for map in MAPS {
            let expected_reply = failure(Binary::Socketmap, word, reason);
            let key = if map == "domain" {
                "example.org"
            } else {
                "user@example.org"
            };
            place
                .when_asked(map, key, row, script.clone(), &expected_reply)
                .await;
        }
    }
    place.left().await;
}

#[tokio::test]
async fn a_wrong_token_makes_mail_wait() {
    let socketmap = Binary::Socketmap;
    let mut place = Place::taken_with("another", socketmap, Ready::of(BRIDGE), api).await;
    let expected_reply = "TEMP backend answered 401";
    place
        .looks_up("alias", "sales@example.org", expected_reply)
        .await;
    place
        .looks_up("domain", "example.org", expected_reply)
        .await;
    place.left().await;
}

/// userli's API of numbers, as its documentation has it.
fn quotas(request: &Request) -> Script {
    let bearer = format!("Bearer {TOKEN}");
    if request.header("authorization") != Some(&bearer) {
        return typed(401, "application/json", "{\"error\":\"Unauthorized\"}");
    }
    let Some(account) = segment(request, "/api/postfix/smtp_quota/") else {
        return typed(404, "text/html", "<html>No route found</html>");
    };
    let (per_hour, per_day) = match account.as_slice() {
        b"hour@example.org" => (2, 1000),
        b"day@example.org" => (0, 3),
        b"free@example.org" => (0, 0),
        b"failing@example.org" => return typed(500, "application/json", "{\"per_hour\":0}"),
        _ => return typed(404, "application/json", "{\"error\":\"User not found\"}"),
    };
    backend::json(json!({ "per_hour": per_hour, "per_day": per_day }).to_string())
}

/// A message, as smtpd_end_of_data_restrictions asks about it.
fn message(state: &str, number: usize, login: &str, sender: &str) -> String {
    let attributes = [
        ("request", "smtpd_access_policy"),
        ("protocol_state", state),
        ("instance", &format!("{number:x}.6569a1b2.3c4d5.0")),
        ("sasl_username", login),
        ("sender", sender),
        ("recipient_count", "100"),
        ("size", "1000000"),
    ];
    let lines = attributes.map(|(name, value)| format!("{name}={value}\n"));
    lines.concat()
}

const EXCEEDED: &str = "REJECT Rate limit exceeded, please try again later";

#[tokio::test]
async fn messages_are_counted_for_each_account_with_the_numbers_of_the_api() {
    let ready = Ready::numbered(BRIDGE, 1);
    let mut place = Place::taken(Binary::Policy, ready, quotas).await;
    let mut number = 0;
    for (login, sender, passes) in [
        ("hour@example.org", "hour@example.org", 2),
        ("day@example.org", "alias@example.org", 3),
        // Without a login the sender is the account, and 0 is no limit.
        ("", "free@example.org", 60),
        // While userli fails, and for whom it does not know, the fallback holds.
        ("else@example.org", "", 50),
        ("failing@example.org", "", 50),
    ] {
        for at in 0..passes + 2 {
            number += 1;
            let is_free = at < passes || sender == "free@example.org";
            let action = if is_free { "DUNNO" } else { EXCEEDED };
            let asked = message("END-OF-MESSAGE", number, login, sender);
            place.decides(asked, action).await;
        }
    }
    let hour = "HOUR@Example.org";
    place
        .decides(message("DATA", 1000, hour, ""), EXCEEDED)
        .await;
    // Nobody sends.
    let bounce = message("END-OF-MESSAGE", 1001, "", "");
    place.decides_itself(bounce, "DUNNO").await;
    let first = &place.requests()[0];
    assert_eq!((first.method.as_str(), first.body.len()), ("GET", 0));
    place.left().await;
}

#[tokio::test]
async fn a_wrong_token_leaves_the_fallback() {
    let ready = Ready::numbered(BRIDGE, 1);
    let mut place = Place::taken_with("another", Binary::Policy, ready, quotas).await;
    for number in 0..51 {
        let action = if number < 50 { "DUNNO" } else { EXCEEDED };
        let asked = message("END-OF-MESSAGE", number, "hour@example.org", "");
        place.decides(asked, action).await;
    }
    place.left().await;
}
