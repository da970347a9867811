//! The contents of the log, and the data that must not be in it.

use crate::support::{
    backend::{Act, Backend, Script, good, json, status},
    peer::{netstring, question},
    program::{ALL, Binary, End, Launch},
    same,
    tables::{found, serve_tcp, table},
};

/// Answers in each way once, then as the first again.
fn every_way(binary: Binary) -> Vec<Script> {
    vec![
        good(binary, "DUNNO"),
        status(204),
        status(503),
        status(400),
        json("{"),
        vec![Act::Reset],
        vec![Act::Reset],
        status(404),
    ]
}

/// Runs requests of every outcome and returns the end of the program, with its log.
async fn logged(binary: Binary, level: &str) -> (End, Backend) {
    let backend = Backend::in_turn(every_way(binary));
    let keys = "auth-token = \"s3cret-token\"\nbasic-auth = { user = \"joe\", password = \"s3cret-word\" }\n\
                headers = { X-Api = \"s3cret-header\" }";
    let config = format!(
        "[log]\nlevel = \"{level}\"\n{}",
        table(binary, &backend.url("/p4th?q=qu3ry"), keys)
    );
    let program = serve_tcp(binary, config).await;
    let mut peer = program.peer().await;
    for _ in 0..7 {
        peer.ask(question(binary, "t", "k3y@example.com")).await;
    }
    drop(peer);
    let mut peer = program.peer().await;
    peer.send_what_it_takes("k3y\nk3y\n\n").await;
    peer.everything().await;
    (program.stop().await, backend)
}

#[tokio::test]
async fn a_backend_that_changes_its_status_does_not_fill_the_log() {
    let binary = Binary::Socketmap;
    let statuses: Vec<_> = (400..500).chain(505..600).map(status).collect();
    let count = statuses.len();
    let backend = Backend::in_turn(statuses);
    let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
    let mut peer = program.peer().await;
    for _ in 0..count {
        peer.ask(question(binary, "t", "key")).await;
    }
    assert_eq!(backend.count(), count);
    let end = program.stop().await;
    let lines = end.stderr.lines().filter(|line| line.contains(" WARN "));
    // As many as in ten seconds, twice: the test may take longer than that.
    assert!((5..=10).contains(&lines.count()), "{end:#?}");
}

#[tokio::test]
async fn at_info_the_log_holds_no_key_no_secret_and_no_path() {
    for binary in ALL {
        let (end, backend) = logged(binary, "info").await;
        for hidden in ["s3cret", "k3y", "p4th", "qu3ry", "example.com"] {
            assert!(!end.stderr.contains(hidden), "{hidden} in {end:#?}");
        }
        // Where there is no answer, the log says from where.
        let backend = backend.address().to_string();
        let lines = end.stderr.lines();
        let with_address: Vec<_> = lines.filter(|line| line.contains(&backend)).collect();
        assert_eq!(with_address.len(), 1, "{end:#?}");
        let expected = format!("backend unreachable: {backend}: Connection reset by peer");
        assert!(with_address[0].contains(&expected), "{end:#?}");
        assert_eq!(end.stdout, "");
        for reason in [
            "backend answered 503",
            "backend answered 400",
            "backend answer not understood",
            "backend unreachable",
            "request not understood",
        ] {
            end.says(reason);
        }
    }
}

#[tokio::test]
async fn at_debug_each_request_has_its_line_and_secrets_stay_hidden() {
    for binary in ALL {
        let (end, backend) = logged(binary, "debug").await;
        for request in backend.requests() {
            end.says(request.header("x-request-id").expect("an X-Request-Id"));
        }
        assert!(!end.stderr.contains("s3cret"), "{end:#?}");
        let lines = end.stderr.lines();
        let lines = lines
            .filter(|line| line.contains("k3y@example.com"))
            .count();
        // A policy request has no one key.
        let expected = if binary == Binary::Policy { 0 } else { 7 };
        assert!(lines >= expected, "{lines} lines with the key in {end:#?}");
        // Each has the name of a table or none, and no library has a line.
        let debug = end.stderr.lines().filter(|line| line.contains(" DEBUG "));
        for line in debug {
            let (_, expected_reply) = line.split_once(" DEBUG ").expect("what is said");
            let is_ours = ["t: ", "-: ", "connection: "]
                .iter()
                .any(|start| expected_reply.starts_with(start));
            assert!(is_ours, "{line} in {end:#?}");
        }
    }
}

#[tokio::test]
async fn a_flood_of_failures_is_a_few_lines() {
    for binary in ALL {
        let backend = Backend::always(status(503));
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        for _ in 0..300 {
            peer.ask(question(binary, "t", "key")).await;
        }
        for _ in 0..300 {
            let mut peer = program.peer().await;
            peer.send_what_it_takes("-\n\n").await;
            peer.everything().await;
        }
        let end = program.stop().await;
        end.says("backend answered 503");
        let lines = end.stderr.lines().count();
        assert!(lines < 60, "{lines} lines in {end:#?}");
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_costs_no_request() {
    for binary in ALL {
        let backend = Backend::in_turn([status(503), status(400), good(binary, "DUNNO")]);
        let program = Launch::new(binary)
            .config(table(binary, &backend.url("/"), ""))
            .tcp4("t")
            .unheard()
            .ready()
            .await;
        // The first two are logged; the third tells that nothing was lost.
        let mut peer = program.peer().await;
        for _ in 0..2 {
            peer.ask(question(binary, "t", "key")).await;
        }
        let reply = peer.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &found(binary, "DUNNO"));
        program.stop().await;
    }
}

#[tokio::test]
async fn outside_bytes_are_escaped_in_the_log() {
    let backend = Backend::always(status(503));
    let config = format!(
        "[log]\nlevel = \"debug\"\n{}",
        table(Binary::Socketmap, &backend.url("/"), "")
    );
    let program = serve_tcp(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    let key = b"k3y\nsocketmap: forged \x1b[31m\xff";
    peer.ask(question(Binary::Socketmap, "t", key)).await;
    peer.ask(netstring("no\nsuch\x1bmap key")).await;
    let mut long = b"l0ng".to_vec();
    long.extend([b'a'; 5_000]);
    peer.ask(question(Binary::Socketmap, "t", long)).await;
    let end = program.stop().await;
    end.says("k3y").says("l0ng");
    for line in end.stderr.lines() {
        assert!(!line.starts_with("socketmap: forged"), "{end:#?}");
        assert!(!line.contains('\x1b'), "{end:#?}");
        assert!(!line.contains(&"a".repeat(200)), "{end:#?}");
    }
}
