//! What the log and the metrics say of a dict, and what they must not.

use super::{hello, served};
use crate::support::{
    backend::{Act, Backend, json, status},
    program::Launch,
};

async fn logged(level: &str) -> String {
    let backend = Backend::new(|request| match &request.target {
        target if target.contains("down") => status(503),
        target if target.contains("bad") => json("{\"v4lue-of-the-answer\": "),
        _ => json("{\"password\": \"v4lue-of-the-answer\"}"),
    });
    let config = format!(
        "[log]\nlevel = \"{level}\"\n[dict.t]\ntarget = \"{0}\"\nbearer-token = \"s3cret\"\n\
         set = {{ target = \"{0}{{/path*}}{{/user}}\", body = \"{{value}}\" }}\n\
         iterate = {{ target = \"{0}/l\", query = {{ k = \"{{key}}\" }} }}\n",
        backend.url("/d")
    );
    let program = Launch::dict().config(config).unix("dict").ready().await;
    let mut peer = hello(&program).await;
    for (sent, replies) in [
        ("Lshared/k3y\tus3r\n", 1),
        ("Lshared/k3y/down\tus3r\n", 1),
        ("Lshared/k3y/bad\tus3r\n", 1),
        ("I0\t0\tshared/k3y/\tus3r\n", 2),
        ("B1\tus3r\nS1\tpriv/k3y\tv4lue-written\nC1\n", 1),
        (
            "B1\tus3r\nS1\tpriv/k3y\tv4lue-written\nS1\tpriv/k3y/down\tv4lue-written\nC1\n",
            1,
        ),
        (
            "B1\th1dden-user\nV1\tyes\nS1\tpriv/h1dden\tv4lue-written\nC1\n",
            1,
        ),
        (
            "B1\th1dden-user\nV1\tyes\nS1\tpriv/h1dden/down\tv4lue-written\nC1\n",
            1,
        ),
        ("Lfoo/k3y\tus3r\n", 1),
    ] {
        peer.send(sent).await;
        for _ in 0..replies {
            peer.reply().await;
        }
    }
    peer.send("Xk3y\n").await;
    peer.expect_closed().await;
    program.stop().await.stderr
}

#[tokio::test]
async fn keys_and_users_are_logged_at_debug_only_and_values_never() {
    let log = logged("info").await;
    for hidden in ["k3y", "us3r", "v4lue", "h1dden", "s3cret"] {
        assert!(!log.contains(hidden), "{hidden}: {log}");
    }
    for there in [
        "t: backend answered 503",
        "t: backend answer not understood",
        "-: request not understood",
    ] {
        assert!(log.contains(there), "{there}: {log}");
    }
    let log = logged("debug").await;
    for hidden in ["v4lue", "h1dden", "s3cret"] {
        assert!(!log.contains(hidden), "{hidden}: {log}");
    }
    for there in [
        "t: found: t scope=shared key=k3y user=us3r",
        "t: temporary: t scope=shared key=k3y/down user=us3r",
        "t: done: t scope=shared key=k3y user=us3r",
        "t: done: t user=us3r set priv/k3y",
        "t: temporary: t user=us3r set priv/k3y set priv/k3y/down: 1 of 2 operations are done",
        "t: done: t ",
    ] {
        assert!(log.contains(there), "{there}: {log}");
    }
}

#[tokio::test]
async fn what_a_write_has_left_behind_is_not_lost_among_other_failures() {
    let backend = Backend::new(|request| match request.target.contains("hang") {
        true => vec![Act::Close],
        false => match request.target.contains("bad") {
            true => status(503),
            false => status(200),
        },
    });
    let keys = format!(
        "set = {{ target = \"{}\", body = \"{{value}}\" }}",
        backend.url("/s{/path*}")
    );
    let (program, mut peer) = served(&backend, &keys).await;
    for id in 0..5 {
        peer.send(format!("B{id}\t\nS{id}\tshared/bad\tv\nC{id}\n"))
            .await;
        peer.reply().await;
        peer.send(format!(
            "B{id}\t\nS{id}\tshared/a\tv\nS{id}\tshared/bad\tv\nC{id}\n"
        ))
        .await;
        peer.reply().await;
        peer.send(format!("B{id}\t\nS{id}\tshared/hang\tv\nC{id}\n"))
            .await;
        peer.reply().await;
    }
    let end = program.stop().await;
    let lines = |text: &str| {
        end.stderr
            .lines()
            .filter(|line| line.contains(text))
            .count()
    };
    assert_eq!(lines("backend answered 503"), 6, "{end:#?}");
    assert_eq!(lines("1 of 2 operations are done"), 5, "{end:#?}");
    assert_eq!(lines("backend unreachable: "), 1, "{end:#?}");
    assert_eq!(lines("it may have been done nevertheless"), 1, "{end:#?}");
}

#[tokio::test]
async fn a_transaction_that_a_stop_cuts_off_is_in_the_log() {
    let backend = Backend::new(|request| match request.target.contains("hang") {
        true => vec![Act::Hang],
        false => status(200),
    });
    let config = format!(
        "[server]\ndrain-timeout = \"100ms\"\n[dict.t]\ntarget = \"{0}\"\n\
         set = {{ target = \"{0}{{/path*}}\", body = \"{{value}}\" }}\n",
        backend.url("/s")
    );
    let program = Launch::dict().config(config).unix("dict").ready().await;
    let mut peer = hello(&program).await;
    let operations = "S1\tshared/a\tv\nS1\tshared/hang\tv\nS1\tshared/b\tv\n";
    peer.send(format!("B1\t\n{operations}C1\n")).await;
    backend.asked(2).await;
    let end = program.stop().await;
    let cut_off = "t: a transaction was cut off: 1 of 3 operations are done, and others may";
    assert!(end.stderr.contains(cut_off), "{end:#?}");
}

#[tokio::test]
async fn metrics_count_commands_by_outcome_and_each_call() {
    let backend = Backend::new(|request| match request.method.as_str() {
        "GET" if request.target.contains("none") => status(404),
        "GET" if request.target.contains("/l") => json("[\"a\", \"b\"]"),
        "GET" => json("\"v\""),
        _ if request.target.contains("bad") => status(500),
        _ => status(200),
    });
    let config = format!(
        "[dict.t]\ntarget = \"{0}\"\nset = {{ target = \"{0}/s{{/path*}}\", body = \"{{value}}\" }}\n\
         iterate = {{ target = \"{0}/l{{/path*}}\" }}\n",
        backend.url("")
    );
    let program = Launch::dict()
        .config(config)
        .unix("dict")
        .tcp4("metrics")
        .ready()
        .await;
    let mut peer = hello(&program).await;
    peer.send("Lshared/a\t\nLshared/none\t\nI0\t0\tshared/x/\t\nB1\t\nS1\tshared/a\tv\nS1\tshared/b\tv\nC1\nB2\t\nS2\tshared/bad\tv\nC2\n").await;
    peer.expect("Ov\nN\nOshared/x/a\tv\nOshared/x/b\tv\n\nO1\nF2\tbackend answered 500\n")
        .await;
    let mut scraper = program.peer_at(1).await;
    scraper
        .send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    let page = String::from_utf8(scraper.everything().await).expect("text");
    for line in [
        "postgate_requests_total{outcome=\"found\",table=\"t\",program=\"dict\"} 1",
        "postgate_requests_total{outcome=\"not-found\",table=\"t\",program=\"dict\"} 1",
        "postgate_requests_total{outcome=\"done\",table=\"t\",program=\"dict\"} 2",
        "postgate_requests_total{outcome=\"temporary\",table=\"t\",program=\"dict\"} 1",
        "postgate_requests_total{outcome=\"permanent\",table=\"t\",program=\"dict\"} 0",
        "postgate_backend_calls_total{status=\"2xx\",table=\"t\",program=\"dict\"} 6",
        "postgate_backend_calls_total{status=\"4xx\",table=\"t\",program=\"dict\"} 1",
        "postgate_backend_calls_total{status=\"5xx\",table=\"t\",program=\"dict\"} 1",
        "postgate_backend_calls_in_flight{table=\"t\",program=\"dict\"} 0",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    // One target, whatever it is asked for.
    assert_eq!(page.matches("postgate_target_up{").count(), 1, "{page}");
}
