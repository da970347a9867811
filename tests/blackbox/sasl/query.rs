//! `sasl --query NAME USER`, with the password on standard input.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use super::{JOE, PASSWORD, api, table};
use crate::support::{
    Directory,
    backend::{Backend, json, status},
    program::{End, Launch},
};

async fn query(config: String, user: &str, input: &str) -> End {
    Launch::sasl()
        .config(config)
        .argument("--query")
        .argument("t")
        .argument(user)
        .end_after(input.as_bytes())
        .await
}

#[tokio::test]
async fn it_prints_who_has_logged_in_and_exits_by_the_outcome() {
    let backend = Backend::new(api);
    let config = table(&backend.url("/login"), "");
    for input in [
        format!("{PASSWORD}\n"),
        PASSWORD.to_owned(),
        format!("{PASSWORD}\nmore\n"),
    ] {
        let end = query(config.clone(), JOE, &input).await;
        assert_eq!(end.stdout, format!("{JOE}\n"), "{input:?}");
        end.status(0);
    }
    let end = query(config.clone(), JOE, "wrong\n").await;
    assert_eq!(end.stdout, "");
    end.status(1);
    // What no account can have is refused without a call.
    let calls = backend.count();
    query(config.clone(), JOE, "\n").await.status(1);
    query(config.clone(), "", "x\n").await.status(1);
    assert_eq!(backend.count(), calls);

    let backend = Backend::always(status(503));
    let end = query(table(&backend.url("/"), ""), JOE, "x\n").await;
    end.status(75).says("backend answered 503");
    let end = query(config.replace("sasl.t", "sasl.other"), JOE, "x\n").await;
    end.status(64).says("there is no table sasl.t");
}

#[tokio::test]
async fn it_says_the_words_of_a_refusal() {
    let backend = Backend::always(json("{\"ok\": false, \"why\": \"locked\\nout\"}"));
    let config = table(&backend.url("/"), "accepted = \"/ok\"\nreason = \"/why\"");
    let end = query(config, JOE, "x\n").await;
    end.status(1).says("sasl: locked\\nout");
}

#[tokio::test]
async fn a_table_of_tokens_is_asked_with_a_token() {
    let backend = Backend::always(json("{}"));
    let config = table(&backend.url("/"), "mechanisms = [\"OAUTHBEARER\"]");
    query(config, JOE, "t.k\n").await.status(0);
    let body = String::from_utf8(backend.only().body).expect("text");
    assert!(body.contains("\"token\":\"t.k\""), "{body}");
    assert!(body.contains("\"mechanism\":\"OAUTHBEARER\""), "{body}");
}

/// script(1) makes the terminal. It shows what a person sees, and takes what a person types.
#[tokio::test]
async fn at_a_terminal_the_password_is_not_shown() {
    let backend = Backend::new(api);
    let directory = Directory::new();
    let path = directory.write("config.toml", &table(&backend.url("/login"), ""));
    let command = format!(
        "{} --config {} --query t {JOE}; echo status $?; stty -a",
        env!("CARGO_BIN_EXE_sasl"),
        path.display()
    );
    let script = Command::new("script")
        .args(["--quiet", "--flush", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut script = match script {
        Ok(script) => script,
        Err(error) => {
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "script: {error}"
            );
            let said = writeln!(std::io::stderr(), "skipped: no script(1): {error}");
            return said.expect("stderr");
        }
    };
    let (mut typed, mut shown) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let text = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        let mut byte = [0];
        // What is typed before the prompt would be shown by the terminal, and is thrown away.
        while !text.ends_with(b"password: ") {
            shown.read_exact(&mut byte).expect("a prompt");
            text.push(byte[0]);
        }
        writeln!(typed, "{PASSWORD}").expect("typed");
        shown.read_to_end(&mut text).expect("the rest");
        String::from_utf8(text).expect("text")
    });
    let text = text.await.expect("a thread");
    script.wait().expect("an end");
    assert!(text.contains("password: \r\n"), "{text}");
    assert!(text.contains(&format!("\n{JOE}\r\nstatus 0\r\n")), "{text}");
    assert!(!text.contains(PASSWORD), "{text}");
    // The terminal is as it was.
    assert!(
        text.contains(" echo ") && !text.contains("-echo "),
        "{text}"
    );
}
