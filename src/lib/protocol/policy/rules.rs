//! The operator's settings for the replies of a policy table.

use crate::outcome::Outcome;

/// The fallback actions of one policy table, and the actions that its backend may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyActions {
    /// For "not found".
    pub on_not_found: FallbackAction,
    /// For "temporary".
    pub on_temporary: FallbackAction,
    /// For "permanent".
    pub on_permanent: FallbackAction,
    /// Whether the backend may answer `OK`, `RELAY` and `permit…`.
    pub permit_actions: bool,
    /// Names of `smtpd_restriction_classes` that the backend may answer.
    pub restriction_classes: Vec<String>,
}

impl Default for PolicyActions {
    fn default() -> Self {
        let action = |text: &str| FallbackAction::Action(text.to_owned());
        Self {
            on_not_found: action("DUNNO"),
            on_temporary: action("DEFER_IF_PERMIT 4.3.0 Policy service temporarily unavailable"),
            on_permanent: action("DEFER_IF_PERMIT 4.3.5 Policy service configuration problem"),
            permit_actions: false,
            restriction_classes: Vec::new(),
        }
    }
}

impl PolicyActions {
    /// Returns the reply to an outcome without a value.
    pub fn fallback(&self, outcome: &Outcome) -> Option<&FallbackAction> {
        match outcome {
            Outcome::Found(_) | Outcome::Done => None,
            Outcome::NotFound | Outcome::Refused(_) => Some(&self.on_not_found),
            Outcome::Temporary(_) => Some(&self.on_temporary),
            Outcome::Permanent(_) => Some(&self.on_permanent),
        }
    }
}

/// The reply to an outcome without a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FallbackAction {
    /// Send this action.
    Action(String),
    /// Send nothing and close the connection.
    Disconnect,
}
