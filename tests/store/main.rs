//! The store of limits: against a model of single units, with many that ask at once, killed, and
//! on disks that fail.

mod formats;
mod model;
mod service;
mod support;
mod verdicts;
