//! The SDK against the real server: what an app sees, also when the server dies under it.

#![expect(clippy::panic, reason = "a test ends that way")]

mod common;

use common::{TestServer, patience};
use natter_client::{Client, ConnectionState, Error, Event, Events, ReceiptKind};
use tokio::time::timeout;

async fn connect(server: &TestServer, user: &str, token: &str) -> Client {
    let url = format!("mqtt://{}", server.mqtt());
    let builder = Client::builder(&url).user(user).device("phone").token(token);
    builder.connect().await.unwrap_or_else(|error| panic!("{user}: {error}"))
}

async fn next(events: &mut Events) -> Event {
    match timeout(patience(), events.next()).await {
        Ok(Some(event)) => event,
        other => panic!("expected an event, got {other:?}"),
    }
}

#[tokio::test]
async fn a_message_is_sent_delivered_and_read() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let alice = connect(&server, "alice", &server.token("alice")).await;
    let bob = connect(&server, "bob", &server.token("bob")).await;
    let (mut hers, mut his) = (alice.events(), bob.events());

    let outgoing = alice.chat("bob").send_text("hi").await.unwrap_or_else(|e| panic!("{e}"));
    let sent = outgoing.sent().await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(sent.n, 1);
    let Event::Message(message) = next(&mut his).await else { panic!("a message") };
    assert_eq!((message.text(), message.from.as_str(), message.n), (Some("hi"), "alice", 1));
    assert_eq!(message.id, sent.id.as_str());
    // In memory, the server hears that it is delivered when the app has it.
    his.ack();

    outgoing.delivered().await.unwrap_or_else(|e| panic!("{e}"));
    let Event::Receipt(receipt) = next(&mut hers).await else { panic!("a receipt") };
    assert_eq!((receipt.kind, receipt.after, receipt.n), (ReceiptKind::Delivered, 0, 1));
    message.mark_read().await.unwrap_or_else(|e| panic!("{e}"));
    outgoing.read().await.unwrap_or_else(|e| panic!("{e}"));
    let Event::Receipt(receipt) = next(&mut hers).await else { panic!("a receipt") };
    assert_eq!((receipt.kind, receipt.n, receipt.recipient.as_deref()), (ReceiptKind::Read, 1, Some("bob")));

    let reply =
        message.reply().unwrap_or_else(|e| panic!("{e}")).send_text("yes?").await.unwrap_or_else(|e| panic!("{e}"));
    let Event::Message(answer) = next(&mut hers).await else { panic!("a message") };
    assert_eq!((answer.id.as_str(), answer.reply_to()), (reply.id(), Some(message.id.as_str())));
    let reaction = alice.chat("bob").react(&answer, "\u{1f44d}").await.unwrap_or_else(|e| panic!("{e}"));
    reaction.sent().await.unwrap_or_else(|e| panic!("{e}"));
    let Event::Message(reaction) = next(&mut his).await else { panic!("a reaction") };
    assert_eq!(reaction.object().map(|object| &object["message_id"]), Some(&reply.id().into()));
}

#[tokio::test]
async fn presence_and_typing() {
    let server = TestServer::with_users(&["alice", "bob"]);
    for (name, other) in [("alice", "bob"), ("bob", "alice")] {
        let path = format!("/v1/contacts/{other}");
        common::Client::of(&server, name).request("PUT", &path, &[], b"{}").ok();
    }
    let (alice_token, bob_token) = (server.token("alice"), server.token("bob"));
    let alice = connect(&server, "alice", &alice_token).await;
    let mut hers = alice.events();
    alice.chat("bob").watch_presence().await.unwrap_or_else(|e| panic!("{e}"));
    let Event::Presence(presence) = next(&mut hers).await else { panic!("a presence") };
    assert_eq!((presence.from.as_str(), presence.available, presence.last_seen), ("bob", false, None));
    let bob = connect(&server, "bob", &bob_token).await;
    let Event::Presence(presence) = next(&mut hers).await else { panic!("a presence") };
    assert_eq!((presence.from.as_str(), presence.available), ("bob", true));
    bob.chat("alice").typing().await.unwrap_or_else(|e| panic!("{e}"));
    let Event::Typing(typing) = next(&mut hers).await else { panic!("typing") };
    assert_eq!((typing.from.as_str(), typing.chat.as_str()), ("bob", "bob"));

    bob.set_available(false).await.unwrap_or_else(|e| panic!("{e}"));
    // Behind it in the same connection: the server has both.
    let outgoing = bob.chat("alice").send_text("hi").await.unwrap_or_else(|e| panic!("{e}"));
    outgoing.sent().await.unwrap_or_else(|e| panic!("{e}"));
    let Event::Message(_) = next(&mut hers).await else { panic!("a message") };
    hers.ack();
    server.pass_time(10);
    let Event::Presence(presence) = next(&mut hers).await else { panic!("a presence") };
    assert!(!presence.available && presence.last_seen.is_some(), "{presence:?}");
    bob.set_available(true).await.unwrap_or_else(|e| panic!("{e}"));
    let Event::Presence(presence) = next(&mut hers).await else { panic!("a presence") };
    assert!(presence.available);
}

#[tokio::test]
async fn refusals_are_typed() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let alice = connect(&server, "alice", &server.token("alice")).await;
    let mut events = alice.events();
    let message = alice.chat("nobody").send_text("hi").await.unwrap_or_else(|e| panic!("{e}"));
    match message.sent().await {
        Err(error @ Error::Refused { reason: 0x83, .. }) => assert!(!error.is_retryable()),
        other => panic!("{other:?}"),
    }
    let Event::Failed(failed) = next(&mut events).await else { panic!("a failure") };
    assert_eq!(failed.id.as_deref(), Some(message.id()));
    assert_eq!(alice.outgoing().len(), 1);
    assert!(matches!(alice.chat("No Such Name").send_text("hi").await, Err(Error::Invalid(_))));
    assert!(matches!(alice.chat("bob").send_text(&"x".repeat(70_000)).await, Err(Error::Invalid(_))));

    let url = format!("mqtt://{}", server.mqtt());
    let denied = Client::builder(&url).user("alice").device("x").token(server.token("bob")).connect().await;
    match denied {
        Err(error @ Error::Denied(_)) => assert!(!error.is_retryable() && error.is_auth()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("bob's token opened alice's account"),
    }
    match Client::builder("mqtt://127.0.0.1:1").user("alice").device("x").token("t").connect().await {
        Err(error) => assert!(error.is_retryable(), "{error}"),
        Ok(_) => panic!("there is no server"),
    }
}

#[tokio::test]
async fn a_refused_token_is_asked_for_again() {
    let server = TestServer::with_users(&["alice"]);
    let (good, bad) = (server.token("alice"), server.token("alice") + "x");
    let tokens = std::sync::Mutex::new(vec![good, bad]);
    let provider = move || {
        let token = tokens.lock().unwrap_or_else(|e| panic!("{e}")).pop().ok_or("there are no more");
        async move { token }
    };
    let url = format!("mqtt://{}", server.mqtt());
    let alice = Client::builder(&url).user("alice").token_provider(provider).start().await;
    let alice = alice.unwrap_or_else(|e| panic!("{e}"));
    let mut state = alice.state();
    let connected = state.wait_for(|state| *state == ConnectionState::Connected);
    assert!(timeout(patience(), connected).await.is_ok());
}

#[tokio::test]
async fn what_the_app_took_comes_once_and_what_it_did_not_take_stays() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let (hers, his) = (server.token("alice"), server.token("bob"));
    let alice = connect(&server, "alice", &hers).await;
    let chat = alice.chat("bob");
    for i in 1..=250 {
        let sent = chat.send_text(i.to_string()).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(sent.sent().await.map(|sent| sent.n), Ok(i));
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
        events.ack();
        // The acknowledgements go out in order before this, which close waits for.
        bob.chat("alice").mark_read(expected - 1).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(bob.close(patience()).await, 0);
    }
}
