//! Answers that the programs keep, and calls that they share.

use std::sync::Mutex;

use rustix::process::Signal;

use crate::support::{
    backend::{Act, Backend, Gate, Script, json, plain, response, status},
    peer::{framed, question},
    program::{ALL, Binary, LOOKUPS},
    same,
    tables::{echo, echo_of, echoed, failed, found, key_of, not_found, serve_tcp, table},
};

/// The endpoint's keys with this cache; policy asks by recipient.
fn keys(binary: Binary, members: &str) -> String {
    let by = match binary {
        Binary::Policy => ", by = [\"recipient\"]",
        Binary::TcpLookup | Binary::Socketmap => "",
    };
    format!("cache = {{ {members}{by} }}")
}

const FOR_LONG: &str = "ttl = \"1h\", negative-ttl = \"1h\"";

/// A backend that echoes each key, does not know `nobody`, and fails for `ill`.
fn mixed(binary: Binary) -> Backend {
    Backend::new(move |request| match key_of(binary, request).as_str() {
        "nobody" => status(204),
        "ill" => status(503),
        key => echo_of(binary, key),
    })
}

#[tokio::test]
async fn what_is_kept_is_not_asked_again_until_sigusr1() {
    for binary in ALL {
        let backend = mixed(binary);
        let config = table(binary, &backend.url("/"), &keys(binary, FOR_LONG));
        let program = serve_tcp(binary, config).await;
        let mut peer = program.peer().await;
        let ill = failed(binary, "backend answered 503");
        let rows = [
            ("joe", echoed(binary, "joe")),
            ("nobody", not_found(binary)),
        ];
        for count in [2, 4] {
            for _ in 0..5 {
                for (key, expected) in &rows {
                    let reply = peer.ask(question(binary, "t", key)).await;
                    same(key, &reply, expected);
                }
                // On another connection, too.
                let mut other = program.peer().await;
                let reply = other.ask(question(binary, "t", "joe")).await;
                same("another connection", &reply, &echoed(binary, "joe"));
            }
            assert_eq!(backend.count(), count, "{binary:?}");
            program.signal(Signal::USR1);
            let emptied = |lines: &[String]| {
                let what = "cache: emptied of 2 answers";
                lines.iter().filter(|line| line.contains(what)).count() == count / 2
            };
            program.stderr.until("an emptied cache", emptied).await;
        }
        for count in [5, 6, 7] {
            let reply = peer.ask(question(binary, "t", "ill")).await;
            same("a failure", &reply, &ill);
            assert_eq!(backend.count(), count, "{binary:?}: a failure is kept");
        }
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_said_is_a_failure_and_not_kept() {
    let mut wrong = crate::support::Wrong::default();
    for (binary, what, bad) in [
        (Binary::Policy, "a permission", plain("OK")),
        (Binary::Policy, "no action", plain("It works")),
        (Binary::Policy, "a long action", plain("a".repeat(600))),
        (Binary::Socketmap, "a line feed", json(r#""a\nb""#)),
        (Binary::Socketmap, "a NUL", json(r#""a\u0000b""#)),
        (
            Binary::TcpLookup,
            "a long value",
            json(format!("\"{}\"", "a".repeat(5_000))),
        ),
    ] {
        let backend = Backend::in_turn([bad, echo_of(binary, "joe")]);
        let config = table(binary, &backend.url("/"), &keys(binary, FOR_LONG));
        let program = serve_tcp(binary, config).await;
        let mut peer = program.peer().await;
        let mut replies = Vec::new();
        for _ in 0..2 {
            replies.push(peer.ask(question(binary, "t", "joe")).await);
        }
        let reason = match binary {
            Binary::Policy => "backend answer not understood",
            Binary::TcpLookup | Binary::Socketmap => "value cannot be sent",
        };
        wrong.compare(what, &replies[0], &failed(binary, reason));
        wrong.compare(what, &replies[1], &echoed(binary, "joe"));
    }
    wrong.none();
}

#[tokio::test]
async fn without_a_cache_every_question_is_asked() {
    for binary in ALL {
        let backend = mixed(binary);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        for count in 1..=5 {
            let reply = peer.ask(question(binary, "t", "joe")).await;
            same(binary.name(), &reply, &echoed(binary, "joe"));
            assert_eq!(backend.count(), count, "{binary:?}");
        }
        program.signal(Signal::USR1);
        program.logged("cache: emptied of 0 answers").await;
        let reply = peer.ask(question(binary, "t", "joe")).await;
        same(binary.name(), &reply, &echoed(binary, "joe"));
    }
}

#[tokio::test]
async fn a_lifetime_of_false_keeps_nothing_of_that_kind() {
    for binary in ALL {
        for (members, again) in [
            ("ttl = false", ["joe", "nobody", "joe"]),
            ("negative-ttl = false", ["nobody", "joe", "nobody"]),
        ] {
            let backend = mixed(binary);
            let config = table(binary, &backend.url("/"), &keys(binary, members));
            let program = serve_tcp(binary, config).await;
            let mut peer = program.peer().await;
            for key in again {
                peer.ask(question(binary, "t", key)).await;
            }
            assert_eq!(backend.count(), 3, "{binary:?}: {members}");
        }
    }
}

#[tokio::test]
async fn a_reload_keeps_the_answers_of_an_endpoint_that_stays_as_it_is() {
    for binary in ALL {
        let backend = mixed(binary);
        let kept = keys(binary, FOR_LONG);
        let config = |more: &str, rest: &str| {
            table(binary, &backend.url("/"), &format!("{kept}\n{more}")) + rest
        };
        let program = serve_tcp(binary, config("", "")).await;
        let mut peer = program.peer().await;
        let mut reloads = 1;
        for (what, more, rest, count) in [
            ("at first", "", "", 1),
            ("the same file", "", "", 1),
            ("another section", "", "[log]\nlevel = \"debug\"\n", 1),
            ("a changed endpoint", "retries = 0", "", 2),
            ("as before", "retries = 0", "", 2),
            ("back again", "", "", 3),
        ] {
            program.rewrite(&config(more, rest));
            program.signal(Signal::HUP);
            reloads += 1;
            program.notified("READY=1", reloads).await;
            for _ in 0..3 {
                let reply = peer.ask(question(binary, "t", "joe")).await;
                same(what, &reply, &echoed(binary, "joe"));
            }
            assert_eq!(backend.count(), count, "{binary:?}: {what}");
        }
    }
}

/// A backend that waits at a gate before each answer but that of `warm`.
fn gated(binary: Binary, gate: &Gate, script: &Script) -> Backend {
    let (gate, script) = (gate.clone(), script.clone());
    Backend::new(move |request| {
        if key_of(binary, request) == "warm" {
            return echo_of(binary, "warm");
        }
        let mut acts = vec![Act::Wait(gate.clone())];
        acts.extend(script.clone());
        acts
    })
}

#[tokio::test]
async fn a_hundred_equal_questions_at_once_are_one_call() {
    for binary in ALL {
        for (script, expected) in [
            (echo_of(binary, "joe"), echoed(binary, "joe")),
            (status(204), not_found(binary)),
            (status(503), failed(binary, "backend answered 503")),
        ] {
            let gate = Gate::shut();
            let backend = gated(binary, &gate, &script);
            let long = format!("{}\nrequest-timeout = \"80s\"", keys(binary, FOR_LONG));
            let program = serve_tcp(binary, table(binary, &backend.url("/"), &long)).await;
            let mut peers = Vec::new();
            for _ in 0..100 {
                let mut peer = program.peer().await;
                peer.ask(question(binary, "t", "warm")).await;
                peers.push(peer);
            }
            for peer in &mut peers {
                peer.send(question(binary, "t", "joe")).await;
            }
            backend.asked(2).await;
            // If two threads serve, each has one of these: the earlier requests have arrived too.
            for mut other in program.peers::<2>().await {
                for _ in 0..3 {
                    other.ask(question(binary, "t", "warm")).await;
                }
            }
            gate.pass(100);
            for peer in &mut peers {
                same(binary.name(), &peer.reply().await, &expected);
            }
            assert_eq!(backend.count(), 2, "{binary:?}");
        }
    }
}

#[tokio::test]
async fn a_shared_call_outlives_the_peer_that_made_it_and_ends_with_the_last() {
    for binary in ALL {
        let gate = Gate::shut();
        let mut script = echo_of(binary, "joe");
        let backend = gated(binary, &gate, &script);
        let long = format!("{}\nrequest-timeout = \"80s\"", keys(binary, FOR_LONG));
        let program = serve_tcp(binary, table(binary, &backend.url("/"), &long)).await;
        // Where two threads serve, they take turns: each of the first two has a neighbour, whose
        // answer shows that the program has noticed the earlier requests.
        let [mut first, mut second, mut of_first, mut of_second] = program.peers().await;
        first.send(question(binary, "t", "joe")).await;
        backend.asked(1).await;
        second.send(question(binary, "t", "joe")).await;
        of_second.ask(question(binary, "t", "warm")).await;
        first.reset();
        of_first.ask(question(binary, "t", "warm")).await;
        gate.pass(1);
        same(binary.name(), &second.reply().await, &echoed(binary, "joe"));
        assert_eq!(backend.count(), 2, "{binary:?}: joe and warm");

        script = vec![Act::Hang];
        backend.set(script);
        let mut third = program.peer().await;
        third.send(question(binary, "t", "jim")).await;
        backend.asked(3).await;
        second.send(question(binary, "t", "jim")).await;
        of_second.ask(question(binary, "t", "warm")).await;
        third.reset();
        second.reset();
        backend.left(1).await;
        assert_eq!(backend.count(), 3, "{binary:?}: asked again for nobody");
    }
}

#[tokio::test]
async fn old_answers_are_said_while_the_backend_is_ill_where_the_operator_allows_it() {
    for binary in ALL {
        for is_allowed in [true, false] {
            let backend = Backend::in_turn([echo_of(binary, "joe"), status(503)]);
            let stale = if is_allowed {
                "ttl = \"1ms\", stale-if-error = \"1h\""
            } else {
                "ttl = \"1ms\""
            };
            let config = table(binary, &backend.url("/"), &keys(binary, stale));
            let program = serve_tcp(binary, config).await;
            let mut peer = program.peer().await;
            let reply = peer.ask(question(binary, "t", "joe")).await;
            same(binary.name(), &reply, &echoed(binary, "joe"));
            let ill = failed(binary, "backend answered 503");
            // The answer is good for a millisecond, and then the backend is asked again.
            while backend.count() < 4 {
                let before = backend.count();
                let reply = peer.ask(question(binary, "t", "joe")).await;
                let was_asked = backend.count() > before;
                let expected = match (was_asked, is_allowed) {
                    (true, false) => &ill,
                    _ => &echoed(binary, "joe"),
                };
                same(binary.name(), &reply, expected);
            }
        }
    }
}

#[tokio::test]
async fn tables_and_maps_do_not_share_their_answers() {
    let backend = Backend::new(|request| {
        let query = request.query();
        let text = |at: usize| String::from_utf8_lossy(&query[at].1).into_owned();
        json(format!("\"{} of {}\"", text(1), text(0)))
    });
    let binary = Binary::Socketmap;
    let any = format!(
        "[socketmap.\"*\"]\ntarget = \"{}\"\ncache = {{ {FOR_LONG} }}\n",
        backend.url("/")
    );
    let own = table(binary, &backend.url("/"), &keys(binary, FOR_LONG));
    let program = serve_tcp(binary, own + &any).await;
    let mut peer = program.peer().await;
    for _ in 0..3 {
        for map in ["t", "a", "b", "ab"] {
            for key in ["k", "bk"] {
                let reply = peer.ask(question(binary, map, key)).await;
                same(map, &reply, &found(binary, &format!("{key} of {map}")));
            }
        }
    }
    assert_eq!(backend.count(), 8);
}

#[tokio::test]
async fn keys_that_are_made_equal_share_their_answer() {
    for binary in LOOKUPS {
        let backend = echo(binary);
        let made = "normalise = { lowercase = true, delimiter = \"+\" }";
        let both = format!("{}\n{made}", keys(binary, FOR_LONG));
        let program = serve_tcp(binary, table(binary, &backend.url("/"), &both)).await;
        let mut peer = program.peer().await;
        for key in ["Joe+x@A.example", "joe@a.example", "JOE+y+z@a.EXAMPLE"] {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &echoed(binary, "joe@a.example"));
        }
        assert_eq!(backend.count(), 1, "{binary:?}");
    }
}

#[tokio::test]
async fn a_policy_question_is_what_the_operator_says_it_is() {
    let backend = Backend::new(|request| {
        let form = request.form();
        let value = |wanted: &[u8]| {
            let found = form.iter().find(|(name, _)| name == wanted);
            let value = found.map(|(_, value)| value.as_slice());
            String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
        };
        plain(format!(
            "REJECT {}>{}",
            value(b"sender"),
            value(b"recipient")
        ))
    });
    let by = format!("cache = {{ {FOR_LONG}, by = [\"sender\", \"recipient\"] }}");
    let binary = Binary::Policy;
    let program = serve_tcp(binary, table(binary, &backend.url("/"), &by)).await;
    let mut peer = program.peer().await;
    for (block, expected, count) in [
        ("sender=a\nrecipient=b\n", "a>b", 1),
        (
            "sender=a\nrecipient=b\nclient_address=192.0.2.1\n",
            "a>b",
            1,
        ),
        ("recipient=b\nsize=5\nsender=a\nqueue_id=X\n", "a>b", 1),
        ("sender=a\nrecipient=c\n", "a>c", 2),
        ("sender=b\nrecipient=a\n", "b>a", 3),
        ("sender=A\nrecipient=b\n", "A>b", 4),
        ("sender=\nrecipient=b\n", ">b", 5),
        ("recipient=b\n", ">b", 5),
        ("sender=ab\nrecipient=\n", "ab>", 6),
        ("sender=\nrecipient=ab\n", ">ab", 7),
        ("sender=a\nrecipient=b\n", "a>b", 7),
    ] {
        let reply = peer.ask(format!("{block}\n")).await;
        let expected = framed(binary, format!("REJECT {expected}"));
        same(block, &reply, &expected);
        assert_eq!(backend.count(), count, "{block}");
    }
}

#[tokio::test]
async fn the_backends_own_word_is_honoured_where_the_operator_wants_it() {
    let binary = Binary::Socketmap;
    let rows: [(&[(&str, &str)], bool); 7] = [
        (&[("Cache-Control", "max-age=3600")], true),
        (&[("Cache-Control", "no-store")], false),
        (&[("Cache-Control", "max-age=0")], false),
        (&[("Expires", "0")], false),
        (&[], true),
        // Several lines of one header are one list (RFC 9110, section 5.3).
        (
            &[
                ("Cache-Control", "no-store"),
                ("Cache-Control", "max-age=60"),
            ],
            false,
        ),
        (
            &[
                ("Cache-Control", "max-age=60"),
                ("Cache-Control", "no-store"),
            ],
            false,
        ),
    ];
    let mut wrong = crate::support::Wrong::default();
    for (headers, is_kept) in rows {
        for is_honoured in [true, false] {
            let mut all = vec![("Content-Type", "application/json")];
            all.extend(headers);
            let backend = Backend::always(response(200, &all, "\"joe\""));
            let members = format!("{FOR_LONG}, honour-http = {is_honoured}");
            let config = table(binary, &backend.url("/"), &keys(binary, &members));
            let program = serve_tcp(binary, config).await;
            let mut peer = program.peer().await;
            for _ in 0..2 {
                let reply = peer.ask(question(binary, "t", "joe")).await;
                same("joe", &reply, &found(binary, "joe"));
            }
            let expected = if is_kept || !is_honoured { 1 } else { 2 };
            let seen = backend.count();
            wrong.require(
                &format!("{headers:?}, honoured: {is_honoured}"),
                seen == expected,
                || format!("asked {seen} times, not {expected}"),
            );
        }
    }
    wrong.none();
}

#[tokio::test]
async fn an_answer_is_renewed_before_its_end_without_anybody_waiting() {
    for binary in ALL {
        let gate = Gate::shut();
        let backend = {
            let gate = gate.clone();
            let asked = Mutex::new(0);
            Backend::new(move |_| {
                let mut asked = asked.lock().expect("a lock");
                *asked += 1;
                if *asked == 1 {
                    return echo_of(binary, "old");
                }
                let mut script = vec![Act::Wait(gate.clone())];
                script.extend(echo_of(binary, "new"));
                script
            })
        };
        // Half of the lifetime is the most that is renewed ahead: from a second on.
        let members = "ttl = \"2s\", refresh-ahead = \"1h\"";
        let config = table(binary, &backend.url("/"), &keys(binary, members));
        let program = serve_tcp(binary, config).await;
        let mut peer = program.peer().await;
        let is_renewing = async {
            loop {
                let reply = peer.ask(question(binary, "t", "key")).await;
                same("kept", &reply, &echoed(binary, "old"));
            }
        };
        tokio::select! {
            () = is_renewing => {}
            _ = backend.asked(2) => {}
        }
        gate.pass(1);
        let mut other = program.peer().await;
        loop {
            let reply = other.ask(question(binary, "t", "key")).await;
            if reply == echoed(binary, "new") {
                break;
            }
            same("not yet", &reply, &echoed(binary, "old"));
        }
        assert_eq!(backend.count(), 2, "{binary:?}");
    }
}
