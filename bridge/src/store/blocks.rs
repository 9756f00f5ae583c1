//! Blocks, and what they hid, in SQLite's tables.

use natter_protocol::{N, UserId};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::sqlite::{named, number, unsigned};
use super::{Settlement, StoreError};
use crate::chat_key::ChatKey;

pub(super) fn one(connection: &Connection, user: &UserId, other: &UserId) -> Result<Option<u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT since FROM blocks WHERE user = ?1 AND other = ?2")?;
    Ok(statement.query_row([user.as_str(), other.as_str()], |row| unsigned(row, 0)).optional()?)
}

pub(super) fn page(
    connection: &Connection,
    user: &UserId,
    after: Option<&UserId>,
    limit: usize,
) -> Result<Vec<(UserId, u64)>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT other, since FROM blocks WHERE user = ?1 AND other > ?2 ORDER BY other LIMIT ?3")?;
    let after = after.map_or("", UserId::as_str);
    let rows = statement.query_map(params![user.as_str(), after, number(limit as u64)], |row| {
        Ok((row.get::<_, String>(0)?, unsigned(row, 1)?))
    })?;
    rows.map(|row| {
        let (name, since) = row?;
        Ok((named(&name, UserId::parse)?, since))
    })
    .collect()
}

pub(super) fn has(connection: &Connection, user: &UserId) -> Result<(bool, bool), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM blocks WHERE user = ?1), EXISTS (SELECT 1 FROM hidden WHERE user = ?1)",
    )?;
    Ok(statement.query_row([user.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

pub(super) fn hidden(connection: &Connection, chat: &ChatKey) -> Result<Vec<(UserId, N, N)>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT user, after, upto FROM hidden WHERE chat = ?1 ORDER BY user, after")?;
    let rows = statement
        .query_map([chat.as_str()], |row| Ok((row.get::<_, String>(0)?, unsigned(row, 1)?, unsigned(row, 2)?)))?;
    rows.map(|row| {
        let (name, after, upto) = row?;
        Ok((named(&name, UserId::parse)?, after, upto))
    })
    .collect()
}

pub(super) fn settle(t: &Transaction<'_>, settlement: &Settlement) -> Result<(), StoreError> {
    for (user, other, since) in &settlement.blocks {
        match since {
            Some(since) => t.prepare_cached("INSERT OR REPLACE INTO blocks VALUES (?1, ?2, ?3)")?.execute(params![
                user.as_str(),
                other.as_str(),
                number(*since)
            ])?,
            None => t
                .prepare_cached("DELETE FROM blocks WHERE user = ?1 AND other = ?2")?
                .execute([user.as_str(), other.as_str()])?,
        };
    }
    for (chat, user, hidden) in &settlement.hidden {
        t.prepare_cached("DELETE FROM hidden WHERE user = ?1 AND chat = ?2")?
            .execute([user.as_str(), chat.as_str()])?;
        for (after, upto) in hidden.ranges() {
            t.prepare_cached("INSERT INTO hidden VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                user.as_str(),
                chat.as_str(),
                number(*after),
                number(*upto)
            ])?;
        }
    }
    Ok(())
}
