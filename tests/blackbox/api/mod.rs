//! The sample APIs give the programs the same answers, and keep to `docs/api/openapi.yaml`.

mod document;
mod dovecot;
mod paper;
mod readme;
mod samples;
mod tap;

use std::collections::BTreeSet;

use crate::client::rcpt;
use crate::support::{
    Wrong,
    peer::{framed, question},
    program::{ALL, Binary, Launch},
    replies::LATER,
};
use document::{Document, Exchange};
use samples::{Language, Sample};
use tap::Tap;

const DEMO: &str = include_str!("../../../examples/demo.toml");

/// Besides those of the demo: the default request of tcp-lookup, a key of socketmap in the path, a
/// mistyped URL, and limits whose numbers the API has.
const TABLES: &str = r#"
[tcp-lookup.domains]
target = "http://127.0.0.1:8080/domains"
[socketmap.path]
target = "http://127.0.0.1:8080/aliases/{key}"
[socketmap.mistyped]
target = "http://127.0.0.1:8080/alaises"
[policy.outgoing]
target = "http://127.0.0.1:8080/quota/{account}"
[[policy.outgoing.limits]]
name = "login"
by = "{sasl_username}"
rates = { "1h" = "/per_hour", "1d" = "/per_day" }
on-exceeded = "DEFER_IF_PERMIT 4.7.1 Limit of {limit} in {window} reached"
"#;

/// A request of Postfix, and what the program says.
struct Row {
    binary: Binary,
    table: &'static str,
    request: Vec<u8>,
    said: &'static str,
}

fn row(binary: Binary, table: &'static str, key: impl AsRef<[u8]>, said: &'static str) -> Row {
    let request = question(binary, table, key);
    Row {
        binary,
        table,
        request,
        said,
    }
}

fn mail(attributes: &[(&str, &str)], said: &'static str) -> Row {
    Row {
        binary: Binary::Policy,
        table: "incoming",
        request: rcpt(attributes),
        said,
    }
}

/// A message of its own, with one recipient.
fn sent(account: &str, instance: &str, said: &'static str) -> Row {
    let attributes = [("sasl_username", account), ("instance", instance)];
    Row {
        table: "outgoing",
        ..mail(&attributes, said)
    }
}

fn rows() -> Vec<Row> {
    use Binary::{Socketmap, TcpLookup};
    const FULL: &str = "DEFER_IF_PERMIT 4.7.1 Limit of 2 in 1h reached";
    const CATCH_ALL: &str = "OK jürgen@example.net";
    const MAIL: &str = "200 lmtp:inet:mail.example.org:24";
    const SPAMMER: &str = "REJECT 5.7.1 Mail from this sender is not accepted";
    const GREY: &str = "DEFER_IF_PERMIT 4.7.1 Greylisted, please try again later";
    vec![
        row(TcpLookup, "transport", "jane@example.org", MAIL),
        row(
            TcpLookup,
            "transport",
            "joe@example.org",
            "200 lmtp:inet:old.example.org:24",
        ),
        row(TcpLookup, "transport", "a/b?c#d%2F@example.org", MAIL),
        row(TcpLookup, "transport", b"j\xf6rg@example.org", MAIL),
        row(TcpLookup, "transport", "a@example.com", "500 not%20found"),
        row(TcpLookup, "domains", "Example.ORG", "200 ours"),
        row(TcpLookup, "domains", "example.com", "500 not%20found"),
        row(Socketmap, "domains", "example.org", "OK ours"),
        row(
            Socketmap,
            "mailboxes",
            "Jane+news@Example.org",
            "OK example.org/jane/",
        ),
        row(
            Socketmap,
            "mailboxes",
            "jürgen@example.net",
            "OK example.net/jürgen/",
        ),
        row(Socketmap, "mailboxes", "nobody@example.org", "NOTFOUND "),
        row(
            Socketmap,
            "aliases",
            "sales@example.org",
            "OK jane@example.org,joe@example.org",
        ),
        row(
            Socketmap,
            "aliases",
            "50% für alle@example.org",
            "OK sales@example.org",
        ),
        row(Socketmap, "aliases", "+news@example.net", CATCH_ALL),
        row(Socketmap, "aliases", "a&key=b;c@example.net", CATCH_ALL),
        row(Socketmap, "aliases", "a@b@example.net", CATCH_ALL),
        row(Socketmap, "aliases", b"j\xffrgen@example.net", CATCH_ALL),
        row(Socketmap, "aliases", "example.net", "NOTFOUND "),
        row(Socketmap, "aliases", "0", "NOTFOUND "),
        row(
            Socketmap,
            "path",
            "sales@example.org",
            "OK jane@example.org,joe@example.org",
        ),
        row(Socketmap, "path", "nobody@example.org", "NOTFOUND "),
        row(
            Socketmap,
            "mistyped",
            "sales@example.org",
            "PERM backend answered 400",
        ),
        mail(&[], "DUNNO"),
        mail(&[("sender", "Spammer@Example.com")], SPAMMER),
        mail(
            &[
                ("sender", "spammer@example.com"),
                ("recipient", "postmaster@example.org"),
            ],
            "DUNNO",
        ),
        mail(&[("client_address", "192.0.2.99")], GREY),
        mail(&[("sender", ""), ("client_address", "192.0.2.99")], GREY),
        mail(
            &[
                ("sender", ""),
                ("helo_name", "a=b&sender=spammer@example.com"),
            ],
            "DUNNO",
        ),
        sent("Jane@example.org", "1", "DUNNO"),
        sent("jane@example.org", "2", "DUNNO"),
        sent("jane@example.org", "3", FULL),
        sent("joe@example.org", "4", "DUNNO"),
        sent("nobody@example.org", "5", "DUNNO"),
    ]
}

/// The same, where the API does not know the token.
fn rows_without_token() -> Vec<Row> {
    const KEY: &str = "jane@example.org";
    vec![
        row(
            Binary::TcpLookup,
            "transport",
            KEY,
            "400 backend%20answered%20401",
        ),
        row(
            Binary::Socketmap,
            "mailboxes",
            KEY,
            "TEMP backend answered 401",
        ),
        sent("jane@example.org", "1", LATER),
        mail(&[], LATER),
    ]
}

/// Sends the rows through the programs and notes every reply that is not the expected one.
async fn ask(language: Language, config: &str, rows: &[Row], wrong: &mut Wrong) {
    for binary in ALL {
        let rows: Vec<_> = rows.iter().filter(|row| row.binary == binary).collect();
        let tables: BTreeSet<_> = rows.iter().map(|row| row.table).collect();
        let tables: Vec<_> = tables.into_iter().collect();
        let mut launch = Launch::new(binary).config(config);
        for table in &tables {
            launch = launch.tcp4(table);
        }
        let program = launch.ready().await;
        for row in rows {
            let socket = tables.iter().position(|table| *table == row.table);
            let mut peer = program.peer_at(socket.expect("a socket")).await;
            let reply = peer.ask(&row.request).await;
            let name = format!("{language:?}: {}", row.request.escape_ascii());
            wrong.compare(&name, &reply, &framed(binary, row.said));
        }
    }
}

#[tokio::test]
async fn the_sample_apis_answer_alike_and_as_documented() {
    let document = Document::read();
    let mut wrong = Wrong::default();
    let mut passed = Vec::new();
    for language in [Language::Rust, Language::Python, Language::Php] {
        let Some(sample) = Sample::start(language).await else {
            continue;
        };
        let tap = Tap::before(sample.address).await;
        let config = format!("{DEMO}{TABLES}{}", dovecot::TABLES);
        let config = config.replace("http://127.0.0.1:8080", &tap.url());
        ask(language, &config, &rows(), &mut wrong).await;
        dovecot::ask(language, &config, &mut wrong).await;
        dovecot::ask_directly(language, sample.address, &mut wrong).await;
        let config = config.replace("auth-token = \"demo\"", "auth-token = \"wrong\"");
        ask(language, &config, &rows_without_token(), &mut wrong).await;
        dovecot::ask_without_token(&config, &mut wrong).await;

        let exchanges = tap.exchanges();
        let mut seen = BTreeSet::new();
        for exchange in &exchanges {
            match document.judge(exchange) {
                Ok(answer) => _ = seen.insert(answer),
                Err(why) => wrong.require(&format!("{language:?}"), false, || {
                    format!("{} {}: {why}", exchange.method, exchange.target)
                }),
            }
        }
        let unseen: Vec<_> = document
            .answers()
            .into_iter()
            .filter(|answer| !seen.contains(answer) && !is_of_others(answer))
            .collect();
        wrong.require(&format!("{language:?}"), unseen.is_empty(), || {
            format!("documented and never seen: {unseen:?}")
        });
        passed.extend(exchanges);
    }
    wrong.none();
    refuses_what_is_not_documented(&document, &passed);
}

/// Whether a documented answer is one that the samples do not have.
fn is_of_others(answer: &document::Seen) -> bool {
    let (operation, status) = answer;
    match status.as_str() {
        _ if dovecot::is_write(answer) => true,
        "204" | "5XX" => true,
        "4XX" => operation != "lookUp",
        _ => false,
    }
}

/// The document would not have passed these either.
fn refuses_what_is_not_documented(document: &Document, exchanges: &[Exchange]) {
    let of = |method: &str, status: u16| {
        let mut found = exchanges
            .iter()
            .filter(|exchange| exchange.method == method && exchange.status == status);
        found.next().expect("an exchange").clone()
    };
    let get = of("GET", 200);
    let post = of("POST", 200);
    let changed = |exchange: &Exchange, change: &dyn Fn(&mut Exchange)| {
        let mut exchange = exchange.clone();
        change(&mut exchange);
        exchange
    };
    let without = |headers: &mut document::Headers, name: &str| {
        let count = headers.len();
        headers.retain(|(header, _)| header != name);
        assert_eq!(headers.len() + 1, count, "{name}");
    };
    for (why, exchange) in [
        (
            "token",
            changed(&get, &|e| without(&mut e.headers, "x-auth-token")),
        ),
        (
            "request id",
            changed(&get, &|e| without(&mut e.headers, "x-request-id")),
        ),
        (
            "mark",
            changed(&get, &|e| without(&mut e.answer_headers, "x-directory")),
        ),
        (
            "type",
            changed(&get, &|e| without(&mut e.answer_headers, "content-type")),
        ),
        ("method", changed(&get, &|e| e.method = "PUT".to_owned())),
        ("path", changed(&get, &|e| e.target = "/a/b/c".to_owned())),
        (
            "key",
            changed(&get, &|e| e.target = "/aliases?name=a".to_owned()),
        ),
        (
            "parameter",
            changed(&get, &|e| e.target = "/aliases?key=a&b=c".to_owned()),
        ),
        ("body", changed(&get, &|e| e.body = b"a".to_vec())),
        ("status", changed(&get, &|e| e.status = 302)),
        ("object", changed(&get, &|e| e.answer = b"{}".to_vec())),
        ("list", changed(&get, &|e| e.answer = b"[[]]".to_vec())),
        ("JSON", changed(&get, &|e| e.answer = b"<p>".to_vec())),
        (
            "form",
            changed(&post, &|e| without(&mut e.headers, "content-type")),
        ),
        ("request", changed(&post, &|e| e.body = b"sender=".to_vec())),
        (
            "action",
            changed(&post, &|e| e.answer = b"{\"action\":\"\"}".to_vec()),
        ),
        (
            "lines",
            changed(&post, &|e| e.answer = b"{\"action\":\"a\\nb\"}".to_vec()),
        ),
        (
            "failure",
            changed(&of("GET", 404), &|e| e.answer = b"{}".to_vec()),
        ),
    ] {
        let judged = document.judge(&exchange);
        assert!(judged.is_err(), "{why}: {judged:?}");
    }
}
