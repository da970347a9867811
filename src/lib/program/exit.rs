//! How a program ends: its exit status, and what is said about it.

/// The exit statuses, those of sysexits.h where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    /// postmap(1)'s "no such key".
    NotFound = 1,
    /// EX_USAGE.
    Usage = 64,
    /// EX_UNAVAILABLE: no usable socket.
    Unavailable = 69,
    /// EX_SOFTWARE: our fault.
    Software = 70,
    /// EX_TEMPFAIL.
    Temporary = 75,
    /// EX_PROTOCOL, for want of a better one: a permanent failure.
    Permanent = 76,
    /// EX_CONFIG.
    Config = 78,
}

/// The exit status of a program that fails, and the message about it.
pub(crate) type Failure = (Exit, String);
