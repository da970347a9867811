//! How a key is put into the form the backend knows.

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
