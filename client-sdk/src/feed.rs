//! What waits for the app, and the stream that hands it over.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use natter_protocol::Seq;
use natter_protocol::entry::Entry;

use crate::client::{Client, Shared};
use crate::error::{BoxError, Error};
use crate::event::{Event, Failed};

/// Most live events that wait for an app that does not look; older ones are dropped and counted.
pub(crate) const LIVE_MAX: usize = 1_000;

#[derive(Debug)]
pub(crate) enum Notice {
    Live(Box<Entry>),
    Failed(Failed),
}

/// Between the driver, which fills it, and the one [`Events`] that empties it.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    /// Everything the app has not taken.
    entries: BTreeMap<Seq, Arc<Entry>>,
    /// Handed out from here on.
    next: Seq,
    live: VecDeque<Notice>,
    /// Positions began anew, and the app has not been told.
    begun_anew: bool,
    lost: u64,
    /// A transaction has the oldest: until it is known what became of it, nothing is handed out.
    claimed: bool,
    /// Which stream is the newest: older ones end.
    stream: u64,
    waker: Option<Waker>,
    closed: bool,
}

impl Feed {
    pub(crate) fn entry(&mut self, seq: Seq, entry: Box<Entry>) {
        self.entries.insert(seq, Arc::from(entry));
        self.wake();
    }

    pub(crate) fn live(&mut self, notice: Notice) {
        if self.live.len() >= LIVE_MAX {
            self.live.pop_front();
            self.lost += 1;
        }
        self.live.push_back(notice);
        self.wake();
    }

    /// The store was read again: whatever is untaken comes again in full.
    pub(crate) fn reload(&mut self) {
        self.entries.clear();
    }

    /// Positions begin anew; nothing of the old ones is left.
    pub(crate) fn begin_anew(&mut self) {
        self.entries.clear();
        self.next = 0;
        self.begun_anew = true;
        self.wake();
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A new stream: it begins with the oldest that was not taken.
    fn start(&mut self) -> u64 {
        self.stream += 1;
        self.next = 0;
        self.wake();
        self.stream
    }

    fn pop(&mut self) -> Option<Item> {
        if self.claimed {
            return None;
        }
        if std::mem::take(&mut self.begun_anew) {
            return Some(Item::BegunAnew);
        }
        if self.lost > 0 {
            return Some(Item::Lost(std::mem::take(&mut self.lost)));
        }
        if let Some((seq, entry)) = self.entries.range(self.next..).next() {
            self.next = seq + 1;
            return Some(Item::Entry(*seq, entry.clone()));
        }
        self.live.pop_front().map(Item::Notice)
    }
}

enum Item {
    Entry(Seq, Arc<Entry>),
    Notice(Notice),
    Lost(u64),
    BegunAnew,
}

/// An event that a transaction has, whoever still waits for it. It goes with the transaction to the driver, so that a caller that gives up
/// changes nothing about it: the event is out of the feed when the transaction is done, and comes again in its place when it is not.
#[derive(Debug)]
pub(crate) struct Claim {
    shared: Arc<Shared>,
    seq: Option<Seq>,
}

impl Claim {
    /// `None` for a live event, which comes once anyway.
    pub(crate) fn seq(&self) -> Option<Seq> {
        self.seq
    }

    /// The transaction is done.
    pub(crate) fn done(mut self) {
        if let Some(seq) = self.seq.take() {
            let mut feed = lock(&self.shared.feed);
            feed.entries.remove(&seq);
            feed.claimed = false;
            feed.wake();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(seq) = self.seq {
            let mut feed = lock(&self.shared.feed);
            feed.next = feed.next.min(seq);
            feed.claimed = false;
            feed.wake();
        }
    }
}

/// What arrives at this device, in the order of its inbox. Made by [`Client::events`]; the newest stream of a client is the one that gets
/// everything, an older one ends.
///
/// **At least once.** An event with a position in the inbox is kept in the store until the app has it: when it asks for the next one, or calls
/// [`Events::ack`]. What was handed out and not acknowledged when the process ends comes again, with the same `seq`, to the next process. A
/// stream that is dropped acknowledges nothing.
///
/// **Exactly once.** [`Events::next_in_transaction`] runs the app's own writes and the acknowledgement as one transaction.
///
/// Typing, presence and refusals ([`Event::Failed`] of what was never accepted) are live: they come once, while the client runs.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
/// let mut events = client.events();
/// while let Some(event) = events.next().await {
///     // What is done with it here is done again, if the process ends before the next line but one.
///     println!("{event:?}");
///     events.ack(); // or by asking for the next one
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Events {
    client: Client,
    stream: u64,
    /// Handed out and not acknowledged.
    handed: Option<Seq>,
}

impl Events {
    pub(crate) fn new(client: Client) -> Self {
        let stream = lock(client.feed()).start();
        Self { client, stream, handed: None }
    }

    /// Acknowledges the last event and waits for the next one. `None` after the end of the client. Dropping the future loses nothing.
    ///
    /// ```no_run
    /// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
    /// let first = events.next().await;
    /// let second = events.next().await; // the first one does not come again
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Acknowledges the last event: it does not come again.
    ///
    /// ```no_run
    /// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
    /// if let Some(event) = events.next().await {
    ///     println!("{event:?}");
    ///     events.ack();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn ack(&mut self) {
        if let Some(seq) = self.handed.take() {
            let mut feed = lock(self.client.feed());
            // A newer stream gets it again; by now the position may be another event's.
            if feed.stream == self.stream {
                feed.entries.remove(&seq);
                drop(feed);
                self.client.took(seq);
            }
        }
    }

    /// Waits for the next event and runs `work` with it inside one transaction of the store's file: what `work` writes through the connection
    /// and the acknowledgement are on the disk together, or neither is. So the app's own rows have every event exactly once. `None` after
    /// the end of the client. The last event of [`Events::next`] is acknowledged first.
    ///
    /// `work` runs on the store's thread: keep it short, and leave `BEGIN` and `COMMIT` to the client.
    ///
    /// **Dropping the future** (a `select!`, a timeout) loses nothing and doubles nothing. While it waits for an event, nothing has happened.
    /// Once `work` has the event, the transaction goes on without the future: if it is done the event does not come again, although nobody has
    /// seen what `work` returned; if it fails the event comes again. Until that is known, the next call waits, also on another stream.
    ///
    /// ```no_run
    /// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
    /// use natter_client::Event;
    ///
    /// let kept = events.next_in_transaction(|db, event| {
    ///     if let Event::Message(message) = &event {
    ///         db.execute("INSERT INTO inbox(sender, body) VALUES(?1, ?2)", (&message.from, message.text()))?;
    ///     }
    ///     Ok(event)
    /// });
    /// if let Some(event) = kept.await? {
    ///     println!("kept: {event:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Transaction`]: `work` failed, nothing of it is kept, and the same event comes again at the next call (a live event does not);
    /// or the store is not SQLite. [`Error::Store`], [`Error::Closed`].
    #[cfg(feature = "sqlite")]
    pub async fn next_in_transaction<T, F>(&mut self, work: F) -> Result<Option<T>, Error>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection, Event) -> Result<T, BoxError> + Send + 'static,
    {
        self.next_in_store(move |inside, event| match inside.downcast_ref::<rusqlite::Connection>() {
            Some(db) => work(db, event),
            None => Err("expected a store that gives a rusqlite::Connection, see .store(path)".into()),
        })
        .await
    }

    /// As [`Events::next_in_transaction`], for stores of one's own: `work` gets what [`crate::store::Store::transaction`] gives it.
    ///
    /// ```no_run
    /// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
    /// let kept = events.next_in_store(|_inside, event| Ok(format!("{event:?}"))).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As there.
    pub async fn next_in_store<T, F>(&mut self, work: F) -> Result<Option<T>, Error>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Any, Event) -> Result<T, BoxError> + Send + 'static,
    {
        let Some(item) = std::future::poll_fn(|cx| self.poll_item(cx, true)).await else { return Ok(None) };
        let seq = if let Item::Entry(seq, _) = &item { Some(*seq) } else { None };
        let claim = Claim { shared: self.client.shared(), seq };
        let event = self.event(item);
        let result = Arc::new(Mutex::new(None));
        let (mut work, mut event, place) = (Some(work), Some(event), result.clone());
        let job = Box::new(move |inside: &dyn Any| {
            let (Some(work), Some(event)) = (work.take(), event.take()) else { return Err("called twice".into()) };
            *lock(&place) = Some(work(inside, event)?);
            Ok(())
        });
        self.client.transaction(claim, job).await?;
        let done = lock(&result).take();
        done.map(Some).ok_or_else(|| Error::Transaction("the store did not run the work".into()))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_item(cx, false).map(|item| {
            let item = item?;
            if let Item::Entry(seq, _) = &item {
                self.handed = Some(*seq);
            }
            Some(self.event(item))
        })
    }

    /// `claim`: an entry is a transaction's from now on.
    fn poll_item(&mut self, cx: &mut Context<'_>, claim: bool) -> Poll<Option<Item>> {
        self.ack();
        let mut feed = lock(self.client.feed());
        if feed.closed || feed.stream != self.stream {
            return Poll::Ready(None);
        }
        let Some(item) = feed.pop() else {
            feed.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        feed.claimed = claim && matches!(item, Item::Entry(..));
        Poll::Ready(Some(item))
    }

    fn event(&self, item: Item) -> Event {
        match item {
            Item::BegunAnew => Event::BegunAnew,
            Item::Lost(events) => Event::SlowConsumer(events),
            Item::Notice(Notice::Failed(failed)) => Event::Failed(failed),
            Item::Notice(Notice::Live(entry)) => Event::from_entry(*entry, &self.client),
            Item::Entry(_, entry) => Event::from_entry(Arc::unwrap_or_clone(entry), &self.client),
        }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll(cx)
    }
}

/// A panic of another thread leaves these as they were between two calls.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_events_of_an_app_that_does_not_look_are_bounded_and_their_loss_is_said() {
        let mut feed = Feed::default();
        for _ in 0..LIVE_MAX + 7 {
            feed.live(Notice::Failed(Failed { id: None, chat: None, error: Error::Unconfirmed }));
        }
        assert!(matches!(feed.pop(), Some(Item::Lost(7))));
        let left = std::iter::from_fn(|| feed.pop()).count();
        assert_eq!(left, LIVE_MAX);
    }
}
