//! The SDK against the real server: what an app sees, also when the server dies under it.

#![expect(clippy::panic, reason = "a test ends that way")]

mod common;

use common::{TestServer, patience};
use natter_client::{Client, Error, Event, Events, ReceiptKind, State};
use tokio::time::timeout;

async fn connect(server: &TestServer, user: &str, token: &str) -> Client {
    let url = format!("mqtt://{}", server.mqtt());
    let builder = Client::builder(&url).user(user).device("phone").token(token);
    builder.connect().await.unwrap_or_else(|error| panic!("{user}: {error}"))
}

/// The next event that is not about the connection.
async fn next(events: &mut Events) -> Event {
    loop {
        match timeout(patience(), events.next()).await {
            Ok(Some(Event::State(_))) => {}
            Ok(Some(event)) => return event,
            other => panic!("expected an event, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_message_is_sent_delivered_and_read() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let alice = connect(&server, "alice", &server.token("alice")).await;
    let bob = connect(&server, "bob", &server.token("bob")).await;
    let (mut hers, mut his) = (alice.events(), bob.events());

    let sent = alice.chat("bob").send_text("hi").await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(sent.n, 1);
    let Event::Message(message) = next(&mut his).await else { panic!("a message") };
    assert_eq!((message.text(), message.from.as_str(), message.n), (Some("hi"), "alice", 1));
    assert_eq!(message.id, sent.id.as_str());

    let Event::Receipt(receipt) = next(&mut hers).await else { panic!("a receipt") };
    assert_eq!((receipt.kind, receipt.after, receipt.n), (ReceiptKind::Delivered, 0, 1));
    bob.mark_read(&message.chat, message.n).await.unwrap_or_else(|e| panic!("{e}"));
    let Event::Receipt(receipt) = next(&mut hers).await else { panic!("a receipt") };
    assert_eq!((receipt.kind, receipt.n, receipt.recipient.as_str()), (ReceiptKind::Read, 1, "bob"));
}

#[tokio::test]
async fn refusals_are_typed() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let alice = connect(&server, "alice", &server.token("alice")).await;
    match alice.chat("nobody").send_text("hi").await {
        Err(error @ Error::Refused { reason: 0x83, .. }) => assert!(!error.is_retryable()),
        other => panic!("{other:?}"),
    }
    assert!(matches!(alice.chat("No Such Name").send_text("hi").await, Err(Error::Invalid(_))));
    assert!(matches!(alice.chat("bob").send_text(&"x".repeat(70_000)).await, Err(Error::Invalid(_))));

    let url = format!("mqtt://{}", server.mqtt());
    let denied = Client::builder(&url).user("alice").device("x").token(server.token("bob")).connect().await;
    match denied {
        Err(error @ Error::Denied(_)) => assert!(!error.is_retryable()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("bob's token opened alice's account"),
    }
    match Client::builder("mqtt://127.0.0.1:1").user("alice").device("x").token("t").connect().await {
        Err(error) => assert!(error.is_retryable(), "{error}"),
        Ok(_) => panic!("there is no server"),
    }
}

#[tokio::test]
async fn a_second_connection_of_the_device_takes_over_and_the_first_does_not_fight() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    let first = connect(&server, "alice", &token).await;
    let mut events = first.events();
    let _second = connect(&server, "alice", &token).await;
    loop {
        match timeout(patience(), events.next()).await {
            Ok(Some(Event::State(State::Closed(error)))) => break assert_eq!(error, Error::TakenOver),
            Ok(Some(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(first.chat("alice").send_text("hi").await, Err(Error::Closed)));
}

#[tokio::test]
async fn what_the_app_took_comes_once_and_what_it_did_not_take_stays() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let (hers, his) = (server.token("alice"), server.token("bob"));
    let alice = connect(&server, "alice", &hers).await;
    let chat = alice.chat("bob");
    for i in 1..=250 {
        let sent = chat.send_text(&i.to_string()).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(sent.n, i);
    }
    // Three processes one after the other: what one has taken, the next does not get.
    let mut expected = 1;
    for (process, takes) in [(1, 100), (2, 100), (3, 50)] {
        let bob = connect(&server, "bob", &his).await;
        let mut events = bob.events();
        for _ in 0..takes {
            let Event::Message(message) = next(&mut events).await else { panic!("a message") };
            assert_eq!(message.n, expected, "process {process}");
            expected += 1;
        }
        // The acknowledgements go out in order before this answer can come.
        bob.mark_read("alice", expected - 1).await.unwrap_or_else(|e| panic!("{e}"));
        bob.close().await;
    }
}
