//! Postgate: answers Postfix's table lookups and policy questions from an HTTP API.
//!
//! This library holds everything; the three programs under `src/bin` call [`run`].
//!
//! # The line the data takes
//!
//! ```text
//! Postfix ─► socket ─► frame ─► request ─► table ─► HTTP call ─► outcome ─► reply ─► socket ─► Postfix
//!            serve/    protocol/           table/   http/                   protocol/  serve/
//!            └────────────────────── session: this line as one loop ────────────────────┘
//! ```
//!
//! Data moves to the right only. Read in this order: [`outcome`], [`request`], [`reply`] (what is
//! passed on), [`sync`] (locks), [`protocol`] (three grammars, no I/O), [`config`] (the values
//! everything runs on), [`observe`] (log, metrics, pages), [`serve`] (sockets, connections, threads), [`http`] (what is
//! sent, what an answer means), [`table`] (what answers for one name), [`session`] (one
//! connection), [`program`] (from the options to the exit status).
//!
//! # Laws
//!
//! - Nothing under [`protocol`] knows a socket, a clock or a log.
//! - Once a request is understood there are outcomes, never errors that lose the reply.
//! - Two tables carry the product: HTTP → outcome in [`http::answer`], outcome → reply in the
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

pub mod config;
pub mod http;
pub mod observe;
pub mod outcome;
pub mod program;
pub mod protocol;
pub mod reply;
pub mod request;
pub mod serve;
pub mod session;
pub mod sync;
pub mod table;

pub use program::run;
