//! A program from its options to its exit status.

mod descriptors;
mod notify;
pub mod options;
mod query;
mod service;
mod startup;

pub use startup::run;
