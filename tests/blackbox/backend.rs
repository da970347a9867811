//! What each program makes of what the backend says, and what the backend is asked: the real
//! programs over real sockets, against a backend made of bytes.

use tokio::io::AsyncWriteExt;

use crate::support::{
    Wrong,
    backend::{Act, Backend, Gate, Script, good, json, plain, raw, response, status, typed},
    peer::{framed, netstring, question},
    program::{ALL, Binary, End, Launch, Reserved},
    said::{
        BROKEN, CANNOT_BE_SENT, DUNNO, LATER, NOT_FOUND, NOT_UNDERSTOOD, Said, TIMED_OUT, TOO_LONG,
        UNREACHABLE, said,
    },
    same,
    tables::{serve, table},
};

/// One row: what the backend answers and what must be said then.
type Row = (String, Script, Said);

fn row(name: &str, script: Script, said: Said) -> Row {
    (name.to_owned(), script, said)
}

/// Plays each row over one connection: exactly one call, exactly one reply.
async fn play(binary: Binary, keys: &str, rows: Vec<Row>) {
    let backend = Backend::always(Script::new());
    let program = serve(binary, table(binary, &backend.url("/ask"), keys)).await;
    let mut peer = program.peer().await;
    let mut wrong = Wrong::default();
    for (number, (row, script, said)) in rows.into_iter().enumerate() {
        backend.set(script);
        let reply = peer.ask(question(binary, "t", "key")).await;
        wrong.compare(&row, &reply, &said.by(binary));
        let calls = backend.count() - number;
        wrong.require(&row, calls == 1, || format!("{calls} calls so far, not 1"));
        if calls != 1 {
            break;
        }
    }
    wrong.none();
    peer.finish().await;
    peer.expect_eof().await;
    program.stop().await;
}

fn statuses() -> Vec<Row> {
    let answered = |word: &str, status: u16, policy| Said {
        tcp: format!("400 backend%20answered%20{status}").leak(),
        socketmap: format!("{word} backend answered {status}").leak(),
        policy,
    };
    let moved = |status| response(status, &[("Location", "/elsewhere")], "\"v\"");
    let value = |status| typed(status, "application/json", "\"DUNNO\"");

    let mut rows = vec![
        row("200", value(200), DUNNO),
        row("204", status(204), NOT_FOUND),
    ];
    // With and without a body: the status is looked at first.
    for script in [status(404), value(404), typed(404, "text/plain", "DUNNO")] {
        let no_such_thing = said("500 not%20found", "NOTFOUND ", BROKEN);
        rows.push(row("404", script, no_such_thing));
    }
    for number in [301, 302, 303, 307, 308] {
        let said = answered("PERM", number, BROKEN);
        rows.push(row(&format!("{number}"), moved(number), said));
    }
    for number in [304, 400, 402, 405, 406, 409, 410, 418, 422, 451, 499] {
        let said = answered("PERM", number, BROKEN);
        rows.push(row(&format!("{number}"), status(number), said));
    }
    for number in [401, 403, 407, 408, 425, 429, 500, 502, 503, 504, 507, 599] {
        let said = answered("TEMP", number, LATER);
        rows.push(row(&format!("{number}"), status(number), said));
        let name = format!("{number} with a value");
        rows.push(row(&name, value(number), said));
        let name = format!("{number} with HTML");
        let page = typed(number, "text/html", "<html>Bad Gateway</html>");
        rows.push(row(&name, page, said));
    }
    for number in [201, 202, 203, 205, 206, 207, 299] {
        let said = answered("TEMP", number, LATER);
        rows.push(row(&format!("{number} with a value"), value(number), said));
    }
    rows.push(row("200 after all that", value(200), DUNNO));
    rows
}

#[tokio::test]
async fn tcp_lookup_says_each_status() {
    play(Binary::TcpLookup, "", statuses()).await;
}

#[tokio::test]
async fn socketmap_says_each_status() {
    play(Binary::Socketmap, "", statuses()).await;
}

#[tokio::test]
async fn policy_says_each_status() {
    play(Binary::Policy, "", statuses()).await;
}

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
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
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

/// Which actions Postfix may be told. `None` is the answer for a temporary failure.
async fn actions(keys: &str, rows: &[(Script, Option<&str>)]) -> End {
    let backend = Backend::always(Script::new());
    let config = table(Binary::Policy, &backend.url("/ask"), keys);
    let program = serve(Binary::Policy, config).await;
    let mut peer = program.peer().await;
    let mut wrong = Wrong::default();
    for (number, (script, said)) in rows.iter().enumerate() {
        backend.set(script.clone());
        let reply = peer.ask(question(Binary::Policy, "t", "key")).await;
        let row = format!("row {number}, {}", said.unwrap_or("no action"));
        let expected = framed(Binary::Policy, said.unwrap_or(LATER));
        wrong.compare(&row, &reply, &expected);
    }
    wrong.none();
    program.stop().await
}

#[tokio::test]
async fn an_action_postfix_understands_is_said() {
    let text = [
        "DUNNO",
        "dunno",
        "DUNNO no opinion",
        "REJECT",
        "REJECT text",
        "reject See https://example.com/why?a=b&c=d",
        "REJECT Grüße",
        "450 4.7.1 Try again later",
        "450 later",
        "550 5.1.1 No such user",
        "421 4.7.0 Bye",
        "521 5.7.1 Bye",
        "DEFER",
        "DEFER 4.7.1 text",
        "DEFER_IF_PERMIT text",
        "DEFER_IF_REJECT text",
        "INFO text",
        "WARN text",
        "HOLD",
        "HOLD text",
        "DISCARD text",
        "FILTER smtp:[127.0.0.1]:10025",
        "FILTER scan:",
        "REDIRECT postmaster@example.com",
        "BCC archive@example.com",
        "PREPEND X-Checked: yes",
        "reject_unauth_destination",
        "reject_unauth_destination, reject_unknown_sender_domain",
        "reject_unauth_destination reject_unlisted_recipient",
    ];
    let mut rows = Vec::new();
    for action in text {
        rows.push((plain(action), Some(action)));
    }
    rows.extend([
        (plain("action=DUNNO"), Some("DUNNO")),
        (plain("action=DUNNO\n\n"), Some("DUNNO")),
        (plain("  REJECT text \r\n"), Some("REJECT text")),
        (json(r#""DUNNO""#), Some("DUNNO")),
        (json(r#""action=REJECT text""#), Some("REJECT text")),
        (typed(200, "text/html", "DUNNO"), Some("DUNNO")),
        (json(r#"{"action":"REJECT text"}"#), Some("REJECT text")),
        (json(r#"{"other":[1],"action":"DUNNO"}"#), Some("DUNNO")),
        (
            typed(
                200,
                "application/json; charset=utf-8",
                r#"{"action":"DUNNO"}"#,
            ),
            Some("DUNNO"),
        ),
    ]);
    actions("", &rows).await;
}

#[tokio::test]
async fn what_is_no_action_is_a_temporary_failure() {
    let text: [&[u8]; 48] = [
        b"",
        b" \n\n",
        b"action=",
        b"action= ",
        b"action=\n\n",
        b"action=action=DUNNO",
        b"action = DUNNO",
        b"450",
        b"550",
        b"450 ",
        b"250",
        b"12345",
        b"200 fine",
        b"250 hello",
        b"350 hello",
        b"600 hello",
        b"4500 hello",
        b"45 hello",
        b"accept",
        b"ACCEPT",
        b"FOOBAR",
        b"DELAY 10s",
        b"250-hello",
        b"450-4.7.1 hello",
        b"Denied: see https://example.com",
        b"hash:/etc/postfix/access",
        b"check_policy_service unix:private/other",
        b"FILTER",
        b"FILTER nothing",
        b"REDIRECT",
        b"REDIRECT nobody",
        b"BCC",
        b"BCC nobody",
        b"PREPEND",
        b"PREPEND no header",
        b"PREPEND : nothing",
        b"DUNNO\nREJECT text",
        b"DUNNO\n\naction=OK",
        b"REJECT a\r\nb",
        b"REJECT a\x07b",
        b"REJECT a\0b",
        b"REJECT a\x1bb",
        b"REJECT a\x7fb",
        b"REJECT \xff",
        b"\xffDUNNO",
        b"REJECT caf\xe9",
        b"reject_unauth_destination, FOOBAR",
        b"<html>DUNNO</html>",
    ];
    let mut rows = Vec::new();
    for action in text {
        rows.push((plain(action), None));
    }
    rows.extend([
        (typed(200, "text/html; charset=utf-8", "<p>DUNNO</p>"), None),
        (json(r#"{"action":""}"#), None),
        (json(r#"{"action":null}"#), None),
        (json(r#"{"action":false}"#), None),
        (json(r#"{"action":450}"#), None),
        (json(r#"{"action":true}"#), None),
        (json(r#"{"action":["REJECT"],"action":{}}"#), None),
        (json(r#"{"Action":"DUNNO"}"#), None),
        (json(r#"{"result":{"action":"DUNNO"}}"#), None),
        (json("450"), None),
        (json(r#""450""#), None),
        (json(r#""DUNNO\nREJECT text""#), None),
        (json(r#""DUNNO\u0000""#), None),
        (json(r#""DUNNO\u2028REJECT""#), None),
        (json("DUNNO"), None),
    ]);
    actions("", &rows).await;
}

/// What lets a message through without further checks is the operator's to allow.
const PERMITS: [&str; 8] = [
    "OK",
    "ok",
    "OK text",
    "RELAY",
    "permit",
    "permit_mynetworks",
    "reject_unauth_destination, permit",
    "PERMIT_SASL_AUTHENTICATED, reject",
];

#[tokio::test]
async fn a_stray_permission_is_a_temporary_failure() {
    let mut rows = Vec::new();
    for action in PERMITS {
        rows.push((plain(action), None));
        rows.push((json(format!("\"{action}\"")), None));
        rows.push((json(format!(r#"{{"action":"{action}"}}"#)), None));
        rows.push((plain(format!("action={action}")), None));
    }
    let end = actions("", &rows).await;
    end.says("permit-actions");
}

#[tokio::test]
async fn a_permission_the_operator_allows_is_said() {
    let mut rows = Vec::new();
    for action in PERMITS {
        rows.push((plain(action), Some(action)));
        rows.push((json(format!(r#"{{"action":"{action}"}}"#)), Some(action)));
    }
    // Bare digits and nothing at all permit as well, but nobody means them.
    rows.extend([
        (plain("450"), None),
        (plain("250"), None),
        (plain(""), None),
    ]);
    actions("permit-actions = true", &rows).await;
}

#[tokio::test]
async fn a_restriction_class_is_known_only_when_it_is_listed() {
    let rows = [
        (plain("greylist"), Some("greylist")),
        (
            plain("reject_unauth_destination, greylist"),
            Some("reject_unauth_destination, greylist"),
        ),
        (plain("blacklist"), None),
    ];
    actions("restriction-classes = [\"greylist\"]", &rows).await;
    actions("", &[(plain("greylist"), None)]).await;
}

#[tokio::test]
async fn the_operators_own_actions_are_said_for_each_outcome() {
    let backend = Backend::in_turn([status(204), status(503), status(400)]);
    let keys = "on-not-found = \"permit\"\non-temporary = \"DUNNO\"\non-permanent = \"REJECT no\"";
    let program = serve(
        Binary::Policy,
        table(Binary::Policy, &backend.url("/"), keys),
    )
    .await;
    let mut peer = program.peer().await;
    for action in ["permit", "DUNNO", "REJECT no"] {
        let reply = peer.ask(question(Binary::Policy, "t", "key")).await;
        same("the operator's", &reply, &framed(Binary::Policy, action));
    }
}

#[tokio::test]
async fn disconnect_says_nothing_and_closes() {
    let backend = Backend::always(status(503));
    let keys = "on-temporary = \"disconnect\"";
    let program = serve(
        Binary::Policy,
        table(Binary::Policy, &backend.url("/"), keys),
    )
    .await;
    let mut peer = program.peer().await;
    peer.send(question(Binary::Policy, "t", "key")).await;
    peer.expect_eof().await;
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn the_value_is_where_the_operator_says() {
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
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

#[tokio::test]
async fn the_operator_says_what_a_status_means() {
    let value = |status| typed(status, "application/json", "\"DUNNO\"");
    let keys = "status = { 404 = \"temporary\", \"4xx\" = \"not-found\", 410 = \"found\", \
                \"5xx\" = \"permanent\", 503 = \"not-found\", 200 = \"not-found\" }";
    let answered = |tcp, socketmap, policy| said(tcp, socketmap, policy);
    let rows = || {
        vec![
            row("exact", value(404), {
                answered(
                    "400 backend%20answered%20404",
                    "TEMP backend answered 404",
                    LATER,
                )
            }),
            row("class", value(400), NOT_FOUND),
            row("class against the table", value(401), NOT_FOUND),
            row("found", value(410), DUNNO),
            row(
                "found, unreadable",
                typed(410, "application/json", "{"),
                NOT_UNDERSTOOD,
            ),
            row("permanent", value(500), {
                answered(
                    "400 backend%20answered%20500",
                    "PERM backend answered 500",
                    BROKEN,
                )
            }),
            row("exact before class", value(503), NOT_FOUND),
            row("even 200", value(200), NOT_FOUND),
        ]
    };
    for binary in ALL {
        play(binary, keys, rows()).await;
    }
}

/// A proxy answers by itself while the API behind it is away.
#[tokio::test]
async fn an_answer_without_the_required_headers_is_not_the_apis() {
    const KEYS: &str = "require-header = { X-Directory = \"1\", X-Zone = \"a\" }\n\
                        status = { 403 = \"not-found\" }\nmissing = \"not-found\"\n";
    let json = ("Content-Type", "application/json");
    let (one, zone) = (("X-Directory", "1"), ("x-zone", "a"));
    let whole = |status, body| response(status, &[json, one, zone], body);
    for (script, said) in [
        (whole(200, "\"DUNNO\""), DUNNO),
        (whole(204, ""), NOT_FOUND),
        (whole(403, ""), NOT_FOUND),
        (
            response(200, &[json, ("X-DIRECTORY", " 1 "), zone], "\"DUNNO\""),
            DUNNO,
        ),
        (
            response(200, &[json, ("X-Directory", "2"), one, zone], "\"DUNNO\""),
            DUNNO,
        ),
        (response(200, &[json], "\"DUNNO\""), NOT_UNDERSTOOD),
        (response(200, &[json, one], "\"DUNNO\""), NOT_UNDERSTOOD),
        (response(204, &[one], ""), NOT_UNDERSTOOD),
        (response(404, &[json], "null"), NOT_UNDERSTOOD),
        (response(403, &[], ""), NOT_UNDERSTOOD),
        (response(302, &[("Location", "/login")], ""), NOT_UNDERSTOOD),
        (response(400, &[], ""), NOT_UNDERSTOOD),
        (response(503, &[], "<html>"), NOT_UNDERSTOOD),
        (
            response(200, &[json, ("X-Directory", "11"), zone], "\"DUNNO\""),
            NOT_UNDERSTOOD,
        ),
        (
            response(200, &[json, ("X-Directory", "1, 1"), zone], "\"DUNNO\""),
            NOT_UNDERSTOOD,
        ),
    ] {
        for binary in ALL {
            let backend = Backend::always(script.clone());
            let program = serve(binary, table(binary, &backend.url("/"), KEYS)).await;
            let reply = program.peer().await.ask(question(binary, "t", "key")).await;
            same(binary.name(), &reply, &said.by(binary));
        }
    }
}

#[tokio::test]
async fn lookups_ask_the_next_target_where_an_answer_is_not_the_apis() {
    for binary in ALL {
        let stray = Backend::always(status(404));
        let api = Backend::always(response(
            200,
            &[("X-Directory", "1"), ("Content-Type", "application/json")],
            "\"DUNNO\"",
        ));
        let config = format!(
            "[{}.t]\ntarget = [\"{}\", \"{}\"]\nrequire-header = {{ X-Directory = \"1\" }}\n",
            binary.name(),
            stray.url("/"),
            api.url("/"),
        );
        let program = serve(binary, config).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        // A policy request may have been counted by whoever has answered.
        let said = if binary == Binary::Policy {
            NOT_UNDERSTOOD
        } else {
            DUNNO
        };
        same(binary.name(), &reply, &said.by(binary));
    }
}

#[tokio::test]
async fn an_interim_answer_is_no_answer() {
    for binary in ALL {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
        let mut script = vec![raw(interim)];
        script.extend(json("\"DUNNO\""));
        play(binary, "", vec![row("103, then 200", script, DUNNO)]).await;
    }
}

/// How a backend can be ill.
struct Illness {
    name: &'static str,
    script: Script,
    said: Said,
    /// How often lookups and policy ask.
    calls: (usize, usize),
}

fn illnesses() -> Vec<Illness> {
    let ill = |name, script, said, calls| Illness {
        name,
        script,
        said,
        calls,
    };
    let head = |header: &str| {
        raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{header}\r\n"
        ))
    };
    let long = "Content-Length: 100\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    vec![
        ill("reset-before", vec![Act::Reset], UNREACHABLE, (2, 1)),
        ill("closed-before", vec![Act::Close], UNREACHABLE, (2, 1)),
        ill("silent", vec![Act::Hang], TIMED_OUT, (1, 1)),
        ill(
            "slow-head",
            vec![Act::Drip(b"HTTP/1.1 200 OK\r\nX-Slow: a".to_vec())],
            TIMED_OUT,
            (1, 1),
        ),
        ill(
            "slow-body",
            vec![
                head("Content-Length: 1000\r\n"),
                Act::Drip(b"\"DUNNO".to_vec()),
            ],
            TIMED_OUT,
            (1, 1),
        ),
        ill(
            "silent-body",
            vec![head(long), raw("\"DUNNO\""), Act::Hang],
            TIMED_OUT,
            (1, 1),
        ),
        ill(
            "endless-chunks",
            vec![head(chunked), Act::Endless(b"4\r\naaaa\r\n".repeat(100))],
            TOO_LONG,
            (1, 1),
        ),
        ill(
            "endless-body",
            vec![head(""), Act::Endless(b" ".repeat(1000))],
            TOO_LONG,
            (1, 1),
        ),
        ill(
            "cut-body",
            vec![head(long), raw("\"DUNNO\""), Act::Close],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "reset-body",
            vec![head(long), raw("\"DUNNO\""), Act::Reset],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "cut-chunks",
            vec![head(chunked), raw("7\r\n\"DUNNO\"\r\n"), Act::Close],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "odd-chunks",
            vec![head(chunked), raw("zz\r\n\"DUNNO\"\r\n"), Act::Hang],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "short-length",
            vec![head("Content-Length: 3\r\n"), raw("\"DUNNO\""), Act::Hang],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "two-lengths",
            vec![
                head("Content-Length: 7\r\nContent-Length: 8\r\n"),
                raw("\"DUNNO\""),
                Act::Hang,
            ],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "garbage",
            vec![raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Act::Hang],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "garbage-and-close",
            vec![raw("DUNNO\n"), Act::Close],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "odd-status",
            vec![raw("HTTP/1.1 2000 OK\r\n\r\n"), Act::Hang],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
        ill(
            "endless-head",
            vec![
                raw("HTTP/1.1 200 OK\r\n"),
                Act::Endless(b"X-Again: and again\r\n".repeat(100)),
            ],
            NOT_UNDERSTOOD,
            (1, 1),
        ),
    ]
}

async fn every_illness(binary: Binary) {
    let mut config = "[http]\nmax-response = \"64KiB\"\n".to_owned();
    let mut launch = Launch::new(binary);
    let mut add = |name: &str, target: String, timeout: &str| {
        config += &format!(
            "[{}.{name}]\ntarget = \"{target}\"\nrequest-timeout = \"{timeout}\"\n",
            binary.name()
        );
        name.to_owned()
    };

    let refused = Reserved::new();
    let unwelcoming = Backend::unwelcoming();
    let mut tables = vec![
        add("refused", format!("http://{}/", refused.address()), "20s"),
        add("unwelcoming", unwelcoming.url("/"), "20s"),
    ];
    let mut backends = Vec::new();
    for illness in illnesses() {
        let backend = Backend::always(illness.script.clone());
        // Only where the deadline is the point may it be short: a loaded machine is slow.
        let timed_out = illness.said.tcp == TIMED_OUT.tcp;
        let timeout = if timed_out { "500ms" } else { "20s" };
        tables.push(add(illness.name, backend.url("/"), timeout));
        backends.push((illness, backend));
    }
    for table in &tables {
        launch = launch.unix(table);
    }
    let program = launch.config(config).ready().await;

    let mut wrong = Wrong::default();
    for (number, table) in tables.iter().enumerate() {
        let said = match number.checked_sub(2) {
            None => UNREACHABLE,
            Some(number) => backends[number].0.said,
        };
        let mut peer = program.peer_at(number).await;
        let reply = peer.ask(question(binary, table, "key")).await;
        wrong.compare(table, &reply, &said.by(binary));
        peer.finish().await;
        peer.expect_eof().await;
    }
    for (illness, backend) in &backends {
        let expected = match binary {
            Binary::Policy => illness.calls.1,
            Binary::TcpLookup | Binary::Socketmap => illness.calls.0,
        };
        let calls = backend.count();
        wrong.require(illness.name, calls == expected, || {
            format!("asked {calls} times, not {expected}")
        });
    }
    wrong.none();
    program.stop().await;
}

#[tokio::test]
async fn tcp_lookup_says_how_the_backend_is_ill() {
    every_illness(Binary::TcpLookup).await;
}

#[tokio::test]
async fn socketmap_says_how_the_backend_is_ill() {
    every_illness(Binary::Socketmap).await;
}

#[tokio::test]
async fn policy_defers_however_the_backend_is_ill() {
    every_illness(Binary::Policy).await;
}

#[tokio::test]
async fn a_backend_without_tls_is_unreachable_over_https() {
    for binary in ALL {
        let listener = Reserved::new();
        let target = format!("https://{}/", listener.address());
        let listener = listener.listen();
        let plain_http = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\"DUNNO\"";
                stream.write_all(answer).await.expect("an answer");
                open.push(stream);
            }
        });
        let program = serve(binary, table(binary, &target, "")).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &UNREACHABLE.by(binary));
        plain_http.abort();
    }
}

#[tokio::test]
async fn connecting_has_a_deadline_of_its_own() {
    for binary in ALL {
        // It takes the connection and says nothing, so that TLS never begins.
        let silent = Backend::always(Script::new());
        let target = format!("https://{}/", silent.address());
        let keys = "connect-timeout = \"300ms\"\nrequest-timeout = \"80s\"";
        let program = serve(binary, table(binary, &target, keys)).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &TIMED_OUT.by(binary));
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_whole() {
    for binary in ALL {
        let head = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n";
        let backend = Backend::always(vec![raw(head), raw("\"DUNNO\""), Act::Close]);
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &DUNNO.by(binary));
    }
}

#[tokio::test]
async fn an_empty_body_that_only_the_end_of_the_connection_ends_is_no_answer() {
    for (version, content_type) in [("1.1", "text/plain"), ("1.0", "text/plain"), ("1.1", "")] {
        for body in ["", " \r\n", "\u{feff}"] {
            for binary in ALL {
                let head = format!("HTTP/{version} 200 OK\r\nContent-Type: {content_type}\r\n\r\n");
                let script = vec![raw(head), raw(body), Act::Finish];
                let backend = Backend::always(script);
                let keys = "response = \"text\"\n";
                let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
                let reply = program.peer().await.ask(question(binary, "t", "key")).await;
                same(binary.name(), &reply, &NOT_UNDERSTOOD.by(binary));
            }
        }
    }
    for fields in [
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, identity",
        "Content-Length: 0\r\nTransfer-Encoding: identity",
    ] {
        let binary = Binary::Socketmap;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{fields}\r\n\r\n");
        let backend = Backend::always(vec![raw(head), Act::Finish]);
        let config = table(binary, &backend.url("/"), "response = \"text\"\n");
        let program = serve(binary, config).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same(fields, &reply, &NOT_UNDERSTOOD.by(binary));
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n";
    for script in [plain(""), vec![raw(chunked)]] {
        let binary = Binary::Socketmap;
        let backend = Backend::always(script);
        let config = table(binary, &backend.url("/"), "response = \"text\"\n");
        let program = serve(binary, config).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same("an end of its own", &reply, &NOT_FOUND.by(binary));
    }
}

/// uvicorn closes without a word in its answer, Node and others sometimes.
#[tokio::test]
async fn a_connection_is_not_used_again_after_a_5xx() {
    for binary in ALL {
        for script in [
            typed(500, "text/plain", "Internal Server Error"),
            status(500),
        ] {
            // Whoever asks over the same connection finds it closed.
            let mut closing = script.clone();
            closing.push(Act::Hang);
            let backend = Backend::in_turn([closing, good(binary, "DUNNO")]);
            let keys = "retries = 0\nbreaker = false\n";
            let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
            let mut peer = program.peer().await;
            peer.ask(question(binary, "t", "key")).await;
            let reply = peer.ask(question(binary, "t", "key")).await;
            same(binary.name(), &reply, &DUNNO.by(binary));
        }
    }
}

#[tokio::test]
async fn a_body_longer_than_it_says_never_answers_the_next_question() {
    for binary in ALL {
        let more = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n\
                    \"DUNNO\"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                    Content-Length: 8\r\n\r\n\"REJECT\"";
        let backend = Backend::in_turn([vec![raw(more)], status(204)]);
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        let first = peer.ask(question(binary, "t", "key")).await;
        same(binary.name(), &first, &DUNNO.by(binary));
        let second = peer.ask(question(binary, "t", "key")).await;
        same(binary.name(), &second, &NOT_FOUND.by(binary));
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_asked_once_more_by_lookups_only() {
    for broken in [Act::Close, Act::Reset] {
        for binary in ALL {
            let backend = Backend::in_turn([vec![broken.clone()], good(binary, "DUNNO")]);
            let program = serve(binary, table(binary, &backend.url("/"), "")).await;
            let mut peer = program.peer().await;
            let reply = peer.ask(question(binary, "t", "key")).await;
            let said = said("200 DUNNO", "OK DUNNO", LATER);
            same(binary.name(), &reply, &said.by(binary));
            let calls = if binary == Binary::Policy { 1 } else { 2 };
            assert_eq!(backend.count(), calls, "{binary:?}");
        }
    }
}

#[tokio::test]
async fn without_retries_lookups_ask_once() {
    for binary in ALL {
        let backend = Backend::always(vec![Act::Close]);
        let program = serve(binary, table(binary, &backend.url("/"), "retries = 0")).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &UNREACHABLE.by(binary));
        assert_eq!(backend.count(), 1, "{binary:?}");
    }
}

/// A backend may close a kept connection at any time; a lookup must not notice.
#[tokio::test]
async fn a_backend_that_closes_after_each_answer_costs_lookups_nothing() {
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
        let mut script = json("\"v\"");
        script.push(Act::Close);
        let backend = Backend::always(script);
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        for _ in 0..50 {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same(binary.name(), &reply, &said("200 v", "OK v", "").by(binary));
        }
    }
}

/// A policy call may have been counted even if its answer is lost.
#[tokio::test]
async fn policy_is_never_asked_twice_over_connections_that_close() {
    let mut script = plain("DUNNO");
    script.push(Act::Close);
    let backend = Backend::always(script);
    let config = table(Binary::Policy, &backend.url("/"), "");
    let program = serve(Binary::Policy, config).await;
    let mut peer = program.peer().await;
    let mut answered = 0;
    for _ in 0..100 {
        let reply = peer.ask(question(Binary::Policy, "t", "key")).await;
        if reply == framed(Binary::Policy, "DUNNO") {
            answered += 1;
        } else {
            same("lost", &reply, &framed(Binary::Policy, LATER));
        }
    }
    assert_eq!(backend.count(), answered, "as often as it was answered");
}

#[tokio::test]
async fn policy_notices_that_a_kept_connection_was_closed() {
    let mut script = plain("DUNNO");
    script.push(Act::Finish);
    let backend = Backend::always(script);
    let config = table(Binary::Policy, &backend.url("/"), "");
    let program = serve(Binary::Policy, config).await;
    let mut peer = program.peer().await;
    for number in 1..=5 {
        let reply = peer.ask(question(Binary::Policy, "t", "key")).await;
        same("policy", &reply, &framed(Binary::Policy, "DUNNO"));
        // Nothing is to be sent over a connection whose end is known.
        backend.left(number).await;
    }
    assert_eq!(backend.count(), 5);
}

#[tokio::test]
async fn a_backend_connection_is_kept_for_the_next_call() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        for _ in 0..10 {
            peer.ask(question(binary, "t", "key")).await;
        }
        let connections: Vec<_> = backend.requests().iter().map(|r| r.connection).collect();
        assert_eq!(connections, [0; 10], "{binary:?}");
    }
}

#[tokio::test]
async fn an_ill_backend_does_not_spoil_its_next_answers() {
    for binary in ALL {
        let backend = Backend::in_turn([
            vec![raw("garbage\r\n\r\n"), Act::Hang],
            vec![
                raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\"v"),
                Act::Close,
            ],
            status(503),
            good(binary, "DUNNO"),
        ]);
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        let expected = [
            NOT_UNDERSTOOD,
            NOT_UNDERSTOOD,
            said(
                "400 backend%20answered%20503",
                "TEMP backend answered 503",
                LATER,
            ),
            DUNNO,
        ];
        for said in expected {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same(binary.name(), &reply, &said.by(binary));
        }
    }
}

async fn a_late_answer(binary: Binary) {
    let gate = Gate::shut();
    let mut late = vec![Act::Wait(gate.clone())];
    late.extend(good(binary, "REJECT"));
    let backend = Backend::in_turn([late, good(binary, "DUNNO")]);
    // Long enough for the second call, however loaded the machine is.
    let keys = "request-timeout = \"2s\"";
    let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
    let mut peer = program.peer().await;
    let reply = peer.ask(question(binary, "t", "key")).await;
    same(binary.name(), &reply, &TIMED_OUT.by(binary));
    gate.pass(1);
    let reply = peer.ask(question(binary, "t", "key")).await;
    same(binary.name(), &reply, &DUNNO.by(binary));
    peer.finish().await;
    peer.expect_eof().await;
}

#[tokio::test]
async fn a_late_answer_of_the_backend_answers_nothing() {
    tokio::join!(
        a_late_answer(Binary::TcpLookup),
        a_late_answer(Binary::Socketmap),
        a_late_answer(Binary::Policy)
    );
}

/// What a key looks like in a URL: everything but unreserved characters as `%XX`.
const KEYS: [(&[u8], &str); 26] = [
    (b"a\0b", "a%00b"),
    (b"alice@example.com", "alice%40example.com"),
    (b"a-b.c_d~e9", "a-b.c_d~e9"),
    (b"a b", "a%20b"),
    (b"%", "%25"),
    (b"%41", "%2541"),
    (b"%2e%2e", "%252e%252e"),
    (b"&=+?#/", "%26%3D%2B%3F%23%2F"),
    (b"../../admin", "..%2F..%2Fadmin"),
    (b"..\\..\\admin", "..%5C..%5Cadmin"),
    (b"k?x=1", "k%3Fx%3D1"),
    (b"k&name=other", "k%26name%3Dother"),
    (
        b"k HTTP/1.1\r\nX-Evil: 1\r\n\r\n",
        "k%20HTTP%2F1.1%0D%0AX-Evil%3A%201%0D%0A%0D%0A",
    ),
    ("ü@exämple.com".as_bytes(), "%C3%BC%40ex%C3%A4mple.com"),
    (b"\xff\xfe", "%FF%FE"),
    (b"caf\xe9@example.com", "caf%E9%40example.com"),
    (b"\x01\x1b\x7f", "%01%1B%7F"),
    (
        b"\"john doe\"@example.com",
        "%22john%20doe%22%40example.com",
    ),
    (b"\"\"", "%22%22"),
    (b"a@b@c", "a%40b%40c"),
    (b"[1.2.3.4]", "%5B1.2.3.4%5D"),
    (b"{key}", "%7Bkey%7D"),
    (b"$HOME`id`'<>|^", "%24HOME%60id%60%27%3C%3E%7C%5E"),
    (b"!*'();:,", "%21%2A%27%28%29%3B%3A%2C"),
    (b"...", "..."),
    (b"@example.com", "%40example.com"),
];

#[tokio::test]
async fn a_key_stands_escaped_in_the_query() {
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
        let backend = Backend::always(status(404));
        let program = serve(binary, table(binary, &backend.url("/look/up?x=1"), "")).await;
        let mut peer = program.peer().await;
        let mut wrong = Wrong::default();
        for (number, (key, escaped)) in KEYS.into_iter().enumerate() {
            let reply = peer.ask(question(binary, "t", key)).await;
            wrong.compare(escaped, &reply, &NOT_FOUND.by(binary));
            let requests = backend.requests();
            assert_eq!(requests.len(), number + 1, "calls after {escaped}");
            let expected = match binary {
                Binary::Socketmap => format!("/look/up?x=1&name=t&key={escaped}"),
                _ => format!("/look/up?x=1&key={escaped}"),
            };
            let target = requests[number].target.as_bytes();
            wrong.compare(escaped, target, expected.as_bytes());
            let method = requests[number].method.as_bytes();
            wrong.compare(escaped, method, b"GET");
        }
        wrong.none();
    }
}

#[tokio::test]
async fn a_key_stands_escaped_in_one_segment_of_the_path() {
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
        let backend = Backend::always(status(404));
        let target = backend.url("/u/{key}/of/{name}?again={key}");
        let program = serve(binary, table(binary, &target, "")).await;
        let mut peer = program.peer().await;
        let mut wrong = Wrong::default();
        for (number, (key, escaped)) in KEYS.into_iter().enumerate() {
            let reply = peer.ask(question(binary, "t", key)).await;
            wrong.compare(escaped, &reply, &NOT_FOUND.by(binary));
            let requests = backend.requests();
            assert_eq!(requests.len(), number + 1, "calls after {escaped}");
            let expected = format!("/u/{escaped}/of/t?again={escaped}");
            let target = requests[number].target.as_bytes();
            wrong.compare(escaped, target, expected.as_bytes());
        }
        wrong.none();
    }
}

#[tokio::test]
async fn local_part_and_domain_are_split_at_the_last_at_sign() {
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
        let backend = Backend::always(status(404));
        let config = table(binary, &backend.url("/{domain}/{local}"), "");
        let program = serve(binary, config).await;
        let mut peer = program.peer().await;
        // Where there is no local part or no domain to put in, nothing is there to find.
        for key in [
            "alice@example.com",
            "a@b@c",
            "alice",
            "@example.com",
            "alice@",
        ] {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &NOT_FOUND.by(binary));
        }
        let targets: Vec<_> = backend.requests().into_iter().map(|r| r.target).collect();
        assert_eq!(targets, ["/example.com/alice", "/c/a%40b"], "{binary:?}");
    }
}

#[tokio::test]
async fn the_keys_postfix_asks_of_every_table_are_not_found_without_a_call() {
    let keys = ["*", "<>", "\"<>\""];
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
        let backend = Backend::always(json("\"v\""));
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        for key in keys {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &NOT_FOUND.by(binary));
        }
        assert_eq!(backend.count(), 0, "{binary:?}");

        let asked = table(binary, &backend.url("/"), "special-keys = true");
        let program = serve(binary, asked).await;
        let mut peer = program.peer().await;
        for key in keys {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &said("200 v", "OK v", "").by(binary));
        }
        assert_eq!(backend.count(), 3, "{binary:?}");
    }
}

#[tokio::test]
async fn a_key_that_would_change_the_path_is_not_found_without_a_call() {
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
        let backend = Backend::always(json("\"v\""));
        let program = serve(binary, table(binary, &backend.url("/u/{key}"), "")).await;
        let mut peer = program.peer().await;
        for key in ["", ".", ".."] {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &NOT_FOUND.by(binary));
        }
        assert_eq!(backend.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn a_key_that_leaves_its_segment_whole_is_asked() {
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
        let backend = Backend::always(json("\"v\""));
        let config = table(binary, &backend.url("/u/id-{key}"), "");
        let program = serve(binary, config).await;
        let mut peer = program.peer().await;
        for key in [".", ".."] {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &said("200 v", "OK v", "").by(binary));
        }
        let targets: Vec<_> = backend.requests().into_iter().map(|r| r.target).collect();
        assert_eq!(targets, ["/u/id-.", "/u/id-.."], "{binary:?}");
    }
}

#[tokio::test]
async fn an_attribute_that_would_change_the_path_is_temporary_without_a_call() {
    let backend = Backend::always(plain("DUNNO"));
    let target = backend.url("/u/{sasl_username}");
    let program = serve(Binary::Policy, table(Binary::Policy, &target, "")).await;
    let mut peer = program.peer().await;
    for name in [
        "sasl_username=",
        "sasl_username=.",
        "sasl_username=..",
        "sender=a@b.example",
    ] {
        let reply = peer
            .ask(format!("request=smtpd_access_policy\n{name}\n\n"))
            .await;
        same(name, &reply, &framed(Binary::Policy, LATER));
    }
    assert_eq!(backend.count(), 0);
    let reply = peer.ask("sasl_username=../../admin?x=1\n\n").await;
    same("escaped", &reply, &framed(Binary::Policy, "DUNNO"));
    assert_eq!(backend.only().target, "/u/..%2F..%2Fadmin%3Fx%3D1");
}

#[tokio::test]
async fn every_call_has_a_request_id_of_its_own_and_says_who_asks() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let program = serve(binary, table(binary, &backend.url("/"), "")).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            let mut peer = program.peer().await;
            for _ in 0..3 {
                peer.ask(question(binary, "t", "key")).await;
            }
        }
        for request in backend.requests() {
            let id = request.header("x-request-id").expect("an X-Request-Id");
            assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()));
            ids.push(id.to_owned());
            let agent = concat!("postgate/", env!("CARGO_PKG_VERSION"));
            assert_eq!(request.header("user-agent"), Some(agent));
            let host = backend.address().to_string();
            assert_eq!(request.header("host"), Some(host.as_str()));
            for absent in ["x-auth-token", "authorization", "cookie", "referer"] {
                assert_eq!(request.header(absent), None, "{binary:?} {absent}");
            }
        }
        assert_eq!(ids.len(), 9);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 9, "{binary:?}: an id came twice");
    }
}

#[tokio::test]
async fn credentials_and_headers_are_sent() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let files = Launch::new(binary);
        let token_file = files.directory().join("token");
        std::fs::write(&token_file, "from-a-file\n").expect("a written token");
        let name = binary.name();
        let url = backend.url("/");
        let config = format!(
            "[{name}.token]\ntarget = \"{url}\"\nauth-token = \"x-token\"\n\
             [{name}.bearer]\ntarget = \"{url}\"\nbearer-token = {{ file = \"{}\" }}\n\
             [{name}.basic]\ntarget = \"{url}\"\n\
             basic-auth = {{ user = \"Aladdin\", password = {{ env = \"PASSWORD\" }} }}\n\
             [{name}.own]\ntarget = \"{url}\"\nuser-agent = \"mail/1\"\n\
             headers = {{ X-Own = \"yes\", X-Secret = {{ credential = \"secret\" }} }}\n",
            token_file.display()
        );
        std::fs::write(files.directory().join("secret"), "from-systemd").expect("a credential");
        let credentials = files.directory().to_owned();
        let program = files
            .config(config)
            .environment("PASSWORD", "open sesame")
            .environment("CREDENTIALS_DIRECTORY", credentials)
            .unix("token")
            .unix("bearer")
            .unix("basic")
            .unix("own")
            .ready()
            .await;
        let expected = [
            ("token", "x-auth-token", "x-token"),
            ("bearer", "authorization", "Bearer from-a-file"),
            (
                "basic",
                "authorization",
                "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            ),
            ("own", "x-secret", "from-systemd"),
        ];
        for (number, (table, header, value)) in expected.into_iter().enumerate() {
            let mut peer = program.peer_at(number).await;
            let reply = peer.ask(question(binary, table, "key")).await;
            same(table, &reply, &DUNNO.by(binary));
            let requests = backend.requests();
            assert_eq!(requests[number].header(header), Some(value), "{table}");
        }
        let own = &backend.requests()[3];
        assert_eq!(own.header("x-own"), Some("yes"));
        assert_eq!(own.header("user-agent"), Some("mail/1"));
    }
}

#[tokio::test]
async fn a_key_in_a_header_cannot_end_it() {
    let backend = Backend::always(json("\"v\""));
    let keys = "headers = { X-Key = \"k {key}\" }";
    let config = table(Binary::Socketmap, &backend.url("/"), keys);
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    let key = b"a%b\r\nX-Evil: 1 \xc3\xa9\xff";
    peer.ask(question(Binary::Socketmap, "t", key)).await;
    let request = backend.only();
    assert_eq!(request.header("x-evil"), None);
    assert_eq!(
        request.header("x-key"),
        Some("k a%25b%0D%0AX-Evil:%201%20%C3%A9%FF")
    );
}

#[tokio::test]
async fn a_key_that_is_not_utf8_cannot_go_into_json() {
    let backend = Backend::always(json("\"v\""));
    let keys = "json = { q = \"{key}\", m = \"{name}\" }\nmethod = \"POST\"";
    let config = table(Binary::Socketmap, &backend.url("/"), keys);
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    let reply = peer.ask(question(Binary::Socketmap, "t", b"\xff")).await;
    same("not UTF-8", &reply, &netstring("TEMP key cannot be sent"));
    assert_eq!(backend.count(), 0);

    let reply = peer
        .ask(question(Binary::Socketmap, "t", "a\"b\\\nü\",\"q\":1"))
        .await;
    same("UTF-8", &reply, &netstring("OK v"));
    let request = backend.only();
    assert_eq!(request.header("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(
        body,
        serde_json::json!({ "q": "a\"b\\\nü\",\"q\":1", "m": "t" })
    );
}

/// hyper holds a URL to 64 KiB, which escaping can exceed though the request was short enough.
#[tokio::test]
async fn a_key_too_long_for_a_url_is_temporary() {
    let backend = Backend::always(json("\"v\""));
    let config = table(Binary::Socketmap, &backend.url("/"), "");
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    let long = vec![b' '; 40_000];
    let reply = peer.ask(question(Binary::Socketmap, "t", &long)).await;
    same("too long", &reply, &netstring("TEMP key cannot be sent"));
    assert_eq!(backend.count(), 0);
    let reply = peer
        .ask(question(Binary::Socketmap, "t", "a".repeat(10_000)))
        .await;
    same("long", &reply, &netstring("OK v"));
    assert_eq!(backend.only().query()[1].1, "a".repeat(10_000).as_bytes());
}

#[tokio::test]
async fn a_policy_call_is_a_form_of_all_attributes_in_the_order_they_came() {
    let backend = Backend::always(plain("DUNNO"));
    let config = table(Binary::Policy, &backend.url("/policy?x=1"), "");
    let program = serve(Binary::Policy, config).await;
    let attributes: [(&str, &[u8]); 16] = [
        ("request", b"smtpd_access_policy"),
        ("protocol_state", b"RCPT"),
        ("protocol_name", b"ESMTP"),
        ("client_address", b"2001:db8::1"),
        ("client_name", b"unknown"),
        ("helo_name", b"a&recipient=evil@example.com"),
        ("sender", b"a=b+c%41 d@example.com"),
        ("recipient", "Grüße@exämple.com".as_bytes()),
        ("recipient_count", b"0"),
        ("queue_id", b""),
        ("sasl_username", b"\x01\x1b\xff\xe9"),
        ("ccert_subject", b"J+C3+B6hn+20Doe"),
        ("encryption_cipher", b"TLS_AES_256_GCM_SHA384"),
        ("unheard_of", b"x y\tz"),
        ("helo_name", b"twice"),
        ("mail_version", b"3.11.6"),
    ];
    let mut block = Vec::new();
    for (name, value) in attributes {
        block.extend([name.as_bytes(), b"=", value, b"\n"].concat());
    }
    block.push(b'\n');
    let reply = program.peer().await.ask(block).await;
    same("the action", &reply, &framed(Binary::Policy, "DUNNO"));
    let request = backend.only();
    assert_eq!(request.method, "POST");
    assert_eq!(request.target, "/policy?x=1");
    let expected: Vec<(Vec<u8>, Vec<u8>)> = attributes
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    assert_eq!(request.form(), expected);
}

#[tokio::test]
async fn an_endpoint_inherits_and_takes_back() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let (name, url) = (binary.name(), backend.url("/"));
        let config = format!(
            "[http]\nauth-token = \"common\"\nbearer-token = \"common\"\n\
             headers = {{ X-One = \"1\", X-Two = \"2\" }}\n\
             [{name}.plain]\ntarget = \"{url}\"\n\
             [{name}.own]\ntarget = \"{url}\"\nauth-token = false\n\
             basic-auth = {{ user = \"u\", password = \"p\" }}\n\
             headers = {{ X-Two = \"own\", X-One = false }}\n"
        );
        let program = Launch::new(binary)
            .config(config)
            .unix("plain")
            .unix("own")
            .ready()
            .await;
        for (number, table) in ["plain", "own"].into_iter().enumerate() {
            let mut peer = program.peer_at(number).await;
            peer.ask(question(binary, table, "key")).await;
        }
        let requests = backend.requests();
        let names = ["x-auth-token", "authorization", "x-one", "x-two"];
        let sent = |number: usize| names.map(|name| requests[number].header(name));
        assert_eq!(sent(0), ["common", "Bearer common", "1", "2"].map(Some));
        assert_eq!(sent(1), [None, Some("Basic dTpw"), None, Some("own")]);
    }
}

#[tokio::test]
async fn the_other_bridges_contract_holds() {
    // The token is sent, a tail of the next request waits, the list is joined.
    let backend = Backend::always(json(r#"["r1","r2"]"#));
    let config = table(Binary::TcpLookup, &backend.url("/"), "auth-token = \"t\"");
    let program = serve(Binary::TcpLookup, config).await;
    let reply = program.peer().await.ask("get +%20%25&%C2%A7%C3%9F\n").await;
    same("tcp", &reply, b"200 r1,r2\n");
    let request = backend.only();
    assert_eq!(request.header("x-auth-token"), Some("t"));
    assert_eq!(
        request.query(),
        [(b"key".to_vec(), "+ %&§ß".as_bytes().to_vec())]
    );

    let backend = Backend::always(json(r#"["0123456789"]"#));
    let config = format!("[socketmap.test]\ntarget = \"{}\"\n", backend.url("/"));
    let program = serve(Binary::Socketmap, config).await;
    let reply = program.peer().await.ask("15:test 0123456789,").await;
    same("socketmap", &reply, b"13:OK 0123456789,");
    assert_eq!(backend.only().target, "/?name=test&key=0123456789");

    let backend = Backend::always(plain("DUNNO"));
    let config = table(Binary::Policy, &backend.url("/"), "auth-token = \"t\"");
    let program = serve(Binary::Policy, config).await;
    let mut peer = program.peer().await;
    same("policy", &peer.ask("a=b\n\na").await, b"action=DUNNO\n\n");
    same("policy", &peer.ask("=c\n\n").await, b"action=DUNNO\n\n");
    let forms: Vec<_> = backend.requests().iter().map(|r| r.body.clone()).collect();
    assert_eq!(forms, [b"a=b", b"a=c"]);
}

#[tokio::test]
async fn two_maps_of_one_socket_are_asked_apart() {
    let users = Backend::always(json("\"user\""));
    let domains = Backend::always(json("true"));
    let rest = Backend::always(status(404));
    let config = format!(
        "[socketmap.users]\ntarget = \"{}\"\n[socketmap.domains]\ntarget = \"{}\"\n\
         [socketmap.\"*\"]\ntarget = \"{}\"\n",
        users.url("/"),
        domains.url("/"),
        rest.url("/")
    );
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    same(
        "users",
        &peer.ask(netstring("users a")).await,
        &netstring("OK user"),
    );
    same(
        "domains",
        &peer.ask(netstring("domains a")).await,
        &netstring("OK 1"),
    );
    same(
        "users",
        &peer.ask(netstring("users b")).await,
        &netstring("OK user"),
    );
    same(
        "other",
        &peer.ask(netstring("other b")).await,
        &netstring("NOTFOUND "),
    );
    assert_eq!((users.count(), domains.count()), (2, 1));
    assert_eq!(rest.only().target, "/?name=other&key=b");
}

#[tokio::test]
async fn the_name_of_a_map_is_escaped_like_a_key() {
    let backend = Backend::always(json("\"v\""));
    let config = format!(
        "[socketmap.\"*\"]\ntarget = \"{}\"\n",
        backend.url("/m/{name}?key={key}")
    );
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    for name in ["", ".", ".."] {
        let reply = peer.ask(netstring(format!("{name} key"))).await;
        same(name, &reply, &netstring("NOTFOUND "));
    }
    assert_eq!(backend.count(), 0);
    let reply = peer.ask(netstring(b"../a?b#c\xff key")).await;
    same("escaped", &reply, &netstring("OK v"));
    assert_eq!(backend.only().target, "/m/..%2Fa%3Fb%23c%FF?key=key");
}
