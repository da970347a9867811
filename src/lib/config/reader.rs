//! What every reader of keys needs: the table, its protocol, and the report.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use toml::de::DeValue;

use super::file::{Entry, Section};
use super::keys::Kind;
use super::problem::Report;
use super::secret::SecretPolicy;
use super::template::{Template, Vocabulary};
use super::values;
use crate::protocol::facts::Counting;
use crate::protocol::{self, Facts};

/// The keys of one table as they are read.
pub(super) struct Reader<'r, 't> {
    /// The facts of the table's calls; for `[http]` those of all protocols.
    protocols: &'r [&'static Facts],
    /// The facts of the requests from the mail server. The calls of a table that counts have others.
    pub(super) requests: &'r [&'static Facts],
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
            requests: protocols,
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

    /// Returns how requests are counted, if the table has limits.
    pub(super) fn counting(&self) -> Option<&'static Counting> {
        let nearest = self.section.nearest(&["limits"]);
        let has_limits = !self.is_default() && nearest.is_some_and(|(below, _)| below == 0);
        let counting = self.requests.first()?.counting;
        counting.filter(|_| has_limits)
    }

    /// Makes this a table whose calls have other facts than its requests.
    pub(super) fn ask_as(&mut self, call: &'static [&'static Facts]) {
        self.protocols = call;
        self.section.turn_into(Kind::Asking(self.facts()));
    }

    /// Makes this a table that makes no calls.
    pub(super) fn make_no_calls(&mut self) {
        self.section.turn_into(Kind::Counting(self.facts()));
    }

    pub(super) fn makes_calls(&self) -> bool {
        !matches!(self.section.kind(), Kind::Counting(_))
    }

    /// Returns the facts whose defaults are used. For `[http]`, which is only checked, this can
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

    /// Reports a placeholder in the value of a header that is sent as it is written.
    pub(super) fn report_placeholder(&mut self, entry: &Entry<'_>, header: &str) {
        let DeValue::String(text) = entry.value.get_ref() else {
            return;
        };
        // The defaults in `[http]` are read again for each table.
        let template = self.parse_template(text);
        if self.is_default() || !template.is_ok_and(|template| template.has_placeholder()) {
            return;
        }
        let basic = match header == AUTHORIZATION.as_str() && self.facts().has_logins() {
            true => ", or write basic-auth",
            false => "",
        };
        let text = format!(
            "has a placeholder, and would be sent as it is written; write it in headers, as \
             {header}{basic}"
        );
        self.error(entry.value.span(), &entry.path, text);
    }

    pub(super) fn vocabulary(&self) -> Vocabulary<'_> {
        let extra: &[_] = if self.any(|facts| facts.is_open) {
            &self.extra_attributes
        } else {
            &[]
        };
        Vocabulary {
            protocols: self.protocols,
            extra,
            words: &[],
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
