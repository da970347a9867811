//! Exit statuses.

use crate::protocol::Facts;

/// The exit statuses, with the values of sysexits.h where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    /// As postmap(1) exits for an unknown key.
    NotFound = 1,
    /// EX_USAGE.
    Usage = 64,
    /// EX_UNAVAILABLE: no usable socket.
    Unavailable = 69,
    /// EX_SOFTWARE: our fault.
    Software = 70,
    /// EX_TEMPFAIL.
    Temporary = 75,
    /// EX_PROTOCOL, the nearest to a permanent failure.
    Permanent = 76,
    /// EX_CONFIG.
    Config = 78,
}

impl Exit {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Done,
        Self::NotFound,
        Self::Usage,
        Self::Unavailable,
        Self::Software,
        Self::Temporary,
        Self::Permanent,
        Self::Config,
    ];

    /// Returns its meaning for the `--help` of a program.
    pub(crate) fn meaning(self, program: &Facts) -> &'static str {
        match self {
            Self::Done if program.has_logins() => "done; of --query: accepted",
            Self::Done => "done; of --query: found",
            Self::NotFound if program.has_logins() => "of --query: refused",
            Self::NotFound => "of --query: not found",
            Self::Usage => "wrong usage",
            Self::Unavailable => "no usable socket",
            Self::Software => "internal error",
            Self::Temporary if program.counting.is_some() => {
                "of --query: temporary failure; of --limits and --reset: the store cannot be reached"
            }
            Self::Temporary => "of --query: temporary failure",
            Self::Permanent => "of --query: permanent failure",
            Self::Config => "configuration",
        }
    }
}

/// The exit status of a program that fails, and the message about it.
pub(crate) type Failure = (Exit, String);
