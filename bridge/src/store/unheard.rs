//! Hidden messages that have not failed yet, in SQLite's tables.

use natter_protocol::{MessageId, N, UserId};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::sqlite::{named, number, unsigned};
use super::{Settlement, StoreError, Waits};
use crate::chat_key::ChatKey;

pub(super) fn one(connection: &Connection, chat: &ChatKey, member: &UserId) -> Result<Option<(N, u64)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT n, at FROM unheard WHERE user = ?1 AND chat = ?2")?;
    let found = statement.query_row([member.as_str(), chat.as_str()], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)));
    Ok(found.optional()?)
}

pub(super) fn over(connection: &Connection, before: u64, limit: usize) -> Result<Vec<(ChatKey, UserId)>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT chat, user FROM unheard WHERE at < ?1 ORDER BY at, user, chat LIMIT ?2")?;
    let rows = statement.query_map([number(before), number(limit as u64)], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    rows.map(|row| {
        let (chat, user) = row?;
        Ok((ChatKey::from_stored(&chat), named(&user, UserId::parse)?))
    })
    .collect()
}

pub(super) fn oldest_waiting(connection: &Connection, of: &Waits<'_>) -> Result<Option<(N, u64)>, StoreError> {
    let Waits { user, chat, sender, after, behind, upto } = of;
    let mut statement = connection.prepare_cached(
        "SELECT i.n, i.at FROM inbox i JOIN messages m ON m.chat = i.chat AND m.n = i.n
         WHERE i.chat = ?1 AND i.n > ?2 AND i.user = ?3 AND i.seq > ?4 AND i.seq <= ?5 AND m.sender = ?6 ORDER BY i.n LIMIT 1",
    )?;
    let parameters =
        params![chat.as_str(), number(*after), user.as_str(), number(*behind), number(*upto), sender.as_str()];
    Ok(statement.query_row(parameters, |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?))).optional()?)
}

pub(super) fn oldest_of(
    connection: &Connection,
    chat: &ChatKey,
    sender: &UserId,
    after: N,
    upto: N,
) -> Result<Option<(N, MessageId)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT n, id FROM accepted WHERE chat = ?1 AND n > ?2 AND n <= ?3 AND sender = ?4 ORDER BY n LIMIT 1",
    )?;
    let found = statement
        .query_row(params![chat.as_str(), number(after), number(upto), sender.as_str()], |row| {
            Ok((unsigned(row, 0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    found.map(|(n, id)| Ok((n, named(&id, MessageId::parse)?))).transpose()
}

pub(super) fn settle(t: &Transaction<'_>, settlement: &Settlement) -> Result<(), StoreError> {
    for (chat, user, oldest) in &settlement.unheard {
        match oldest {
            Some((n, at)) => t
                .prepare_cached("INSERT OR REPLACE INTO unheard VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![user.as_str(), chat.as_str(), number(*n), number(*at)])?,
            None => t
                .prepare_cached("DELETE FROM unheard WHERE user = ?1 AND chat = ?2")?
                .execute([user.as_str(), chat.as_str()])?,
        };
    }
    Ok(())
}
