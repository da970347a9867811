//! The real programs over real sockets, seen from both sides: peers that speak Postfix's protocols,
//! and backends and token endpoints that can fail in every way HTTP allows.

#[path = "../client/mod.rs"]
#[expect(dead_code, reason = "others take replies apart")]
mod client;
#[path = "../redis/server.rs"]
#[expect(dead_code, reason = "others do more to a Redis")]
mod redis_server;
mod servers;
mod support;
#[path = "../tool/mod.rs"]
mod tool;

mod answers;
mod api;
mod breaker;
mod bridges;
mod cache;
mod connections;
mod counting;
mod descriptors;
mod dict;
mod faults;
mod http2;
mod limits;
mod memory;
mod metrics;
mod oauth;
mod page;
mod programs;
mod promtool;
mod requests;
mod sasl;
mod shared_cache;
mod transport;
