//! A store of one's own, around another one: it counts what is written.
//! `cargo run -p natter-client --example custom_store -- mqtt://127.0.0.1:1883 alice TOKEN bob "hi"`
#![expect(clippy::print_stdout, reason = "it talks to a person")]
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use natter_client::Client;
use natter_client::store::{MemoryStore, Owner, Snapshot, Store, StoreError, Write, conformance};

#[derive(Default, Clone)]
struct Counting {
    inner: MemoryStore,
    batches: Arc<AtomicUsize>,
}

impl Store for Counting {
    fn load(&mut self, owner: &Owner) -> Result<Snapshot, StoreError> {
        self.inner.load(owner)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.inner.commit(writes)
    }

    fn is_durable(&self) -> bool {
        self.inner.is_durable()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, user, token, to, text] = arguments.as_slice() else {
        return Err("expected URL USER TOKEN TO TEXT".into());
    };
    // In a test of yours.
    conformance::check(Counting::default)?;
    let store = Counting::default();
    let batches = store.batches.clone();
    let client = Client::builder(url).user(user).token(token).custom_store(store).connect().await?;
    let sent = client.chat(to).send_text(text).await?.sent().await?;
    println!("number {} of the chat, {} transactions", sent.n, batches.load(Ordering::Relaxed));
    Ok(())
}
