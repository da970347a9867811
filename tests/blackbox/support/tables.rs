//! Programs with a table, and their replies.

use super::{
    backend::{Act, Backend, Gate, Request, Script, good, json, plain},
    peer::{Peer, framed, question},
    program::{Binary, End, Launch, Program},
    replies::{LATER, NOT_FOUND, Replies},
    same,
};

/// A key whose answer needs no backend.
const NO_CALL: &str = "*";

/// One table at this target, with these keys.
pub(crate) fn table_named(binary: Binary, name: &str, target: &str, keys: &str) -> String {
    format!(
        "[{}.{name}]\ntarget = \"{target}\"\n{keys}\n",
        binary.name()
    )
}

/// The table `t` at this target, with these keys.
pub(crate) fn table(binary: Binary, target: &str, keys: &str) -> String {
    table_named(binary, "t", target, keys)
}

/// Starts a program with one TCP socket, which leads to the table `t`.
pub(crate) async fn serve_tcp(binary: Binary, config: impl Into<String>) -> Program {
    Launch::new(binary).config(config).tcp4("t").ready().await
}

/// Starts a program with one unix socket, which leads to the table `t`.
pub(crate) async fn serve(binary: Binary, config: impl Into<String>) -> Program {
    Launch::new(binary).config(config).unix("t").ready().await
}

/// Asks once, over a connection of its own.
pub(crate) async fn ask(program: &Program, binary: Binary, key: impl AsRef<[u8]>) -> Vec<u8> {
    let mut peer = program.peer().await;
    peer.ask(question(binary, "t", key)).await
}

/// Starts a program with this configuration, asks once, demands this reply, and ends the program.
pub(crate) async fn expect(
    binary: Binary,
    config: impl Into<String>,
    expected_reply: Replies,
) -> End {
    expect_of(Launch::new(binary).config(config), binary, expected_reply).await
}

/// As `expect`, of a program prepared otherwise.
pub(crate) async fn expect_of(launch: Launch, binary: Binary, expected_reply: Replies) -> End {
    let program = launch.unix("t").ready().await;
    let reply = ask(&program, binary, "key").await;
    let end = program.stop().await;
    let stderr = &end.stderr;
    same(
        &format!("{}, which wrote:\n{stderr}", binary.name()),
        &reply,
        &expected_reply.by(binary),
    );
    end
}

/// Demands that `--check` refuses a configuration with 78 and says all of these, each with a place
/// and a caret.
pub(crate) async fn refused(config: impl Into<String>, messages: &[&str]) {
    let end = Launch::new(Binary::Socketmap)
        .config(config)
        .argument("--check")
        .end()
        .await;
    end.status(78);
    for message in messages {
        let mut lines = end.stderr.lines();
        let line = lines.find(|line| line.contains(message));
        let line = line.unwrap_or_else(|| panic!("no {message:?} in {end:#?}"));
        let (place, _) = line.split_once(message).expect("the message");
        let numbers: Vec<_> = place
            .split(':')
            .filter(|part| part.parse::<u32>().is_ok())
            .collect();
        assert_eq!(numbers.len(), 2, "line and column in {line:?}");
        let _quoted = lines.next();
        let caret = lines.next().unwrap_or_default();
        assert!(caret.contains('^'), "no caret in {end:#?}");
    }
}

/// The reply of each program with a value.
pub(crate) fn found(binary: Binary, value: &str) -> Vec<u8> {
    match binary {
        Binary::TcpLookup => framed(binary, format!("200 {value}")),
        Binary::Socketmap => framed(binary, format!("OK {value}")),
        Binary::Policy => framed(binary, value),
    }
}

/// The reply of each program for a key without a value.
pub(crate) fn not_found(binary: Binary) -> Vec<u8> {
    NOT_FOUND.by(binary)
}

/// The reply of each program for a temporary failure.
pub(crate) fn failed(binary: Binary, reason: &str) -> Vec<u8> {
    match binary {
        Binary::TcpLookup => framed(binary, format!("400 {}", reason.replace(' ', "%20"))),
        Binary::Socketmap if reason == "backend timed out" => {
            framed(binary, format!("TIMEOUT {reason}"))
        }
        Binary::Socketmap => framed(binary, format!("TEMP {reason}")),
        Binary::Policy => framed(binary, LATER),
    }
}

/// The key that a program asks the backend about, where it asks as it does by default.
pub(crate) fn key_of(binary: Binary, request: &Request) -> String {
    let key = match binary {
        Binary::Policy => {
            let mut form = request.form().into_iter();
            form.find(|(name, _)| name == b"recipient")
        }
        Binary::TcpLookup | Binary::Socketmap => request.query().pop(),
    };
    let (_, key) = key.expect("a key");
    String::from_utf8(key).expect("UTF-8")
}

/// The answer that each program says as [`echoed`].
pub(crate) fn echo_of(binary: Binary, key: &str) -> Script {
    match binary {
        Binary::Policy => plain(format!("REJECT {key}")),
        Binary::TcpLookup | Binary::Socketmap => json(format!("\"{key}\"")),
    }
}

/// A backend behind a gate.
pub(crate) fn gated(binary: Binary) -> (Backend, Gate) {
    let gate = Gate::shut();
    let mut script = vec![Act::Wait(gate.clone())];
    script.extend(good(binary, "DUNNO"));
    (Backend::always(script), gate)
}

/// A backend that answers each key with itself.
pub(crate) fn echo(binary: Binary) -> Backend {
    Backend::new(move |request| echo_of(binary, &key_of(binary, request)))
}

/// The reply of each program when the backend echoes this key.
pub(crate) fn echoed(binary: Binary, key: &str) -> Vec<u8> {
    match binary {
        Binary::Policy => found(binary, &format!("REJECT {key}")),
        Binary::TcpLookup | Binary::Socketmap => found(binary, key),
    }
}

/// Asks something on connections of its own, one in each thread that serves, so that whatever was
/// sent before has arrived.
pub(crate) async fn pass_by(others: &mut [Peer], binary: Binary) {
    let request = match binary {
        // No policy request is answered without the backend.
        Binary::Policy => question(binary, "t", "passer-by"),
        Binary::TcpLookup | Binary::Socketmap => question(binary, "t", NO_CALL),
    };
    for other in others {
        other.ask(&request).await;
    }
}
