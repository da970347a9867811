//! Replies: the same outcome as each protocol expresses it.

use super::{peer::framed, program::Binary};

/// Policy's action for every temporary failure.
pub(crate) const LATER: &str = "DEFER_IF_PERMIT 4.3.0 Policy service temporarily unavailable";
/// Policy's action for every permanent failure.
pub(crate) const BROKEN: &str = "DEFER_IF_PERMIT 4.3.5 Policy service configuration problem";

/// The reply of each program to one outcome, without its framing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replies {
    pub(crate) tcp: &'static str,
    pub(crate) socketmap: &'static str,
    pub(crate) policy: &'static str,
}

pub(crate) const fn replies(
    tcp: &'static str,
    socketmap: &'static str,
    policy: &'static str,
) -> Replies {
    Replies {
        tcp,
        socketmap,
        policy,
    }
}

impl Replies {
    /// The reply of this program with its framing.
    pub(crate) fn by(self, binary: Binary) -> Vec<u8> {
        framed(
            binary,
            match binary {
                Binary::TcpLookup => self.tcp,
                Binary::Socketmap => self.socketmap,
                Binary::Policy => self.policy,
            },
        )
    }
}

/// The backend's value, which is an action as well.
pub(crate) const DUNNO: Replies = replies("200 DUNNO", "OK DUNNO", "DUNNO");
pub(crate) const NOT_FOUND: Replies = replies("500 not%20found", "NOTFOUND ", "DUNNO");
pub(crate) const UNREACHABLE: Replies = replies(
    "400 backend%20unreachable",
    "TEMP backend unreachable",
    LATER,
);
pub(crate) const TIMED_OUT: Replies = replies(
    "400 backend%20timed%20out",
    "TIMEOUT backend timed out",
    LATER,
);
pub(crate) const TOO_LONG: Replies = replies(
    "400 backend%20answer%20too%20long",
    "TEMP backend answer too long",
    LATER,
);
pub(crate) const NOT_UNDERSTOOD: Replies = replies(
    "400 backend%20answer%20not%20understood",
    "TEMP backend answer not understood",
    LATER,
);
pub(crate) const CANNOT_BE_SENT: Replies = replies(
    "400 value%20cannot%20be%20sent",
    "TEMP value cannot be sent",
    LATER,
);
pub(crate) const NO_CREDENTIALS: Replies = replies(
    "400 backend%20credentials%20unavailable",
    "TEMP backend credentials unavailable",
    LATER,
);
