//! The stores keep what a store must keep, and the SQLite one what it promises beyond that.
#![cfg_attr(feature = "sqlite", allow(clippy::unwrap_used, reason = "a test ends that way"))]

use natter_client::store::{MemoryStore, conformance};

#[test]
fn memory_conforms() {
    assert_eq!(conformance::check(MemoryStore::default), Ok(()));
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use natter_client::rusqlite::Connection;
    use natter_client::store::{IncomingRow, Owner, SqliteStore, Store, Write, conformance};

    fn owner() -> Owner {
        Owner { user: "alice".into(), device: "phone".into() }
    }

    #[test]
    fn sqlite_conforms() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(conformance::check(|| SqliteStore::open(dir.path().join("alice.db")).unwrap()), Ok(()));
    }

    #[test]
    fn a_second_client_of_a_file_is_refused_as_long_as_the_first_lives() {
        let dir = tempfile::tempdir().unwrap();
        let open = || SqliteStore::open(dir.path().join("alice.db")).unwrap();
        let (mut first, mut second) = (open(), open());
        first.load(&owner()).unwrap();
        let refused = second.load(&owner()).unwrap_err();
        assert!(refused.to_string().contains("the only client"), "{refused}");
        drop(first);
        second.load(&owner()).unwrap();
    }

    #[test]
    fn what_is_committed_is_synced_and_the_app_s_rows_go_with_it_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alice.db");
        let mut store = SqliteStore::open(&path).unwrap();
        store.load(&owner()).unwrap();
        let entry = IncomingRow { seq: 5, payload: b"{}".to_vec() };
        store.commit(&[Write::Incoming(entry.clone())]).unwrap();
        let insert = |fail: bool| {
            move |inside: &dyn std::any::Any| {
                let db = inside.downcast_ref::<Connection>().unwrap();
                let synchronous: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
                assert_eq!(synchronous, 2, "FULL");
                db.execute_batch("CREATE TABLE IF NOT EXISTS seen(seq INTEGER); INSERT INTO seen VALUES(5)")?;
                if fail { Err("no".into()) } else { Ok(()) }
            }
        };
        assert!(store.transaction(&[Write::Taken(5)], &mut insert(true)).is_err());
        assert_eq!(store.load(&owner()).unwrap().incoming, [entry]);
        store.transaction(&[Write::Taken(5)], &mut insert(false)).unwrap();
        assert!(store.load(&owner()).unwrap().incoming.is_empty());
        let seen: i64 =
            Connection::open(&path).unwrap().query_row("SELECT count(*) FROM seen", [], |row| row.get(0)).unwrap();
        assert_eq!(seen, 1);
    }
}
