//! The three programs, by name.

/// One of the three programs; also the kind of a table, since each program has tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// Serves tcp_table(5).
    TcpLookup,
    /// Serves socketmap_table(5).
    Socketmap,
    /// Serves policy delegation (SMTPD_POLICY_README).
    Policy,
}

impl Program {
    /// All three, in the order the papers name them.
    pub const ALL: [Self; 3] = [Self::TcpLookup, Self::Socketmap, Self::Policy];

    /// Returns the name of the binary, which is also the name of its part of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::TcpLookup => "tcp-lookup",
            Self::Socketmap => "socketmap",
            Self::Policy => "policy",
        }
    }

    /// Tells whether this program answers table lookups, each of one key.
    pub fn is_lookup(self) -> bool {
        self != Self::Policy
    }
}
