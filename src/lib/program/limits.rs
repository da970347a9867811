//! `--limits` and `--reset`: what accounts have used, from the store itself, beside the service.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::exit::{Exit, Failure};
use super::messages::plural;
use crate::config::{Config, Limit, wait_text, window_text};
use crate::limits::Usage;
use crate::protocol::Facts;
use crate::store::{Store, StoreError};
use crate::table::limits::account::Account;
use crate::table::limits::table_name;

/// How many accounts are listed.
const MOST: usize = 20;

/// The limits of one table, and the store that keeps their use.
struct Counted<'c> {
    /// The program and the table.
    table: String,
    limits: &'c [Limit],
    store: Store,
}

impl<'c> Counted<'c> {
    fn new(config: &'c Config, program: &'static Facts, name: &str) -> Result<Self, Failure> {
        let usage = |text| (Exit::Usage, text);
        let table = config.tables_of(program).find(|table| table.name == name);
        let table =
            table.ok_or_else(|| usage(format!("there is no table {}.{name}", program.name)))?;
        let limits = table.endpoint.limits.as_slice();
        let table = table_name(table);
        if limits.is_empty() {
            return Err(usage(format!("{table} has no limits")));
        }
        let store = Store::new(&config.store, program.name).map_err(unreachable)?;
        Ok(Self {
            table,
            limits,
            store,
        })
    }

    /// Returns the account as each limit writes it, every spelling once.
    fn spellings(&self, account: &OsStr) -> Vec<String> {
        let mut spellings: Vec<_> = self
            .limits
            .iter()
            .map(|limit| Account::normalised(account.as_bytes(), limit).name)
            .collect();
        spellings.sort_unstable();
        spellings.dedup();
        spellings
    }
}

fn unreachable(error: StoreError) -> Failure {
    (Exit::Temporary, format!("store: {error}"))
}

/// Returns what the accounts of a table have used that have used most, or what one has used.
pub(crate) async fn show(
    config: &Config,
    program: &'static Facts,
    name: &str,
    account: Option<&OsStr>,
) -> Result<String, Failure> {
    let counted = Counted::new(config, program, name)?;
    let (table, store) = (counted.table.as_str(), &counted.store);
    let Some(account) = account else {
        let usage = store.usage(table, None).await.map_err(unreachable)?;
        if usage.is_empty() {
            return Ok(format!("{table}: no account has used anything\n"));
        }
        let (listed, more) = by_account(&usage);
        let mut text = in_columns(&listed);
        if more > 0 {
            text += &format!("and {} more\n", plural(more, "account"));
        }
        return Ok(text);
    };
    let mut usage = Vec::new();
    for spelling in counted.spellings(account) {
        let used = store.usage(table, Some(&spelling)).await;
        usage.extend(used.map_err(unreachable)?);
    }
    if usage.is_empty() {
        let account = account.as_bytes();
        return Ok(format!("{table}: {} has used nothing\n", shown(account)));
    }
    Ok(in_columns(&usage.iter().collect::<Vec<_>>()))
}

/// Forgets what an account of a table has used, and returns what was forgotten.
pub(crate) async fn reset(
    config: &Config,
    program: &'static Facts,
    name: &str,
    account: &OsStr,
) -> Result<String, Failure> {
    let counted = Counted::new(config, program, name)?;
    let table = &counted.table;
    let mut text = String::new();
    for spelling in counted.spellings(account) {
        let limits = counted.store.reset(table, &spelling).await;
        let spelling = shown(spelling.as_bytes());
        match limits.map_err(unreachable)? {
            0 => text += &format!("{table}: {spelling} has used nothing\n"),
            limits => {
                let limits = plural(limits, "limit");
                text += &format!("{table}: forgotten what {spelling} has used of {limits}\n");
            }
        }
    }
    Ok(text)
}

/// Returns the lines of the accounts that come first, each account with all its lines, and how many
/// more accounts there are.
fn by_account(usage: &[Usage]) -> (Vec<&Usage>, usize) {
    let mut accounts: Vec<&str> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for used in usage {
        if seen.insert(used.account.as_str()) {
            accounts.push(&used.account);
        }
    }
    let more = accounts.len().saturating_sub(MOST);
    accounts.truncate(MOST);
    let lines = accounts.into_iter().flat_map(|account| {
        let lines = usage.iter();
        lines.filter(move |used| used.account == account)
    });
    (lines.collect(), more)
}

/// Returns lines in columns, with a header.
fn in_columns(usage: &[&Usage]) -> String {
    const HEADER: [&str; 6] = ["limit", "account", "window", "used", "of", "free again"];
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(usage.iter().map(|used| {
        [
            used.limit.clone(),
            shown(used.account.as_bytes()),
            window_text(used.window),
            used.used.to_string(),
            used.most
                .map_or_else(|| "-".to_owned(), |most| most.to_string()),
            match used.free_in.is_zero() {
                true => "now".to_owned(),
                false => wait_text(used.free_in),
            },
        ]
    }));
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; HEADER.len()] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            // Numbers end together.
            2..=4 => format!("{cell:>width$}"),
            _ => format!("{cell:width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text += &format!("{}\n", line.trim_end());
    }
    text
}

/// Returns an account as a terminal may get it, and as `--reset` takes it: without control
/// characters.
fn shown(account: &[u8]) -> String {
    let text = String::from_utf8_lossy(account);
    let shown = text.chars().map(|c| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn used(account: &str, limit: &str, used: u64, most: Option<u64>, free_in: u64) -> Usage {
        Usage {
            limit: limit.to_owned(),
            account: account.to_owned(),
            window: Duration::from_secs(3_600),
            used,
            most,
            free_in: Duration::from_secs(free_in),
        }
    }

    #[test]
    fn usage_is_a_table_with_a_header() {
        let usage = [
            used("joe@a.test", "login", 200, Some(200), 2_880),
            used("j\u{f6}\u{1b}[0m", "a", 7, None, 0),
        ];
        let usage: Vec<_> = usage.iter().collect();
        assert_eq!(
            in_columns(&usage),
            "limit  account      window  used   of  free again\n\
             login  joe@a.test       1h   200  200  48m\n\
             a      j\u{f6}\\u{1b}[0m      1h     7    -  now\n"
        );
    }

    #[test]
    fn only_the_first_accounts_are_listed_each_with_all_its_lines() {
        let name = |number: usize| format!("a{}", number % 25);
        let usage: Vec<_> = (0..50)
            .map(|number| used(&name(number), "l", 1, None, 0))
            .collect();
        let (listed, more) = by_account(&usage);
        let listed: Vec<_> = listed.iter().map(|used| used.account.as_str()).collect();
        let expected: Vec<_> = (0..20)
            .flat_map(|number| [name(number), name(number)])
            .collect();
        assert_eq!(
            (listed, more),
            (expected.iter().map(String::as_str).collect(), 5)
        );
        assert_eq!(by_account(&usage[..20]).1, 0);
    }
}
