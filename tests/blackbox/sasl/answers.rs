//! What an answer means, over the wire; `tests/logins.rs` has the whole table.

use super::{JOE, OK, PASSWORD, REFUSED, login, serve, table};
use crate::support::backend::{Act, Backend, json, raw, response, status, typed};

const CLOSED: &str = "closed";

#[tokio::test]
async fn by_the_status_alone() {
    let rows = [
        (json("{}"), OK),
        (status(201), OK),
        (status(204), OK),
        (
            vec![raw(
                "HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n",
            )],
            OK,
        ),
        (status(401), REFUSED),
        (status(403), REFUSED),
        (status(400), CLOSED),
        (status(404), CLOSED),
        (status(429), CLOSED),
        (status(202), CLOSED),
        (status(302), CLOSED),
        (status(500), CLOSED),
        (status(503), CLOSED),
        (typed(200, "text/html", "<html>welcome</html>"), CLOSED),
        (typed(200, "text/html", ""), OK),
        (
            vec![
                raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"),
                Act::Close,
            ],
            CLOSED,
        ),
        (vec![raw("HTTP/1.1 200 OK\r\n\r\n"), Act::Close], CLOSED),
        (vec![raw("nonsense\r\n\r\n"), Act::Close], CLOSED),
        (vec![Act::Close], CLOSED),
        (vec![Act::Reset], CLOSED),
    ];
    for (script, expected) in rows {
        let place = format!("{:?}", script.first().map(act));
        let backend = Backend::always(script);
        let program = serve(table(&backend.url("/"), "retries = 0")).await;
        assert_eq!(login(&program, JOE, PASSWORD).await, expected, "{place}");
    }
}

fn act(act: &Act) -> String {
    match act {
        Act::Send(bytes) => bytes.escape_ascii().to_string(),
        _ => "the end".to_owned(),
    }
}

#[tokio::test]
async fn the_operators_statuses_come_first() {
    let keys = "status = { 404 = \"refused\", \"4xx\" = \"temporary\", 202 = \"accepted\" }";
    for (number, expected) in [(404, REFUSED), (401, CLOSED), (202, OK), (200, OK)] {
        let backend = Backend::always(status(number));
        let program = serve(table(&backend.url("/"), keys)).await;
        assert_eq!(login(&program, JOE, PASSWORD).await, expected, "{number}");
    }
}

/// A 401 may be about our token, and the user's program would forget its password.
#[tokio::test]
async fn a_401_is_no_refusal_where_the_call_has_a_credential_of_our_own() {
    for keys in [
        "auth-token = \"s\"",
        "bearer-token = \"s\"",
        "headers = { Authorization = \"Token s\" }",
        "headers = { X-Auth-Token = \"s\" }",
        "headers = { X-Api-Key = \"s\" }",
        "headers = { X-Api-Key = \"s {service}\" }",
        "headers = { X-Caller = { env = \"PATH\" } }",
        "query = { api_key = \"s\" }",
        "basic-auth = { user = \"postgate\", password = \"s\" }",
    ] {
        for number in [401, 403] {
            let backend = Backend::always(status(number));
            let program = serve(table(&backend.url("/"), keys)).await;
            assert_eq!(login(&program, JOE, PASSWORD).await, CLOSED, "{keys}");
            let by_operator = format!("{keys}\nstatus = {{ {number} = \"refused\" }}");
            let program = serve(table(&backend.url("/"), &by_operator)).await;
            assert_eq!(login(&program, JOE, PASSWORD).await, REFUSED, "{keys}");
        }
    }
    let inherited = "[http]\nauth-token = \"s\"\n";
    let backend = Backend::always(status(401));
    let program = serve(format!("{inherited}{}", table(&backend.url("/"), ""))).await;
    assert_eq!(login(&program, JOE, PASSWORD).await, CLOSED);
    let program = serve(table(&backend.url("/?token=s"), "")).await;
    assert_eq!(login(&program, JOE, PASSWORD).await, CLOSED);
    // The user's own, and what is no credential.
    for keys in [
        "basic-auth = { user = \"{username}\", password = \"{password}\" }",
        "headers = { Authorization = \"Plain {username}:{password}\" }",
        "headers = { X-Auth-Token = \"{username}\" }",
        "headers = { Auth-Method = \"plain\", Accept = \"application/json\" }",
    ] {
        let program = serve(table(&backend.url("/?about=s"), keys)).await;
        assert_eq!(login(&program, JOE, PASSWORD).await, REFUSED, "{keys}");
    }
}

#[tokio::test]
async fn the_answer_has_to_agree_and_may_name_the_user_and_the_reason() {
    let keys = r#"
        accepted = "/ok"
        user = "/user"
        reason = "/message"
        error = "/error"
        no-error = ["none"]
    "#;
    for (script, expected) in [
        (
            json(r#"{"ok": true, "user": "joe", "error": "none"}"#),
            "OK user=joe",
        ),
        (json(r#"{"ok": true, "user": ""}"#), CLOSED),
        (json(r#"{"ok": true, "user": "joe\tx=y"}"#), CLOSED),
        (json(r#"{"ok": true}"#), CLOSED),
        (json(r#"{"ok": "true", "user": "joe"}"#), CLOSED),
        (json(r#"{"user": "joe"}"#), CLOSED),
        (
            json(r#"{"ok": true, "user": "joe", "error": "down"}"#),
            CLOSED,
        ),
        (
            json(r#"{"ok": false, "message": "account\tlocked\nOK\t1\tuser=root"}"#),
            "FAIL user=joe@example.org reason=account locked OK 1 user=root",
        ),
        (json(r#"{"ok": false}"#), REFUSED),
        (json(r#"{"ok": false, "error": 1}"#), CLOSED),
        (
            typed(401, "application/json", r#"{"message": "locked"}"#),
            "FAIL user=joe@example.org reason=locked",
        ),
        (typed(401, "application/json", r#"{"error": true}"#), CLOSED),
    ] {
        let place = format!("{:?}", script.first().map(act));
        let backend = Backend::always(script);
        let program = serve(table(&backend.url("/"), keys)).await;
        assert_eq!(login(&program, JOE, PASSWORD).await, expected, "{place}");
    }
}

#[tokio::test]
async fn headers_can_say_the_same() {
    let keys = r#"
        accepted = { header = "Auth-Status", is = "OK" }
        user = { header = "Auth-User" }
        reason = { header = "Auth-Status" }
        error = { header = "Auth-Error-Code" }
    "#;
    let ok = ("Auth-Status", "OK");
    for (headers, expected) in [
        (&[ok, ("Auth-User", "joe")][..], "OK user=joe"),
        (&[ok], CLOSED),
        (
            &[("Auth-Status", "Invalid login"), ("Auth-User", "joe")],
            "FAIL user=joe@example.org reason=Invalid login",
        ),
        (&[("Auth-User", "joe")], CLOSED),
        (
            &[ok, ("Auth-User", "joe"), ("Auth-Error-Code", "451 4.3.0")],
            CLOSED,
        ),
    ] {
        let backend = Backend::always(response(200, headers, ""));
        let program = serve(table(&backend.url("/"), keys)).await;
        assert_eq!(
            login(&program, JOE, PASSWORD).await,
            expected,
            "{headers:?}"
        );
    }
    // A head without a length, as small servers send it, decides by itself.
    let head = "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-User: joe\r\n\r\n";
    let backend = Backend::always(vec![raw(head), Act::Close]);
    let program = serve(table(&backend.url("/"), keys)).await;
    assert_eq!(login(&program, JOE, PASSWORD).await, "OK user=joe");
}

#[tokio::test]
async fn an_answer_without_the_required_header_is_not_the_apis() {
    let keys = "require-header = { X-Api = \"1\" }";
    for (headers, number, expected) in [
        (&[("X-Api", "1")][..], 200, OK),
        (&[("X-Api", "1")], 401, REFUSED),
        (&[("X-Api", "2")], 200, CLOSED),
        (&[], 200, CLOSED),
        (&[], 401, CLOSED),
    ] {
        let backend = Backend::always(response(number, headers, "{}"));
        let program = serve(table(&backend.url("/"), keys)).await;
        let said = login(&program, JOE, PASSWORD).await;
        assert_eq!(said, expected, "{number} {headers:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_or_cannot_be_read_is_a_failure() {
    let long = "x".repeat(100_000);
    let reason = format!("{{\"message\": \"{long}\"}}");
    let backend = Backend::always(typed(401, "application/json", &reason));
    let program = serve(table(&backend.url("/"), "reason = \"/message\"")).await;
    let cut = "x".repeat(200);
    assert_eq!(
        login(&program, JOE, PASSWORD).await,
        format!("FAIL user={JOE} reason={cut}")
    );
    let program = serve(table(
        &backend.url("/"),
        "reason = \"/message\"\nmax-response = 1000",
    ))
    .await;
    assert_eq!(login(&program, JOE, PASSWORD).await, REFUSED);
    let backend = Backend::always(json(&reason));
    let program = serve(table(&backend.url("/"), "max-response = 1000")).await;
    assert_eq!(login(&program, JOE, PASSWORD).await, CLOSED);
    let user = format!("{{\"user\": \"{long}\"}}");
    let backend = Backend::always(json(&user));
    let program = serve(table(&backend.url("/"), "user = \"/user\"")).await;
    assert_eq!(login(&program, JOE, PASSWORD).await, CLOSED);
}
