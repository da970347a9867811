//! The actions that policy passes on to Postfix.

use crate::support::{
    Wrong,
    backend::{Backend, Script, json, plain, status, typed},
    peer::{framed, question},
    program::{Binary, End},
    replies::LATER,
    same,
    tables::{serve, table},
};

/// The actions that may reach Postfix. `None` is the reply to a temporary failure.
async fn actions(keys: &str, rows: &[(Script, Option<&str>)]) -> End {
    let backend = Backend::always(Script::new());
    let config = table(Binary::Policy, &backend.url("/ask"), keys);
    let program = serve(Binary::Policy, config).await;
    let mut peer = program.peer().await;
    let mut wrong = Wrong::default();
    for (number, (script, expected_reply)) in rows.iter().enumerate() {
        backend.set(script.clone());
        let reply = peer.ask(question(Binary::Policy, "t", "key")).await;
        let row = format!("row {number}, {}", expected_reply.unwrap_or("no action"));
        let expected = framed(Binary::Policy, expected_reply.unwrap_or(LATER));
        wrong.compare(&row, &reply, &expected);
    }
    wrong.none();
    program.stop().await
}

/// Every action is in `tests/dialogs/policy`, every form of an answer in `tests/answers.rs`.
#[tokio::test]
async fn an_action_is_said_in_whichever_form_it_comes() {
    let rows = [
        (plain("DUNNO"), Some("DUNNO")),
        (plain("REJECT Grüße"), Some("REJECT Grüße")),
        (plain("action=DUNNO\n\n"), Some("DUNNO")),
        (json(r#""action=REJECT text""#), Some("REJECT text")),
        (json(r#"{"action":"REJECT text"}"#), Some("REJECT text")),
        (typed(200, "text/html", "DUNNO"), Some("DUNNO")),
    ];
    actions("", &rows).await;
}

#[tokio::test]
async fn what_is_no_action_is_a_temporary_failure() {
    let rows = [
        (plain(""), None),
        (plain("450"), None),
        (plain("FOOBAR"), None),
        (plain("DUNNO\n\naction=OK"), None),
        (plain(b"REJECT \xff"), None),
        (typed(200, "text/html; charset=utf-8", "<p>DUNNO</p>"), None),
        (json(r#"{"action":null}"#), None),
        (json(r#"{"action":450}"#), None),
        (json(r#"{"action":true}"#), None),
        (json(r#""DUNNO\nREJECT text""#), None),
        (json(r#""DUNNO\u0000""#), None),
    ];
    actions("", &rows).await;
}

/// What lets a message through without further checks is the operator's to allow.
#[tokio::test]
async fn a_stray_permission_is_a_temporary_failure() {
    let rows = [
        (plain("OK"), None),
        (plain("action=OK"), None),
        (json("\"permit\""), None),
        (json(r#"{"action":"RELAY"}"#), None),
    ];
    let end = actions("", &rows).await;
    end.says("permit-actions");
}

#[tokio::test]
async fn a_permission_the_operator_allows_is_said() {
    let rows = [
        (plain("OK"), Some("OK")),
        (json(r#"{"action":"permit"}"#), Some("permit")),
        // Bare digits and nothing at all permit as well, but nobody means them.
        (plain("450"), None),
        (plain(""), None),
    ];
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
