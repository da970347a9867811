//! Answers that programs share in a Redis, as on several hosts.

use rustix::process::Signal;

use crate::metrics::{page, value};
use crate::redis_server::Server;
use crate::support::{
    backend::{Act, Backend, Gate, json, plain, response, status},
    peer::question,
    program::{ALL, Binary, Launch, Program},
    same, soon,
    tables::{ask, echo_of, echoed, failed, found, key_of, not_found, serve, table, table_named},
};

/// The cache of a table, with these members, for all hosts; policy asks by recipient.
fn shared(binary: Binary, members: &str) -> String {
    let by = match binary {
        Binary::Policy => ", by = [\"recipient\"]",
        Binary::TcpLookup | Binary::Socketmap => "",
    };
    format!("cache = {{ shared = true, {members}{by} }}")
}

const FOR_LONG: &str = "ttl = \"1h\", negative-ttl = \"1h\"";

/// A configuration with this Redis, which has time enough on a slow machine.
fn with_store(server: &Server, config: &str) -> String {
    let url = server.url("");
    format!("[store]\nredis = \"{url}\"\ntimeout = \"10s\"\n{config}")
}

fn config(server: &Server, binary: Binary, backend: &Backend) -> String {
    let keys = shared(binary, FOR_LONG);
    with_store(server, &table(binary, &backend.url("/"), &keys))
}

/// A backend that echoes each key, does not know `nobody`, and fails for `ill`.
fn mixed(binary: Binary) -> Backend {
    Backend::new(move |request| match key_of(binary, request).as_str() {
        "nobody" => status(204),
        "ill" => status(503),
        key => echo_of(binary, key),
    })
}

/// The keys of all answers in Redis.
fn kept(server: &Server) -> Vec<String> {
    let mut keys: Vec<String> = server.connection("").answer("KEYS *{cache}*");
    keys.retain(|key| !key.ends_with(":generation"));
    keys
}

/// Waits until so many answers are in Redis: no reply waits for that.
async fn until_kept(server: &Server, count: usize) -> Vec<String> {
    let wait = async {
        loop {
            let keys = kept(server);
            if keys.len() == count {
                return keys;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("answers in Redis", wait).await
}

async fn asks(program: &Program, binary: Binary, key: &str, expected: &[u8]) {
    let reply = ask(program, binary, key).await;
    same(key, &reply, expected);
}

#[tokio::test]
async fn what_one_program_has_asked_another_does_not_ask() {
    for binary in ALL {
        let Some(server) = Server::start(&[]) else {
            return;
        };
        let backend = mixed(binary);
        let config = config(&server, binary, &backend);
        let first = serve(binary, config.clone()).await;
        asks(&first, binary, "joe", &echoed(binary, "joe")).await;
        asks(&first, binary, "nobody", &not_found(binary)).await;
        let ill = failed(binary, "backend answered 503");
        asks(&first, binary, "ill", &ill).await;
        let keys = until_kept(&server, 2).await;
        // A failure is not kept, and nothing shows what was asked.
        let table = format!("postgate:{{cache}}:{}.t:", binary.name());
        for key in &keys {
            assert!(key.starts_with(&table) && !key.contains("joe"), "{key}");
        }
        let second = Launch::new(binary)
            .config(config)
            .unix("t")
            .tcp4("metrics")
            .ready()
            .await;
        for _ in 0..2 {
            asks(&second, binary, "joe", &echoed(binary, "joe")).await;
            asks(&second, binary, "nobody", &not_found(binary)).await;
        }
        assert_eq!(backend.count(), 3, "{binary:?}");
        asks(&second, binary, "ill", &ill).await;
        assert_eq!(backend.count(), 4, "{binary:?}");
        let (_, text) = page(&second, "/metrics").await;
        let program = binary.name();
        for (kind, count) in [("shared", 2.0), ("hit", 2.0), ("miss", 1.0), ("stale", 0.0)] {
            let labels = format!("kind=\"{kind}\",table=\"t\",program=\"{program}\"");
            let sample = format!("postgate_cache_answers_total{{{labels}}}");
            assert_eq!(value(&text, &sample), count, "{kind}");
        }
    }
}

#[tokio::test]
async fn an_answer_from_another_program_has_what_is_left_of_its_lifetime() {
    for binary in ALL {
        let Some(server) = Server::start(&[]) else {
            return;
        };
        let backend = mixed(binary);
        let config = config(&server, binary, &backend);
        let first = serve(binary, config.clone()).await;
        asks(&first, binary, "joe", &echoed(binary, "joe")).await;
        let keys = until_kept(&server, 1).await;
        let left: u64 = server.connection("").answer(&format!("PTTL {}", keys[0]));
        assert!((3_500_000..=3_600_000).contains(&left), "{left}");
        server.command(&format!("PEXPIRE {} 500", keys[0]));
        let second = serve(binary, config).await;
        let again = async {
            while backend.count() == 1 {
                asks(&second, binary, "joe", &echoed(binary, "joe")).await;
            }
        };
        soon("the end of its lifetime", again).await;
    }
}

#[tokio::test]
async fn sigusr1_empties_a_table_for_all_and_what_was_asked_before_is_not_kept() {
    for binary in ALL {
        let Some(server) = Server::start(&[]) else {
            return;
        };
        let gate = Gate::shut();
        let held = gate.clone();
        let backend = Backend::new(move |request| {
            let key = key_of(binary, request);
            let mut acts = vec![];
            if key == "slow" {
                acts.push(Act::Wait(held.clone()));
            }
            acts.extend(echo_of(binary, &key));
            acts
        });
        let config = config(&server, binary, &backend);
        let first = serve(binary, config.clone()).await;
        asks(&first, binary, "joe", &echoed(binary, "joe")).await;
        until_kept(&server, 1).await;
        let mut slow = first.peer().await;
        slow.send(question(binary, "t", "slow")).await;
        backend.asked(2).await;
        let generation = format!("GET postgate:{{cache}}:{}.t:generation", binary.name());
        let before: Vec<u8> = server.connection("").answer(&generation);
        first.signal(Signal::USR1);
        first.logged("cache: emptied of 1 answer").await;
        let emptied = async {
            while server.connection("").answer::<Vec<u8>>(&generation) == before {
                tokio::task::yield_now().await;
            }
        };
        soon("another generation", emptied).await;
        gate.pass(1);
        same("slow", &slow.reply().await, &echoed(binary, "slow"));
        until_kept(&server, 2).await;
        // Neither what was kept nor what came later is used.
        let second = serve(binary, config).await;
        asks(&second, binary, "joe", &echoed(binary, "joe")).await;
        gate.pass(1);
        asks(&second, binary, "slow", &echoed(binary, "slow")).await;
        assert_eq!(backend.count(), 4, "{binary:?}");
    }
}

#[tokio::test]
async fn emptied_while_redis_is_down_it_is_emptied_before_it_is_used_again() {
    let binary = Binary::Socketmap;
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let backend = mixed(binary);
    let program = serve(binary, config(&server, binary, &backend)).await;
    asks(&program, binary, "joe", &echoed(binary, "joe")).await;
    until_kept(&server, 1).await;
    // Its data stays, and nothing can be written.
    server.command("CONFIG SET maxmemory 1");
    asks(&program, binary, "ann", &echoed(binary, "ann")).await;
    program.logged("store: OOM").await;
    program.signal(Signal::USR1);
    program
        .logged("the shared answers of socketmap.t are not emptied")
        .await;
    server.command("CONFIG SET maxmemory 0");
    // Down or up: joe is asked for again, and from then on shared as before.
    let back = async {
        for number in 0.. {
            let key = format!("ben{number}");
            asks(&program, binary, &key, &echoed(binary, &key)).await;
            if program.lines("store: it is back") > 0 {
                break;
            }
        }
    };
    soon("the store", back).await;
    let asked = |key: &str| {
        let requests = backend.requests();
        requests
            .iter()
            .filter(|request| key_of(binary, request) == key)
            .count()
    };
    assert_eq!(asked("joe"), 1);
    asks(&program, binary, "joe", &echoed(binary, "joe")).await;
    assert_eq!(asked("joe"), 2);
    assert_eq!(program.lines(" WARN store:"), 1);
}

#[tokio::test]
async fn while_redis_is_gone_or_hangs_it_is_as_if_it_were_not_there() {
    for hangs in [false, true] {
        for binary in ALL {
            let Some(mut server) = Server::start(&[]) else {
                return;
            };
            let backend = mixed(binary);
            let keys = shared(binary, "ttl = \"1ms\", negative-ttl = \"1ms\"");
            let config = with_store(&server, &table(binary, &backend.url("/"), &keys));
            let program = serve(binary, config.replace("\"10s\"", "\"200ms\"")).await;
            asks(&program, binary, "joe", &echoed(binary, "joe")).await;
            if hangs {
                server.hang(true);
            } else {
                server.kill();
            }
            let down = async {
                while program.lines("WARN store: ") == 0 {
                    asks(&program, binary, "joe", &echoed(binary, "joe")).await;
                    asks(&program, binary, "nobody", &not_found(binary)).await;
                }
            };
            soon("a warning", down).await;
            for number in 0..50 {
                let key = format!("joe{number}");
                asks(&program, binary, &key, &echoed(binary, &key)).await;
            }
            if hangs {
                server.hang(false);
            } else {
                server.run();
            }
            let back = async {
                while program.lines("store: it is back") == 0 {
                    asks(&program, binary, "joe", &echoed(binary, "joe")).await;
                }
            };
            soon("the store", back).await;
            assert_eq!(program.lines("WARN store: "), 1, "{binary:?}");
            program.stop().await;
        }
    }
}

#[tokio::test]
async fn what_is_damaged_or_cannot_be_said_is_asked_for_again() {
    let binary = Binary::Policy;
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let backend = Backend::new(move |request| match key_of(binary, request).as_str() {
        "ok" => plain("OK"),
        key => echo_of(binary, key),
    });
    let permits = |permits: bool| {
        let keys = shared(binary, FOR_LONG) + &format!("\npermit-actions = {permits}");
        with_store(&server, &table(binary, &backend.url("/"), &keys))
    };
    let first = serve(binary, permits(true)).await;
    asks(&first, binary, "joe", &echoed(binary, "joe")).await;
    let joe = until_kept(&server, 1).await.remove(0);
    asks(&first, binary, "ok", &found(binary, "OK")).await;
    let keys = until_kept(&server, 2).await;
    let ok = keys.iter().find(|key| **key != joe).expect("another");
    // The same answer, where this table may not say it.
    let strict = serve(binary, permits(false)).await;
    let refused = failed(binary, "backend answer not understood");
    asks(&strict, binary, "ok", &refused).await;
    assert_eq!(backend.count(), 3);
    asks(&strict, binary, "joe", &echoed(binary, "joe")).await;
    assert_eq!(backend.count(), 3);
    let mut connection = server.connection("");
    let whole: Vec<u8> = connection.bytes("GET", &joe, &[]);
    let other: Vec<u8> = connection.bytes("GET", ok, &[]);
    let mut damaged = vec![other, Vec::new(), b"DUNNO".to_vec()];
    damaged.extend((0..whole.len()).map(|len| whole[..len].to_vec()));
    damaged.extend((0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    }));
    let mut commands: Vec<_> = damaged
        .iter()
        .map(|bytes| ("SET", vec![bytes.as_slice(), b"PX", b"3600000"]))
        .collect();
    // One without an end would be used for ever, and another kind is no answer.
    commands.extend([
        ("PERSIST", vec![]),
        ("DEL", vec![]),
        ("LPUSH", vec![b"x".as_slice()]),
    ]);
    let mut count = backend.count();
    for (command, arguments) in commands {
        if command == "LPUSH" {
            connection.command(&format!("DEL {joe}"));
        }
        let _: redis::Value = connection.bytes(command, &joe, &arguments);
        let program = serve(binary, permits(true)).await;
        asks(&program, binary, "joe", &echoed(binary, "joe")).await;
        count += 1;
        assert_eq!(backend.count(), count, "{command} {arguments:?}");
        // Whole again, as the program keeps it.
        let repaired = async {
            let of_a_kind = format!("TYPE {joe}");
            while connection.answer::<String>(&of_a_kind) != "string"
                || connection.bytes::<Vec<u8>>("GET", &joe, &[]) != whole
                || connection.answer::<i64>(&format!("PTTL {joe}")) < 0
            {
                tokio::task::yield_now().await;
            }
        };
        soon("a whole answer", repaired).await;
    }
}

#[tokio::test]
async fn tables_share_answers_only_where_they_would_get_the_same() {
    let binary = Binary::Socketmap;
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let backend = Backend::new(|_| json("\"x\""));
    let url = backend.url("/");
    let one = |name: &str, keys: &str| {
        let keys = format!("query = {{ key = \"{{key}}\" }}\n{keys}");
        with_store(&server, &table_named(binary, name, &url, &keys))
    };
    let http = |cache: &str| format!("[http]\ncache = {{ {cache} }}\n");
    let rows = [
        ("a table", one("t", "") + &http("shared = true"), true),
        ("the same", one("t", "cache = { shared = true }"), false),
        (
            "another token",
            one("t", "bearer-token = \"x\"\ncache = { shared = true }"),
            false,
        ),
        (
            "another lifetime",
            one("t", "cache = { shared = true, ttl = \"2m\" }"),
            true,
        ),
        (
            "a header",
            one("t", "headers = { X-T = \"1\" }\ncache = { shared = true }"),
            true,
        ),
        (
            "another header",
            one("t", "headers = { X-T = \"2\" }\ncache = { shared = true }"),
            true,
        ),
        (
            "its own cache",
            one("t", "cache = { shared = false }") + &http("shared = true"),
            true,
        ),
        (
            "another name",
            one("\"*\"", "cache = { shared = true }"),
            true,
        ),
        (
            "a header again",
            one("t", "headers = { X-T = \"1\" }\ncache = { shared = true }"),
            false,
        ),
    ];
    let (mut count, mut entries) = (0, 0);
    for (what, config, is_asked) in rows {
        let is_shared = what != "its own cache";
        let program = serve(binary, config).await;
        asks(&program, binary, "joe", &found(binary, "x")).await;
        count += usize::from(is_asked);
        assert_eq!(backend.count(), count, "{what}");
        entries += usize::from(is_asked && is_shared);
        until_kept(&server, entries).await;
    }
}

#[tokio::test]
async fn headers_rule_lifetimes_for_all_programs() {
    for binary in ALL {
        let Some(server) = Server::start(&[]) else {
            return;
        };
        let backend = Backend::new(move |request| {
            let key = key_of(binary, request);
            let (kind, body) = match binary {
                Binary::Policy => ("text/plain", format!("REJECT {key}")),
                _ => ("application/json", format!("\"{key}\"")),
            };
            let control = if key == "none" {
                "no-store"
            } else {
                "max-age=7200"
            };
            response(
                200,
                &[("Content-Type", kind), ("Cache-Control", control)],
                body,
            )
        });
        let keys = shared(binary, &format!("{FOR_LONG}, honour-http = true"));
        let config = with_store(&server, &table(binary, &backend.url("/"), &keys));
        let program = serve(binary, config.clone()).await;
        asks(&program, binary, "none", &echoed(binary, "none")).await;
        asks(&program, binary, "joe", &echoed(binary, "joe")).await;
        let keys = until_kept(&server, 1).await;
        let left: u64 = server.connection("").answer(&format!("PTTL {}", keys[0]));
        assert!((7_100_000..=7_200_000).contains(&left), "{left}");
        let other = serve(binary, config).await;
        asks(&other, binary, "none", &echoed(binary, "none")).await;
        asks(&other, binary, "joe", &echoed(binary, "joe")).await;
        assert_eq!(backend.count(), 3, "{binary:?}");
    }
}

#[tokio::test]
async fn a_query_shows_what_the_backend_answers() {
    let binary = Binary::Socketmap;
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let backend = mixed(binary);
    let config = config(&server, binary, &backend);
    let program = serve(binary, config.clone()).await;
    asks(&program, binary, "joe", &echoed(binary, "joe")).await;
    until_kept(&server, 1).await;
    for count in [2, 3] {
        let query = ["--query", "t", "joe"];
        let launch = Launch::new(binary).config(config.clone());
        let launch = query
            .iter()
            .fold(launch, |launch, word| launch.argument(*word));
        launch.end().await.status(0);
        assert_eq!(backend.count(), count);
    }
}
