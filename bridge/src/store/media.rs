//! Files and grants in SQLite's tables.

use natter_protocol::{MediaId, UserId};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::sqlite::{named, number, unsigned};
use super::{Settlement, StoreError};
use crate::media::row::{MediaFile, MediaKind, MediaUse};

const COLUMNS: &str = "m.id, m.owner, m.kind, m.mime, m.sha256, m.size, m.name, m.made_at, m.until";

/// A row as it lies there, before its values are looked at.
struct Raw {
    id: String,
    owner: String,
    kind: i64,
    sha256: Vec<u8>,
    file: (String, u64, Option<String>, u64, u64),
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        id: row.get(0)?,
        owner: row.get(1)?,
        kind: row.get(2)?,
        sha256: row.get(4)?,
        file: (row.get(3)?, unsigned(row, 5)?, row.get(6)?, unsigned(row, 7)?, unsigned(row, 8)?),
    })
}

fn checked(raw: Raw) -> Result<MediaFile, StoreError> {
    let Raw { id, owner, kind, sha256, file: (mime, size, name, made_at, until) } = raw;
    let known = usize::try_from(kind).ok().and_then(|kind| MediaKind::ALL.get(kind)).copied();
    let kind =
        known.ok_or_else(|| StoreError::Corrupt { expected: "a kind of media, 0 to 4", got: kind.to_string() })?;
    let sha256 = <[u8; 32]>::try_from(sha256)
        .map_err(|got| StoreError::Corrupt { expected: "a sum of 32 bytes", got: format!("{} bytes", got.len()) })?;
    let (id, owner) = (named(&id, MediaId::parse)?, named(&owner, UserId::parse)?);
    Ok(MediaFile { id, owner, kind, mime, sha256, size, name, made_at, until })
}

pub(super) fn file(connection: &Connection, id: &MediaId) -> Result<Option<MediaFile>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM media m WHERE m.id = ?1"))?;
    statement.query_row([id.as_str()], raw).optional()?.map(checked).transpose()
}

pub(super) fn is_granted(connection: &Connection, user: &UserId, id: &MediaId) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM grants WHERE media = ?1 AND user = ?2")?;
    Ok(statement.exists([id.as_str(), user.as_str()])?)
}

pub(super) fn is_shared(connection: &Connection, id: &MediaId, owner: &UserId) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM grants WHERE media = ?1 AND user != ?2")?;
    Ok(statement.exists([id.as_str(), owner.as_str()])?)
}

pub(super) fn find(
    connection: &Connection,
    user: &UserId,
    name: &str,
    limit: usize,
) -> Result<Vec<MediaFile>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM grants g JOIN media m ON m.id = g.media WHERE g.user = ?1 AND g.name = ?2
         ORDER BY g.made_at DESC, g.media DESC LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![user.as_str(), name, number(limit as u64)], raw)?;
    rows.map(|row| checked(row?)).collect()
}

pub(super) fn expired(connection: &Connection, now: u64, limit: usize) -> Result<Vec<MediaFile>, StoreError> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM media m WHERE m.until < ?1 ORDER BY m.until, m.id LIMIT ?2"))?;
    let rows = statement.query_map(params![number(now), number(limit as u64)], raw)?;
    rows.map(|row| checked(row?)).collect()
}

pub(super) fn used_by(connection: &Connection, owner: &UserId) -> Result<MediaUse, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT count(*), coalesce(sum(size), 0) FROM media WHERE owner = ?1")?;
    Ok(statement
        .query_row([owner.as_str()], |row| Ok(MediaUse { files: unsigned(row, 0)?, bytes: unsigned(row, 1)? }))?)
}

pub(super) fn settle(t: &Transaction<'_>, settlement: &Settlement) -> Result<(), StoreError> {
    for file in settlement.media.iter().filter_map(|(_, file)| file.as_ref()) {
        let kind = MediaKind::ALL.iter().position(|kind| *kind == file.kind).unwrap_or_default();
        t.prepare_cached("INSERT OR REPLACE INTO media VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?.execute(
            params![
                file.id.as_str(),
                file.owner.as_str(),
                number(kind as u64),
                file.mime,
                &file.sha256[..],
                number(file.size),
                file.name,
                number(file.made_at),
                number(file.until)
            ],
        )?;
    }
    for grant in &settlement.grants {
        t.prepare_cached("INSERT OR IGNORE INTO grants VALUES (?1, ?2, ?3, ?4)")?.execute(params![
            grant.media.as_str(),
            grant.user.as_str(),
            grant.name,
            number(grant.made_at)
        ])?;
    }
    for (id, _) in settlement.media.iter().filter(|(_, file)| file.is_none()) {
        t.prepare_cached("DELETE FROM media WHERE id = ?1")?.execute([id.as_str()])?;
        t.prepare_cached("DELETE FROM grants WHERE media = ?1")?.execute([id.as_str()])?;
    }
    Ok(())
}
