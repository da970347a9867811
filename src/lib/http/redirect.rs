//! Redirects: followed on the same origin only, and only if the request stays the same.
//!
//! Another origin must not get the table's credentials, and a POST must not become a GET.

use reqwest::{Method, Url};

use crate::observe::verbose;

/// The most redirects that are followed for one call.
pub const MAX_REDIRECTS: usize = 5;

/// A redirect, as it is in the answer.
#[derive(Clone, Copy, Debug)]
pub struct Redirect<'r> {
    /// The URL of the call.
    pub from: &'r Url,
    /// The status of the answer.
    pub status: u16,
    /// Its header `Location`.
    pub location: Option<&'r str>,
}

impl Redirect<'_> {
    /// Returns the URL to call next, or the reason for the log why the redirect is not followed.
    pub fn follow(&self, is_wanted: bool, method: &Method) -> Result<Url, String> {
        let location = self.location.ok_or("without a Location")?;
        let to = self.from.join(location);
        let to = to.map_err(|_| "with a Location that is not a URL")?;
        let description = self.describe(&to);
        let is_same = to.origin() == self.from.origin();
        if !is_wanted && is_same {
            return Err(format!("to {description}, not followed: redirects = false"));
        }
        if !is_same {
            return Err(format!(
                "to {description}, not followed: another origin; is it the target?"
            ));
        }
        let keeps_request = match self.status {
            307 | 308 => true,
            301..=303 => *method == Method::GET,
            _ => return Err(format!("to {description}, which is not a redirect")),
        };
        if !keeps_request {
            return Err(format!(
                "to {description}, not followed: only 307 and 308 keep a {method}"
            ));
        }
        if !to.username().is_empty() || to.password().is_some() {
            return Err(format!(
                "to {description}, not followed: credentials in a URL"
            ));
        }
        Ok(to)
    }

    /// Returns a description of a URL that cannot hold the key: its origin, and how its path
    /// differs from that of the call. Another host, or its port, could be made of the key or of a
    /// secret, so that only a query shows it.
    pub fn describe(&self, to: &Url) -> String {
        if !to.origin().is_tuple() {
            return "a URL that is not of HTTP".to_owned();
        }
        let is_plain = to.port().is_none() || to.port() == self.from.port();
        let origin = if verbose::is_query() || to.host() == self.from.host() && is_plain {
            to.origin().ascii_serialization()
        } else if to.host() == self.from.host() {
            "another port of this host".to_owned()
        } else {
            "another host".to_owned()
        };
        if to.path().trim_end_matches('/') != self.from.path().trim_end_matches('/') {
            return format!("{origin}, another path");
        }
        let slash = match (self.from.path().ends_with('/'), to.path().ends_with('/')) {
            (false, true) => ", the same path with a slash at its end",
            (true, false) => ", the same path without the slash at its end",
            _ => ", the same path",
        };
        format!("{origin}{slash}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_that_is_not_followed_says_where_it_leads_and_why() {
        let from = Url::parse("http://api.example.org/users/jane?key=jane").unwrap();
        let follow = |status, location, is_wanted, method| {
            let redirect = Redirect {
                from: &from,
                status,
                location,
            };
            redirect.follow(is_wanted, &method)
        };
        for (status, location, is_wanted, method, expected) in [
            (301, None, true, Method::GET, "without a Location"),
            (
                301,
                Some("http://["),
                true,
                Method::GET,
                "with a Location that is not a URL",
            ),
            (
                307,
                Some("/users/jane/?key=jane"),
                false,
                Method::GET,
                "to http://api.example.org, the same path with a slash at its end, not followed: \
                 redirects = false",
            ),
            (
                301,
                Some("https://api.example.org/users/jane?key=jane"),
                true,
                Method::GET,
                "to https://api.example.org, the same path, not followed: another origin; is it the \
                 target?",
            ),
            (
                302,
                Some("/login?next=jane"),
                true,
                Method::POST,
                "to http://api.example.org, another path, not followed: only 307 and 308 keep a POST",
            ),
            (
                302,
                Some("http://jane:s3cret@api.example.org/users/jane"),
                true,
                Method::GET,
                "to http://api.example.org, the same path, not followed: credentials in a URL",
            ),
            (
                302,
                Some("https://jane.example.org/users/jane"),
                true,
                Method::GET,
                "to another host, the same path, not followed: another origin; is it the target?",
            ),
            (
                302,
                Some("http://api.example.org:12345/users/jane"),
                true,
                Method::GET,
                "to another port of this host, the same path, not followed: another origin; is it the \
                 target?",
            ),
            (
                302,
                Some("data:jane"),
                true,
                Method::GET,
                "to a URL that is not of HTTP, not followed: another origin; is it the target?",
            ),
            (
                304,
                Some("/x"),
                true,
                Method::GET,
                "to http://api.example.org, another path, which is not a redirect",
            ),
        ] {
            assert_eq!(
                follow(status, location, is_wanted, method),
                Err(expected.to_owned())
            );
        }
        let to = follow(302, Some("/there?key=jane"), true, Method::GET).unwrap();
        assert_eq!(to.as_str(), "http://api.example.org/there?key=jane");
    }
}
