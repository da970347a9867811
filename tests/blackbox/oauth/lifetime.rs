//! The lifetime of a token, and the calls that share it.

use serde_json::json;

use super::{endpoint, oauth, taking, token};
use crate::support::{
    backend::{Act, Backend, Gate, dunno, json as answer, status},
    peer::{framed, netstring, question},
    program::{ALL, Binary, Launch},
    replies::{DUNNO, LATER},
    same, soon,
    tables::{ask, expect, serve, table},
};

#[tokio::test]
async fn one_token_serves_one_call_after_the_other() {
    for binary in ALL {
        let tokens = endpoint();
        let backend = taking("token-1");
        let keys = oauth(&tokens.url("/"), "");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let mut peer = program.peer().await;
        for _ in 0..20 {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same("found", &reply, &DUNNO.by(binary));
        }
        assert_eq!((tokens.count(), backend.count()), (1, 20), "{binary:?}");
    }
}

#[tokio::test]
async fn one_token_is_fetched_for_many_callers_at_once() {
    const CALLERS: usize = 30;
    for binary in ALL {
        let gate = Gate::shut();
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(token("token-1"));
        let tokens = Backend::always(script);
        let backend = taking("token-1");
        let keys = format!("{}request-timeout = \"60s\"\n", oauth(&tokens.url("/"), ""));
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let peers = program.asking(CALLERS).await;
        tokens.asked(1).await;
        gate.pass(CALLERS);
        for mut peer in peers {
            same("at once", &peer.reply().await, &DUNNO.by(binary));
        }
        assert_eq!(
            (tokens.count(), backend.count()),
            (1, CALLERS),
            "{binary:?}"
        );
    }
}

/// The call that happens to fetch the token may be cancelled; the others still want it.
#[tokio::test]
async fn a_caller_that_goes_away_does_not_take_the_token_along() {
    let binary = Binary::Socketmap;
    let gate = Gate::shut();
    let mut script = vec![Act::Wait(gate.clone())];
    script.extend(token("token-1"));
    let tokens = Backend::always(script);
    let backend = taking("token-1");
    let keys = format!("{}request-timeout = \"60s\"\n", oauth(&tokens.url("/"), ""));
    let config = table(binary, &backend.url("/"), &keys);
    let program = Launch::new(binary).config(config).tcp4("t").ready().await;
    let mut first = program.peer().await;
    first.send(question(binary, "t", "first")).await;
    tokens.asked(1).await;
    let mut second = program.peer().await;
    second.send(question(binary, "t", "second")).await;
    first.reset();
    gate.pass(10);
    same("the second", &second.reply().await, &DUNNO.by(binary));
    assert_eq!(tokens.count(), 1);
}

#[tokio::test]
async fn a_token_is_used_until_it_is_near_its_end() {
    let binary = Binary::Socketmap;
    let mut number = 0;
    let tokens = Backend::new(move |_| {
        number += 1;
        let lasts = if number == 1 { 1 } else { 3600 };
        answer(
            json!({
                "access_token": format!("token-{number}"),
                "token_type": "bearer",
                "expires_in": lasts,
            })
            .to_string(),
        )
    });
    let backend = Backend::always(dunno());
    let keys = oauth(&tokens.url("/"), "");
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    let mut peer = program.peer().await;
    let asking = async {
        while tokens.count() < 2 {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same("found", &reply, &DUNNO.by(binary));
        }
    };
    soon("a second token", asking).await;
    for _ in 0..10 {
        let reply = peer.ask(question(binary, "t", "key")).await;
        same("found", &reply, &DUNNO.by(binary));
    }
    assert_eq!(tokens.count(), 2);
    let seen = super::tokens(&backend);
    assert_eq!(seen.first().map(String::as_str), Some("Bearer token-1"));
    assert_eq!(seen.last().map(String::as_str), Some("Bearer token-2"));
}

#[tokio::test]
async fn a_token_may_come_without_saying_how_long_it_lasts() {
    let binary = Binary::Socketmap;
    for body in [
        json!({ "access_token": "token-1", "token_type": "Bearer" }),
        json!({ "access_token": "token-1", "token_type": "bearer", "expires_in": null }),
        json!({ "access_token": "token-1", "token_type": "BEARER", "expires_in": 3600 }),
        json!({ "access_token": "token-1", "token_type": "Bearer", "expires_in": 3599.5 }),
        json!({ "access_token": "token-1", "token_type": "Bearer", "expires_in": 0 }),
        json!({ "access_token": "token-1", "token_type": "Bearer", "expires_in": -1 }),
        json!({ "access_token": "token-1", "token_type": "Bearer",
                    "expires_in": u64::MAX, "scope": "x", "refresh_token": "y", "z": [{}] }),
    ] {
        let tokens = Backend::always(answer(body.to_string()));
        let backend = taking("token-1");
        let keys = oauth(&tokens.url("/"), "");
        expect(binary, table(binary, &backend.url("/"), &keys), DUNNO).await;
        assert_eq!((tokens.count(), backend.count()), (1, 1), "{body}");
    }
}

/// RFC 6749 has a number, but one of the largest servers sends a string.
#[tokio::test]
async fn how_long_a_token_lasts_may_be_said_in_a_string() {
    let body = json!({ "access_token": "token-1", "token_type": "Bearer", "expires_in": "3599" });
    let tokens = Backend::always(answer(body.to_string()));
    let backend = taking("token-1");
    let keys = oauth(&tokens.url("/"), "");
    let config = table(Binary::Socketmap, &backend.url("/"), &keys);
    expect(Binary::Socketmap, config, DUNNO).await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_and_the_call_repeated_once() {
    for binary in ALL {
        let tokens = endpoint();
        let backend = taking("token-2");
        let keys = oauth(&tokens.url("/"), "");
        let program = serve(binary, table(binary, &backend.url("/ask"), &keys)).await;
        let mut peer = program.peer().await;
        for _ in 0..5 {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same("found", &reply, &DUNNO.by(binary));
        }
        assert_eq!((tokens.count(), backend.count()), (2, 6), "{binary:?}");
        let requests = backend.requests();
        let first = &requests[0];
        let second = &requests[1];
        assert_eq!(first.header("authorization"), Some("Bearer token-1"));
        assert_eq!(second.header("authorization"), Some("Bearer token-2"));
        assert_eq!(first.target, second.target);
        same("the body", &second.body, &first.body);
    }
}

#[tokio::test]
async fn a_second_refusal_is_an_answer() {
    for binary in ALL {
        let tokens = endpoint();
        let backend = Backend::always(status(401));
        let keys = oauth(&tokens.url("/"), "");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let expected_reply = match binary {
            Binary::TcpLookup => "400 backend%20answered%20401",
            Binary::Socketmap => "TEMP backend answered 401",
            Binary::Policy => LATER,
        };
        let reply = ask(&program, binary, "key").await;
        same("refused", &reply, &framed(binary, expected_reply));
        assert_eq!((tokens.count(), backend.count()), (2, 2), "{binary:?}");
        assert_eq!(
            super::tokens(&backend),
            ["Bearer token-1", "Bearer token-2"],
            "{binary:?}"
        );
    }
}

#[tokio::test]
async fn a_backend_that_takes_no_token_does_not_wear_the_token_endpoint_out() {
    const ASKED: usize = 20;
    let binary = Binary::Socketmap;
    let tokens = endpoint();
    let backend = Backend::always(status(401));
    let keys = oauth(&tokens.url("/"), "");
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    let mut peer = program.peer().await;
    for _ in 0..ASKED {
        let reply = peer.ask(question(binary, "t", "key")).await;
        same("refused", &reply, &netstring("TEMP backend answered 401"));
    }
    assert!((2..=4).contains(&tokens.count()), "{}", tokens.count());
    assert!((ASKED..=2 * ASKED).contains(&backend.count()));
}

#[tokio::test]
async fn a_token_that_many_callers_saw_refused_is_renewed_once() {
    const CALLERS: usize = 10;
    let binary = Binary::Socketmap;
    let tokens = endpoint();
    let gate = Gate::shut();
    let waiting = gate.clone();
    let backend = Backend::new(move |request| match request.header("authorization") {
        Some("Bearer token-2") => dunno(),
        _ => {
            let mut script = vec![Act::Wait(waiting.clone())];
            script.extend(status(401));
            script
        }
    });
    let keys = format!("{}request-timeout = \"60s\"\n", oauth(&tokens.url("/"), ""));
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    let peers = program.asking(CALLERS).await;
    backend.asked(CALLERS).await;
    gate.pass(CALLERS);
    for mut peer in peers {
        same("renewed", &peer.reply().await, &DUNNO.by(binary));
    }
    assert_eq!((tokens.count(), backend.count()), (2, 2 * CALLERS));
}

#[tokio::test]
async fn only_a_401_renews_a_token() {
    let binary = Binary::Socketmap;
    for (number, expected_reply) in [
        (403, "TEMP backend answered 403"),
        (407, "TEMP backend answered 407"),
        (400, "PERM backend answered 400"),
        (503, "TEMP backend answered 503"),
    ] {
        let tokens = endpoint();
        let backend = Backend::always(status(number));
        let keys = oauth(&tokens.url("/"), "");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let reply = ask(&program, binary, "key").await;
        same(expected_reply, &reply, &netstring(expected_reply));
        assert_eq!(
            (tokens.count(), backend.count()),
            (1, 1),
            "{expected_reply}"
        );
    }
    let backend = Backend::always(status(401));
    let config = table(binary, &backend.url("/"), "bearer-token = \"fixed\"");
    let program = serve(binary, config).await;
    let reply = ask(&program, binary, "key").await;
    same("fixed", &reply, &netstring("TEMP backend answered 401"));
    assert_eq!(backend.count(), 1);
}
