//! The loop: a batch of everything that arrived while the last commit ran, its rules, one commit, and then what it has to say.
//!
//! One thread owns the store, the rules and both ends of the link. It waits in one place only, for the next frame; requests of the
//! process ring.

mod waiting;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use natter_protocol::UserId;
use natter_protocol::error::NotNow;
use natter_protocol::histogram::micros_of_uuid7;
use natter_protocol::link::{Down, Intake, LinkReceiver, LinkSender, Up, Window};
use tokio::sync::oneshot;

use self::waiting::{SETTLE_AFTER, Waiting};
use crate::Error;
use crate::engine::{CommitError, Engine, Event, Now, Released, Reply, Request, Ticket};
use crate::settle::{SLICE_CHANGES_FULL_MAX, SLICE_CHANGES_MAX};
use crate::stats::Counters;
use crate::store::{Store, StoreError};

/// How often a round of settlements begins. A round takes all rows of that age: what many of them touch is written once.
const SETTLE_EVERY: Duration = Duration::from_millis(500);
/// How long a batch that has nothing to say may wait for one that has: its commit would be a sync for nobody.
const SILENT_MAX: Duration = Duration::from_millis(20);
/// How long receipts may wait for a batch with something else to say: at 2,000 messages a second that saves four commits of ten.
const RECEIPTS_MAX: Duration = Duration::from_micros(400);
/// The rest after a settlement that failed.
const SETTLE_REST: Duration = Duration::from_secs(1);
/// How often time itself is an event.
const TICK: Duration = Duration::from_secs(1);
/// The rest between two steps of a sweep that has much to drop.
const SWEEP_REST: Duration = Duration::from_millis(20);
/// The rest after a commit that failed, before the store is tried again without a batch: a server that nobody is sent to any more, since
/// it is not ready, would otherwise never find out that the disk has room again.
const PROBE_REST: Duration = Duration::from_secs(1);
/// How long the loop waits for stragglers when it is told to stop.
const LAST_WAIT: Duration = Duration::from_millis(50);

/// Something asked from inside the process.
#[derive(Debug)]
pub enum Order {
    /// A request, and where its reply goes.
    Ask(Request, oneshot::Sender<Reply>),
    /// Finish what has arrived, settle everything, end.
    Stop,
}

/// The loop and what it owns.
pub struct Loop<S> {
    engine: Engine<S>,
    sender: Box<dyn LinkSender>,
    receiver: Box<dyn LinkReceiver>,
    orders: Receiver<Order>,
    counters: Arc<Counters>,
    clock: Clock,
    window: Window,
    intake: Intake,
    batch: Vec<Event>,
    /// When the door read what the batch publishes, in microseconds of Unix time.
    published_at: Vec<u64>,
    tickets: HashMap<Ticket, oneshot::Sender<Reply>>,
    next_ticket: Ticket,
    /// Journal rows that are not settled.
    waiting: Waiting,
    /// Journal rows that the round of settlements still takes.
    round: usize,
    settle_not_before: Instant,
    /// The last slice was not settled: it rests, however much there is.
    settling_failed: bool,
    /// Set while changes wait that nobody waits for: when they are committed at the latest.
    silent_until: Option<Instant>,
    /// Set while the last commit failed: when the store is tried next.
    next_probe: Option<Instant>,
    next_tick: Instant,
    stopping: bool,
}

impl<S: Store> Loop<S> {
    /// Puts the parts together; nothing runs yet.
    pub fn new(
        engine: Engine<S>,
        sender: Box<dyn LinkSender>,
        receiver: Box<dyn LinkReceiver>,
        orders: Receiver<Order>,
        counters: Arc<Counters>,
    ) -> Self {
        let now = Instant::now();
        // What the last run left is old: settled first, or a server that is killed again and again would carry it for ever.
        let before = now.checked_sub(SETTLE_AFTER).unwrap_or(now);
        let mut waiting = Waiting::default();
        for changes in engine.unsettled_changes() {
            waiting.push(before, changes);
        }
        let clock = Clock { start: now, server_secs: engine.server_secs(), passed_by_hand: Arc::default() };
        Self {
            engine,
            sender,
            receiver,
            orders,
            counters,
            clock,
            window: Window::default(),
            intake: Intake::default(),
            batch: Vec::new(),
            published_at: Vec::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            waiting,
            round: 0,
            settle_not_before: now,
            settling_failed: false,
            silent_until: None,
            next_probe: None,
            next_tick: now + TICK,
            stopping: false,
        }
    }

    /// Server seconds that are added to its clock by hand come by this.
    #[must_use]
    pub fn with_clock(mut self, passed_by_hand: Arc<AtomicU64>) -> Self {
        self.clock.passed_by_hand = passed_by_hand;
        self
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// What the process must end for: the router has stopped, another process owns the store, the store cannot be read, or a sync failed.
    pub fn run(mut self) -> Result<(), Error> {
        loop {
            let quiet = self.gather()?;
            self.work()?;
            if self.stopping && quiet {
                break;
            }
            self.probe_if_due()?;
            self.settle_if_due()?;
        }
        match self.engine.say_goodbye() {
            Ok(()) => {}
            Err(CommitError::Fenced) => return Err(Error::Fenced),
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
        while self.engine.settle()? {}
        Ok(())
    }

    /// Waits for something, and takes everything that is there, up to the limit of a batch. `true`: nothing was there.
    fn gather(&mut self) -> Result<bool, Error> {
        let mut deadline = self.next_wake();
        let mut quiet = true;
        let mut confirm = None;
        while self.batch.len() < self.engine.limits.batch_events_max {
            let Some((user, frame)) = self.receiver.receive(deadline)? else { break };
            quiet = false;
            deadline = self.clock.start;
            let bytes = frame.len();
            match (user, Up::decode(frame)) {
                // The bell's frames are not the door's: they have no part in its credit.
                (_, Ok(Up::Ring)) => continue,
                (_, Ok(Up::Took(credit))) => self.window.confirmed(credit),
                (Some(user), Ok(up)) => {
                    if let Up::Publish(publication) = &up {
                        self.published_at.push(micros_of_uuid7(publication.stamp));
                    }
                    self.batch.push(Event::Up(user, up));
                }
                (None, Ok(up)) => tracing::error!(?up, "a frame without a user"),
                (_, Err(error)) => tracing::error!(%error, "a frame of the door does not read"),
            }
            confirm = self.intake.took(bytes).or(confirm);
        }
        if let Some(credit) = confirm {
            let frame = Down::Took(credit).encode();
            self.window.sent(frame.len());
            self.sender.send(&mut vec![(None, frame)])?;
        }
        self.take_orders();
        Ok(quiet)
    }

    fn next_wake(&self) -> Instant {
        if self.stopping {
            return Instant::now() + LAST_WAIT;
        }
        if self.engine.is_unfinished() {
            return self.clock.start;
        }
        let settle = if self.round > 0 || self.engine.has_dead_rows() {
            Some(self.settle_not_before)
        } else {
            self.waiting.due_at().map(|at| at.max(self.settle_not_before))
        };
        [settle, self.silent_until].into_iter().flatten().fold(self.next_tick, Instant::min)
    }

    fn take_orders(&mut self) {
        while self.batch.len() < self.engine.limits.batch_events_max {
            match self.orders.try_recv() {
                Ok(Order::Ask(request, reply)) => {
                    let ticket = self.next_ticket;
                    self.next_ticket += 1;
                    self.tickets.insert(ticket, reply);
                    self.batch.push(Event::Request(ticket, request));
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => {
                    self.stopping = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    /// Rules, commit, and then what the batch has to say.
    fn work(&mut self) -> Result<(), Error> {
        let now = self.clock.now();
        let mut released = Released::default();
        match self.decide(now) {
            Ok(()) => {
                if self.engine.unsettled() > self.waiting.len() {
                    self.waiting.push(Instant::now(), self.engine.newest_changes());
                    self.recovered();
                }
                if !self.is_held() {
                    let fed = self.engine.release(&mut self.window, &mut released);
                    self.note_times(&mut released);
                    self.say(released)?;
                    fed?;
                }
            }
            Err(CommitError::Fenced) => return Err(Error::Fenced),
            Err(CommitError::Store(error)) => {
                tracing::error!(%error, "a batch was not committed: its senders are told \"not now\"");
                self.counters.healthy.store(false, Ordering::Relaxed);
                self.next_probe = Some(Instant::now() + PROBE_REST);
                self.published_at.clear();
                let released = self.engine.abort(NotNow::Unavailable)?;
                for (_, frame) in &released.frames {
                    self.window.sent(frame.len());
                }
                self.waiting.keep_oldest(self.engine.unsettled());
                self.say(released)?;
                if error.is_final() {
                    return Err(error.into());
                }
            }
        }
        self.counters.unsettled.store(self.engine.unsettled() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn decide(&mut self, now: Now) -> Result<(), CommitError> {
        let mut outcome = self.engine.go_on(now);
        for event in self.batch.drain(..) {
            if outcome.is_ok() {
                outcome = self.engine.handle(event, now);
            } else {
                // The batch is lost: what it came from is told so with the rest.
                self.engine.lose(event);
            }
        }
        outcome?;
        if Instant::now() >= self.next_tick {
            // First: a sweep that fails is not tried again at once.
            self.next_tick = Instant::now() + TICK;
            if self.engine.sweep(now)? {
                self.next_tick = Instant::now() + SWEEP_REST;
            }
        }
        self.engine.look_around()?;
        if self.may_wait() {
            return Ok(());
        }
        self.silent_until = None;
        self.engine.commit()
    }

    /// Whether what there is to commit can wait for a batch that has something to say.
    fn may_wait(&mut self) -> bool {
        if self.stopping {
            return false;
        }
        let wait_max = if self.engine.is_silent() {
            SILENT_MAX
        } else if self.engine.has_only_receipts() {
            RECEIPTS_MAX
        } else {
            return false;
        };
        let now = Instant::now();
        let until = self.silent_until.map_or(now + wait_max, |until| until.min(now + wait_max));
        self.silent_until = Some(until);
        now < until
    }

    /// Whether receipts wait for their commit: until then nothing may be said, nor settled, since a settlement writes what memory says.
    fn is_held(&self) -> bool {
        self.silent_until.is_some() && !self.engine.is_silent()
    }

    /// A batch is committed: for the histograms, how old what it published is, and when its entries leave.
    fn note_times(&mut self, released: &mut Released) {
        let has_entries = released.frames.iter().any(|(_, frame)| Down::is_entry(frame));
        if self.published_at.is_empty() && !has_entries {
            return;
        }
        let now = Clock::unix_micros();
        for at in self.published_at.drain(..) {
            self.counters.committed.record(now.saturating_sub(at));
        }
        if has_entries {
            let frame = Down::Committed(now).encode();
            self.window.sent(frame.len());
            released.frames.insert(0, (None, frame));
        }
    }

    fn say(&mut self, released: Released) -> Result<(), Error> {
        let Released { mut frames, replies } = released;
        if !frames.is_empty() {
            self.send(&mut frames)?;
        }
        for (ticket, reply) in replies {
            if let Some(asker) = self.tickets.remove(&ticket) {
                // Who has stopped waiting is not told.
                let _ = asker.send(reply);
            }
        }
        Ok(())
    }

    fn send(&mut self, frames: &mut Vec<(Option<UserId>, Bytes)>) -> Result<(), Error> {
        Ok(self.sender.send(frames)?)
    }

    fn recovered(&mut self) {
        if self.next_probe.take().is_some() {
            tracing::info!("the store takes batches again");
        }
        self.counters.healthy.store(true, Ordering::Relaxed);
    }

    /// Tries the store, if the last commit failed and no batch has tried it since.
    fn probe_if_due(&mut self) -> Result<(), Error> {
        if self.next_probe.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        match self.engine.probe() {
            Ok(()) => {
                self.waiting.push(Instant::now(), 0);
                self.recovered();
            }
            Err(CommitError::Fenced) => return Err(Error::Fenced),
            // A failed sync is never tried again, here neither.
            Err(CommitError::Store(error)) if error.is_final() => return Err(error.into()),
            Err(CommitError::Store(error)) => {
                tracing::debug!(%error, "the store still takes no batches");
                self.next_probe = Some(Instant::now() + PROBE_REST);
            }
        }
        Ok(())
    }

    /// One slice, between batches: the loop is never held for longer than that, unless more comes than is settled so.
    fn settle_if_due(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let rests = now < self.settle_not_before && (self.settling_failed || !self.waiting.is_full());
        if rests || self.is_held() {
            return Ok(());
        }
        if self.round == 0 || self.waiting.is_full() {
            self.round = self.waiting.due(now);
        }
        if self.round == 0 && !self.engine.has_dead_rows() {
            return Ok(());
        }
        if !self.waiting.is_full() {
            self.settle_slice(now, SLICE_CHANGES_MAX)?;
            return Ok(());
        }
        // As much as came at the least: then it is the settling that bounds how much is taken in.
        for _ in 0..=self.waiting.newest() / SLICE_CHANGES_FULL_MAX {
            if !self.settle_slice(now, SLICE_CHANGES_FULL_MAX)? {
                break;
            }
        }
        Ok(())
    }

    /// `false`: it failed, and rests.
    fn settle_slice(&mut self, now: Instant, changes: usize) -> Result<bool, Error> {
        match self.engine.settle_oldest(self.round, changes) {
            Ok(_) => {
                let settled = self.waiting.len().saturating_sub(self.engine.unsettled());
                self.waiting.keep_newest(self.engine.unsettled());
                self.round = self.round.saturating_sub(settled);
                if self.round == 0 && !self.engine.has_dead_rows() {
                    self.settle_not_before = now + SETTLE_EVERY;
                }
                self.settling_failed = false;
                if self.next_probe.is_none() {
                    self.counters.healthy.store(true, Ordering::Relaxed);
                }
                Ok(true)
            }
            Err(error) if error.is_final() => Err(error.into()),
            Err(error) => {
                tracing::error!(%error, "settling failed; the journal keeps everything");
                self.counters.healthy.store(false, Ordering::Relaxed);
                self.settling_failed = true;
                self.settle_not_before = now + SETTLE_REST;
                Ok(false)
            }
        }
    }
}

/// Wall clock and server time. Read here and nowhere else in the bridge.
#[derive(Debug)]
struct Clock {
    start: Instant,
    server_secs: u64,
    /// Seconds that [`crate::Handle::pass_time`] has added.
    passed_by_hand: Arc<AtomicU64>,
}

impl Clock {
    fn unix_micros() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> Now {
        Now {
            server_secs: self.server_secs
                + self.start.elapsed().as_secs()
                + self.passed_by_hand.load(Ordering::Relaxed),
            unix_secs: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use natter_protocol::link::{Bell, Dialect, LinkDown, Mode, Opening, Packet, Publication};
    use natter_protocol::{ConnectionId, DeviceId};

    use super::*;
    use crate::config::Limits;
    use crate::store::memory::Memory;

    struct Silence;

    impl LinkSender for Silence {
        fn send(&mut self, frames: &mut Vec<(Option<UserId>, Bytes)>) -> Result<(), LinkDown> {
            frames.clear();
            Ok(())
        }
    }

    /// Keeps the positions of entries that were handed out.
    #[derive(Clone, Default)]
    struct Said(Arc<std::sync::Mutex<Vec<(UserId, u64)>>>);

    impl LinkSender for Said {
        fn send(&mut self, frames: &mut Vec<(Option<UserId>, Bytes)>) -> Result<(), LinkDown> {
            for (user, frame) in frames.drain(..) {
                if let (Some(user), Ok(Down::Entry { seq, .. })) = (user, Down::decode(frame)) {
                    self.0.lock().unwrap().push((user, seq));
                }
            }
            Ok(())
        }
    }

    impl LinkReceiver for Silence {
        fn receive(&mut self, _: Instant) -> Result<Option<(Option<UserId>, Bytes)>, LinkDown> {
            Ok(None)
        }

        fn bell(&self) -> Bell {
            Arc::new(|| {})
        }
    }

    #[test]
    fn what_the_last_run_left_is_settled_in_the_first_round() {
        let mut engine = Engine::recover(Memory::default(), Limits::default(), Arc::default()).unwrap();
        let now = Now { server_secs: 1, unix_secs: 1 };
        let alice = UserId::parse("alice").unwrap();
        engine.handle(Event::Request(0, Request::AddUser(alice)), now).unwrap();
        engine.commit().unwrap();
        // Killed before its second was over: the journal is all there is.
        let engine = Engine::recover(engine.into_store(), Limits::default(), Arc::default()).unwrap();
        assert_eq!(engine.unsettled(), 1);
        let (_orders_tx, orders_rx) = sync_channel(1);
        let mut looping = Loop::new(engine, Box::new(Silence), Box::new(Silence), orders_rx, Arc::default());
        assert!(looping.next_wake() <= Instant::now(), "it does not even wait");
        assert!(looping.gather().unwrap());
        looping.work().unwrap();
        looping.settle_if_due().unwrap();
        assert_eq!(looping.engine.unsettled(), 0);
    }

    #[test]
    fn what_comes_faster_than_it_settles_is_bounded() {
        let engine = Engine::recover(Memory::default(), Limits::default(), Arc::default()).unwrap();
        let (_orders_tx, orders_rx) = sync_channel(1);
        let mut looping = Loop::new(engine, Box::new(Silence), Box::new(Silence), orders_rx, Arc::default());
        looping.waiting.changes_max = 2000;
        for batch in 0..20 {
            for number in 0..500 {
                let user = UserId::parse(&format!("u{batch}-{number}")).unwrap();
                looping.batch.push(Event::Request(0, Request::AddUser(user)));
            }
            looping.work().unwrap();
            // No row is a second old, and this is no round's time.
            looping.settle_if_due().unwrap();
            let left: usize = looping.engine.unsettled_changes().sum();
            assert!(left <= 2500, "batch {batch}: {left} changes wait");
            assert_eq!(looping.waiting.len(), looping.engine.unsettled());
        }
        assert!(looping.engine.unsettled() > 0, "no more than must be");
    }

    fn up(looping: &mut Loop<Memory>, user: &str, up: Up) -> usize {
        looping.batch.push(Event::Up(UserId::parse(user).unwrap(), up));
        looping.work().unwrap();
        looping.engine.unsettled()
    }

    fn connect(looping: &mut Loop<Memory>, user: &str, n: u64) -> ConnectionId {
        let connection = ConnectionId { boot: 1, n };
        let opening = Opening {
            client_id: user.into(),
            clean_start: true,
            expiry_secs: 0,
            dialect: Dialect::Full,
            receive_maximum: 100,
            packet_bytes_max: u32::MAX,
            device: None,
            issued_at: 0,
        };
        up(looping, user, Up::Open(connection, opening));
        let device = DeviceId::parse("phone").unwrap();
        up(looping, user, Up::Attach { connection, request: 1, device, mode: Mode::Device });
        connection
    }

    fn publish(looping: &mut Loop<Memory>, user: &str, connection: ConnectionId, payload: &'static str) -> usize {
        let publication = Publication {
            connection,
            packet: Packet { id: 1, qos: 1 },
            device: DeviceId::parse("phone").unwrap(),
            stamp: 1 << 70,
            will: false,
            payload: Bytes::from_static(payload.as_bytes()),
        };
        up(looping, user, Up::Publish(publication))
    }

    /// Alice and Bob are connected, as 1 and 2.
    fn two_at(sender: impl LinkSender + 'static) -> (Loop<Memory>, ConnectionId, ConnectionId) {
        let mut engine = Engine::recover(Memory::default(), Limits::default(), Arc::default()).unwrap();
        let now = Now { server_secs: 1, unix_secs: 1 };
        for (ticket, name) in [(0, "alice"), (1, "bob")] {
            engine.handle(Event::Request(ticket, Request::AddUser(UserId::parse(name).unwrap())), now).unwrap();
        }
        engine.commit().unwrap();
        let (_orders_tx, orders_rx) = sync_channel(1);
        let mut looping = Loop::new(engine, Box::new(sender), Box::new(Silence), orders_rx, Arc::default());
        let alice = connect(&mut looping, "alice", 1);
        let bob = connect(&mut looping, "bob", 2);
        (looping, alice, bob)
    }

    /// Bob acknowledges, and the receipt has waited as long as it may.
    fn acknowledge(looping: &mut Loop<Memory>, bob: ConnectionId, seq: u64) -> usize {
        up(looping, "bob", Up::Acked { connection: bob, seq, taken: true });
        looping.silent_until = Some(Instant::now());
        looping.work().unwrap();
        looping.engine.unsettled()
    }

    #[test]
    fn receipts_wait_a_moment_and_nothing_is_said_or_settled_before_their_commit() {
        let said = Said::default();
        let (mut looping, alice, bob) = two_at(said.clone());
        let to_alice = || said.0.lock().unwrap().iter().filter(|(user, _)| user.as_str() == "alice").count();
        let before =
            publish(&mut looping, "alice", alice, r#"{"id":"m1","to":"bob","type":"text","text":{"body":"hi"}}"#);
        let held = up(&mut looping, "bob", Up::Acked { connection: bob, seq: 1, taken: true });
        assert_eq!((held, to_alice()), (before, 0), "it waits for company");
        assert!(looping.next_wake() <= Instant::now() + RECEIPTS_MAX);
        looping.round = looping.waiting.len();
        looping.settle_if_due().unwrap();
        assert_eq!(looping.engine.unsettled(), before, "a settlement would write what is not committed");
        let next =
            publish(&mut looping, "alice", alice, r#"{"id":"m2","to":"bob","type":"text","text":{"body":"hi"}}"#);
        assert_eq!((next, to_alice()), (before + 1, 1), "both in one row, and then it is said");
        looping.settle_if_due().unwrap();
        assert!(looping.engine.unsettled() < next);

        let alone = acknowledge(&mut looping, bob, 2);
        assert_eq!((looping.silent_until, to_alice()), (None, 2), "its time was over: row {alone}");
    }

    #[test]
    fn what_nobody_waits_for_is_committed_with_the_next_batch_or_after_a_while() {
        let (mut looping, alice, bob) = two_at(Silence);
        let before =
            publish(&mut looping, "alice", alice, r#"{"id":"m1","to":"bob","type":"text","text":{"body":"hi"}}"#);
        let delivered = acknowledge(&mut looping, bob, 1);
        assert_eq!(delivered, before + 1, "alice waits for her second tick");

        let acked = up(&mut looping, "alice", Up::Acked { connection: alice, seq: 1, taken: true });
        assert_eq!(acked, delivered, "nobody waits for the cursor behind a receipt");
        assert!(looping.engine.has_changes() && looping.next_wake() <= Instant::now() + SILENT_MAX);
        let next =
            publish(&mut looping, "alice", alice, r#"{"id":"m2","to":"bob","type":"text","text":{"body":"hi"}}"#);
        assert_eq!((next, looping.engine.has_changes()), (acked + 1, false), "both in one row");

        let delivered = acknowledge(&mut looping, bob, 2);
        assert_eq!(up(&mut looping, "alice", Up::Acked { connection: alice, seq: 2, taken: true }), delivered);
        looping.silent_until = Some(Instant::now());
        looping.work().unwrap();
        assert_eq!((looping.engine.unsettled(), looping.silent_until), (delivered + 1, None), "its time was over");
    }
}
