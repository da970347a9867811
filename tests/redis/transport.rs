//! The ways to a Redis: names, TLS, databases, users; and what cannot be reached.

use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use postgate::config::RedisUrl;
use postgate::limits::{Mode, Part, Question, Rate, Units, Usage};
use postgate::store::redis::{LIMITS, Redis};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::engines::engine_at;
use crate::server::{Server, free_port};

/// Charges one unit, and returns how many have been used since.
async fn charge(engine: &Redis) -> u64 {
    let question = Question {
        table: "policy.outgoing".into(),
        message: None,
        parts: vec![Part {
            limit: "login".into(),
            account: "a".to_owned(),
            rates: vec![Rate {
                window: Duration::from_secs(60),
                most: None,
            }],
            units: Units::Add(1),
            charges_refused: false,
            is_dry_run: false,
        }],
        mode: Mode::Decide,
    };
    engine.decide(&question).await.expect("a decision");
    let usage = engine.usage("policy.outgoing", None).await;
    let [Usage { used, .. }] = *usage.expect("the use") else {
        panic!("one account")
    };
    used
}

#[tokio::test]
async fn every_form_of_url_reaches_the_server_its_user_and_its_database() {
    let Some(server) = Server::start(&["--port", &free_port()]) else {
        return;
    };
    server.command("ACL SETUSER mail on >p@ss/w+rd ~* +@all");
    let (port, socket) = (server.port(), server.socket());
    let socket = socket.display();
    let urls = [
        (format!("redis://127.0.0.1:{port}"), 1),
        (format!("redis://localhost:{port}/0"), 2),
        (format!("redis://mail:p%40ss%2Fw+rd@localhost:{port}"), 3),
        (format!("redis+unix://{socket}"), 4),
        (
            format!("redis+unix://{socket}?db=0&user=mail&pass=p@ss/w+rd"),
            5,
        ),
        (format!("redis://127.0.0.1:{port}/9"), 1),
        (format!("redis+unix://{socket}?db=9"), 2),
    ];
    for (url, wanted) in urls {
        let engine = engine_at(&url);
        engine.open().await.expect("it opens");
        assert_eq!(charge(&engine).await, wanted, "{url}");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_said_without_its_url() {
    let Some(server) = Server::start(&["--port", &free_port(), "--requirepass", "correct"]) else {
        return;
    };
    let (port, socket) = (server.port(), server.socket());
    let socket = socket.display();
    let rows = [
        (
            "redis://secret:secret@name.invalid".to_owned(),
            "cannot connect: name.invalid:6379: failed to lookup",
        ),
        (
            "redis+unix:///nowhere?pass=secret".to_owned(),
            "cannot connect: /nowhere: No such file",
        ),
        (
            format!("redis://:secret@127.0.0.1:{port}"),
            "cannot log in: wrong user or password",
        ),
        (
            format!("redis://127.0.0.1:{port}"),
            "Redis wants a password",
        ),
        (
            format!("redis+unix://{socket}?user=secret&pass=secret"),
            "cannot log in: wrong",
        ),
        (
            format!("redis+unix://{socket}?pass=correct&db=1000"),
            "ERR DB index is out of range",
        ),
    ];
    for (url, wanted) in rows {
        // More than once, since a failure is not kept.
        let engine = engine_at(&url);
        for _ in 0..2 {
            let error = engine.open().await.expect_err(&url).0;
            assert!(error.starts_with(wanted), "{url}: {error}");
            assert!(
                !error.contains("secret") && !error.contains("redis"),
                "{url}: {error}"
            );
        }
    }
}

/// The variable that has the URL for the tests below, which run in a process of their own: its
/// authorities come from the environment.
const URL: &str = "POSTGATE_TEST_REDIS_URL";

#[test]
fn tls_is_checked_with_the_authorities_of_the_system() {
    let port = free_port();
    let folder = env::temp_dir().join(format!("postgate-redis-tls-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let path = |name: &str| folder.join(name).display().to_string();
    let authorities = [path("ca.pem"), path("other.pem")];
    let authorities = authorities.map(|path| {
        let (issuer, pem) = authority();
        fs::write(&path, pem).expect("a file");
        (path, issuer)
    });
    let key = KeyPair::generate().expect("a key");
    let names = ["localhost".to_owned()];
    let params = CertificateParams::new(names).expect("names");
    let certificate = params
        .signed_by(&key, &authorities[0].1)
        .expect("a certificate");
    fs::write(path("cert.pem"), certificate.pem()).expect("a file");
    fs::write(path("key.pem"), key.serialize_pem()).expect("a file");
    let options = ["--tls-port", &port, "--tls-auth-clients", "no"];
    let files = [
        "--tls-cert-file",
        &path("cert.pem"),
        "--tls-key-file",
        &path("key.pem"),
    ];
    let server = Server::start(&[&options[..], &files[..]].concat());
    if let Some(_server) = server {
        let [(ca, _), (other, _)] = &authorities;
        let child = |test: &str, ca: &str, host: &str| {
            let output = Command::new(env::current_exe().expect("our path"))
                .args([
                    "--exact",
                    &format!("transport::{test}"),
                    "--ignored",
                    "--nocapture",
                ])
                .env(URL, format!("rediss://{host}:{port}"))
                .env("SSL_CERT_FILE", ca)
                .env("SSL_CERT_DIR", "/nonexistent")
                .output()
                .expect("it starts");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{test} {ca} {host}: {text}");
        };
        child("tls_is_trusted", ca, "localhost");
        child("tls_is_refused", ca, "127.0.0.1");
        child("tls_is_refused", other, "localhost");
        child("tls_has_no_authorities", &path("none.pem"), "localhost");
    }
    let _ = fs::remove_dir_all(&folder);
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    (Issuer::new(params, key), pem)
}

#[tokio::test]
#[ignore = "part of tls_is_checked_with_the_authorities_of_the_system"]
async fn tls_is_trusted() {
    let engine = engine_at(&env::var(URL).expect("an URL"));
    assert_eq!([charge(&engine).await, charge(&engine).await], [1, 2]);
}

#[tokio::test]
#[ignore = "part of tls_is_checked_with_the_authorities_of_the_system"]
async fn tls_is_refused() {
    let engine = engine_at(&env::var(URL).expect("an URL"));
    let error = engine.open().await.expect_err("it is refused").0;
    assert!(
        error.starts_with("cannot connect: ") && error.contains(": invalid peer certificate: "),
        "{error}"
    );
}

#[test]
#[ignore = "part of tls_is_checked_with_the_authorities_of_the_system"]
fn tls_has_no_authorities() {
    let url = RedisUrl::parse(&env::var(URL).expect("an URL")).expect("an URL");
    let engine = Redis::new(&url, "", Duration::from_secs(20), LIMITS);
    let error = engine.expect_err("there are none").0;
    assert!(
        error.starts_with("no system certificate authorities"),
        "{error}"
    );
}
