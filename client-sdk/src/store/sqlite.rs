//! The store of most apps: one SQLite file, which may hold the app's own tables too.

use std::any::Any;
use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{IncomingRow, Outcome, OutgoingRow, Owner, ReceiptRow, Snapshot, Store, StoreError, Work, Write};
use crate::error::BoxError;

/// Tables of the app must have other names; these begin with `natter_`.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS natter_meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS natter_outgoing(key INTEGER PRIMARY KEY, id TEXT, chat TEXT, payload BLOB NOT NULL, created_ms INTEGER NOT NULL,
  tried_ms INTEGER, state INTEGER NOT NULL, n INTEGER, timestamp INTEGER, code INTEGER, details TEXT);
CREATE TABLE IF NOT EXISTS natter_incoming(seq INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS natter_receipts(chat TEXT PRIMARY KEY, ranges TEXT NOT NULL) WITHOUT ROWID;";
const VERSION: &str = "1";
const QUEUED: i64 = 0;
const SENT: i64 = 1;
const FAILED: i64 = 2;

/// One SQLite file (WAL, `synchronous=FULL`: what is committed survives a power cut), locked against a second process.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = natter_client::store::SqliteStore::open("alice.db")?;
/// let client = natter_client::Client::builder("mqtt://127.0.0.1:1883").user("alice").token("..").custom_store(store).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    db: Connection,
    path: PathBuf,
    /// Held as long as the store lives; made by `load`, so that two stores of one file are told apart.
    lock: Option<File>,
}

impl SqliteStore {
    /// Opens the file, and makes it where there is none.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), natter_client::store::StoreError> {
    /// let store = natter_client::store::SqliteStore::open("alice.db")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// It cannot be opened, or is no SQLite file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let open = || -> rusqlite::Result<Connection> {
            let db = Connection::open(&path)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "FULL")?;
            db.busy_timeout(std::time::Duration::from_secs(10))?;
            db.execute_batch(SCHEMA)?;
            Ok(db)
        };
        let db = open().map_err(|error| StoreError(format!("{}: {error}", path.display())))?;
        Ok(Self { db, path, lock: None })
    }

    fn lock(&mut self) -> Result<(), StoreError> {
        if self.lock.is_none() {
            let path = self.path.with_extension("lock");
            let fail = |error: &dyn std::fmt::Display| StoreError(format!("{}: {error}", path.display()));
            let file = File::create(&path).map_err(|error| fail(&error))?;
            file.try_lock().map_err(|error| fail(&format!("expected to be the only client of this store: {error}")))?;
            self.lock = Some(file);
        }
        Ok(())
    }
}

fn sql(error: rusqlite::Error) -> StoreError {
    StoreError(error.to_string())
}

impl Store for SqliteStore {
    fn load(&mut self, owner: &Owner) -> Result<Snapshot, StoreError> {
        self.lock()?;
        for (key, value) in [("version", VERSION), ("user", &owner.user), ("device", &owner.device)] {
            let query = "INSERT INTO natter_meta VALUES(?1,?2) ON CONFLICT DO UPDATE SET value=value RETURNING value";
            let found: String = self.db.query_row(query, [key, value], |row| row.get(0)).map_err(sql)?;
            if found != value {
                let path = self.path.display();
                return Err(StoreError(format!("{path}: expected a store of {key} {value}, got {key} {found}")));
            }
        }
        read(&self.db).map_err(sql)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let tx = self.db.transaction().map_err(sql)?;
        apply(&tx, writes).and_then(|()| tx.commit()).map_err(sql)
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn transaction(&mut self, writes: &[Write], work: Work<'_>) -> Result<(), BoxError> {
        let tx = self.db.transaction()?;
        let db: &Connection = &tx;
        work(db as &dyn Any)?;
        apply(&tx, writes)?;
        Ok(tx.commit()?)
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn read(db: &Connection) -> rusqlite::Result<Snapshot> {
    let last = db.query_row("SELECT value FROM natter_meta WHERE key='last_seq'", [], |row| row.get::<_, String>(0));
    let last_seq = last.optional()?.and_then(|text| text.parse().ok());
    let mut query = db.prepare(
        "SELECT key,id,chat,payload,created_ms,tried_ms,state,n,timestamp,code,details FROM natter_outgoing ORDER BY key",
    )?;
    let outgoing = query.query_map([], |row| {
        let sent = row.get::<_, Option<i64>>(7)?.zip(row.get::<_, Option<i64>>(8)?);
        let sent = sent.map(|(n, timestamp)| (n.unsigned_abs(), timestamp.unsigned_abs()));
        let outcome = match (row.get::<_, i64>(6)?, sent) {
            (SENT, Some((n, timestamp))) => Outcome::Sent { n, timestamp },
            (FAILED, sent) => Outcome::Failed { code: row.get(9)?, details: row.get(10)?, sent },
            _ => Outcome::Queued,
        };
        Ok(OutgoingRow {
            key: row.get::<_, i64>(0)?.unsigned_abs(),
            id: row.get(1)?,
            chat: row.get(2)?,
            payload: row.get(3)?,
            created_ms: row.get(4)?,
            tried_ms: row.get(5)?,
            outcome,
        })
    })?;
    let outgoing = outgoing.collect::<rusqlite::Result<_>>()?;
    let mut query = db.prepare("SELECT seq,payload FROM natter_incoming ORDER BY seq")?;
    let incoming = query
        .query_map([], |row| Ok(IncomingRow { seq: row.get::<_, i64>(0)?.unsigned_abs(), payload: row.get(1)? }))?;
    let incoming = incoming.collect::<rusqlite::Result<_>>()?;
    let mut query = db.prepare("SELECT chat,ranges FROM natter_receipts ORDER BY chat")?;
    let receipts = query.query_map([], |row| {
        let (delivered, read) = serde_json::from_str(&row.get::<_, String>(1)?).unwrap_or_default();
        Ok(ReceiptRow { chat: row.get(0)?, delivered, read })
    })?;
    let epoch = db.query_row("SELECT value FROM natter_meta WHERE key='epoch'", [], |row| row.get(0)).optional()?;
    Ok(Snapshot { last_seq, epoch, outgoing, incoming, receipts: receipts.collect::<rusqlite::Result<_>>()? })
}

fn apply(db: &Connection, writes: &[Write]) -> rusqlite::Result<()> {
    let mut last = None;
    for write in writes {
        match write {
            Write::Outgoing(row) => put_outgoing(db, row)?,
            Write::ForgetOutgoing(key) => {
                db.prepare_cached("DELETE FROM natter_outgoing WHERE key=?1")?.execute([number(*key)])?;
            }
            Write::Tried { upto, at_ms } => {
                let query = "UPDATE natter_outgoing SET tried_ms=?2 WHERE key<=?1 AND state=0 AND tried_ms IS NULL";
                db.prepare_cached(query)?.execute(params![number(*upto), at_ms])?;
            }
            Write::Incoming(row) => {
                last = last.max(Some(row.seq));
                let query = "INSERT OR REPLACE INTO natter_incoming VALUES(?1,?2)";
                db.prepare_cached(query)?.execute(params![number(row.seq), row.payload])?;
            }
            Write::Taken(seq) => {
                db.prepare_cached("DELETE FROM natter_incoming WHERE seq=?1")?.execute([number(*seq)])?;
            }
            Write::Epoch(epoch) => {
                db.prepare_cached("INSERT OR REPLACE INTO natter_meta VALUES('epoch',?1)")?.execute([epoch])?;
            }
            Write::BeginAnew => {
                last = None;
                db.execute_batch("DELETE FROM natter_meta WHERE key='last_seq'; DELETE FROM natter_receipts")?;
            }
            Write::Receipts(row) => {
                let ranges = serde_json::json!([row.delivered, row.read]).to_string();
                let query = "INSERT OR REPLACE INTO natter_receipts VALUES(?1,?2)";
                db.prepare_cached(query)?.execute([&row.chat, &ranges])?;
            }
        }
    }
    if let Some(last) = last {
        let query = "INSERT INTO natter_meta VALUES('last_seq',?1) ON CONFLICT DO UPDATE SET value=excluded.value \
                     WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)";
        db.prepare_cached(query)?.execute([last.to_string()])?;
    }
    Ok(())
}

fn put_outgoing(db: &Connection, row: &OutgoingRow) -> rusqlite::Result<()> {
    let (state, sent, code, details) = match &row.outcome {
        Outcome::Queued => (QUEUED, None, None, None),
        Outcome::Sent { n, timestamp } => (SENT, Some((*n, *timestamp)), None, None),
        Outcome::Failed { code, details, sent } => (FAILED, *sent, Some(*code), Some(details)),
    };
    let (n, timestamp) = sent.map(|(n, t)| (number(n), number(t))).unzip();
    let query = "INSERT OR REPLACE INTO natter_outgoing VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)";
    db.prepare_cached(query)?.execute(params![
        number(row.key),
        row.id,
        row.chat,
        row.payload,
        row.created_ms,
        row.tried_ms,
        state,
        n,
        timestamp,
        code,
        details
    ])?;
    Ok(())
}
