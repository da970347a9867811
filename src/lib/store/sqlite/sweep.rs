//! Deletes what has expired, a few rows with each transaction: a sweep of the whole file would hold
//! up decisions, and one by a timer would wake an idle program.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

use super::rows::seconds;
use crate::limits::decide::MESSAGE_LIFETIME;
use crate::limits::frames::millis;

/// The rows of each table that a decision looks at. It makes one or two, so that the file ends up
/// with little more rows than are in use.
const ROWS: usize = 4;

/// The fewest rows that are worth a statement.
const LEAST: usize = 64;

/// The walks through both tables.
#[derive(Debug)]
pub struct Sweep {
    /// Whether a transaction on this connection has written.
    has_written: bool,
    owed: usize,
    usage: Walk<3>,
    messages: Walk<2>,
}

/// A walk through a table in the order of its key.
#[derive(Debug)]
struct Walk<const N: usize> {
    /// Selects the keys after one, and whether their rows have expired.
    select: &'static str,
    delete: &'static str,
    /// The key of the row that was last looked at.
    last: [Text; N],
}

/// A text as it is in the file. A damaged one need not be UTF-8.
#[derive(Clone, Debug, Default, PartialEq)]
struct Text(Vec<u8>);

impl ToSql for Text {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// Returns what stands before every key.
fn no_key<const N: usize>() -> [Text; N] {
    std::array::from_fn(|_| Text::default())
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            has_written: false,
            owed: 0,
            usage: Walk {
                select: r#"SELECT tbl, "limit", account, expires < ?4 FROM usage
                    WHERE (tbl, "limit", account) > (?1, ?2, ?3)
                    ORDER BY tbl, "limit", account"#,
                delete: r#"DELETE FROM usage WHERE tbl = ?1 AND "limit" = ?2 AND account = ?3"#,
                last: no_key(),
            },
            messages: Walk {
                select: "SELECT tbl, instance, seen < ?3 FROM messages
                    WHERE (tbl, instance) > (?1, ?2) ORDER BY tbl, instance",
                delete: "DELETE FROM messages WHERE tbl = ?1 AND instance = ?2",
                last: no_key(),
            },
        }
    }
}

impl Sweep {
    /// Goes on after so many decisions. With the first of them it writes in any case: an account
    /// that is refused changes nothing, and on a full disk, too, such decisions would be said, so
    /// that the store would look as if it were back.
    pub fn walk(
        &mut self,
        connection: &Connection,
        decisions: usize,
        now_ms: u64,
    ) -> rusqlite::Result<()> {
        if !self.has_written {
            // The version that the file has already.
            connection.execute_batch("PRAGMA user_version = 1")?;
            self.has_written = true;
        }
        self.owed += ROWS * decisions;
        if self.owed < LEAST {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.owed);
        let known_since = now_ms.saturating_sub(millis(MESSAGE_LIFETIME));
        self.usage.step(connection, seconds(now_ms), rows)?;
        self.messages.step(connection, seconds(known_since), rows)
    }
}

impl<const N: usize> Walk<N> {
    /// Looks at so many rows, and deletes those whose time is before this one.
    fn step(&mut self, connection: &Connection, before: i64, rows: usize) -> rusqlite::Result<()> {
        let mut select = connection.prepare_cached(self.select)?;
        let bound: &dyn ToSql = &before;
        let from = self.last.iter().map(|text| text as &dyn ToSql);
        // SQLite would compile a statement with another LIMIT anew.
        let mut found = select.query(params_from_iter(from.chain([bound])))?;
        let mut expired = Vec::new();
        let mut seen = 0;
        let mut last = None;
        while seen < rows
            && let Some(row) = found.next()?
        {
            seen += 1;
            let is_expired = matches!(row.get_ref(N)?, ValueRef::Integer(1));
            if is_expired || seen == rows {
                let mut key = no_key::<N>();
                for (column, text) in key.iter_mut().enumerate() {
                    text.0 = row.get_ref(column)?.as_bytes().unwrap_or_default().to_vec();
                }
                if is_expired {
                    expired.push(key.clone());
                }
                last = Some(key);
            }
        }
        drop(found);
        let mut delete = connection.prepare_cached(self.delete)?;
        for key in expired {
            delete.execute(params_from_iter(&key))?;
        }
        // After the last row the walk begins again.
        let is_at_end = seen < rows;
        self.last = last.filter(|_| !is_at_end).unwrap_or_else(no_key);
        Ok(())
    }
}
