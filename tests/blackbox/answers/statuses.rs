//! HTTP statuses, the operator's meaning for them, and required headers.

use super::{Row, play, row};
use crate::support::{
    backend::{Backend, json, raw, response, status, typed},
    peer::question,
    program::{ALL, Binary},
    replies::{BROKEN, DUNNO, LATER, NOT_FOUND, NOT_UNDERSTOOD, Replies, replies},
    same,
    tables::{serve, table},
};

fn statuses() -> Vec<Row> {
    let answered = |word: &str, status: u16, policy| Replies {
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
        let no_such_thing = replies("500 not%20found", "NOTFOUND ", BROKEN);
        rows.push(row("404", script, no_such_thing));
    }
    for number in [301, 302, 303, 307, 308] {
        let expected_reply = answered("PERM", number, BROKEN);
        rows.push(row(&format!("{number}"), moved(number), expected_reply));
    }
    for number in [304, 400, 402, 405, 406, 409, 410, 418, 422, 451, 499] {
        let expected_reply = answered("PERM", number, BROKEN);
        rows.push(row(&format!("{number}"), status(number), expected_reply));
    }
    for number in [401, 403, 407, 408, 425, 429, 500, 502, 503, 504, 507, 599] {
        let expected_reply = answered("TEMP", number, LATER);
        rows.push(row(&format!("{number}"), status(number), expected_reply));
        let name = format!("{number} with a value");
        rows.push(row(&name, value(number), expected_reply));
        let name = format!("{number} with HTML");
        let page = typed(number, "text/html", "<html>Bad Gateway</html>");
        rows.push(row(&name, page, expected_reply));
    }
    for number in [201, 202, 203, 205, 206, 207, 299] {
        let expected_reply = answered("TEMP", number, LATER);
        rows.push(row(
            &format!("{number} with a value"),
            value(number),
            expected_reply,
        ));
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

#[tokio::test]
async fn the_operator_says_what_a_status_means() {
    let value = |status| typed(status, "application/json", "\"DUNNO\"");
    let keys = "status = { 404 = \"temporary\", \"4xx\" = \"not-found\", 410 = \"found\", \
                \"5xx\" = \"permanent\", 503 = \"not-found\", 200 = \"not-found\" }";
    let answered = |tcp, socketmap, policy| replies(tcp, socketmap, policy);
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
    for (script, expected_reply) in [
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
            same(binary.name(), &reply, &expected_reply.by(binary));
        }
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
