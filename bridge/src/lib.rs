//! The bridge: takes messages in, commits them, fans them out.
//!
//! - [`webhook`] what a device gets, posted to its user's backend
//! - [`account`] passwords, users who may not come in, webhooks
//! - [`engine`] the rules, event by event: the sender's part in `sender`, the recipient's in `recipient`, who comes and goes in
//!   `connection`, what time takes away in `expiry`; [`reader`] is the window of one device
//! - [`change`] what a batch changed · [`state`] what the loop knows; one function takes a change in
//! - [`store`] the journal and the tables; `settle` moves what is in the one into the other
//! - [`contacts`] whom a user knows
//! - [`presence`] who is there, who is told, and who types · [`privacy`] who may see it
//! - [`status`] what is posted to `status@broadcast`, for a day
//! - [`media`] files: the rules about them, their bytes in an object store, and HTTP's way to them
//! - [`run`] the loop around it all: batch, rules, commit, answers
//! - [`inside`] what comes over HTTP: the same rules without a connection · [`news`] tells who waits that an inbox has grown
//! - [`http`] the same over HTTP: routes, who calls, errors
//!
//! Nothing leaves before its commit, by construction: what a batch has to say is handed out by [`engine::Engine::release`], and that
//! comes after [`engine::Engine::commit`].

pub mod account;
pub mod blocks;
pub mod change;
pub mod chat_key;
pub mod config;
mod connection;
pub mod contacts;
pub mod devices;
pub mod edits;
pub mod engine;
pub mod expiry;
pub mod groups;
pub mod hidden;
pub mod http;
pub mod inside;
mod long_ack;
pub mod media;
pub mod news;
mod overlay;
pub mod presence;
pub mod privacy;
pub mod quota;
pub mod reader;
mod recipient;
pub mod run;
mod sender;
mod settle;
pub mod state;
pub mod stats;
pub mod status;
pub mod store;
mod stuck;
mod unheard;
pub mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use bytes::Bytes;
use natter_protocol::accounts::Revocation;
use natter_protocol::error::{NotNow, Refusal};
use natter_protocol::link::{Answer, Bell, LinkDown, LinkReceiver, LinkSender, Window};
use natter_protocol::{Chat, DeviceId, N, Seq, UserId};
use tokio::sync::oneshot;
use uuid::Uuid;

pub use config::{Config, GroupLimits, Limits, MediaLimits, PeopleLimits};
pub use inside::{Fetch, Page};
pub use news::{Watch, Woken};
pub use quota::Amount;
pub use stats::Stats;
pub use store::loss::Accepted as AcceptedLoss;

use engine::{CommitError, Engine, Event, Now, Released, Reply, Request};
use media::rules::Question;
use news::News;
use run::{Loop, Order};
use stats::Counters;
use store::sqlite::Sqlite;

/// Requests that wait for the loop; one more is answered "not now".
const ORDERS_MAX: usize = 1024;

/// What a bridge could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("{0}")]
    Store(String),
    /// Another process has written to the store.
    #[error("another process has written to this store: is a second server running on the same data?")]
    Fenced,
    /// The router has stopped.
    #[error(transparent)]
    Link(#[from] LinkDown),
    /// Nothing was done; trying again may help.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// Refused for good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The loop has ended.
    #[error("the bridge has ended")]
    Ended,
    /// The loop's thread could not be made.
    #[error("thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A store that is open, with everything recovered; no link yet. Used alone by `natter user` while no server runs.
#[derive(Debug)]
pub struct Bridge {
    engine: Engine<Sqlite>,
    counters: Arc<Counters>,
    boot: u32,
    epoch: u64,
}

impl Bridge {
    /// Opens (or makes) the store and recovers what the journal holds.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do.
    pub fn open(config: Config) -> Result<Self, Error> {
        let mut store = Sqlite::open(&config.path)?;
        let boot = store.next_boot()?;
        let epoch = store.epoch()?;
        let counters = Arc::new(Counters::default());
        let engine = Engine::recover(store, config.limits, Arc::clone(&counters))?;
        Ok(Self { engine, counters, boot, epoch })
    }

    /// Opens a store that may have lost its end, settles what is there, and makes it go on without what is missing: no position is given
    /// twice. It may be opened as usual afterwards.
    ///
    /// # Errors
    /// As [`Bridge::open`], but for the loss; nothing is accepted then.
    pub fn accept_loss(config: Config) -> Result<AcceptedLoss, Error> {
        let (store, extent) = Sqlite::open_with_loss(&config.path)?;
        let mut engine = Engine::recover(store, config.limits, Arc::default())?;
        while engine.settle()? {}
        Ok(engine.into_store().accept_loss(extent)?)
    }

    /// The number of this start: one more than the last one's.
    #[must_use]
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// The number of this store, made with it: positions of another one mean nothing here.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Every revocation that still matters.
    #[must_use]
    pub fn revocations(&self) -> Vec<Revocation> {
        self.engine.revocations()
    }

    /// Adds a user; `false`: it was there.
    ///
    /// # Errors
    /// When the commit fails.
    pub fn add_user(&mut self, user: &UserId) -> Result<bool, Error> {
        changed(self.ask(Request::AddUser(user.clone()))?)
    }

    /// Whether there is such a user.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_user(&mut self, user: &UserId) -> Result<bool, Error> {
        changed(self.ask(Request::HasUser(user.clone()))?)
    }

    fn ask(&mut self, request: Request) -> Result<Reply, Error> {
        let now = Now { server_secs: self.engine.server_secs(), unix_secs: 0 };
        self.engine.handle(Event::Request(0, request), now)?;
        self.engine.commit().map_err(|error| match error {
            CommitError::Fenced => Error::Fenced,
            CommitError::Store(error) => error.into(),
        })?;
        let mut released = Released::default();
        self.engine.release(&mut Window::default(), &mut released)?;
        match released.replies.pop() {
            Some((_, Reply::NotNow(why))) => Err(why.into()),
            Some((_, reply)) => Ok(reply),
            None => Err(Error::Ended),
        }
    }

    /// Runs the loop on a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(self, sender: Box<dyn LinkSender>, receiver: Box<dyn LinkReceiver>) -> Result<Running, Error> {
        let Self { engine, counters, boot: _, epoch: _ } = self;
        counters.healthy.store(true, Ordering::Relaxed);
        let (orders_tx, orders_rx) = sync_channel(ORDERS_MAX);
        let (ended_tx, ended_rx) = oneshot::channel();
        let (counters_of_all, news) = (Arc::clone(&counters), engine.news());
        let passed = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&passed);
        let handle = Handle { orders_tx, bell: receiver.bell(), counters: counters_of_all, news, clock };
        let looping = Loop::new(engine, sender, receiver, orders_rx, Arc::clone(&counters)).with_clock(passed);
        std::thread::Builder::new().name("bridge".into()).spawn(move || {
            let outcome = looping.run();
            counters.healthy.store(false, Ordering::Relaxed);
            // Nobody waits any more when the process ends by itself.
            let _ = ended_tx.send(outcome);
        })?;
        Ok(Running { handle, ended_rx })
    }
}

/// A bridge whose loop runs.
#[derive(Debug)]
pub struct Running {
    /// For everyone who asks it something.
    pub handle: Handle,
    ended_rx: oneshot::Receiver<Result<(), Error>>,
}

impl Running {
    /// Waits until the loop has ended by itself, and says why: the process must end then.
    pub async fn failed(&mut self) -> Error {
        match (&mut self.ended_rx).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => Error::Ended,
        }
    }

    /// Commits what has arrived, settles, closes the store. The doors must be closed before.
    ///
    /// # Errors
    /// What could not be written.
    pub async fn stop(self) -> Result<(), Error> {
        self.handle.order(Order::Stop)?;
        self.ended_rx.await.map_err(|_| Error::Ended)?
    }
}

/// Asks the loop. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    orders_tx: SyncSender<Order>,
    bell: Bell,
    counters: Arc<Counters>,
    news: Arc<News>,
    /// Server seconds passed by hand.
    clock: Arc<AtomicU64>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Handle {
    /// As [`Bridge::add_user`], after the commit.
    ///
    /// # Errors
    /// When the loop has ended or the commit fails.
    pub async fn add_user(&self, user: UserId) -> Result<bool, Error> {
        self.ask(Request::AddUser(user)).await
    }

    /// As [`Bridge::has_user`].
    ///
    /// # Errors
    /// When the loop has ended.
    pub async fn has_user(&self, user: UserId) -> Result<bool, Error> {
        self.ask(Request::HasUser(user)).await
    }

    /// Keeps a revocation, after the commit.
    ///
    /// # Errors
    /// When the loop has ended or the commit fails.
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), Error> {
        self.ask(Request::Revoke(revocation)).await.map(|_| ())
    }

    /// Lets so many server seconds pass at once, for tests: whatever is asked afterwards finds them passed, and a sweep begins within a
    /// second. Unix time stays. There is no way back.
    pub fn pass_time(&self, secs: u64) {
        self.clock.fetch_add(secs, Ordering::Relaxed);
        (self.bell)();
    }

    /// Counters and gauges, for `/metrics` and `/readyz`.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// Asks about media; what changes is answered after the commit.
    ///
    /// # Errors
    /// When the loop has ended or the commit fails. What is refused for good is an answer.
    pub async fn media(&self, question: Question) -> Result<media::rules::Reply, Error> {
        match self.reply(Request::Media(question)).await? {
            Reply::Media(reply) => Ok(reply),
            _ => Err(Error::Ended),
        }
    }

    /// Publishes `payload`, as a device does to its outbox, and answers after the commit: with the first answer again if the message is
    /// known by its `id`. Whoever gets an error but [`Error::Refused`] may send the same again; with an `id`, without doubling it.
    ///
    /// # Errors
    /// [`Error::Refused`] for good; [`Error::NotNow`] when nothing was done; otherwise it is not known what was.
    pub async fn publish(&self, user: UserId, device: DeviceId, payload: Bytes) -> Result<Answer, Error> {
        let stamp = Uuid::now_v7().as_u128();
        answer(self.reply(Request::Publish { user, device, stamp, payload }).await?)
    }

    /// The first of what `device` has not acknowledged, after `fetch.after` is; the device begins by it.
    ///
    /// # Errors
    /// As [`Handle::publish`].
    pub async fn fetch(&self, fetch: Fetch) -> Result<Page, Error> {
        match self.reply(Request::Fetch(fetch)).await? {
            Reply::Page(page) => Ok(page),
            _ => Err(Error::Ended),
        }
    }

    /// Acknowledges everything up to `upto`, for `device`.
    ///
    /// # Errors
    /// As [`Handle::publish`].
    pub async fn ack(&self, user: UserId, device: DeviceId, upto: Seq) -> Result<(), Error> {
        answer(self.reply(Request::Ack { user, device, upto }).await?).map(|_| ())
    }

    /// The whole entry behind an `unsupported` one that was sent to a device of `user`.
    ///
    /// # Errors
    /// As [`Handle::publish`].
    pub async fn kept(&self, user: UserId, chat: Chat, n: N) -> Result<Option<Bytes>, Error> {
        match self.reply(Request::Kept { user, chat, n }).await? {
            Reply::Entry(entry) => Ok(entry),
            _ => Err(Error::Ended),
        }
    }

    /// Begins to watch an inbox: watch first, then fetch, then wait beyond [`Page::newest`].
    #[must_use]
    pub fn watch(&self, user: &UserId) -> Watch {
        self.news.watch(user)
    }

    /// Ends the waits of `user`, or everybody's: what they wait for may not come any more.
    pub fn nudge(&self, user: Option<&UserId>) {
        self.news.nudge(user);
    }

    async fn ask(&self, request: Request) -> Result<bool, Error> {
        changed(self.reply(request).await?)
    }

    async fn reply(&self, request: Request) -> Result<Reply, Error> {
        let (reply_tx, reply_rx) = oneshot::channel();
        self.order(Order::Ask(request, reply_tx))?;
        match reply_rx.await {
            Ok(Reply::NotNow(why)) => Err(why.into()),
            Ok(Reply::Refused(refusal)) => Err(refusal.into()),
            Ok(reply) => Ok(reply),
            Err(_) => Err(Error::Ended),
        }
    }

    fn order(&self, order: Order) -> Result<(), Error> {
        self.orders_tx.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => Error::NotNow(NotNow::Busy),
            TrySendError::Disconnected(_) => Error::Ended,
        })?;
        (self.bell)();
        Ok(())
    }
}

fn changed(reply: Reply) -> Result<bool, Error> {
    match reply {
        Reply::Changed(changed) => Ok(changed),
        _ => Err(Error::Ended),
    }
}

fn answer(reply: Reply) -> Result<Answer, Error> {
    match reply {
        Reply::Answer(answer) => Ok(answer),
        _ => Err(Error::Ended),
    }
}

/// Runs `task` to its end, whatever becomes of whoever waits for it: an HTTP client that hangs up must not leave done by half what is
/// committed and then applied.
///
/// # Errors
/// Those of the task.
pub async fn wholly<T: Send + 'static>(
    task: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(task).await.unwrap_or(Err(Error::Ended))
}
