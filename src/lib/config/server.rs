//! `[server]` and `[log]`: the settings of a program as a whole.

use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::file::Section;
use super::problem::Report;
use super::values;

/// The limits of connections from the mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// The most open connections of one program.
    pub max_connections: usize,
    /// The time from the first byte of a request to its last, and for writing a reply.
    pub read_timeout: Duration,
    /// How long a connection may be idle; without a limit if absent.
    pub idle_timeout: Option<Duration>,
    /// The time from SIGTERM to the end of the program.
    pub drain_timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            read_timeout: Duration::from_secs(10),
            idle_timeout: None,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Reads `[server]`.
pub(super) fn server(mut section: Section<'_>, report: &mut Report) -> Server {
    let default = Server::default();
    let mut duration = |name| {
        let entry = section.take(name)?;
        values::duration(&entry, report)
    };
    let read_timeout = duration("read-timeout").unwrap_or(default.read_timeout);
    let idle_timeout = duration("idle-timeout");
    let drain_timeout = duration("drain-timeout").unwrap_or(default.drain_timeout);
    let max_connections = section
        .take("max-connections")
        .and_then(|entry| values::count(&entry, 1..=1_000_000, report))
        .unwrap_or(default.max_connections);
    section.finish(report);
    Server {
        max_connections,
        read_timeout,
        idle_timeout,
        drain_timeout,
    }
}

/// Reads `[log]`.
pub(super) fn log_level(mut section: Section<'_>, report: &mut Report) -> LevelFilter {
    const LEVELS: [(&str, LevelFilter); 4] = [
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
    ];
    let level = section
        .take("level")
        .and_then(|e| values::word(&e, &LEVELS, report));
    section.finish(report);
    level.unwrap_or(LevelFilter::INFO)
}
