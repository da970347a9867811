//! `--query --verbose`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use tokio::task::spawn_blocking;

use crate::support::{
    Directory, Wrong,
    backend::{Act, Backend, Script, json, plain, response, status},
    program::{Binary, End, Launch, Reserved},
    same,
};

/// Asks `users` once, with a key or with attributes.
async fn ask(binary: Binary, config: &str, asked: &str) -> End {
    let launch = Launch::new(binary).config(config);
    let launch = launch.argument("--query").argument("users");
    match binary {
        Binary::Policy => {
            let launch = launch.argument("--verbose");
            launch.end_after(asked.as_bytes()).await
        }
        _ => launch.argument(asked).argument("--verbose").end().await,
    }
}

/// The lines with this mark.
fn marked(end: &End, mark: &str) -> Vec<String> {
    let lines = end.stderr.lines();
    let lines = lines.filter_map(|line| line.strip_prefix(mark)?.strip_prefix(' '));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_call_is_shown_as_it_is_sent_and_answered() {
    let backend = Backend::always(response(
        200,
        &[("Content-Type", "application/json"), ("X-Api", "1")],
        "{\"mail\": \"jane\\nx\",\n \"b\": 1}",
    ));
    let config = format!(
        "[socketmap.users]\ntarget = \"{}\"\nvalue = \"/mail\"\nretries = 0\n",
        backend.url("/x/{name}?key={key}")
    );
    let end = ask(Binary::Socketmap, &config, "a b@c.example").await;
    end.status(75);
    let request = backend.only();
    let mut sent = vec![format!(
        "GET http://{}{}",
        backend.address(),
        request.target
    )];
    let headers = request.headers.iter();
    sent.extend(headers.map(|(name, value)| format!("{}: {value}", name.to_lowercase())));
    let mut shown = marked(&end, ">");
    sent[1..].sort();
    shown[1..].sort();
    assert_eq!(shown, sent);
    let came = marked(&end, "<");
    assert_eq!(came[0], "HTTP/1.1 200 OK");
    assert!(came.contains(&"x-api: 1".to_owned()), "{came:?}");
    assert!(came.ends_with(&[
        "{\"mail\": \"jane\\nx\",".to_owned(),
        " \"b\": 1}".to_owned()
    ]));
    let means = "found: 200, read as JSON: a value at \"/mail\"";
    assert_eq!(
        marked(&end, "="),
        [means, "temporary: value cannot be sent"]
    );
}

#[tokio::test]
async fn an_answer_without_a_body_is_shown_as_one() {
    let backend = Backend::always(status(204));
    let config = format!("[socketmap.users]\ntarget = \"{}\"\n", backend.url("/"));
    let end = ask(Binary::Socketmap, &config, "key").await;
    end.status(1);
    assert_eq!(marked(&end, "<").last().unwrap(), "(no body)");
}

/// What is said of each answer, in order.
#[tokio::test]
async fn the_rule_that_judged_an_answer_is_said() {
    let json_rule = |rest: &str| format!("200, read as JSON: {rest}");
    let text_rule = |rest: &str| format!("200, read as text, by its content type: {rest}");
    let mut wrong = Wrong::default();
    for (keys, script, expected) in [
        (
            "",
            json("\"v\""),
            format!("found: {}", json_rule("a value")),
        ),
        (
            "response = \"auto\"",
            plain("v"),
            format!("found: {}", text_rule("a value")),
        ),
        (
            "",
            json("null"),
            format!("not-found: {}", json_rule("empty")),
        ),
        (
            "value = \"/a/b\"",
            json("{\"a\": {}}"),
            format!(
                "temporary: {}: backend answer not understood: \"value\" points nowhere in the \
                 answer: no \"b\" in \"/a\"",
                json_rule("missing = \"temporary\" at \"/a/b\"")
            ),
        ),
        (
            "value = \"/a/b\"\nmissing = \"not-found\"",
            json("{\"a\": {}}"),
            format!(
                "not-found: {}",
                json_rule("missing = \"not-found\" at \"/a/b\"")
            ),
        ),
        ("", status(404), "not-found: 404".to_owned()),
        (
            "status = { 404 = \"temporary\" }",
            status(404),
            "temporary: 404, by \"status\": backend answered 404".to_owned(),
        ),
        (
            "",
            status(503),
            "temporary: 503: backend answered 503".to_owned(),
        ),
        (
            "require-header = { X-Api = \"1\" }",
            status(404),
            "temporary: backend answer not understood: 404 without the header of \
             \"require-header\""
                .to_owned(),
        ),
        (
            "retries = 0",
            vec![Act::Close],
            "temporary: backend unreachable: BACKEND: connection closed before message completed; \
             TLS on this port?"
                .to_owned(),
        ),
    ] {
        let backend = Backend::always(script);
        let config = format!(
            "[socketmap.users]\ntarget = \"{}\"\n{keys}\n",
            backend.url("/")
        );
        let end = ask(Binary::Socketmap, &config, "key").await;
        let expected = expected.replace("BACKEND", &backend.address().to_string());
        wrong.compare(
            &expected,
            marked(&end, "=").join("\n").as_bytes(),
            expected.as_bytes(),
        );
    }
    wrong.none();
}

#[tokio::test]
async fn each_try_is_shown_and_each_target_and_each_redirect() {
    let (gone, mut calls) = (Reserved::new(), 0);
    let backend = Backend::new(move |request| {
        calls += 1;
        match calls {
            1 => vec![Act::Close],
            2 => {
                let to = format!("/there?{}", request.target.split_once('?').unwrap().1);
                response(307, &[("Location", &to)], "")
            }
            _ => json("\"v\""),
        }
    });
    let config = format!(
        "[socketmap.users]\ntarget = [\"http://{}/\", \"{}\"]\nredirects = \"same-origin\"\n\
         normalise = {{ lowercase = true }}\ncache = {{ ttl = \"7s\" }}\n",
        gone.address(),
        backend.url("/")
    );
    let end = ask(Binary::Socketmap, &config, "KEY").await;
    end.status(0);
    let urls: Vec<_> = marked(&end, ">")
        .into_iter()
        .filter_map(|line| Some(line.strip_prefix("GET ")?.to_owned()))
        .collect();
    let first = format!("http://{}/?name=users&key=key", gone.address());
    let second = backend.url("/?name=users&key=key");
    let third = backend.url("/there?(hidden)");
    assert_eq!(urls, [first, second.clone(), second, third]);
    let means = marked(&end, "=").join("\n");
    let (gone, second) = (gone.address(), backend.address());
    let expected = format!(
        "\"normalise\" makes the key \"key\"\n\
         temporary: backend unreachable: {gone}: Connection refused (os error 111)\n\
         the next target is tried\n\
         sent again: {second}: connection closed before message completed; TLS on this port?\n\
         the redirect is followed\n\
         found: 200, read as JSON: a value\n\
         the service would cache this for 7s"
    );
    same("means", means.as_bytes(), expected.as_bytes());
}

/// Every secret is planted, and the backend repeats all that it was sent.
#[tokio::test]
async fn no_secret_is_shown_whatever_the_backend_repeats() {
    const CREDENTIAL: &str = "pl4nted/Cred";
    const CONSTANTS: [&str; 7] = [
        "pl4nted/target",
        "pl4nted=query",
        "pl4nted&body",
        "pl4nted-header",
        "pl4nted-fixed",
        "pl4nted-token",
        "8675309867",
    ];
    let echo = |code: u16| {
        Backend::new(move |request| {
            let headers: Vec<_> = request
                .headers
                .iter()
                .map(|(n, v)| format!("{n}: {v}"))
                .collect();
            let body = String::from_utf8_lossy(&request.body);
            let text = format!("{}\n{}\n{body}", request.target, headers.join("\n"));
            let first = text.lines().next().unwrap_or_default().to_owned();
            response(code, &[("X-Echo", &first)], text)
        })
    };
    let [_, query, body, header, fixed, token, number] = CONSTANTS;
    let mut wrong = Wrong::default();
    for credential in [
        format!("bearer-token = \"{CREDENTIAL}\""),
        format!("basic-auth = {{ user = \"u\", password = \"{CREDENTIAL}\" }}"),
        format!("headers.Authorization = \"{CREDENTIAL}\""),
    ] {
        for (binary, key) in [
            (Binary::Socketmap, "key"),
            (Binary::TcpLookup, "key"),
            (Binary::Policy, "sender"),
        ] {
            for content in [
                format!("form = {{ k = \"{{{key}}}\", s = \"{body}\" }}"),
                format!("json = {{ k = \"{{{key}}}\", s = \"{body}\", n = [{number}] }}"),
            ] {
                for code in [200, 404, 500, 302] {
                    let backend = echo(code);
                    let config = format!(
                        "[{}.users]\ntarget = \"{}\"\nmethod = \"POST\"\n\
                         query = {{ q = \"{query}\" }}\n{content}\nauth-token = \"{token}\"\n\
                         headers.X-A = \"{header} {{{key}}}\"\nheaders.X-B = \"{fixed}\"\n\
                         {credential}\n",
                        binary.name(),
                        backend.url("/?plain&api=pl4nted%2Ftarget")
                    );
                    let asked = match binary {
                        Binary::Policy => "sender=jane@a.example\n",
                        _ => "jane@a.example",
                    };
                    let end = ask(binary, &config, asked).await;
                    let said = format!("{}{}", end.stderr, end.stdout);
                    let row = format!("{} {code} {credential} {content}", binary.name());
                    wrong.require(&row, said.contains("> POST "), || said.clone());
                    for secret in CONSTANTS.iter().chain([&CREDENTIAL]) {
                        let escaped: String = percent_encoding::percent_encode(
                            secret.as_bytes(),
                            percent_encoding::NON_ALPHANUMERIC,
                        )
                        .to_string();
                        let is_shown = said.contains(secret) || said.contains(&escaped);
                        wrong.require(&row, !is_shown, || format!("{secret} in\n{said}"));
                    }
                }
            }
        }
    }
    wrong.none();
}

/// A shorter constant would be found everywhere, but one that is a credential by its name is hidden.
#[tokio::test]
async fn a_short_constant_is_hidden_in_answers_if_its_name_is_that_of_a_credential() {
    let echo = || {
        Backend::new(|request| {
            let body = String::from_utf8_lossy(&request.body);
            let header = request.header("x-api-key").unwrap_or_default();
            response(500, &[], format!("echo {} {header} {body}", request.target))
        })
    };
    let mut wrong = Wrong::default();
    for content in [
        "query = { api_token = \"SHRT\" }\njson = { k = \"{key}\" }",
        "form = { password = \"SHRT\", k = \"{key}\" }",
        "json = { list = [{ secret = [\"SHRT\"] }], k = \"{key}\" }",
        "headers = { X-Api-Key = \"SHRT{key}\" }\njson = {}",
    ] {
        let backend = echo();
        let config = format!(
            "[socketmap.users]\ntarget = \"{}\"\nmethod = \"POST\"\n{content}\n",
            backend.url("/?site=eu1&token=SEC7urt")
        );
        let end = ask(Binary::Socketmap, &config, "jane").await;
        let said = format!("{}{}", end.stderr, end.stdout);
        let came = marked(&end, "<").join("\n");
        wrong.require(content, came.contains("site=eu1&token=(hidden)"), || came);
        for secret in ["SHRT", "SEC7urt"] {
            wrong.require(content, !said.contains(secret), || said.clone());
        }
    }
    wrong.none();
}

/// Asks `users` about a login, and returns all that is printed.
fn logs_in(config: &str, password: &str) -> String {
    let directory = Directory::new();
    let path = directory.write("config.toml", config);
    let mut program = Command::new(env!("CARGO_BIN_EXE_sasl"))
        .arg("-c")
        .arg(path)
        .args(["--query", "users", "jane", "--verbose"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = program.stdin.take().expect("its input");
    writeln!(input, "{password}").expect("a line");
    drop(input);
    let end = program.wait_with_output().expect("its end");
    String::from_utf8_lossy(&[end.stderr, end.stdout].concat()).into_owned()
}

#[tokio::test]
async fn no_password_of_a_login_is_shown() {
    const PASSWORD: &str = "pl4nted pass/w\u{f6}rd\"";
    // As a URL, JSON, Basic (of "jane:...") and Rust have it.
    const FORMS: [&str; 6] = [
        PASSWORD,
        "pl4nted",
        "cGw0bnRlZCBwYXNz",
        "OnBsNG50ZWQ",
        "pl4nted%20",
        "w\\u{f6}",
    ];
    let mut wrong = Wrong::default();
    for (keys, code) in [
        ("", 200),
        ("", 401),
        ("", 500),
        ("form = { n = \"{username}\", p = \"{password}\" }", 403),
        ("json = { n = \"{username}\", p = [\"x{password}\"] }", 403),
        (
            "basic-auth = { user = \"{username}\", password = \"{password}\" }",
            403,
        ),
        (
            "headers.X-P = \"{password}\"\nform = { n = \"{username}\" }",
            403,
        ),
    ] {
        let backend = Backend::new(move |request| {
            let headers = request.headers.iter();
            let headers: Vec<_> = headers.map(|(n, v)| format!("{n}: {v}")).collect();
            let body = String::from_utf8_lossy(&request.body);
            let quoted = serde_json::to_string(&body).expect("JSON");
            response(
                code,
                &[],
                format!("{}\n{body}\n{quoted}", headers.join("\n")),
            )
        });
        let target = backend.url("/");
        let config = format!("[sasl.users]\ntarget = \"{target}\"\n{keys}\n");
        let said = spawn_blocking(move || logs_in(&config, PASSWORD));
        let said = said.await.expect("its output");
        let row = format!("{keys} {code}");
        wrong.require(&row, said.contains("(hidden)"), || said.clone());
        wrong.require(&row, backend.count() == 1, || said.clone());
        for form in FORMS {
            wrong.require(&row, !said.contains(form), || format!("{form} in\n{said}"));
        }
    }
    wrong.none();
}

/// The values of a dict are passwords, such as those of a passdb.
#[tokio::test]
async fn no_answer_to_a_dict_is_shown() {
    for (code, printed) in [(200, "{\"password\":\"s3cret\"}\n"), (500, ""), (404, "")] {
        let backend = Backend::always(response(
            code,
            &[("Content-Type", "application/json"), ("X-P", "s3cret")],
            "{\"password\":\"s3cret\"}",
        ));
        let config = format!("[dict.users]\ntarget = \"{}\"\n", backend.url("/"));
        let launch = Launch::dict().config(config).argument("--query");
        let launch = launch.argument("users").argument("shared/a");
        let end = launch.argument("--verbose").end().await;
        assert_eq!(end.stdout, printed);
        assert!(!end.stderr.contains("s3cret"), "{}", end.stderr);
        let came = marked(&end, "<");
        assert!(
            came[0].starts_with(&format!("HTTP/1.1 {code} ")),
            "{came:?}"
        );
        assert!(came.contains(&"(hidden) (21 bytes)".to_owned()), "{came:?}");
    }
}

#[tokio::test]
async fn a_token_call_is_shown_without_its_bodies() {
    let tokens = Backend::always(json(
        "{\"access_token\": \"t0ken-planted\", \"token_type\": \"Bearer\", \"expires_in\": 60}",
    ));
    let backend = Backend::new(|request| {
        let repeated = request
            .header("authorization")
            .unwrap_or_default()
            .to_owned();
        json(format!("{{\"you sent\": {repeated:?}}}"))
    });
    for method in ["basic", "post"] {
        let config = format!(
            "[socketmap.users]\ntarget = \"{}\"\noauth2 = {{ token-url = \"{}\", client-id = \"i\", \
             client-secret = \"s3cret-planted\", auth-method = \"{method}\" }}\n",
            backend.url("/"),
            tokens.url("/token"),
        );
        let end = ask(Binary::Socketmap, &config, "key").await;
        end.status(75);
        let sent = marked(&end, ">");
        let url = format!("POST {}", tokens.url("/token"));
        assert!(sent.contains(&url), "{sent:?}");
        assert!(sent.contains(&"(hidden)".to_owned()), "{sent:?}");
        let came = marked(&end, "<").join("\n");
        assert!(came.contains("{\"you sent\": \"(hidden)\"}"), "{came}");
        for secret in ["planted", "czNjcmV0"] {
            assert!(!end.stderr.contains(secret), "{}", end.stderr);
        }
    }
}

#[tokio::test]
async fn limits_are_shown_with_their_accounts() {
    let launch = Launch::new(Binary::Policy);
    let path = launch.directory().join("limits.sqlite");
    let limit = |name: &str, keys: &str| {
        format!("[[policy.users.limits]]\nname = \"{name}\"\nby = \"{{sasl_username}}\"\n{keys}\n")
    };
    let config = format!("[store]\npath = \"{}\"\n", path.display())
        + &limit("few", "rates = { \"1h\" = 2 }")
        + &limit("many", "rates = { \"1h\" = 50 }")
        + &limit("free", "rates = { \"1h\" = 2 }\nexempt = [\"jane\"]");
    let launch = launch.config(config).argument("--query").argument("users");
    let launch = launch.argument("--verbose");
    let asked = "request=smtpd_access_policy\nprotocol_state=DATA\ninstance=1.2.3\n\
                 sasl_username=jane\nrecipient_count=3\n";
    let end = launch.end_after(asked.as_bytes()).await;
    let means = marked(&end, "=").join("\n");
    let expected = "limit \"free\": not counted: its account is exempt\n\
                    limit \"few\": \"jane\" has used 0 of 2 in 1h, room again in 60m\n\
                    limit \"many\": \"jane\" has room";
    same("means", means.as_bytes(), expected.as_bytes());
}

#[tokio::test]
async fn verbose_is_for_a_query_only() {
    let launch =
        Launch::new(Binary::Socketmap).config("[socketmap.users]\ntarget = \"http://a/\"\n");
    let end = launch.argument("--check").argument("--verbose").end().await;
    end.status(64).says("--verbose goes with --query");
}

/// A body that goes on for ever, or never comes, changes no outcome.
#[tokio::test]
async fn a_body_that_decides_nothing_is_not_waited_for() {
    let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\n";
    let script: Script = vec![crate::support::backend::raw(head), Act::Hang];
    let backend = Backend::always(script);
    let config = format!("[socketmap.users]\ntarget = \"{}\"\n", backend.url("/"));
    let end = ask(Binary::Socketmap, &config, "key").await;
    end.status(1).says("(the body did not come within 500 ms)");
    assert_eq!(marked(&end, "="), ["not-found: 404"]);
}

#[tokio::test]
async fn what_a_backend_says_is_no_order_to_a_terminal_and_not_long() {
    let name = format!(
        "\\u001b]0;owned\\u0007\\nsocketmap: ok\\u202e{}",
        "x".repeat(10_000)
    );
    let backend = Backend::always(json(format!("{{\"data\": {{\"{name}\": 1}}}}")));
    let config = format!(
        "[socketmap.users]\ntarget = \"{}\"\nvalue = \"/data/x\"\n",
        backend.url("/")
    );
    for verbose in [false, true] {
        let mut launch = Launch::new(Binary::Socketmap).config(config.as_str());
        for argument in ["--query", "users", "jane"] {
            launch = launch.argument(argument);
        }
        if verbose {
            launch = launch.argument("--verbose");
        }
        let end = launch.end().await;
        let text = &end.stderr;
        assert!(text.contains("there is"), "{text}");
        let is_order = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        // The body of an answer stands as it is, but for its control characters.
        let lines = text.lines().filter(|line| !line.starts_with("< "));
        for line in lines {
            assert!(!line.contains(is_order), "{line:?}");
            assert!(!line.starts_with("socketmap: ok"), "{line:?}");
            assert!(line.len() < 1_000, "{line:?}");
        }
    }
}
