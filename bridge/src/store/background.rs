//! A check of the store while a server runs over it: once after the start, on a connection and a thread of its own.
//!
//! A reader keeps the WAL from starting again, so none stays for long: `quick_check` of a table is given `HOLD_MAX`. A table that is
//! too large for that is walked in key order instead, a little at a time, so that at least every page of it is read. The rests between
//! keep the check at a fifth of the disk's and a core's time, at most.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, params_from_iter};

use super::StoreError;
use super::audit::open_to_read;
use super::sqlite::wal_of;

/// How long a read transaction of the check may last.
const HOLD_MAX: Duration = Duration::from_secs(1);
/// How long a step of a walk may last: the writer waits for no reader, but a small machine has few cores.
const STEP_MAX: Duration = Duration::from_millis(20);
/// The rest after a step, in lengths of the step.
const REST: u32 = 4;
/// Steps of SQLite's machine between two looks at the clock.
const OPS_A_LOOK: i32 = 1000;
/// Findings that are kept; more add nothing.
const FINDINGS_MAX: usize = 20;

/// Every table, with its key.
const TABLES: [(&str, &str); 27] = [
    ("meta", "key"),
    ("journal", "log, no"),
    ("users", "name"),
    ("devices", "user, device"),
    ("chats", "chat"),
    ("members", "chat, user"),
    ("messages", "chat, n"),
    ("inbox", "user, seq"),
    ("accepted", "id, sender"),
    ("sessions", "user, client_id"),
    ("grants", "media, user"),
    ("media", "id"),
    ("revoked", "user, kind, subject"),
    ("kept", "user, chat, n"),
    ("accounts", "user"),
    ("webhooks", "user, device"),
    ("contacts", "user, contact"),
    ("statuses", "chat, n"),
    ("blocks", "user, other"),
    ("hidden", "user, chat, after"),
    ("last_seen", "user"),
    ("privacy", "user, aspect"),
    ("privacy_lists", "user, aspect, other"),
    ("unheard", "user, chat"),
    ("groups", "chat"),
    ("media_groups", "media, chat, n"),
    ("redacted", "chat, n"),
];

/// What the check has to say so far, and how large the WAL is.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    finished: AtomicBool,
    findings: Mutex<Vec<String>>,
}

impl Watch {
    /// Whether the check has come to its end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// What is wrong; at most 20 lines.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of the WAL.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        std::fs::metadata(wal_of(&self.path)).map_or(0, |metadata| metadata.len())
    }

    fn found(&self, what: String) {
        tracing::error!(finding = %what, "the store is damaged: stop the server and run `natter check`, or restore a backup");
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if findings.len() < FINDINGS_MAX {
            findings.push(what);
        }
    }
}

/// A check that runs; it ends with this value.
#[derive(Debug)]
pub struct Check {
    watch: Arc<Watch>,
    stopped: Arc<AtomicBool>,
    /// `Some` until the drop: its end wakes the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Check {
    /// Starts a check of the store at `path`, which must be open elsewhere already.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(path: &Path) -> std::io::Result<Self> {
        let watch =
            Arc::new(Watch { path: path.to_owned(), finished: AtomicBool::new(false), findings: Mutex::default() });
        let stopped = Arc::new(AtomicBool::new(false));
        let (stop, told) = channel();
        let check = (Arc::clone(&watch), Arc::clone(&stopped));
        let thread = std::thread::Builder::new().name("check".into()).spawn(move || {
            let (watch, stopped) = check;
            match run(&watch, &stopped, &told) {
                Ok(ControlFlow::Continue(())) => {
                    watch.finished.store(true, Ordering::Relaxed);
                    tracing::debug!("the store was checked");
                }
                Ok(ControlFlow::Break(())) => {}
                Err(error) => tracing::warn!(%error, "the store was not checked to the end"),
            }
        })?;
        Ok(Self { watch, stopped, stop: Some(stop), thread: Some(thread) })
    }

    /// What it has to say.
    #[must_use]
    pub fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Outcome = Result<ControlFlow<()>, StoreError>;

fn run(watch: &Watch, stopped: &Arc<AtomicBool>, told: &Receiver<()>) -> Outcome {
    let mut connection = open_to_read(&watch.path)?;
    for (table, key) in TABLES {
        let begun = Instant::now();
        let checked = check_table(&mut connection, table, stopped, HOLD_MAX);
        if stopped.load(Ordering::Relaxed) || rest(told, begun).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let outcome = match checked {
            Ok(findings) => {
                findings.into_iter().for_each(|finding| watch.found(format!("{table}: {finding}")));
                Ok(ControlFlow::Continue(()))
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                walk(&connection, table, key, told)
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(ControlFlow::Break(())),
            Err(error) if is_damage(&error) => watch.found(format!("{table}: {error}")),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase | SystemIoFailure))
}

/// SQLite's check of a table and its indexes; interrupted after `at_most`.
fn check_table(
    connection: &mut Connection,
    table: &str,
    stopped: &Arc<AtomicBool>,
    at_most: Duration,
) -> rusqlite::Result<Vec<String>> {
    let (deadline, stopped) = (Instant::now() + at_most, Arc::clone(stopped));
    let is_over = move || Instant::now() >= deadline || stopped.load(Ordering::Relaxed);
    connection.progress_handler(OPS_A_LOOK, Some(is_over))?;
    let findings = read_findings(connection, table);
    connection.progress_handler(OPS_A_LOOK, None::<fn() -> bool>)?;
    findings
}

fn read_findings(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA quick_check('{table}')"))?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    Ok(lines.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|line| line != "ok").collect())
}

/// Reads every row of a table, a step at a time.
fn walk(connection: &Connection, table: &str, key: &str, told: &Receiver<()>) -> rusqlite::Result<ControlFlow<()>> {
    let mut last: Vec<Value> = Vec::new();
    loop {
        let begun = Instant::now();
        let at_end = walk_step(connection, table, key, &mut last, STEP_MAX)?;
        if rest(told, begun).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if at_end {
            return Ok(ControlFlow::Continue(()));
        }
    }
}

/// Reads on behind `last`, for as long as `at_most`; `true`: to the end.
fn walk_step(
    connection: &Connection,
    table: &str,
    key: &str,
    last: &mut Vec<Value>,
    at_most: Duration,
) -> rusqlite::Result<bool> {
    let begun = Instant::now();
    let behind = match last.len() {
        0 => String::new(),
        columns => format!("WHERE ({key}) > ({})", vec!["?"; columns].join(", ")),
    };
    // The key comes first in every table; its columns are looked for by name all the same.
    let names: Vec<&str> = key.split(", ").collect();
    let mut statement = connection.prepare_cached(&format!("SELECT * FROM {table} {behind} ORDER BY {key}"))?;
    let at: Vec<usize> = names.iter().map(|name| statement.column_index(name)).collect::<Result<_, _>>()?;
    let columns = statement.column_count();
    let mut rows = statement.query(params_from_iter(std::mem::take(last)))?;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            // To the last byte: a body may lie on pages of its own.
            row.get_ref(column)?;
        }
        if begun.elapsed() >= at_most {
            *last = at.iter().map(|column| row.get(*column)).collect::<Result<_, _>>()?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Rests for a while in proportion to the work since `begun`, or until it is told to stop.
fn rest(told: &Receiver<()>, begun: Instant) -> ControlFlow<()> {
    match told.recv_timeout(begun.elapsed() * REST) {
        Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;

    #[test]
    fn every_table_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("natter.db");
        let store = Sqlite::open(&path).unwrap();
        let mut statement =
            store.connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
        let there: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut known = TABLES.map(|(table, _)| table);
        known.sort_unstable();
        assert_eq!(there, known);
    }

    #[test]
    fn a_table_is_walked_to_its_end_in_steps_of_any_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("natter.db");
        let store = Sqlite::open(&path).unwrap();
        for seq in 0..500 {
            let user = format!("u{}", seq % 7);
            store
                .connection
                .execute(
                    "INSERT INTO devices (user, device, cursor, active_at) VALUES (?1, ?2, 1, 1)",
                    [user, format!("d{seq}")],
                )
                .unwrap();
        }
        let connection = open_to_read(&path).unwrap();
        let (mut last, mut steps) = (Vec::new(), 0);
        while !walk_step(&connection, "devices", "user, device", &mut last, Duration::ZERO).unwrap() {
            steps += 1;
        }
        assert_eq!(steps, 500, "a row a step, none twice");
    }

    #[test]
    fn a_table_that_takes_too_long_is_let_go_and_walked_and_its_damage_is_found_so_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("natter.db");
        let mut store = Sqlite::open(&path).unwrap();
        let transaction = store.connection.transaction().unwrap();
        for seq in 0..20_000 {
            let sql = "INSERT INTO devices (user, device, cursor, active_at) VALUES ('u', ?1, 1, 1)";
            transaction.execute(sql, [format!("d{seq:06}")]).unwrap();
        }
        transaction.commit().unwrap();
        drop(store);
        let mut connection = open_to_read(&path).unwrap();
        let stopped = Arc::default();
        let error = check_table(&mut connection, "devices", &stopped, Duration::ZERO).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::OperationInterrupted), "{error}");
        assert_eq!(check_table(&mut connection, "devices", &stopped, HOLD_MAX * 60).unwrap(), Vec::<String>::new());
        let (_stop, told) = channel();
        let walked = walk(&connection, "devices", "user, device", &told).unwrap();
        assert_eq!(walked, ControlFlow::Continue(()), "to its end");

        // A leaf in the middle of the file is none any more.
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        drop(connection);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let at = u64::try_from(pages * 3 / 4 * 4096).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0x77], at).unwrap();
        let connection = open_to_read(&path).unwrap();
        let error = walk(&connection, "devices", "user, device", &told).unwrap_err();
        assert!(is_damage(&error), "{error}");
    }
}
