//! The grammars, in both directions: bytes to requests, outcomes to replies.
//!
//! Nothing here reads, writes, waits, logs or knows the time, so every rule can be tested as a
//! function of bytes. Each protocol states its own [`Facts`], and other modules read those.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

pub mod dict;
pub mod digest;
pub mod facts;
pub mod frame;
pub mod grammar;
pub mod policy;
pub mod quote;
pub mod sasl;
pub mod socketmap;
pub mod tcp_lookup;

pub use facts::Facts;
pub use grammar::{
    MAX_REQUEST, MAX_SECS, POSTFIX_WAITS_SECS, Protocol, Step, Tag, Unsayable, say, sayable,
};

/// The protocols, in the order in which documents name them.
pub const ALL: [&Facts; 5] = [
    tcp_lookup::TcpLookup::FACTS,
    socketmap::Socketmap::FACTS,
    policy::Policy::FACTS,
    dict::Dict::FACTS,
    sasl::Sasl::FACTS,
];
