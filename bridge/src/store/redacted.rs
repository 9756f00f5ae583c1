//! What was said anew of messages, in SQLite's tables.

use natter_protocol::N;
use rusqlite::{Connection, Transaction, params};

use super::sqlite::{number, unsigned};
use super::{Settlement, StoreError};
use crate::chat_key::ChatKey;
use crate::edits::Redacted;

pub(super) fn of_chat(connection: &Connection, chat: &ChatKey) -> Result<Vec<(N, Redacted)>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT n, by, gone, until FROM redacted WHERE chat = ?1 ORDER BY n")?;
    let rows = statement.query_map([chat.as_str()], |row| {
        let redacted = Redacted { by: unsigned(row, 1)?, is_gone: row.get(2)?, until: unsigned(row, 3)? };
        Ok((unsigned(row, 0)?, redacted))
    })?;
    Ok(rows.collect::<Result<Vec<_>, _>>()?)
}

pub(super) fn sweep(connection: &Connection, limit: usize, now: u64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "DELETE FROM redacted WHERE (chat, n) IN (SELECT chat, n FROM redacted WHERE until < ?1 ORDER BY until LIMIT ?2)",
        )?
        .execute([number(now), number(limit as u64)])?;
    Ok(())
}

pub(super) fn settle(t: &Transaction<'_>, settlement: &Settlement) -> Result<(), StoreError> {
    for (chat, n, redacted) in &settlement.redacted {
        let Redacted { by, is_gone, until } = redacted;
        t.prepare_cached("INSERT OR REPLACE INTO redacted VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            chat.as_str(),
            number(*n),
            number(*by),
            is_gone,
            number(*until)
        ])?;
    }
    Ok(())
}
