//! What every reader of keys needs: the table, its protocol, and the report.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::file::Section;
use super::problem::Report;
use super::secret::SecretPolicy;
use super::template::{Template, Vocabulary};
use super::values;
use crate::protocol::{self, Facts};

/// The keys of one table as they are read.
pub(super) struct Reader<'r, 't> {
    /// The protocol of the table; for `[http]` all protocols.
    protocols: &'r [&'static Facts],
    /// Whether the table itself, and not `[http]`, has `on-not-found`.
    pub(super) has_own_not_found: bool,
    pub(super) extra_attributes: Vec<String>,
    pub(super) secret_policy: SecretPolicy,
    pub(super) section: Section<'t>,
    pub(super) report: &'r mut Report,
}

type Place = Range<usize>;

impl<'r, 't> Reader<'r, 't> {
    /// Makes a reader of a table that is for these protocols.
    pub(super) fn new(
        section: Section<'t>,
        protocols: &'r [&'static Facts],
        secret_policy: SecretPolicy,
        report: &'r mut Report,
    ) -> Self {
        Self {
            protocols,
            has_own_not_found: false,
            extra_attributes: Vec::new(),
            secret_policy,
            section,
            report,
        }
    }

    /// Returns whether this is `[http]`.
    pub(super) fn is_default(&self) -> bool {
        self.protocols.len() > 1
    }

    /// Returns the protocol whose defaults are used. For `[http]`, which is only checked, this can
    /// be any protocol.
    pub(super) fn facts(&self) -> &'static Facts {
        self.protocols.first().copied().unwrap_or(protocol::ALL[0])
    }

    /// Returns whether any of the protocols has a property.
    pub(super) fn any(&self, has: impl Fn(&Facts) -> bool) -> bool {
        self.protocols.iter().any(|facts| has(facts))
    }

    pub(super) fn error(&mut self, span: Place, path: &str, text: impl Into<String>) {
        self.report.error(span, path, text);
    }

    /// Returns the place and the path of the table, to report what is missing.
    pub(super) fn place(&self) -> (Place, String) {
        (self.section.span.clone(), self.section.path.clone())
    }

    pub(super) fn parse_template(&self, text: &str) -> Result<Template, String> {
        Template::parse(text, self.vocabulary())
    }

    /// Reads a template, the constants of which may be secrets.
    pub(super) fn template(&mut self, text: &str, span: Place, path: &str) -> Option<Template> {
        let Ok(template) = self.parse_template(text) else {
            let fault = self.vocabulary().fault();
            self.error(span, path, fault);
            return None;
        };
        if template.is_harmless() {
            self.report.layout().harmless.push(span);
        }
        Some(template)
    }

    pub(super) fn vocabulary(&self) -> Vocabulary<'_> {
        Vocabulary {
            protocols: self.protocols,
            extra: &self.extra_attributes,
        }
    }

    pub(super) fn duration(&mut self, name: &'static str, default: Duration) -> Duration {
        self.section
            .take(name)
            .and_then(|entry| values::duration(&entry, self.report))
            .unwrap_or(default)
    }

    pub(super) fn size(&mut self, name: &'static str, default: usize) -> usize {
        self.section
            .take(name)
            .and_then(|entry| values::size(&entry, self.report))
            .unwrap_or(default)
    }

    pub(super) fn count(
        &mut self,
        name: &'static str,
        bounds: RangeInclusive<usize>,
        default: usize,
    ) -> usize {
        self.section
            .take(name)
            .and_then(|entry| values::count(&entry, bounds, self.report))
            .unwrap_or(default)
    }

    pub(super) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let entry = self.section.take(name)?;
        values::word(&entry, words, self.report)
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> bool {
        self.section
            .take_bool(name)
            .and_then(|entry| values::boolean(&entry, self.report))
            .unwrap_or(false)
    }
}
