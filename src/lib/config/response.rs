//! How an answer is read: its format, the place of the value, and the meaning of a status.

use reqwest::header::{HeaderName, HeaderValue};
use toml::de::DeValue;

use super::file::{Entry, entries};
use super::login::LoginRules;
use super::reader::Reader;
use super::values;
use crate::outcome::is_blank;
use crate::protocol::Facts;
use crate::protocol::facts::Meaning;
use crate::protocol::policy::rules::{FallbackAction, PolicyActions};

/// How an answer is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseRules {
    /// The protocol, whose facts give the meaning of an empty value and a 404.
    pub protocol: &'static Facts,
    /// The format of the body.
    pub response: Response,
    /// The JSON Pointer to the value; if absent, the root or the protocol's default for an object.
    pub value: Option<String>,
    /// The meaning of a `value` that points nowhere.
    pub missing: Missing,
    /// The JSON Pointer to a member that flags an error.
    pub error: Option<String>,
    /// The values of that member that flag none.
    pub no_error: Vec<String>,
    /// The text between the elements of a list.
    pub list_separator: String,
    /// The value for a JSON `true`.
    pub true_value: String,
    /// The meanings of statuses that the operator has set.
    pub status: Statuses,
    /// The headers that an answer of the API has; without them it is not understood.
    pub require_header: Vec<(HeaderName, HeaderValue)>,
    /// How an answer about a login is read; absent where requests are no logins.
    pub login: Option<LoginRules>,
}

/// The format of the body of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// JSON.
    Json,
    /// One line of text.
    Text,
    /// JSON or text, by the content type.
    Auto,
}

impl Response {
    pub(super) const WORDS: [(&'static str, Self); 3] = [
        ("json", Self::Json),
        ("text", Self::Text),
        ("auto", Self::Auto),
    ];
}

/// The meaning of a `value` that points nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The answer is not understood.
    Temporary,
    /// There is no such key.
    NotFound,
}

impl Missing {
    pub(super) const WORDS: [(&'static str, Self); 2] = [
        ("temporary", Self::Temporary),
        ("not-found", Self::NotFound),
    ];
}

/// The meaning of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The body is the answer.
    Found,
    /// There is no such key.
    NotFound,
    /// What was asked for is done; no status of the operator's means it.
    Done,
    /// Ask again later.
    Temporary,
    /// An operator has to change a setting.
    Permanent,
}

impl Verdict {
    /// Returns the words of a protocol, which are the names of its outcomes. No login is refused for
    /// good by a status.
    pub(super) fn words(facts: &Facts) -> Vec<(&'static str, Self)> {
        let verdicts = [
            Self::Found,
            Self::Done,
            Self::NotFound,
            Self::Temporary,
            Self::Permanent,
        ];
        let words = facts.outcomes.into_iter().zip(verdicts);
        let is_word = |(_, verdict): &(_, Self)| match verdict {
            Self::Done => false,
            Self::Permanent => !facts.has_logins(),
            Self::Found | Self::NotFound | Self::Temporary => true,
        };
        words.filter(is_word).collect()
    }
}

/// The operator's `status`, which has priority over the built-in table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses {
    /// The meanings of single statuses, which have priority over classes.
    pub exact: Vec<(u16, Verdict)>,
    /// The meanings of classes, by the first digit.
    pub classes: Vec<(u16, Verdict)>,
}

impl Statuses {
    /// Returns the meaning that the operator has set for a status.
    pub fn verdict(&self, status: u16) -> Option<Verdict> {
        let find = |list: &[(u16, Verdict)], wanted: u16| {
            list.iter().find(|(s, _)| *s == wanted).map(|(_, v)| *v)
        };
        find(&self.exact, status).or_else(|| find(&self.classes, status / 100))
    }
}

pub(super) fn read(
    reader: &mut Reader<'_, '_>,
    actions: &PolicyActions,
    login: Option<LoginRules>,
) -> ResponseRules {
    let default = match reader.facts().object_value {
        None => Response::Json,
        Some(_) => Response::Auto,
    };
    let response = reader.word("response", &Response::WORDS).unwrap_or(default);
    ResponseRules {
        protocol: reader.facts(),
        response,
        value: pointer(reader, "value"),
        missing: missing(reader, response, actions),
        error: pointer(reader, "error"),
        no_error: reader
            .section
            .take("no-error")
            .and_then(|entry| values::strings(&entry, reader.report))
            .unwrap_or_default(),
        list_separator: text(reader, "list-separator", ",", |text| !text.contains('\0')),
        true_value: text(reader, "true-value", "1", |text| {
            !is_blank(text) && !text.contains(['\0', '\n'])
        }),
        status: status(reader, actions),
        require_header: require_header(reader),
        login,
    }
}

fn missing(reader: &mut Reader<'_, '_>, response: Response, actions: &PolicyActions) -> Missing {
    let below = reader.section.nearest(&["missing"]).map_or(0, |(b, _)| b);
    let Some(entry) = reader.section.take("missing") else {
        return Missing::Temporary;
    };
    let missing =
        values::word(&entry, &Missing::WORDS, reader.report).unwrap_or(Missing::Temporary);
    // A text always has a value, so that `missing` has no effect.
    let is_used = response != Response::Text;
    if missing == Missing::NotFound && below > 0 && is_used {
        warn_of_inherited(
            reader,
            &entry,
            "missing",
            "an answer without a value",
            actions,
        );
    }
    missing
}

/// Warns of an inherited "not-found": a lookup finds no such key then, but a policy lets mail pass.
fn warn_of_inherited(
    reader: &mut Reader<'_, '_>,
    entry: &Entry<'_>,
    key: &str,
    what: &str,
    actions: &PolicyActions,
) {
    // Where a 404 is "not found" anyway, as for a lookup, the operator expects just that.
    let facts = reader.facts();
    let is_lookup = facts.status_404 == Meaning::NotFound;
    if !facts.has_actions || is_lookup || reader.has_own_not_found {
        return;
    }
    let action = match &actions.on_not_found {
        FallbackAction::Action(action) => action,
        FallbackAction::Disconnect => "disconnect",
    };
    let path = format!("{}.{key}", reader.section.path);
    let text = format!(
        "is inherited from [http], where it is meant for lookups; here it turns {what} into \
         on-not-found ({action}); write its meaning in this table as well"
    );
    reader.report.warning(entry.value.span(), &path, text);
}

fn pointer(reader: &mut Reader<'_, '_>, name: &'static str) -> Option<String> {
    let entry = reader.section.take(name)?;
    values::pointer(&entry, reader.report)
}

fn text(
    reader: &mut Reader<'_, '_>,
    name: &'static str,
    default: &str,
    is_right: fn(&str) -> bool,
) -> String {
    let entry = reader.section.take(name);
    let text = entry
        .as_ref()
        .and_then(|e| values::string(e, reader.report));
    if let (Some(entry), Some(text)) = (&entry, text)
        && !is_right(text)
    {
        let text = "is empty or contains a character that cannot be sent";
        reader.error(entry.value.span(), &entry.path, text);
    }
    text.unwrap_or(default).to_owned()
}

fn status(reader: &mut Reader<'_, '_>, actions: &PolicyActions) -> Statuses {
    let mut statuses = Statuses::default();
    let Some(section) = reader.section.take_members("status", reader.report) else {
        return statuses;
    };
    for (below, entry) in section.rest() {
        let words = Verdict::words(reader.facts());
        let Some(verdict) = values::word(&entry, &words, reader.report) else {
            continue;
        };
        // A 204 is "not found" in every protocol.
        if verdict == Verdict::NotFound && below > 0 && entry.key != "204" {
            let key = format!("status.{}", entry.key);
            warn_of_inherited(reader, &entry, &key, "this status", actions);
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
                let text = "must be a status from 200 to 599, or a class such as \"4xx\"";
                reader.error(entry.key_span, &entry.path, text);
            }
        }
    }
    statuses
}

fn require_header(reader: &mut Reader<'_, '_>) -> Vec<(HeaderName, HeaderValue)> {
    let Some(entry) = reader.section.take("require-header") else {
        return Vec::new();
    };
    let members = match entry.value.get_ref() {
        DeValue::Table(table) if !table.is_empty() => entries(&entry.path, table),
        _ => {
            let text = "must be a table of headers and their values, or false";
            reader.error(entry.value.span(), &entry.path, text);
            return Vec::new();
        }
    };
    let mut required = Vec::new();
    for member in members {
        let Ok(name) = HeaderName::try_from(member.key) else {
            reader.error(member.key_span, &member.path, "is not a header name");
            continue;
        };
        let Some(text) = values::string(&member, reader.report) else {
            continue;
        };
        match HeaderValue::from_str(text) {
            Ok(value) if !text.is_empty() && text.trim() == text => {
                required.push((name, value));
            }
            _ => {
                let text = "is empty or contains a character that cannot be sent in a header";
                reader.error(member.value.span(), &member.path, text);
            }
        }
    }
    required
}
