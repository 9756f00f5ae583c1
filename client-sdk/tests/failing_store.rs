//! A store that fails: nothing is said to be kept that is not, and the client goes on.
#![expect(clippy::unwrap_used, reason = "a test ends that way")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use natter_client::store::{MemoryStore, Owner, Snapshot, Store, StoreError, Write};
use natter_client::{Client, Error};

#[derive(Default)]
struct Failing {
    inner: MemoryStore,
    /// The next commit says that it failed.
    fail: Arc<AtomicBool>,
    /// And has nevertheless happened.
    done: bool,
}

impl Store for Failing {
    fn load(&mut self, owner: &Owner) -> Result<Snapshot, StoreError> {
        self.inner.load(owner)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let fail = self.fail.swap(false, Ordering::SeqCst);
        if !fail || self.done {
            self.inner.commit(writes)?;
        }
        if fail { Err(StoreError("the disk is full".into())) } else { Ok(()) }
    }

    fn is_durable(&self) -> bool {
        true
    }
}

async fn start(done: bool) -> (Client, Arc<AtomicBool>) {
    let fail = Arc::new(AtomicBool::new(false));
    let store = Failing { fail: fail.clone(), done, ..Failing::default() };
    let builder = Client::builder("mqtt://127.0.0.1:1").user("alice").token("t");
    (builder.custom_store(store).start().await.unwrap(), fail)
}

#[tokio::test]
async fn what_is_not_on_the_disk_is_an_error_and_the_next_message_is_taken() {
    let (client, fail) = start(false).await;
    let first = client.chat("bob").send_text("1").await.unwrap();
    fail.store(true, Ordering::SeqCst);
    match client.chat("bob").send_text("2").await {
        Err(error @ Error::Store(_)) => assert!(error.is_retryable()),
        other => assert!(other.is_err(), "{other:?}"),
    }
    let third = client.chat("bob").send_text("3").await.unwrap();
    let waiting: Vec<String> = client.outgoing().iter().map(|message| message.id().to_owned()).collect();
    assert_eq!(waiting, [first.id(), third.id()]);
    assert_eq!(client.close(Duration::ZERO).await, 2);
}

#[tokio::test]
async fn what_is_on_the_disk_in_spite_of_an_error_is_kept_and_said_to_be() {
    let (client, fail) = start(true).await;
    fail.store(true, Ordering::SeqCst);
    let message = client.chat("bob").send_text("1").await.unwrap();
    assert_eq!(client.outgoing().len(), 1);
    assert!(client.message(message.id()).is_some());
}
