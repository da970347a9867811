//! The only calls that leave the machine: a request becomes an HTTP call, and its answer an outcome.
//!
//! `call` says what is sent, `answer` what a response means and `redirect` where one leads, all as
//! pure functions. `caller` makes the calls, over the connections of `client`, which `tls` encrypts
//! and for which `resolver` finds the hosts, with the tokens of `oauth`; it skips the targets that
//! `breaker` holds for down. `body` reads the response, and `pool` bounds the connections of all
//! tables together. `freshness` says how long an answer is good, and `error` what an error of the
//! client means. `shared` is what the tables of one configuration have in common.

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
pub mod in_flight;
pub mod oauth;
pub mod pool;
pub mod redirect;
pub mod resolver;
pub mod send;
pub mod shared;
pub mod targets;
pub mod tls;
