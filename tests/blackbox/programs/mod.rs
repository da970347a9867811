//! The programs as commands: options, exit statuses, what they print, and the sockets they take and
//! refuse.

mod configuration;
mod listen;
mod options;
mod query;
mod sockets;
mod verbose;

use crate::support::program::Binary;

/// A target nobody asks.
const NOWHERE: &str = "http://127.0.0.1:9/";

/// One endpoint `users` at this target.
fn users(binary: Binary, target: &str) -> String {
    format!("[{}.users]\ntarget = \"{target}\"\n", binary.name())
}
