//! How a key is put into the form the backend knows.

use super::reader::Reader;
use super::values;

/// What is made of a key before it is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalise {
    /// Whether it is put into lower case.
    pub lowercase: bool,
    /// The characters at the first of which a local part is cut.
    pub delimiter: Option<String>,
    /// What a key has to match as a whole.
    pub pattern: Option<Pattern>,
}

/// A regular expression over a whole key.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As it is written.
    pub text: String,
    /// Ready to use, and tied to both ends.
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
    let delimiter = section.take("delimiter").and_then(|entry| {
        let text = values::string(&entry, reader.report)?;
        if text.is_empty() || !text.is_ascii() || text.contains('@') {
            let text = "must be one or more ASCII characters other than \"@\"";
            reader.report.error(entry.value.span(), &entry.path, text);
        }
        Some(text.to_owned())
    });
    let pattern = section.take("pattern").and_then(|entry| {
        let text = values::string(&entry, reader.report)?;
        // The whole key, whatever alternatives the pattern has. Alone as well, since "a)|(b" is
        // a pattern in brackets only.
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
