//! The problems of a configuration, each with its place and a caret under it.

use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::keys::{FILE, key_names};

/// Whether a program can run in spite of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It can.
    Warning,
    /// It cannot.
    Error,
}

/// A problem, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the program can run in spite of it.
    pub severity: Severity,
    /// Its place, the key and the message, in one line.
    pub line: String,
    /// The line of the file, with a caret under the place; empty for a problem without a place.
    pub quote: String,
}

/// The problems of one configuration.
#[derive(Debug)]
pub struct Report {
    file: PathBuf,
    found: Vec<Found>,
    rejected: usize,
    layout: Layout,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct Found {
    severity: Severity,
    span: Option<Range<usize>>,
    path: String,
    text: String,
    is_syntax: bool,
}

/// The places of keys and values in the file, so that a quoted line shows no secret.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) keys: Vec<Range<usize>>,
    pub(super) values: Vec<Range<usize>>,
    pub(super) harmless: Vec<Range<usize>>,
}

impl Report {
    /// Makes an empty report of a file.
    pub fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            found: Vec::new(),
            rejected: 0,
            layout: Layout::default(),
            problems: Vec::new(),
        }
    }

    /// Returns every problem, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Returns the number of errors.
    pub fn errors(&self) -> usize {
        self.problems
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .count()
    }

    /// Returns whether any problem is an error.
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// Adds a problem that has no place in the file.
    pub fn add(&mut self, severity: Severity, text: &str) {
        self.problems.push(Problem {
            severity,
            line: format!("{}: {}{text}", self.file.display(), label(severity)),
            quote: String::new(),
        });
    }

    pub(super) fn unreadable(&mut self, error: &io::Error) {
        let cause = match error.kind() {
            io::ErrorKind::NotFound => "no such file".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            io::ErrorKind::InvalidData => "not UTF-8".to_owned(),
            _ => error.to_string(),
        };
        self.add(Severity::Error, &format!("cannot be read: {cause}"));
    }

    /// Returns how many values have been rejected so far. An inherited value counts in every table
    /// that inherits it; a warning does not count.
    pub(super) fn rejected(&self) -> usize {
        self.rejected
    }

    pub(super) fn layout(&mut self) -> &mut Layout {
        &mut self.layout
    }

    pub(super) fn error(&mut self, span: Range<usize>, path: &str, text: impl Into<String>) {
        self.rejected += 1;
        self.note(Severity::Error, span, path, text.into());
    }

    pub(super) fn warning(&mut self, span: Range<usize>, path: &str, text: impl Into<String>) {
        self.note(Severity::Warning, span, path, text.into());
    }

    pub(super) fn syntax(&mut self, span: Option<Range<usize>>, text: &str) {
        self.found.push(Found {
            severity: Severity::Error,
            span,
            path: String::new(),
            text: text.to_owned(),
            is_syntax: true,
        });
    }

    /// Notes a problem. A value that several tables inherit is reported once.
    fn note(&mut self, severity: Severity, span: Range<usize>, path: &str, text: String) {
        let is_known = |f: &Found| f.span.as_ref() == Some(&span) && f.path == path;
        if !self.found.iter().any(is_known) {
            self.found.push(Found {
                severity,
                span: Some(span),
                path: path.to_owned(),
                text,
                is_syntax: false,
            });
        }
    }

    /// Turns the problems into lines. Only at the end is it known which values may be shown.
    pub(super) fn render(&mut self, source: &str) {
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|f| f.span.as_ref().map(|span| span.start));
        for found in &found {
            let mut line = self.file.display().to_string();
            let mut quote = String::new();
            if let Some(span) = &found.span {
                let place = Place::of(source, span);
                let _ = write!(line, ":{}:{}", place.line, place.column);
                quote = if found.is_syntax {
                    place.quote_syntax()
                } else {
                    place.quote(&self.layout)
                };
            }
            let _ = write!(line, ": {}", label(found.severity));
            if !found.path.is_empty() {
                let _ = write!(line, "{}: ", found.path);
            }
            line.push_str(&found.text);
            self.problems.push(Problem {
                severity: found.severity,
                line,
                quote,
            });
        }
    }
}

fn label(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning: ",
        Severity::Error => "",
    }
}

/// A place in the file, line and column counted from 1.
struct Place<'s> {
    line: usize,
    column: usize,
    /// The line's first byte, and its text.
    start: usize,
    text: &'s str,
    span: Range<usize>,
}

/// The text in place of a hidden value.
const HIDDEN: &str = "***";

impl<'s> Place<'s> {
    fn of(source: &'s str, span: &Range<usize>) -> Self {
        let mut at = span.start.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        let before = &source[..at];
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        let text = source[start..].lines().next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: source[start..at].chars().count() + 1,
            start,
            text,
            span: at..span.end.max(at),
        }
    }

    /// Shows keys, punctuation and the values that are known to be harmless, but no comment.
    fn quote(&self, layout: &Layout) -> String {
        let mut shown = Shown::default();
        let mut at = self.start;
        let end = self.start + self.text.len();
        while at < end {
            let covering = |list: &[Range<usize>]| list.iter().find(|r| r.contains(&at)).cloned();
            let (piece, next) = if let Some(key) = covering(&layout.keys) {
                let stop = key.end.min(end);
                (&self.text[at - self.start..stop - self.start], stop)
            } else if let Some(value) = covering(&layout.values) {
                let stop = value.end.min(end);
                let is_harmless = layout.harmless.contains(&value);
                let piece = &self.text[at - self.start..stop - self.start];
                (if is_harmless { piece } else { HIDDEN }, stop)
            } else {
                let rest = &self.text[at - self.start..];
                let c = rest.chars().next().unwrap_or(' ');
                if c == '#' {
                    break;
                }
                (&rest[..c.len_utf8()], at + c.len_utf8())
            };
            shown.push(piece, at..next, &self.span);
            at = next;
        }
        shown.render(self.line)
    }

    /// Shows a known key or the name of a known table. In a file that cannot be parsed, the rest of
    /// the line may be part of a secret.
    fn quote_syntax(&self) -> String {
        let seen = match self.text.split_once('=') {
            Some((key, _)) if is_key(key) => key.len() + 1,
            Some(_) => 0,
            None => header_length(self.text),
        };
        let mut shown = Shown::default();
        for (i, c) in self.text[..seen].char_indices() {
            let at = self.start + i;
            shown.push(&self.text[i..i + c.len_utf8()], at..at + 1, &self.span);
        }
        let hidden = &self.text[seen..];
        if !hidden.trim().is_empty() {
            let piece = if seen == 0 {
                HIDDEN.to_owned()
            } else {
                format!(" {HIDDEN}")
            };
            let range = self.start + seen..self.start + self.text.len();
            shown.push(&piece, range, &self.span);
        }
        shown.render(self.line)
    }
}

/// Returns whether all of these words are keys. Any other word may be part of a secret: base64 ends
/// in `=`.
fn is_key(text: &str) -> bool {
    let names = key_names();
    let mut words = text.split('.').map(str::trim);
    words.all(|word| names.contains(word))
}

/// Returns how many bytes of a line are the header of a known table.
fn header_length(line: &str) -> usize {
    let indent = line.len() - line.trim_start().len();
    let inside = line[indent..].trim_start_matches('[');
    let brackets = line.len() - indent - inside.len();
    if brackets == 0 {
        return 0;
    }
    let is_other = |c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c);
    let (name, after) = inside.split_at(inside.find(is_other).unwrap_or(inside.len()));
    let table = name.split('.').next().unwrap_or_default();
    if FILE.iter().any(|key| key.name == table) {
        let closing = after.len() - after.trim_start_matches(']').len();
        indent + brackets + name.len() + closing
    } else {
        0
    }
}

/// A quoted line as it grows, and the columns of the caret.
#[derive(Default)]
struct Shown {
    text: String,
    caret: Option<Range<usize>>,
}

impl Shown {
    fn push(&mut self, piece: &str, bytes: Range<usize>, marked: &Range<usize>) {
        let from = self.text.chars().count();
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        self.text.extend(piece.chars().map(printable));
        let to = self.text.chars().count();
        if !(bytes.start < marked.end && marked.start < bytes.end) {
            return;
        }
        // Of a piece that is shown as it is, only a part may be marked: a value in a list.
        let (start, end) = if piece.len() == bytes.len() && marked.start > bytes.start {
            (from + marked.start - bytes.start, to)
        } else {
            (from, to)
        };
        let caret = self.caret.get_or_insert(start..end);
        caret.end = caret.end.max(end);
    }

    fn render(self, line: usize) -> String {
        let text = self.text.trim_end();
        let width = text.chars().count();
        let caret = self.caret.unwrap_or(width..width + 1);
        let length = caret.end.min(width.max(caret.start + 1)) - caret.start;
        format!(
            "{line:>8} | {text}\n{:>8} | {}^{}",
            "",
            " ".repeat(caret.start),
            "~".repeat(length.saturating_sub(1)),
        )
    }
}
