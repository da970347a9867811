//! The store of limits: against a model of single units, with many that ask at once, killed, and
//! on disks that fail.

mod bounds;
mod children;
mod failures;
mod formats;
mod model;
mod processes;
mod service;
mod support;
mod together;
mod verdicts;
