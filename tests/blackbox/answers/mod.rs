//! The reply of each program to each answer of the backend.

mod actions;
mod broken;
mod statuses;
mod values;

use crate::support::{
    Wrong,
    backend::{Backend, Script},
    peer::question,
    program::Binary,
    replies::Replies,
    tables::{serve, table},
};

/// One row: its name, the answer of the backend, and the reply.
type Row = (String, Script, Replies);

fn row(name: &str, script: Script, expected_reply: Replies) -> Row {
    (name.to_owned(), script, expected_reply)
}

/// Plays each row over one connection: exactly one call, exactly one reply.
async fn play(binary: Binary, keys: &str, rows: Vec<Row>) {
    let backend = Backend::always(Script::new());
    let program = serve(binary, table(binary, &backend.url("/ask"), keys)).await;
    let mut peer = program.peer().await;
    let mut wrong = Wrong::default();
    for (number, (row, script, expected_reply)) in rows.into_iter().enumerate() {
        backend.set(script);
        let reply = peer.ask(question(binary, "t", "key")).await;
        wrong.compare(&row, &reply, &expected_reply.by(binary));
        let calls = backend.count() - number;
        wrong.require(&row, calls == 1, || format!("{calls} calls so far, not 1"));
        if calls != 1 {
            break;
        }
    }
    wrong.none();
    peer.finish().await;
    peer.expect_eof().await;
    program.stop().await;
}
