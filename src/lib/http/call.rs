//! The URLs, headers and body of a call, each value escaped for its context.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::zeroize::Zeroizing;

use super::json::{put_each, put_text, put_text_or};
use super::text::Text;
use super::transaction::put_transaction;
use crate::config::{
    Body, Credential, Endpoint, HeaderText, Json, Parameters, Part, Placeholder, Segment, Table,
    Target, Template,
};
use crate::outcome::{Failure, Outcome, Reason};
use crate::protocol::facts::{Expansion, Meaning};
use crate::request::{Kind, Request, split_address};

/// Escapes everything but the unreserved characters of RFC 3986.
pub const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Escapes everything but visible ASCII, and `%` itself, in the value of a header.
const ESCAPED_IN_HEADERS: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// A call, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// One URL for each target.
    pub urls: Vec<Url>,
    /// The headers that depend on the request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, if there is one.
    pub body: Option<Bytes>,
    /// The name whose login this is, or empty.
    pub name: String,
}

/// Without the headers and the body, which may have a secret.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut call = f.debug_struct("Call");
        call.field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// Makes the call for a request whose key is normalised, or returns the outcome of a request for
/// which there is no call.
pub fn compose(table: &Table, request: &Request) -> Result<Call, Outcome> {
    let endpoint = &table.endpoint;
    check_needs(endpoint, request)?;
    if let Kind::Write(write) = &request.kind {
        for operation in &write.operations {
            check_needs(endpoint, &operation.request)?;
        }
    }
    let key = table.protocol.key.and_then(|name| request.value(name));
    let values = Values {
        table,
        request,
        key: key.unwrap_or_default(),
    };
    Ok(Call {
        urls: endpoint
            .targets
            .iter()
            .map(|target| values.url(target))
            .collect::<Result<_, _>>()?,
        headers: endpoint
            .headers
            .iter()
            .filter_map(|(name, text)| match text {
                HeaderText::Fixed(_) => None,
                HeaderText::Filled(template) => Some((name, template)),
            })
            .filter(|(_, template)| !values.lacks(template))
            .map(|(name, template)| Ok((name.clone(), values.header(template)?)))
            .chain(values.login(endpoint.credential.as_ref()))
            .collect::<Result<_, _>>()?,
        body: values.body(&endpoint.body)?,
        name: match endpoint.response_rules.login {
            Some(_) => String::from_utf8_lossy(values.key).into_owned(),
            None => String::new(),
        },
    })
}

/// Refuses a request whose call does not carry what tells it from that of another user.
fn check_needs(endpoint: &Endpoint, request: &Request) -> Result<(), Outcome> {
    let Some(name) = request.needs else {
        return Ok(());
    };
    let detail = if request.value(name).unwrap_or_default().is_empty() {
        format!("the key needs a {name}, and the request has none")
    } else if !endpoint.carries(name) {
        format!("the key needs a {name}, and the call does not carry it; write {{{name}}} in it")
    } else {
        return Ok(());
    };
    Err(Outcome::Permanent(Failure::new(
        Reason::KeyCannotBeSent,
        detail,
    )))
}

/// The longest URL that the HTTP client sends (the http crate's limit of a URI).
const MAX_URL: usize = 65_534;

/// Enough for most queries, so that they are built in one allocation.
const USUAL_QUERY: usize = 128;

/// Enough for most forms.
const USUAL_FORM: usize = 1024;

/// Enough for most JSON.
const USUAL_JSON: usize = 256;

/// The scheme of basic authentication.
const BASIC: &str = "Basic ";

/// The values of placeholders, and the texts that they go into.
struct Values<'r> {
    table: &'r Table,
    request: &'r Request,
    /// The key of a lookup; empty for a policy request.
    key: &'r [u8],
}

impl Values<'_> {
    /// Returns the outcome of a request that does not fit into the configured call.
    fn unfit(&self) -> Outcome {
        let failure = || Reason::KeyCannotBeSent.into();
        match self.table.protocol.unfit {
            Meaning::NotFound => Outcome::NotFound,
            Meaning::Done => Outcome::Done,
            Meaning::Temporary => Outcome::Temporary(failure()),
            Meaning::Permanent => Outcome::Permanent(failure()),
        }
    }

    fn url(&self, target: &Target) -> Result<Url, Outcome> {
        let mut url = target.base.clone();
        if target.segments.iter().any(Segment::has_placeholder) {
            let mut path = Text::default();
            self.put_path(target, &mut path)?;
            url.set_path(&path);
        }
        let parameters = &self.table.endpoint.query;
        if target.query.is_some() || *parameters != Parameters::None {
            let mut query = Text::new(USUAL_QUERY, false);
            self.put_query(target, parameters, &mut query)?;
            url.set_query(Some(&query));
        }
        if url.as_str().len() > MAX_URL {
            let failure = Failure::new(Reason::KeyCannotBeSent, "the URL would be too long");
            return Err(Outcome::Temporary(failure));
        }
        Ok(url)
    }

    /// Returns whether a text has a secret that the request has not, and so is left out.
    fn lacks(&self, template: &Template) -> bool {
        template.parts.iter().any(|part| match part {
            Part::Placeholder(Placeholder::Secret(name)) => self.request.secret(name).is_none(),
            _ => false,
        })
    }

    fn text(&self, capacity: usize) -> Text {
        Text::new(capacity, self.request.secret.is_some())
    }

    fn header(&self, template: &Template) -> Result<HeaderValue, Outcome> {
        let mut text = self.text(0);
        for part in &template.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Placeholder(name) => {
                    text.extend(percent_encode(&self.value(name)?, ESCAPED_IN_HEADERS));
                }
            }
        }
        // Not copied, as the header may have a secret in it.
        let value = HeaderValue::from_maybe_shared(text.into_bytes());
        let mut value = value.map_err(|_| self.unfit())?;
        value.set_sensitive(template.has_secret());
        Ok(value)
    }

    /// Returns the header of a credential that is that of the login.
    fn login(
        &self,
        credential: Option<&Credential>,
    ) -> Option<Result<(HeaderName, HeaderValue), Outcome>> {
        let Some(Credential::Login { user, password }) = credential else {
            return None;
        };
        if self.lacks(password) {
            return None;
        }
        Some(
            self.basic(user, password)
                .map(|value| (AUTHORIZATION, value)),
        )
    }

    fn basic(&self, user: &Template, password: &Template) -> Result<HeaderValue, Outcome> {
        let user = self.plain(user)?;
        let password = self.plain(password)?;
        // It would end the name (RFC 7617, section 2), so no account can have it here.
        if user.contains(&b':') {
            return Err(self.unfit());
        }
        let pair = Zeroizing::new([&user[..], b":", &password].concat());
        let length = base64::encoded_len(pair.len(), true).unwrap_or_default();
        let mut base64 = Zeroizing::new(vec![0; length]);
        let written = BASE64.encode_slice(&*pair, &mut base64);
        base64.truncate(written.unwrap_or_default());
        let mut text = self.text(BASIC.len() + length);
        text.push_str(BASIC);
        text.push_str(std::str::from_utf8(&base64).unwrap_or_default());
        let value = HeaderValue::from_maybe_shared(text.into_bytes());
        let mut value = value.map_err(|_| self.unfit())?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Returns a text as it is.
    fn plain(&self, template: &Template) -> Result<Zeroizing<Vec<u8>>, Outcome> {
        let pieces: Vec<Cow<'_, [u8]>> = template
            .parts
            .iter()
            .map(|part| match part {
                Part::Literal(literal) => Ok(Cow::Borrowed(literal.as_bytes())),
                Part::Placeholder(name) => self.value(name),
            })
            .collect::<Result<_, _>>()?;
        Ok(Zeroizing::new(pieces.concat()))
    }

    fn body(&self, body: &Body) -> Result<Option<Bytes>, Outcome> {
        match body {
            Body::None => Ok(None),
            Body::Form(form) => {
                let mut text = self.text(USUAL_FORM);
                self.put_parameters(form, &mut text)?;
                Ok(Some(text.into_bytes()))
            }
            Body::Json(json) => {
                let mut text = self.text(USUAL_JSON);
                self.put_json(json, &mut text)?;
                Ok(Some(text.into_bytes()))
            }
            Body::Value(name) => {
                let value = self.request.value(name).unwrap_or_default();
                Ok(Some(Bytes::copy_from_slice(value)))
            }
        }
    }

    /// Returns why a text cannot be sent that is not UTF-8: for the value of a write, or for its key.
    fn not_text(&self, template: &Template) -> Reason {
        let raw = self.table.protocol.raw_value;
        let is_value = |part: &Part| match part {
            Part::Placeholder(Placeholder::Value(name)) => raw.is_some_and(|raw| *name == raw),
            _ => false,
        };
        let is_text = || {
            let value = self.request.value(raw.unwrap_or_default());
            std::str::from_utf8(value.unwrap_or_default()).is_ok()
        };
        match template.parts.iter().any(is_value) && !is_text() {
            true => Reason::ValueCannotBeSent,
            false => Reason::KeyCannotBeSent,
        }
    }

    fn put_json(&self, json: &Json, out: &mut Text) -> Result<(), Outcome> {
        match json {
            Json::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Json::Number(number) => out.push_str(&number.to_string()),
            Json::Text(template) if self.lacks(template) => out.push_str("null"),
            Json::Text(template) => {
                let reason = self.not_text(template);
                match template.parts.as_slice() {
                    // Not copied, which for a secret would be one copy more to overwrite.
                    [Part::Placeholder(name)] => put_text_or(reason, &self.value(name)?, out)?,
                    _ => put_text_or(reason, &self.plain(template)?, out)?,
                }
            }
            Json::All if self.request.is_write() => put_transaction(self.request, out)?,
            Json::All => {
                // The first of several attributes of one name, as for a placeholder.
                let mut seen = HashSet::new();
                let members = self
                    .request
                    .values
                    .iter()
                    .filter(|(name, _)| seen.insert(name.as_ref()));
                put_each(('{', '}'), members, out, |(name, value), out| {
                    put_text(name, out)?;
                    out.push(':');
                    put_text(value, out)
                })?;
            }
            Json::List(list) => {
                let list = list.iter().filter(|value| !self.lacks_json(value));
                put_each(('[', ']'), list, out, |value, out| {
                    self.put_json(value, out)
                })?;
            }
            Json::Object(members) => {
                let members = members.iter().filter(|(_, value)| !self.lacks_json(value));
                put_each(('{', '}'), members, out, |(name, value), out| {
                    put_text(name.as_bytes(), out)?;
                    out.push(':');
                    self.put_json(value, out)
                })?;
            }
        }
        Ok(())
    }

    fn lacks_json(&self, json: &Json) -> bool {
        matches!(json, Json::Text(template) if self.lacks(template))
    }

    fn put_path(&self, target: &Target, out: &mut Text) -> Result<(), Outcome> {
        for segment in &target.segments {
            match segment {
                Segment::Text(template) => {
                    out.push('/');
                    let start = out.len();
                    self.put_template(template, out)?;
                    if template.has_placeholder() && is_dots(&out[start..]) {
                        return Err(self.unfit());
                    }
                }
                Segment::Expansion(_, Expansion::Segments(name)) => {
                    let value = self.request.value(name).unwrap_or_default();
                    // The path of all keys is no segment at all.
                    if !(value.is_empty() && self.request.is_list()) {
                        self.put_segments(value.split(|byte| *byte == b'/'), out)?;
                    }
                }
                Segment::Expansion(_, Expansion::Needed(name)) => {
                    if self.request.needs == Some(name) {
                        self.put_segments(self.request.value(name), out)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn put_segments<'v>(
        &self,
        segments: impl IntoIterator<Item = &'v [u8]>,
        out: &mut Text,
    ) -> Result<(), Outcome> {
        for segment in segments {
            out.push('/');
            let start = out.len();
            put_escaped(segment, out);
            if is_dots(&out[start..]) {
                return Err(self.unfit());
            }
        }
        Ok(())
    }

    fn put_query(
        &self,
        target: &Target,
        parameters: &Parameters,
        out: &mut Text,
    ) -> Result<(), Outcome> {
        if let Some(query) = &target.query {
            self.put_template(query, out)?;
            if *parameters != Parameters::None && !out.is_empty() {
                out.push('&');
            }
        }
        self.put_parameters(parameters, out)
    }

    fn put_parameters(&self, parameters: &Parameters, out: &mut Text) -> Result<(), Outcome> {
        match parameters {
            Parameters::Each(pairs) => {
                let pairs = pairs.iter().filter(|(_, template)| !self.lacks(template));
                for (i, (name, template)) in pairs.enumerate() {
                    put_pair_start(i, name.as_bytes(), out);
                    for part in &template.parts {
                        match part {
                            Part::Literal(literal) => put_escaped(literal.as_bytes(), out),
                            Part::Placeholder(name) => put_escaped(&self.value(name)?, out),
                        }
                    }
                }
            }
            Parameters::All => {
                for (i, (name, value)) in self.request.values.iter().enumerate() {
                    put_pair_start(i, name, out);
                    put_escaped(value, out);
                }
            }
            Parameters::None => {}
        }
        Ok(())
    }

    /// Puts a part of a URL, whose literals are URL text already.
    fn put_template(&self, template: &Template, out: &mut Text) -> Result<(), Outcome> {
        for part in &template.parts {
            match part {
                Part::Literal(literal) => out.push_str(literal),
                Part::Placeholder(name) => put_escaped(&self.value(name)?, out),
            }
        }
        Ok(())
    }

    fn value(&self, placeholder: &Placeholder) -> Result<Cow<'_, [u8]>, Outcome> {
        // A key has been normalised, and so have its parts; other values are as they came.
        let value = match placeholder {
            Placeholder::Value(name) => self.request.value(name).unwrap_or_default(),
            Placeholder::Part(name, part) => {
                let value = self.request.value(name).unwrap_or_default();
                return Ok(part.of(value).unwrap_or_default());
            }
            Placeholder::Secret(name) => {
                let secret = self.request.secret(name);
                secret.map_or(&[][..], |secret| secret.expose().as_bytes())
            }
            Placeholder::Local => split_address(self.key).0.ok_or(Outcome::NotFound)?,
            Placeholder::Domain => split_address(self.key).1.ok_or(Outcome::NotFound)?,
            Placeholder::Name => {
                let asked = self.request.table.as_deref();
                asked.unwrap_or(self.table.name.as_bytes())
            }
        };
        Ok(Cow::Borrowed(value))
    }
}

/// Returns whether a segment would name another resource. URL parsers also take "%2e" for a dot
/// (WHATWG URL, section 4.4), and a template may hold it.
fn is_dots(segment: &str) -> bool {
    // "%2e%2e" is the longest way to write it.
    segment.len() <= 6
        && ["", ".", ".."].contains(&&*segment.to_ascii_lowercase().replace("%2e", "."))
}

fn put_pair_start(at: usize, name: &[u8], out: &mut Text) {
    if at > 0 {
        out.push('&');
    }
    put_escaped(name, out);
    out.push('=');
}

fn put_escaped(value: &[u8], out: &mut Text) {
    out.extend(percent_encode(value, ESCAPED));
}
