//! The SDK with a store, against the real server: what is on the disk goes on where it was.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends that way")]

mod common;

use std::path::Path;

use common::{TestServer, patience};
use natter_client::rusqlite::Connection;
use natter_client::{Client, ConnectionState, Error, Event, Events, Tick};
use tokio::time::timeout;

async fn open(server: &TestServer, user: &str, dir: &Path) -> Client {
    let url = format!("mqtt://{}", server.mqtt());
    let builder = Client::builder(&url).user(user).device("phone").token(server.token(user));
    builder.store(dir.join(format!("{user}.db"))).start().await.expect("a store")
}

async fn message(events: &mut Events) -> natter_client::IncomingMessage {
    loop {
        match timeout(patience(), events.next()).await {
            Ok(Some(Event::Message(message))) => break message,
            Ok(Some(_)) => {}
            other => panic!("expected a message, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_sent_without_a_server_goes_out_after_a_restart_and_its_ticks_are_found_by_id() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let dir = tempfile::tempdir().unwrap();
    let nowhere = Client::builder("mqtt://127.0.0.1:1").user("alice").device("phone").token("t");
    let alice = nowhere.store(dir.path().join("alice.db")).start().await.unwrap();
    let mut ids = Vec::new();
    for i in 0..20 {
        ids.push(alice.chat("bob").send_text(i.to_string()).await.unwrap().id().to_owned());
    }
    assert_eq!(alice.close(std::time::Duration::ZERO).await, 20);
    assert!(matches!(alice.chat("bob").send_text("late").await, Err(Error::Closed)));

    let alice = open(&server, "alice", dir.path()).await;
    let bob = open(&server, "bob", dir.path()).await;
    let mut events = bob.events();
    for (i, id) in ids.iter().enumerate() {
        let message = message(&mut events).await;
        assert_eq!((message.text(), &message.id), (Some(i.to_string().as_str()), id));
        if i == 19 {
            message.mark_read().await.unwrap();
        }
    }
    let last = alice.message(&ids[19]).expect("known by its id");
    timeout(patience(), last.read()).await.expect("read").unwrap();
    assert_eq!(alice.close(patience()).await, 0);

    let alice = open(&server, "alice", dir.path()).await;
    assert_eq!(alice.message(&ids[0]).expect("after a restart too").progress().tick, Tick::Read);
    assert!(alice.outgoing().is_empty());
    alice.forget(&ids[0]).await.unwrap();
    alice.close(patience()).await;
    assert!(open(&server, "alice", dir.path()).await.message(&ids[0]).is_none());
}

#[tokio::test]
async fn in_a_transaction_the_app_s_rows_have_every_event_once_whatever_ends_between() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let dir = tempfile::tempdir().unwrap();
    let alice = open(&server, "alice", dir.path()).await;
    for i in 0..30 {
        alice.chat("bob").send_text(i.to_string()).await.unwrap();
    }
    let keep = |fail: bool| {
        move |db: &Connection, event: Event| {
            db.execute("CREATE TABLE IF NOT EXISTS seen(text TEXT)", [])?;
            if let Event::Message(message) = &event {
                db.execute("INSERT INTO seen VALUES(?1)", [message.text()])?;
            }
            if fail { Err("no".into()) } else { Ok(()) }
        }
    };
    // Three processes; each is refused once, and ends with something handed out and not taken.
    for _ in 0..3 {
        let bob = open(&server, "bob", dir.path()).await;
        let mut events = bob.events();
        assert!(matches!(events.next_in_transaction(keep(true)).await, Err(Error::Transaction(_))));
        for _ in 0..10 {
            let done = timeout(patience(), events.next_in_transaction(keep(false))).await.expect("an event");
            assert_eq!(done, Ok(Some(())));
        }
        bob.close(patience()).await;
    }
    let db = Connection::open(dir.path().join("bob.db")).unwrap();
    let mut query = db.prepare("SELECT text FROM seen ORDER BY rowid").unwrap();
    let seen: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(seen, (0..30).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_handed_out_and_not_acknowledged_comes_again() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let dir = tempfile::tempdir().unwrap();
    let alice = open(&server, "alice", dir.path()).await;
    let sent = alice.chat("bob").send_text("hi").await.unwrap();
    let bob = open(&server, "bob", dir.path()).await;
    let first = message(&mut bob.events()).await;
    // The server knows that the device has it, although the app has not said so.
    timeout(patience(), sent.delivered()).await.expect("delivered").unwrap();
    let again = message(&mut bob.events()).await;
    assert_eq!((first.seq, &first.id), (again.seq, &again.id));
    bob.close(patience()).await;

    let bob = open(&server, "bob", dir.path()).await;
    let mut events = bob.events();
    assert_eq!(message(&mut events).await.seq, first.seq);
    events.ack();
    bob.close(patience()).await;

    let bob = open(&server, "bob", dir.path()).await;
    let mut events = bob.events();
    alice.chat("bob").send_text("next").await.unwrap();
    assert_eq!(message(&mut events).await.text(), Some("next"));
}

#[tokio::test]
async fn a_client_that_only_sends_has_its_ticks_and_keeps_nothing_for_an_app_that_does_not_ask() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let dir = tempfile::tempdir().unwrap();
    let url = format!("mqtt://{}", server.mqtt());
    let bot = Client::builder(&url).user("alice").device("phone").token(server.token("alice"));
    let bot = bot.send_only().store(dir.path().join("alice.db")).start().await.unwrap();
    let bob = open(&server, "bob", dir.path()).await;
    let report = bot.chat("bob").send_text("all is well").await.unwrap();
    timeout(patience(), report.delivered()).await.expect("two ticks").unwrap();
    let thanks = bob.chat("alice").send_text("thanks").await.unwrap();
    timeout(patience(), thanks.delivered()).await.expect("taken").unwrap();
    bob.chat("alice").mark_read(report.sent().await.unwrap().n).await.unwrap();
    timeout(patience(), report.read()).await.expect("blue ticks").unwrap();
    assert_eq!(bot.close(patience()).await, 0);
    let db = Connection::open(dir.path().join("alice.db")).unwrap();
    let kept: i64 = db.query_row("SELECT count(*) FROM natter_incoming", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn a_client_that_is_gone_gives_the_file_back_and_a_stranger_does_not_get_it() {
    let server = TestServer::with_users(&["alice"]);
    let dir = tempfile::tempdir().unwrap();
    let alice = open(&server, "alice", dir.path()).await;
    let mut state = alice.state();
    drop(alice);
    let closed = state.wait_for(|state| matches!(state, ConnectionState::Closed(_)));
    assert!(timeout(patience(), closed).await.is_ok());
    let url = format!("mqtt://{}", server.mqtt());
    let tablet = Client::builder(&url).user("alice").device("tablet").token(server.token("alice"));
    match tablet.store(dir.path().join("alice.db")).start().await {
        Err(Error::Store(why)) => assert!(why.contains("a store of device tablet"), "{why}"),
        other => panic!("{other:?}"),
    }
}
