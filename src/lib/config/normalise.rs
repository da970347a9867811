//! How a key is normalised before it is looked up.

use super::reader::Reader;
use super::values;

/// How a key is normalised before it is looked up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalise {
    /// Whether it is put into lower case.
    pub lowercase: bool,
    /// The local part is cut at the first of these characters.
    pub delimiter: Option<String>,
    /// A key that this pattern does not match is not found.
    pub pattern: Option<Pattern>,
}

/// A regular expression over a whole key.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The pattern as it is written.
    pub text: String,
    /// The pattern compiled, anchored at both ends.
    pub regex: regex_lite::Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

pub(super) fn read(reader: &mut Reader<'_, '_>) -> Normalise {
    let Some(mut section) = reader.section.take_members("normalise", reader.report) else {
        return Normalise::default();
    };
    let lowercase = section
        .take_bool("lowercase")
        .and_then(|entry| values::boolean(&entry, reader.report))
        .unwrap_or(false);
    let delimiter = section
        .take("delimiter")
        .and_then(|entry| values::delimiter(&entry, reader.report));
    let pattern = section.take("pattern").and_then(|entry| {
        let text = values::string(&entry, reader.report)?;
        // The group makes the anchors hold for every alternative. The pattern is compiled alone as
        // well, because "a)|(b" is valid inside a group only.
        let regex = regex_lite::Regex::new(text)
            .and_then(|_| regex_lite::Regex::new(&format!("^(?:{text})$")));
        match regex {
            Ok(regex) => Some(Pattern {
                text: text.to_owned(),
                regex,
            }),
            Err(error) => {
                let text = format!("{text:?} is not a regular expression: {error}");
                reader.report.error(entry.value.span(), &entry.path, text);
                None
            }
        }
    });
    section.finish(reader.report);
    Normalise {
        lowercase,
        delimiter,
        pattern,
    }
}
