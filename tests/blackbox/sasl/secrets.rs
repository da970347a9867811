//! Passwords and tokens: what the program writes has none of them, whatever happens to a login.

use base64::Engine as _;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{BASE64, JOE, Smtpd, counted, table};
use crate::support::{
    Directory,
    backend::{Act, Backend, json, response, status, typed},
    peer::Address,
    program::{Launch, Program},
};

const PASSWORD: &str = "Hunter2-in-the-attic";
const TOKEN: &str = "eyJ0b2tlbg.in.the-attic";

/// Everything by which a secret could be recognised.
fn traces() -> Vec<String> {
    let mut traces = vec![PASSWORD.to_owned(), TOKEN.to_owned()];
    let messages = [
        PASSWORD.to_owned(),
        format!("\0{JOE}\0{PASSWORD}"),
        format!("user={JOE}\x01auth=Bearer {TOKEN}\x01\x01"),
        format!("n,a={JOE},\x01auth=Bearer {TOKEN}\x01\x01"),
        format!("{JOE}:{PASSWORD}"),
    ];
    for message in messages {
        let base64 = BASE64.encode(&message);
        // A part of it is too much as well.
        traces.push(base64[base64.len() - 12..base64.len() - 4].to_owned());
    }
    traces.push(PASSWORD[..10].to_owned());
    traces.push(TOKEN[..10].to_owned());
    traces
}

#[track_caller]
fn clean(what: &str, text: &str) {
    for trace in traces() {
        assert!(!text.contains(&trace), "{what} has {trace:?}:\n{text}");
    }
    // A host has no case.
    let folded = text.to_lowercase();
    for secret in [PASSWORD, TOKEN] {
        let secret = secret.to_lowercase();
        assert!(!folded.contains(&secret), "{what} has {secret:?}:\n{text}");
    }
}

/// Answers that repeat a password where a message says what came.
fn repeated() -> Vec<Backend> {
    let to = |location: &str| Backend::always(response(302, &[("Location", location)], ""));
    vec![
        to(&format!("http://{PASSWORD}.example.org/")),
        to(&format!("{PASSWORD}:x")),
        Backend::always(typed(200, &format!("{PASSWORD}/x"), "no JSON")),
        Backend::always(json(format!("{{\"{PASSWORD}\":true}}"))),
        Backend::always(response(405, &[("Allow", PASSWORD)], "")),
        Backend::always(response(403, &[("WWW-Authenticate", PASSWORD)], "")),
    ]
}

/// Logs in once by each mechanism, each over a connection of its own.
async fn by_every_mechanism(program: &Program) -> Vec<String> {
    let mut said = Vec::new();
    let password = PASSWORD.as_bytes();
    let plain = super::plain(JOE, PASSWORD);
    let xoauth2 = format!("user={JOE}\x01auth=Bearer {TOKEN}\x01\x01");
    let bearer = format!("n,a={JOE},\x01auth=Bearer {TOKEN}\x01\x01");
    for (mechanism, first, next) in [
        ("PLAIN", Some(&*plain), None),
        ("PLAIN", None, Some(&*plain)),
        ("LOGIN", Some(JOE.as_bytes()), Some(password)),
        ("XOAUTH2", Some(xoauth2.as_bytes()), None),
        ("OAUTHBEARER", Some(bearer.as_bytes()), None),
        // The secret where none belongs.
        ("CRAM-MD5", Some(password), None),
        ("PLAIN", Some(password), None),
    ] {
        let mut smtpd = Smtpd::connect(program).await;
        let mut reply = smtpd.auth(mechanism, first).await;
        if reply.starts_with("CONT") {
            reply = smtpd.cont(next.unwrap_or(b"\x01")).await;
        }
        said.push(reply);
    }
    for line in [
        format!("AUTH\t1\t\tresp={}\n", BASE64.encode(PASSWORD)),
        format!("CONT\t1\t{}\n", BASE64.encode(PASSWORD)),
        format!("{PASSWORD}\n"),
        format!("AUTH\t1\tPLAIN\tresp={PASSWORD}\n"),
        format!("AUTH\t1\tPLAIN\tresp={}", BASE64.encode(PASSWORD)),
    ] {
        let mut smtpd = Smtpd::connect(program).await;
        smtpd.peer.send(&line).await;
        smtpd.peer.finish().await;
        let rest = smtpd.peer.everything().await;
        said.push(String::from_utf8(rest).expect("text"));
    }
    said
}

/// What a socket of pages shows.
async fn page(program: &Program, path: &str) -> String {
    let Address::Tcp(address) = program.address(1) else {
        panic!("a TCP socket");
    };
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("a page");
    page
}

#[tokio::test]
async fn nothing_that_is_written_has_a_secret_in_it() {
    let echo = |request: &crate::support::backend::Request| {
        // A backend that says everything back, in each place that is read.
        let body = String::from_utf8_lossy(&request.body).into_owned();
        typed(500, "text/plain", body)
    };
    let repeated = repeated().into_iter().take(5);
    let mut bodies: Vec<(&str, Backend)> = repeated.map(|one| ("temporary", one)).collect();
    bodies.extend([
        ("accepted", Backend::always(json("{\"ok\":true}"))),
        ("refused", Backend::always(json("{\"ok\":false}"))),
        ("refused", Backend::always(status(401))),
        ("temporary", Backend::new(echo)),
        ("temporary", Backend::always(json("{\"ok\":1}"))),
        ("temporary", Backend::always(typed(200, "text/html", "<p>"))),
        ("temporary", Backend::always(json("{\"ok\":"))),
        ("temporary", Backend::always(vec![Act::Hang])),
        ("temporary", Backend::always(vec![Act::Close])),
        (
            "temporary",
            Backend::always(response(307, &[("Location", "http://127.0.0.1:1/")], "")),
        ),
        ("temporary", Backend::unwelcoming()),
    ]);
    // Only one of them makes every login wait until its deadline.
    let hangs = bodies.len() - 4;
    for carrier in [
        "",
        "form = { u = \"{username}\", p = \"{password}\", t = \"{token}\" }",
        "method = \"GET\"\nheaders = { A = \"{password}\", B = \"{token}\", N = \"{username}\" }",
        "basic-auth = { user = \"{username}\", password = \"{password}\" }\n\
         headers = { X-Token = \"Bearer {token}\", X-Name = \"{username}\" }",
        "cache = { ttl = \"1h\" }\ncompression = \"both\"",
    ] {
        for (number, (outcome, backend)) in bodies.iter().enumerate() {
            let timeout = if number == hangs { "100ms" } else { "7s" };
            let keys = format!(
                "{carrier}\naccepted = \"/ok\"\nrequest-timeout = \"{timeout}\"\nbreaker = false\n\
                 mechanisms = [\"PLAIN\", \"LOGIN\", \"XOAUTH2\", \"OAUTHBEARER\"]\n"
            );
            let config = format!(
                "[log]\nlevel = \"debug\"\n{}",
                table(&backend.url("/login"), &keys)
            );
            let program = Launch::sasl()
                .config(config)
                .unix("t")
                .tcp4("metrics")
                .ready()
                .await;
            let said = by_every_mechanism(&program).await;
            program.signal(Signal::HUP);
            program.logged("reload: done").await;
            let metrics = page(&program, "/metrics").await;
            clean("the metrics", &metrics);
            clean("the page", &page(&program, "/").await);
            clean("the state", &page(&program, "/ready?backends").await);
            let counts = counted(&metrics);
            let is_counted = |line: &String| line.starts_with(outcome) && !line.ends_with(" 0");
            assert!(counts.iter().any(is_counted), "{outcome}: {counts:?}");
            let end = program.stop().await;
            clean("the replies", &said.join("\n"));
            clean("the log", &end.stderr);
            clean("standard output", &end.stdout);
            // Otherwise this has shown nothing.
            assert!(
                end.stderr.contains(&format!("username={JOE}")),
                "{}",
                end.stderr
            );
            assert!(
                end.stderr.contains("mechanism=OAUTHBEARER"),
                "{}",
                end.stderr
            );
            assert!(
                end.stderr.contains("client_address=198.51.100.7"),
                "{}",
                end.stderr
            );
        }
    }
}

#[tokio::test]
async fn neither_a_limit_nor_its_store_has_a_secret() {
    let backend = Backend::always(status(401));
    let directory = Directory::new();
    let store = directory.join("limits.sqlite");
    let keys = "mechanisms = [\"PLAIN\", \"LOGIN\", \"XOAUTH2\", \"OAUTHBEARER\"]\n\
                [[sasl.t.limits]]\nname = \"user\"\nby = \"{username}\"\nrates = { \"1h\" = 2 }";
    let config = format!(
        "[log]\nlevel = \"debug\"\n[store]\npath = \"{}\"\n{}",
        store.display(),
        table(&backend.url("/login"), keys)
    );
    let launch = || Launch::sasl().config(config.as_str());
    let program = launch().unix("t").ready().await;
    let said = by_every_mechanism(&program).await;
    assert_eq!(backend.count(), 2);
    let end = launch().argument("--limits").argument("t").end().await;
    assert!(end.stdout.contains(JOE), "{}", end.stdout);
    clean("the use of the limit", &end.stdout);
    let end = program.stop().await;
    clean("the replies", &said.join("\n"));
    clean("the log", &end.stderr);
    assert!(end.stderr.contains("limit reached"), "{}", end.stderr);
    let mut files = 0;
    for entry in std::fs::read_dir(directory.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a file");
        clean(
            &path.display().to_string(),
            &String::from_utf8_lossy(&bytes),
        );
        files += 1;
    }
    assert_ne!(files, 0);
}

#[tokio::test]
async fn no_command_shows_a_secret() {
    let backend = Backend::always(status(503));
    let config = table(&backend.url("/"), "");
    for (arguments, input) in [
        (&["--query", "t", JOE][..], format!("{PASSWORD}\n")),
        (&["--query", "t", PASSWORD], "x\n".to_owned()),
        (&["--check"], String::new()),
        (&["--show"], String::new()),
    ] {
        let launch = arguments.iter().fold(
            Launch::sasl().config(config.as_str()),
            |launch, argument| launch.argument(*argument),
        );
        let end = launch.end_after(input.as_bytes()).await;
        clean("stderr", &end.stderr);
        clean("stdout", &end.stdout);
    }
    for backend in repeated() {
        let config = table(&backend.url("/"), "accepted = \"/ok\"");
        for verbose in [false, true] {
            let mut launch = Launch::sasl().config(config.as_str());
            for argument in ["--query", "t", JOE] {
                launch = launch.argument(argument);
            }
            if verbose {
                launch = launch.argument("--verbose");
            }
            let end = launch.end_after(format!("{PASSWORD}\n").as_bytes()).await;
            clean("stderr", &end.stderr);
            assert!(!verbose || end.stderr.contains("= "), "{}", end.stderr);
        }
    }
    // Where an operator wrote one into the file, it is quoted by no message.
    let config = format!(
        "[sasl.t]\ntarget = \"http://h/{{username}}?p={PASSWORD}{{password}}\"\n\
         json = {{ a = \"{TOKEN}{{passwort}}\" }}\n"
    );
    let end = Launch::sasl()
        .config(config)
        .argument("--check")
        .end()
        .await;
    end.status(78)
        .says("would put a password or a token into a URL");
    assert!(!end.stderr.contains(TOKEN), "{}", end.stderr);
}
