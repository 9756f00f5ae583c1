//! Contacts in SQLite's tables.

use natter_protocol::UserId;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::sqlite::{named, number, unsigned};
use super::{Settlement, StoreError};
use crate::contacts::Contact;

fn contact(row: &Row<'_>, first: usize) -> rusqlite::Result<Contact> {
    Ok(Contact { name: row.get(first)?, since: unsigned(row, first + 1)? })
}

pub(super) fn one(connection: &Connection, user: &UserId, of: &UserId) -> Result<Option<Contact>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT name, since FROM contacts WHERE user = ?1 AND contact = ?2")?;
    Ok(statement.query_row([user.as_str(), of.as_str()], |row| contact(row, 0)).optional()?)
}

pub(super) fn page(
    connection: &Connection,
    user: &UserId,
    after: Option<&UserId>,
    limit: usize,
) -> Result<Vec<(UserId, Contact)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT contact, name, since FROM contacts WHERE user = ?1 AND contact > ?2 ORDER BY contact LIMIT ?3",
    )?;
    let after = after.map_or("", UserId::as_str);
    let rows = statement.query_map(params![user.as_str(), after, number(limit as u64)], |row| {
        Ok((row.get::<_, String>(0)?, contact(row, 1)?))
    })?;
    rows.map(|row| {
        let (name, contact) = row?;
        Ok((named(&name, UserId::parse)?, contact))
    })
    .collect()
}

pub(super) fn count(connection: &Connection, user: &UserId) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM contacts WHERE user = ?1")?;
    Ok(statement.query_row([user.as_str()], |row| unsigned(row, 0))?)
}

pub(super) fn settle(t: &Transaction<'_>, settlement: &Settlement) -> Result<(), StoreError> {
    for (user, of, contact) in &settlement.contacts {
        match contact {
            Some(Contact { name, since }) => t
                .prepare_cached("INSERT OR REPLACE INTO contacts VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![user.as_str(), of.as_str(), name, number(*since)])?,
            None => t
                .prepare_cached("DELETE FROM contacts WHERE user = ?1 AND contact = ?2")?
                .execute([user.as_str(), of.as_str()])?,
        };
    }
    Ok(())
}
