//! Which actions Postfix may be told.

use crate::support::{
    Wrong,
    backend::{Backend, Script, json, plain, status, typed},
    peer::{framed, question},
    program::{Binary, End},
    said::LATER,
    same,
    tables::{serve, table},
};

/// Which actions Postfix may be told. `None` is the answer for a temporary failure.
async fn actions(keys: &str, rows: &[(Script, Option<&str>)]) -> End {
    let backend = Backend::always(Script::new());
    let config = table(Binary::Policy, &backend.url("/ask"), keys);
    let program = serve(Binary::Policy, config).await;
    let mut peer = program.peer().await;
    let mut wrong = Wrong::default();
    for (number, (script, said)) in rows.iter().enumerate() {
        backend.set(script.clone());
        let reply = peer.ask(question(Binary::Policy, "t", "key")).await;
        let row = format!("row {number}, {}", said.unwrap_or("no action"));
        let expected = framed(Binary::Policy, said.unwrap_or(LATER));
        wrong.compare(&row, &reply, &expected);
    }
    wrong.none();
    program.stop().await
}

#[tokio::test]
async fn an_action_postfix_understands_is_said() {
    let text = [
        "DUNNO",
        "dunno",
        "DUNNO no opinion",
        "REJECT",
        "REJECT text",
        "reject See https://example.com/why?a=b&c=d",
        "REJECT Grüße",
        "450 4.7.1 Try again later",
        "450 later",
        "550 5.1.1 No such user",
        "421 4.7.0 Bye",
        "521 5.7.1 Bye",
        "DEFER",
        "DEFER 4.7.1 text",
        "DEFER_IF_PERMIT text",
        "DEFER_IF_REJECT text",
        "INFO text",
        "WARN text",
        "HOLD",
        "HOLD text",
        "DISCARD text",
        "FILTER smtp:[127.0.0.1]:10025",
        "FILTER scan:",
        "REDIRECT postmaster@example.com",
        "BCC archive@example.com",
        "PREPEND X-Checked: yes",
        "reject_unauth_destination",
        "reject_unauth_destination, reject_unknown_sender_domain",
        "reject_unauth_destination reject_unlisted_recipient",
    ];
    let mut rows = Vec::new();
    for action in text {
        rows.push((plain(action), Some(action)));
    }
    rows.extend([
        (plain("action=DUNNO"), Some("DUNNO")),
        (plain("action=DUNNO\n\n"), Some("DUNNO")),
        (plain("  REJECT text \r\n"), Some("REJECT text")),
        (json(r#""DUNNO""#), Some("DUNNO")),
        (json(r#""action=REJECT text""#), Some("REJECT text")),
        (typed(200, "text/html", "DUNNO"), Some("DUNNO")),
        (json(r#"{"action":"REJECT text"}"#), Some("REJECT text")),
        (json(r#"{"other":[1],"action":"DUNNO"}"#), Some("DUNNO")),
        (
            typed(
                200,
                "application/json; charset=utf-8",
                r#"{"action":"DUNNO"}"#,
            ),
            Some("DUNNO"),
        ),
    ]);
    actions("", &rows).await;
}

#[tokio::test]
async fn what_is_no_action_is_a_temporary_failure() {
    let text: [&[u8]; 48] = [
        b"",
        b" \n\n",
        b"action=",
        b"action= ",
        b"action=\n\n",
        b"action=action=DUNNO",
        b"action = DUNNO",
        b"450",
        b"550",
        b"450 ",
        b"250",
        b"12345",
        b"200 fine",
        b"250 hello",
        b"350 hello",
        b"600 hello",
        b"4500 hello",
        b"45 hello",
        b"accept",
        b"ACCEPT",
        b"FOOBAR",
        b"DELAY 10s",
        b"250-hello",
        b"450-4.7.1 hello",
        b"Denied: see https://example.com",
        b"hash:/etc/postfix/access",
        b"check_policy_service unix:private/other",
        b"FILTER",
        b"FILTER nothing",
        b"REDIRECT",
        b"REDIRECT nobody",
        b"BCC",
        b"BCC nobody",
        b"PREPEND",
        b"PREPEND no header",
        b"PREPEND : nothing",
        b"DUNNO\nREJECT text",
        b"DUNNO\n\naction=OK",
        b"REJECT a\r\nb",
        b"REJECT a\x07b",
        b"REJECT a\0b",
        b"REJECT a\x1bb",
        b"REJECT a\x7fb",
        b"REJECT \xff",
        b"\xffDUNNO",
        b"REJECT caf\xe9",
        b"reject_unauth_destination, FOOBAR",
        b"<html>DUNNO</html>",
    ];
    let mut rows = Vec::new();
    for action in text {
        rows.push((plain(action), None));
    }
    rows.extend([
        (typed(200, "text/html; charset=utf-8", "<p>DUNNO</p>"), None),
        (json(r#"{"action":""}"#), None),
        (json(r#"{"action":null}"#), None),
        (json(r#"{"action":false}"#), None),
        (json(r#"{"action":450}"#), None),
        (json(r#"{"action":true}"#), None),
        (json(r#"{"action":["REJECT"],"action":{}}"#), None),
        (json(r#"{"Action":"DUNNO"}"#), None),
        (json(r#"{"result":{"action":"DUNNO"}}"#), None),
        (json("450"), None),
        (json(r#""450""#), None),
        (json(r#""DUNNO\nREJECT text""#), None),
        (json(r#""DUNNO\u0000""#), None),
        (json(r#""DUNNO\u2028REJECT""#), None),
        (json("DUNNO"), None),
    ]);
    actions("", &rows).await;
}

/// What lets a message through without further checks is the operator's to allow.
const PERMITS: [&str; 8] = [
    "OK",
    "ok",
    "OK text",
    "RELAY",
    "permit",
    "permit_mynetworks",
    "reject_unauth_destination, permit",
    "PERMIT_SASL_AUTHENTICATED, reject",
];

#[tokio::test]
async fn a_stray_permission_is_a_temporary_failure() {
    let mut rows = Vec::new();
    for action in PERMITS {
        rows.push((plain(action), None));
        rows.push((json(format!("\"{action}\"")), None));
        rows.push((json(format!(r#"{{"action":"{action}"}}"#)), None));
        rows.push((plain(format!("action={action}")), None));
    }
    let end = actions("", &rows).await;
    end.says("permit-actions");
}

#[tokio::test]
async fn a_permission_the_operator_allows_is_said() {
    let mut rows = Vec::new();
    for action in PERMITS {
        rows.push((plain(action), Some(action)));
        rows.push((json(format!(r#"{{"action":"{action}"}}"#)), Some(action)));
    }
    // Bare digits and nothing at all permit as well, but nobody means them.
    rows.extend([
        (plain("450"), None),
        (plain("250"), None),
        (plain(""), None),
    ]);
    actions("permit-actions = true", &rows).await;
}

#[tokio::test]
async fn a_restriction_class_is_known_only_when_it_is_listed() {
    let rows = [
        (plain("greylist"), Some("greylist")),
        (
            plain("reject_unauth_destination, greylist"),
            Some("reject_unauth_destination, greylist"),
        ),
        (plain("blacklist"), None),
    ];
    actions("restriction-classes = [\"greylist\"]", &rows).await;
    actions("", &[(plain("greylist"), None)]).await;
}

#[tokio::test]
async fn the_operators_own_actions_are_said_for_each_outcome() {
    let backend = Backend::in_turn([status(204), status(503), status(400)]);
    let keys = "on-not-found = \"permit\"\non-temporary = \"DUNNO\"\non-permanent = \"REJECT no\"";
    let program = serve(
        Binary::Policy,
        table(Binary::Policy, &backend.url("/"), keys),
    )
    .await;
    let mut peer = program.peer().await;
    for action in ["permit", "DUNNO", "REJECT no"] {
        let reply = peer.ask(question(Binary::Policy, "t", "key")).await;
        same("the operator's", &reply, &framed(Binary::Policy, action));
    }
}

#[tokio::test]
async fn disconnect_says_nothing_and_closes() {
    let backend = Backend::always(status(503));
    let keys = "on-temporary = \"disconnect\"";
    let program = serve(
        Binary::Policy,
        table(Binary::Policy, &backend.url("/"), keys),
    )
    .await;
    let mut peer = program.peer().await;
    peer.send(question(Binary::Policy, "t", "key")).await;
    peer.expect_eof().await;
    assert_eq!(backend.count(), 1);
}
