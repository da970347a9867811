//! What an operator sees of limits: the log and the metrics.

use super::{PASSED, data, dialog, launch, limit, serve};
use crate::support::{
    backend::{Backend, json, status},
    peer::Peer,
    program::Program,
    replies::LATER,
};

/// The decisions of a limit, in the order passed, exceeded, exempt, uncounted.
async fn decisions(program: &Program, limit: &str) -> [u64; 4] {
    let mut peer = program.peer_at(1).await;
    peer.send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    let page = String::from_utf8(peer.everything().await).expect("text");
    assert!(!page.contains("joe"), "an account in {page}");
    ["passed", "exceeded", "exempt", "uncounted"].map(|result| {
        let sample = format!(
            "postgate_limit_decisions_total{{limit=\"{limit}\",program=\"policy\",\
             result=\"{result}\",table=\"t\"}} "
        );
        let same_labels = |line: &str| {
            let (labels, value) = line.rsplit_once(' ')?;
            let (name, labels) = labels.trim_end_matches('}').split_once('{')?;
            let mut labels: Vec<_> = labels.split(',').collect();
            labels.sort_unstable();
            let line = format!("{name}{{{}}} ", labels.join(","));
            (line == sample).then(|| value.parse().expect("a count"))
        };
        let found = page.lines().find_map(same_labels);
        found.unwrap_or_else(|| panic!("no {sample} in\n{page}"))
    })
}

#[tokio::test]
async fn each_decision_is_counted_by_table_limit_and_result() {
    let backend = Backend::in_turn([json("{\"a\": 3}"), json("{\"a\": 3}"), status(503)]);
    let table = format!("[policy.t]\ntarget = \"{}\"\n", backend.url("/"))
        + &limit("fixed", "rates = { \"1h\" = 2 }\nexempt = [\"joe-root\"]")
        + &limit(
            "asked",
            "rates = { \"1h\" = \"/a\" }\nexempt = [\"joe-root\"]",
        )
        + &limit("sender", "by = \"{sasl_sender}\"\nrates = { \"1h\" = 1 }");
    let program = launch(&table).tcp4("t").tcp4("metrics").ready().await;
    for name in ["fixed", "asked", "sender"] {
        assert_eq!(decisions(&program, name).await, [0; 4], "{name}");
    }
    let mut peer = program.peer().await;
    let rows = [
        (data("1", "joe", "2"), PASSED),
        // A limit with room that is not charged has passed it all the same.
        (data("2", "joe", "1"), "REJECT fixed: 2 of 2 in 1h"),
        (data("3", "joe-jim", "1"), LATER),
        (data("4", "joe-root", "9"), PASSED),
        (super::request("MAIL", "5", "joe", &[]), PASSED),
    ];
    dialog(&mut peer, rows).await;
    assert_eq!(decisions(&program, "fixed").await, [2, 1, 1, 0]);
    assert_eq!(decisions(&program, "asked").await, [2, 0, 1, 1]);
    // No request had an account for this one.
    assert_eq!(decisions(&program, "sender").await, [0; 4]);
}

#[tokio::test]
async fn an_account_that_reaches_a_limit_is_one_warning() {
    let (program, mut peer) = serve(&limit("login", "rates = { \"1h\" = 3 }")).await;
    let full = "REJECT login: 3 of 3 in 1h";
    let mut rows = vec![(data("0", "J\u{f6}e \x1b[0m", "3"), PASSED)];
    rows.extend((1..5).map(|i| (data(&i.to_string(), "J\u{f6}e \x1b[0m", "1"), full)));
    dialog(&mut peer, rows).await;
    let line = "t: j\\xc3\\xb6e \\x1b[0m has reached its limit \"login\": 3 of 3 in 1h, \
                room again in 6";
    program.logged(line).await;
    let seen = program.stderr.all();
    let line = seen
        .iter()
        .find(|seen| seen.contains(line))
        .expect("the line");
    for field in ["table=\"t\"", "limit=\"login\"", "account=\"j\\\\xc3"] {
        assert!(line.contains(field), "{field} in {line}");
    }
    assert!(line.contains("WARN"), "{line}");
    let end = program.stop().await;
    assert_eq!(end.stderr.matches("has reached").count(), 1, "{end:#?}");
    assert!(!end.stderr.to_lowercase().contains("j\u{f6}e"), "{end:#?}");
}

#[tokio::test]
async fn a_long_account_is_cut_in_the_log() {
    let (program, mut peer) = serve(&limit("login", "rates = { \"1h\" = 1 }")).await;
    let long = "x".repeat(5_000);
    dialog(
        &mut peer,
        [(data("1", &long, "9"), "REJECT login: 0 of 1 in 1h")],
    )
    .await;
    program.logged("has reached its limit").await;
    assert!(program.stderr.all().iter().all(|line| line.len() < 500));
}

#[tokio::test]
async fn many_accounts_at_once_are_ten_warnings() {
    let (program, mut peer) = serve(&limit("login", "rates = { \"1h\" = 1 }")).await;
    exceed(&mut peer, 0..25).await;
    let end = program.stop().await;
    assert_eq!(end.stderr.matches("has reached").count(), 10, "{end:#?}");
    assert!(end.stderr.contains("t: joe-9 has reached"), "{end:#?}");
    assert!(!end.stderr.contains("joe-10"), "{end:#?}");
}

async fn exceed(peer: &mut Peer, accounts: std::ops::Range<u32>) {
    let row = |account| {
        let login = format!("joe-{account}");
        (data(&login, &login, "2"), "REJECT login: 0 of 1 in 1h")
    };
    dialog(peer, accounts.map(row)).await;
}

/// A request that ends in a failure has the usual warning; any other has one of its own.
#[tokio::test]
async fn numbers_that_are_unknown_are_one_warning_without_the_account() {
    for (answer, keys, fallback, expected) in [
        (503, "", "", "t: backend answered 503: not counted: a"),
        (
            404,
            "",
            "",
            "t: backend knows no such account: not counted: a",
        ),
        (
            503,
            "",
            "fallback = { \"1h\" = 9 }\n",
            "t: backend answered 503: fallback of a",
        ),
        (
            503,
            "on-temporary = \"DUNNO\"\n",
            "",
            "t: backend answered 503: not counted: a",
        ),
    ] {
        let backend = Backend::always(status(answer));
        let table = format!("[policy.t]\ntarget = \"{}\"\n{keys}", backend.url("/"))
            + &limit("a", &format!("rates = {{ \"1h\" = \"/a\" }}\n{fallback}"));
        let (program, mut peer) = serve(&table).await;
        for instance in ["1", "2", "3"] {
            peer.ask(data(instance, "joe", "1")).await;
        }
        let end = program.stop().await;
        let lines = end.stderr.lines().filter(|line| line.contains("WARN"));
        let lines: Vec<_> = lines.collect();
        let [line] = lines.as_slice() else {
            panic!("{expected}: {end:#?}");
        };
        assert!(line.contains(expected), "{line}");
        assert!(!end.stderr.contains("joe"), "{end:#?}");
    }
    // Another limit refuses the request, so that its record has no failure.
    let backend = Backend::always(status(503));
    let table = format!("[policy.t]\ntarget = \"{}\"\n", backend.url("/"))
        + &limit("a", "rates = { \"1h\" = \"/a\" }")
        + &limit("b", "by = \"all\"\nrates = { \"1h\" = 1 }");
    let (program, mut peer) = serve(&table).await;
    dialog(
        &mut peer,
        [(data("1", "joe", "2"), "REJECT b: 0 of 1 in 1h")],
    )
    .await;
    program
        .logged("t: backend answered 503: not counted: a")
        .await;
    // That an account has the numbers of the fallback is no news.
    let backend = Backend::always(status(404));
    let table = format!("[policy.t]\ntarget = \"{}\"\n", backend.url("/"))
        + &limit(
            "a",
            "rates = { \"1h\" = \"/a\" }\nfallback = { \"1h\" = 9 }",
        );
    let (program, mut peer) = serve(&table).await;
    dialog(&mut peer, [(data("1", "joe", "1"), PASSED)]).await;
    let end = program.stop().await;
    assert!(!end.stderr.contains("WARN"), "{end:#?}");
}
