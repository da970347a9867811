//! A whole transaction as JSON.
//!
//! ```text
//! { "user": "joe", "dict": "quota", "expires": 0, "operations": [
//!     { "op": "set", "key": "priv/quota/storage", "value": "476" },
//!     { "op": "unset", "key": "shared/x" },
//!     { "op": "increment", "key": "shared/n", "by": -18 } ] }
//! ```

use super::json::{put_each, put_text, put_text_or};
use super::text::Text;
use crate::outcome::{Outcome, Reason};
use crate::request::{Change, Kind, Operation, Request};

/// Puts the transaction of a request.
pub fn put_transaction(request: &Request, out: &mut Text) -> Result<(), Outcome> {
    let Kind::Write(write) = &request.kind else {
        return Err(Outcome::Permanent(Reason::RequestNotUnderstood.into()));
    };
    out.push('{');
    for (name, value) in &request.values {
        put_text(name, out)?;
        out.push(':');
        put_text(value, out)?;
        out.push(',');
    }
    out.push_str("\"operations\":");
    put_each(('[', ']'), &write.operations, out, put_operation)?;
    out.push_str(&format!(",\"expires\":{}}}", write.expires));
    Ok(())
}

fn put_operation(operation: &Operation, out: &mut Text) -> Result<(), Outcome> {
    let value = operation.request.value("value").unwrap_or_default();
    out.push_str("{\"op\":\"");
    out.push_str(operation.change.name());
    out.push_str("\",\"key\":");
    put_text(&operation.key, out)?;
    match operation.change {
        Change::Set => {
            out.push_str(",\"value\":");
            put_text_or(Reason::ValueCannotBeSent, value, out)?;
        }
        Change::Unset => {}
        Change::Increment => {
            // As JSON writes a number: without leading zeros.
            let by = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok());
            let by = by.ok_or_else(|| Outcome::Permanent(Reason::ValueCannotBeSent.into()))?;
            out.push_str(&format!(",\"by\":{by}"));
        }
    }
    out.push('}');
    Ok(())
}
