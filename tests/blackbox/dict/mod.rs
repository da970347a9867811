//! The program dict, as Dovecot meets it: lookups, lists and writes, each in the bytes of
//! dict-client.c, with a backend that can fail in every way.

mod lists;
mod log;
mod lookups;
mod memory;
mod order;
mod programs;
mod requests;
mod transactions;
mod writes;

use crate::support::{
    backend::{Backend, Request},
    peer::Peer,
    program::{Launch, Program},
};

/// The hello of Dovecot 2.4, for the dict `t`.
pub(crate) const HELLO: &str = "H4\t0\t0\t\tt\n";

/// The table `t` at this target, with these keys.
fn table(target: &str, keys: &str) -> String {
    format!("[dict.t]\ntarget = \"{target}\"\n{keys}\n")
}

/// Starts the program with a unix socket.
async fn serve(config: impl Into<String>) -> Program {
    Launch::dict().config(config).unix("dict").ready().await
}

/// A program with the table `t` at a backend, by Dovecot's side of one connection to it.
async fn served(backend: &Backend, keys: &str) -> (Program, Peer) {
    let program = serve(table(&backend.url("/d"), keys)).await;
    let peer = hello(&program).await;
    (program, peer)
}

/// A connection that has said hello.
async fn hello(program: &Program) -> Peer {
    let mut peer = program.peer().await;
    peer.send(HELLO).await;
    peer
}

/// Sends lines, and demands exactly these.
async fn talk(peer: &mut Peer, sent: &str, expected: &str) {
    peer.send(sent).await;
    peer.expect(expected).await;
}

/// Each request as its method and its target, in their order.
fn calls(requests: &[Request]) -> Vec<String> {
    let shown = |request: &Request| format!("{} {}", request.method, request.target);
    requests.iter().map(shown).collect()
}

/// Each request as its method, its target and its body.
fn bodies(requests: &[Request]) -> Vec<String> {
    let shown = |request: &Request| {
        let body = String::from_utf8_lossy(&request.body);
        format!("{} {} {body}", request.method, request.target)
    };
    requests.iter().map(shown).collect()
}
