//! The tables of one program, and their sockets.

use std::path::Path;
use std::sync::Arc;

use super::exit::{Exit, Failure};
use super::messages::sockets_named;
use crate::config::{self, Config, Mode, Report, Severity};
use crate::http::pool::ConnectionBudget;
use crate::observe::metrics::Metrics;
use crate::protocol::{self, Facts, Protocol};
use crate::serve::socket::Socket;
use crate::table::Rules;
use crate::table::calls::Usable;
use crate::table::routes::Routes;

/// A program, without the type of its protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) facts: &'static Facts,
    /// Returns the outcome that the protocol can express.
    usable: Usable,
}

impl Program {
    /// Returns the program of a protocol.
    pub(crate) fn of<P: Protocol>() -> Self
    where
        config::Endpoint: Rules<P::Rules>,
    {
        Self {
            facts: P::FACTS,
            usable: |outcome, endpoint, _| protocol::sayable::<P>(outcome, endpoint.rules()),
        }
    }
}

/// Reads the configuration, which must have a table for this program.
pub(crate) fn load(program: &'static Facts, path: &Path, mode: Mode) -> (Option<Config>, Report) {
    let (mut config, mut report) = config::load(path, mode);
    if config
        .as_ref()
        .is_some_and(|c| c.tables_of(program).next().is_none())
    {
        let name = program.name;
        let text = format!("has no table for this program; write one, [{name}.NAME]");
        report.add(Severity::Error, &text);
        config = None;
    }
    (config, report)
}

/// Makes the tables. Those that have not changed are taken over from the previous routes.
pub(crate) fn routes(
    program: &Program,
    config: &Config,
    before: Option<&Routes>,
    metrics: &Arc<Metrics>,
    budget: &ConnectionBudget,
) -> Result<Routes, Failure> {
    Routes::new(
        program.facts,
        config,
        before,
        program.usable,
        metrics,
        budget,
    )
    .map_err(|text| (Exit::Config, text))
}

/// The reserved name of sockets that serve metrics and health.
pub(crate) const METRICS_SOCKET: &str = "metrics";

/// Returns a message about the sockets without a table, if there are any.
pub(crate) fn unmatched_sockets(
    program: &'static Facts,
    routes: &Routes,
    sockets: &[Socket],
) -> Option<String> {
    let names = sockets.iter().map(|socket| socket.name.as_str());
    let unmatched = routes.unmatched_sockets(names.filter(|name| *name != METRICS_SOCKET));
    let fit = match unmatched.len() {
        0 => return None,
        1 => "fits",
        _ => "fit",
    };
    let unmatched = sockets_named(&unmatched);
    let expected = routes.expected_sockets().join(", ");
    let name = program.name;
    Some(format!(
        "{unmatched} {fit} no table: {name} has tables for the sockets {expected}; \
         set FileDescriptorName= in the .socket unit, NAME= of --listen, or socket = of a table"
    ))
}

/// Returns a message for each table without one of these sockets.
pub(crate) fn tables_without_socket(
    program: &'static Facts,
    routes: &Routes,
    sockets: &[String],
) -> Vec<String> {
    if routes.tables() == 1 {
        return Vec::new();
    }
    let has_socket = |name: &str| sockets.iter().any(|socket| socket == name);
    routes
        .expected_sockets()
        .into_iter()
        .filter(|name| !has_socket(name))
        .map(|name| {
            format!(
                "{}: no socket named \"{name}\": its table is not served",
                program.name
            )
        })
        .collect()
}
