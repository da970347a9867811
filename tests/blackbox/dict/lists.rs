//! Lists, in every form that an API may answer them in.

use super::{calls, hello, serve, served, table, talk};
use crate::support::{
    Wrong,
    backend::{Act, Backend, Gate, Script, json, status},
};

/// A sub-table for lists at this target.
fn iterate(backend: &Backend) -> String {
    format!(
        "iterate = {{ target = \"{}\" }}",
        backend.url("/list{/path*}")
    )
}

/// A backend whose list is this, and whose values are their keys.
fn backend(list: &str) -> Backend {
    let list = list.to_owned();
    Backend::new(move |request| match request.target.starts_with("/list") {
        true => json(&list),
        false => value_of(&request.target),
    })
}

/// The last segment of the key in a query, unless that is gone.
fn value_of(target: &str) -> Script {
    let (_, key) = target.split_once("key=").expect("a key");
    let key = key.split('&').next().expect("a key");
    let name = key.rsplit("%2F").next().expect("a name");
    match name {
        "gone" => status(404),
        "null" => json("null"),
        "bad" => status(503),
        name => json(format!("\"v-{name}\"")),
    }
}

#[tokio::test]
async fn rows_carry_path_and_name_in_the_order_of_the_answer() {
    let mut wrong = Wrong::default();
    for (answer, expected) in [
        (
            r#"{"b": "2", "a": {"x": 1}, "c": ""}"#,
            "Oshared/p/b\t2\nOshared/p/a\t{\"x\": 1}\nOshared/p/c\t\n\n",
        ),
        (
            r#"[{"key": "b", "value": "2"}, {"key": "a", "value": [1]}]"#,
            "Oshared/p/b\t2\nOshared/p/a\t[1]\n\n",
        ),
        (r#"["b", "a"]"#, "Oshared/p/b\tv-b\nOshared/p/a\tv-a\n\n"),
        (
            r#"[{"key": "b"}, "a", {"key": "c", "value": "3"}]"#,
            "Oshared/p/b\tv-b\nOshared/p/a\tv-a\nOshared/p/c\t3\n\n",
        ),
        // What is gone meanwhile is left out.
        (
            r#"["a", "gone", "null", "b"]"#,
            "Oshared/p/a\tv-a\nOshared/p/b\tv-b\n\n",
        ),
        (r#"{"a": null, "b": "2"}"#, "Oshared/p/b\t2\n\n"),
        (
            r#"[{"key": "a", "value": null}, {"key": "b", "value": false}]"#,
            "Oshared/p/b\tfalse\n\n",
        ),
        // A row whose value cannot be had ends the list with a failure.
        (
            r#"["a", "bad", "b"]"#,
            "Oshared/p/a\tv-a\nFbackend answered 503\n",
        ),
        // Names with a slash are for recursive lists.
        (r#"["a", "b/c"]"#, "Oshared/p/a\tv-a\n\n"),
        (
            r#"["\t", "\u00fc"]"#,
            "Oshared/p/\x01t\tv-%09\nOshared/p/\u{fc}\tv-%C3%BC\n\n",
        ),
        ("[]", "\n"),
        ("{}", "\n"),
        ("null", "\n"),
        ("5", "Fbackend answer not understood\n"),
        ("\"a\"", "Fbackend answer not understood\n"),
        ("[[]]", "Fbackend answer not understood\n"),
        ("[\"\"]", "Fbackend answer not understood\n"),
        ("x", "Fbackend answer not understood\n"),
    ] {
        let backend = backend(answer);
        let (_program, mut peer) = served(&backend, &iterate(&backend)).await;
        peer.send("I0\t0\tshared/p/\t\nLshared/last\t\n").await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"Ov-last\n") {
            seen.extend(peer.reply().await);
        }
        wrong.compare(answer, &seen, format!("{expected}Ov-last\n").as_bytes());
    }
    wrong.none();
}

#[tokio::test]
async fn flags_choose_and_sort_the_rows() {
    let mut wrong = Wrong::default();
    let list = r#"[{"key": "b", "value": "1"}, {"key": "a/x", "value": "3"}, {"key": "a", "value": "2"}, {"key": "c", "value": "1"}]"#;
    for (command, expected) in [
        ("I0\t0\tshared/p/\t", "b=1 a=2 c=1"),
        ("I1\t0\tshared/p/\t", "b=1 a/x=3 a=2 c=1"),
        ("I3\t0\tshared/p/\t", "a=2 a/x=3 b=1 c=1"),
        ("I5\t0\tshared/p/\t", "b=1 c=1 a=2 a/x=3"),
        ("I7\t0\tshared/p/\t", "a=2 a/x=3 b=1 c=1"),
        ("I8\t0\tshared/p/\t", "b= a= c="),
        ("I9\t0\tshared/p/\t", "b= a/x= a= c="),
        ("I32\t0\tshared/p/\t", "b=1 a=2 c=1"),
        ("I1\t2\tshared/p/\t", "b=1 a/x=3"),
        ("I5\t3\tshared/p/\t", "b=1 c=1 a=2"),
        ("I3\t1\tshared/p/\t", "a=2"),
        ("I1\t99\tshared/p\t", "b=1 a/x=3 a=2 c=1"),
    ] {
        let backend = backend(list);
        let (_program, mut peer) = served(&backend, &iterate(&backend)).await;
        peer.send(format!("{command}\n")).await;
        let rows = expected.split(' ').map(|row| {
            let (name, value) = row.split_once('=').expect("a row");
            format!("Oshared/p/{name}\t{value}\n")
        });
        let expected = format!("{}\n", rows.collect::<String>());
        let mut seen = Vec::new();
        while !seen.ends_with(b"\n\n") {
            seen.extend(peer.reply().await);
        }
        wrong.compare(command, &seen, expected.as_bytes());
        assert_eq!(backend.count(), 1, "{command}");
    }
    wrong.none();
}

#[tokio::test]
async fn values_are_looked_up_only_where_they_are_wanted() {
    let backend = backend(r#"["a", "b/c", "gone", "d"]"#);
    let (_program, mut peer) = served(&backend, &iterate(&backend)).await;
    talk(
        &mut peer,
        "I9\t0\tshared/p/\t\n",
        "Oshared/p/a\t\nOshared/p/b/c\t\nOshared/p/gone\t\nOshared/p/d\t\n\n",
    )
    .await;
    assert_eq!(calls(&backend.requests()), ["GET /list/p"]);
    talk(
        &mut peer,
        "I1\t0\tpriv/p/q/\tjoe\n",
        "Fkey cannot be sent\n",
    )
    .await;
    talk(
        &mut peer,
        "I5\t2\tshared/p/q/\tjoe\n",
        "Oshared/p/q/a\tv-a\nOshared/p/q/b/c\tv-c\n\n",
    )
    .await;
    let lookup = |key: &str| format!("GET /d?name=t&scope=shared&key=p%2Fq%2F{key}&user=joe");
    let mut seen = calls(&backend.requests()[1..]);
    seen[1..].sort();
    assert_eq!(
        seen,
        [
            "GET /list/p/q".to_owned(),
            lookup("a"),
            lookup("b%2Fc"),
            lookup("d"),
            lookup("gone")
        ]
    );
}

#[tokio::test]
async fn the_list_of_all_keys_has_names_right_below_their_kind() {
    let backend = backend(r#"["a"]"#);
    let (_program, mut peer) = served(&backend, &iterate(&backend)).await;
    talk(&mut peer, "I0\t0\tshared/\t\n", "Oshared/a\tv-a\n\n").await;
    assert_eq!(
        calls(&backend.requests()),
        ["GET /list", "GET /d?name=t&scope=shared&key=a&user="]
    );
}

#[tokio::test]
async fn the_list_of_an_exact_key_is_one_lookup() {
    let backend = backend("[]");
    // Also where a dict has no lists.
    let (_program, mut peer) = served(&backend, "").await;
    talk(&mut peer, "I16\t0\tshared/p/a\t\nI24\t0\tshared/p/a\t\nI16\t0\tshared/p/gone\t\nI16\t0\tshared/p/bad\t\n",
        "Oshared/p/a\tv-a\n\nOshared/p/a\t\n\n\nFbackend answered 503\n").await;
    assert_eq!(
        calls(&backend.requests())[0],
        "GET /d?name=t&scope=shared&key=p%2Fa&user="
    );
    talk(
        &mut peer,
        "I0\t0\tshared/p/\t\n",
        "Fdict cannot be listed\n",
    )
    .await;
    assert_eq!(backend.count(), 4);
}

#[tokio::test]
async fn a_list_that_fails_is_a_failure_and_one_that_is_not_there_has_no_rows() {
    let mut wrong = Wrong::default();
    for (row, answer, keys, expected) in [
        ("404", status(404), "", "\n"),
        ("204", status(204), "", "\n"),
        ("500", status(500), "", "Fbackend answered 500\n"),
        ("308", status(308), "", "Fbackend answered 308\n"),
        ("close", vec![Act::Close], "", "Fbackend unreachable\n"),
        (
            "hang",
            vec![Act::Hang],
            "request-timeout = \"300ms\"",
            "Fbackend timed out\n",
        ),
        (
            "long",
            json(format!("[\"{}\"]", "x".repeat(2_000))),
            "max-response = \"1KiB\"",
            "Fbackend answer too long\n",
        ),
        (
            "status",
            status(410),
            "status = { 410 = \"not-found\" }",
            "\n",
        ),
        (
            "error",
            json(r#"{"error": "x"}"#),
            "error = \"/error\"",
            "Fbackend reported an error\n",
        ),
        (
            "value",
            json(r#"{"data": {"a": "1"}}"#),
            "value = \"/data\"",
            "Oshared/p/a\t1\n\n",
        ),
        (
            "text",
            json(r#"{"a": "1"}"#),
            "response = \"text\"",
            "Oshared/p/a\t1\n\n",
        ),
    ] {
        let backend = Backend::always(answer);
        let keys = format!("{keys}\n{}", iterate(&backend));
        let (_program, mut peer) = served(&backend, &keys).await;
        peer.send("I0\t0\tshared/p/\t\n").await;
        let mut seen = peer.reply().await;
        if seen.starts_with(b"O") {
            seen.extend(peer.reply().await);
        }
        wrong.compare(row, &seen, expected.as_bytes());
    }
    wrong.none();
}

#[tokio::test]
async fn a_list_may_have_its_rows_elsewhere_than_a_lookup_its_value() {
    let backend = Backend::new(|request| match request.target.starts_with("/list") {
        true => json(r#"["a"]"#),
        false => json(r#"{"value": "1"}"#),
    });
    let keys = format!(
        "value = \"/value\"\niterate = {{ target = \"{}\", value = \"\" }}",
        backend.url("/list{/path*}")
    );
    let (_program, mut peer) = served(&backend, &keys).await;
    talk(
        &mut peer,
        "I0\t0\tshared/p/\t\nLshared/a\t\n",
        "Oshared/p/a\t1\n\nO1\n",
    )
    .await;
}

#[tokio::test]
async fn rows_go_out_as_they_come() {
    let gate = Gate::shut();
    let held = gate.clone();
    let backend = Backend::new(move |request| {
        let mut script = match request.target.contains("p%2Fb") {
            true => vec![Act::Wait(held.clone())],
            false => Script::new(),
        };
        script.extend(match request.target.starts_with("/list") {
            true => json(r#"["a", "b", "c"]"#),
            false => value_of(&request.target),
        });
        script
    });
    let (_program, mut peer) = served(&backend, &iterate(&backend)).await;
    peer.send("I0\t0\tshared/p/\t\nLshared/last\t\n").await;
    peer.expect("Oshared/p/a\tv-a\n").await;
    // The others are on their way, and what is behind the list as well.
    backend.asked(5).await;
    gate.pass(1);
    peer.expect("Oshared/p/b\tv-b\nOshared/p/c\tv-c\n\nOv-last\n")
        .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_list() {
    let names: Vec<_> = (0..500).map(|number| format!("\"{number}\"")).collect();
    let list = format!("[{}]", names.join(","));
    let value = "x".repeat(100_000);
    let backend = Backend::new(move |request| match request.target.starts_with("/list") {
        true => json(&list),
        false => json(format!("\"{value}\"")),
    });
    let program = serve(table(&backend.url("/d"), &iterate(&backend))).await;
    let mut peer = hello(&program).await;
    peer.send("I0\t0\tshared/p/\t\n").await;
    peer.expect("Oshared/p/0\t").await;
    // Another connection is served meanwhile.
    let mut other = hello(&program).await;
    other.send("Lshared/k\t\n").await;
    other.reply().await;
    assert!(backend.count() < 100, "{} calls", backend.count());
    let mut rows = 0;
    while peer.reply().await != b"\n" {
        rows += 1;
    }
    assert_eq!(rows, 500);
}

#[tokio::test]
async fn a_list_of_version_2_has_the_rows_of_all_its_paths() {
    let backend = Backend::new(|request| match request.target.as_str() {
        "/list/a" => json(r#"{"x": "1", "y": "2"}"#),
        "/list/b" => status(404),
        "/list/c" => json(r#"{"z": "3"}"#),
        _ => status(500),
    });
    let program = serve(table(&backend.url("/d"), &iterate(&backend))).await;
    let mut peer = program.peer().await;
    talk(
        &mut peer,
        "H2\t2\t0\t\tt\nI0\t0\tshared/a/\tshared/b/\tshared/c/\n",
        "Oshared/a/x\t1\nOshared/a/y\t2\nOshared/c/z\t3\n\n",
    )
    .await;
    talk(
        &mut peer,
        "I0\t2\tshared/a/\tshared/c/\n",
        "Oshared/a/x\t1\nOshared/a/y\t2\n\n",
    )
    .await;
    talk(
        &mut peer,
        "I0\t0\tshared/a/\tshared/d/\tshared/c/\n",
        "Oshared/a/x\t1\nOshared/a/y\t2\nFbackend answered 500\n",
    )
    .await;
}
