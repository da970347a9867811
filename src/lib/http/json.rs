//! JSON as it is sent: members between brackets, and strings.

use super::text::Text;
use crate::outcome::{Failure, Outcome, Reason};

/// Puts members between brackets, separated by commas.
pub fn put_each<T>(
    brackets: (char, char),
    members: impl IntoIterator<Item = T>,
    out: &mut Text,
    put: impl Fn(T, &mut Text) -> Result<(), Outcome>,
) -> Result<(), Outcome> {
    out.push(brackets.0);
    for (i, member) in members.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        put(member, out)?;
    }
    out.push(brackets.1);
    Ok(())
}

/// Puts a string. Bytes that are not UTF-8 cannot be sent in JSON.
pub fn put_text(text: &[u8], out: &mut Text) -> Result<(), Outcome> {
    put_text_or(Reason::KeyCannotBeSent, text, out)
}

/// Puts a string, or fails for this reason.
pub fn put_text_or(reason: Reason, text: &[u8], out: &mut Text) -> Result<(), Outcome> {
    let unfit = || Outcome::Temporary(Failure::new(reason, "not UTF-8, for JSON"));
    let text = std::str::from_utf8(text).map_err(|_| unfit())?;
    // Most texts, for which serde_json would have to look at each byte as a piece of its own.
    if !text
        .bytes()
        .any(|byte| matches!(byte, ..b' ' | b'"' | b'\\'))
    {
        out.push('"');
        out.push_str(text);
        out.push('"');
        return Ok(());
    }
    // Into the text itself: a copy would have to be overwritten as well.
    serde_json::to_writer(out, text).map_err(|_| unfit())
}
