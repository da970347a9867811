//! An endpoint without its constants, to show a call: any of them may be a token.

use percent_encoding::percent_decode_str;

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
        let targets = self.targets.iter().map(|target| Target {
            query: target.query.as_ref().map(Template::masked_query),
            ..target.clone()
        });
        Self {
            targets: targets.collect(),
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
    pub fn constants(&self) -> Vec<String> {
        let mut constants = Vec::new();
        self.query.put_constants(&mut constants);
        for query in self.targets.iter().filter_map(|t| t.query.as_ref()) {
            query.query_values(|value| constants.extend(forms(value)));
        }
        match &self.body {
            Body::None | Body::Value(_) => {}
            Body::Form(form) => form.put_constants(&mut constants),
            Body::Json(json) => json.put_constants(&mut constants),
        }
        for (_, text) in &self.headers {
            if let HeaderText::Filled(template) = text {
                template.put_constants(&mut constants);
            }
        }
        constants
    }
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

    fn put_constants(&self, constants: &mut Vec<String>) {
        if let Self::Each(pairs) = self {
            for (_, text) in pairs {
                text.put_constants(constants);
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

    fn put_constants(&self, constants: &mut Vec<String>) {
        match self {
            Self::Flag(_) | Self::All => {}
            Self::Number(number) => constants.push(number.to_string()),
            Self::Text(text) => text.put_constants(constants),
            Self::List(list) => list.iter().for_each(|value| value.put_constants(constants)),
            Self::Object(members) => {
                let values = members.iter().map(|(_, value)| value);
                values.for_each(|value| value.put_constants(constants));
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
            parts: self.query_values(|_| ()),
        }
    }

    /// Passes on each constant in the values of a target's query, as it is sent. Returns the parts
    /// without these.
    fn query_values(&self, mut put: impl FnMut(&str)) -> Vec<Part> {
        let mut is_value = false;
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
                        value
                    }
                    None => {
                        out.push_str(pair);
                        ""
                    }
                };
                if !value.is_empty() {
                    put(value);
                    out.push_str(HIDDEN);
                }
            }
            masked.push(Part::Literal(out));
        }
        masked
    }

    fn put_constants(&self, constants: &mut Vec<String>) {
        constants.extend(self.parts.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(text.clone()),
            Part::Placeholder(_) => None,
        }));
    }
}
