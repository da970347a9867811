//! How the programs treat connections, limits of time and the signals of the service manager.

mod framing;
mod log;
mod malformed;
mod peers;
mod reloading;
mod sockets;
mod starting;
mod stopping;

use crate::support::{
    backend::{Act, Backend, Gate, good},
    peer::{Peer, question},
    program::{Binary, Program},
    same,
    tables::{found, serve_tcp, table},
};

/// A program with one idle connection and one whose call hangs at a gate.
struct InFlight {
    program: Program,
    backend: Backend,
    gate: Gate,
    idle: Peer,
    asking: Peer,
}

impl InFlight {
    async fn start(binary: Binary, server: &str) -> Self {
        let gate = Gate::shut();
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(good(binary, "DUNNO"));
        let backend = Backend::always(script);
        let config = format!(
            "[server]\n{server}\n{}",
            table(binary, &backend.url("/"), "request-timeout = \"80s\"")
        );
        let program = serve_tcp(binary, config).await;
        let mut idle = program.peer().await;
        idle.send(question(binary, "t", "key")).await;
        backend.asked(1).await;
        gate.pass(1);
        same(binary.name(), &idle.reply().await, &found(binary, "DUNNO"));
        let mut asking = program.peer().await;
        asking.send(question(binary, "t", "key")).await;
        backend.asked(2).await;
        Self {
            program,
            backend,
            gate,
            idle,
            asking,
        }
    }
}
