//! Groups in SQLite's tables.

use std::sync::Arc;

use natter_protocol::{MediaId, MessageId, N, UserId};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::sqlite::{named, number, unsigned};
use super::{Settlement, StoreError};
use crate::chat_key::ChatKey;
use crate::groups::row::GroupRow;

pub(super) fn one(connection: &Connection, chat: &ChatKey) -> Result<Option<GroupRow>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT subject, description, created_by, created_at, invite FROM groups WHERE chat = ?1")?;
    let found = statement
        .query_row([chat.as_str()], |row| {
            let text = |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(at)?.map(Arc::from));
            Ok((row.get::<_, String>(0)?, text(1)?, row.get::<_, String>(2)?, unsigned(row, 3)?, text(4)?))
        })
        .optional()?;
    let Some((subject, description, created_by, created_at, invite)) = found else { return Ok(None) };
    let created_by = named(&created_by, UserId::parse)?;
    Ok(Some(GroupRow { subject: Arc::from(subject), description, created_by, created_at, invite }))
}

pub(super) fn of(
    connection: &Connection,
    user: &UserId,
    after: Option<&ChatKey>,
    limit: usize,
) -> Result<Vec<ChatKey>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT chat FROM members WHERE user = ?1 AND chat > ?2 AND chat > 'g:' AND chat < 'g;' AND left_n IS NULL ORDER BY chat LIMIT ?3",
    )?;
    let after = after.map_or("g:", ChatKey::as_str);
    let rows =
        statement.query_map(params![user.as_str(), after, number(limit as u64)], |row| row.get::<_, String>(0))?;
    rows.map(|chat| Ok(ChatKey::from_stored(&chat?))).collect()
}

pub(super) fn invited_by(connection: &Connection, code: &str) -> Result<Option<ChatKey>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT chat FROM groups WHERE invite = ?1")?;
    let found = statement.query_row([code], |row| row.get::<_, String>(0)).optional()?;
    Ok(found.map(|chat| ChatKey::from_stored(&chat)))
}

pub(super) fn with(connection: &Connection, media: &MediaId, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT chat, n FROM media_groups WHERE media = ?1 ORDER BY n DESC, chat LIMIT ?2")?;
    let rows = statement.query_map(params![media.as_str(), number(limit as u64)], |row| {
        Ok((row.get::<_, String>(0)?, unsigned(row, 1)?))
    })?;
    rows.map(|row| {
        let (chat, n) = row?;
        Ok((ChatKey::from_stored(&chat), n))
    })
    .collect()
}

pub(super) fn open_with(
    connection: &Connection,
    user: &UserId,
    media: &MediaId,
    limit: usize,
) -> Result<Vec<(ChatKey, N)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT g.chat, max(g.n) FROM media_groups g JOIN members m ON m.chat = g.chat AND m.user = ?2
         WHERE g.media = ?1 AND m.left_n IS NULL AND m.joined_n < g.n GROUP BY g.chat ORDER BY g.chat LIMIT ?3",
    )?;
    let rows = statement.query_map(params![media.as_str(), user.as_str(), number(limit as u64)], |row| {
        Ok((row.get::<_, String>(0)?, unsigned(row, 1)?))
    })?;
    rows.map(|row| {
        let (chat, n) = row?;
        Ok((ChatKey::from_stored(&chat), n))
    })
    .collect()
}

pub(super) fn newest_with(connection: &Connection, media: &MediaId, chat: &ChatKey) -> Result<Option<N>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT n FROM media_groups WHERE media = ?1 AND chat = ?2 ORDER BY n DESC LIMIT 1")?;
    Ok(statement.query_row([media.as_str(), chat.as_str()], |row| unsigned(row, 0)).optional()?)
}

pub(super) fn between(
    connection: &Connection,
    chat: &ChatKey,
    after: N,
    upto: N,
    limit: usize,
) -> Result<Vec<(N, UserId, MessageId)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT n, sender, id FROM accepted WHERE chat = ?1 AND n > ?2 AND n <= ?3 ORDER BY n DESC LIMIT ?4",
    )?;
    let rows = statement
        .query_map(params![chat.as_str(), number(after), number(upto), number(limit as u64)], |row| {
            Ok((unsigned(row, 0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
    rows.map(|row| {
        let (n, sender, id) = row?;
        Ok((n, named(&sender, UserId::parse)?, named(&id, MessageId::parse)?))
    })
    .collect()
}

pub(super) fn settle(t: &Transaction<'_>, settlement: &Settlement) -> Result<(), StoreError> {
    for (chat, group) in &settlement.groups {
        match group {
            Some(GroupRow { subject, description, created_by, created_at, invite }) => {
                t.prepare_cached("INSERT OR REPLACE INTO groups VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
                    chat.as_str(),
                    &**subject,
                    description.as_deref(),
                    created_by.as_str(),
                    number(*created_at),
                    invite.as_deref()
                ])?
            }
            None => t.prepare_cached("DELETE FROM groups WHERE chat = ?1")?.execute([chat.as_str()])?,
        };
    }
    for (media, chat, n) in &settlement.media_groups {
        t.prepare_cached("INSERT OR REPLACE INTO media_groups VALUES (?1, ?2, ?3)")?.execute(params![
            media.as_str(),
            chat.as_str(),
            number(*n)
        ])?;
    }
    for (media, file) in &settlement.media {
        if file.is_none() {
            t.prepare_cached("DELETE FROM media_groups WHERE media = ?1")?.execute([media.as_str()])?;
        }
    }
    Ok(())
}
