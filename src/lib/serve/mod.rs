//! Sockets, connections and the threads that serve them.

pub mod connections;
pub mod listen;
pub mod peer;
pub mod socket;
pub mod timers;
pub mod workers;
