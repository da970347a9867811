//! The engine in Redis, against a real server.

mod engines;
mod exact;
mod faults;
mod log;
mod same;
mod server;
mod shared;
mod transport;
