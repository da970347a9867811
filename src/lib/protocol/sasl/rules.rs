//! The operator's settings for the logins of a table.

use core::time::Duration;

use crate::protocol::facts::{Count, Counting, Needs};

/// How logins are counted: those that the backend refuses.
pub static COUNTING: Counting = Counting {
    counts: &[("failures", Count::Failures)],
    needs: |_, _| Ok(Some(Needs::More(1))),
    message: |_| None,
    // What passes is still asked about.
    passed: "",
    call: None,
};

/// The settings of one table for its replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logins {
    /// The mechanisms that are offered, in this order.
    pub mechanisms: Vec<Mechanism>,
    /// How long a refusal is kept back, so that guessing is slow.
    pub failure_delay: Option<Duration>,
    /// The words of a refusal for which the backend has none.
    pub refusal: String,
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            mechanisms: vec![Mechanism::Plain, Mechanism::Login],
            failure_delay: Some(Duration::from_secs(1)),
            refusal: "wrong name or password".to_owned(),
        }
    }
}

/// A mechanism (RFC 4422): how a client says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Name and password one after the other, each after its challenge; never standardised.
    Login,
    /// A name and a bearer token, as Google's clients send them.
    Xoauth2,
    /// RFC 7628.
    Oauthbearer,
}

impl Mechanism {
    /// All of them, each with the name that it has in the protocol and in the configuration.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("PLAIN", Self::Plain),
        ("LOGIN", Self::Login),
        ("XOAUTH2", Self::Xoauth2),
        ("OAUTHBEARER", Self::Oauthbearer),
    ];

    /// Returns the mechanism of a name, which a client may write in any case.
    pub fn named(name: &[u8]) -> Option<Self> {
        let mut words = Self::WORDS.iter();
        let found = words.find(|(word, _)| name.eq_ignore_ascii_case(word.as_bytes()));
        found.map(|(_, mechanism)| *mechanism)
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::Xoauth2 => "XOAUTH2",
            Self::Oauthbearer => "OAUTHBEARER",
        }
    }

    /// Returns the name of the secret that its logins have.
    pub fn secret(self) -> &'static str {
        match self {
            Self::Plain | Self::Login => "password",
            Self::Xoauth2 | Self::Oauthbearer => "token",
        }
    }
}
