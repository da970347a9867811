//! What is sent: the URL and the body of a call, every value escaped for where it stands.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use reqwest::Url;

use crate::config::{Parameters, Part, Placeholder, Table, Target, Template};
use crate::outcome::{Outcome, Reason};
use crate::program::Program;
use crate::request::{Attributes, Request};

/// Everything but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A call, ready to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Where to.
    pub url: Url,
    /// A form, where the method has a body.
    pub form: Option<String>,
}

/// Makes the call that asks a table this, or tells the outcome where none is to be made.
pub fn compose(table: &Table, request: &Request) -> Result<Call, Outcome> {
    let endpoint = &table.endpoint;
    if let Request::Lookup { key, .. } = request
        && !endpoint.special_keys
        && SPECIAL_KEYS.contains(&key.as_ref())
    {
        return Err(Outcome::NotFound);
    }
    let values = Values { table, request };
    let mut text = endpoint.target.origin.clone();
    values.put_path(&endpoint.target, &mut text)?;
    values.put_query(&endpoint.target, &endpoint.query, &mut text)?;
    let url = Url::parse(&text).map_err(|_| values.unfit())?;
    let form = match &endpoint.form {
        Parameters::None => None,
        form => {
            let mut text = String::new();
            values.put_parameters(form, &mut text)?;
            Some(text)
        }
    };
    Ok(Call { url, form })
}

/// What Postfix asks on its own account, of transport_maps and of maps of senders: an answer
/// other than "not found" would change the way of everybody's mail.
const SPECIAL_KEYS: [&[u8]; 3] = [b"*", b"<>", b"\"<>\""];

/// Where the values of placeholders come from.
struct Values<'r> {
    table: &'r Table,
    request: &'r Request,
}

impl Values<'_> {
    /// The outcome of a request that cannot be put as the configuration says.
    fn unfit(&self) -> Outcome {
        match self.table.program {
            Program::Policy => Outcome::Temporary(Reason::KeyCannotBeSent.into()),
            Program::TcpLookup | Program::Socketmap => Outcome::NotFound,
        }
    }

    fn put_path(&self, target: &Target, out: &mut String) -> Result<(), Outcome> {
        for segment in &target.segments {
            out.push('/');
            let start = out.len();
            self.put_template(segment, out)?;
            if segment.has_placeholder() && ["", ".", ".."].contains(&&out[start..]) {
                return Err(self.unfit());
            }
        }
        Ok(())
    }

    fn put_query(
        &self,
        target: &Target,
        parameters: &Parameters,
        out: &mut String,
    ) -> Result<(), Outcome> {
        if target.query.is_some() || *parameters != Parameters::None {
            out.push('?');
        }
        if let Some(query) = &target.query {
            let start = out.len();
            self.put_template(query, out)?;
            if *parameters != Parameters::None && out.len() > start {
                out.push('&');
            }
        }
        self.put_parameters(parameters, out)
    }

    fn put_parameters(&self, parameters: &Parameters, out: &mut String) -> Result<(), Outcome> {
        match (parameters, self.request) {
            (Parameters::Each(pairs), _) => {
                for (i, (name, template)) in pairs.iter().enumerate() {
                    put_pair_start(i, name.as_bytes(), out);
                    for part in &template.parts {
                        match part {
                            Part::Literal(literal) => put_escaped(literal.as_bytes(), out),
                            Part::Placeholder(name) => put_escaped(self.value(name)?, out),
                        }
                    }
                }
            }
            (Parameters::All, Request::Policy(Attributes(attributes))) => {
                for (i, (name, value)) in attributes.iter().enumerate() {
                    put_pair_start(i, name, out);
                    put_escaped(value, out);
                }
            }
            (Parameters::All, Request::Lookup { .. }) | (Parameters::None, _) => {}
        }
        Ok(())
    }

    /// Puts a piece of a URL, the literals of which are URL text.
    fn put_template(&self, template: &Template, out: &mut String) -> Result<(), Outcome> {
        for part in &template.parts {
            match part {
                Part::Literal(literal) => out.push_str(literal),
                Part::Placeholder(name) => put_escaped(self.value(name)?, out),
            }
        }
        Ok(())
    }

    fn value(&self, placeholder: &Placeholder) -> Result<&[u8], Outcome> {
        match (placeholder, self.request) {
            (Placeholder::Key, Request::Lookup { key, .. }) => Ok(key),
            (Placeholder::Local, Request::Lookup { key, .. }) => match split(key) {
                (Some(local), _) => Ok(local),
                (None, _) => Err(Outcome::NotFound),
            },
            (Placeholder::Domain, Request::Lookup { key, .. }) => match split(key) {
                (_, Some(domain)) => Ok(domain),
                (_, None) => Err(Outcome::NotFound),
            },
            (Placeholder::Name, request) => Ok(request.map().unwrap_or(self.table.name.as_bytes())),
            (Placeholder::Attribute(name), Request::Policy(attributes)) => {
                Ok(attributes.value(name).unwrap_or_default())
            }
            (_, _) => Ok(&[]),
        }
    }
}

/// Splits a key at its last `@`, as mysql_table(5) does; a part that is empty is none.
fn split(key: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    let is_part = |part: &[u8]| !part.is_empty();
    match key.iter().rposition(|b| *b == b'@') {
        None => (is_part(key).then_some(key), None),
        Some(at) => {
            let (local, domain) = key.split_at(at);
            let domain = &domain[1..];
            (
                is_part(local).then_some(local),
                is_part(domain).then_some(domain),
            )
        }
    }
}

fn put_pair_start(at: usize, name: &[u8], out: &mut String) {
    if at > 0 {
        out.push('&');
    }
    put_escaped(name, out);
    out.push('=');
}

fn put_escaped(value: &[u8], out: &mut String) {
    out.extend(percent_encode(value, ESCAPED));
}
