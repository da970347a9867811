//! In place of podop in its mode `dovecot`, with Mailu's three dicts, as Dovecot 2.3 asks them and
//! as the administration of Mailu answers: lines and answers as recorded.

use super::page::Ready;
use crate::support::{
    Wrong,
    backend::{Act, Backend, Request, Script, json, status, typed},
    peer::Peer,
    program::{Launch, Program},
};

const JANE: &str = "jane@example.org";

/// Flask ends JSON with a line feed.
fn flask(body: &str) -> Script {
    json(format!("{body}\n"))
}

fn unknown() -> Script {
    typed(
        404,
        "text/html; charset=utf-8",
        "<!doctype html>\n<title>404 Not Found</title>\n",
    )
}

/// The administration's own API for Dovecot.
fn api(request: &Request) -> Script {
    let path = request.target.strip_prefix("/internal/dovecot/");
    let Some(path) = path.map(|path| path.replace("%40", "@")) else {
        return unknown();
    };
    let path = path.as_str();
    let user = path.rsplit('/').next().unwrap_or_default();
    let is_known = ["jane@example.org", "joe@example.org"].contains(&user);
    match (request.method.as_str(), path) {
        ("GET", "userdb/") => {
            flask("[\"jane@example.org\",\"joe@example.org\",\"gone@example.org\"]")
        }
        // As Flask says where the last slash is missing.
        ("GET", "userdb") => status(308),
        ("GET", path) if path.starts_with("passdb/") && is_known => {
            flask("{\"allow_real_nets\":\"127.0.0.0/8\",\"nopassword\":\"Y\",\"password\":null}")
        }
        ("GET", path) if path.starts_with("userdb/") && is_known => {
            flask("{\"quota_rule\":\"*:bytes=1000000000\"}")
        }
        ("GET", path) if path.starts_with("sieve/name/") => flask("\"default\""),
        ("GET", path) if path.starts_with("sieve/data/default/") && is_known => {
            flask("\"require \\\"variables\\\";\\nkeep;\\n\"")
        }
        ("GET", path) if path.starts_with("quota/") => status(405),
        ("POST", path) if path.starts_with("quota/") => quota(request, path, is_known),
        _ => unknown(),
    }
}

fn quota(request: &Request, path: &str, is_known: bool) -> Script {
    if request.header("content-type") != Some("application/json") {
        return status(415);
    }
    if serde_json::from_slice::<serde_json::Value>(&request.body).is_err() {
        return status(400);
    }
    match path.starts_with("quota/storage/") && !is_known {
        true => unknown(),
        // The number of messages is accepted and thrown away.
        false => flask("null"),
    }
}

async fn place(backend: &Backend) -> Program {
    let config = Ready::numbered("podop", 1).asking(backend.address());
    Launch::dict().config(config).unix("dict").ready().await
}

async fn dovecot(program: &Program, dict: &str) -> Peer {
    let mut peer = program.peer().await;
    peer.send(format!("H3\t2\t0\t\t{dict}\n")).await;
    peer
}

#[tokio::test]
async fn what_dovecot_asks_is_answered_as_before() {
    let backend = Backend::new(api);
    let program = place(&backend).await;
    let passdb = "O{\"allow_real_nets\":\"127.0.0.0/8\",\"nopassword\":\"Y\",\"password\":null}\n";
    let mut wrong = Wrong::default();
    for (dict, sent, expected) in [
        (
            "auth",
            "Lshared/passdb/jane@example.org\tjane@example.org\n",
            passdb,
        ),
        (
            "auth",
            "Lshared/userdb/jane@example.org\tjane@example.org\n",
            "O{\"quota_rule\":\"*:bytes=1000000000\"}\n",
        ),
        (
            "auth",
            "Lshared/userdb/nobody@example.org\tnobody@example.org\n",
            "N\n",
        ),
        (
            "auth",
            "Lshared/passdb/nobody@example.org\tnobody@example.org\n",
            "N\n",
        ),
        (
            "sieve",
            "Lpriv/sieve/name/default\tjane@example.org\n",
            "Odefault\n",
        ),
        (
            "sieve",
            "Lpriv/sieve/data/default\tjane@example.org\n",
            "Orequire \"variables\";\x01nkeep;\x01n\n",
        ),
        (
            "sieve",
            "Lpriv/sieve/data/default\tnobody@example.org\n",
            "N\n",
        ),
        (
            "quota",
            "B1\tjane@example.org\nS1\tpriv/quota/storage\t476\nS1\tpriv/quota/messages\t2\nC1\n",
            "O1\n",
        ),
        (
            "auth",
            "Lshared/userdb/a/b@example.org\ta/b@example.org\n",
            "N\n",
        ),
        (
            "auth",
            "Lshared/userdb/a\\b@example.org\ta\\b@example.org\n",
            "N\n",
        ),
        (
            "auth",
            "Lshared/userdb/a%25b@example.org\ta%25b@example.org\n",
            "N\n",
        ),
        (
            "auth",
            "Lshared/userdb/jane+tag@example.org\tjane+tag@example.org\n",
            "N\n",
        ),
    ] {
        let mut peer = dovecot(&program, dict).await;
        peer.send(sent).await;
        wrong.compare(sent, &peer.reply().await, expected.as_bytes());
    }
    wrong.none();
    let mut peer = dovecot(&program, "auth").await;
    peer.send("I0\t0\tshared/userdb/\t*\n").await;
    for name in ["jane", "joe"] {
        peer.expect(format!(
            "Oshared/userdb/{name}@example.org\t{{\"quota_rule\":\"*:bytes=1000000000\"}}\n"
        ))
        .await;
    }
    peer.expect("\n").await;
    let requests = backend.requests();
    let quota: Vec<_> = requests
        .iter()
        .filter(|request| request.method == "POST")
        .collect();
    let target = |what: &str| {
        format!(
            "/internal/dovecot/quota/{what}/{}",
            JANE.replace('@', "%40")
        )
    };
    assert_eq!(quota.len(), 2);
    for (request, (what, body)) in quota.iter().zip([("storage", "476"), ("messages", "2")]) {
        assert_eq!(
            (request.target.as_str(), request.body.as_slice()),
            (target(what).as_str(), body.as_bytes())
        );
    }
}

#[tokio::test]
async fn what_podop_says_nothing_or_something_wrong_to_is_answered() {
    let backend = Backend::new(api);
    let program = place(&backend).await;
    let mut wrong = Wrong::default();
    for (dict, sent, expected) in [
        // podop leaves Dovecot without a reply for 60 s.
        (
            "quota",
            "Lpriv/quota/storage\tjane@example.org\n",
            "Fbackend answered 405\n",
        ),
        // podop says that these are done.
        (
            "quota",
            "B1\tnobody@example.org\nS1\tpriv/quota/storage\t5\nC1\n",
            "F1\tbackend answered 404\n",
        ),
        (
            "quota",
            "B1\tjane@example.org\nS1\tpriv/quota/storage\tabc\nC1\n",
            "F1\tbackend answered 400\n",
        ),
        // podop hangs up.
        (
            "quota",
            "B1\tjane@example.org\nU1\tpriv/quota/storage\nC1\n",
            "F1\tdict is read-only\n",
        ),
        (
            "quota",
            "B1\tjane@example.org\nA1\tpriv/quota/storage\t5\nC1\n",
            "F1\tdict is read-only\n",
        ),
        (
            "quota",
            "B1\tjane@example.org\nS1\tpriv/quota/storage\t5\nR1\nB1\tjane@example.org\t0\nC1\n",
            "O1\n",
        ),
        (
            "other",
            "Lshared/passdb/jane@example.org\tjane@example.org\n",
            "Funknown dict\n",
        ),
        // podop says "F" to any flag.
        (
            "auth",
            "I16\t0\tshared/userdb/jane@example.org\t*\n",
            "Oshared/userdb/jane@example.org\t{\"quota_rule\":\"*:bytes=1000000000\"}\n",
        ),
        // podop resolves dots, so that a user name leads elsewhere.
        (
            "auth",
            "Lshared/userdb/../passdb/jane@example.org\tx\n",
            "N\n",
        ),
    ] {
        let mut peer = dovecot(&program, dict).await;
        peer.send(sent).await;
        wrong.compare(sent, &peer.reply().await, expected.as_bytes());
    }
    wrong.none();
}

#[tokio::test]
async fn an_administration_that_is_away_is_a_failure_at_once() {
    let backend = Backend::always(vec![Act::Close]);
    let program = place(&backend).await;
    for (dict, sent, expected) in [
        (
            "auth",
            "Lshared/passdb/jane@example.org\tjane@example.org\n",
            "Fbackend unreachable\n",
        ),
        (
            "auth",
            "I0\t0\tshared/userdb/\t*\n",
            "Fbackend unreachable\n",
        ),
        (
            "quota",
            "B1\tjane@example.org\nS1\tpriv/quota/storage\t476\nC1\n",
            "W1\tbackend unreachable\n",
        ),
    ] {
        let mut peer = dovecot(&program, dict).await;
        peer.send(sent).await;
        peer.expect(expected).await;
    }
    // Answers keep the order of the questions, whichever is ready first.
    let backend = Backend::new(|request| match request.target.contains("slow") {
        true => vec![Act::Crawl(
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\"slow\"".to_vec(),
        )],
        false => json("\"quick\""),
    });
    let program = place(&backend).await;
    let mut peer = dovecot(&program, "auth").await;
    peer.send("Lshared/slow\tx\nLshared/quick\tx\n").await;
    peer.expect("Oslow\nOquick\n").await;
}
