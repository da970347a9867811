//! What `--query --verbose` shows of limits.

use std::sync::Arc;

use crate::config::{Limit, wait_text, window_text};
use crate::limits::{Decision, Part};
use crate::observe::verbose;

/// Says why a limit does not count a request.
pub(super) fn uncounted(limit: &Limit, why: &str) {
    verbose::means(|| format!("limit {:?}: not counted: {why}", limit.name));
}

/// Returns the limit and the account of each part, if they are shown.
pub(super) fn accounts(parts: &[Part]) -> Vec<(Arc<str>, String)> {
    if !verbose::is_on() {
        return Vec::new();
    }
    let parts = parts.iter();
    parts
        .map(|part| (Arc::clone(&part.limit), part.account.clone()))
        .collect()
}

/// Says what the store has decided.
pub(super) fn decision(accounts: &[(Arc<str>, String)], decision: &Decision) {
    // A request that is repeated has the decision of the first, without its parts.
    for ((limit, account), result) in accounts.iter().zip(&decision.parts) {
        verbose::means(|| match result {
            Ok(()) => format!("limit {limit:?}: {account:?} has room"),
            Err(why) => format!(
                "limit {limit:?}: {account:?} has used {} of {} in {}, room again in {}",
                why.used,
                why.most,
                window_text(why.window),
                wait_text(why.wait)
            ),
        });
    }
}
