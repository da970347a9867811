//! Values in JSON and text, and how long they may be.

use super::{Row, play, row};
use crate::support::{
    Wrong,
    backend::{Backend, Script, json, plain, response, typed},
    peer::{framed, question},
    program::{Binary, LOOKUPS},
    said::{CANNOT_BE_SENT, DUNNO, LATER, NOT_FOUND, NOT_UNDERSTOOD, said},
    tables::{serve, table},
};

fn shapes() -> Vec<Row> {
    // None of these is an action, so policy defers throughout.
    let value =
        |name, body: &str, tcp, socketmap| row(name, json(body), said(tcp, socketmap, LATER));
    let nothing = |name, body: &str| {
        row(
            name,
            json(body),
            said("500 not%20found", "NOTFOUND ", LATER),
        )
    };
    let senseless = |name, body: &str| row(name, json(body), NOT_UNDERSTOOD);
    vec![
        value("a string", r#""v""#, "200 v", "OK v"),
        value(
            "a string with blanks around it",
            " \r\n\t\"v\"\n ",
            "200 v",
            "OK v",
        ),
        value("a string with a blank", r#""a b""#, "200 a%20b", "OK a b"),
        value(
            "a string of blanks keeps them",
            r#""  x ""#,
            "200 %20%20x%20",
            "OK   x ",
        ),
        value(
            "escapes",
            r#""\u00e9\"\\\/\ud83d\ude00""#,
            "200 %C3%A9\"\\/%F0%9F%98%80",
            "OK é\"\\/😀",
        ),
        value(
            "percent signs stay what they are",
            r#""50%20off%""#,
            "200 50%2520off%25",
            "OK 50%20off%",
        ),
        value("a tab", r#""a\tb""#, "200 a%09b", "OK a\tb"),
        value(
            "a route",
            r#""smtp:[mx.example.com]:25""#,
            "200 smtp:[mx.example.com]:25",
            "OK smtp:[mx.example.com]:25",
        ),
        value(
            "the characters of a query",
            "\"+ %&§ß\"",
            "200 +%20%25&%C2%A7%C3%9F",
            "OK + %&§ß",
        ),
        value("0", "0", "200 0", "OK 0"),
        value("-1", "-1", "200 -1", "OK -1"),
        value("1.0", "1.0", "200 1.0", "OK 1.0"),
        value("1e3", "1e3", "200 1e3", "OK 1e3"),
        value("1E+3", "1E+3", "200 1E+3", "OK 1E+3"),
        value("2.50", "2.50", "200 2.50", "OK 2.50"),
        value(
            "a long number",
            "12345678901234567890",
            "200 12345678901234567890",
            "OK 12345678901234567890",
        ),
        value(
            "a longer number",
            "0.1234567890123456789012345678901234567890",
            "200 0.1234567890123456789012345678901234567890",
            "OK 0.1234567890123456789012345678901234567890",
        ),
        value("true", "true", "200 1", "OK 1"),
        value("a list", r#"["r1","r2"]"#, "200 r1,r2", "OK r1,r2"),
        value(
            "a list of one",
            r#"["0123456789"]"#,
            "200 0123456789",
            "OK 0123456789",
        ),
        value(
            "a list of mixed scalars",
            r#"["a",1,true,2.50]"#,
            "200 a,1,1,2.50",
            "OK a,1,1,2.50",
        ),
        nothing("false", "false"),
        nothing("null", "null"),
        nothing("an empty string", r#""""#),
        nothing("an empty list", "[]"),
        senseless("a list of an empty string", r#"[""]"#),
        senseless("a list of null", "[null]"),
        senseless("a list of false", "[false]"),
        senseless("a list with an empty string", r#"["a",""]"#),
        senseless("a nested list", r#"[["a"]]"#),
        senseless("a list of objects", r#"[{"a":1}]"#),
        senseless("an object", r#"{"a":1}"#),
        senseless("an empty object", "{}"),
        senseless(
            "an object like serde's own for a number",
            r#"{"$serde_json::private::Number":"7"}"#,
        ),
        senseless("no JSON", "alice@example.com"),
        senseless("an open string", "\"v"),
        senseless("a leading zero", "007"),
        senseless("not a number", "NaN"),
        senseless("JSON and garbage", "\"v\" x"),
        senseless("two documents", "\"v\"\n\"w\""),
        senseless("an empty body", ""),
        senseless("a blank body", " \n"),
        senseless("half a surrogate", r#""\ud800""#),
        senseless("deep nesting", &"[".repeat(100_000)),
        row(
            "HTML",
            typed(200, "text/html", "<html>Welcome</html>"),
            NOT_UNDERSTOOD,
        ),
        row(
            "bytes that are not UTF-8",
            json(b"\"\xff\""),
            NOT_UNDERSTOOD,
        ),
        row(
            "a compression nobody asked for",
            response(
                200,
                &[
                    ("Content-Type", "application/json"),
                    ("Content-Encoding", "gzip"),
                ],
                b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03Sr\x0b\xf5\xf3\xf7\x57\x02\x00",
            ),
            NOT_UNDERSTOOD,
        ),
        row("a NUL", json(r#""a\u0000b""#), CANNOT_BE_SENT),
    ]
}

#[tokio::test]
async fn tcp_lookup_says_each_shape_of_json() {
    let mut rows = shapes();
    rows.push(row(
        "a newline",
        json(r#""a\nb""#),
        said("200 a%0Ab", "", ""),
    ));
    rows.push(row(
        "a carriage return",
        json(r#""a\rb""#),
        said("200 a%0Db", "", ""),
    ));
    play(Binary::TcpLookup, "", rows).await;
}

#[tokio::test]
async fn socketmap_says_each_shape_of_json() {
    let mut rows = shapes();
    rows.push(row("a newline", json(r#""a\nb""#), CANNOT_BE_SENT));
    play(Binary::Socketmap, "", rows).await;
}

/// None of these is an action, so none may come out as one.
#[tokio::test]
async fn policy_takes_no_shape_of_json_for_an_action() {
    play(Binary::Policy, "", shapes()).await;
}

#[tokio::test]
async fn lookups_read_one_line_of_text() {
    for binary in LOOKUPS {
        let rows = vec![
            row("a line", plain("a b\r\n"), said("200 a%20b", "OK a b", "")),
            row("8-bit", plain("é"), said("200 %C3%A9", "OK é", "")),
            row("digits", plain("12345"), said("200 12345", "OK 12345", "")),
            row(
                "an empty body",
                plain(""),
                said("500 not%20found", "NOTFOUND ", ""),
            ),
            row(
                "blank lines",
                plain(" \n\n"),
                said("500 not%20found", "NOTFOUND ", ""),
            ),
            row("two lines", plain("a\nb\n"), NOT_UNDERSTOOD),
            row(
                "a page of HTML",
                typed(200, "text/plain", " <p>v"),
                NOT_UNDERSTOOD,
            ),
            row("a NUL", plain("a\0b"), CANNOT_BE_SENT),
            row("bytes that are not UTF-8", plain(b"a\xffb"), CANNOT_BE_SENT),
        ];
        play(binary, "response = \"text\"", rows).await;
    }
}

#[tokio::test]
async fn tcp_lookup_fills_a_line_of_4096_bytes_and_no_more() {
    let text = |length: usize| json(format!("\"{}\"", "a".repeat(length)));
    let percents = |count: usize| json(format!("\"{}\"", "%".repeat(count)));
    edges(
        Binary::TcpLookup,
        vec![
            (
                "4096 bytes",
                text(4091),
                format!("200 {}", "a".repeat(4091)),
            ),
            ("4097 bytes", text(4092), CANNOT_BE_SENT.tcp.to_owned()),
            (
                "4094 bytes, encoded",
                percents(1363),
                format!("200 {}", "%25".repeat(1363)),
            ),
            (
                "4097 bytes, encoded",
                percents(1364),
                CANNOT_BE_SENT.tcp.to_owned(),
            ),
            (
                "a million bytes",
                text(1_000_000),
                CANNOT_BE_SENT.tcp.to_owned(),
            ),
            ("a short one after all that", text(1), "200 a".to_owned()),
        ],
    )
    .await;
}

#[tokio::test]
async fn socketmap_fills_a_payload_of_100000_bytes_and_no_more() {
    let text = |length: usize| json(format!("\"{}\"", "a".repeat(length)));
    let umlauts = |count: usize| json(format!("\"{}\"", "ü".repeat(count)));
    edges(
        Binary::Socketmap,
        vec![
            (
                "100000 bytes",
                text(99_997),
                format!("OK {}", "a".repeat(99_997)),
            ),
            (
                "100001 bytes",
                text(99_998),
                CANNOT_BE_SENT.socketmap.to_owned(),
            ),
            (
                "99999 bytes of UTF-8",
                umlauts(49_998),
                format!("OK {}", "ü".repeat(49_998)),
            ),
            (
                "100001 bytes of UTF-8",
                umlauts(49_999),
                CANNOT_BE_SENT.socketmap.to_owned(),
            ),
            (
                "more than 16 bits of length",
                text(65_536),
                format!("OK {}", "a".repeat(65_536)),
            ),
            ("a short one after all that", text(1), "OK a".to_owned()),
        ],
    )
    .await;
}

#[tokio::test]
async fn policy_says_an_action_of_500_bytes_and_no_more() {
    let reject = |length: usize| format!("REJECT {}", "a".repeat(length - "REJECT ".len()));
    let umlauts = format!("REJECT {}", "ü".repeat(246));
    edges(
        Binary::Policy,
        vec![
            ("500 bytes", plain(reject(500)), reject(500)),
            ("501 bytes", plain(reject(501)), LATER.to_owned()),
            ("499 bytes of UTF-8", plain(&umlauts), umlauts.clone()),
            (
                "501 bytes of UTF-8",
                plain(format!("{umlauts}ü")),
                LATER.to_owned(),
            ),
            (
                "500 bytes after action=",
                plain(format!("action={}", reject(500))),
                reject(500),
            ),
            (
                "a short one after all that",
                plain("DUNNO"),
                "DUNNO".to_owned(),
            ),
        ],
    )
    .await;
}

async fn edges(binary: Binary, rows: Vec<(&str, Script, String)>) {
    let backend = Backend::always(Script::new());
    let program = serve(binary, table(binary, &backend.url("/ask"), "")).await;
    let mut peer = program.peer().await;
    let mut wrong = Wrong::default();
    for (row, script, said) in rows {
        backend.set(script);
        let reply = peer.ask(question(binary, "t", "key")).await;
        wrong.compare(row, &reply, &framed(binary, said));
    }
    wrong.none();
}

#[tokio::test]
async fn the_value_is_where_the_operator_says() {
    for binary in LOOKUPS {
        let keys = "value = \"/data/0/a~1b\"";
        let rows = vec![
            row(
                "there",
                json(r#"{"data":[{"a/b":"v"}]}"#),
                said("200 v", "OK v", ""),
            ),
            row("null there", json(r#"{"data":[{"a/b":null}]}"#), NOT_FOUND),
            row(
                "an object there",
                json(r#"{"data":[{"a/b":{}}]}"#),
                NOT_UNDERSTOOD,
            ),
            row("nowhere", json(r#"{"data":[]}"#), NOT_UNDERSTOOD),
            row("elsewhere", json(r#"{"a/b":"v"}"#), NOT_UNDERSTOOD),
            row("no object", json(r#""v""#), NOT_UNDERSTOOD),
            row("null", json("null"), NOT_UNDERSTOOD),
        ];
        play(binary, keys, rows).await;
        let keys = "value = \"/v\"\nmissing = \"not-found\"";
        let rows = vec![
            row("there", json(r#"{"v":"v"}"#), said("200 v", "OK v", "")),
            row("nowhere", json("{}"), NOT_FOUND),
            row("an object there", json(r#"{"v":{}}"#), NOT_UNDERSTOOD),
            row("no JSON", json("v"), NOT_UNDERSTOOD),
            row("500", typed(500, "application/json", "{}"), {
                said(
                    "400 backend%20answered%20500",
                    "TEMP backend answered 500",
                    "",
                )
            }),
        ];
        play(binary, keys, rows).await;
        let keys = "list-separator = \" \"\ntrue-value = \"yes\"";
        let rows = vec![
            row("a list", json(r#"["a","b",true]"#), {
                said("200 a%20b%20yes", "OK a b yes", "")
            }),
            row("true", json("true"), said("200 yes", "OK yes", "")),
        ];
        play(binary, keys, rows).await;
    }
    let rows = vec![
        row("there", json(r#"{"a":{"b":"DUNNO"}}"#), DUNNO),
        row("elsewhere", json(r#"{"action":"DUNNO"}"#), NOT_UNDERSTOOD),
    ];
    play(Binary::Policy, "value = \"/a/b\"", rows).await;
}
