//! A database with damaged bytes: it is opened or refused, checked and recovered, and nothing of that ever panics; what SQLite can see of
//! the damage is a finding or an error, never another journal.

#![allow(clippy::unwrap_used, reason = "a test ends where its world does not hold")]

use std::path::Path;
use std::sync::Arc;

use natter_bridge::config::Limits;
use natter_bridge::engine::{Engine, Event, Now, Request};
use natter_bridge::store::audit::audit;
use natter_bridge::store::sqlite::Sqlite;
use natter_protocol::UserId;

const CASES: u64 = 200;

/// splitmix64.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *seed;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn recover(path: &Path) -> Option<Engine<Sqlite>> {
    let store = Sqlite::open(path).ok()?;
    Engine::recover(store, Limits::default(), Arc::default()).ok()
}

fn add(engine: &mut Engine<Sqlite>, name: &str) -> bool {
    let request = Event::Request(0, Request::AddUser(UserId::parse(name).unwrap()));
    engine.handle(request, Now { server_secs: 1, unix_secs: 1 }).is_ok() && engine.commit().is_ok()
}

#[test]
fn damaged_bytes_never_panic_and_a_damaged_page_head_is_always_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("natter.db");
    let mut engine = recover(&path).unwrap();
    for i in 0..300 {
        assert!(add(&mut engine, &format!("user-{i}")));
        if i == 200 {
            while engine.settle().unwrap() {}
        }
    }
    drop(engine);
    assert_eq!(audit(&path, false, &mut |_| ()).unwrap().findings, Vec::<String>::new());
    let whole = std::fs::read(&path).unwrap();
    let mark = std::fs::read(dir.path().join("natter.mark")).unwrap();
    // Free pages may hold anything: the pages that tables and indexes begin with are in use. One without a cell holds nothing that could
    // be lost, and SQLite does not look at it closely.
    let connection = rusqlite::Connection::open(&path).unwrap();
    let mut statement = connection.prepare("SELECT rootpage FROM sqlite_schema WHERE rootpage > 0").unwrap();
    let roots: Vec<i64> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let roots: Vec<i64> = roots
        .into_iter()
        .filter(|root| {
            let head = usize::try_from(root - 1).unwrap() * 4096;
            // The first page begins with the file's own head, the schema's behind it.
            *root == 1 || whole[head + 3..head + 5] != [0, 0]
        })
        .collect();
    drop(statement);
    drop(connection);

    let (mut seed, mut seen) = (1, 0);
    for case in 0..CASES {
        let mut damaged = whole.clone();
        let heads_only = case % 2 == 0;
        let at = if heads_only {
            let root = roots[usize::try_from(random(&mut seed) % roots.len() as u64).unwrap()];
            // Its kind, or how many cells it has.
            usize::try_from(root - 1).unwrap() * 4096 + usize::try_from(random(&mut seed) % 2).unwrap() * 3
        } else {
            usize::try_from(random(&mut seed) % whole.len() as u64).unwrap()
        };
        damaged[at] ^= 1 << (random(&mut seed) % 8);
        std::fs::write(&path, &damaged).unwrap();
        std::fs::write(dir.path().join("natter.mark"), &mark).unwrap();
        for leftover in ["natter.db-wal", "natter.db-shm"] {
            let _ = std::fs::remove_file(dir.path().join(leftover));
        }
        let found = audit(&path, false, &mut |_| ()).map_or(true, |report| !report.findings.is_empty());
        seen += u64::from(found);
        assert!(found || !heads_only, "case {case}: byte {at} of {}", whole.len());
        if let Some(mut engine) = recover(&path) {
            // Whether it can still be written does not matter here; that it says so does.
            add(&mut engine, "user-x");
            add(&mut engine, "user-7");
            let _ = engine.settle();
        }
    }
    assert!(seen >= CASES / 2, "{seen} of {CASES}");
}
