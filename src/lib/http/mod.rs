//! Calls to a backend: a request becomes an HTTP call, and its answer an outcome.
//!
//! Pure functions: `call` composes what is sent, with the `headers` that all calls have, as `json`
//! or, for a whole `transaction`, as the JSON of it; `answer`
//! says what a response means, `redirect` where one leads, `freshness` how long an answer may be
//! cached and `error` what an error of the client means. `pointer` finds values in JSON, and `looks`
//! describes an answer that is not understood. `shown` is a call without its
//! `secrets`.
//!
//! One call: `caller` waits for the limit of `in_flight`, takes the `targets` in their order, each
//! with its `breaker`, and makes an `attempt` at each until one answers; `tried` are those that did
//! not, and `health` is what that shows of them. An attempt `send`s the call and reads the `body`;
//! `steps` notes how far it has come.
//!
//! Connections: `pool` holds the clients that `client` makes, with `tls`, the `resolver` and the
//! tokens of `oauth`, with each `token_answer`; `shared` is what the tables of a program share.

pub mod answer;
pub mod attempt;
pub mod body;
pub mod breaker;
pub mod call;
pub mod caller;
pub mod client;
pub mod error;
pub mod freshness;
pub mod headers;
pub mod health;
pub mod in_flight;
pub mod json;
pub mod login;
pub mod looks;
pub mod oauth;
pub mod pointer;
pub mod pool;
pub mod redirect;
pub mod resolver;
pub mod rows;
pub mod secrets;
pub mod send;
pub mod shared;
pub mod shown;
pub mod steps;
pub mod targets;
pub mod text;
pub mod tls;
pub mod token_answer;
pub mod transaction;
pub mod tried;
