//! The store on SQLite: WAL, `synchronous=FULL`, one connection that writes, owned by the loop's thread.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use natter_protocol::planted::{self, Bug};
use natter_protocol::{DeviceId, MediaId, MessageId, N, Seq, UserId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row as SqlRow, Transaction, TransactionBehavior, params};

use super::blocks;
use super::contacts;
use super::kept;
use super::loss::{self, Extent};
use super::mark::{self, Found, MARKED_LOG, Mark};
use super::media;
use super::migrate::{known, migrate};
use super::privacy;
use super::redacted;
use super::status;
use super::{Append, DeviceRow, InboxPlace, MemberRow, Settlement, Store, StoreError, UserRow, Waits};
use super::{groups, unheard};
use crate::change::{Accepted, Account, Item, Message, Revoked, Row, Secret, Session, Webhook};
use crate::chat_key::ChatKey;
use crate::contacts::Contact;
use crate::edits::Redacted;
use crate::groups::row::GroupRow;
use crate::media::row::{MediaFile, MediaUse};
use crate::privacy::{Aspect, Who};
use crate::status::Status;

/// Older SQLite can lose a WAL reset (the race fixed in 3.51.3).
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// What SQLite says when fsync of a file or a directory fails; its codes are extended ones on every connection of rusqlite.
const NOT_SYNCED: [i32; 2] = [rusqlite::ffi::SQLITE_IOERR_FSYNC, rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC];
/// Pages of the WAL from which on a commit moves them into the database: 4 MiB.
const WAL_PAGES: i64 = 1000;
/// The WAL grows beyond that only while a reader holds a checkpoint up, and is cut back to this many bytes afterwards.
const WAL_BYTES_LEFT: i64 = 4 * WAL_PAGES * 4096;
/// A WAL this long is worth a warning.
const WAL_BYTES_ALARM: u64 = 256 << 20;
/// How long a batch waits for another writer, a backup tool say; then it fails, and its senders are told "not now".
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The version of the schema from which on the journal's rows lie in the order of `log << 48 | no`.
const JOURNAL_BY_PLACE: i64 = 7;
/// Statements kept prepared.
const STATEMENTS_MAX: usize = 64;

/// A SQLite database.
#[derive(Debug)]
pub struct Sqlite {
    pub(super) connection: Connection,
    pub(super) mark: Mark,
    /// The newest row of the marked log, as this process knows it.
    pub(super) newest: u64,
    pub(super) first_seq: Seq,
    wal: PathBuf,
    wal_is_long: bool,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::SqliteFailure(code, _) if NOT_SYNCED.contains(&code.extended_code) => {
                Self::NotSynced(format!("{error} (SQLite's code {})", code.extended_code))
            }
            rusqlite::Error::SqliteFailure(code, _) if code.code == ErrorCode::SystemIoFailure => {
                let code = code.extended_code;
                Self::Database(format!(
                    "{error} (SQLite's code {code}): is the disk full, or failing, or a file at its limit?"
                ))
            }
            rusqlite::Error::SqliteFailure(code, _)
                if matches!(code.code, rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) =>
            {
                Self::Corrupt { expected: "a sound database", got: error.to_string() }
            }
            error => Self::Database(error.to_string()),
        }
    }
}

impl Sqlite {
    /// Opens the database file, or makes it.
    ///
    /// # Errors
    /// When the file cannot be opened, is no database, was written by a newer program, or the library is too old;
    /// [`StoreError::Missing`] when batches are missing that were acknowledged.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_if(path, Extent::or_refuse)
    }

    /// Opens the file if `accept` agrees with how much of it is there; before that nothing is written.
    pub(super) fn open_if(
        path: &Path,
        accept: impl FnOnce(Extent) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let version = rusqlite::version_number();
        if version < SQLITE_VERSION_MIN {
            return Err(StoreError::Database(format!("expected SQLite 3.51.3 or newer, got {}", rusqlite::version())));
        }
        let mark_path = mark::path_of(path);
        let found = mark::read(&mark_path).map_err(of(&mark_path))?;
        let marked = if let Found::Row(row) = found { row } else { 0 };
        let mut accept = Some(accept);
        let mut decide = |newest| accept.take().map_or(Ok(()), |accept| accept(Extent { newest, marked }));
        if std::fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0 {
            // SQLite deletes the WAL of a database that is not there: the WAL may be all that is left.
            decide(0)?;
        }
        if !path.exists() {
            // For its owner only; SQLite gives the WAL the same mode. Never a file that is open already: closing it would end its locks.
            OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(of(path))?;
        }
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // A store that is refused stays as it is: what lies behind a torn place of the WAL may be of use to somebody.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.pragma_update(None, "locking_mode", "NORMAL")?;
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -65_536)?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", WAL_PAGES, |_| Ok(()))?;
        connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_LEFT, |_| Ok(()))?;
        let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        if planted::has(Bug::SynchronousOff) {
            connection.pragma_update(None, "synchronous", "OFF")?;
        }
        if mode != "wal" || synchronous != 2 {
            return Err(StoreError::Database(format!(
                "expected journal_mode wal and synchronous 2 (FULL), got {mode} and {synchronous}"
            )));
        }
        let newest = newest_row(&connection, MARKED_LOG)?;
        decide(newest)?;
        if newest > 0 && !matches!(found, Found::Row(_)) {
            tracing::warn!(
                file = %mark_path.display(), ?found,
                "a store without its high-water mark: a new one is made; whether the store's end is whole cannot be told this time"
            );
        }
        migrate(&mut connection)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        let first_seq = loss::first_seq(&connection)?;
        let mark = Mark::open_or_make(&mark_path, newest.max(marked)).map_err(of(&mark_path))?;
        Ok(Self { connection, mark, newest, first_seq, wal: wal_of(path), wal_is_long: false })
    }
    /// Says once that the WAL is long: whoever reads for so long is outside of this process, and only he can end it.
    fn watch_wal(&mut self) {
        let bytes = std::fs::metadata(&self.wal).map_or(0, |metadata| metadata.len());
        let is_long = bytes > WAL_BYTES_ALARM;
        if is_long && !self.wal_is_long {
            tracing::warn!(
                bytes,
                "the WAL grows: another process has been reading the database for long (a backup, `natter check`, sqlite3), or the \
                 database has no room to grow; it is cut back when that ends"
            );
        }
        self.wal_is_long = is_long;
    }

    /// Counts this start and returns its number, from 1.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn next_boot(&mut self) -> Result<u32, StoreError> {
        let boot: i64 = self.connection.query_row(
            "INSERT INTO meta VALUES ('boot', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1 RETURNING value",
            [],
            |row| row.get(0),
        )?;
        u32::try_from(boot).map_err(|_| StoreError::Corrupt { expected: "a boot number", got: boot.to_string() })
    }

    /// The number of this store: random, made once. A data directory that is begun anew has another one, so that whoever remembers a position
    /// of the last one is told.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn epoch(&mut self) -> Result<u64, StoreError> {
        let epoch: i64 = self.connection.query_row(
            "INSERT INTO meta VALUES ('epoch', random() & 9223372036854775807)
             ON CONFLICT (key) DO UPDATE SET value = value RETURNING value",
            [],
            |row| row.get(0),
        )?;
        Ok(epoch.unsigned_abs())
    }
}

/// What went wrong with a file.
fn of(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.display().to_string();
    move |error| StoreError::Database(format!("{path}: {error}"))
}

/// The WAL of a database.
pub(super) fn wal_of(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// The newest journal row ever written, 0 for an empty file. Numbers go on where the last settlement ended, also when nothing is left in
/// the journal.
pub(super) fn newest_row(connection: &Connection, log: u8) -> Result<u64, StoreError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if known(version)? == 0 {
        return Ok(0);
    }
    // A file of an older version is asked before it is brought to this one.
    let last = if version < JOURNAL_BY_PLACE {
        "SELECT max(no) FROM journal WHERE log = ?1"
    } else {
        "SELECT no FROM journal WHERE place >= ?1 << 48 AND place < (?1 + 1) << 48 ORDER BY place DESC LIMIT 1"
    };
    let newest: Option<i64> = connection
        .prepare_cached(&format!(
            "SELECT max(coalesce(({last}), 0), coalesce((SELECT value FROM meta WHERE key = 'settled:' || ?1), 0))"
        ))?
        .query_row([log], |row| row.get(0))?;
    Ok(u64::try_from(newest.unwrap_or(0)).unwrap_or(0))
}

pub(super) fn named<T>(
    text: &str,
    parse: fn(&str) -> Result<T, natter_protocol::ids::NameError>,
) -> Result<T, StoreError> {
    parse(text).map_err(|e| StoreError::Corrupt { expected: e.expected, got: e.got })
}

fn device(text: Option<String>) -> Result<Option<DeviceId>, StoreError> {
    text.map(|text| named(&text, DeviceId::parse)).transpose()
}

pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0))
}

fn accepted_row(row: &SqlRow<'_>, first: usize) -> rusqlite::Result<Accepted> {
    let chat: String = row.get(first)?;
    let hash: Vec<u8> = row.get(first + 3)?;
    Ok(Accepted {
        chat: ChatKey::from_stored(&chat),
        n: unsigned(row, first + 1)?,
        timestamp: unsigned(row, first + 2)?,
        hash: <[u8; 16]>::try_from(hash).unwrap_or_default(),
        until: unsigned(row, first + 4)?,
    })
}

fn session_row(row: &SqlRow<'_>, first: usize) -> rusqlite::Result<(Option<String>, Session)> {
    let held: Vec<u8> = row.get(first + 3)?;
    let gone_at: Option<i64> = row.get(first + 2)?;
    let session = Session {
        device: None,
        expiry_secs: u32::try_from(row.get::<_, i64>(first + 1)?).unwrap_or(u32::MAX),
        gone_at: gone_at.map(|at| u64::try_from(at).unwrap_or(0)),
        held: held.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect(),
    };
    Ok((row.get(first)?, session))
}

impl Store for Sqlite {
    fn append(&mut self, log: u8, no: u64, delta: &[u8]) -> Append {
        let written = self
            .connection
            .prepare_cached("INSERT INTO journal VALUES (?1, ?2, ?3, ?1 << 48 | ?2)")
            .and_then(|mut statement| statement.execute(params![log, number(no), delta]));
        match written {
            Ok(_) => {
                if log == MARKED_LOG {
                    self.mark.rises_to(no);
                    self.newest = no;
                }
                Append::Committed
            }
            Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == rusqlite::ErrorCode::ConstraintViolation => {
                Append::Fenced
            }
            Err(error) => Append::Failed(error.into()),
        }
    }

    fn next_no(&mut self, log: u8) -> Result<u64, StoreError> {
        Ok(newest_row(&self.connection, log)? + 1)
    }

    fn journal(&mut self, log: u8) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT no, delta FROM journal WHERE log = ?1 ORDER BY place")?;
        let rows = statement.query_map([log], |row| Ok((unsigned(row, 0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn settle(&mut self, log: u8, settlement: &Settlement) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if log == MARKED_LOG {
            // The journal's key fences appends; this fences settlements.
            let newest = newest_row(&transaction, log)?;
            if newest != self.newest {
                return Err(StoreError::Database(format!(
                    "expected journal row {} as the newest, got {newest}: another process has written to this store",
                    self.newest
                )));
            }
        }
        write_settlement(&transaction, log, settlement)?;
        transaction.commit()?;
        if log == MARKED_LOG {
            self.newest = self.newest.max(settlement.upto);
        }
        self.watch_wal();
        Ok(())
    }

    fn user(&mut self, user: &UserId) -> Result<Option<UserRow>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT last_seq, settled_seq, last_offset FROM users WHERE name = ?1")?;
        Ok(statement
            .query_row([user.as_str()], |row| {
                Ok(UserRow {
                    last_seq: unsigned(row, 0)?,
                    settled_seq: unsigned(row, 1)?,
                    last_offset: unsigned(row, 2)?,
                })
            })
            .optional()?)
    }

    fn first_seq(&self) -> Seq {
        self.first_seq
    }

    fn devices(&mut self, user: &UserId) -> Result<Vec<(DeviceId, DeviceRow)>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT device, cursor, active_at, skipped, offset, linked_at, seen_at, label
             FROM devices WHERE user = ?1 ORDER BY device",
        )?;
        let rows = statement.query_map([user.as_str()], |row| {
            Ok((
                row.get::<_, String>(0)?,
                DeviceRow {
                    cursor: unsigned(row, 1)?,
                    active_at: unsigned(row, 2)?,
                    skipped: unsigned(row, 3)?,
                    offset: unsigned(row, 4)?,
                    linked_at: unsigned(row, 5)?,
                    seen_at: unsigned(row, 6)?,
                    label: row.get::<_, Option<String>>(7)?.map(Arc::from),
                },
            ))
        })?;
        rows.map(|row| {
            let (name, row) = row?;
            Ok((named(&name, DeviceId::parse)?, row))
        })
        .collect()
    }

    fn inbox(&mut self, user: &UserId, after: Seq, limit: usize) -> Result<Vec<(Seq, Row)>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT i.seq, i.at, i.only_device, i.except_device, i.chat, i.n, i.item, m.sender, m.id, m.timestamp, m.body, i.offset
             FROM inbox i LEFT JOIN messages m ON m.chat = i.chat AND m.n = i.n
             WHERE i.user = ?1 AND i.seq > ?2 ORDER BY i.seq LIMIT ?3",
        )?;
        let mut rows = statement.query(params![user.as_str(), number(after), number(limit as u64)])?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            let seq = unsigned(row, 0)?;
            let item = match row.get::<_, Option<String>>(4)? {
                Some(chat) => {
                    let (Some(sender), Some(id)) = (row.get::<_, Option<String>>(7)?, row.get::<_, Option<String>>(8)?)
                    else {
                        return Err(StoreError::Corrupt { expected: "a body", got: format!("none for {user}/{seq}") });
                    };
                    Item::Message(Arc::new(Message {
                        chat: ChatKey::from_stored(&chat),
                        n: unsigned(row, 5)?,
                        from: named(&sender, UserId::parse)?,
                        id: named(&id, MessageId::parse)?,
                        timestamp: unsigned(row, 9)?,
                        body: Arc::from(row.get::<_, String>(10)?),
                    }))
                }
                None => postcard::from_bytes(row.get_ref(6)?.as_blob().unwrap_or_default())
                    .map_err(|e| StoreError::Corrupt { expected: "an inbox item", got: e.to_string() })?,
            };
            out.push((
                seq,
                Row {
                    at: unsigned(row, 1)?,
                    offset: unsigned(row, 11)?,
                    only: device(row.get(2)?)?,
                    except: device(row.get(3)?)?,
                    item,
                },
            ));
        }
        Ok(out)
    }

    fn inbox_places(
        &mut self,
        user: &UserId,
        after: Seq,
        upto: Seq,
        limit: usize,
    ) -> Result<Vec<InboxPlace>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, only_device, except_device, offset FROM inbox WHERE user = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT ?4",
        )?;
        let mut rows = statement.query(params![user.as_str(), number(after), number(upto), number(limit as u64)])?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            let (only, except) = (device(row.get(1)?)?, device(row.get(2)?)?);
            out.push(InboxPlace { seq: unsigned(row, 0)?, offset: unsigned(row, 3)?, only, except });
        }
        Ok(out)
    }

    fn chat(&mut self, chat: &ChatKey) -> Result<Option<N>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT last_n FROM chats WHERE chat = ?1")?;
        Ok(statement.query_row([chat.as_str()], |row| unsigned(row, 0)).optional()?)
    }

    fn members(&mut self, chat: &ChatKey) -> Result<Vec<(UserId, MemberRow)>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT user, joined_n, left_n, delivered_n, read_n, is_admin FROM members WHERE chat = ?1",
        )?;
        let rows = statement.query_map([chat.as_str()], |row| {
            let left_n: Option<i64> = row.get(2)?;
            Ok((
                row.get::<_, String>(0)?,
                MemberRow {
                    joined_n: unsigned(row, 1)?,
                    left_n: left_n.map(|n| u64::try_from(n).unwrap_or(0)),
                    delivered_n: unsigned(row, 3)?,
                    read_n: unsigned(row, 4)?,
                    is_admin: row.get(5)?,
                },
            ))
        })?;
        rows.map(|row| {
            let (name, row) = row?;
            Ok((named(&name, UserId::parse)?, row))
        })
        .collect()
    }

    fn accepted(&mut self, id: &MessageId, sender: &UserId) -> Result<Option<Accepted>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT chat, n, timestamp, hash, until FROM accepted WHERE id = ?1 AND sender = ?2")?;
        Ok(statement.query_row([id.as_str(), sender.as_str()], |row| accepted_row(row, 0)).optional()?)
    }

    fn accepted_by_id(&mut self, id: &MessageId, limit: usize) -> Result<Vec<(UserId, Accepted)>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT sender, chat, n, timestamp, hash, until FROM accepted WHERE id = ?1 LIMIT ?2")?;
        let rows = statement.query_map(params![id.as_str(), number(limit as u64)], |row| {
            Ok((row.get::<_, String>(0)?, accepted_row(row, 1)?))
        })?;
        rows.map(|row| {
            let (sender, accepted) = row?;
            Ok((named(&sender, UserId::parse)?, accepted))
        })
        .collect()
    }

    fn newest_of(
        &mut self,
        chat: &ChatKey,
        sender: &UserId,
        after: N,
        upto: N,
    ) -> Result<Option<(N, MessageId)>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT n, id FROM accepted WHERE chat = ?1 AND n > ?2 AND n <= ?3 AND sender = ?4 ORDER BY n DESC LIMIT 1",
        )?;
        let found = statement
            .query_row(params![chat.as_str(), number(after), number(upto), sender.as_str()], |row| {
                Ok((unsigned(row, 0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        found.map(|(n, id)| Ok((n, named(&id, MessageId::parse)?))).transpose()
    }

    fn oldest_of(
        &mut self,
        chat: &ChatKey,
        sender: &UserId,
        after: N,
        upto: N,
    ) -> Result<Option<(N, MessageId)>, StoreError> {
        unheard::oldest_of(&self.connection, chat, sender, after, upto)
    }

    fn count_of(&mut self, chat: &ChatKey, sender: &UserId, after: N, limit: u64) -> Result<u64, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM accepted WHERE chat = ?1 AND n > ?2 AND sender = ?3 LIMIT ?4)",
        )?;
        let parameters = params![chat.as_str(), number(after), sender.as_str(), number(limit)];
        Ok(statement.query_row(parameters, |row| unsigned(row, 0))?)
    }

    fn session(&mut self, user: &UserId, client_id: &str) -> Result<Option<Session>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT device, expiry_secs, gone_at, held FROM sessions WHERE user = ?1 AND client_id = ?2",
        )?;
        let found = statement.query_row([user.as_str(), client_id], |row| session_row(row, 0)).optional()?;
        found.map(|(name, session)| Ok(Session { device: device(name)?, ..session })).transpose()
    }

    fn sessions(&mut self, user: &UserId) -> Result<Vec<(String, Session)>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT client_id, device, expiry_secs, gone_at, held FROM sessions WHERE user = ?1")?;
        let rows = statement.query_map([user.as_str()], |row| Ok((row.get::<_, String>(0)?, session_row(row, 1)?)))?;
        rows.map(|row| {
            let (client_id, (name, session)) = row?;
            Ok((client_id, Session { device: device(name)?, ..session }))
        })
        .collect()
    }

    fn kept(&mut self, user: &UserId, chat: &ChatKey, n: N) -> Result<Option<Arc<Message>>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT m.sender, m.id, m.timestamp, m.body FROM kept k JOIN messages m ON m.chat = k.chat AND m.n = k.n
             WHERE k.user = ?1 AND k.chat = ?2 AND k.n = ?3",
        )?;
        let mut rows = statement.query(params![user.as_str(), chat.as_str(), number(n)])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some(Arc::new(Message {
            chat: chat.clone(),
            n,
            from: named(&row.get::<_, String>(0)?, UserId::parse)?,
            id: named(&row.get::<_, String>(1)?, MessageId::parse)?,
            timestamp: unsigned(row, 2)?,
            body: Arc::from(row.get::<_, String>(3)?),
        })))
    }

    fn sweep_kept(&mut self, limit: usize, now: u64) -> Result<(), StoreError> {
        let over: Option<i64> = self
            .connection
            .prepare_cached("SELECT 1 FROM kept WHERE until < ?1 LIMIT 1")?
            .query_row([number(now)], |row| row.get(0))
            .optional()?;
        if over.is_none() {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        kept::forget(
            &transaction,
            "DELETE FROM kept WHERE (user, chat, n) IN
             (SELECT user, chat, n FROM kept WHERE until < ?1 ORDER BY until LIMIT ?2) RETURNING chat, n",
            params![number(now), number(limit as u64)],
        )?;
        transaction.commit()?;
        Ok(())
    }

    fn media(&mut self, id: &MediaId) -> Result<Option<MediaFile>, StoreError> {
        media::file(&self.connection, id)
    }

    fn has_media_grant(&mut self, user: &UserId, id: &MediaId) -> Result<bool, StoreError> {
        media::is_granted(&self.connection, user, id)
    }

    fn find_media(&mut self, user: &UserId, name: &str, limit: usize) -> Result<Vec<MediaFile>, StoreError> {
        media::find(&self.connection, user, name, limit)
    }

    fn expired_media(&mut self, now: u64, limit: usize) -> Result<Vec<MediaFile>, StoreError> {
        media::expired(&self.connection, now, limit)
    }

    fn media_use(&mut self, owner: &UserId) -> Result<MediaUse, StoreError> {
        media::used_by(&self.connection, owner)
    }

    fn is_media_shared(&mut self, id: &MediaId, owner: &UserId) -> Result<bool, StoreError> {
        media::is_shared(&self.connection, id, owner)
    }

    fn contact(&mut self, user: &UserId, contact: &UserId) -> Result<Option<Contact>, StoreError> {
        contacts::one(&self.connection, user, contact)
    }

    fn contacts(
        &mut self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, Contact)>, StoreError> {
        contacts::page(&self.connection, user, after, limit)
    }

    fn contacts_count(&mut self, user: &UserId) -> Result<u64, StoreError> {
        contacts::count(&self.connection, user)
    }

    fn block(&mut self, user: &UserId, other: &UserId) -> Result<Option<u64>, StoreError> {
        blocks::one(&self.connection, user, other)
    }

    fn blocks(
        &mut self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, u64)>, StoreError> {
        blocks::page(&self.connection, user, after, limit)
    }

    fn has_blocks(&mut self, user: &UserId) -> Result<(bool, bool), StoreError> {
        blocks::has(&self.connection, user)
    }

    fn hidden(&mut self, chat: &ChatKey) -> Result<Vec<(UserId, N, N)>, StoreError> {
        blocks::hidden(&self.connection, chat)
    }

    fn redacted(&mut self, chat: &ChatKey) -> Result<Vec<(N, Redacted)>, StoreError> {
        redacted::of_chat(&self.connection, chat)
    }

    fn sweep_redacted(&mut self, limit: usize, now: u64) -> Result<(), StoreError> {
        redacted::sweep(&self.connection, limit, now)
    }

    fn last_seen(&mut self, user: &UserId) -> Result<Option<u64>, StoreError> {
        privacy::last_seen(&self.connection, user)
    }

    fn privacy(&mut self, user: &UserId) -> Result<Vec<(Aspect, Who)>, StoreError> {
        privacy::of(&self.connection, user)
    }

    fn privacy_list(&mut self, user: &UserId, aspect: Aspect) -> Result<Vec<UserId>, StoreError> {
        privacy::list(&self.connection, user, aspect)
    }

    fn is_in_privacy_list(&mut self, user: &UserId, aspect: Aspect, other: &UserId) -> Result<bool, StoreError> {
        privacy::is_listed(&self.connection, user, aspect, other)
    }

    fn group(&mut self, chat: &ChatKey) -> Result<Option<GroupRow>, StoreError> {
        groups::one(&self.connection, chat)
    }

    fn groups_of(&mut self, user: &UserId, after: Option<&ChatKey>, limit: usize) -> Result<Vec<ChatKey>, StoreError> {
        groups::of(&self.connection, user, after, limit)
    }

    fn invited_by(&mut self, code: &str) -> Result<Option<ChatKey>, StoreError> {
        groups::invited_by(&self.connection, code)
    }

    fn groups_with(&mut self, media: &MediaId, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError> {
        groups::with(&self.connection, media, limit)
    }

    fn groups_open_with(
        &mut self,
        user: &UserId,
        media: &MediaId,
        limit: usize,
    ) -> Result<Vec<(ChatKey, N)>, StoreError> {
        groups::open_with(&self.connection, user, media, limit)
    }

    fn newest_with(&mut self, media: &MediaId, chat: &ChatKey) -> Result<Option<N>, StoreError> {
        groups::newest_with(&self.connection, media, chat)
    }

    fn accepted_between(
        &mut self,
        chat: &ChatKey,
        after: N,
        upto: N,
        limit: usize,
    ) -> Result<Vec<(N, UserId, MessageId)>, StoreError> {
        groups::between(&self.connection, chat, after, upto, limit)
    }

    fn unheard(&mut self, chat: &ChatKey, member: &UserId) -> Result<Option<(N, u64)>, StoreError> {
        unheard::one(&self.connection, chat, member)
    }

    fn unheard_over(&mut self, before: u64, limit: usize) -> Result<Vec<(ChatKey, UserId)>, StoreError> {
        unheard::over(&self.connection, before, limit)
    }

    fn oldest_waiting(&mut self, of: &Waits<'_>) -> Result<Option<(N, u64)>, StoreError> {
        unheard::oldest_waiting(&self.connection, of)
    }

    fn status(&mut self, chat: &ChatKey, n: N) -> Result<Option<Status>, StoreError> {
        status::one(&self.connection, chat, n)
    }

    fn status_times(&mut self, chat: &ChatKey) -> Result<Vec<(N, u64)>, StoreError> {
        status::times(&self.connection, chat)
    }

    fn statuses_over(&mut self, now: u64, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError> {
        status::over(&self.connection, now, limit)
    }

    fn statuses_with(&mut self, media: &MediaId, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError> {
        status::with_media(&self.connection, media, limit)
    }

    fn revoked(&mut self) -> Result<Vec<Revoked>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT user, kind, subject, before FROM revoked")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, unsigned(row, 3)?))
        })?;
        rows.map(|row| {
            let (user, kind, subject, before) = row?;
            let user = named(&user, UserId::parse)?;
            match kind {
                0 => Ok(Revoked::Token(user, subject)),
                1 => Ok(Revoked::Device(user, named(&subject, DeviceId::parse)?, before)),
                2 => Ok(Revoked::User(user, before)),
                other => Err(StoreError::Corrupt { expected: "a kind of revocation, 0 to 2", got: other.to_string() }),
            }
        })
        .collect()
    }

    fn account(&mut self, user: &UserId) -> Result<Account, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT password, disabled FROM accounts WHERE user = ?1")?;
        let found = statement
            .query_row([user.as_str()], |row| {
                Ok(Account { password: row.get::<_, Option<String>>(0)?.map(Secret), disabled: row.get(1)? })
            })
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    fn disabled(&mut self) -> Result<Vec<UserId>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT user FROM accounts WHERE disabled = 1")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.map(|name| named(&name?, UserId::parse)).collect()
    }

    fn webhooks(&mut self) -> Result<Vec<(UserId, DeviceId, Webhook)>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT user, device, url, verify_token, secret FROM webhooks")?;
        let rows = statement.query_map([], |row| {
            let webhook = Webhook { url: row.get(2)?, verify_token: Secret(row.get(3)?), secret: Secret(row.get(4)?) };
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, webhook))
        })?;
        rows.map(|row| {
            let (user, device, webhook) = row?;
            Ok((named(&user, UserId::parse)?, named(&device, DeviceId::parse)?, webhook))
        })
        .collect()
    }

    fn server_secs(&mut self) -> Result<u64, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM meta WHERE key = 'server_secs'")?;
        Ok(statement.query_row([], |row| unsigned(row, 0)).optional()?.unwrap_or(0))
    }

    fn oldest_rows(&mut self, after: Option<&UserId>, limit: usize) -> Result<Vec<(UserId, u64)>, StoreError> {
        // One seek a user: a position beyond the last row of a user is a position before the next one's first.
        let mut statement = self.connection.prepare_cached(
            "SELECT user, at FROM inbox WHERE (user, seq) > (?1, 9223372036854775807) ORDER BY user, seq LIMIT 1",
        )?;
        let mut out: Vec<(UserId, u64)> = Vec::new();
        while out.len() < limit {
            let last = out.last().map(|(user, _)| user).or(after).map_or("", UserId::as_str);
            let Some((user, at)) =
                statement.query_row([last], |row| Ok((row.get::<_, String>(0)?, unsigned(row, 1)?))).optional()?
            else {
                break;
            };
            out.push((named(&user, UserId::parse)?, at));
        }
        Ok(out)
    }

    fn sweep_accepted(
        &mut self,
        after: Option<(MessageId, UserId)>,
        limit: usize,
        now: u64,
    ) -> Result<Option<(MessageId, UserId)>, StoreError> {
        let (id, sender) = after.as_ref().map_or(("", ""), |(id, sender)| (id.as_str(), sender.as_str()));
        let mut statement = self.connection.prepare_cached(
            "SELECT id, sender, until FROM accepted WHERE (id, sender) > (?1, ?2) ORDER BY id, sender LIMIT ?3",
        )?;
        let rows = statement.query_map(params![id, sender, number(limit as u64)], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, unsigned(row, 2)?))
        })?;
        let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
        drop(statement);
        if rows.iter().any(|(_, _, until)| *until < now) {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (id, sender, _) in rows.iter().filter(|(_, _, until)| *until < now) {
                transaction
                    .prepare_cached("DELETE FROM accepted WHERE id = ?1 AND sender = ?2")?
                    .execute(params![id, sender])?;
            }
            transaction.commit()?;
        }
        match rows.last() {
            Some((id, sender, _)) if rows.len() == limit => {
                Ok(Some((named(id, MessageId::parse)?, named(sender, UserId::parse)?)))
            }
            _ => Ok(None),
        }
    }
}

fn write_settlement(t: &Transaction<'_>, log: u8, settlement: &Settlement) -> Result<(), StoreError> {
    for (user, row) in &settlement.users {
        t.prepare_cached("INSERT OR REPLACE INTO users VALUES (?1, ?2, ?3, ?4)")?.execute(params![
            user.as_str(),
            number(row.last_seq),
            number(row.settled_seq),
            number(row.last_offset)
        ])?;
    }
    for (user, device, row) in &settlement.devices {
        match row {
            Some(row) => {
                t.prepare_cached(
                    "INSERT OR REPLACE INTO devices (user, device, cursor, active_at, skipped, offset, linked_at, seen_at, label)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                )?
                .execute(params![
                    user.as_str(),
                    device.as_str(),
                    number(row.cursor),
                    number(row.active_at),
                    number(row.skipped),
                    number(row.offset),
                    number(row.linked_at),
                    number(row.seen_at),
                    row.label.as_deref()
                ])?
            }
            None => t
                .prepare_cached("DELETE FROM devices WHERE user = ?1 AND device = ?2")?
                .execute(params![user.as_str(), device.as_str()])?,
        };
    }
    for (chat, last_n) in &settlement.chats {
        t.prepare_cached("INSERT OR REPLACE INTO chats VALUES (?1, ?2)")?
            .execute(params![chat.as_str(), number(*last_n)])?;
    }
    for (chat, user, row) in &settlement.members {
        t.prepare_cached("INSERT OR REPLACE INTO members VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
            chat.as_str(),
            user.as_str(),
            number(row.joined_n),
            row.left_n.map(number),
            number(row.delivered_n),
            number(row.read_n),
            row.is_admin
        ])?;
    }
    for message in &settlement.messages {
        t.prepare_cached("INSERT OR REPLACE INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
            message.chat.as_str(),
            number(message.n),
            message.from.as_str(),
            message.id.as_str(),
            number(message.timestamp),
            &*message.body
        ])?;
    }
    for (user, seq, row) in &settlement.inbox {
        write_inbox_row(t, user, *seq, row)?;
    }
    kept::settle(t, &settlement.kept)?;
    contacts::settle(t, settlement)?;
    blocks::settle(t, settlement)?;
    privacy::settle(t, settlement)?;
    unheard::settle(t, settlement)?;
    groups::settle(t, settlement)?;
    redacted::settle(t, settlement)?;
    status::settle(t, settlement)?;
    for (user, seq) in &settlement.gone {
        let place: Option<(Option<String>, Option<i64>)> = t
            .prepare_cached("DELETE FROM inbox WHERE user = ?1 AND seq = ?2 RETURNING chat, n")?
            .query_row(params![user.as_str(), number(*seq)], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((Some(chat), Some(n))) = place {
            drop_body(t, &chat, n)?;
        }
    }
    for (user, upto) in &settlement.dropped {
        let mut statement = t.prepare_cached("DELETE FROM inbox WHERE user = ?1 AND seq <= ?2 RETURNING chat, n")?;
        let rows = statement.query_map(params![user.as_str(), number(*upto)], |row| {
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<i64>>(1)?))
        })?;
        for place in rows.collect::<Result<Vec<_>, _>>()? {
            if let (Some(chat), Some(n)) = place {
                drop_body(t, &chat, n)?;
            }
        }
    }
    for (chat, n, _) in settlement.statuses.iter().filter(|(_, _, status)| status.is_none()) {
        drop_body(t, chat.as_str(), number(*n))?;
    }
    for (id, sender, accepted) in &settlement.accepted {
        t.prepare_cached("INSERT OR REPLACE INTO accepted VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
            id.as_str(),
            sender.as_str(),
            accepted.chat.as_str(),
            number(accepted.n),
            number(accepted.timestamp),
            &accepted.hash[..],
            number(accepted.until)
        ])?;
    }
    for (user, client_id, session) in &settlement.sessions {
        match session {
            Some(session) => {
                let held: Vec<u8> = session.held.iter().flat_map(|id| id.to_be_bytes()).collect();
                t.prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(
                    params![
                        user.as_str(),
                        client_id,
                        session.device.as_ref().map(DeviceId::as_str),
                        session.expiry_secs,
                        session.gone_at.map(number),
                        held
                    ],
                )?
            }
            None => t
                .prepare_cached("DELETE FROM sessions WHERE user = ?1 AND client_id = ?2")?
                .execute(params![user.as_str(), client_id])?,
        };
    }
    media::settle(t, settlement)?;
    for revoked in &settlement.revoked {
        let (kind, subject, before) = match revoked {
            Revoked::Token(_, jti) => (0, jti.as_str(), 0),
            Revoked::Device(_, device, before) => (1, device.as_str(), *before),
            Revoked::User(_, before) => (2, "", *before),
        };
        t.prepare_cached(
            "INSERT INTO revoked VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (user, kind, subject) DO UPDATE SET before = max(before, excluded.before)",
        )?
        .execute(params![revoked.user().as_str(), kind, subject, number(before)])?;
    }
    write_accounts(t, settlement)?;
    t.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('server_secs', ?1)")?
        .execute([number(settlement.server_secs)])?;
    t.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('settled:' || ?1, ?2)")?
        .execute(params![log, number(settlement.upto)])?;
    t.prepare_cached("DELETE FROM journal WHERE place BETWEEN ?1 << 48 AND (?1 << 48 | ?2)")?
        .execute(params![log, number(settlement.upto)])?;
    Ok(())
}

fn write_accounts(t: &Transaction<'_>, settlement: &Settlement) -> Result<(), StoreError> {
    for (user, account) in &settlement.accounts {
        if *account == Account::default() {
            t.prepare_cached("DELETE FROM accounts WHERE user = ?1")?.execute([user.as_str()])?;
        } else {
            t.prepare_cached("INSERT OR REPLACE INTO accounts VALUES (?1, ?2, ?3)")?.execute(params![
                user.as_str(),
                account.password.as_ref().map(|hash| &hash.0),
                account.disabled
            ])?;
        }
    }
    for (user, device, webhook) in &settlement.webhooks {
        match webhook {
            Some(Webhook { url, verify_token, secret }) => t
                .prepare_cached("INSERT OR REPLACE INTO webhooks VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![user.as_str(), device.as_str(), url, verify_token.0, secret.0])?,
            None => t
                .prepare_cached("DELETE FROM webhooks WHERE user = ?1 AND device = ?2")?
                .execute(params![user.as_str(), device.as_str()])?,
        };
    }
    Ok(())
}

fn write_inbox_row(t: &Transaction<'_>, user: &UserId, seq: Seq, row: &Row) -> Result<(), StoreError> {
    let mut statement = t.prepare_cached("INSERT OR REPLACE INTO inbox VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    let (chat, n, item) = match &row.item {
        Item::Message(message) => (Some(message.chat.as_str()), Some(number(message.n)), None),
        item => {
            let bytes = postcard::to_extend(item, Vec::new()).map_err(|e| StoreError::Database(e.to_string()))?;
            (None, None, Some(bytes))
        }
    };
    statement.execute(params![
        user.as_str(),
        number(seq),
        number(row.at),
        row.only.as_ref().map(DeviceId::as_str),
        row.except.as_ref().map(DeviceId::as_str),
        chat,
        n,
        item,
        number(row.offset)
    ])?;
    Ok(())
}

pub(super) fn drop_body(t: &Transaction<'_>, chat: &str, n: i64) -> Result<(), StoreError> {
    t.prepare_cached(
        "DELETE FROM messages WHERE chat = ?1 AND n = ?2
         AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.chat = ?1 AND inbox.n = ?2)
         AND NOT EXISTS (SELECT 1 FROM kept WHERE kept.chat = ?1 AND kept.n = ?2)
         AND NOT EXISTS (SELECT 1 FROM statuses s WHERE s.chat = ?1 AND s.n = ?2)",
    )?
    .execute(params![chat, n])?;
    Ok(())
}
