//! URLs with placeholders, split into parts so that no value can change their structure.

use std::fmt;

use reqwest::Url;
use toml::Spanned;
use toml::de::DeValue;

use super::reader::Reader;
use super::template::{Part, SECRET_IN_A_URL, Template, Vocabulary, Wanted};
use crate::protocol::facts::Expansion;

/// A URL with placeholders in its path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Scheme, host and port.
    pub origin: String,
    /// The same as a URL, with the path if that is constant: no call has to parse it again.
    pub base: Url,
    /// The path.
    pub segments: Vec<Segment>,
    /// The query.
    pub query: Option<Template>,
}

/// A part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// One segment.
    Text(Template),
    /// A placeholder for whole segments, under its name.
    Expansion(&'static str, Expansion),
}

impl Segment {
    /// Returns whether it depends on the request.
    pub fn has_placeholder(&self) -> bool {
        match self {
            Self::Text(template) => template.has_placeholder(),
            Self::Expansion(..) => true,
        }
    }

    fn text(&self) -> Option<&Template> {
        match self {
            Self::Text(template) => Some(template),
            Self::Expansion(..) => None,
        }
    }

    fn carries(&self, wanted: Wanted<'_>) -> bool {
        match self {
            Self::Text(template) => template.carries(wanted),
            Self::Expansion(_, Expansion::Segments(name) | Expansion::Needed(name)) => {
                *name == wanted.value
            }
        }
    }
}

/// What is wrong with a target.
pub struct Fault {
    /// The message.
    pub text: String,
    /// Whether the target may hold a password.
    pub is_secret: bool,
}

impl Target {
    /// Reads a URL with placeholders.
    pub fn parse(text: &str, vocabulary: Vocabulary<'_>) -> Result<Self, Fault> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = match authority.strip_suffix('{') {
            Some(authority) if vocabulary.has_expansions() => authority,
            _ => authority,
        };
        // A password can contain any character, so that an "@" anywhere may end one.
        let is_secret = text.contains('@');
        let fault = |text: String| Fault { text, is_secret };
        let shown = if is_secret {
            "(hidden)".to_owned()
        } else {
            text.escape_debug().to_string()
        };
        if let Some(flaw) = flaw(text, scheme, authority, &shown) {
            return Err(fault(flaw));
        }
        let unsound = |what: &str| fault(format!("\"{shown}\" {what}"));
        let origin = format!("{scheme}://{authority}");
        let mut base =
            Url::parse(&origin).map_err(|error| unsound(&format!("is not a URL: {error}")))?;
        if base.host_str().is_none_or(str::is_empty) {
            return Err(unsound("has no host"));
        }
        let rest = &rest[authority.len()..];
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let read = |piece: &str| {
            template(piece, vocabulary)
                .map_err(|text| fault(if is_secret { UNSHOWN.to_owned() } else { text }))
        };
        let mut segments = Vec::new();
        for piece in pieces(path, vocabulary).map_err(fault)? {
            match piece {
                Piece::Expansion(name, expansion) => {
                    segments.push(Segment::Expansion(name, expansion));
                }
                Piece::Text(text) => {
                    for segment in text.strip_prefix('/').unwrap_or(text).split('/') {
                        segments.push(Segment::Text(read(segment)?));
                    }
                }
            }
        }
        if let Some(segment) = segments.iter().find_map(dots) {
            return Err(unsound(&format!(
                "has the path segment \"{segment}\", which is never sent; remove it"
            )));
        }
        let query = query.map(read).transpose()?;
        let texts = segments.iter().filter_map(Segment::text).chain(&query);
        if texts.into_iter().any(Template::has_secret) {
            return Err(fault(SECRET_IN_A_URL.to_owned()));
        }
        if !segments.iter().any(Segment::has_placeholder) {
            let literal = |segment: &Segment| match segment {
                Segment::Text(template) => template.literal(),
                Segment::Expansion(..) => String::new(),
            };
            let path: Vec<_> = segments.iter().map(literal).collect();
            base.set_path(&format!("/{}", path.join("/")));
        }
        Ok(Self {
            origin,
            base,
            segments,
            query,
        })
    }

    /// Returns whether the URL has a placeholder.
    pub fn has_placeholder(&self) -> bool {
        self.segments.iter().any(Segment::has_placeholder)
            || self.query.as_ref().is_some_and(Template::has_placeholder)
    }

    /// Returns whether the URL has a value of the request.
    pub(super) fn carries(&self, wanted: Wanted<'_>) -> bool {
        let in_query = self
            .query
            .as_ref()
            .is_some_and(|query| query.carries(wanted));
        in_query || self.segments.iter().any(|segment| segment.carries(wanted))
    }

    /// Returns whether the URL differs between requests of one table.
    pub(super) fn varies(&self) -> bool {
        let varies = |segment: &Segment| match segment {
            Segment::Text(template) => template.varies(),
            Segment::Expansion(..) => true,
        };
        self.segments.iter().any(varies) || self.query.as_ref().is_some_and(Template::varies)
    }

    /// Returns whether the scheme is https.
    pub fn is_https(&self) -> bool {
        self.origin.to_ascii_lowercase().starts_with("https:")
    }
}

/// Returns the message for a URL that is wrong whatever its path and query are.
fn flaw(text: &str, scheme: &str, authority: &str, shown: &str) -> Option<String> {
    let is_http = ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str());
    let is_odd = |c: char| c == '\\' || c.is_whitespace() || c.is_control();
    if authority.contains('@') {
        Some("contains a user name or a password; use basic-auth or auth-token".to_owned())
    } else if !is_http {
        Some(format!("\"{shown}\" is neither http nor https"))
    } else if authority.contains(['{', '}']) {
        let text = "has a placeholder in its host; only the path and the query can have one";
        Some(text.to_owned())
    } else if text.contains('#') {
        Some(format!(
            "\"{shown}\" has a fragment, which is never sent; remove it"
        ))
    } else if text.contains(is_odd) {
        let what = "contains a blank, a backslash or a control character";
        Some(format!("\"{shown}\" {what}"))
    } else {
        None
    }
}

/// The message for a template that cannot be read and may contain a password.
const UNSHOWN: &str =
    "has a placeholder that is unknown or not closed, or a \"%\" without two digits";

/// Reads a part of a URL, whose literals are escaped already.
fn template(text: &str, vocabulary: Vocabulary<'_>) -> Result<Template, String> {
    let template = Template::parse(text, vocabulary)?;
    for part in &template.parts {
        if let Part::Literal(literal) = part
            && !has_whole_escapes(literal)
        {
            return Err(format!("has a \"%\" without two digits in \"{literal}\""));
        }
    }
    Ok(template)
}

/// Returns whether every `%` is followed by two hexadecimal digits.
fn has_whole_escapes(literal: &str) -> bool {
    literal.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit))
    })
}

/// A piece of a path: segments with their slashes, or a placeholder for some.
enum Piece<'p> {
    Text(&'p str),
    Expansion(&'static str, Expansion),
}

/// Cuts a path at the placeholders that stand for whole segments.
fn pieces<'p>(path: &'p str, vocabulary: Vocabulary<'_>) -> Result<Vec<Piece<'p>>, String> {
    let mut pieces = Vec::new();
    let mut rest = path;
    while let Some(at) = next_expansion(rest, vocabulary) {
        let (text, from) = rest.split_at(at);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        let (name, after) = from[1..]
            .split_once('}')
            .ok_or("has a \"{\" that is not closed; write \"{{\" for a brace")?;
        let (name, expansion) = vocabulary.expansion(name)?;
        if !after.is_empty() && !after.starts_with("{/") && !after.starts_with('/') {
            return Err(format!(
                "\"{{{name}}}\" stands for whole segments; write \"/\" behind it"
            ));
        }
        pieces.push(Piece::Expansion(name, expansion));
        rest = after;
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// Returns where the next placeholder for whole segments begins.
fn next_expansion(path: &str, vocabulary: Vocabulary<'_>) -> Option<usize> {
    // "{{/" is a brace and a slash.
    let is_start = |(at, _): &(usize, &str)| !path[..*at].ends_with('{');
    let (at, _) = path.match_indices("{/").find(is_start)?;
    vocabulary.has_expansions().then_some(at)
}

/// Returns a segment that is `.` or `..`, for which URL parsers remove parts of the path.
fn dots(segment: &Segment) -> Option<&str> {
    let Segment::Text(template) = segment else {
        return None;
    };
    let [Part::Literal(literal)] = template.parts.as_slice() else {
        return None;
    };
    let plain = literal.to_ascii_lowercase().replace("%2e", ".");
    (plain == "." || plain == "..").then_some(literal)
}

pub(super) fn read(reader: &mut Reader<'_, '_>) -> Vec<Target> {
    if reader.is_default() {
        return Vec::new();
    }
    let entry = reader.section.take("target");
    if !reader.makes_calls() {
        return Vec::new();
    }
    let Some(entry) = entry else {
        let (place, path) = reader.place();
        reader.error(place, &path, "must have the key target");
        return Vec::new();
    };
    match entry.value.get_ref() {
        DeValue::Array(array) if !array.is_empty() => {
            let targets = array
                .iter()
                .filter_map(|value| target(reader, value, &entry.path));
            let targets: Vec<_> = targets.collect();
            // With a part of the list only, another target would be the first.
            if targets.len() < array.len() {
                Vec::new()
            } else {
                targets
            }
        }
        _ => target(reader, entry.value, &entry.path)
            .into_iter()
            .collect(),
    }
}

fn target(reader: &mut Reader<'_, '_>, value: &Spanned<DeValue<'_>>, path: &str) -> Option<Target> {
    let DeValue::String(text) = value.get_ref() else {
        reader.error(value.span(), path, "must be a URL, or a list of URLs");
        return None;
    };
    match Target::parse(text, reader.vocabulary()) {
        Ok(target) => {
            reader.report.layout().harmless.push(value.span());
            Some(target)
        }
        Err(fault) => {
            if !fault.is_secret {
                reader.report.layout().harmless.push(value.span());
            }
            reader.error(value.span(), path, fault.text);
            None
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        for segment in &self.segments {
            match segment {
                Segment::Text(template) => write!(f, "/{template}")?,
                Segment::Expansion(name, _) => write!(f, "{{{name}}}")?,
            }
        }
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}
