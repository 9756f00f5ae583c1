//! The schema's versions, and the way from one to the next.
//!
//! A step and its number come in one transaction: an interrupted one leaves the version before it, whole, and the next start goes on
//! from there. A step that was released is never edited; what comes later is a step more.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// What makes version 1 of an empty file, version 2 of version 1, and so on.
const STEPS: [&str; 13] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
    include_str!("schema_8.sql"),
    include_str!("schema_9.sql"),
    include_str!("schema_10.sql"),
    include_str!("schema_11.sql"),
    include_str!("schema_12.sql"),
    include_str!("schema_13.sql"),
];

/// Brings the schema to the version this program writes.
///
/// # Errors
/// When a newer program has written the file, or a step cannot be committed: the file is at the version before it then.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = known(version)?;
    for (index, step) in STEPS.iter().enumerate().skip(done) {
        let version = index as i64 + 1;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
        if done > 0 {
            tracing::info!(version, "the store's schema was brought to this version");
        }
    }
    Ok(())
}

/// How many steps a schema of this version has behind it.
///
/// # Errors
/// A newer program has written it.
pub(super) fn known(version: i64) -> Result<usize, StoreError> {
    usize::try_from(version).ok().filter(|version| *version <= STEPS.len()).ok_or_else(|| {
        StoreError::Database(format!(
            "expected a schema of version {} at most, got {version}: the file was written by a newer natter; run that one, or put a \
             backup back that was made before",
            STEPS.len()
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::store::Store as _;
    use crate::store::sqlite::Sqlite;

    /// Rows of every kind, as version 1 had them.
    const ROWS: &str = "
        INSERT INTO meta VALUES ('server_secs', 5), ('settled:0', 6), ('boot', 2);
        INSERT INTO journal VALUES (0, 7, x'0100');
        INSERT INTO users VALUES ('alice', 3, 3), ('bob', 2, 2);
        INSERT INTO devices VALUES ('bob', 'phone', 1, 4);
        INSERT INTO chats VALUES ('alice+bob', 2);
        INSERT INTO messages VALUES ('alice+bob', 2, 'alice', 'm2', 1764000000, '{}');
        INSERT INTO inbox VALUES ('bob', 2, 4, NULL, NULL, 'alice+bob', 2, NULL);
        INSERT INTO accepted VALUES ('m2', 'alice', 'alice+bob', 2, 1764000000, x'00112233445566778899aabbccddeeff', 99);";
    /// With their columns in version 1; later ones come behind them.
    const TABLES: [(&str, usize); 8] = [
        ("meta", 2),
        ("journal", 3),
        ("users", 3),
        ("devices", 4),
        ("chats", 2),
        ("messages", 6),
        ("inbox", 8),
        ("accepted", 7),
    ];

    fn version_1(path: &Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        connection.execute_batch(STEPS[0]).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        connection.execute_batch(ROWS).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        connection
    }

    /// Every value of every row, and the version.
    fn contents(connection: &Connection) -> (i64, Vec<String>) {
        let mut out = Vec::new();
        for (table, columns) in TABLES {
            let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
            assert!(statement.column_count() >= columns);
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let values: Vec<_> = (0..columns).map(|column| format!("{:?}", row.get_ref(column).unwrap())).collect();
                out.push(format!("{table}: {}", values.join(", ")));
            }
        }
        (connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap(), out)
    }

    /// What a crash at this moment leaves.
    fn copy(from: &Path, to: &Path) {
        for suffix in ["", "-wal"] {
            let of = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            std::fs::copy(of(from), of(to)).unwrap();
        }
    }

    /// The newest version.
    const NEWEST: i64 = STEPS.len() as i64;

    /// The file is at one of the versions with all its rows, and the next start brings it to the newest.
    fn assert_whole(path: &Path, rows: &[String], when: &str) -> i64 {
        let connection = Connection::open(path).unwrap();
        let (version, found) = contents(&connection);
        assert!((1..=NEWEST).contains(&version), "{when}: version {version}");
        assert_eq!(found, rows, "{when}");
        let tables = [
            ("kept", 2),
            ("accounts", 3),
            ("media", 4),
            ("contacts", 5),
            ("statuses", 6),
            ("blocks", 8),
            ("hidden", 8),
            ("last_seen", 9),
            ("privacy", 9),
            ("privacy_lists", 9),
            ("unheard", 10),
            ("groups", 12),
            ("media_groups", 12),
            ("redacted", 13),
        ];
        for (table, since) in tables {
            let is_there = connection.prepare(&format!("SELECT * FROM {table}")).is_ok();
            assert_eq!(is_there, version >= since, "{when}: version {version}, and {table}: {is_there}");
        }
        drop(connection);
        let mut store = Sqlite::open(path).unwrap();
        assert_eq!(store.journal(0).unwrap(), [(7, vec![1, 0])], "{when}");
        assert_eq!(contents(&store.connection), (NEWEST, rows.to_vec()), "{when}");
        version
    }

    /// Instructions of SQLite that a migration of `template` takes up to the end of each version.
    fn instructions(template: &Path) -> Vec<usize> {
        let path = template.with_file_name("counted.db");
        std::fs::copy(template, &path).unwrap();
        let mut connection = Connection::open(&path).unwrap();
        contents(&connection);
        let (count, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let counted = Arc::clone(&count);
        let each = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        connection.progress_handler(1, Some(each)).unwrap();
        let (counted, noted) = (Arc::clone(&count), Arc::clone(&ends));
        let at_commit = move || {
            noted.lock().unwrap().push(counted.load(Ordering::Relaxed));
            false
        };
        connection.commit_hook(Some(at_commit)).unwrap();
        migrate(&mut connection).unwrap();
        drop(connection);
        let mut ends = ends.lock().unwrap().clone();
        ends.push(count.load(Ordering::Relaxed));
        ends
    }

    /// Where the migration is stopped: often in the last two versions. What made the older ones was stopped like that when they were the
    /// last, and is never edited, so that of them a sample is enough: each version would make the test longer for ever. With `NATTER_TEST_ALL=1`
    /// it is stopped at every third instruction of all, which takes minutes.
    fn stops(ends: &[usize]) -> Vec<usize> {
        let end = ends.last().copied().unwrap();
        if std::env::var_os("NATTER_TEST_ALL").is_some() {
            return (0..end).step_by(3).chain([end]).collect();
        }
        let newest = ends.iter().rev().nth(3).copied().unwrap();
        // About 15 of each version.
        let sample = (0..newest).step_by((newest / (15 * STEPS.len())).max(1) | 1);
        sample.chain((newest..end).step_by(7)).chain([end]).collect()
    }

    #[test]
    fn a_migration_that_fails_or_dies_at_any_step_leaves_the_old_or_the_new_schema_with_every_row() {
        let dir = tempfile::tempdir().unwrap();
        let template = dir.path().join("template.db");
        let (_, rows) = contents(&version_1(&template));
        let mut versions = [0; STEPS.len() + 1];
        let mut finished = false;
        let ends = instructions(&template);
        assert_eq!(ends.len(), STEPS.len(), "a commit of each version but the first, and the end: {ends:?}");
        for stop_at in stops(&ends) {
            let (path, killed) = (dir.path().join("failed.db"), dir.path().join("killed.db"));
            for leftover in ["failed.mark", "killed.mark", "killed.db-wal", "killed.db-shm"] {
                let _ = std::fs::remove_file(dir.path().join(leftover));
            }
            std::fs::copy(&template, &path).unwrap();
            let mut connection = Connection::open(&path).unwrap();
            // The WAL is there from the first step on.
            contents(&connection);
            let steps = Arc::new(AtomicUsize::new(0));
            let handler = {
                let (steps, path, killed) = (Arc::clone(&steps), path.clone(), killed.clone());
                move || {
                    let here = steps.fetch_add(1, Ordering::Relaxed) == stop_at;
                    if here {
                        copy(&path, &killed);
                    }
                    here
                }
            };
            connection.progress_handler(1, Some(handler)).unwrap();
            let outcome = migrate(&mut connection);
            connection.progress_handler(1, None::<fn() -> bool>).unwrap();
            drop(connection);
            if steps.load(Ordering::Relaxed) <= stop_at {
                outcome.unwrap();
                finished = true;
                break;
            }
            let version = assert_whole(&path, &rows, &format!("an error at step {stop_at}"));
            versions[usize::try_from(version).unwrap()] += 1;
            assert_whole(&killed, &rows, &format!("killed at step {stop_at}"));
        }
        assert!(finished && versions[1..].iter().rev().skip(1).all(|count| *count > 2), "{versions:?}");
    }

    #[test]
    fn a_migration_whose_commit_was_half_written_has_not_happened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("natter.db");
        let mut connection = version_1(&path);
        let (_, rows) = contents(&connection);
        migrate(&mut connection).unwrap();
        let torn = dir.path().join("torn.db");
        let length = std::fs::metadata(dir.path().join("natter.db-wal")).unwrap().len();
        let mut versions = [0; STEPS.len() + 1];
        for bytes in (0..=length).step_by(509).chain([length]) {
            for leftover in ["torn.db-shm", "torn.mark"] {
                let _ = std::fs::remove_file(dir.path().join(leftover));
            }
            copy(&path, &torn);
            let wal = std::fs::OpenOptions::new().write(true).open(dir.path().join("torn.db-wal")).unwrap();
            wal.set_len(bytes).unwrap();
            versions[usize::try_from(assert_whole(&torn, &rows, &format!("{bytes} bytes of the WAL"))).unwrap()] += 1;
        }
        assert!(versions[1] > 20 && versions[2..].iter().all(|count| *count > 0), "{versions:?}");
    }

    #[test]
    fn the_file_of_a_newer_program_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("natter.db");
        drop(version_1(&path));
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let before = contents(&connection);
        let error = Sqlite::open(&path).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(&format!("{NEWEST} at most, got 99")) && error.contains("newer natter"), "{error}");
        assert_eq!(contents(&connection), before);
    }
}
