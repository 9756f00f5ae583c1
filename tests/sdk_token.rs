//! Tokens of the SDK that end while the client runs: another one is asked for, and nothing is lost.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends that way")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{TestServer, patience};
use natter_client::{Client, ConnectionState, Error, Event};
use tokio::time::timeout;

/// Gives these one after the other, the last one for ever, and counts.
fn provider(
    tokens: Vec<Result<String, &'static str>>,
) -> (impl Fn() -> std::future::Ready<Result<String, &'static str>>, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let next = move || {
        let at = count.fetch_add(1, Ordering::SeqCst).min(tokens.len() - 1);
        std::future::ready(tokens[at].clone())
    };
    (next, asked)
}

async fn until(client: &Client, what: impl FnMut(&ConnectionState) -> bool) -> ConnectionState {
    let mut state = client.state();
    timeout(patience(), state.wait_for(what)).await.expect("in time").expect("a client").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_is_renewed_and_what_is_sent_meanwhile_arrives() {
    let server = TestServer::with_users(&["alice"]);
    let short = server.token_with("alice", &["--ttl", "2s"]);
    let (tokens, asked) = provider(vec![Ok(short), Err("the backend is away"), Ok(server.token("alice"))]);
    let url = format!("mqtt://{}", server.mqtt());
    let alice = Client::builder(&url).user("alice").token_provider(tokens).connect().await.expect("a connection");
    let mut events = alice.events();
    // The server ends the connection with the token.
    match until(&alice, |state| matches!(state, ConnectionState::Reconnecting(_))).await {
        ConnectionState::Reconnecting(Error::Denied(_) | Error::Unreachable(_)) => {}
        other => panic!("{other:?}"),
    }
    let message = alice.chat("alice").send_text("meanwhile").await.unwrap();
    timeout(patience(), message.sent()).await.expect("in time").expect("sent");
    assert_eq!(asked.load(Ordering::SeqCst), 3, "expected the first, one that failed, and the last");
    match timeout(patience(), events.next()).await {
        Ok(Some(Event::Message(got))) => assert_eq!(got.id, message.id()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_that_is_given_again_ends_the_client() {
    let server = TestServer::with_users(&["alice"]);
    let (tokens, asked) = provider(vec![Ok("no token".into())]);
    let url = format!("mqtt://{}", server.mqtt());
    let alice = Client::builder(&url).user("alice").token_provider(tokens).start().await.unwrap();
    let end = until(&alice, |state| matches!(state, ConnectionState::Closed(_))).await;
    match end {
        ConnectionState::Closed(error @ Error::Denied(_)) => assert!(error.is_auth()),
        other => panic!("{other:?}"),
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tokens_that_are_refused_in_a_row_end_it_too() {
    let server = TestServer::with_users(&["alice"]);
    let (tokens, _) = provider(vec![Ok("no token".into()), Ok("no other".into()), Ok(server.token("alice"))]);
    let url = format!("mqtt://{}", server.mqtt());
    let alice = Client::builder(&url).user("alice").token_provider(tokens).start().await.unwrap();
    let end = until(&alice, |state| matches!(state, ConnectionState::Closed(_))).await;
    assert!(matches!(end, ConnectionState::Closed(Error::Denied(_))), "{end:?}");
}
