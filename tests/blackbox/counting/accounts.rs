//! Whose use is counted.

use super::{PASSED, data, dialog, limit, request, serve};

#[tokio::test]
async fn the_first_text_whose_placeholders_have_a_value_names_the_account() {
    let table = "[policy.t]\nextra-attributes = [\"tenant\"]\n".to_owned()
        + &limit(
            "a",
            "by = [\"{sasl_username.domain}\", \"{tenant}\", \"{client_address.net}\"]\n\
             rates = { \"1h\" = 2 }",
        );
    let (_program, mut peer) = serve(&table).await;
    let mut number = 0;
    let mut ask = |login: &str, more: &[(&str, &str)]| {
        number += 1;
        let mut more = more.to_vec();
        more.push(("recipient_count", "1"));
        let mut bytes = request("DATA", &number.to_string(), login, &more);
        // An attribute of the operator's own.
        if let Some(at) = login.find('/') {
            let tenant = format!("tenant={}\n\n", &login[at + 1..]);
            bytes.truncate(bytes.len() - 1);
            bytes.extend_from_slice(tenant.as_bytes());
        }
        bytes
    };
    let full = "REJECT a: 2 of 2 in 1h";
    let from = |address| [("client_address", address)];
    let rows = [
        (ask("joe@a.test", &[]), PASSED),
        (ask("jim@A.Test", &[]), PASSED),
        (ask("jane@a.test", &[]), full),
        (ask("jane@b.test", &[]), PASSED),
        // No domain: the network.
        (ask("joe", &from("192.0.2.1")), PASSED),
        (ask("", &from("192.0.2.254")), PASSED),
        (ask("", &from("192.0.2.9")), full),
        (ask("", &from("192.0.3.1")), PASSED),
        (ask("", &from("2001:db8:0:1::1")), PASSED),
        (ask("", &from("2001:db8:0:1:ffff::")), PASSED),
        (ask("", &from("2001:db8:0:1::2")), full),
        (ask("", &from("2001:db8:0:2::1")), PASSED),
        // Neither: nobody is charged.
        (ask("", &from("unknown")), PASSED),
        (ask("", &from("unknown")), PASSED),
        (ask("", &from("unknown")), PASSED),
        (ask("/acme", &from("unknown")), PASSED),
        (ask("/ACME", &from("unknown")), PASSED),
        (ask("/acme", &from("192.0.2.77")), full),
    ];
    dialog(&mut peer, rows).await;
}

#[tokio::test]
async fn a_text_without_placeholders_is_one_account_for_all() {
    let table = limit("all", "by = \"everybody\"\nrates = { \"1h\" = 2 }");
    let (_program, mut peer) = serve(&table).await;
    let rows = [
        (data("1", "joe", "1"), PASSED),
        (data("2", "", "1"), PASSED),
        (data("3", "jim", "1"), "REJECT all: 2 of 2 in 1h"),
    ];
    dialog(&mut peer, rows).await;
}

#[tokio::test]
async fn case_and_extension_make_no_other_account() {
    let table = limit("login", "delimiter = \"+\"\nrates = { \"1h\" = 2 }");
    let (_program, mut peer) = serve(&table).await;
    let rows = [
        (data("1", "joe@a.test", "1"), PASSED),
        (data("2", "JOE+lists+x@A.test", "1"), PASSED),
        (data("3", "joe@a.test", "1"), "REJECT login: 2 of 2 in 1h"),
        (data("4", "joe-x@a.test", "1"), PASSED),
    ];
    dialog(&mut peer, rows).await;
}

#[tokio::test]
async fn who_is_exempt_is_not_counted() {
    let table = limit(
        "login",
        "rates = { \"1h\" = 1 }\nexempt = [\"Root@a.test\", \"@lists.test\"]",
    );
    let (_program, mut peer) = serve(&table).await;
    let rows = [
        (data("1", "root@A.test", "99"), PASSED),
        (data("2", "anybody@Lists.test", "99"), PASSED),
        (data("3", "joe@a.test", "99"), "REJECT login: 0 of 1 in 1h"),
        (
            data("4", "x@sub.lists.test", "99"),
            "REJECT login: 0 of 1 in 1h",
        ),
    ];
    dialog(&mut peer, rows).await;
}

/// A peer that is no Postfix may send any bytes.
#[tokio::test]
async fn any_bytes_are_an_account() {
    let (_program, mut peer) = serve(&limit("login", "rates = { \"1h\" = 1 }")).await;
    let long = "x".repeat(10_000);
    let raw = |instance: &str, login: &[u8]| {
        let mut bytes = data(instance, "?", "1");
        let at = bytes
            .windows(3)
            .position(|three| three == b"=?\n")
            .expect("the login");
        bytes.splice(at + 1..at + 2, login.iter().copied());
        bytes
    };
    let full = "REJECT login: 1 of 1 in 1h";
    let rows = [
        (raw("1", b"\xff"), PASSED),
        (raw("2", b"\xff"), full),
        (raw("3", b"\xfe"), PASSED),
        (raw("4", "\u{c4}@x".as_bytes()), PASSED),
        (raw("5", "\u{e4}@x".as_bytes()), full),
        (raw("6", format!("{long}a").as_bytes()), PASSED),
        (raw("7", format!("{long}b").as_bytes()), PASSED),
        (raw("8", format!("{long}a").as_bytes()), full),
        (raw("9", b"a'; drop table\x00x"), PASSED),
        // The same of the message.
        (raw(&long, b"joe"), PASSED),
        (raw(&long, b"joe"), PASSED),
        (raw(&format!("{long}y"), b"joe"), full),
    ];
    dialog(&mut peer, rows).await;
}
