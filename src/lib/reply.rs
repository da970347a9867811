//! What goes back to Postfix, and the operator's words that shape it.

use bytes::Bytes;

/// What a connection does after a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Say these bytes.
    Say(Bytes),
    /// Say nothing and close: Postfix asks once more, then takes its own default.
    HangUp,
}

/// What an operator has written down to be said by a policy table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// For "not found".
    pub on_not_found: Said,
    /// For "temporary".
    pub on_temporary: Said,
    /// For "permanent".
    pub on_permanent: Said,
    /// Whether the backend may say `OK`, `RELAY` and `permit…`.
    pub permit_actions: bool,
    /// Names of `smtpd_restriction_classes` that the backend may say.
    pub restriction_classes: Vec<String>,
}

impl Default for Words {
    fn default() -> Self {
        let action = |text: &str| Said::Action(text.to_owned());
        Self {
            on_not_found: action("DUNNO"),
            on_temporary: action("DEFER_IF_PERMIT 4.3.0 Policy service temporarily unavailable"),
            on_permanent: action("DEFER_IF_PERMIT 4.3.5 Policy service configuration problem"),
            permit_actions: false,
            restriction_classes: Vec::new(),
        }
    }
}

/// What a policy table says for an outcome without a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// This action.
    Action(String),
    /// Nothing: close the connection.
    Disconnect,
}
