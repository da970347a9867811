//! Replies and calls without a token.

use serde_json::{Value, json};

use super::{ID, SECRET, endpoint, issuer, oauth, taking, token};
use crate::support::{
    Wrong,
    backend::{Act, Backend, Gate, Script, dunno, json as answer, raw, status, typed},
    peer::{netstring, question},
    program::{ALL, Binary, Reserved},
    replies::{DUNNO, NO_CREDENTIALS, UNREACHABLE},
    same, soon,
    tables::{ask, expect, serve, table},
};

/// Every way for a token endpoint not to give a token.
fn refusals() -> Vec<(&'static str, Script)> {
    let member = |token: Value| {
        answer(
            json!({ "access_token": token, "token_type": "Bearer", "expires_in": 60 }).to_string(),
        )
    };
    let mut refusals = vec![
        ("garbage", answer("no JSON")),
        ("nothing", answer("")),
        ("HTML", typed(200, "text/html", "<html>Welcome</html>")),
        ("an empty object", answer("{}")),
        ("a string", answer("\"token\"")),
        ("null", answer("null")),
        ("a token that is null", member(Value::Null)),
        ("a token that is a number", member(json!(5))),
        ("an empty token", member(json!(""))),
        ("a token with a line", member(json!("a\r\nX-Evil: 1"))),
        ("a token with a NUL", member(json!("a\0b"))),
        ("a token of another kind", {
            answer(json!({ "access_token": "x", "token_type": "mac" }).to_string())
        }),
        ("no HTTP", vec![raw("garbage\r\n\r\n"), Act::Close]),
        ("a broken connection", vec![Act::Close]),
        ("a reset connection", vec![Act::Reset]),
        ("204", status(204)),
        (
            "201 with a token",
            typed(
                201,
                "application/json",
                r#"{"access_token":"x","token_type":"Bearer"}"#,
            ),
        ),
        ("a body without end", {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\"";
            vec![raw(head), Act::Endless(vec![b'a'; 65_536])]
        }),
        (
            "a refusal as RFC 6749 has it",
            typed(400, "application/json", r#"{"error":"invalid_client"}"#),
        ),
        (
            "a token with the status of a failure",
            typed(
                500,
                "application/json",
                r#"{"access_token":"x","token_type":"Bearer"}"#,
            ),
        ),
    ];
    for number in [401, 403, 404, 429, 500, 502, 503] {
        refusals.push(("a status", status(number)));
    }
    refusals
}

#[tokio::test]
async fn without_a_token_nothing_is_asked_and_the_endpoint_is_left_alone() {
    const ASKED: usize = 30;
    let binary = Binary::Socketmap;
    let expected = NO_CREDENTIALS.by(binary);
    let mut wrong = Wrong::default();
    for (row, script) in refusals() {
        let tokens = Backend::always(script);
        let backend = Backend::always(dunno());
        let keys = oauth(&tokens.url("/"), "");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let mut peer = program.peer().await;
        let mut replies = Vec::new();
        for _ in 0..ASKED {
            replies.push(peer.ask(question(binary, "t", "key")).await);
        }
        let odd = replies.into_iter().find(|reply| *reply != expected);
        wrong.compare(row, &odd.unwrap_or_else(|| expected.clone()), &expected);
        let calls = (tokens.count(), backend.count());
        let holds = matches!(calls, (1..=5, 0));
        wrong.require(row, holds, || format!("{calls:?} fetches and calls"));
    }
    wrong.none();
}

/// Only the codes of RFC 6749 are shown; all else may be a part of a secret.
#[tokio::test]
async fn a_failure_names_the_step_and_the_servers_word_for_it() {
    const LONG: &str = "a_word_that_no_server_would_say_since_it_is_far_too_long_for_one";
    let refusal = |code, error: Value| {
        typed(
            code,
            "application/json",
            json!({ "error": error, "error_description": "s3cret" }).to_string(),
        )
    };
    let binary = Binary::Socketmap;
    for (script, expected) in [
        (
            refusal(401, json!("invalid_client")),
            "token: their server answered 401: invalid_client",
        ),
        (
            refusal(400, json!("unauthorized_client")),
            "token: their server answered 400: unauthorized_client",
        ),
        (
            refusal(200, json!("temporarily_unavailable")),
            "token: their server's answer is not understood: temporarily_unavailable",
        ),
        (
            refusal(400, json!("invalid client")),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (
            refusal(400, json!(LONG)),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (
            refusal(400, json!(SECRET)),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (
            refusal(400, json!(format!("bad_{SECRET}"))),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (
            refusal(400, json!("not_one_of_them")),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (
            refusal(400, json!(&SECRET[..4])),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (refusal(400, json!(5)), "token: their server answered 400\""),
        (
            typed(400, "text/html", "<html>"),
            "token: their server answered 400\"",
        ),
        (vec![Act::Close], "token: "),
    ] {
        let tokens = Backend::always(script);
        let keys = oauth(&tokens.url("/"), "");
        let config = table(binary, "http://127.0.0.1/", &keys);
        let end = expect(binary, config, NO_CREDENTIALS).await;
        let expected_reply = end.stderr.replace(" table=", "\" table=");
        let expected = format!("backend credentials unavailable: {expected}");
        assert!(expected_reply.contains(&expected), "{expected}: {end:#?}");
        assert!(!expected_reply.contains("s3cret"), "{end:#?}");
    }
    let reserved = Reserved::new();
    let origin = format!("http://{}", reserved.address());
    let _issuer = Backend::at(reserved, move |_| refusal(404, json!("not_here")));
    let keys = format!(
        "oauth2 = {{ issuer = \"{origin}\", client-id = \"{ID}\", client-secret = \"{SECRET}\" }}\n"
    );
    let end = expect(
        binary,
        table(binary, "http://127.0.0.1/", &keys),
        NO_CREDENTIALS,
    )
    .await;
    end.says(
        "backend credentials unavailable: discovery: their server answered 404: an error code that \
         is not RFC 6749's",
    );
}

#[tokio::test]
async fn every_call_for_a_token_says_who_asks_and_for_which_request() {
    let binary = Binary::Socketmap;
    let reserved = Reserved::new();
    let url = format!("http://{}", reserved.address());
    let issuer = issuer(reserved, "");
    let backend = taking("token-1");
    let keys = format!(
        "user-agent = \"mail.example/1\"\noauth2 = {{ issuer = \"{url}\", client-id = \"{ID}\", \
         client-secret = \"{SECRET}\" }}\n"
    );
    expect(binary, table(binary, &backend.url("/"), &keys), DUNNO).await;
    let asked = issuer.requests();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let id = backend.only().header("x-request-id").map(str::to_owned);
    assert!(id.is_some());
    for request in asked {
        assert_eq!(request.header("user-agent"), Some("mail.example/1"));
        assert_eq!(request.header("x-request-id"), id.as_deref());
    }
}

#[tokio::test]
async fn every_program_says_that_there_are_no_credentials() {
    for binary in ALL {
        let gone = Reserved::new();
        let backend = Backend::always(dunno());
        let keys = oauth(&format!("http://{}/", gone.address()), "");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        for _ in 0..3 {
            let reply = ask(&program, binary, "key").await;
            same("down", &reply, &NO_CREDENTIALS.by(binary));
        }
        assert_eq!(backend.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn many_callers_at_once_ask_an_ill_endpoint_once() {
    const CALLERS: usize = 30;
    let binary = Binary::Socketmap;
    let gate = Gate::shut();
    let mut script = vec![Act::Wait(gate.clone())];
    script.extend(status(500));
    let tokens = Backend::always(script);
    let backend = Backend::always(dunno());
    let keys = format!("{}request-timeout = \"60s\"\n", oauth(&tokens.url("/"), ""));
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    let peers = program.asking(CALLERS).await;
    tokens.asked(1).await;
    gate.pass(CALLERS);
    for mut peer in peers {
        same("at once", &peer.reply().await, &NO_CREDENTIALS.by(binary));
    }
    assert!((1..=3).contains(&tokens.count()), "{}", tokens.count());
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn an_endpoint_that_gets_well_is_asked_again() {
    let binary = Binary::Socketmap;
    let tokens = Backend::in_turn([status(503), token("token-1")]);
    let backend = taking("token-1");
    let keys = oauth(&tokens.url("/"), "");
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    let mut peer = program.peer().await;
    let asking = async {
        let mut failures = 0;
        loop {
            let reply = peer.ask(question(binary, "t", "key")).await;
            if reply == DUNNO.by(binary) {
                break failures;
            }
            same("before", &reply, &NO_CREDENTIALS.by(binary));
            failures += 1;
        }
    };
    let failures = soon("a token", asking).await;
    assert!(failures > 0, "the first fetch failed");
    assert_eq!(tokens.count(), 2);
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_given_up_before_the_deadline() {
    for binary in ALL {
        let tokens = Backend::always(vec![Act::Hang]);
        let backend = Backend::always(dunno());
        let keys = format!(
            "{}request-timeout = \"300ms\"\n",
            oauth(&tokens.url("/"), "")
        );
        expect(
            binary,
            table(binary, &backend.url("/"), &keys),
            NO_CREDENTIALS,
        )
        .await;
        assert_eq!(backend.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_not_held_against_the_backend() {
    let tokens = Backend::always(vec![Act::Hang]);
    let backend = Backend::always(dunno());
    let (binary, url) = (Binary::Socketmap, backend.url("/"));
    // Both wait for one fetch, which goes on for as long as the first of them has time.
    let config = format!(
        "[http]\n{}[socketmap.patient]\ntarget = \"{url}\"\nrequest-timeout = \"80s\"\n\
         [socketmap.t]\ntarget = \"{url}\"\nrequest-timeout = \"100ms\"\nbreaker = {{ failures = 1 }}\n",
        oauth(&tokens.url("/"), "")
    );
    let program = serve(binary, config).await;
    let mut peer = program.peer().await;
    for _ in 0..3 {
        let reply = peer.ask(question(binary, "t", "key")).await;
        same("no token", &reply, &NO_CREDENTIALS.by(binary));
    }
    assert_eq!((tokens.count(), backend.count()), (1, 0));
}

#[tokio::test]
async fn a_backend_that_is_down_is_unreachable_with_a_token_too() {
    for binary in ALL {
        let gone = Reserved::new();
        let tokens = endpoint();
        let keys = oauth(&tokens.url("/"), "");
        let config = table(binary, &format!("http://{}/", gone.address()), &keys);
        expect(binary, config, UNREACHABLE).await;
    }
}

#[tokio::test]
async fn a_question_that_needs_no_call_needs_no_token() {
    let binary = Binary::Socketmap;
    let tokens = endpoint();
    let backend = Backend::always(dunno());
    let keys = format!(
        "{}normalise = {{ pattern = \"a+\" }}\n",
        oauth(&tokens.url("/"), "")
    );
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    for key in ["*", "b"] {
        let reply = ask(&program, binary, key).await;
        same(key, &reply, &netstring("NOTFOUND "));
    }
    assert_eq!((tokens.count(), backend.count()), (0, 0));
}
