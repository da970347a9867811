//! How an answer is read: its form, where the value stands, and what a status means.

use reqwest::header::{HeaderName, HeaderValue};
use toml::de::DeValue;

use super::endpoint::Reader;
use super::file::{Entry, entries};
use super::{Missing, Response, ResponseRules, Statuses, Verdict, values};
use crate::outcome::is_blank;
use crate::reply::{FallbackAction, PolicyActions};

impl Reader<'_, '_> {
    pub(super) fn reading(&mut self, words: &PolicyActions) -> ResponseRules {
        const RESPONSES: [(&str, Response); 3] = [
            ("json", Response::Json),
            ("text", Response::Text),
            ("auto", Response::Auto),
        ];
        let default = match self.facts().object_value {
            None => Response::Json,
            Some(_) => Response::Auto,
        };
        let response = self.word("response", &RESPONSES).unwrap_or(default);
        ResponseRules {
            protocol: self.facts(),
            response,
            value: self.pointer("value"),
            missing: self.missing(response, words),
            error: self.pointer("error"),
            no_error: self
                .section
                .take("no-error")
                .and_then(|entry| values::strings(&entry, self.report))
                .unwrap_or_default(),
            list_separator: self.text("list-separator", ",", |text| !text.contains('\0')),
            true_value: self.text("true-value", "1", |text| {
                !is_blank(text) && !text.contains(['\0', '\n'])
            }),
            status: self.status(words),
            require_header: self.require_header(),
        }
    }

    fn missing(&mut self, response: Response, words: &PolicyActions) -> Missing {
        const MISSING: [(&str, Missing); 2] = [
            ("temporary", Missing::Temporary),
            ("not-found", Missing::NotFound),
        ];
        let below = self.section.nearest(&["missing"]).map_or(0, |(b, _)| b);
        let Some(entry) = self.section.take("missing") else {
            return Missing::Temporary;
        };
        let missing = values::word(&entry, &MISSING, self.report).unwrap_or(Missing::Temporary);
        // A text always has a value.
        let is_used = response != Response::Text;
        if missing == Missing::NotFound && below > 0 && is_used {
            self.suits_lookups(&entry, "missing", "an answer without a value", words);
        }
        missing
    }

    /// Warns of an inherited "not-found", which keeps a lookup quiet and lets a policy's mail pass.
    fn suits_lookups(&mut self, entry: &Entry<'_>, key: &str, what: &str, words: &PolicyActions) {
        if !self.facts().has_actions || self.says_not_found {
            return;
        }
        let said = match &words.on_not_found {
            FallbackAction::Action(action) => action,
            FallbackAction::Disconnect => "disconnect",
        };
        let path = format!("{}.{key}", self.section.path);
        let text = format!(
            "comes from [http], where it suits lookups; here it turns {what} into on-not-found \
             ({said}): write in this table what it is to mean"
        );
        self.report.warning(entry.value.span(), &path, text);
    }

    fn pointer(&mut self, name: &'static str) -> Option<String> {
        let entry = self.section.take(name)?;
        values::pointer(&entry, self.report)
    }

    fn text(&mut self, name: &'static str, default: &str, is_right: fn(&str) -> bool) -> String {
        let entry = self.section.take(name);
        let text = entry.as_ref().and_then(|e| values::string(e, self.report));
        if let (Some(entry), Some(text)) = (&entry, text)
            && !is_right(text)
        {
            let text = "is empty or holds a character that cannot be sent";
            self.error(entry.value.span(), &entry.path, text);
        }
        text.unwrap_or(default).to_owned()
    }

    fn status(&mut self, words: &PolicyActions) -> Statuses {
        const VERDICTS: [(&str, Verdict); 4] = [
            ("found", Verdict::Found),
            ("not-found", Verdict::NotFound),
            ("temporary", Verdict::Temporary),
            ("permanent", Verdict::Permanent),
        ];
        let mut statuses = Statuses::default();
        let Some(section) = self.section.take_members("status", self.report) else {
            return statuses;
        };
        for (below, entry) in section.rest() {
            let Some(verdict) = values::word(&entry, &VERDICTS, self.report) else {
                continue;
            };
            // 204 means that everywhere.
            if verdict == Verdict::NotFound && below > 0 && entry.key != "204" {
                let key = format!("status.{}", entry.key);
                self.suits_lookups(&entry, &key, "this status", words);
            }
            let class = entry
                .key
                .strip_suffix("xx")
                .filter(|digit| digit.len() == 1)
                .and_then(|digit| digit.parse().ok());
            let exact = entry.key.parse().ok().filter(|_| entry.key.len() == 3);
            match (exact, class) {
                (Some(status @ 200..=599), _) => statuses.exact.push((status, verdict)),
                (_, Some(class @ 2..=5)) => statuses.classes.push((class, verdict)),
                _ => {
                    let text = "is no status from 200 to 599 and no class such as \"4xx\"";
                    self.error(entry.key_span, &entry.path, text);
                }
            }
        }
        statuses
    }

    fn require_header(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        let Some(entry) = self.section.take("require-header") else {
            return Vec::new();
        };
        let members = match entry.value.get_ref() {
            DeValue::Table(table) if !table.is_empty() => entries(&entry.path, table),
            _ => {
                let text = "must be a table of headers and their values, or false";
                self.error(entry.value.span(), &entry.path, text);
                return Vec::new();
            }
        };
        let mut required = Vec::new();
        for member in members {
            let Ok(name) = HeaderName::try_from(member.key) else {
                self.error(member.key_span, &member.path, "is no name of a header");
                continue;
            };
            let Some(text) = values::string(&member, self.report) else {
                continue;
            };
            match HeaderValue::from_str(text) {
                Ok(value) if !text.is_empty() && text.trim() == text => {
                    required.push((name, value));
                }
                _ => {
                    let text = "is empty or holds a character that no header can hold";
                    self.error(member.value.span(), &member.path, text);
                }
            }
        }
        required
    }
}
