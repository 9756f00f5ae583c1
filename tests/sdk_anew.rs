//! A server that is begun anew over an empty directory, next to a client's old store: positions begin anew, and everything arrives.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends that way")]

mod common;

use std::path::Path;

use common::{TestServer, patience};
use natter_client::{Client, Event, Events, Tick};
use tokio::time::timeout;

async fn open(server: &TestServer, user: &str, dir: &Path) -> Client {
    let url = format!("mqtt://{}", server.mqtt());
    let builder = Client::builder(&url).user(user).device("phone").token(server.token(user));
    builder.store(dir.join(format!("{user}.db"))).start().await.expect("a store")
}

async fn next(events: &mut Events) -> Event {
    match timeout(patience(), events.next()).await {
        Ok(Some(event)) => event,
        other => panic!("expected an event, got {other:?}"),
    }
}

async fn text(events: &mut Events) -> (u64, String) {
    match next(events).await {
        Event::Message(message) => (message.n, message.text().unwrap().to_owned()),
        other => panic!("expected a message, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_data_directory_was_wiped_messages_arrive_and_ticks_are_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::with_users(&["alice", "bob"]);
    let alice = open(&server, "alice", dir.path()).await;
    let bob = open(&server, "bob", dir.path()).await;
    let mut his = bob.events();
    let mut old = Vec::new();
    for i in 1..=5 {
        let message = alice.chat("bob").send_text(format!("old {i}")).await.unwrap();
        old.push(message.id().to_owned());
        timeout(patience(), message.delivered()).await.expect("in time").unwrap();
        if i < 5 {
            assert_eq!(text(&mut his).await, (i, format!("old {i}")));
        }
    }
    his.ack();
    // The last one is on bob's disk, acknowledged, and he has not looked at it. What alice sends now waits.
    bob.close(patience()).await;
    drop(server);
    let waits = alice.chat("bob").send_text("new 1").await.unwrap().id().to_owned();
    alice.close(std::time::Duration::ZERO).await;

    let server = TestServer::with_users(&["alice", "bob"]);
    let alice = open(&server, "alice", dir.path()).await;
    // Receipts of the old server that she has not looked at come first, too.
    let mut hers = alice.events();
    tokio::spawn(async move { while hers.next().await.is_some() {} });
    let bob = open(&server, "bob", dir.path()).await;
    let mut his = bob.events();
    let message = alice.message(&waits).expect("it waits");
    assert_eq!(timeout(patience(), message.sent()).await.expect("in time").unwrap().n, 1);
    let two = alice.chat("bob").send_text("new 2").await.unwrap();
    assert_eq!(text(&mut his).await, (4 + 1, "old 5".into()), "what the old server was told that he has, comes first");
    assert!(matches!(next(&mut his).await, Event::BegunAnew));
    assert_eq!(text(&mut his).await, (1, "new 1".into()));
    assert_eq!(text(&mut his).await, (2, "new 2".into()));
    timeout(patience(), two.delivered()).await.expect("in time").unwrap();
    assert_eq!(two.progress().tick, Tick::Delivered, "nobody has read it: the read marks of old numbers are gone");
    assert!(alice.message(&old[0]).is_none(), "the new server knows nothing of it");
    assert!(alice.outgoing().is_empty());
    his.ack();
    bob.close(patience()).await;

    // The same server again: nothing begins anew.
    let bob = open(&server, "bob", dir.path()).await;
    let mut his = bob.events();
    alice.chat("bob").send_text("new 3").await.unwrap();
    assert_eq!(text(&mut his).await, (3, "new 3".into()));
}
