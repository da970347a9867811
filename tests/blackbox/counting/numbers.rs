//! Numbers from the answer of a call.

use super::{PASSED, data, dialog, end, limit, recipient, request, serve};
use crate::support::{
    Wrong,
    backend::{Act, Backend, Gate, Script, json, plain, response, status},
    peer::framed,
    program::Binary,
    replies::{BROKEN, LATER},
};

/// A table that asks this URL, with these keys.
fn asking(url: &str, keys: &str) -> String {
    format!("[policy.t]\ntarget = \"{url}\"\n{keys}\n")
}

#[tokio::test]
async fn the_numbers_of_an_account_are_asked_for_as_a_lookup() {
    let backend = Backend::always(json("{\"per_hour\": 2, \"per_day\": 3}"));
    let rates = "rates = { \"1h\" = \"/per_hour\", \"1d\" = \"/per_day\" }\ndelimiter = \"+\"";
    for (target, asked) in [
        ("/quota?a=b", "/quota?a=b&account=j%C3%B6%40a.test"),
        ("/quota/{account}", "/quota/j%C3%B6%40a.test"),
    ] {
        let before = backend.count();
        let table = asking(&backend.url(target), "auth-token = \"s3cret\"") + &limit("l", rates);
        let (_program, mut peer) = serve(&table).await;
        let rows = [
            (data("1", "J\u{d6}+x@A.test", "3"), "REJECT l: 0 of 2 in 1h"),
            (data("2", "J\u{d6}+x@A.test", "2"), PASSED),
        ];
        dialog(&mut peer, rows).await;
        let request = backend.requests().swap_remove(before);
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("GET", asked)
        );
        assert_eq!(request.header("x-auth-token"), Some("s3cret"));
        assert!(request.header("x-request-id").is_some() && request.body.is_empty());
        assert_eq!(backend.count(), before + 2);
    }
}

/// Two limits, the second with a number of the file.
fn two(url: &str, keys: &str, fallback: &str) -> String {
    asking(url, keys)
        + &limit(
            "asked",
            &format!("rates = {{ \"1h\" = \"/a/0\" }}\n{fallback}"),
        )
        + &limit("fixed", "rates = { \"1h\" = 9 }")
}

/// What each answer means for a message of five: with a number of the API's, it has room or not.
#[tokio::test]
async fn an_answer_is_judged_as_that_to_a_lookup() {
    let number = |number: &str| json(format!("{{\"a\": [{number}]}}"));
    let none = "REJECT asked: 0 of 4 in 1h";
    // With the fallback, the same answer says so.
    let fallback = "REJECT asked: 0 of 3 in 1h";
    let cases: [(&str, Script, &str, &str); 25] = [
        ("enough", number("5"), PASSED, PASSED),
        ("too few", number("4"), none, none),
        ("0", number("0"), PASSED, PASSED),
        ("null", number("null"), PASSED, PASSED),
        ("huge", number("99999999999999999999"), PASSED, PASSED),
        ("any type", plain("{\"a\": [4]}"), none, none),
        ("no member", json("{\"b\": 5}"), LATER, fallback),
        ("no element", json("{\"a\": []}"), LATER, fallback),
        ("negative", number("-1"), LATER, fallback),
        ("fraction", number("4.5"), LATER, fallback),
        ("exponent", number("1e3"), LATER, fallback),
        ("text", number("\"5\""), LATER, fallback),
        ("true", number("true"), LATER, fallback),
        ("a list", json("[4]"), LATER, fallback),
        ("a number", json("4"), LATER, fallback),
        ("no JSON", json("{"), LATER, fallback),
        ("a page", response(200, &[], "<html>"), LATER, fallback),
        ("empty", json("[]"), PASSED, fallback),
        ("nothing", json("null"), PASSED, fallback),
        ("204", status(204), PASSED, fallback),
        ("404", status(404), PASSED, fallback),
        ("400", status(400), BROKEN, fallback),
        ("401", status(401), LATER, fallback),
        ("503", status(503), LATER, fallback),
        ("reset", vec![Act::Reset], LATER, fallback),
    ];
    let mut wrong = Wrong::default();
    for (what, script, alone, with_fallback) in cases {
        for (keys, expected) in [("", alone), ("fallback = { \"1h\" = 3 }", with_fallback)] {
            let backend = Backend::always(script.clone());
            let (_program, mut peer) = serve(&two(&backend.url("/"), "", keys)).await;
            let reply = peer.ask(data("1", "joe", "5")).await;
            let expected = framed(Binary::Policy, expected);
            wrong.compare(&format!("{what}, {keys:?}"), &reply, &expected);
        }
    }
    wrong.none();
}

#[tokio::test]
async fn the_keys_of_a_lookup_shape_the_answer() {
    let quota = json("{\"data\": {\"a\": [4]}, \"error\": null}");
    let marked = response(200, &[("X-Api", "1")], "{\"data\": {\"a\": [4]}}");
    let none = "REJECT asked: 0 of 4 in 1h";
    for (keys, script, expected) in [
        ("value = \"/data\"", quota.clone(), none),
        ("value = \"/data\"\nerror = \"/error\"", quota.clone(), none),
        ("value = \"/other\"", quota.clone(), LATER),
        (
            "value = \"/other\"\nmissing = \"not-found\"",
            quota.clone(),
            PASSED,
        ),
        (
            "error = \"/error\"",
            json("{\"a\": [4], \"error\": \"x\"}"),
            LATER,
        ),
        (
            "value = \"/data\"\nrequire-header = { X-Api = \"1\" }",
            marked,
            none,
        ),
        (
            "value = \"/data\"\nrequire-header = { X-Api = \"1\" }",
            quota,
            LATER,
        ),
        ("require-header = { X-Api = \"1\" }", status(404), LATER),
        ("status = { 404 = \"temporary\" }", status(404), LATER),
        ("status = { 503 = \"not-found\" }", status(503), PASSED),
        ("on-not-found = \"REJECT who?\"", status(404), "REJECT who?"),
        ("on-temporary = \"DUNNO\"", status(503), PASSED),
        ("max-response = 8", json("{\"a\": [40]}"), LATER),
        (
            "method = \"POST\"\njson = { who = \"{account}\" }",
            json("{\"a\": [4]}"),
            none,
        ),
    ] {
        let backend = Backend::always(script);
        let (_program, mut peer) = serve(&two(&backend.url("/"), keys, "")).await;
        dialog(&mut peer, [(data("1", "joe", "5"), expected)]).await;
    }
}

#[tokio::test]
async fn a_call_is_sent_again_and_to_the_next_target_as_a_lookups() {
    let good = json("{\"a\": [4]}");
    let none = "REJECT asked: 0 of 4 in 1h";
    let backend = Backend::in_turn([vec![Act::Close], good.clone()]);
    let (_program, mut peer) = serve(&two(&backend.url("/"), "", "")).await;
    dialog(&mut peer, [(data("1", "joe", "5"), none)]).await;
    let [ill, well] = [status(503), good].map(Backend::always);
    let table = format!(
        "[policy.t]\ntarget = [\"{}\", \"{}\"]\n",
        ill.url("/"),
        well.url("/")
    );
    let table = table + &limit("asked", "rates = { \"1h\" = \"/a/0\" }");
    let (_program, mut peer) = serve(&table).await;
    dialog(&mut peer, [(data("1", "joe", "5"), none)]).await;
    assert_eq!((ill.count(), well.count()), (1, 1));
}

/// "Not found" lets the mail pass, so the other limits are charged; a deferral does not, unless the
/// operator says so.
#[tokio::test]
async fn the_other_limits_are_judged_and_charged_only_if_the_mail_may_pass() {
    let full = "REJECT fixed: 5 of 9 in 1h";
    let empty = "REJECT fixed: 0 of 9 in 1h";
    for (script, keys, said, then) in [
        (status(404), "", PASSED, full),
        (
            status(404),
            "on-not-found = \"REJECT who?\"",
            "REJECT who?",
            empty,
        ),
        (status(404), "on-not-found = \"disconnect\"", "", empty),
        (status(503), "", LATER, empty),
        (status(400), "", BROKEN, empty),
        (status(503), "on-temporary = \"DUNNO\"", PASSED, full),
        (
            status(503),
            "on-temporary = \"WARN down\"",
            "WARN down",
            full,
        ),
        (
            status(503),
            "on-temporary = \"450 4.3.0 down\"",
            "450 4.3.0 down",
            empty,
        ),
    ] {
        let backend = Backend::always(script);
        let (program, mut peer) = serve(&two(&backend.url("/"), keys, "")).await;
        if said.is_empty() {
            peer.send(data("1", "joe", "5")).await;
            peer.expect_eof().await;
            peer = program.peer().await;
        } else {
            dialog(&mut peer, [(data("1", "joe", "5"), said)]).await;
        }
        // Another limit without room speaks in its place.
        dialog(&mut peer, [(data("2", "joe", "10"), then)]).await;
    }
}

#[tokio::test]
async fn limits_of_one_account_share_a_call_and_those_of_two_make_two_at_once() {
    let gate = Gate::shut();
    let waiting = gate.clone();
    let backend = Backend::new(move |request| {
        let number = if request.target.contains("joe") { 8 } else { 4 };
        let mut script = vec![Act::Wait(waiting.clone())];
        script.extend(json(format!("{{\"a\": [{number}], \"b\": 9}}")));
        script
    });
    let table = asking(&backend.url("/{account}"), "")
        + &limit("first", "rates = { \"1h\" = \"/a/0\" }")
        + &limit("second", "rates = { \"1h\" = \"/b\", \"1d\" = \"/a/0\" }")
        + &limit(
            "third",
            "by = \"{sender.domain}\"\nrates = { \"1h\" = \"/a/0\" }",
        );
    let (_program, mut peer) = serve(&table).await;
    peer.send(data("1", "joe", "5")).await;
    // Both are asked before either has an answer.
    let asked = backend.asked(2).await;
    gate.pass(2);
    let reply = peer.reply().await;
    assert_eq!(reply, framed(Binary::Policy, "REJECT third: 0 of 4 in 1h"));
    let mut targets: Vec<_> = asked
        .iter()
        .map(|request| request.target.as_str())
        .collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/joe", "/sender.example"]);
    gate.pass(2);
    dialog(&mut peer, [(data("2", "joe", "4"), PASSED)]).await;
    assert_eq!(backend.count(), 4);
    // Nobody is asked about where nothing is counted.
    let rows = [
        (request("MAIL", "3", "joe", &[]), PASSED),
        (request("DATA", "", "joe", &[]), PASSED),
    ];
    dialog(&mut peer, rows).await;
    assert_eq!(backend.count(), 4);
}

#[tokio::test]
async fn an_answer_is_kept_for_each_account_as_cache_says() {
    let backend = Backend::always(json("{\"a\": [9], \"b\": 9000}"));
    let table = asking(&backend.url("/{account}"), "cache = { ttl = \"1h\" }")
        + &limit("asked", "rates = { \"1h\" = \"/a/0\" }\ndelimiter = \"+\"")
        + &limit(
            "bytes",
            "rates = { \"1h\" = \"/b\" }\ncount = \"bytes\"\ndelimiter = \"+\"",
        );
    let (program, mut peer) = serve(&table).await;
    let rows = [
        (recipient("1", "joe", "a@x"), PASSED),
        (data("1", "Joe", "1"), PASSED),
        (end("1", "JOE", "1", "100"), PASSED),
        (data("2", "joe", "1"), PASSED),
    ];
    dialog(&mut peer, rows).await;
    assert_eq!(backend.count(), 1);
    dialog(&mut peer, [(data("3", "jim", "1"), PASSED)]).await;
    assert_eq!(backend.count(), 2);
    program.signal(rustix::process::Signal::USR1);
    program.logged("cache: emptied of 2 answers").await;
    dialog(&mut peer, [(data("4", "joe", "1"), PASSED)]).await;
    assert_eq!(backend.count(), 3);
}

#[tokio::test]
async fn an_answer_that_is_not_understood_is_not_kept() {
    let backend = Backend::in_turn([
        json("{\"b\": 5}"),
        status(503),
        json("{\"a\": [9]}"),
        json("{\"a\": [1]}"),
    ]);
    let keys = "cache = { ttl = \"1h\" }";
    let (_program, mut peer) = serve(&two(&backend.url("/"), keys, "")).await;
    let rows = [
        (data("1", "joe", "5"), LATER),
        (data("1", "joe", "5"), LATER),
        (data("1", "joe", "5"), PASSED),
        (data("2", "joe", "4"), PASSED),
    ];
    dialog(&mut peer, rows).await;
    assert_eq!(backend.count(), 3);
}

#[tokio::test]
async fn a_number_that_changes_counts_what_was_used_before() {
    let backend = Backend::in_turn([
        json("{\"a\": [5]}"),
        json("{\"a\": [3]}"),
        status(503),
        json("{\"a\": [0]}"),
        json("{\"a\": [9]}"),
    ]);
    let fallback = "fallback = { \"1h\" = 2, \"1d\" = 7 }";
    let table = asking(&backend.url("/"), "breaker = false")
        + &limit(
            "asked",
            &format!("rates = {{ \"1h\" = \"/a/0\" }}\n{fallback}"),
        );
    let (_program, mut peer) = serve(&table).await;
    let rows = [
        (data("1", "joe", "4"), PASSED),
        (data("2", "joe", "1"), "REJECT asked: 4 of 3 in 1h"),
        // The day of the fallback knows what was used while it was not needed.
        (data("3", "joe", "4"), "REJECT asked: 4 of 7 in 1d"),
        (data("4", "joe", "4"), PASSED),
        (data("5", "joe", "2"), "REJECT asked: 8 of 9 in 1h"),
    ];
    dialog(&mut peer, rows).await;
}

/// A limit that has a fallback does not make another's "not found" a failure.
#[tokio::test]
async fn what_is_said_depends_on_the_limits_without_a_fallback() {
    for (joe, domain, expected) in [
        (404, 503, PASSED),
        (503, 404, LATER),
        (503, 503, LATER),
        (400, 404, BROKEN),
    ] {
        let backend = Backend::new(move |request| match request.target.as_str() {
            "/joe" => status(joe),
            _ => status(domain),
        });
        let table = asking(&backend.url("/{account}"), "breaker = false")
            + &limit("login", "rates = { \"1h\" = \"/a\" }")
            + &limit(
                "domain",
                "by = \"{sender.domain}\"\nrates = { \"1h\" = \"/a\" }\nfallback = { \"1h\" = 9 }",
            );
        let (_program, mut peer) = serve(&table).await;
        dialog(&mut peer, [(data("1", "joe", "1"), expected)]).await;
    }
    // Of two without a fallback, a failure counts more.
    let backend = Backend::new(|request| match request.target.as_str() {
        "/joe" => status(404),
        _ => status(503),
    });
    let table = asking(&backend.url("/{account}"), "")
        + &limit("login", "rates = { \"1h\" = \"/a\" }")
        + &limit(
            "domain",
            "by = \"{sender.domain}\"\nrates = { \"1h\" = \"/a\" }",
        );
    let (_program, mut peer) = serve(&table).await;
    dialog(&mut peer, [(data("1", "joe", "1"), LATER)]).await;
}

/// An account that cannot stand in the path has no numbers.
#[tokio::test]
async fn an_account_that_cannot_be_asked_about_is_not_found() {
    let backend = Backend::always(json("{\"a\": [9]}"));
    let table = asking(
        &backend.url("/{account}/quota"),
        "on-not-found = \"REJECT who?\"",
    ) + &limit("asked", "rates = { \"1h\" = \"/a/0\" }");
    let (_program, mut peer) = serve(&table).await;
    dialog(&mut peer, [(data("1", "..", "1"), "REJECT who?")]).await;
    dialog(&mut peer, [(data("1", "a/../b?c#d", "1"), PASSED)]).await;
    assert_eq!(backend.only().target, "/a%2F..%2Fb%3Fc%23d/quota");
}
