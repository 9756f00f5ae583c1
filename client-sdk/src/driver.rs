//! The one task that owns the connection, the core and the store.

mod app;

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use natter_protocol::Seq;
use natter_protocol::entry::Entry;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{Event as Mqtt, EventLoop};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::builder::Settings;
use crate::client::{ConnectionState, Shared};
use crate::connection::{CONNECT_MAX, Connection, End, end_of, epoch};
use crate::core::takeover::Takeovers;
use crate::core::{Core, Input, Output};
use crate::error::Error;
use crate::feed::{Claim, Notice, lock};
use crate::storage::{Done, Storage};
use crate::store::{Owner, Store};
pub(crate) use app::{Command, Job};
use app::{Reply, in_front, watch};

/// rumqttc says something at least every keep-alive, if only that it pings; a socket that takes no bytes silences it.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// A connection that lived this long was a good one: the next failure waits the shortest time again.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);
/// How often the core looks at the clock, if nothing else happens.
const TICK: Duration = Duration::from_secs(60);
/// How long a good-bye may take.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
pub(crate) struct Driver {
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    took: mpsc::UnboundedReceiver<Seq>,
    storage: Storage,
    core: Core,
    next_ticket: u64,
    /// Who waits for a send, and for which id.
    sends: HashMap<u64, (Option<String>, Reply)>,
    transactions: HashMap<u64, (Claim, Reply)>,
    watches: BTreeSet<String>,
    /// The app is in front.
    available: bool,
    connection: Option<Connection>,
    /// When the last connection was begun.
    begun: Instant,
    closing: Option<(Instant, oneshot::Sender<()>)>,
}

/// Something that did not come from the network.
enum Local {
    Done(Done),
    Took(Seq),
    Command(Command),
    Tick,
    /// The drain is over.
    Deadline,
    /// Nobody holds the client any more.
    Dropped,
}

impl Driver {
    pub(crate) async fn open(
        settings: Arc<Settings>,
        store: Box<dyn Store>,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        took: mpsc::UnboundedReceiver<Seq>,
    ) -> Result<Self, Error> {
        let owner = Owner { user: settings.user.to_string(), device: settings.device.to_string() };
        let mut storage = Storage::spawn(store, owner)?;
        let core = Core::new(storage.load().await?, storage.durable);
        let mut driver = Self {
            settings,
            shared,
            commands,
            took,
            storage,
            core,
            next_ticket: 0,
            sends: HashMap::new(),
            transactions: HashMap::new(),
            watches: BTreeSet::new(),
            available: true,
            connection: None,
            begun: Instant::now(),
            closing: None,
        };
        // What the store has can be asked for from now on.
        let _ = driver.flush();
        Ok(driver)
    }

    /// Runs until the client is closed, dropped, or refused. `ready` hears how the first connection went; if it failed, that is all.
    pub(crate) async fn run(mut self, mut ready: Option<oneshot::Sender<Result<(), Error>>>) {
        let mut backoff = Backoff::default();
        let mut takeovers = Takeovers::default();
        let mut denied = 0;
        let error = loop {
            let began = Instant::now();
            let end = self.connection(&mut ready, &mut denied).await;
            self.connection = None;
            self.core.handle(now_ms(), Input::Disconnected);
            let _ = self.flush();
            if began.elapsed() >= GOOD_CONNECTION {
                backoff.reset();
            }
            let lived = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let goes_on = takeovers.ended(lived, matches!(end, End::TakenOver));
            let (error, last) = match end {
                End::Missing => continue,
                End::Broken(error) => (error, ready.is_some()),
                // The next token may be better; two refused in a row are not a matter of time.
                End::Denied(error) => (error, ready.is_some() || denied >= 2),
                End::TakenOver => (Error::TakenOver, !goes_on),
                End::Final(error) => (error, true),
            };
            if last {
                if let Some(ready) = ready.take() {
                    let _ = ready.send(Err(error.clone()));
                }
                break error;
            }
            debug!(%error, "connection lost");
            self.say(ConnectionState::Reconnecting(error));
            let wait = Instant::now() + backoff.next(random());
            if let Err(End::Final(error)) = self.wait(wait).await {
                break error;
            }
        };
        self.end(error).await;
    }

    /// What was asked for before the end is written, and everybody who waits hears of it.
    async fn end(mut self, error: Error) {
        while let Ok(seq) = self.took.try_recv() {
            self.core.handle(now_ms(), Input::Took { seq, stored: false });
        }
        let _ = self.flush();
        let deadline = Instant::now() + GOODBYE_MAX;
        while self.core.take_batch().map(|batch| self.storage.commit(batch)).is_some() || self.core.is_writing() {
            match tokio::time::timeout_at(deadline, self.storage.done()).await {
                Ok(Done::Committed(Ok(()))) => self.core.handle(now_ms(), Input::Stored),
                Ok(Done::Loaded(_) | Done::Transaction { .. }) => {}
                Ok(Done::Committed(Err(_))) | Err(_) => break,
            }
            let _ = self.flush();
        }
        self.storage.close().await;
        self.shared.state.send_replace(ConnectionState::Closed(error));
        lock(&self.shared.registry).close();
        lock(&self.shared.feed).close();
        if let Some((_, done)) = self.closing {
            let _ = done.send(());
        }
    }

    /// One connection, from CONNECT to its end.
    async fn connection(&mut self, ready: &mut Option<oneshot::Sender<Result<(), Error>>>, denied: &mut u32) -> End {
        self.say(ConnectionState::Connecting);
        let refused = self.settings.tokens.refused();
        let settings = self.settings.clone();
        let token = match self.alongside(settings.tokens.token(refused.as_deref())).await {
            Ok(Ok(token)) => token,
            Ok(Err(error @ Error::Denied(_))) => return End::Final(error),
            Ok(Err(error)) => return End::Broken(error),
            Err(end) => return end,
        };
        let (connection, mut mqtt) = match Connection::new(&self.settings, &token) {
            Ok(made) => made,
            Err(error) => return End::Final(error),
        };
        self.connection = Some(connection);
        self.begun = Instant::now();
        let deadline = Instant::now() + CONNECT_MAX;
        let end = match self.open_inbox(&mut mqtt, deadline).await {
            Ok(()) => {
                if let Some(ready) = ready.take() {
                    let _ = ready.send(Ok(()));
                }
                *denied = 0;
                self.say(ConnectionState::Connected);
                let Err(end) = self.serve(&mut mqtt).await;
                // Not after an end that came from there: to poll then is to connect again.
                if let End::Final(Error::Closed) = &end {
                    self.say_goodbye(&mut mqtt).await;
                }
                end
            }
            Err(end) => end,
        };
        if let End::Denied(_) = &end {
            *denied += 1;
            self.settings.tokens.refuse(token);
        }
        end
    }

    /// CONNECT, CONNACK, SUBSCRIBE, SUBACK. Entries may come before the SUBACK.
    async fn open_inbox(&mut self, mqtt: &mut EventLoop, deadline: Instant) -> Result<(), End> {
        loop {
            match self.poll(mqtt, deadline).await? {
                Mqtt::Incoming(Packet::ConnAck(ack)) => {
                    if let Some(epoch) = epoch(&ack) {
                        self.core.handle(now_ms(), Input::Epoch(epoch));
                        self.flush()?;
                    }
                    if let Some(connection) = &self.connection {
                        if !self.available {
                            // Before anybody is told that it is there.
                            connection.publish_live(in_front(false));
                        }
                        connection.subscribe(&self.settings);
                    }
                }
                Mqtt::Incoming(Packet::SubAck(answer)) => match answer.return_codes.first() {
                    Some(SubscribeReasonCode::Success(_)) => break,
                    Some(SubscribeReasonCode::NotAuthorized) => {
                        return Err(End::Denied(Error::Denied("this token does not read this inbox".into())));
                    }
                    other => return Err(End::Broken(Error::InboxRefused(format!("{other:?}")))),
                },
                Mqtt::Incoming(Packet::Publish(publish)) => self.arrived(publish)?,
                _ => {}
            }
        }
        for chat in &self.watches {
            if let Some(connection) = &self.connection {
                connection.publish_live(watch(chat, true));
            }
        }
        self.core.handle(now_ms(), Input::Connected);
        self.flush()
    }

    async fn serve(&mut self, mqtt: &mut EventLoop) -> Result<std::convert::Infallible, End> {
        loop {
            let event = self.poll(mqtt, Instant::now() + SILENCE_MAX).await?;
            match event {
                Mqtt::Outgoing(Outgoing::Publish(packet_id)) => {
                    if let Some(connection) = &mut self.connection {
                        connection.written(packet_id);
                    }
                }
                Mqtt::Incoming(Packet::PubAck(ack)) => {
                    let answer = self.connection.as_mut().and_then(|connection| connection.answered(&ack));
                    if let Some((key, answer)) = answer {
                        self.core.handle(now_ms(), Input::Answered { key, answer });
                        self.flush()?;
                    }
                }
                Mqtt::Incoming(Packet::Publish(publish)) => self.arrived(publish)?,
                _ => {}
            }
        }
    }

    /// The next event of the connection; what else happens meanwhile is done on the way. A poll is never given up half-way: that would begin
    /// the handshake anew.
    async fn poll(&mut self, mqtt: &mut EventLoop, deadline: Instant) -> Result<Mqtt, End> {
        match self.alongside(tokio::time::timeout_at(deadline, mqtt.poll())).await? {
            Ok(event) => event.map_err(|error| end_of(&error)),
            Err(_) => Err(End::Broken(Error::Unreachable("the connection says nothing for too long".into()))),
        }
    }

    async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                local = self.local() => self.apply(local).await?,
            }
        }
    }

    /// Waits. What is sent meanwhile goes to the store.
    async fn wait(&mut self, until: Instant) -> Result<(), End> {
        self.alongside(sleep_until(until)).await
    }

    /// Cancelling it loses nothing.
    async fn local(&mut self) -> Local {
        let idle = self.closing.is_some() && self.core.is_idle() && self.transactions.is_empty();
        if idle {
            return Local::Deadline;
        }
        let deadline = self.closing.as_ref().map(|(deadline, _)| *deadline);
        tokio::select! {
            biased;
            done = self.storage.done() => Local::Done(done),
            // Before commands: a read mark goes out behind the acknowledgement of what was read.
            Some(seq) = self.took.recv() => Local::Took(seq),
            command = self.commands.recv() => command.map_or(Local::Dropped, Local::Command),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Local::Deadline,
            () = tokio::time::sleep(TICK) => Local::Tick,
        }
    }

    async fn apply(&mut self, local: Local) -> Result<(), End> {
        let now = now_ms();
        match local {
            Local::Done(Done::Committed(Ok(()))) => self.core.handle(now, Input::Stored),
            Local::Done(Done::Committed(Err(error))) => return self.store_failed(&error.to_string()).await,
            Local::Done(Done::Loaded(_)) => {}
            Local::Done(Done::Transaction { ticket, result }) => {
                if let Some((claim, reply)) = self.transactions.remove(&ticket) {
                    if result.is_ok() {
                        if let Some(seq) = claim.seq() {
                            self.core.handle(now, Input::Took { seq, stored: true });
                        }
                        claim.done();
                    }
                    let _ = reply.send(result);
                }
            }
            Local::Took(seq) => self.core.handle(now, Input::Took { seq, stored: false }),
            Local::Command(command) => self.command(now, command),
            Local::Tick => self.core.handle(now, Input::Tick),
            Local::Deadline | Local::Dropped => return Err(End::Final(Error::Closed)),
        }
        self.flush()
    }

    fn arrived(&mut self, publish: Publish) -> Result<(), End> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let payload = publish.payload.clone();
        let delivery = connection.arrived(publish);
        let Ok(entry) = Entry::parse(&payload) else {
            warn!(bytes = payload.len(), "an entry that does not read: acknowledged and dropped");
            return connection.acknowledge(delivery);
        };
        if entry.seq.is_none() {
            connection.forget(delivery);
        }
        self.core.handle(now_ms(), Input::Arrived { delivery, entry: Box::new(entry), payload });
        self.flush()
    }

    /// Does what the core wants.
    fn flush(&mut self) -> Result<(), End> {
        let mut result = Ok(());
        while let Some(output) = self.core.next_output() {
            let done = self.output(output);
            result = result.and(done);
        }
        if let Some(batch) = self.core.take_batch() {
            self.storage.commit(batch);
        }
        result
    }

    fn output(&mut self, output: Output) -> Result<(), End> {
        match (output, &mut self.connection) {
            (Output::Publish { key, payload }, Some(connection)) => return connection.publish(key, payload),
            (Output::Acknowledge(delivery), Some(connection)) => return connection.acknowledge(delivery),
            (Output::Reconnect, Some(_)) => return Err(End::Missing),
            // Its connection is gone; the core is about to hear it.
            (Output::Publish { .. } | Output::Acknowledge(_) | Output::Reconnect, None) => {}
            (Output::Accepted(ticket), _) => self.answer(ticket, Ok(())),
            (Output::Rejected(ticket, error), _) => self.answer(ticket, Err(error)),
            (Output::Progress(id, progress), _) => lock(&self.shared.registry).set(id, *progress),
            (Output::Forgotten(id), _) => lock(&self.shared.registry).forget(&id),
            (Output::Entry(seq, _), _) if self.settings.send_only => {
                self.core.handle(now_ms(), Input::Took { seq, stored: false });
            }
            (Output::Entry(seq, entry), _) => lock(&self.shared.feed).entry(seq, entry),
            (Output::BegunAnew, _) => {
                warn!("the server has another store than before: the inbox begins anew");
                lock(&self.shared.feed).begin_anew();
            }
            (Output::Live(entry), _) => lock(&self.shared.feed).live(Notice::Live(entry)),
            (Output::Failed(failed), _) => lock(&self.shared.feed).live(Notice::Failed(failed)),
        }
        Ok(())
    }

    fn say(&self, state: ConnectionState) {
        self.shared.state.send_replace(state);
    }

    async fn say_goodbye(&mut self, mqtt: &mut EventLoop) {
        if self.connection.as_ref().is_some_and(Connection::disconnect) {
            let sent =
                async { while !matches!(mqtt.poll().await, Err(_) | Ok(Mqtt::Outgoing(Outgoing::Disconnect))) {} };
            let _ = timeout(GOODBYE_MAX, sent).await;
        }
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// The random part of a UUID is random enough to spread reconnects.
fn random() -> u32 {
    let [.., a, b, c, d] = uuid::Uuid::now_v7().into_bytes();
    u32::from_be_bytes([a, b, c, d])
}
