//! The real programs over real sockets, seen from both sides: peers that speak Postfix's protocols,
//! and backends and token endpoints that can fail in every way HTTP allows.

mod servers;
mod support;

mod backend;
mod bridges;
mod bulkheads;
mod cache;
mod connections;
mod faults;
mod http2;
mod metrics;
mod oauth;
mod programs;
mod steady;
mod transport;
