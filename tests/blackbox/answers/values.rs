//! Values in JSON and text.

use super::{Row, play, row};
use crate::support::{
    backend::{json, plain, response, typed},
    program::{ALL, Binary, LOOKUPS},
    replies::{CANNOT_BE_SENT, DUNNO, LATER, NOT_FOUND, NOT_UNDERSTOOD, replies},
};

/// An answer of each kind; `tests/answers.rs` has every shape, `tests/dialogs` every reply.
fn kinds() -> Vec<Row> {
    // None of these is an action, so policy defers throughout.
    let value =
        |name, body: &str, tcp, socketmap| row(name, json(body), replies(tcp, socketmap, LATER));
    let nothing = |name, body: &str| {
        row(
            name,
            json(body),
            replies("500 not%20found", "NOTFOUND ", LATER),
        )
    };
    let senseless = |name, body: &str| row(name, json(body), NOT_UNDERSTOOD);
    vec![
        value(
            "a string",
            r#""\u00e9 50%20off%""#,
            "200 %C3%A9%2050%2520off%25",
            "OK é 50%20off%",
        ),
        value("a number", "1E+3", "200 1E+3", "OK 1E+3"),
        value("true", "true", "200 1", "OK 1"),
        value(
            "a list",
            r#"["a",1,true,2.50]"#,
            "200 a,1,1,2.50",
            "OK a,1,1,2.50",
        ),
        nothing("null", "null"),
        nothing("an empty list", "[]"),
        senseless("a list of an empty string", r#"[""]"#),
        senseless("an object", r#"{"a":1}"#),
        senseless("no JSON", "alice@example.com"),
        senseless("an empty body", ""),
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
        row(
            "a value that is too long",
            json(format!("\"{}\"", "a".repeat(1_000_000))),
            CANNOT_BE_SENT,
        ),
    ]
}

#[tokio::test]
async fn each_kind_of_answer_is_said_and_policy_takes_none_for_an_action() {
    for binary in ALL {
        play(binary, "", kinds()).await;
    }
}

#[tokio::test]
async fn lookups_read_one_line_of_text() {
    for binary in LOOKUPS {
        let rows = vec![
            row(
                "a line",
                plain("a b\r\n"),
                replies("200 a%20b", "OK a b", ""),
            ),
            row("an empty body", plain(""), NOT_FOUND),
            row("two lines", plain("a\nb\n"), NOT_UNDERSTOOD),
            row("bytes that are not UTF-8", plain(b"a\xffb"), CANNOT_BE_SENT),
        ];
        play(binary, "response = \"text\"", rows).await;
    }
}

#[tokio::test]
async fn the_value_is_where_the_operator_says() {
    for binary in LOOKUPS {
        let keys = "value = \"/data/0/a~1b\"";
        let rows = vec![
            row(
                "there",
                json(r#"{"data":[{"a/b":"v"}]}"#),
                replies("200 v", "OK v", ""),
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
            row("there", json(r#"{"v":"v"}"#), replies("200 v", "OK v", "")),
            row("nowhere", json("{}"), NOT_FOUND),
            row("an object there", json(r#"{"v":{}}"#), NOT_UNDERSTOOD),
            row("no JSON", json("v"), NOT_UNDERSTOOD),
            row("500", typed(500, "application/json", "{}"), {
                replies(
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
                replies("200 a%20b%20yes", "OK a b yes", "")
            }),
            row("true", json("true"), replies("200 yes", "OK yes", "")),
        ];
        play(binary, keys, rows).await;
    }
    let rows = vec![
        row("there", json(r#"{"a":{"b":"DUNNO"}}"#), DUNNO),
        row("elsewhere", json(r#"{"action":"DUNNO"}"#), NOT_UNDERSTOOD),
    ];
    play(Binary::Policy, "value = \"/a/b\"", rows).await;
}
