//! The engine in a Redis or Valkey, for all hosts together.
//!
//! One script answers a question about limits (`limits.lua`), by the clock of Redis. Its states are
//! MessagePack. `client` asks it, on a connection of `link`, which `connect` makes; `script` knows
//! keys, arguments and answers; and `shared` keeps answers of backends for all hosts.

pub mod client;
mod connect;
mod failure;
mod link;
mod script;
pub mod shared;

pub use client::{LIMITS, Redis};
