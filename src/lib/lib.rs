//! Postgate: answers Postfix's table lookups, policy requests and logins, and Dovecot's dicts, from
//! an HTTP API.
//!
//! This library holds everything; the programs under `src/bin` call [`run`].
//!
//! # The path of a request
//!
//! ```text
//!   client                                    HTTP service                               client
//!      │                                         ▲    │                                    ▲
//!      ▼                                         │    ▼                                    │
//!   socket ──► frame ──► request ──► table ──► HTTP call ──► outcome ──► reply ──────► socket
//!   serve/     protocol/             table/    http/                     protocol/     serve/
//!      └───────────────── session.rs is this line, written as one loop ──────────────────┘
//! ```
//!
//! Data moves to the right only. Read in this order: [`outcome`], [`request`] and [`reply`] are
//! what is passed on; [`sync`] has the locks; [`protocol`] has the grammars, without any I/O, and
//! the facts of each; [`config`] makes the values that everything runs on; [`observe`] has the log,
//! the metrics and their pages; [`serve`] has sockets, connections and threads; [`http`] the call,
//! and the meaning of its answer; [`limits`] has the arithmetic of limits, and [`store`] keeps what
//! they need; [`table`] chains keys, limits, cache and call, and has lists and writes; [`session`]
//! serves one connection; [`program`] covers the way from the options to the exit status.
//!
//! Each of them imports only what stands before it in this list, and no two files import each
//! other: `tests/layering.rs` reads the imports.
//!
//! # Laws
//!
//! - Nothing under [`protocol`] knows a socket, a clock or a log.
//! - Once a request is understood, it ends in an outcome. No error can lose the reply.
//! - Two tables decide everything: HTTP → outcome in [`http::answer`], outcome → reply in the
//!   `reply` of each protocol. Neither exists in a second place.
//! - A failure is never answered as "not found" and never as a permissive action, unless the
//!   operator wrote that down. An empty value or action is never sent to Postfix.
//!
//! # Logging
//!
//! error: the program does not serve, act at once. warn: a setting, a backend or a peer is wrong.
//! info: start, ready, reload, stop, a target that is back. debug: one line for each request. A
//! failure is a warning at most once in ten seconds for each table and reason, so that no remote
//! sender can fill the journal. Keys and mail addresses are in debug lines only, secrets in none.
//!
//! # Why
//!
//! - *Why threads with a loop each, and no pool of threads for all?* A bridge waits, and the work
//!   between two waits takes less time than waking another thread for it. So a connection stays in
//!   one loop, with its calls and their connections; what the loops share is small and rarely
//!   locked. With one loop `make bench` reaches two thirds of the ideal bridge, with two it comes
//!   close to it.
//! - *Why is the watchdog notified only after every loop has responded?* A loop that hangs would
//!   keep half of Postfix's connections waiting, and systemd would not notice.
//! - *Why are values read with their places, by hand, and not by serde?* The program shows every
//!   mistake in the file at once, with its line and a caret; serde stops at the first.
//! - *Why is JSON not read into a tree?* A number is passed on as it is written, and an answer of
//!   a megabyte takes a megabyte.
//! - *Why does the operator's `4xx` win over the built-in 401?* An operator expects what they
//!   wrote.
//! - *Why is [`serve`] below [`http`], and below [`session`]?* It knows no protocol and no table:
//!   the accept loop takes a function that serves a connection, so that it serves the pages as
//!   well. And calls use what [`serve`] keeps for each thread.
//! - *Why is each call boxed?* Several may be in flight, and without a box each of the thousand
//!   idle connections of a large Postfix would reserve memory for one.

pub mod config;
pub mod http;
pub mod limits;
pub mod observe;
pub mod outcome;
pub mod program;
pub mod protocol;
pub mod reply;
pub mod request;
pub mod serve;
pub mod session;
pub mod store;
pub mod sync;
pub mod table;

pub use program::run;
