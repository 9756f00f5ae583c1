//! A device of the SDK that another connection takes over: a late one of its own costs nothing, another program ends the older one.
#![expect(clippy::expect_used, clippy::panic, reason = "a test ends that way")]

mod common;

use common::{Connect, TestServer, patience};
use natter_client::{Client, ConnectionState, Error, Event};
use tokio::sync::watch;
use tokio::time::timeout;

async fn connect(server: &TestServer, token: &str) -> Client {
    let url = format!("mqtt://{}", server.mqtt());
    let builder = Client::builder(&url).user("alice").device("phone").token(token);
    builder.connect().await.unwrap_or_else(|error| panic!("{error}"))
}

async fn until(state: &mut watch::Receiver<ConnectionState>, what: impl FnMut(&ConnectionState) -> bool) {
    timeout(patience(), state.wait_for(what)).await.expect("in time").expect("a client");
}

/// A message to oneself comes back.
async fn talk(client: &Client) {
    let mut events = client.events();
    let message = client.chat("alice").send_text("hi").await.expect("kept");
    timeout(patience(), message.sent()).await.expect("in time").expect("sent");
    while let Ok(Some(event)) = timeout(patience(), events.next()).await {
        if matches!(event, Event::Message(got) if got.id == message.id()) {
            return;
        }
    }
    panic!("the message does not come back");
}

/// As an attempt that the client gave up, and whose CONNECT was under way for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_connection_of_its_own_takes_over_and_the_client_comes_back() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    let alice = connect(&server, &token).await;
    let mut state = alice.state();
    for _ in 0..3 {
        state.mark_unchanged();
        let (ghost, ..) = Connect::v5("alice", "alice-phone", &token).try_open(server.mqtt());
        drop(ghost);
        until(&mut state, |state| *state == ConnectionState::Reconnecting(Error::TakenOver)).await;
        until(&mut state, |state| *state == ConnectionState::Connected).await;
    }
    talk(&alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_programs_with_one_name_the_older_one_ends_and_the_newer_one_talks() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    let older = connect(&server, &token).await;
    let (mut events, mut state) = (older.events(), older.state());
    let newer = connect(&server, &token).await;
    until(&mut state, |state| *state == ConnectionState::Closed(Error::TakenOver)).await;
    assert!(events.next().await.is_none());
    assert!(matches!(older.chat("alice").send_text("hi").await, Err(Error::TakenOver)));
    talk(&newer).await;
    assert_eq!(*newer.state().borrow(), ConnectionState::Connected);
}
