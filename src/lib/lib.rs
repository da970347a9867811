//! Postgate: answers Postfix's table lookups and policy questions from an HTTP API.
//!
//! This library holds everything; the three programs under `src/bin` call [`run`].
//!
//! # The line the data takes
//!
//! ```text
//! Postfix ─► socket ─► frame ─► request ─► backend call ─► outcome ─► reply ─► socket ─► Postfix
//!            socket    protocol/           backend/                   protocol/
//!            server
//!            └─────────────────── session: this line as one loop ─────────────────┘
//! ```
//!
//! Data moves to the right only. Read in this order: [`outcome`], [`request`], [`reply`] (what is
//! passed on), [`protocol`] (three grammars, no I/O), [`backend`] (what is sent, what an answer
//! means), [`session`] (one connection), [`server`] and [`connections`] (all of them), [`workers`]
//! (the threads they are spread over), `run` (a program from start to stop), and beside it
//! [`health`] with [`metrics`]. [`config`] makes the values everything runs on.
//!
//! # Laws
//!
//! - Nothing under [`protocol`] knows a socket, a clock or a log.
//! - Once a request is understood there are outcomes, never errors that lose the reply.
//! - Two tables carry the product: HTTP → outcome in [`backend::answer`], outcome → reply in the
//!   `reply` of each protocol. Neither stands anywhere else.
//! - A failure is never said as "not found" and never as a permissive action unless the operator
//!   wrote that down; an empty value or action is never sent.
//!
//! # Logging
//!
//! error: we do not serve, act now. warn: a setting, a backend or a peer is wrong. info: start,
//! ready, reload, stop. debug: one line for each request. A failure is a warning at most once in
//! ten seconds for each table and reason, so no remote sender can fill the journal. Keys and mail
//! addresses stand in debug lines only, secrets in none.
//!
//! # Why
//!
//! - *Why threads with a loop each, and no pool of threads for all?* A bridge waits: what it does
//!   between two waits takes less than waking another thread for it. So a connection stays in one
//!   loop, with its calls and their connections, and what the loops share is small and rarely held.
//!   With one loop `make bench` stays at two thirds of the ideal bridge, with two it is near to it.
//! - *Why is the watchdog fed after every loop has gone round?* One that hangs would keep half of
//!   Postfix waiting, and nobody would notice.
//! - *Why are values read with their places, by hand, and not by serde?* Every mistake in the file
//!   is to be shown at once, with its line and a caret; serde stops at the first.
//! - *Why is JSON not read into a tree?* A number is passed on as it is written, and an answer of
//!   a megabyte takes a megabyte.
//! - *Why does the operator's `4xx` win over the built-in 401?* What somebody has written down is
//!   what they expect to happen.

pub mod backend;
pub mod config;
pub mod connections;
mod descriptors;
pub mod health;
pub mod log;
pub mod metrics;
mod notify;
pub mod options;
pub mod outcome;
pub mod program;
pub mod protocol;
mod query;
pub mod reply;
pub mod request;
mod run;
pub mod server;
mod service;
pub mod session;
pub mod socket;
pub mod timers;
pub mod workers;

pub use program::Program;
pub use run::run;
