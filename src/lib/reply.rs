//! What goes back to the mail server: bytes, or the end of the connection.

use bytes::Bytes;

/// What a connection does for the reply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Send these bytes.
    Send(Bytes),
    /// Send nothing and close: Postfix asks once more, then takes its own default.
    Close,
}
