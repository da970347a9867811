//! In place of pfxhttp: a `POST` with a JSON document, the value and the error somewhere in the
//! answer, one status that is right, headers of one's own, OpenID Connect and gzip.

use std::io::{Read as _, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::{Value, json};

use super::{
    page::Ready,
    place::{ODD, Place, TOKEN, is_odd, one},
};
use crate::support::{
    backend::{self, Act, Request, Script, response, status, typed},
    program::Binary,
};

const BRIDGE: &str = "pfxhttp";

/// What the page says for every failure of the policy service.
const DEFER: &str = "DEFER Temporary server problem";

/// The API, for both programs.
fn api(request: &Request) -> Script {
    let problem = |status, text| {
        typed(
            status,
            "application/json",
            json!({"error": text}).to_string(),
        )
    };
    let has_headers =
        request.header("x-api-key") == Some(TOKEN) && request.header("x-tenant") == Some("example");
    if !has_headers {
        return problem(401, "unauthorized");
    }
    let is_json = request.header("content-type") == Some("application/json");
    let (true, Ok(body)) = (is_json, serde_json::from_slice::<Value>(&request.body)) else {
        return problem(400, "no JSON");
    };
    match (request.method.as_str(), request.target.as_str()) {
        ("POST", "/api/lookup") => lookup(&body),
        ("POST", "/api/domains") => domains(&body),
        ("POST", "/api/policy") => policy(request, &body),
        _ => problem(404, "no such route"),
    }
}

fn lookup(body: &Value) -> Script {
    let Some(key) = body["address"].as_str() else {
        return status(422);
    };
    // Nothing that Postfix sends may add a member.
    if *body != json!({"map": "aliases", "address": key}) {
        return status(422);
    }
    let found = |value: Value| json!({"error": "none", "data": {"destinations": value}});
    backend::json(
        match key {
            "sales@example.org" => found(json!(["jane@example.org", "joe@example.org"])),
            "one@example.org" => found(json!("jane@example.org")),
            "decoy@example.org" => json!({
                "destinations": "decoy",
                "data": {"inner": {"destinations": "decoy"}, "destinations": "right"},
            }),
            "five@example.org" => found(json!(5)),
            "half@example.org" => found(json!(1.5)),
            "true@example.org" => found(json!(true)),
            "false@example.org" => found(json!(false)),
            "null@example.org" => found(json!(null)),
            "empty@example.org" => found(json!("")),
            "none@example.org" => found(json!([])),
            "object@example.org" => found(json!({"a": "b"})),
            "nested@example.org" => found(json!([["a"], "b"])),
            "down@example.org" => json!({
                "error": "directory is down",
                "data": {"destinations": "jane@example.org"},
            }),
            "nowhere@example.org" => json!({"error": "none"}),
            "bare@example.org" => json!({}),
            "" => found(json!("the empty key")),
            key if is_odd(key.as_bytes()) => found(json!("found")),
            _ => json!({"error": "none", "data": {}}),
        }
        .to_string(),
    )
}

fn domains(body: &Value) -> Script {
    let accepted = |value: Value| typed(202, "application/json", value.to_string());
    match body["domain"].as_str() {
        Some("example.org") => accepted(json!({"transport": "lmtp:[10.0.0.1]:24"})),
        Some("ok.example.org") => backend::json("{\"transport\":\"lmtp:[10.0.0.2]:24\"}"),
        Some(_) => accepted(json!({})),
        None => status(422),
    }
}

fn policy(request: &Request, body: &Value) -> Script {
    let basic = format!("Basic {}", BASE64.encode(format!("postfix:{TOKEN}")));
    if request.header("authorization") != Some(&basic) {
        return status(401);
    }
    if body["service"] != "smtpd" || body["request"]["request"] != "smtpd_access_policy" {
        return status(422);
    }
    let action = |value: Value| json!({"error": "none", "result": {"action": value}});
    let answer = match body["request"]["recipient"].as_str() {
        Some("reject@example.org") => action(json!("REJECT 5.7.1 not wanted")),
        Some("defer@example.org") => action(json!(" DEFER_IF_PERMIT 4.7.1 later ")),
        Some("code@example.org") => action(json!("550 5.1.1 grüße")),
        Some("tag@example.org") => action(json!("PREPEND X-Checked: yes")),
        Some("ok@example.org") => action(json!("OK")),
        Some("nothing@example.org") => json!({"error": "none"}),
        Some("null@example.org") => action(json!(null)),
        Some("empty@example.org") => action(json!("")),
        Some("lines@example.org") => action(json!("DUNNO\n\naction=OK")),
        Some("number@example.org") => action(json!(5)),
        Some("word@example.org") => action(json!("accept")),
        Some("down@example.org") => json!({"error": "down", "result": {"action": "DUNNO"}}),
        Some("plain@example.org") => {
            let body = action(json!("DUNNO")).to_string();
            return typed(200, "text/plain", body);
        }
        Some("other@example.org") => {
            let body = action(json!("DUNNO")).to_string();
            return typed(201, "application/json", body);
        }
        _ => action(json!("DUNNO")),
    };
    backend::json(answer.to_string())
}

#[tokio::test]
async fn a_map_is_asked_in_json_and_answers_at_its_pointer() {
    const STRANGE: &str = "TEMP backend answer not understood";
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let both = "OK jane@example.org,joe@example.org";
    for (key, expected_reply) in [
        ("sales@example.org", both),
        ("one@example.org", "OK jane@example.org"),
        ("decoy@example.org", "OK right"),
        ("five@example.org", "OK 5"),
        ("half@example.org", "OK 1.5"),
        ("true@example.org", "OK true"),
        ("false@example.org", "NOTFOUND "),
        ("null@example.org", "NOTFOUND "),
        ("empty@example.org", "NOTFOUND "),
        ("none@example.org", "NOTFOUND "),
        ("nowhere@example.org", "NOTFOUND "),
        ("bare@example.org", "NOTFOUND "),
        ("else@example.org", "NOTFOUND "),
        ("object@example.org", STRANGE),
        ("nested@example.org", STRANGE),
        ("down@example.org", "TEMP backend reported an error"),
        ("", "OK the empty key"),
    ] {
        place.looks_up("aliases", key, expected_reply).await;
    }
    let request = place.requests().remove(0);
    assert_eq!(request.method, "POST");
    assert_eq!(request.target, "/api/lookup");
    assert_eq!(request.header("accept"), Some("application/json"));
    place.left().await;
}

#[tokio::test]
async fn no_key_can_change_the_document_it_stands_in() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    for key in ODD {
        place.looks_up("aliases", key, "OK found").await;
    }
    for key in ["x\",\"map\":\"other", "\\", "\u{1}\t", "a\u{2028}b"] {
        place.looks_up("aliases", key, "NOTFOUND ").await;
    }
    // What is not UTF-8 cannot stand in JSON.
    let expected_reply = "TEMP key cannot be sent";
    place
        .answers_itself("aliases", b"caf\xe9@example.org", expected_reply)
        .await;
    place.answers_itself("aliases", "<>", "NOTFOUND ").await;
    place
        .answers_itself("ALIASES", "one@example.org", "PERM unknown map")
        .await;
    place.left().await;
}

#[tokio::test]
async fn the_right_status_of_a_map_may_be_another_than_200() {
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let found = "OK lmtp:[10.0.0.1]:24";
    place.looks_up("domains", "example.org", found).await;
    place.looks_up("domains", "example.net", "NOTFOUND ").await;
    let wrong = "TEMP backend answered 200";
    place.looks_up("domains", "ok.example.org", wrong).await;
    place.left().await;
}

#[tokio::test]
async fn every_other_status_and_every_other_body_makes_mail_wait() {
    const STRANGE: &str = "TEMP backend answer not understood";
    let mut place = Place::taken(Binary::Socketmap, Ready::of(BRIDGE), api).await;
    let good = "{\"data\":{\"destinations\":\"jane@example.org\"}}";
    let body = |status| typed(status, "application/json", good);
    let html = |status| typed(status, "text/html", "<html>Bad Gateway</html>");
    for (row, script, expected_reply) in [
        ("202", body(202), "TEMP backend answered 202"),
        ("204", status(204), "TEMP backend answered 204"),
        (
            "301",
            response(301, &[("Location", "/")], good),
            "PERM backend answered 301",
        ),
        ("400", body(400), "PERM backend answered 400"),
        ("401", body(401), "TEMP backend answered 401"),
        ("404", body(404), "PERM backend answered 404"),
        ("404 with HTML", html(404), "PERM backend answered 404"),
        ("429", body(429), "TEMP backend answered 429"),
        ("500", body(500), "TEMP backend answered 500"),
        ("502 with HTML", html(502), "TEMP backend answered 502"),
        ("200 with HTML", html(200), STRANGE),
        ("half a document", backend::json("{\"data\":"), STRANGE),
        ("nothing", backend::json(""), STRANGE),
        ("a list", backend::json("[]"), "NOTFOUND "),
        (
            "a broken connection",
            vec![Act::Close],
            "TEMP backend unreachable",
        ),
    ] {
        place.when("aliases", row, script, expected_reply).await;
    }
    place.left().await;
}

#[tokio::test]
async fn every_action_of_the_policy_service_is_passed_on() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    for (recipient, action) in [
        ("accept@example.org", "DUNNO"),
        ("reject@example.org", "REJECT 5.7.1 not wanted"),
        ("defer@example.org", "DEFER_IF_PERMIT 4.7.1 later"),
        ("code@example.org", "550 5.1.1 grüße"),
        ("tag@example.org", "PREPEND X-Checked: yes"),
        ("plain@example.org", "DUNNO"),
        // No action at all is no objection.
        ("nothing@example.org", "DUNNO"),
        // These are no actions.
        ("null@example.org", DEFER),
        ("empty@example.org", DEFER),
        ("lines@example.org", DEFER),
        ("number@example.org", DEFER),
        ("word@example.org", DEFER),
        ("down@example.org", DEFER),
        ("other@example.org", DEFER),
        // Until the line for it is taken in.
        ("ok@example.org", DEFER),
    ] {
        let attributes = format!("request=smtpd_access_policy\nrecipient={recipient}\n");
        place.decides(attributes, action).await;
    }
    place.left().await;

    let ready = Ready::of(BRIDGE).with("permit-actions = true");
    let mut place = Place::taken(Binary::Policy, ready, api).await;
    let attributes = "request=smtpd_access_policy\nrecipient=ok@example.org\n";
    place.decides(attributes, "OK").await;
    place.left().await;
}

#[tokio::test]
async fn the_document_holds_every_attribute() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    let attributes = "request=smtpd_access_policy\nprotocol_state=RCPT\n\
                      helo_name=a\",\"recipient\":\"evil@example.org\n\
                      sender=\"a\\\"b\"@example.org\nrecipient=reject@example.org\n\
                      client_name=grüße.example\nsasl_username=\nrecipient=accept@example.org\n";
    let action = "REJECT 5.7.1 not wanted";
    place.decides(attributes, action).await;
    let body: Value = serde_json::from_slice(&place.requests()[0].body).expect("JSON");
    let expected = json!({
        "service": "smtpd",
        "request": {
            "request": "smtpd_access_policy",
            "protocol_state": "RCPT",
            "helo_name": "a\",\"recipient\":\"evil@example.org",
            "sender": "\"a\\\"b\"@example.org",
            "recipient": "reject@example.org",
            "client_name": "grüße.example",
            "sasl_username": "",
        },
    });
    assert_eq!(body, expected);
    let not_utf_8 = b"request=smtpd_access_policy\nccert_subject=caf\xe9\n";
    place.decides_itself(not_utf_8, DEFER).await;
    place.left().await;
}

#[tokio::test]
async fn every_failure_of_the_policy_service_defers() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    let good = "{\"result\":{\"action\":\"DUNNO\"}}";
    for number in [201, 301, 400, 401, 404, 429, 500, 503] {
        let script = typed(number, "application/json", good);
        place.when("", &number.to_string(), script, DEFER).await;
    }
    place.when("", "204", status(204), DEFER).await;
    let html = typed(200, "text/html", "<html>hello</html>");
    place.when("", "HTML", html, DEFER).await;
    place.when("", "nothing", backend::json(""), DEFER).await;
    let broken = vec![Act::Close];
    place.when("", "a broken connection", broken, DEFER).await;
    place.left().await;
}

#[tokio::test]
async fn two_questions_at_once_get_two_answers_and_half_a_one_none() {
    let mut place = Place::taken(Binary::Policy, Ready::of(BRIDGE), api).await;
    let two = "request=smtpd_access_policy\nrecipient=a@example.org\n\n\
               request=smtpd_access_policy\nrecipient=reject@example.org\n\n\
               request=smtpd_access_policy\nrecipient=b@example";
    place.peer().send(two).await;
    place.peer().finish().await;
    let both = "action=DUNNO\n\naction=REJECT 5.7.1 not wanted\n\n";
    place.peer().expect(both).await;
    place.peer().expect_eof().await;
    assert_eq!(place.requests().len(), 2);
    place.left().await;
}

#[tokio::test]
async fn a_wrong_key_or_password_makes_mail_wait() {
    let socketmap = Binary::Socketmap;
    let mut place = Place::taken_with("another", socketmap, Ready::of(BRIDGE), api).await;
    let expected_reply = "TEMP backend answered 401";
    place
        .looks_up("aliases", "sales@example.org", expected_reply)
        .await;
    place.left().await;
    let policy = Binary::Policy;
    let mut place = Place::taken_with("another", policy, Ready::of(BRIDGE), api).await;
    place.decides("recipient=a@example.org\n", DEFER).await;
    place.left().await;
}

/// An API behind OpenID Connect that speaks gzip only; every further token ends the one before it.
fn guarded() -> impl FnMut(&Request) -> Script + Send + 'static {
    let mut issued = 0;
    move |request| {
        let host = request.header("host").unwrap_or_default();
        let issuer = format!("http://{host}/realms/mail");
        match (request.method.as_str(), request.target.as_str()) {
            ("GET", "/realms/mail/.well-known/openid-configuration") => backend::json(
                json!({"issuer": issuer, "token_endpoint": format!("{issuer}/token")}).to_string(),
            ),
            ("POST", "/realms/mail/token") => {
                let basic = format!("Basic {}", BASE64.encode(format!("postfix:{TOKEN}")));
                let form = request.form();
                let is_right = request.header("authorization") == Some(&basic)
                    && one(&form, "grant_type") == Some(b"client_credentials")
                    && one(&form, "scope") == Some(b"maps:read");
                if !is_right {
                    return typed(401, "application/json", "{\"error\":\"invalid_client\"}");
                }
                issued += 1;
                let token = json!({
                    "access_token": format!("token-{issued}"),
                    "token_type": "Bearer",
                    "expires_in": 3600,
                });
                backend::json(token.to_string())
            }
            ("POST", "/api/lookup") => {
                let bearer = format!("Bearer token-{issued}");
                if request.header("authorization") != Some(&bearer) {
                    return typed(401, "application/json", "{}");
                }
                let Some(address) = unzipped(request) else {
                    return status(415);
                };
                if address == "revoked@example.org" && issued == 1 {
                    issued += 1;
                    return typed(401, "application/json", "{}");
                }
                if address == "nobody@example.org" {
                    return zipped(&json!({}));
                }
                zipped(&json!({"destinations": [format!("to {address}")]}))
            }
            _ => status(404),
        }
    }
}

/// The address in a document sent with gzip.
fn unzipped(request: &Request) -> Option<String> {
    let is_gzip = request.header("content-encoding") == Some("gzip")
        && request
            .header("accept-encoding")
            .is_some_and(|list| list.contains("gzip"));
    let mut text = String::new();
    let mut decoder = GzDecoder::new(request.body.as_slice());
    if !is_gzip || decoder.read_to_string(&mut text).is_err() {
        return None;
    }
    let body: Value = serde_json::from_str(&text).ok()?;
    Some(body["address"].as_str()?.to_owned())
}

fn zipped(body: &Value) -> Script {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(body.to_string().as_bytes())
        .expect("bytes");
    let headers = [
        ("Content-Type", "application/json"),
        ("Content-Encoding", "gzip"),
    ];
    response(200, &headers, encoder.finish().expect("bytes"))
}

/// What was asked of the backend, in order.
fn targets(place: &Place) -> Vec<String> {
    place
        .requests()
        .into_iter()
        .map(|request| request.target)
        .collect()
}

#[tokio::test]
async fn a_token_is_fetched_once_and_bodies_are_compressed_both_ways() {
    let ready = Ready::numbered(BRIDGE, 1);
    let mut place = Place::taken(Binary::Socketmap, ready, guarded()).await;
    place.peer().send("23:aliases one@example.org,").await;
    place.peer().expect("21:OK to one@example.org,").await;
    place
        .looks_up("aliases", "grüße@example.org", "OK to grüße@example.org")
        .await;
    place
        .looks_up("aliases", "nobody@example.org", "NOTFOUND ")
        .await;
    let expected = [
        "/realms/mail/.well-known/openid-configuration",
        "/realms/mail/token",
        "/api/lookup",
        "/api/lookup",
        "/api/lookup",
    ];
    assert_eq!(targets(&place), expected);
    place.left().await;
}

#[tokio::test]
async fn a_token_that_was_revoked_is_fetched_again() {
    let ready = Ready::numbered(BRIDGE, 1);
    let mut place = Place::taken(Binary::Socketmap, ready, guarded()).await;
    place.peer().send("27:aliases revoked@example.org,").await;
    place.peer().expect("25:OK to revoked@example.org,").await;
    let asked = targets(&place);
    let tokens = asked.iter().filter(|target| target.ends_with("/token"));
    assert_eq!(tokens.count(), 2);
    place.left().await;
}

#[tokio::test]
async fn without_a_token_mail_waits_and_the_api_is_not_asked() {
    let ready = Ready::numbered(BRIDGE, 1);
    let socketmap = Binary::Socketmap;
    let mut place = Place::taken_with("another", socketmap, ready, guarded()).await;
    place.peer().send("23:aliases one@example.org,").await;
    place
        .peer()
        .expect("36:TEMP backend credentials unavailable,")
        .await;
    assert!(!targets(&place).contains(&"/api/lookup".to_owned()));
    place.left().await;
}
