//! The rows of accounts and messages.

use std::cell::Cell;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tracing::warn;

use super::format::{from_account, from_known, summary, to_account, to_known};
use crate::limits::Usage;
use crate::limits::decide::{Account, AccountKey, Known, Ledger};

/// The rows of an open file, at a time in milliseconds since the Unix epoch.
#[derive(Debug)]
pub struct Rows<'f> {
    connection: &'f Connection,
    now_ms: u64,
    damage: &'f Damage,
}

/// Whether the log has said that a row is damaged. A disk that fails may damage many.
#[derive(Debug, Default)]
pub struct Damage(Cell<bool>);

impl<'f> Rows<'f> {
    /// Returns the rows of an open file.
    pub fn new(connection: &'f Connection, now_ms: u64, damage: &'f Damage) -> Self {
        Self {
            connection,
            now_ms,
            damage,
        }
    }

    /// Returns the use of the accounts of a table, or of one account.
    pub fn usage(&self, table: &str, account: Option<&str>) -> rusqlite::Result<Vec<Usage>> {
        let mut select = self.connection.prepare_cached(
            r#"SELECT "limit", account, state FROM usage
               WHERE tbl = ?1 AND (?2 IS NULL OR account = ?2)"#,
        )?;
        let mut rows = select.query(params![table, account])?;
        let mut usage = Vec::new();
        while let Some(row) = rows.next()? {
            // A name that is no text is damaged, and nobody's.
            if let (Ok(limit), Ok(account)) = (row.get::<_, String>(0), row.get::<_, String>(1)) {
                let state = self.state(row, 2, to_account)?.unwrap_or_default();
                usage.extend(state.usage(&limit, &account, self.now_ms));
            }
        }
        Ok(usage)
    }

    /// Returns the state in a column, unless it is damaged.
    fn state<T>(
        &self,
        row: &Row<'_>,
        column: usize,
        read: fn(&[u8]) -> Option<T>,
    ) -> rusqlite::Result<Option<T>> {
        let bytes = row.get_ref(column)?.as_bytes().unwrap_or_default();
        let state = read(bytes);
        if state.is_none() && !self.damage.0.replace(true) {
            let path = self.connection.path().unwrap_or_default();
            warn!("store: {path}: a row is damaged, and its count begins anew");
        }
        Ok(state)
    }
}

impl Ledger for Rows<'_> {
    type Error = rusqlite::Error;

    fn account(&mut self, key: &AccountKey<'_>) -> rusqlite::Result<Account> {
        let mut select = self.connection.prepare_cached(
            r#"SELECT state FROM usage WHERE tbl = ?1 AND "limit" = ?2 AND account = ?3"#,
        )?;
        let state = select
            .query_row([key.table, key.limit, key.account], |row| {
                self.state(row, 0, to_account)
            })
            .optional()?;
        Ok(state.flatten().unwrap_or_default())
    }

    fn set_account(&mut self, key: &AccountKey<'_>, account: &Account) -> rusqlite::Result<()> {
        if account.is_empty() {
            let mut delete = self.connection.prepare_cached(
                r#"DELETE FROM usage WHERE tbl = ?1 AND "limit" = ?2 AND account = ?3"#,
            )?;
            delete.execute([key.table, key.limit, key.account])?;
            return Ok(());
        }
        // A REPLACE would delete the row first, which changes more pages.
        let mut upsert = self.connection.prepare_cached(
            "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE
               SET used = excluded.used, expires = excluded.expires, state = excluded.state",
        )?;
        upsert.execute(params![
            key.table,
            key.limit,
            key.account,
            summary(account),
            seconds(account.expires_ms(self.now_ms).saturating_add(999)),
            from_account(account),
        ])?;
        Ok(())
    }

    fn message(&mut self, table: &str, id: &str) -> rusqlite::Result<Option<Known>> {
        let mut select = self
            .connection
            .prepare_cached("SELECT state FROM messages WHERE tbl = ?1 AND instance = ?2")?;
        let state = select
            .query_row([table, &key(id)], |row| self.state(row, 0, to_known))
            .optional()?;
        Ok(state.flatten())
    }

    fn set_message(&mut self, table: &str, id: &str, known: &Known) -> rusqlite::Result<()> {
        let mut upsert = self.connection.prepare_cached(
            "INSERT INTO messages VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
               SET seen = excluded.seen, state = excluded.state",
        )?;
        upsert.execute(params![
            table,
            key(id),
            seconds(known.seen_ms),
            from_known(known)
        ])?;
        Ok(())
    }
}

/// Returns the key of a message. Its id begins with the process that receives it and goes on with
/// the time; with the time first, messages of one time lie together, and a transaction changes few
/// pages.
fn key(id: &str) -> String {
    let (process, time) = id.split_once('.').unwrap_or((id, ""));
    format!("{time}.{process}")
}

/// Returns a time for a column.
pub fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
}
