//! Output to the standard streams.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::config::Severity;
use crate::observe::log;
use crate::protocol::Facts;

/// Writes to standard output. An error means that the reader has closed the pipe.
pub(crate) fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Asks for input on stderr.
pub(crate) fn prompt(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Writes a message to stderr, with a priority prefix if stderr is the journal (sd-daemon(3)).
pub(crate) fn write_message(program: &'static Facts, severity: Severity, text: &str) {
    let mark = match severity {
        _ if !log::is_stderr_the_journal() => "",
        Severity::Error => "<3>",
        Severity::Warning => "<4>",
    };
    let mut out = format!("{mark}{}: ", program.name);
    for (i, line) in text.lines().enumerate() {
        let _ = writeln!(out, "{}{line}", if i == 0 { "" } else { mark });
    }
    // An error cannot be reported anywhere else.
    let _ = io::stderr().write_all(out.as_bytes());
}

/// Writes an error message to stderr.
pub(crate) fn complain(program: &'static Facts, text: &str) {
    write_message(program, Severity::Error, text);
}

/// Returns a count with its noun: "1 table", "2 tables".
pub(crate) fn plural(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// Returns the names of sockets as a message has them: `socket "a"`, `sockets "a", "b"`.
pub(crate) fn sockets_named(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    let sockets = if names.len() == 1 {
        "socket"
    } else {
        "sockets"
    };
    format!("{sockets} {}", quoted.join(", "))
}
