//! Others at the same database: they make a batch wait or fail, and never share the journal.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::sqlite::{BUSY_TIMEOUT, Sqlite, wal_of};
use super::{Append, Settlement, Store, StoreError};

const ROW: &[u8] = &[1, 0];

struct Place {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    Place { path: dir.path().join("natter.db"), _dir: dir }
}

#[track_caller]
fn assert_committed(outcome: &Append) {
    assert!(matches!(outcome, Append::Committed), "{outcome:?}");
}

#[test]
fn a_batch_waits_for_another_writer() {
    let place = place();
    let mut store = Sqlite::open(&place.path).unwrap();
    let held = Duration::from_millis(300);
    assert!(held < BUSY_TIMEOUT);
    let (begun_tx, begun) = channel();
    let path = place.path.clone();
    let other = thread::spawn(move || {
        let other = Connection::open(path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        begun_tx.send(()).unwrap();
        thread::sleep(held);
        other.execute_batch("COMMIT").unwrap();
    });
    begun.recv().unwrap();
    let asked = Instant::now();
    assert_committed(&store.append(0, 1, ROW));
    assert!(asked.elapsed() >= held / 2, "it waited: {:?}", asked.elapsed());
    other.join().unwrap();
}

#[test]
fn a_writer_that_stays_too_long_fails_the_batch_whole_and_the_next_one_goes_on() {
    let place = place();
    let mut store = Sqlite::open(&place.path).unwrap();
    store.connection.busy_timeout(Duration::from_millis(100)).unwrap();
    assert_committed(&store.append(0, 1, ROW));
    let other = Connection::open(&place.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(store.append(0, 2, ROW), Append::Failed(StoreError::Database(_))));
    assert!(store.settle(0, &Settlement { upto: 1, ..Settlement::default() }).is_err());
    assert_eq!(store.journal(0).unwrap().len(), 1, "reads go on, and nothing of the batch is there");
    other.execute_batch("COMMIT").unwrap();
    assert_committed(&store.append(0, 2, ROW));
    drop(store);
    assert_eq!(Sqlite::open(&place.path).unwrap().next_no(0).unwrap(), 3);
}

#[test]
fn who_does_not_own_the_journal_can_neither_append_nor_settle() {
    let place = place();
    let mut one = Sqlite::open(&place.path).unwrap();
    let mut other = Sqlite::open(&place.path).unwrap();
    assert_committed(&one.append(0, 1, ROW));
    assert_committed(&one.append(0, 2, ROW));
    assert!(matches!(other.append(0, 1, ROW), Append::Fenced));
    let settlement = Settlement { upto: 1, ..Settlement::default() };
    let error = other.settle(0, &settlement).unwrap_err().to_string();
    assert!(error.contains("another process has written"), "{error}");
    one.settle(0, &settlement).unwrap();
    assert_eq!(one.journal(0).unwrap(), [(2, ROW.to_vec())]);
    one.settle(0, &Settlement { upto: 2, ..Settlement::default() }).unwrap();
    assert_committed(&one.append(0, 3, ROW));
}

#[test]
fn the_wal_is_cut_back_after_a_burst_that_a_reader_has_made_long() {
    let place = place();
    let mut store = Sqlite::open(&place.path).unwrap();
    let wal_bytes = || std::fs::metadata(wal_of(&place.path)).unwrap().len();
    let reader = Connection::open(&place.path).unwrap();
    assert_committed(&store.append(0, 1, ROW));
    reader.execute_batch("BEGIN; SELECT count(*) FROM journal").unwrap();
    let mut no = 1;
    while wal_bytes() < 20 << 20 {
        no += 1;
        assert_committed(&store.append(0, no, &vec![7; 256 * 1024]));
    }
    reader.execute_batch("COMMIT").unwrap();
    // The first commit moves everything into the database, the second starts the WAL again and cuts it.
    for _ in 0..2 {
        no += 1;
        assert_committed(&store.append(0, no, ROW));
    }
    assert!(wal_bytes() <= 16 << 20, "{} bytes", wal_bytes());
}

#[test]
fn the_files_are_their_owners_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = place();
    let mut store = Sqlite::open(&place.path).unwrap();
    assert_committed(&store.append(0, 1, ROW));
    for path in [place.path.clone(), wal_of(&place.path), super::mark::path_of(&place.path)] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
}
