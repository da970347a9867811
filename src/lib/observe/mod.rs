//! What an operator sees of a running program: its log, its metrics, its pages.

pub mod changes;
pub mod history;
pub mod log;
pub mod meter;
pub mod metrics;
pub mod page;
pub mod state;
pub mod status;
pub mod throttle;
pub mod verbose;
