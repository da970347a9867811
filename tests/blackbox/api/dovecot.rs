//! What Dovecot's dicts and Postfix's logins ask of an API.

use std::net::SocketAddr;

use super::document::{Document, Seen};
use super::samples::Language;
use super::tap::{Tap, answer_to};
use crate::dict::HELLO;
use crate::sasl::login;
use crate::support::{
    Wrong,
    backend::{Backend, response},
    peer::Peer,
    program::{Launch, Program},
};

/// The tables of the document.
pub(super) const TABLES: &str = r#"
[dict.mail]
target = "http://127.0.0.1:8080/dict"
iterate = { target = "http://127.0.0.1:8080/dict/list" }
[sasl.submission]
target = "http://127.0.0.1:8080/login"
accepted = "/accepted"
user = "/user"
failure-delay = false
"#;

/// Sub-tables that write, one operation or a transaction at a time.
const WRITES: [&str; 2] = [
    r#"
[dict.mail.set]
target = "http://127.0.0.1:8080/dict"
body = "{value}"
headers = { Content-Type = "text/plain" }
[dict.mail.unset]
target = "http://127.0.0.1:8080/dict"
[dict.mail.increment]
target = "http://127.0.0.1:8080/dict"
body = "{value}"
headers = { Content-Type = "text/plain" }
"#,
    r#"
[dict.mail.commit]
target = "http://127.0.0.1:8080/dict/transactions"
json = "{*}"
"#,
];

/// Whether an operation is a write to a dict, which the samples do not have.
pub(super) fn is_write((operation, _): &Seen) -> bool {
    [
        "setInDict",
        "unsetInDict",
        "incrementInDict",
        "commitInDict",
    ]
    .contains(&operation.as_str())
}

/// A connection to the dict `mail`.
async fn peer(dict: &Program) -> Peer {
    let mut peer = dict.peer().await;
    peer.send(HELLO.replace("\tt\n", "\tmail\n")).await;
    peer
}

/// The first lines of the answer to this line.
async fn lines(dict: &Program, asked: &str, count: usize) -> Vec<u8> {
    let mut peer = peer(dict).await;
    peer.send(format!("{asked}\n")).await;
    let mut lines = Vec::new();
    for _ in 0..count {
        lines.extend(peer.reply().await);
    }
    lines
}

/// Asks a sample for what it has, and notes every reply that is not the expected one.
pub(super) async fn ask(language: Language, config: &str, wrong: &mut Wrong) {
    const JANE: &str = "jane@example.org";
    let dict = Launch::dict().config(config).unix("dict").ready().await;
    for (asked, expected) in [
        ("Lshared/motd\t", "OWelcome to example.org\n"),
        ("Lshared/sieve/main\t", "N\n"),
        ("Lpriv/sieve/main\tjane@example.org", "Okeep;\n"),
        ("Lpriv/sieve/main\tjoe@example.org", "N\n"),
        ("Lpriv/quota\tjane@example.org", "O1000\n"),
        ("Lpriv/signature\tjane@example.org", "O\n"),
        (
            "I1\t0\tpriv/sieve/\tjane@example.org",
            "Opriv/sieve/main\tkeep;\nOpriv/sieve/vacation\tstop;\n\n",
        ),
        ("I1\t0\tpriv/sieve/\tjoe@example.org", "\n"),
    ] {
        let seen = lines(&dict, asked, expected.lines().count()).await;
        let row = format!("{language:?}: {asked}");
        wrong.compare(&row, &seen, expected.as_bytes());
    }
    let sasl = Launch::sasl()
        .config(config)
        .unix("submission")
        .ready()
        .await;
    for (name, password, expected) in [
        (
            JANE,
            "correct horse battery staple",
            "OK user=jane@example.org",
        ),
        ("Joe@Example.org", "Tr0ub4dor&3", "OK user=joe@example.org"),
        (
            JANE,
            "Tr0ub4dor&3",
            "FAIL user=jane@example.org reason=wrong name or password",
        ),
        (
            "a@example.org",
            "Tr0ub4dor&3",
            "FAIL user=a@example.org reason=wrong name or password",
        ),
    ] {
        let said = login(&sasl, name, password).await;
        let row = format!("{language:?}: {name} {password}");
        wrong.compare(&row, said.as_bytes(), expected.as_bytes());
    }
}

/// Asks where the sample does not know the token.
pub(super) async fn ask_without_token(config: &str, wrong: &mut Wrong) {
    let dict = Launch::dict().config(config).unix("dict").ready().await;
    for asked in ["Lshared/motd\t", "I0\t0\tshared/\t"] {
        let seen = lines(&dict, asked, 1).await;
        wrong.compare(asked, &seen, b"Fbackend answered 401\n");
    }
    let sasl = Launch::sasl()
        .config(config)
        .unix("submission")
        .ready()
        .await;
    let said = login(&sasl, "jane@example.org", "correct horse battery staple").await;
    wrong.compare("login", said.as_bytes(), b"closed");
}

/// Asks a sample directly what no table of the document asks. A refusal would cost the user the
/// stored password.
pub(super) async fn ask_directly(language: Language, api: SocketAddr, wrong: &mut Wrong) {
    const NO_LOGIN: &str = r#"400 1 {"error":"no JSON object with a username and a password"}"#;
    const NO_ROUTE: &str = r#"400 1 {"error":"no such route"}"#;
    const NO_TOKEN: &str = r#"401 1 {"error":"X-Auth-Token is missing or wrong"}"#;
    let nested = "[".repeat(100_000);
    for body in [
        "",
        "{",
        "[]",
        "nul",
        "null",
        r#""username""#,
        r#"["jane@example.org","correct horse battery staple"]"#,
        r#"{"username":"jane@example.org"}"#,
        r#"{"username":"jane@example.org","password":1}"#,
        r#"{"username":null,"password":"a"}"#,
        r#"{"username":"jane@example.org","password":"\ud800"}"#,
        &nested,
    ] {
        for (token, expected) in [("demo", NO_LOGIN), ("wrong", NO_TOKEN)] {
            let said = answer_to(api, "POST", "/login", token, body.to_owned()).await;
            let row = format!("{language:?}: {token} {body:.60}");
            wrong.compare(&row, said.as_bytes(), expected.as_bytes());
        }
    }
    for method in ["PUT", "DELETE", "PATCH"] {
        for path in ["/dict?name=mail&scope=shared&key=motd&user=", "/login"] {
            for (token, expected) in [("demo", NO_ROUTE), ("wrong", NO_TOKEN)] {
                let said = answer_to(api, method, path, token, "1".to_owned()).await;
                let row = format!("{language:?}: {token} {method} {path}");
                wrong.compare(&row, said.as_bytes(), expected.as_bytes());
            }
        }
    }
}

#[tokio::test]
async fn writes_to_a_dict_are_as_documented() {
    let document = Document::read();
    let backend = Backend::always(response(204, &[("X-Directory", "1")], ""));
    let mut seen: Vec<Seen> = Vec::new();
    for writes in WRITES {
        let tap = Tap::before(backend.address()).await;
        let config = format!("[http]\nauth-token = \"demo\"\n{TABLES}{writes}");
        let config = config.replace("http://127.0.0.1:8080", &tap.url());
        let program = Launch::dict().config(config).unix("dict").ready().await;
        let mut peer = peer(&program).await;
        peer.send(
            "B1\tjoe@example.org\t0\nS1\tpriv/quota/storage\t476\nU1\tshared/motd\n\
             A1\tshared/logins\t-1\nC1\n",
        )
        .await;
        peer.expect("O1\n").await;
        for exchange in tap.exchanges() {
            let judged = document.judge(&exchange);
            seen.push(judged.unwrap_or_else(|why| panic!("{why}: {exchange:?}")));
        }
    }
    let done = |operation: &str| (operation.to_owned(), "2XX".to_owned());
    assert_eq!(
        seen,
        [
            "setInDict",
            "unsetInDict",
            "incrementInDict",
            "commitInDict"
        ]
        .map(done)
    );
}
