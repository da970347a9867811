//! Tables with limits: what is charged, to whom, and what is said.

mod accounts;
mod charges;
mod commands;
mod hosts;
mod numbers;
mod watching;

use std::path::Path;

use crate::client::rcpt;
use crate::support::{
    peer::{Peer, framed},
    program::{Binary, Launch, Program},
    same,
};

/// What a request gets that has room.
const PASSED: &str = "DUNNO";

/// Text for an exact comparison: without the time, which depends on the clock.
const ON_EXCEEDED: &str = "on-exceeded = \"REJECT {name}: {used} of {limit} in {window}\"\n";

/// The limit of this name for each login, with these keys.
fn limit(name: &str, keys: &str) -> String {
    let by = match keys.contains("by = ") {
        true => "",
        false => "by = \"{sasl_username}\"\n",
    };
    let on_exceeded = match keys.contains("on-exceeded = ") {
        true => "",
        false => ON_EXCEEDED,
    };
    format!("[[policy.t.limits]]\nname = \"{name}\"\n{by}{on_exceeded}{keys}\n")
}

/// Tables whose counters are in the file of this number in a folder.
fn with_store(folder: &Path, number: u8, tables: &str) -> String {
    let path = folder.join(format!("limits-{number}.sqlite"));
    format!("[store]\npath = \"{}\"\n{tables}", path.display())
}

/// A program with these tables, not started yet.
fn launch(tables: &str) -> Launch {
    let launch = Launch::new(Binary::Policy);
    let config = with_store(launch.directory(), 0, tables);
    launch.config(config)
}

/// A program with these tables, and its first peer.
async fn serve(tables: &str) -> (Program, Peer) {
    let program = launch(tables).tcp4("t").ready().await;
    let peer = program.peer().await;
    (program, peer)
}

/// A request of a login about a message, at this state.
fn request(state: &str, instance: &str, login: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut attributes = vec![
        ("protocol_state", state),
        ("instance", instance),
        ("sasl_username", login),
    ];
    attributes.extend(more);
    rcpt(&attributes)
}

/// A recipient of a message.
fn recipient(instance: &str, login: &str, recipient: &str) -> Vec<u8> {
    request("RCPT", instance, login, &[("recipient", recipient)])
}

/// A message with so many recipients.
fn data(instance: &str, login: &str, recipients: &str) -> Vec<u8> {
    request("DATA", instance, login, &[("recipient_count", recipients)])
}

/// The end of a message with so many recipients and bytes.
fn end(instance: &str, login: &str, recipients: &str, size: &str) -> Vec<u8> {
    let more = [("recipient_count", recipients), ("size", size)];
    request("END-OF-MESSAGE", instance, login, &more)
}

/// Sends requests, and demands the action beside each.
async fn dialog(peer: &mut Peer, rows: impl IntoIterator<Item = (Vec<u8>, &str)>) {
    for (number, (request, expected)) in rows.into_iter().enumerate() {
        let reply = peer.ask(request).await;
        let what = format!("request {number}");
        same(&what, &reply, &framed(Binary::Policy, expected));
    }
}
