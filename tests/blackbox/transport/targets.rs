//! Several targets of one table, asked in their order.

use super::listed;
use crate::{
    servers::{
        certificates::{Validity, authority},
        hole::Hole,
        web::{Answer, Web},
    },
    support::{
        backend::{Act, Backend, dunno, json as answer, response, status},
        peer::{framed, netstring, question},
        program::{ALL, Binary, LOOKUPS, Reserved},
        replies::{DUNNO, LATER, NOT_UNDERSTOOD, TIMED_OUT, UNREACHABLE},
        same,
        tables::{ask, expect, serve},
    },
};

#[tokio::test]
async fn the_next_target_is_asked_when_one_is_unreachable() {
    for binary in ALL {
        let gone = [Reserved::new(), Reserved::new()];
        let backend = Backend::always(dunno());
        let urls = [
            format!("http://{}/first", gone[0].address()),
            format!("http://{}/second", gone[1].address()),
            backend.url("/third"),
        ];
        expect(binary, listed(binary, &urls, ""), DUNNO).await;
        let path = backend.only().target;
        assert_eq!(path.split('?').next(), Some("/third"));
    }
}

#[tokio::test]
async fn lookups_ask_the_next_target_when_one_answers_5xx() {
    for binary in LOOKUPS {
        for number in [500, 501, 502, 503, 504, 507, 599] {
            let first = Backend::always(status(number));
            let second = Backend::always(dunno());
            let urls = [first.url("/a"), second.url("/b")];
            expect(binary, listed(binary, &urls, ""), DUNNO).await;
            assert_eq!((first.count(), second.count()), (1, 1), "{number}");
        }
    }
}

#[tokio::test]
async fn lookups_take_every_other_answer_of_the_first_target() {
    let binary = Binary::Socketmap;
    for (script, expected_reply) in [
        (dunno(), "OK DUNNO"),
        (answer("null"), "NOTFOUND "),
        (status(204), "NOTFOUND "),
        (status(404), "NOTFOUND "),
        (status(401), "TEMP backend answered 401"),
        (status(403), "TEMP backend answered 403"),
        (status(408), "TEMP backend answered 408"),
        (status(429), "TEMP backend answered 429"),
        (status(201), "TEMP backend answered 201"),
        (status(400), "PERM backend answered 400"),
        (status(302), "PERM backend answered 302"),
        (answer("{"), "TEMP backend answer not understood"),
    ] {
        let first = Backend::always(script);
        let second = Backend::always(answer("\"second\""));
        let urls = [first.url("/"), second.url("/")];
        let program = serve(binary, listed(binary, &urls, "")).await;
        let reply = ask(&program, binary, "key").await;
        same(expected_reply, &reply, &netstring(expected_reply));
        assert_eq!((first.count(), second.count()), (1, 0), "{expected_reply}");
    }
}

#[tokio::test]
async fn the_last_target_has_the_last_word() {
    let binary = Binary::Socketmap;
    let first = Backend::always(status(500));
    let last = Backend::always(status(503));
    let urls = [first.url("/"), last.url("/")];
    let program = serve(binary, listed(binary, &urls, "")).await;
    let reply = ask(&program, binary, "key").await;
    same("5xx", &reply, &netstring("TEMP backend answered 503"));
    assert_eq!((first.count(), last.count()), (1, 1));

    for binary in ALL {
        let gone = [Reserved::new(), Reserved::new()];
        let urls = gone
            .each_ref()
            .map(|gone| format!("http://{}/", gone.address()));
        expect(binary, listed(binary, &urls, ""), UNREACHABLE).await;
    }
}

#[tokio::test]
async fn policy_asks_the_next_target_only_when_nothing_was_sent() {
    let binary = Binary::Policy;
    for script in [
        status(500),
        status(502),
        status(503),
        status(504),
        vec![Act::Close],
        vec![Act::Reset],
    ] {
        let first = Backend::always(script);
        let second = Backend::always(dunno());
        let urls = [first.url("/"), second.url("/")];
        let program = serve(binary, listed(binary, &urls, "")).await;
        let reply = ask(&program, binary, "key").await;
        same("deferred", &reply, &framed(binary, LATER));
        assert_eq!((first.count(), second.count()), (1, 0));
    }
}

#[tokio::test]
async fn lookups_ask_the_next_target_when_a_connection_broke() {
    for binary in LOOKUPS {
        let first = Backend::always(vec![Act::Close]);
        let second = Backend::always(dunno());
        let urls = [first.url("/"), second.url("/")];
        expect(binary, listed(binary, &urls, "retries = 0"), DUNNO).await;
        assert_eq!((first.count(), second.count()), (1, 1), "{binary:?}");
    }
}

#[tokio::test]
async fn every_target_has_its_own_path_and_placeholders() {
    let binary = Binary::Socketmap;
    let first = Backend::always(status(503));
    let second = Backend::always(dunno());
    let urls = [
        first.url("/one/{key}"),
        second.url("/two?of={name}&k={key}"),
    ];
    expect(binary, listed(binary, &urls, ""), DUNNO).await;
    assert_eq!(first.only().target, "/one/key");
    assert_eq!(second.only().target, "/two?of=t&k=key");
}

#[tokio::test]
async fn an_answer_that_was_no_use_once_costs_the_first_target_nothing() {
    for binary in LOOKUPS {
        let first = Backend::in_turn([status(500), dunno()]);
        let second = Backend::always(dunno());
        let urls = [first.url("/"), second.url("/")];
        let program = serve(binary, listed(binary, &urls, "")).await;
        let mut peer = program.peer().await;
        for _ in 0..2 {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same("found", &reply, &DUNNO.by(binary));
        }
        assert_eq!((first.count(), second.count()), (2, 1), "{binary:?}");
    }
}

#[tokio::test]
async fn all_targets_share_one_deadline() {
    for binary in ALL {
        let silent = Backend::always(vec![Act::Hang]);
        let good = Backend::always(dunno());
        let urls = [silent.url("/"), good.url("/")];
        let keys = "request-timeout = \"300ms\"";
        expect(binary, listed(binary, &urls, keys), TIMED_OUT).await;
        assert_eq!((silent.count(), good.count()), (1, 0), "{binary:?}");
    }
}

#[tokio::test]
async fn a_target_that_nobody_can_connect_to_in_time_gives_way_to_the_next() {
    let hole = Hole::new().await;
    for binary in ALL {
        let good = Backend::always(dunno());
        let urls = [hole.url("http", "/"), good.url("/")];
        let keys = "connect-timeout = \"200ms\"\nrequest-timeout = \"90s\"";
        expect(binary, listed(binary, &urls, keys), DUNNO).await;
        assert_eq!(good.count(), 1, "{binary:?}");
    }
}

#[tokio::test]
async fn a_target_with_a_bad_certificate_gives_way_to_the_next() {
    let (authority, _directory, ca) = authority();
    for binary in ALL {
        let identity = authority.server_named("127.0.0.1", Validity::Over);
        let bad = Web::secure(identity.tls().config(), |_| Answer::dunno());
        let good = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
        let urls = [bad.url("https", "/"), good.url("https", "/")];
        expect(binary, listed(binary, &urls, &ca), DUNNO).await;
        assert_eq!((bad.count(), good.count()), (0, 1), "{binary:?}");
    }
}

#[tokio::test]
async fn targets_of_either_scheme_stand_in_one_list() {
    let (authority, _directory, ca) = authority();
    let binary = Binary::Socketmap;
    let gone = Reserved::new();
    let plain = Backend::always(dunno());
    let secure = Web::secure(authority.server().tls().config(), |_| Answer::dunno());
    let urls = [
        format!("https://{}/", gone.address()),
        secure.url("https", "/"),
        plain.url("/"),
    ];
    expect(binary, listed(binary, &urls, &ca), DUNNO).await;
    assert_eq!((secure.count(), plain.count()), (1, 0), "{binary:?}");
    let urls = [urls[0].clone(), urls[2].clone()];
    expect(binary, listed(binary, &urls, &ca), DUNNO).await;
    assert_eq!((secure.count(), plain.count()), (1, 1), "{binary:?}");
}

#[tokio::test]
async fn lookups_ask_the_next_target_where_an_answer_is_not_the_apis() {
    for binary in ALL {
        let stray = Backend::always(status(404));
        let api = Backend::always(response(
            200,
            &[("X-Directory", "1"), ("Content-Type", "application/json")],
            "\"DUNNO\"",
        ));
        let config = format!(
            "[{}.t]\ntarget = [\"{}\", \"{}\"]\nrequire-header = {{ X-Directory = \"1\" }}\n",
            binary.name(),
            stray.url("/"),
            api.url("/"),
        );
        let program = serve(binary, config).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        // The server that has answered may have counted the policy request.
        let expected_reply = if binary == Binary::Policy {
            NOT_UNDERSTOOD
        } else {
            DUNNO
        };
        same(binary.name(), &reply, &expected_reply.by(binary));
    }
}
