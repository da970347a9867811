//! `sasl --query NAME USER`, with the password on standard input.

use std::io::{Read as _, Write as _};
use std::process::{ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

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

#[tokio::test]
async fn a_password_that_is_too_long_is_not_cut() {
    let backend = Backend::always(json("{}"));
    let config = table(&backend.url("/"), "");
    let longest = "p".repeat(16_384);
    query(config.clone(), JOE, &format!("{longest}\n"))
        .await
        .status(0);
    let end = query(config, JOE, &format!("{longest}p\n")).await;
    end.status(64)
        .says("the password cannot be read: longer than 16384 bytes");
    assert_eq!(backend.count(), 1);
}

/// What a person sees at a terminal, made by script(1), who does this at the prompt and then looks
/// at the terminal; nothing where there is no script(1). The shell shows its process id, which
/// becomes that of the program, and how that ended.
async fn at_a_terminal(
    target: &str,
    act: impl FnOnce(&str, &mut ChildStdin) + Send + 'static,
) -> Option<String> {
    let directory = Directory::new();
    let path = directory.write("config.toml", &table(target, ""));
    // A signal of the keyboard also reaches the outer shell, which has to outlive it.
    let command = format!(
        "trap : INT QUIT; sh -c 'echo process $$; exec {} --config {} --query t {JOE}'; echo status $?; stty -a",
        env!("CARGO_BIN_EXE_sasl"),
        path.display()
    );
    let script = Command::new("script")
        .args(["--quiet", "--flush", "--command", &command, "/dev/null"])
        .env("SHELL", "/bin/sh")
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
            said.expect("stderr");
            return None;
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
        act(std::str::from_utf8(&text).expect("text"), &mut typed);
        shown.read_to_end(&mut text).expect("the rest");
        String::from_utf8(text).expect("text")
    });
    let text = text.await.expect("a thread");
    script.wait().expect("an end");
    // The terminal is as it was.
    assert!(
        text.contains(" echo ") && !text.contains("-echo "),
        "{text}"
    );
    Some(text)
}

#[tokio::test]
async fn at_a_terminal_the_password_is_not_shown() {
    let backend = Backend::new(api);
    let typing = |_: &str, typed: &mut ChildStdin| writeln!(typed, "{PASSWORD}").expect("typed");
    let Some(text) = at_a_terminal(&backend.url("/login"), typing).await else {
        return;
    };
    assert!(text.contains("password: \r\n"), "{text}");
    assert!(text.contains(&format!("\n{JOE}\r\nstatus 0\r\n")), "{text}");
    assert!(!text.contains(PASSWORD), "{text}");
}

#[tokio::test]
async fn a_signal_at_the_prompt_gives_the_terminal_back() {
    let backend = Backend::new(api);
    let url = backend.url("/login");
    for (byte, status) in [(3, 130), (28, 131)] {
        let typing = move |_: &str, typed: &mut ChildStdin| {
            typed.write_all(&[b'x', byte]).expect("typed");
            typed.flush().expect("typed");
        };
        let Some(text) = at_a_terminal(&url, typing).await else {
            return;
        };
        assert!(text.contains(&format!("status {status}\r\n")), "{text}");
    }
    for (signal, status) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let killing = move |shown: &str, _: &mut ChildStdin| {
            let process = shown.lines().find_map(|line| line.strip_prefix("process "));
            let process = process
                .expect("a process")
                .trim()
                .parse()
                .expect("a number");
            let process = Pid::from_raw(process).expect("a process");
            kill_process(process, signal).expect("a signal");
        };
        let text = at_a_terminal(&url, killing).await.expect("script(1)");
        assert!(text.contains(&format!("status {status}\r\n")), "{text}");
    }
    assert_eq!(backend.count(), 0);
}
