//! The server is killed with -9 while a client has a thousand messages to send: all arrive, once and in order, and the app does nothing.

mod common;

use common::port::stable_port;
use common::{TestServer, patience};
use natter_client::{Client, Event};
use tokio::sync::watch;
use tokio::time::timeout;

const MESSAGES: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_queued_messages_outlive_the_server_once_and_in_order() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let (hers, his) = (server.token("alice"), server.token("bob"));
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let (place, places) = watch::channel(server.mqtt());
    let url = format!("mqtt://{}", stable_port(places).await);
    let open = |user: &str, token: &str| {
        Client::builder(&url).user(user).device("phone").token(token).store(dir.path().join(format!("{user}.db")))
    };
    let alice = open("alice", &hers).connect().await.unwrap_or_else(|e| panic!("{e}"));
    let bob = open("bob", &his).connect().await.unwrap_or_else(|e| panic!("{e}"));

    let chat = alice.chat("bob");
    let mut messages = Vec::new();
    for i in 0..MESSAGES {
        messages.push(chat.send_text(i.to_string()).await.unwrap_or_else(|e| panic!("{e}")));
        // In the middle of it, with answers under way; the second half is queued without a server.
        if i == MESSAGES / 2 {
            server.kill9();
        }
    }
    assert!(!alice.outgoing().is_empty(), "some wait for the server");
    server.restart();
    place.send_replace(server.mqtt());

    let mut events = bob.events();
    let mut expected = 0;
    while expected < MESSAGES {
        match timeout(patience(), events.next()).await {
            Ok(Some(Event::Message(message))) => {
                assert_eq!(message.text(), Some(expected.to_string().as_str()));
                assert_eq!(message.id, messages[expected].id());
                expected += 1;
            }
            other => panic!("expected message {expected}, got {other:?}"),
        }
    }
    for (i, message) in messages.iter().enumerate() {
        let sent = message.sent().await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(sent.n, i as u64 + 1);
        timeout(patience(), message.delivered())
            .await
            .unwrap_or_else(|e| panic!("{i}: {e}"))
            .unwrap_or_else(|e| panic!("{e}"));
    }
    assert!(alice.outgoing().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watched_and_who_was_not_in_front_are_so_again() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    for (name, other) in [("alice", "bob"), ("bob", "alice")] {
        common::Client::of(&server, name).request("PUT", &format!("/v1/contacts/{other}"), &[], b"{}").ok();
    }
    let (hers, his) = (server.token("alice"), server.token("bob"));
    let (place, places) = watch::channel(server.mqtt());
    let url = format!("mqtt://{}", stable_port(places).await);
    let open = |user: &str, token: &str| Client::builder(&url).user(user).device("phone").token(token).connect();
    let alice = open("alice", &hers).await.unwrap_or_else(|e| panic!("{e}"));
    let mut events = alice.events();
    alice.chat("bob").watch_presence().await.unwrap_or_else(|e| panic!("{e}"));
    let mut presence = async || match timeout(patience(), events.next()).await {
        Ok(Some(Event::Presence(presence))) => presence.available,
        other => panic!("expected a presence, got {other:?}"),
    };
    assert!(!presence().await);
    let bob = open("bob", &his).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(presence().await);
    bob.set_available(false).await.unwrap_or_else(|e| panic!("{e}"));
    let mut state = bob.state();
    server.kill9();
    server.restart();
    let again = state.wait_for(|state| matches!(state, natter_client::ConnectionState::Reconnecting(_)));
    drop(timeout(patience(), again).await.unwrap_or_else(|_| panic!("no end of the connection")));
    place.send_replace(server.mqtt());
    let connected = state.wait_for(|state| *state == natter_client::ConnectionState::Connected);
    drop(timeout(patience(), connected).await.unwrap_or_else(|_| panic!("no new connection")));
    assert!(!presence().await, "she watches again, and he is connected and not in front");
    bob.set_available(true).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(presence().await);
}
