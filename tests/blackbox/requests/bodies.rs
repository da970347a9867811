//! JSON and forms.

use serde_json::{Value, json};

use crate::support::{
    backend::{Backend, dunno, good, plain},
    peer::{framed, netstring, question},
    program::{ALL, Binary, LOOKUPS},
    replies::{DUNNO, LATER},
    same,
    tables::{expect, serve, table},
};

#[tokio::test]
async fn all_attributes_stand_in_json() {
    let binary = Binary::Policy;
    let request = b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=\n\
                    recipient=a\"b\\c\xc3\xbc@x\nccert_subject=x=y, z\nnew_attribute=1\n\n";
    let all = json!({
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "sender": "",
        "recipient": "a\"b\\cü@x",
        "ccert_subject": "x=y, z",
        "new_attribute": "1",
    });
    for (keys, expected) in [
        ("json = \"{*}\"", all.clone()),
        (
            "json = { tenant = \"t\", all = \"{*}\", to = \"{recipient}\", none = \"{client_name}\" }",
            json!({ "tenant": "t", "all": all, "to": "a\"b\\cü@x", "none": "" }),
        ),
        ("json = [\"{*}\"]", json!([all])),
    ] {
        let backend = Backend::always(dunno());
        let program = serve(binary, table(binary, &backend.url("/ask"), keys)).await;
        let mut peer = program.peer().await;
        same(keys, &peer.ask(request).await, &DUNNO.by(binary));
        let request = backend.only();
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/ask")
        );
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!(body, expected, "{keys}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_utf8_cannot_go_into_json() {
    for binary in ALL {
        let backend = Backend::always(dunno());
        let keys = match binary {
            Binary::Policy => "json = \"{*}\"",
            _ => "method = \"POST\"\njson = \"{key}\"",
        };
        let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
        let mut peer = program.peer().await;
        for key in [
            &b"\xff"[..],
            b"a\xc3@example.com",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
        ] {
            let expected_reply = match binary {
                Binary::TcpLookup => "400 key%20cannot%20be%20sent",
                Binary::Socketmap => "TEMP key cannot be sent",
                Binary::Policy => LATER,
            };
            let reply = peer.ask(question(binary, "t", key)).await;
            same(&format!("{key:?}"), &reply, &framed(binary, expected_reply));
        }
        assert_eq!(backend.count(), 0, "{binary:?}");
        // Where it does not go, it does no harm.
        let reply = peer.ask(question(binary, "t", "key")).await;
        same("afterwards", &reply, &DUNNO.by(binary));
    }
}

#[tokio::test]
async fn a_form_holds_what_the_operator_says_in_the_order_written() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = "method = \"POST\"\n\
                    form = { z = \"{key}\", fixed = \"a b&c=d\", \"odd name\" = \"<{name}>\" }";
        let program = serve(binary, table(binary, &backend.url("/ask"), keys)).await;
        let mut peer = program.peer().await;
        let key = b"a&b=c+d e%\r\n\xc3\xbc\xff";
        let reply = peer.ask(question(binary, "t", key)).await;
        same("found", &reply, &DUNNO.by(binary));
        let request = backend.only();
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/ask")
        );
        assert_eq!(
            request.form(),
            [
                (b"z".to_vec(), key.to_vec()),
                (b"fixed".to_vec(), b"a b&c=d".to_vec()),
                (b"odd name".to_vec(), b"<t>".to_vec()),
            ]
        );
        let expected: &[u8] = b"z=a%26b%3Dc%2Bd%20e%25%0D%0A%C3%BC%FF&fixed=a%20b%26c%3Dd\
                                &odd%20name=%3Ct%3E";
        same("the body", &request.body, expected);
    }
}

#[tokio::test]
async fn a_policy_form_may_be_a_table() {
    let binary = Binary::Policy;
    let backend = Backend::always(dunno());
    let keys = "form = { to = \"{recipient}\", from = \"{sender}\" }";
    expect(binary, table(binary, &backend.url("/"), keys), DUNNO).await;
    same("the body", &backend.only().body, b"to=key&from=");
}

#[tokio::test]
async fn a_constant_query_does_not_switch_off_the_form_of_a_policy() {
    let binary = Binary::Policy;
    const QUERY: &str = "query = { tenant = \"a\" }\n";
    for (inherited, own) in [(QUERY, ""), ("", QUERY)] {
        let backend = Backend::always(dunno());
        let table = table(binary, &backend.url("/"), own);
        expect(binary, format!("[http]\n{inherited}{table}"), DUNNO).await;
        let asked = backend.only();
        assert_eq!(asked.target, "/?tenant=a");
        let form = asked.form();
        assert_eq!(form.last(), Some(&(b"recipient".into(), b"key".into())));
    }
}

#[tokio::test]
async fn a_key_that_is_not_utf8_cannot_go_into_json() {
    let backend = Backend::always(good(Binary::Socketmap, "v"));
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
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body, json!({ "q": "a\"b\\\nü\",\"q\":1", "m": "t" }));
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
