//! One device: sends its messages until they are acknowledged, keeps the rule of a reader, and writes down what it does and sees.

use std::io::{self, ErrorKind, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::connection::{Connection, Item};
use super::entry::Entry;
use super::history::{Message, What};
use super::journal::Journal;
use super::memory::Memory;
use super::plan::{self, Place, Plan, user_name};
use super::random::{Random, hash};
use crate::mqtt::{self, Packet};

/// Most messages of a device without a PUBACK.
const WINDOW: usize = 64;

/// What the conductor tells a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Ends the connection with FIN.
    Cut,
    /// Ends it with RST.
    Reset,
    /// Opens a second connection, and lets the first live.
    Takeover,
    /// Acknowledges nothing for so long.
    Slow(Duration),
    /// Disconnects, and stays away.
    Away(Duration),
}

/// What all devices of a host share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    /// Which [`Phase`] the run is in, as a number.
    pub(crate) phase: AtomicU8,
    /// How many messages each device may send by now.
    pub(crate) limit: AtomicU32,
    pub(crate) finish: AtomicBool,
}

/// The devices send.
pub(crate) const SENDING: u8 = 1;
/// They send no more, but what is not acknowledged.
pub(crate) const DRAINING: u8 = 2;
/// They read everything.
pub(crate) const READING: u8 = 3;

/// How far a device is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) subscribed: bool,
    /// Messages that it began to send.
    pub(crate) sent: u64,
    /// Those of them that were answered.
    pub(crate) answered: u64,
    /// The newest phase in which it had nothing left to send.
    pub(crate) settled: u8,
    pub(crate) taken: u64,
    pub(crate) theirs: u32,
    pub(crate) read: u32,
}

/// A device and what it remembers.
pub(crate) struct Client<'a> {
    place: Place,
    shared: &'a Shared,
    status: &'a Mutex<Status>,
    orders: Receiver<Order>,
    random: Random,
    journal: Journal,
    memory: Memory,
    settled: u8,
    /// It has reconnected because of a gap.
    gap: bool,
    away_until: Option<Instant>,
    /// A connection that was taken over, or is about to be.
    old: Option<TcpStream>,
}

impl<'a> Client<'a> {
    /// A device that goes on where its journal ends.
    pub(crate) fn open(
        dir: &Path,
        place: Place,
        shared: &'a Shared,
        status: &'a Mutex<Status>,
        orders: Receiver<Order>,
    ) -> io::Result<Self> {
        let (journal, events) = Journal::open(&plan::journal(dir, place.index))?;
        let mut memory = Memory::default();
        events.iter().for_each(|event| memory.apply(&event.what, &place, shared.plan.devices));
        // Other numbers in each life, or every life would do the same.
        let random = Random::new(shared.plan.seed, (1000 + u64::from(place.index)) << 32 | events.len() as u64);
        let (settled, gap, away_until, old) = (0, false, None, None);
        let client = Self { place, shared, status, orders, random, journal, memory, settled, gap, away_until, old };
        client.tell();
        Ok(client)
    }

    /// Lives until the host says that it is over.
    ///
    /// # Errors
    /// When the journal cannot be written: a device without one cannot go on.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while !self.shared.finish.load(SeqCst) {
            // A connection that ends is what the run is about.
            let _ended = self.live_once();
            self.journal.flush()?;
            self.tell();
            while self.is_away() {
                sleep(Duration::from_millis(20));
            }
            sleep(Duration::from_millis(5 + self.random.below(30)));
        }
        Ok(())
    }

    fn is_away(&self) -> bool {
        let peace = self.shared.phase.load(SeqCst) >= DRAINING || self.shared.finish.load(SeqCst);
        !peace && self.away_until.is_some_and(|until| Instant::now() < until)
    }

    fn note(&mut self, what: What) {
        self.journal.note(what);
        self.memory.apply(&what, &self.place, self.shared.plan.devices);
    }

    /// Nothing leaves before what it says is in the journal.
    fn send(&mut self, connection: &mut Connection, bytes: &[u8]) -> io::Result<()> {
        self.journal.flush()?;
        connection.stream.write_all(bytes)
    }

    /// What the conductor may know: no more than what is in the journal.
    fn tell(&self) {
        let Memory { subscribed, next_k, taken, theirs, read, .. } = self.memory;
        let status = Status {
            subscribed,
            sent: next_k.into(),
            answered: self.memory.answered(),
            settled: self.settled,
            taken,
            theirs,
            read,
        };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    fn topic(&self, kind: &str) -> String {
        format!("users/{}/d{}/{kind}", user_name(self.place.user), self.place.device)
    }

    fn body(&self, k: u32) -> String {
        let mut random = Random::new(self.shared.plan.seed ^ u64::from(self.place.index) << 40, k.into());
        let mut body = format!("{:x} ", random.next());
        (0..random.below(12)).for_each(|_| body.push_str(&format!("{:016x}", random.next())));
        body
    }

    fn live_once(&mut self) -> io::Result<()> {
        let mut connection = Connection::open(self.shared.plan.port)?;
        let user = user_name(self.place.user);
        let client_id = format!("{user}-d{}", self.place.device);
        let token = self.shared.plan.tokens.get(self.place.user as usize).map_or("", String::as_str);
        let connect = mqtt::connect(self.place.v5, self.place.clean, 60, &client_id, &user, token);
        self.send(&mut connection, &connect)?;
        self.send_on_old_connection();
        let mut resent = false;
        while !self.shared.finish.load(SeqCst) {
            if self.obey(&mut connection)? {
                return Ok(());
            }
            for (first, body) in connection.read()? {
                match mqtt::decode(first, &body, self.place.v5) {
                    Some(packet) => self.handle(&mut connection, packet)?,
                    None => self.note(What::Phantom),
                }
            }
            if connection.subscribed {
                self.old = None;
                if !resent {
                    resent = true;
                    self.resend(&mut connection)?;
                }
                self.acknowledge(&mut connection)?;
                self.write(&mut connection)?;
            }
            self.journal.flush()?;
            self.tell();
        }
        Ok(())
    }

    /// The same messages on two connections at a time: what is not acknowledged leaves on the one that is being taken over too.
    fn send_on_old_connection(&mut self) {
        let Some(mut old) = self.old.take() else { return };
        let mut bytes = Vec::new();
        for k in self.memory.unacked.iter().take(WINDOW) {
            // Packet ids that this connection has not used.
            let id = 60_001 + u16::try_from(*k % 5000).unwrap_or(0);
            bytes.extend_from_slice(&mqtt::publish(self.place.v5, &self.topic("outbox"), id, &self.message(*k)));
        }
        // It may be gone already.
        let _gone = old.write_all(&bytes);
        self.old = Some(old);
    }

    /// Does what the conductor wants; `true` ends the connection.
    fn obey(&mut self, connection: &mut Connection) -> io::Result<bool> {
        match self.orders.try_recv() {
            Ok(Order::Cut) => connection.stream.shutdown(Shutdown::Both)?,
            Ok(Order::Reset) => {
                rustix::net::sockopt::set_socket_linger(&connection.stream, Some(Duration::ZERO))?;
            }
            Ok(Order::Takeover) => self.old = Some(connection.stream.try_clone()?),
            Ok(Order::Slow(time)) => {
                connection.slow_until = Instant::now() + time;
                return Ok(false);
            }
            Ok(Order::Away(time)) => {
                self.away_until = Some(Instant::now() + time);
                if self.random.below(2) == 0 {
                    self.send(connection, &mqtt::frame(0xe0, &[]))?;
                }
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(false),
        }
        Ok(true)
    }

    fn handle(&mut self, connection: &mut Connection, packet: Packet) -> io::Result<()> {
        match packet {
            Packet::ConnAck { code: 0, session_present } => {
                if session_present && self.memory.subscribed {
                    connection.subscribed = true;
                } else {
                    let subscribe = mqtt::subscribe(self.place.v5, &self.topic("inbox"));
                    self.send(connection, &subscribe)?;
                }
            }
            Packet::SubAck { code: 1 } => {
                connection.subscribed = true;
                if !self.memory.subscribed {
                    self.note(What::Subscribed);
                }
            }
            Packet::ConnAck { .. } | Packet::SubAck { .. } => return Err(ErrorKind::ConnectionRefused.into()),
            Packet::PubAck { id, reason, n } => self.acked(connection, id, reason, n),
            Packet::Publish { qos, id, payload } => self.take(connection, qos, id, &payload)?,
            Packet::Other => {}
        }
        Ok(())
    }

    fn acked(&mut self, connection: &mut Connection, id: u16, reason: u8, n: Option<u32>) {
        // In the order of the PUBLISHes: always the first.
        let Some((_, item)) = connection.in_flight.pop_front().filter(|(expected, _)| *expected == id) else {
            return self.note(What::Phantom);
        };
        match item {
            _ if reason >= 0x80 => {
                self.note(What::Refused);
                if let Item::Message(k) = item {
                    self.memory.unacked.remove(&k);
                }
            }
            Item::Message(k) | Item::Again(k) => self.note(What::Acked { k, n }),
            Item::Read(n) => self.memory.mark = self.memory.mark.filter(|mark| *mark != n),
        }
    }

    fn take(&mut self, connection: &mut Connection, qos: u8, id: u16, payload: &[u8]) -> io::Result<()> {
        let Ok(entry) = serde_json::from_slice::<Entry<'_>>(payload) else {
            self.note(What::Phantom);
            return Ok(());
        };
        let (Some(seq), Some(prev)) = (entry.seq, entry.prev) else {
            entry.hints(self.place.index).into_iter().for_each(|what| self.note(what));
            return Ok(());
        };
        if qos != 1 {
            self.note(What::Phantom);
        }
        if seq <= self.memory.last {
            connection.acks.push((id, seq));
            return Ok(());
        }
        if prev > self.memory.last {
            self.note(What::Gap);
            // A client reconnects once at a gap (wire.md, section 5); what it sees then counts, and is taken.
            if !std::mem::replace(&mut self.gap, true) {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        self.gap = false;
        self.note(entry.what(seq));
        self.memory.last = seq;
        connection.acks.push((id, seq));
        Ok(())
    }

    fn acknowledge(&mut self, connection: &mut Connection) -> io::Result<()> {
        if connection.acks.is_empty() || Instant::now() < connection.slow_until {
            return Ok(());
        }
        let mut acks = std::mem::take(&mut connection.acks);
        if self.random.below(8) == 0 {
            // PUBACKs may come in any order.
            acks.reverse();
        }
        let mut bytes = Vec::new();
        for (id, seq) in acks {
            self.note(What::Acknowledged { seq });
            bytes.extend_from_slice(&mqtt::puback(id));
        }
        self.send(connection, &bytes)
    }

    fn resend(&mut self, connection: &mut Connection) -> io::Result<()> {
        let mut bytes = Vec::new();
        for k in self.memory.unacked.iter().copied().collect::<Vec<_>>() {
            self.publish(connection, &mut bytes, Item::Message(k));
        }
        if let Some(n) = self.memory.mark {
            self.publish(connection, &mut bytes, Item::Read(n));
        }
        self.send(connection, &bytes)
    }

    fn write(&mut self, connection: &mut Connection) -> io::Result<()> {
        let mut bytes = Vec::new();
        let phase = self.shared.phase.load(SeqCst);
        let limit = if phase == SENDING { self.shared.limit.load(SeqCst).min(self.place.quota) } else { 0 };
        while connection.in_flight.len() < WINDOW && self.memory.next_k < limit {
            let k = self.memory.next_k;
            self.note(What::Sent { k, hash: hash(self.body(k).as_bytes()) });
            self.publish(connection, &mut bytes, Item::Message(k));
            if self.random.below(50) == 0 {
                let again = u32::try_from(self.random.below(u64::from(k) + 1)).unwrap_or(0);
                if !self.memory.unacked.contains(&again) {
                    self.publish(connection, &mut bytes, Item::Again(again));
                }
            }
        }
        let theirs = self.memory.theirs;
        let all = phase >= READING && self.place.device == 0;
        if self.memory.mark.is_none() && theirs > self.memory.marked && (all || self.random.below(20) == 0) {
            self.note(What::MarkedRead { n: theirs });
            self.publish(connection, &mut bytes, Item::Read(theirs));
        }
        if phase >= DRAINING && self.memory.unacked.is_empty() {
            self.settled = phase;
        }
        if bytes.is_empty() { Ok(()) } else { self.send(connection, &bytes) }
    }

    fn message(&self, k: u32) -> String {
        let (id, chat) = (Message { device: self.place.index, k }.id(), user_name(self.place.user ^ 1));
        format!(r#"{{"id":"{id}","to":"{chat}","type":"text","text":{{"body":"{}"}}}}"#, self.body(k))
    }

    fn publish(&mut self, connection: &mut Connection, bytes: &mut Vec<u8>, item: Item) {
        let payload = match item {
            Item::Message(k) | Item::Again(k) => self.message(k),
            Item::Read(n) => format!(r#"{{"status":"read","chat":"{}","n":{n}}}"#, user_name(self.place.user ^ 1)),
        };
        let id = connection.begin(item);
        bytes.extend_from_slice(&mqtt::publish(self.place.v5, &self.topic("outbox"), id, &payload));
    }
}
