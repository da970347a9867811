//! The store of limits: against a model of single units, with many that ask at once, killed, and
//! on disks that fail.

mod bounds;
mod children;
#[path = "../redis/engines.rs"]
#[expect(dead_code, reason = "others use the engine without a clock")]
mod engines;
mod failures;
mod formats;
mod model;
mod processes;
mod redis;
#[path = "../redis/server.rs"]
#[expect(dead_code, reason = "others do more to a Redis")]
mod server;
mod service;
mod support;
mod together;
mod verdicts;
