//! The actions of a policy table: those for failures, and those that its backend may answer.

use super::reader::Reader;
use super::values;
use crate::protocol::policy::action;
use crate::protocol::policy::rules::{FallbackAction, PolicyActions};

pub(super) fn read(reader: &mut Reader<'_, '_>) -> PolicyActions {
    let default = PolicyActions::default();
    let not_found = reader.section.nearest(&["on-not-found"]);
    reader.has_own_not_found = not_found.is_some_and(|(below, _)| below == 0);
    let restriction_classes = restriction_classes(reader);
    let permit_actions = reader.boolean("permit-actions");
    let mut on = |name, default| action(reader, name, &restriction_classes).unwrap_or(default);
    PolicyActions {
        on_not_found: on("on-not-found", default.on_not_found),
        on_temporary: on("on-temporary", default.on_temporary),
        on_permanent: on("on-permanent", default.on_permanent),
        permit_actions,
        restriction_classes,
    }
}

fn restriction_classes(reader: &mut Reader<'_, '_>) -> Vec<String> {
    let Some(entry) = reader.section.take("restriction-classes") else {
        return Vec::new();
    };
    let classes = values::strings(&entry, reader.report).unwrap_or_default();
    let is_name = |name: &String| {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        !name.is_empty() && name.bytes().all(is_word) && !action::is_restriction(name)
    };
    if let Some(bad) = classes.iter().find(|class| !is_name(class)) {
        let text = format!(
            "{bad:?} cannot be the name of a restriction class; use letters, digits, \"-\" and \
             \"_\", and no restriction of Postfix's own"
        );
        reader.error(entry.value.span(), &entry.path, text);
    }
    classes
}

fn action(
    reader: &mut Reader<'_, '_>,
    name: &'static str,
    classes: &[String],
) -> Option<FallbackAction> {
    let entry = reader.section.take(name)?;
    let text = values::string(&entry, reader.report)?;
    if text == "disconnect" {
        return Some(FallbackAction::Disconnect);
    }
    match action::parse(text, true, classes) {
        Ok(action) => Some(FallbackAction::Action(action.to_owned())),
        Err(fault) => {
            let text = format!("{text:?} is {}", fault.text());
            reader.error(entry.value.span(), &entry.path, text);
            None
        }
    }
}
