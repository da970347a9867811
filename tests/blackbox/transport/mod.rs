//! The way from the programs to a backend, with servers of the tests on the loopback.

mod authorities;
mod compression;
mod deadlines;
mod kept;
mod pins;
mod proxies;
mod redirects;
mod retries;
mod targets;
mod tls;
mod unix_sockets;

use crate::support::program::Binary;

/// The line of TOML that names these targets.
fn targets(urls: &[String]) -> String {
    let urls: Vec<_> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    format!("target = [{}]\n", urls.join(", "))
}

/// A table `t` with these targets and keys.
fn listed(binary: Binary, urls: &[String], keys: &str) -> String {
    format!("[{}.t]\n{}{keys}\n", binary.name(), targets(urls))
}
