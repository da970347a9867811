//! A program from its options to its exit status.
//!
//! `startup` reads the `options` and the configuration with its `tables`, and then runs a `query`,
//! a command about `limits`, or a `service`. A service listens, handles `signals` and notifies
//! systemd (`notify`). `descriptors` shares out the limit on open files, `messages` writes to the
//! standard streams, `usage` has the text of `--help`, and `exit` lists the exit statuses.

mod descriptors;
mod exit;
mod limits;
mod messages;
mod notify;
pub mod options;
mod query;
mod secret;
mod service;
mod signals;
mod startup;
mod tables;
pub mod usage;

pub use startup::run;
