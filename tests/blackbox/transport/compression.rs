//! Compressed bodies in both directions.

use serde_json::{Value, json};

use crate::{
    servers::{gunzip, gzip},
    support::{
        backend::{Act, Backend, Script, dunno, json as answer, response},
        peer::framed,
        program::{ALL, Binary, LOOKUPS},
        replies::{DUNNO, NOT_UNDERSTOOD, TOO_LONG},
        same,
        tables::{ask, expect, serve, table},
    },
};

/// 200 with JSON that is said to be compressed in this way.
fn encoded(coding: &str, body: impl AsRef<[u8]>) -> Script {
    let headers = [
        ("Content-Type", "application/json"),
        ("Content-Encoding", coding),
    ];
    response(200, &headers, body)
}

#[tokio::test]
async fn no_compression_is_asked_for_by_default() {
    for binary in ALL {
        for keys in ["", "compression = false"] {
            let backend = Backend::always(dunno());
            expect(binary, table(binary, &backend.url("/"), keys), DUNNO).await;
            let request = backend.only();
            assert_eq!(request.header("accept-encoding"), None);
            assert_eq!(request.header("content-encoding"), None);
        }
    }
}

#[tokio::test]
async fn a_compressed_answer_is_read_where_it_was_asked_for() {
    for binary in ALL {
        for keys in ["compression = \"response\"", "compression = \"both\""] {
            for script in [encoded("gzip", gzip("\"DUNNO\"")), dunno()] {
                let backend = Backend::always(script);
                expect(binary, table(binary, &backend.url("/"), keys), DUNNO).await;
                assert_eq!(backend.only().header("accept-encoding"), Some("gzip"));
            }
        }
    }
}

#[tokio::test]
async fn a_compressed_answer_may_have_several_members() {
    let body = [gzip("\"DUN"), gzip("NO\"")].concat();
    for coding in ["gzip", "GZIP"] {
        let backend = Backend::always(encoded(coding, &body));
        let config = table(
            Binary::Socketmap,
            &backend.url("/"),
            "compression = \"response\"",
        );
        expect(Binary::Socketmap, config, DUNNO).await;
    }
}

#[tokio::test]
async fn a_compressed_answer_is_measured_as_it_comes_out() {
    for binary in LOOKUPS {
        for (length, fits) in [(1000, true), (1001, false)] {
            let value = "a".repeat(length - 2);
            let body = format!("\"{value}\"");
            for script in [encoded("gzip", gzip(&body)), answer(&body)] {
                let backend = Backend::always(script);
                let keys = "compression = \"response\"\nmax-response = 1000";
                let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
                let reply = ask(&program, binary, "key").await;
                let word = if binary == Binary::TcpLookup {
                    "200"
                } else {
                    "OK"
                };
                let expected = match fits {
                    true => framed(binary, format!("{word} {value}")),
                    false => TOO_LONG.by(binary),
                };
                same("the answer", &reply, &expected);
            }
        }
    }
}

#[tokio::test]
async fn a_little_that_becomes_very_much_is_too_long() {
    let bomb = gzip(format!("\"{}\"", "a".repeat(50_000_000)));
    assert!(bomb.len() < 64 * 1024, "{} bytes", bomb.len());
    let binary = Binary::Socketmap;
    let backend = Backend::always(encoded("gzip", &bomb));
    let keys = "compression = \"response\"\nmax-response = \"64KiB\"";
    let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
    let reply = ask(&program, binary, "key").await;
    same("a bomb", &reply, &TOO_LONG.by(binary));
    backend.set(dunno());
    let reply = ask(&program, binary, "key").await;
    same("after the bomb", &reply, &DUNNO.by(binary));
}

#[tokio::test]
async fn what_is_not_well_compressed_is_not_understood() {
    let whole = gzip("\"DUNNO\"");
    let mut wrong_sum = whole.clone();
    let sum = whole.len() - 8;
    wrong_sum[sum] ^= 1;
    let mut wrong_length = whole.clone();
    let length = whole.len() - 4;
    wrong_length[length] ^= 1;
    let binary = Binary::Socketmap;
    for (row, script) in [
        ("not gzip", encoded("gzip", "\"DUNNO\"")),
        ("nothing", encoded("gzip", "")),
        ("a head", encoded("gzip", &whole[..10])),
        ("half of it", encoded("gzip", &whole[..whole.len() / 2])),
        ("no sum", encoded("gzip", &whole[..whole.len() - 8])),
        ("half a sum", encoded("gzip", &whole[..whole.len() - 2])),
        ("a wrong sum", encoded("gzip", &wrong_sum)),
        ("a wrong length", encoded("gzip", &wrong_length)),
        ("gzip twice", encoded("gzip, gzip", gzip(&whole))),
        (
            "another coding",
            encoded("br", b"\x0b\x03\x80\"DUNNO\"\x03"),
        ),
    ] {
        let backend = Backend::always(script);
        let keys = "compression = \"response\"";
        let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
        let reply = ask(&program, binary, "key").await;
        same(row, &reply, &NOT_UNDERSTOOD.by(binary));
    }
}

#[tokio::test]
async fn request_bodies_are_compressed_only_when_both_are() {
    let form = b"request=smtpd_access_policy&protocol_state=RCPT&recipient=key";
    for (keys, is_compressed) in [
        ("", false),
        ("compression = \"response\"", false),
        ("compression = \"both\"", true),
    ] {
        let backend = Backend::always(dunno());
        let config = table(Binary::Policy, &backend.url("/"), keys);
        expect(Binary::Policy, config, DUNNO).await;
        let request = backend.only();
        let type_of_form = Some("application/x-www-form-urlencoded");
        assert_eq!(request.header("content-type"), type_of_form);
        let length = request.body.len().to_string();
        assert_eq!(request.header("content-length"), Some(length.as_str()));
        if is_compressed {
            assert_eq!(request.header("content-encoding"), Some("gzip"));
            same(keys, &gunzip(&request.body), form);
        } else {
            assert_eq!(request.header("content-encoding"), None);
            same(keys, &request.body, form);
        }
    }
}

#[tokio::test]
async fn a_compressed_body_of_json_is_sent_again_as_it_was() {
    let binary = Binary::Socketmap;
    let backend = Backend::in_turn([
        vec![Act::Close],
        response(307, &[("Location", "/there")], ""),
        dunno(),
    ]);
    let keys = "method = \"POST\"\njson = { k = \"{key}\" }\ncompression = \"both\"\n\
                redirects = \"same-origin\"";
    let config = table(binary, &backend.url("/ask"), keys);
    expect(binary, config, DUNNO).await;
    let requests = backend.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    for request in requests {
        assert_eq!(request.header("content-encoding"), Some("gzip"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&gunzip(&request.body)).expect("JSON");
        assert_eq!(body, json!({ "k": "key" }));
    }
}

#[tokio::test]
async fn a_call_without_a_body_says_nothing_of_its_compression() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let config = table(binary, &backend.url("/"), "compression = \"both\"");
        expect(binary, config, DUNNO).await;
        let request = backend.only();
        assert_eq!(request.header("content-encoding"), None);
        assert_eq!(request.body, b"");
    }
}

#[tokio::test]
async fn a_body_of_nothing_has_its_length_said() {
    for (method, length) in [("GET", None), ("POST", Some("0")), ("PUT", Some("0"))] {
        let backend = Backend::always(dunno());
        let keys = format!("method = \"{method}\"");
        let config = table(Binary::Socketmap, &backend.url("/{key}"), &keys);
        expect(Binary::Socketmap, config, DUNNO).await;
        let request = backend.only();
        assert_eq!(request.header("content-length"), length, "{method}");
        assert_eq!(request.header("transfer-encoding"), None, "{method}");
    }
}
