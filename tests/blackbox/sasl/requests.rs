//! The calls that logins become.

use base64::Engine as _;

use super::{BASE64, JOE, OK, PASSWORD, REFUSED, Smtpd, login, serve, table};
use crate::support::backend::{Backend, json, status};

/// The headers that the HTTP client and the program add.
const OURS: [&str; 6] = [
    "accept",
    "user-agent",
    "content-type",
    "content-length",
    "x-request-id",
    "host",
];

#[tokio::test]
async fn the_default_request_is_json_with_the_password_in_it() {
    let backend = Backend::always(json("{}"));
    let program = serve(table(&backend.url("/login"), "")).await;
    let name = "j\"o\\e@example.org";
    let password = "p\"w\\ \u{20ac}\n";
    let mut smtpd = Smtpd::connect(&program).await;
    assert_eq!(smtpd.plain(name, password).await, format!("OK user={name}"));
    let request = backend.only();
    assert_eq!((&*request.method, &*request.target), ("POST", "/login"));
    let body = String::from_utf8(request.body.clone()).expect("text");
    assert_eq!(
        body,
        "{\"username\":\"j\\\"o\\\\e@example.org\",\"password\":\"p\\\"w\\\\ \u{20ac}\\n\",\
         \"client_address\":\"198.51.100.7\",\"mechanism\":\"PLAIN\",\"service\":\"smtp\"}"
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    let added = request.headers.iter().map(|(name, _)| name.to_lowercase());
    let added: Vec<_> = added
        .filter(|name| !OURS.contains(&name.as_str()))
        .collect();
    assert_eq!(added, Vec::<String>::new());
}

#[tokio::test]
async fn a_token_takes_the_place_of_the_password() {
    let backend = Backend::always(json("{}"));
    let keys = "mechanisms = [\"PLAIN\", \"XOAUTH2\", \"OAUTHBEARER\"]";
    let program = serve(table(&backend.url("/login"), keys)).await;
    let mut smtpd = Smtpd::connect(&program).await;
    assert_eq!(smtpd.offered, ["PLAIN", "XOAUTH2", "OAUTHBEARER"]);
    let xoauth2 = "user=joe@example.org\x01auth=Bearer t.k\x01\x01";
    assert_eq!(smtpd.auth("XOAUTH2", Some(xoauth2.as_bytes())).await, OK);
    let bearer = "n,a=joe@example.org,\x01host=mx\x01port=587\x01auth=Bearer t.k\x01\x01";
    assert_eq!(smtpd.auth("OAUTHBEARER", Some(bearer.as_bytes())).await, OK);
    assert_eq!(smtpd.plain(JOE, PASSWORD).await, OK);
    let bodies: Vec<_> = backend
        .requests()
        .iter()
        .map(|request| String::from_utf8(request.body.clone()).expect("text"))
        .collect();
    let rest = |mechanism: &str| {
        format!(
            "\"client_address\":\"198.51.100.7\",\"mechanism\":\"{mechanism}\",\"service\":\"smtp\"}}"
        )
    };
    // An empty password beside a token could pass for an anonymous login somewhere.
    let expected = ["XOAUTH2", "OAUTHBEARER"]
        .map(|name| format!("{{\"username\":\"{JOE}\",\"token\":\"t.k\",{}", rest(name)));
    assert_eq!(bodies[..2], expected);
    assert_eq!(
        bodies[2],
        format!(
            "{{\"username\":\"{JOE}\",\"password\":\"{PASSWORD}\",{}",
            rest("PLAIN")
        )
    );
}

#[tokio::test]
async fn a_refused_token_is_explained_before_it_is_refused() {
    let backend = Backend::always(status(401));
    let keys = "mechanisms = [\"XOAUTH2\", \"OAUTHBEARER\"]\nreason = \"no such token\"";
    let program = serve(table(&backend.url("/login"), keys)).await;
    let mut smtpd = Smtpd::connect(&program).await;
    let refused = "FAIL user=joe@example.org reason=no such token";
    for (mechanism, message, error) in [
        (
            "OAUTHBEARER",
            "n,a=joe@example.org,\x01auth=Bearer t\x01\x01",
            "{\"status\":\"invalid_token\"}",
        ),
        (
            "XOAUTH2",
            "user=joe@example.org\x01auth=Bearer t\x01\x01",
            "{\"status\":\"401\",\"schemes\":\"bearer\"}",
        ),
    ] {
        let challenge = smtpd.auth(mechanism, Some(message.as_bytes())).await;
        assert_eq!(challenge, format!("CONT {}", BASE64.encode(error)));
        assert_eq!(smtpd.cont("\x01").await, refused);
    }
}

#[tokio::test]
async fn login_is_asked_for_both_or_for_the_password() {
    let backend = Backend::new(super::api);
    let program = serve(table(&backend.url("/login"), "")).await;
    let mut smtpd = Smtpd::connect(&program).await;
    assert_eq!(smtpd.auth("LOGIN", None).await, "CONT VXNlcm5hbWU6");
    assert_eq!(smtpd.cont(JOE).await, "CONT UGFzc3dvcmQ6");
    assert_eq!(smtpd.cont(PASSWORD).await, OK);
    let asks = smtpd.auth("login", Some(JOE.as_bytes())).await;
    assert_eq!(asks, "CONT UGFzc3dvcmQ6");
    assert_eq!(smtpd.cont("wrong").await, REFUSED);
    // An empty challenge, with the tab that Postfix needs.
    assert_eq!(smtpd.auth("PLAIN", None).await, "CONT ");
    assert_eq!(smtpd.cont(super::plain(JOE, PASSWORD)).await, OK);
}

#[tokio::test]
async fn a_form_and_headers_carry_what_they_name() {
    let backend = Backend::always(json("{}"));
    let keys = r#"
        form = { u = "{username}", p = "{password}", fixed = "1" }
        headers = { X-From = "{client_address}", X-Here = "{server_address}", X-Tls = "{secured}", X-Mechanism = "{mechanism}", X-Service = "{service}" }
    "#;
    let program = serve(table(&backend.url("/login?site=1"), keys)).await;
    assert_eq!(login(&program, JOE, "p w+&=\u{20ac}").await, OK);
    let request = backend.only();
    assert_eq!(request.target, "/login?site=1");
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let expected = [
        pair("u", JOE),
        pair("p", "p w+&=\u{20ac}"),
        pair("fixed", "1"),
    ];
    assert_eq!(request.form(), expected);
    for (name, value) in [
        ("x-from", "198.51.100.7"),
        ("x-here", "192.0.2.1"),
        ("x-tls", "true"),
        ("x-mechanism", "PLAIN"),
        ("x-service", "smtp"),
    ] {
        assert_eq!(request.header(name), Some(value));
    }
}

#[tokio::test]
async fn nginx_style_headers_escape_the_password() {
    let backend = Backend::always(json("{}"));
    let keys = r#"
        method = "GET"
        headers = { Auth-User = "{username}", Auth-Pass = "{password}" }
    "#;
    let program = serve(table(&backend.url("/auth"), keys)).await;
    let password = "p w%\u{20ac}\r\nX-Admin: 1";
    assert_eq!(login(&program, JOE, password).await, OK);
    let request = backend.only();
    assert_eq!(request.method, "GET");
    assert_eq!(request.header("auth-user"), Some(JOE));
    let escaped = "p%20w%25%E2%82%AC%0D%0AX-Admin:%201";
    assert_eq!(request.header("auth-pass"), Some(escaped));
    assert_eq!(request.header("x-admin"), None);
    assert!(request.body.is_empty());
}

#[tokio::test]
async fn basic_authentication_has_the_name_and_the_password_of_the_login() {
    let backend = Backend::always(json("{}"));
    let keys = r#"
        method = "GET"
        basic-auth = { user = "{username}", password = "{password}" }
    "#;
    let program = serve(table(&backend.url("/me"), keys)).await;
    assert_eq!(login(&program, JOE, "a:b \u{20ac}").await, OK);
    let expected = format!("Basic {}", BASE64.encode("joe@example.org:a:b \u{20ac}"));
    let request = backend.only();
    assert_eq!(request.header("authorization"), Some(&*expected));
    // A colon ends the name, so that this would be another account with another password.
    let refused = login(&program, "joe:x", PASSWORD).await;
    assert_eq!(refused, "FAIL user=joe:x reason=wrong name or password");
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_login_that_no_account_can_have_is_refused_without_a_call() {
    let backend = Backend::always(json("{}"));
    let keys =
        "normalise = { lowercase = true, delimiter = \"+\", pattern = '[a-z.]+@example[.]org' }";
    let program = serve(table(&backend.url("/login"), keys)).await;
    let mut smtpd = Smtpd::connect(&program).await;
    for message in [
        &b"\0\0pw"[..],
        b"\0joe@example.org\0",
        b"\0joe@example.org\0p\0w",
        b"\0joe@example.org\0\xff",
        b"\0joe\xff@example.org\0pw",
        b"ann@example.org\0joe@example.org\0pw",
        b"joe@example.org",
        b"",
        // These are names that the pattern does not have.
        b"\0joe\0pw",
        b"\0joe@example.net\0pw",
    ] {
        let said = smtpd.auth("PLAIN", Some(message)).await;
        assert!(
            said.starts_with("FAIL "),
            "{}: {said}",
            message.escape_ascii()
        );
    }
    assert_eq!(backend.count(), 0);
    // The name is that of the call, also where the client wrote it in another way.
    assert_eq!(smtpd.plain("Joe+Box@Example.ORG", "pw").await, OK);
    let body = String::from_utf8(backend.only().body).expect("text");
    assert!(body.contains("\"username\":\"joe@example.org\""), "{body}");
}

#[tokio::test]
async fn a_broken_connection_is_tried_again_and_the_next_target_after_a_5xx() {
    use crate::support::backend::Act;
    let first = Backend::in_turn([vec![Act::Close], json("{}")]);
    let program = serve(table(&first.url("/login"), "")).await;
    assert_eq!(login(&program, JOE, PASSWORD).await, OK);
    assert_eq!(first.count(), 2);

    let (ill, well) = (Backend::always(status(503)), Backend::always(status(403)));
    let keys = format!(
        "target = [\"{}\", \"{}\"]\nfailure-delay = false",
        ill.url("/"),
        well.url("/")
    );
    let program = serve(format!("[sasl.t]\n{keys}\n")).await;
    assert_eq!(login(&program, JOE, PASSWORD).await, REFUSED);
    assert_eq!((ill.count(), well.count()), (1, 1));
}
