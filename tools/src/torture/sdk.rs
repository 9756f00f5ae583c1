//! A device that is a client of the SDK, as an app would be: what it is promised is what it writes down.
//!
//! - *Sent* is in the journal before `send` is called, *kept* when it has returned. After a SIGKILL a message that was not kept is given to the
//!   client again, under its id; one that was kept is never given again: the client's store has to have it.
//! - What arrives is written into a table of the client's own store, within the client's transaction: exactly once, or the judge says so.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use natter_client::rusqlite::{self, Connection, OpenFlags};
use natter_client::{Client, ConnectionState, Error, Events, OutgoingMessage, ReceiptKind};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::client::{DRAINING, Order, READING, SENDING, Shared, Status};
use super::clock;
use super::history::{Event, Message, What};
use super::journal::{self, Journal};
use super::memory::Memory;
use super::plan::{self, Place, user_name};
use super::random::{Random, hash};

/// Most messages of a device without an answer.
const WINDOW: usize = 64;
/// How often it looks whether there is something to do.
const STEP: Duration = Duration::from_millis(5);
/// How long to wait for a store whose last client is ending.
const REOPEN: Duration = Duration::from_millis(20);

/// The store of a device.
pub(crate) fn store(dir: &Path, index: u32) -> PathBuf {
    dir.join(format!("device-{index}.db"))
}

/// Everything that a device wrote down, in the order of time: what it sent from its journal, what it received from its store.
pub(crate) fn read(dir: &Path, index: u32) -> Result<Vec<Event>> {
    let path = plan::journal(dir, index);
    let (mut events, _) = journal::read(&path).with_context(|| path.display().to_string())?;
    events.extend(received(&store(dir, index))?);
    events.sort_by_key(|event| event.at);
    Ok(events)
}

fn received(path: &Path) -> Result<Vec<Event>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let read = || -> rusqlite::Result<Vec<u8>> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        db.busy_timeout(Duration::from_secs(10))?;
        make_table(&db)?;
        let mut query = db.prepare("SELECT what FROM torture ORDER BY key")?;
        let rows: Vec<Vec<u8>> = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(rows.concat())
    };
    let bytes = read().with_context(|| path.display().to_string())?;
    Ok(journal::parse(&bytes, path)?.0)
}

fn make_table(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("CREATE TABLE IF NOT EXISTS torture(key INTEGER PRIMARY KEY, what BLOB NOT NULL)")
}

/// A device and what it remembers.
pub(crate) struct SdkDevice<'a> {
    dir: PathBuf,
    place: Place,
    shared: &'a Shared,
    status: &'a Mutex<Status>,
    orders: Receiver<Order>,
    random: Random,
    journal: Journal,
    memory: Memory,
    settled: u8,
}

/// What a client did; `None`: its life is over, and the next one does it.
fn alive<T>(done: Result<T, Error>) -> Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(Error::Closed) => Ok(None),
        Err(error) => Err(anyhow!("{error}")),
    }
}

/// A client that lives, and what comes from it.
struct Life {
    client: Client,
    receives: JoinHandle<()>,
    took: UnboundedReceiver<What>,
    /// Waits for the answers: `k`, and the number.
    answers: JoinSet<(u32, Result<u64, Error>)>,
    slow_until: Arc<Mutex<Instant>>,
}

impl<'a> SdkDevice<'a> {
    /// A device that goes on where its journal and its store end.
    pub(crate) fn open(
        dir: &Path,
        place: Place,
        shared: &'a Shared,
        status: &'a Mutex<Status>,
        orders: Receiver<Order>,
    ) -> Result<Self> {
        let (journal, sent) = Journal::open(&plan::journal(dir, place.index))?;
        let received = received(&store(dir, place.index))?;
        let mut memory = Memory::default();
        sent.iter().chain(&received).for_each(|event| memory.apply(&event.what, &place, shared.plan.devices));
        let lives = (sent.len() + received.len()) as u64;
        let random = Random::new(shared.plan.seed, (1000 + u64::from(place.index)) << 32 | lives);
        let device = Self { dir: dir.to_owned(), place, shared, status, orders, random, journal, memory, settled: 0 };
        device.tell();
        Ok(device)
    }

    /// Lives until the host says that it is over.
    ///
    /// # Errors
    /// When the journal or the store fails: a device without them cannot go on.
    pub(crate) fn run(mut self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            while !self.shared.finish.load(SeqCst) {
                let mut life = self.begin().await?;
                let away = self.live(&mut life).await;
                // As a process that dies: nothing is finished. What the store has is all that the next life knows.
                life.receives.abort();
                drop(life);
                self.journal.flush()?;
                self.tell();
                let until = Instant::now() + away?;
                while Instant::now() < until && !self.is_peace() {
                    sleep(REOPEN).await;
                }
            }
            Ok(())
        })
    }

    fn is_peace(&self) -> bool {
        self.shared.phase.load(SeqCst) >= DRAINING || self.shared.finish.load(SeqCst)
    }

    async fn begin(&mut self) -> Result<Life> {
        let path = store(&self.dir, self.place.index);
        let user = user_name(self.place.user);
        let token = self.shared.plan.tokens.get(self.place.user as usize).map_or("", String::as_str);
        let url = format!("mqtt://127.0.0.1:{}", self.shared.plan.port);
        let client = loop {
            make_table(&Connection::open(&path)?)?;
            let device = format!("d{}", self.place.device);
            let builder = Client::builder(&url).user(&user).device(&device).token(token).store(&path);
            match builder.start().await {
                Ok(client) => break client,
                // The last life's client is about to let go of it.
                Err(Error::Store(error)) if error.contains("only client") => sleep(REOPEN).await,
                Err(error) => return Err(anyhow!("{}: {error}", path.display())),
            }
        };
        // What came while nobody looked is in the table.
        let before = received(&path)?;
        let (mut memory, devices) = (Memory::default(), self.shared.plan.devices);
        let (sent, _) = journal::read(&plan::journal(&self.dir, self.place.index))?;
        sent.iter().chain(&before).for_each(|event| memory.apply(&event.what, &self.place, devices));
        self.memory = memory;
        let (tell, took) = unbounded_channel();
        let slow_until = Arc::new(Mutex::new(Instant::now()));
        let receives = tokio::spawn(receive(client.events(), tell, Arc::clone(&slow_until)));
        let mut life = Life { client, receives, took, answers: JoinSet::new(), slow_until };
        if let Some(n) = self.memory.mark {
            alive(life.client.chat(&user_name(self.place.user ^ 1)).mark_read(n.into()).await)?;
        }
        for k in self.memory.unacked.iter().copied().collect::<Vec<_>>() {
            match life.client.message(&self.message(k).id()) {
                Some(message) => life.wait_for(k, message),
                None if self.memory.kept.contains(&k) => {
                    // Lost by the store: it stays without an answer, and the judge says so.
                }
                None => self.give(&mut life, k).await?,
            }
        }
        Ok(life)
    }

    /// Until the end, the next journey (how long it takes), or the end of the client.
    async fn live(&mut self, life: &mut Life) -> Result<Duration> {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut state = life.client.state();
        while !self.shared.finish.load(SeqCst) {
            tokio::select! {
                Some(what) = life.took.recv() => self.memory.apply(&what, &self.place, self.shared.plan.devices),
                Some(answer) = life.answers.join_next() => {
                    let (k, answer) = answer.context("a wait for an answer")?;
                    match answer {
                        Ok(n) => self.note(What::Acked { k, n: u32::try_from(n).ok() })?,
                        // The next life asks again.
                        Err(Error::Closed) => return Ok(Duration::ZERO),
                        Err(_) => {
                            self.note(What::Refused)?;
                            self.memory.unacked.remove(&k);
                        }
                    }
                }
                changed = state.changed() => {
                    // A connection of an earlier life may be late to take the device over: nothing ends by that.
                    if let ConnectionState::Closed(error @ Error::TakenOver) = &*state.borrow() {
                        return Err(anyhow!("device {}: {error}", self.place.index));
                    }
                    let ended = changed.is_err() || matches!(*state.borrow(), ConnectionState::Closed(_));
                    let connected = *state.borrow_and_update() == ConnectionState::Connected;
                    if connected && !self.memory.subscribed {
                        self.note(What::Subscribed)?;
                    }
                    if ended {
                        return Ok(REOPEN);
                    }
                }
                _ = steps.tick() => match self.orders.try_recv() {
                    Ok(Order::Away(time)) => return Ok(time),
                    Ok(Order::Takeover) => return Ok(Duration::ZERO),
                    Ok(Order::Slow(time)) => {
                        *life.slow_until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + time;
                    }
                    // Its socket is the client's own; the proxy cuts it.
                    Ok(Order::Cut | Order::Reset) | Err(_) => self.write(life).await?,
                },
            }
            self.tell();
        }
        Ok(Duration::ZERO)
    }

    async fn write(&mut self, life: &mut Life) -> Result<()> {
        let phase = self.shared.phase.load(SeqCst);
        let limit = if phase == SENDING { self.shared.limit.load(SeqCst).min(self.place.quota) } else { 0 };
        if self.memory.subscribed && life.answers.len() < WINDOW && self.memory.next_k < limit {
            let k = self.memory.next_k;
            self.note(What::Sent { k, hash: hash(self.body(k).as_bytes()) })?;
            self.give(life, k).await?;
        }
        let theirs = self.memory.theirs;
        let all = phase >= READING && self.place.device == 0;
        if theirs > self.memory.marked && (all || self.random.below(20) == 0) {
            self.note(What::MarkedRead { n: theirs })?;
            let chat = life.client.chat(&user_name(self.place.user ^ 1));
            alive(chat.mark_read(theirs.into()).await)?;
        }
        if phase >= DRAINING && self.memory.unacked.is_empty() {
            self.settled = phase;
        }
        Ok(())
    }

    /// Gives a message to the client: it is the client's from then on.
    async fn give(&mut self, life: &mut Life, k: u32) -> Result<()> {
        let text = json!({"id": self.message(k).id(), "type": "text", "text": {"body": self.body(k)}});
        let message = life.client.chat(&user_name(self.place.user ^ 1)).send(text).await;
        // What the client did not take is given to the next one.
        let Some(message) = alive(message)? else { return Ok(()) };
        self.note(What::Kept { k })?;
        life.wait_for(k, message);
        Ok(())
    }

    /// Nothing is done before what it says is in the journal.
    fn note(&mut self, what: What) -> Result<()> {
        self.journal.note(what);
        self.journal.flush()?;
        self.memory.apply(&what, &self.place, self.shared.plan.devices);
        Ok(())
    }

    fn tell(&self) {
        let Memory { subscribed, next_k, taken, theirs, read, .. } = self.memory;
        let (sent, answered) = (next_k.into(), self.memory.answered());
        let status = Status { subscribed, sent, answered, settled: self.settled, taken, theirs, read };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    fn message(&self, k: u32) -> Message {
        Message { device: self.place.index, k }
    }

    fn body(&self, k: u32) -> String {
        let mut random = Random::new(self.shared.plan.seed ^ u64::from(self.place.index) << 40, k.into());
        format!("{:x} {:016x}", random.next(), random.next())
    }
}

impl Life {
    fn wait_for(&mut self, k: u32, message: OutgoingMessage) {
        self.answers.spawn(async move { (k, message.sent().await.map(|sent| sent.n)) });
    }
}

/// Writes down what arrives, within the client's transaction.
async fn receive(mut events: Events, tell: UnboundedSender<What>, slow_until: Arc<Mutex<Instant>>) {
    loop {
        let until = *slow_until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = until.checked_duration_since(Instant::now()) {
            sleep(wait).await;
        }
        let kept = events.next_in_transaction(|db, event| {
            let Some(what) = what(&event) else { return Ok(None) };
            let record = journal::record(&Event { at: clock::now(), what });
            db.execute("INSERT INTO torture(what) VALUES(?1)", [record])?;
            Ok(Some(what))
        });
        match kept.await {
            Ok(Some(what)) => {
                // The device may be on its way out.
                let _gone = what.map(|what| tell.send(what));
            }
            Ok(None) => return,
            // It comes again.
            Err(_) => sleep(STEP).await,
        }
    }
}

/// What an event is; nothing, if it is not about messages.
fn what(event: &natter_client::Event) -> Option<What> {
    use natter_client::Event as Is;
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Some(match event {
        Is::Message(message) => match (Message::parse(&message.id), message.text()) {
            (Some(of), Some(text)) => {
                What::Taken { message: of, n: small(message.n), seq: message.seq, hash: hash(text.as_bytes()) }
            }
            _ => What::Phantom,
        },
        Is::Receipt(receipt) => {
            let recipient = receipt
                .recipient
                .as_deref()
                .and_then(|name| name.strip_prefix('u'))
                .and_then(|number| number.parse().ok());
            let (Some(message), Some(recipient)) = (Message::parse(&receipt.id), recipient) else {
                return Some(What::Phantom);
            };
            let (read, seq) = (receipt.kind == ReceiptKind::Read, receipt.seq);
            What::Receipt { read, recipient, after: small(receipt.after), n: small(receipt.n), message, seq }
        }
        Is::Gap(_) => What::Gap,
        // Of a message: its sender hears of it by `sent()`. Of a read mark, it is one too many.
        Is::Failed(failed) if failed.id.is_none() => What::Refused,
        Is::Failed(_) | Is::Typing(_) | Is::Presence(_) | Is::SlowConsumer(_) => return None,
        _ => What::Phantom,
    })
}
