//! An endpoint without its constants, to show a call: any of them may be a token.

use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::body::{Body, Json, Parameters};
use super::endpoint::Endpoint;
use super::headers::HeaderText;
use super::secret::HIDDEN;
use super::target::Target;
use super::template::{Part, Template};

impl Endpoint {
    /// Returns the endpoint with the constants of its calls replaced. Of its targets these are the values
    /// in the query.
    pub fn masked(&self) -> Self {
        let headers = self.headers.iter().map(|(name, text)| {
            let text = match text {
                HeaderText::Fixed(_) => text.clone(),
                HeaderText::Filled(template) => {
                    HeaderText::Filled(template.without_constants(HIDDEN))
                }
            };
            (name.clone(), text)
        });
        Self {
            targets: self.targets.iter().map(Target::masked).collect(),
            query: self.query.masked(),
            body: match &self.body {
                Body::None => Body::None,
                Body::Form(form) => Body::Form(form.masked()),
                Body::Json(json) => Body::Json(json.masked()),
                Body::Value(_) => self.body.clone(),
            },
            headers: headers.collect(),
            ..self.clone()
        }
    }

    /// Returns the constants that `masked` replaces.
    pub fn constants(&self) -> Vec<Constant> {
        let mut constants = Vec::new();
        self.query.put_constants(&mut constants);
        for query in self.targets.iter().filter_map(|t| t.query.as_ref()) {
            query.query_values(|name, value| {
                let forms = forms(value).into_iter();
                constants.extend(forms.map(|text| Constant::of(name, text)));
            });
        }
        match &self.body {
            Body::None | Body::Value(_) => {}
            Body::Form(form) => form.put_constants(&mut constants),
            Body::Json(json) => json.put_constants("", &mut constants),
        }
        for (name, text) in &self.headers {
            if let HeaderText::Filled(template) = text {
                template.put_constants(name.as_str(), &mut constants);
            }
        }
        constants
    }
}

/// A constant of a call.
#[derive(Debug)]
pub struct Constant {
    /// What is sent.
    pub text: String,
    /// Whether its name says that it is a credential.
    pub is_credential: bool,
}

impl Constant {
    fn of(name: &str, text: String) -> Self {
        Self {
            text,
            is_credential: names_credential(name),
        }
    }
}

/// Returns whether the name of a parameter, a member or a header is that of a credential, such as
/// `X-Api-Key`. A `key` is what is looked up, and a `token_type` is no secret.
fn names_credential(name: &str) -> bool {
    const WHOLE: [&str; 3] = ["auth", "pw", "sig"];
    const ENDS: [&str; 11] = [
        "accesskey",
        "apikey",
        "authkey",
        "credential",
        "pass",
        "passwd",
        "password",
        "pwd",
        "secret",
        "signature",
        "token",
    ];
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    let name: String = letters.map(|c| c.to_ascii_lowercase()).collect();
    WHOLE.contains(&name.as_str()) || ENDS.iter().any(|end| name.ends_with(end))
}

impl Target {
    /// Returns the target without the constants in its query.
    pub(super) fn masked(&self) -> Self {
        Self {
            query: self.query.as_ref().map(Template::masked_query),
            ..self.clone()
        }
    }
}

/// Returns a URL without its query, if it has one.
pub fn without_query(url: &Url) -> Url {
    let mut url = url.clone();
    if url.query().is_some() {
        url.set_query(Some(HIDDEN));
    }
    url
}

/// Returns a text of a URL as it is sent, and as a server reads it.
fn forms(sent: &str) -> [String; 2] {
    let read = percent_decode_str(sent).decode_utf8_lossy().into_owned();
    [sent.to_owned(), read]
}

impl Parameters {
    fn masked(&self) -> Self {
        match self {
            Self::Each(pairs) => {
                let pairs = pairs.iter();
                let masked = pairs.map(|(name, text)| (name.clone(), text.masked()));
                Self::Each(masked.collect())
            }
            Self::None | Self::All => self.clone(),
        }
    }

    fn put_constants(&self, constants: &mut Vec<Constant>) {
        if let Self::Each(pairs) = self {
            for (name, text) in pairs {
                text.put_constants(name, constants);
            }
        }
    }
}

impl Json {
    fn masked(&self) -> Self {
        match self {
            Self::Flag(_) | Self::All => self.clone(),
            Self::Number(_) => Self::Text(Template::hidden()),
            Self::Text(text) => Self::Text(text.masked()),
            Self::List(list) => Self::List(list.iter().map(Self::masked).collect()),
            Self::Object(members) => {
                let members = members.iter();
                let masked = members.map(|(name, value)| (name.clone(), value.masked()));
                Self::Object(masked.collect())
            }
        }
    }

    /// The elements of a list are under its name.
    fn put_constants(&self, name: &str, constants: &mut Vec<Constant>) {
        match self {
            Self::Flag(_) | Self::All => {}
            Self::Number(number) => constants.push(Constant::of(name, number.to_string())),
            Self::Text(text) => text.put_constants(name, constants),
            Self::List(list) => {
                list.iter()
                    .for_each(|value| value.put_constants(name, constants));
            }
            Self::Object(members) => {
                let members = members.iter();
                members.for_each(|(name, value)| value.put_constants(name, constants));
            }
        }
    }
}

impl Template {
    fn hidden() -> Self {
        Self {
            parts: vec![Part::Literal(HIDDEN.to_owned())],
        }
    }

    fn masked(&self) -> Self {
        self.without_constants(HIDDEN)
    }

    /// Returns the query of a target without the constants in its values.
    fn masked_query(&self) -> Self {
        Self {
            parts: self.query_values(|_, _| ()),
        }
    }

    /// Passes on each constant in the values of a target's query, as it is sent, with its name.
    /// Returns the parts without these.
    fn query_values(&self, mut put: impl FnMut(&str, &str)) -> Vec<Part> {
        let mut is_value = false;
        let mut of = "";
        let mut masked = Vec::new();
        for part in &self.parts {
            let Part::Literal(text) = part else {
                masked.push(part.clone());
                continue;
            };
            let mut out = String::new();
            for (at, pair) in text.split('&').enumerate() {
                if at > 0 {
                    out.push('&');
                    is_value = false;
                }
                let value = match pair.split_once('=') {
                    _ if is_value => pair,
                    Some((name, value)) => {
                        out.push_str(name);
                        out.push('=');
                        is_value = true;
                        of = name;
                        value
                    }
                    None => {
                        out.push_str(pair);
                        ""
                    }
                };
                if !value.is_empty() {
                    put(of, value);
                    out.push_str(HIDDEN);
                }
            }
            masked.push(Part::Literal(out));
        }
        masked
    }

    fn put_constants(&self, name: &str, constants: &mut Vec<Constant>) {
        constants.extend(self.parts.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(Constant::of(name, text.clone())),
            Part::Placeholder(_) => None,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_credentials() {
        for name in [
            "token",
            "X-Api-Key",
            "api_key",
            "clientSecret",
            "auth",
            "api.pass",
        ] {
            assert!(names_credential(name), "{name}");
        }
        for name in ["", "key", "token_type", "site", "passive", "authority"] {
            assert!(!names_credential(name), "{name}");
        }
    }
}
