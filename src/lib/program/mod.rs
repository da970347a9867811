//! A program from its options to its exit status.
//!
//! `startup` goes through it in order: the `options`, the configuration with its `tables`, and then
//! either a `query` or a `service`, which listens, obeys `signals` and tells systemd about itself
//! (`notify`). `descriptors` shares the limit of open files out, `messages` writes to the standard
//! streams, and `exit` lists the statuses.

mod descriptors;
mod exit;
mod messages;
mod notify;
pub mod options;
mod query;
mod service;
mod signals;
mod startup;
mod tables;

pub use startup::run;
