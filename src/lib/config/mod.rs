//! The configuration: read once from the file, immutable, and valid.
//!
//! `file` finds the values and their places, `keys` lists the keys that there are, and `resolve`
//! reads the tables. Each kind of key is read in a file of its own, which also holds its types;
//! `endpoint` calls them all. `problem` shows mistakes, `show` writes the configuration as TOML.

mod actions;
mod body;
mod counting;
mod credentials;
mod endpoint;
mod file;
mod fingerprint;
mod headers;
mod keys;
mod limits;
mod login;
mod masked;
mod normalise;
mod oauth;
mod operations;
mod problem;
mod reader;
mod redis_url;
mod resilience;
mod resolve;
mod response;
mod secret;
mod server;
mod shape;
mod show;
mod show_logins;
mod store;
mod target;
mod template;
mod tls;
mod transport;
mod values;

use std::path::Path;

pub use body::{Body, Json, Parameters};
pub use credentials::Credential;
pub use endpoint::Endpoint;
pub use fingerprint::{Fingerprint, fingerprint};
pub use headers::HeaderText;
pub use keys::key_names;
pub use limits::{Exceeding, Limit, MAX_NUMBER, RateSource, wait_text, window_text};
pub use login::{LoginRules, Place, Sign};
pub use masked::{Constant, without_query};
pub use normalise::{Normalise, Pattern};
pub use oauth::{ClientAuth, OAuth, SigningKey, TokenServer};
pub use operations::Operations;
pub use problem::{Problem, Report, Severity};
pub use redis_url::{RedisAddress, RedisUrl};
pub use resilience::{Breaker, Cache};
pub use resolve::{Config, Mode, Table};
pub use response::{Missing, Response, ResponseRules, Statuses, Verdict};
pub use secret::{HIDDEN, HeaderSecret, Secret, Source};
pub use server::Server;
pub use show::show;
pub use store::Store;
pub use target::{Segment, Target};
pub use template::{Part, Placeholder, Template, Vocabulary};
pub use tls::{Certificates, ClientIdentity, Tls, TlsVersion, crypto_provider};
pub use transport::{Compression, HttpVersion, Proxy, Transport};

/// Reads the whole file.
///
/// The report holds every problem; there is a configuration if none of them is an error.
pub fn load(path: &Path, mode: Mode) -> (Option<Config>, Report) {
    let mut report = Report::new(path);
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let config = resolve::resolve(&text, mode, &mut report);
            report.render(&text);
            (config.filter(|_| !report.has_errors()), report)
        }
        Err(error) => {
            report.unreadable(&error);
            (None, report)
        }
    }
}
