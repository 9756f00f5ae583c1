//! Statuses in SQLite's tables.

use std::sync::Arc;

use natter_protocol::{MediaId, MessageId, N, Seq, UserId};
use rusqlite::{Connection, Transaction, params};

use super::sqlite::{named, number, unsigned};
use super::{Settlement, StoreError};
use crate::change::Message;
use crate::chat_key::ChatKey;
use crate::status::Status;

pub(super) fn one(connection: &Connection, chat: &ChatKey, n: N) -> Result<Option<Status>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT s.until, s.media, s.audience, m.sender, m.id, m.timestamp, m.body
         FROM statuses s JOIN messages m ON m.chat = s.chat AND m.n = s.n WHERE s.chat = ?1 AND s.n = ?2",
    )?;
    let mut rows = statement.query(params![chat.as_str(), number(n)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let media: Option<String> = row.get(1)?;
    let places: Vec<(UserId, Seq)> = postcard::from_bytes(row.get_ref(2)?.as_blob().unwrap_or_default())
        .map_err(|e| StoreError::Corrupt { expected: "an audience", got: format!("{chat:?}/{n}: {e}") })?;
    let message = Message {
        chat: chat.clone(),
        n,
        from: named(&row.get::<_, String>(3)?, UserId::parse)?,
        id: named(&row.get::<_, String>(4)?, MessageId::parse)?,
        timestamp: unsigned(row, 5)?,
        body: Arc::from(row.get::<_, String>(6)?),
    };
    Ok(Some(Status {
        message: Arc::new(message),
        until: unsigned(row, 0)?,
        media: media.map(|media| named(&media, MediaId::parse)).transpose()?,
        places,
    }))
}

pub(super) fn times(connection: &Connection, chat: &ChatKey) -> Result<Vec<(N, u64)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT n, until FROM statuses WHERE chat = ?1 ORDER BY n")?;
    let rows = statement.query_map([chat.as_str()], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn over(connection: &Connection, now: u64, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT chat, n FROM statuses WHERE until <= ?1 ORDER BY until, chat, n LIMIT ?2")?;
    let rows = statement.query_map(params![number(now), number(limit as u64)], key)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn with_media(
    connection: &Connection,
    media: &MediaId,
    limit: usize,
) -> Result<Vec<(ChatKey, N)>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT chat, n FROM statuses WHERE media = ?1 ORDER BY until DESC, chat, n LIMIT ?2")?;
    let rows = statement.query_map(params![media.as_str(), number(limit as u64)], key)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn key(row: &rusqlite::Row<'_>) -> rusqlite::Result<(ChatKey, N)> {
    Ok((ChatKey::from_stored(&row.get::<_, String>(0)?), unsigned(row, 1)?))
}

/// Statuses alone: inbox rows that point to one, and bodies, go behind this.
pub(super) fn settle(t: &Transaction<'_>, settlement: &Settlement) -> Result<(), StoreError> {
    for (chat, n, status) in &settlement.statuses {
        match status {
            Some(status) => {
                let audience =
                    postcard::to_extend(&status.places, Vec::new()).map_err(|e| StoreError::Database(e.to_string()))?;
                t.prepare_cached("INSERT OR REPLACE INTO statuses VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
                    chat.as_str(),
                    number(*n),
                    number(status.until),
                    status.media.as_ref().map(MediaId::as_str),
                    audience
                ])?
            }
            None => t
                .prepare_cached("DELETE FROM statuses WHERE chat = ?1 AND n = ?2")?
                .execute(params![chat.as_str(), number(*n)])?,
        };
    }
    Ok(())
}
