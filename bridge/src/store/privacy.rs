//! Who sees what of whom, and when users were there last, in SQLite's tables.

use natter_protocol::UserId;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::sqlite::{named, number, unsigned};
use super::{Settlement, StoreError};
use crate::privacy::{Aspect, Who};

pub(super) fn of(connection: &Connection, user: &UserId) -> Result<Vec<(Aspect, Who)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT aspect, who FROM privacy WHERE user = ?1")?;
    let rows = statement.query_map([user.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (aspect, who) = row?;
        match (Aspect::parse(&aspect), Who::parse(&who)) {
            (Some(aspect), Some(who)) => Ok((aspect, who)),
            _ => Err(StoreError::Corrupt { expected: "a rule of privacy", got: format!("{aspect} {who}") }),
        }
    })
    .collect()
}

pub(super) fn list(connection: &Connection, user: &UserId, aspect: Aspect) -> Result<Vec<UserId>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT other FROM privacy_lists WHERE user = ?1 AND aspect = ?2 ORDER BY other")?;
    let rows = statement.query_map([user.as_str(), aspect.as_str()], |row| row.get::<_, String>(0))?;
    rows.map(|row| named(&row?, UserId::parse)).collect()
}

pub(super) fn is_listed(
    connection: &Connection,
    user: &UserId,
    aspect: Aspect,
    other: &UserId,
) -> Result<bool, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM privacy_lists WHERE user = ?1 AND aspect = ?2 AND other = ?3)")?;
    Ok(statement.query_row([user.as_str(), aspect.as_str(), other.as_str()], |row| row.get(0))?)
}

pub(super) fn last_seen(connection: &Connection, user: &UserId) -> Result<Option<u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT at FROM last_seen WHERE user = ?1")?;
    Ok(statement.query_row([user.as_str()], |row| unsigned(row, 0)).optional()?)
}

pub(super) fn settle(t: &Transaction<'_>, settlement: &Settlement) -> Result<(), StoreError> {
    for (user, at) in &settlement.last_seen {
        t.prepare_cached(
            "INSERT INTO last_seen VALUES (?1, ?2) ON CONFLICT (user) DO UPDATE SET at = max(at, excluded.at)",
        )?
        .execute(params![user.as_str(), number(*at)])?;
    }
    for (user, aspect, rule) in &settlement.privacy {
        t.prepare_cached("DELETE FROM privacy_lists WHERE user = ?1 AND aspect = ?2")?
            .execute([user.as_str(), aspect.as_str()])?;
        t.prepare_cached("INSERT OR REPLACE INTO privacy VALUES (?1, ?2, ?3)")?.execute([
            user.as_str(),
            aspect.as_str(),
            rule.who.as_str(),
        ])?;
        let mut insert = t.prepare_cached("INSERT INTO privacy_lists VALUES (?1, ?2, ?3)")?;
        for other in rule.users.iter() {
            insert.execute([user.as_str(), aspect.as_str(), other.as_str()])?;
        }
    }
    Ok(())
}
