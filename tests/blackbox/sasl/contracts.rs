//! The ready tables of the guide to logins and of the pages about other bridges, against APIs that
//! behave as the documented ones do.

use base64::Engine as _;
use serde_json::Value;

use super::{BASE64, JOE, PASSWORD, Smtpd, login, plain};
use crate::bridges::page::Ready;
use crate::bridges::place::{Secrets, TOKEN};
use crate::support::{
    backend::{Backend, Request, Script, json, response, status, typed},
    program::{Launch, Program},
};

const CLOSED: &str = "closed";

/// The password by which an account shows another state of it.
const LOCKED: &str = "locked";

/// Starts the program with a ready table, as the page has it but for the address of the API and for
/// the delay.
async fn taken(
    ready: &Ready,
    secrets: &Secrets,
    api: impl FnMut(&Request) -> Script + Send + 'static,
) -> (Program, Backend) {
    let backend = Backend::new(api);
    let config = ready.asking(backend.address());
    let table = "[sasl.submission]\n";
    let config = config.replace(table, &format!("{table}failure-delay = false\n"));
    let launch = Launch::sasl().config(config).unix("submission");
    let program = secrets.given_to(launch).ready().await;
    (program, backend)
}

/// Logs in with each password, and demands what is said.
async fn says(program: &Program, rows: &[(&str, &str, &str)]) {
    for (name, password, expected) in rows {
        assert_eq!(
            login(program, name, password).await,
            *expected,
            "{name} {password}"
        );
    }
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap_or_default()
}

/// userli's `POST /api/postfix/auth`: it knows users by their address alone.
fn userli(request: &Request) -> Script {
    let said = |number, text: &str| typed(number, "application/json", text);
    if request.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return said(401, "{\"error\":\"Unauthorized\"}");
    }
    if (&*request.method, &*request.target) != ("POST", "/api/postfix/auth") {
        return typed(404, "text/html", "<html>No route found</html>");
    }
    let login = body(request);
    match (login["email"].as_str(), login["password"].as_str()) {
        (Some(JOE), Some(PASSWORD)) => said(200, "{\"message\":\"success\"}"),
        (Some(JOE), Some(LOCKED)) => said(403, "{\"message\":\"user disabled due to spam role\"}"),
        (Some(_), Some("invalid")) => said(422, "{\"violations\":[]}"),
        (Some(_), Some("broken")) => typed(500, "text/html", "<html>Oops</html>"),
        _ => said(401, "{\"message\":\"authentication failed\"}"),
    }
}

#[tokio::test]
async fn userlis_logins() {
    let ready = Ready::login("Logins at userli");
    let bridge = "userli-postfix-adapter";
    let mut of_bridge = Ready::all(bridge).into_iter();
    assert!(
        of_bridge.any(|other| other.rest() == ready.rest()),
        "another table on the page of {bridge}"
    );
    let secrets = Secrets::default();
    let (program, _backend) = taken(&ready, &secrets, userli).await;
    let refused = "FAIL user=joe@example.org reason=authentication failed";
    says(
        &program,
        &[
            (JOE, PASSWORD, "OK user=joe@example.org"),
            ("Joe+x@Example.ORG", PASSWORD, "OK user=joe@example.org"),
            (JOE, "wrong", refused),
            (
                JOE,
                LOCKED,
                "FAIL user=joe@example.org reason=user disabled due to spam role",
            ),
            (
                "joe",
                PASSWORD,
                "FAIL user=joe reason=wrong name or password",
            ),
            (JOE, "invalid", CLOSED),
            (JOE, "broken", CLOSED),
        ],
    )
    .await;
    // A wrong token is our mistake, and says nothing of the password.
    let (program, _backend) = taken(&ready, &secrets, |request| {
        let mut request = request.clone();
        request
            .headers
            .retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        userli(&request)
    })
    .await;
    says(&program, &[(JOE, PASSWORD, CLOSED)]).await;
}

/// A server for `auth_http`, as nginx's documentation has it: always 200.
fn auth_http(request: &Request) -> Script {
    let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
    assert_eq!((&*request.method, &*request.target), ("GET", "/auth"));
    assert_eq!(header("auth-method"), "plain");
    assert_eq!(header("auth-protocol"), "smtp");
    assert_eq!(header("client-ip"), "198.51.100.7");
    let said: &[(&str, &str)] = match (&*header("auth-user"), &*header("auth-pass")) {
        (JOE, "correct%20horse") => &[
            ("Auth-Status", "OK"),
            ("Auth-Server", "192.0.2.9"),
            ("Auth-Port", "25"),
        ],
        (_, "down") => &[
            ("Auth-Status", "Temporary server problem, try again later"),
            ("Auth-Error-Code", "451 4.3.0"),
            ("Auth-Wait", "3"),
        ],
        (_, "wrong") => &[
            ("Auth-Status", "Invalid login or password"),
            ("Auth-Error-Code", "535 5.7.0"),
            ("Auth-Wait", "3"),
        ],
        _ => &[
            ("Auth-Status", "Invalid login or password"),
            ("Auth-Wait", "3"),
        ],
    };
    response(200, said, "")
}

#[tokio::test]
async fn logins_of_nginx() {
    let ready = Ready::login("Logins at an API for auth_http of nginx");
    let (program, _backend) = taken(&ready, &Secrets::default(), auth_http).await;
    let refused = "FAIL user=joe@example.org reason=Invalid login or password";
    says(
        &program,
        &[
            (JOE, PASSWORD, "OK user=joe@example.org"),
            (JOE, "wrong", refused),
            (JOE, "other", refused),
            (JOE, "down", CLOSED),
        ],
    )
    .await;
    // A page of a proxy has no Auth-Status.
    let page = |_: &Request| typed(200, "text/html", "<html>Log in</html>");
    let (program, _backend) = taken(&ready, &Secrets::default(), page).await;
    says(&program, &[(JOE, PASSWORD, CLOSED)]).await;
}

fn basic(request: &Request) -> Script {
    let right = format!("Basic {}", BASE64.encode(format!("{JOE}:{PASSWORD}")));
    if request.header("authorization") == Some(&right) {
        response(200, &[("X-Api", "1")], "{\"login\":\"joe\"}")
    } else {
        response(401, &[("X-Api", "1")], "Unauthorized")
    }
}

#[tokio::test]
async fn logins_with_basic_authentication() {
    let ready = Ready::login("Logins at an API with basic authentication");
    let (program, backend) = taken(&ready, &Secrets::default(), basic).await;
    says(
        &program,
        &[
            (JOE, PASSWORD, "OK user=joe@example.org"),
            (JOE, "wrong", super::REFUSED),
        ],
    )
    .await;
    assert!(
        backend
            .requests()
            .iter()
            .all(|request| request.method == "GET")
    );
    // A proxy that wants a password of its own.
    let proxy = |_: &Request| typed(401, "text/html", "<html>Unauthorized</html>");
    let (program, _backend) = taken(&ready, &Secrets::default(), proxy).await;
    says(&program, &[(JOE, PASSWORD, CLOSED)]).await;
}

/// JSON with the answer in headers, and 403 for a wrong password.
fn nauthilus(request: &Request) -> Script {
    let login = body(request);
    assert_eq!(request.target, "/api/v1/auth/json");
    assert_eq!(login["client_ip"], "198.51.100.7");
    assert_eq!(login["local_ip"], "192.0.2.1");
    assert_eq!(login["protocol"], "smtp");
    assert_eq!(login["method"], "PLAIN");
    match (login["username"].as_str(), login["password"].as_str()) {
        (Some(JOE), Some(PASSWORD)) => {
            let headers = [("Auth-Status", "OK"), ("Auth-User", "account-17")];
            response(200, &headers, "{\"ok\":true}")
        }
        (_, Some("down")) => response(500, &[("Auth-Status", "Temporary server problem")], ""),
        (_, Some("nobody")) => response(200, &[("Auth-Status", "OK")], ""),
        _ => response(403, &[("Auth-Status", "Invalid login or password")], ""),
    }
}

#[tokio::test]
async fn logins_of_nauthilus_alone_and_in_place_of_pfxhttp() {
    let wanted = format!("Basic {}", BASE64.encode(format!("postfix:{TOKEN}")));
    let mut with_own = Ready::all("pfxhttp").into_iter();
    let with_own = with_own.find(|ready| ready.rest().contains("[sasl."));
    for (ready, has_own) in [
        (Ready::login("Logins at Nauthilus"), false),
        (with_own.expect("a table of logins"), true),
    ] {
        let wanted = wanted.clone();
        let api = move |request: &Request| match has_own
            && request.header("authorization") != Some(&wanted)
        {
            true => status(401),
            false => nauthilus(request),
        };
        let (program, _backend) = taken(&ready, &Secrets::default(), api).await;
        says(
            &program,
            &[
                (JOE, PASSWORD, "OK user=account-17"),
                (
                    JOE,
                    "wrong",
                    "FAIL user=joe@example.org reason=Invalid login or password",
                ),
                (JOE, "down", CLOSED),
                // A login as nobody is none.
                (JOE, "nobody", CLOSED),
            ],
        )
        .await;
        if has_own {
            let (program, _backend) = taken(&ready, &Secrets::default(), |_| status(401)).await;
            says(&program, &[(JOE, PASSWORD, CLOSED)]).await;
        }
    }
}

fn mailcow(request: &Request) -> Script {
    let login = body(request);
    assert_eq!(login["real_rip"], "198.51.100.7");
    assert_eq!(login["service"], "SMTP");
    match (login["username"].as_str(), login["password"].as_str()) {
        (Some(JOE), Some(PASSWORD)) => json("{\"success\":true,\"role\":\"user\"}"),
        (_, Some("wrong")) => json("{\"success\":false}"),
        (_, Some("down")) => json("{\"success\":null}"),
        _ => typed(401, "application/json", "{\"success\":false}"),
    }
}

#[tokio::test]
async fn mailcows_logins() {
    let ready = Ready::login("Logins at mailcow");
    let (program, _backend) = taken(&ready, &Secrets::default(), mailcow).await;
    says(
        &program,
        &[
            (JOE, PASSWORD, "OK user=joe@example.org"),
            (JOE, "wrong", super::REFUSED),
            (JOE, "other", super::REFUSED),
            (JOE, "down", CLOSED),
        ],
    )
    .await;
}

/// Logs in from this address.
async fn from(program: &Program, address: &str, name: &str, password: &str) -> String {
    let mut smtpd = Smtpd::connect(program).await;
    smtpd.last = 1;
    let message = BASE64.encode(plain(name, password));
    let line = format!("AUTH\t1\tPLAIN\tservice=smtp\trip={address}\tresp={message}\n");
    smtpd.peer.send(line).await;
    smtpd.said().await
}

/// Guessing ends soon, and a stranger can shut nobody out.
#[tokio::test]
async fn the_limits_of_the_guide_stop_guessing_and_shut_nobody_out() {
    let ready = Ready::login("Logins with limits");
    let api = |request: &Request| {
        let is_right = body(request)["password"] == PASSWORD;
        json(format!("{{\"ok\":{is_right}}}"))
    };
    let (program, backend) = taken(&ready, &Secrets::default(), api).await;
    let ok = "OK user=joe@example.org";
    // The same net.
    for n in 0..10 {
        let address = format!("203.0.113.{n}");
        assert_eq!(from(&program, &address, JOE, "guess").await, super::REFUSED);
    }
    assert_eq!(backend.count(), 10);
    assert_eq!(from(&program, "203.0.113.99", JOE, "guess").await, CLOSED);
    assert_eq!(from(&program, "203.0.113.99", JOE, PASSWORD).await, CLOSED);
    assert_eq!(backend.count(), 10);
    // The user is somewhere else.
    assert_eq!(from(&program, "198.51.100.7", JOE, PASSWORD).await, ok);
    // A stranger who tries many users.
    for n in 0..40 {
        let name = format!("user{n}@example.org");
        let said = from(&program, "203.0.113.5", &name, "guess").await;
        assert!(said.starts_with("FAIL "), "{said}");
    }
    let said = from(&program, "203.0.113.5", "ann@example.org", PASSWORD).await;
    assert_eq!(said, CLOSED);
    // Wrong passwords from everywhere are logged, and lock nobody.
    for n in 0..100 {
        let address = format!("10.0.{n}.1");
        assert_eq!(from(&program, &address, JOE, "guess").await, super::REFUSED);
    }
    assert_eq!(from(&program, "198.51.100.7", JOE, PASSWORD).await, ok);
    let end = program.stop().await;
    end.says("joe@example.org has reached its limit \"user\"");
}
