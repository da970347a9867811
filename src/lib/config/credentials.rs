//! Who we are to a backend: the keys of `Authorization`.

use super::endpoint::Reader;
use super::file::{Entry, Section, table};
use super::oauth::OAuth;
use super::secret::{Secret, header_secret};
use super::tls::Tls;

/// The keys that make `Authorization`.
pub(super) const AUTHORIZATION_KEYS: [&str; 3] = ["bearer-token", "basic-auth", "oauth2"];

/// The one credential in `Authorization`.
#[derive(Clone, Debug, PartialEq)]
pub enum Credential {
    /// `Bearer`, RFC 6750.
    Bearer(Secret),
    /// `Basic`, RFC 7617.
    Basic {
        /// The user's name.
        user: Secret,
        /// The user's password.
        password: Secret,
    },
    /// `Bearer` with a token fetched for the purpose.
    OAuth(Box<OAuth>),
}

impl<'t> Reader<'_, 't> {
    /// Reads the one credential. What the nearest one displaces is gone already.
    pub(super) fn credential(&mut self, tls: &Tls) -> Option<Credential> {
        let mut found: Vec<_> = AUTHORIZATION_KEYS
            .into_iter()
            .filter_map(|name| self.section.take(name))
            .collect();
        found.sort_by_key(|entry| entry.key_span.start);
        let entry = found.first()?;
        if let Some(second) = found.get(1) {
            let text = format!(
                "there is {} already; only one of them can be sent",
                entry.key
            );
            self.report
                .error(second.key_span.clone(), &second.path, text);
        }
        match entry.key {
            "bearer-token" => {
                header_secret(entry, self.secrecy, self.report).map(Credential::Bearer)
            }
            "basic-auth" => self.basic(entry),
            _ => {
                let settings = self.oauth(entry, tls)?;
                Some(Credential::OAuth(Box::new(settings)))
            }
        }
    }

    fn basic(&mut self, entry: &Entry<'t>) -> Option<Credential> {
        let table = table(entry, self.report)?;
        let mut section = Section::new(&entry.path, entry.key_span.clone(), table);
        let user = section.take("user");
        let password = section.take("password");
        section.finish(self.report);
        let (Some(user_entry), Some(password)) = (user, password) else {
            self.error(
                entry.value.span(),
                &entry.path,
                "must have the keys user and password",
            );
            return None;
        };
        let user = header_secret(&user_entry, self.secrecy, self.report);
        let password = header_secret(&password, self.secrecy, self.report);
        let (user, password) = (user?, password?);
        if user.expose().contains(':') {
            let text = "holds a colon, which ends the name in basic authentication";
            self.error(user_entry.value.span(), &user_entry.path, text);
        }
        Some(Credential::Basic { user, password })
    }
}
