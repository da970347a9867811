//! Signals.

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Exit, Failure};

/// The signals to a running program. One that arrives during the start is handled after it.
pub(crate) struct RunSignals {
    /// SIGHUP: read the configuration again.
    pub(crate) reload: Signal,
    /// SIGUSR1: empty the caches.
    pub(crate) clear: Signal,
}

impl RunSignals {
    /// Handles these signals from here on; before, they end the program.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            reload: listen_to(SignalKind::hangup())?,
            clear: listen_to(SignalKind::user_defined1())?,
        })
    }
}

/// The signals that stop the program. During the start they end it at once.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

fn listen_to(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| {
        (
            Exit::Software,
            format!("the signals cannot be handled: {error}"),
        )
    })
}

impl StopSignals {
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen_to(SignalKind::terminate())?,
            interrupt: listen_to(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them.
    pub(crate) async fn next(&mut self) {
        select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
