//! A transaction of the app whose future is dropped in the middle: the event is never shown twice to what is kept.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends that way")]

use std::any::Any;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use natter_client::store::{IncomingRow, MemoryStore, Owner, Snapshot, Store, StoreError, Work, Write};
use natter_client::{BoxError, Client, Error, Event, Events};
use tokio::sync::mpsc::UnboundedSender;

/// A store with entries, whose transactions say that they begin and wait until the test lets them go on.
struct Gated {
    inner: MemoryStore,
    begins: UnboundedSender<()>,
    go_on: Receiver<Verdict>,
}

#[derive(Clone, Copy)]
enum Verdict {
    Commit,
    Fail,
}

impl Store for Gated {
    fn load(&mut self, owner: &Owner) -> Result<Snapshot, StoreError> {
        self.inner.load(owner)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.inner.commit(writes)
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn transaction(&mut self, writes: &[Write], work: Work<'_>) -> Result<(), BoxError> {
        self.begins.send(()).map_err(|_| "the test is over")?;
        let verdict = self.go_on.recv()?;
        work(&())?;
        if let Verdict::Fail = verdict {
            return Err("the disk is full".into());
        }
        Ok(self.inner.commit(writes)?)
    }
}

struct Bench {
    client: Client,
    begins: tokio::sync::mpsc::UnboundedReceiver<()>,
    go_on: Sender<Verdict>,
    /// Every position that `work` was shown, committed or not.
    shown: Arc<Mutex<Vec<u64>>>,
}

impl Bench {
    async fn new(entries: u64) -> Self {
        let mut inner = MemoryStore::default();
        for seq in 1..=entries {
            let payload = format!(
                r#"{{"seq":{seq},"prev":{},"type":"text","from":"bob","chat":"bob","n":{seq},"id":"m{seq}","text":{{"body":"."}}}}"#,
                seq - 1
            );
            inner.commit(&[Write::Incoming(IncomingRow { seq, payload: payload.into_bytes() })]).unwrap();
        }
        let (tell, begins) = tokio::sync::mpsc::unbounded_channel();
        let (go_on, wait) = channel();
        let store = Gated { inner, begins: tell, go_on: wait };
        let builder = Client::builder("mqtt://127.0.0.1:1").user("alice").token("t");
        let client = builder.custom_store(store).start().await.unwrap();
        Self { client, begins, go_on, shown: Arc::default() }
    }

    fn work(&self) -> impl FnOnce(&dyn Any, Event) -> Result<u64, BoxError> + Send + use<> {
        let shown = self.shown.clone();
        move |_, event| {
            let Event::Message(message) = event else { panic!("{event:?}") };
            shown.lock().unwrap().push(message.seq);
            Ok(message.seq)
        }
    }

    /// Begins a transaction and drops its future while the store is in the middle of it.
    async fn give_up(&mut self, events: &mut Events) {
        let work = self.work();
        tokio::select! {
            biased;
            done = events.next_in_store(work) => panic!("it cannot end: {done:?}"),
            begun = self.begins.recv() => begun.expect("it begins"),
        }
    }

    async fn next(&mut self, events: &mut Events, verdict: Verdict) -> Result<Option<u64>, Error> {
        self.go_on.send(verdict).unwrap();
        events.next_in_store(self.work()).await
    }

    fn shown(&self) -> Vec<u64> {
        self.shown.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn one_that_is_given_up_in_the_middle_is_finished_and_its_event_does_not_come_again() {
    let mut bench = Bench::new(3).await;
    let mut events = bench.client.events();
    bench.give_up(&mut events).await;
    bench.go_on.send(Verdict::Commit).unwrap();
    assert_eq!(bench.next(&mut events, Verdict::Commit).await, Ok(Some(2)));
    assert_eq!(bench.next(&mut events, Verdict::Commit).await, Ok(Some(3)));
    assert_eq!(bench.shown(), [1, 2, 3]);
}

#[tokio::test]
async fn one_that_is_given_up_and_fails_comes_again_in_its_place() {
    let mut bench = Bench::new(2).await;
    let mut events = bench.client.events();
    bench.give_up(&mut events).await;
    bench.go_on.send(Verdict::Fail).unwrap();
    for seq in 1..=2 {
        assert_eq!(bench.next(&mut events, Verdict::Commit).await, Ok(Some(seq)));
    }
    assert_eq!(bench.shown(), [1, 1, 2], "the first of them was taken back");
}

/// Another stream, in the middle of it, waits too, whether it wants transactions or not.
#[tokio::test]
async fn a_new_stream_waits_for_the_transaction_of_the_last_one() {
    let mut bench = Bench::new(2).await;
    let mut events = bench.client.events();
    bench.give_up(&mut events).await;
    drop(events);
    let mut events = bench.client.events();
    bench.go_on.send(Verdict::Commit).unwrap();
    match events.next().await {
        Some(Event::Message(message)) => assert_eq!(message.seq, 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.shown(), [1]);
}
