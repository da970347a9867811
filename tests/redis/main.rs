//! The engine in Redis, against a real server.

mod exact;
mod faults;
mod log;
mod same;
mod server;
mod transport;
