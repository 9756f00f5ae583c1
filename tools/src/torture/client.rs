//! One device: sends its messages until they are acknowledged, keeps the rule of a reader, and writes down what it does and sees.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::history::{Event, Message, What};
use super::mqtt::{self, Packet};
use super::random::{Random, hash};

/// Most messages of a device without a PUBACK.
const WINDOW: usize = 64;
/// How long a read waits.
const READ_WAIT: Duration = Duration::from_millis(5);
/// Silence after which a client asks, and then gives up on a connection.
const SILENCE: Duration = Duration::from_secs(5);
/// How long acknowledgements are held back.
const DELAY: Duration = Duration::from_millis(300);

/// Orders of the nemesis to a client.
pub(crate) const CUT: u8 = 1;
pub(crate) const RESET: u8 = 2;
pub(crate) const CRASH: u8 = 3;
pub(crate) const SLOW: u8 = 4;

/// What all clients and the conductor share.
pub(crate) struct Shared {
    pub(crate) start: Instant,
    pub(crate) port: AtomicU16,
    pub(crate) seed: u64,
    pub(crate) stop_sending: AtomicBool,
    pub(crate) read_all: AtomicBool,
    pub(crate) finish: AtomicBool,
    pub(crate) acked: AtomicU64,
}

/// What one client and the conductor share.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) order: AtomicU8,
    /// It has subscribed once: the device exists.
    pub(crate) ready: AtomicBool,
    /// Messages that it began to send.
    pub(crate) sent: AtomicU64,
    /// All of them are acknowledged, and it sends no more.
    pub(crate) done: AtomicBool,
    pub(crate) taken: AtomicU64,
    /// Newest number of the other side's messages.
    pub(crate) theirs: AtomicU32,
    /// Newest own number that the other side has read.
    pub(crate) read: AtomicU32,
}

/// Who a client is.
pub(crate) struct Plan {
    pub(crate) index: u32,
    pub(crate) user: u32,
    pub(crate) device: u32,
    /// Devices a user; theirs stand beside each other.
    pub(crate) devices: u32,
    pub(crate) v5: bool,
    pub(crate) clean: bool,
    /// How many messages it sends.
    pub(crate) quota: u32,
    pub(crate) token: String,
}

/// The name of a user.
pub(crate) fn user_name(user: u32) -> String {
    format!("u{user}")
}

#[derive(Deserialize)]
struct Entry<'a> {
    seq: Option<u64>,
    prev: Option<u64>,
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    recipient_id: Option<Cow<'a, str>>,
    after: Option<u32>,
    n: Option<u32>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Text<'a> {
    #[serde(borrow)]
    body: Cow<'a, str>,
}

#[derive(Clone, Copy, PartialEq)]
enum Item {
    Message(u32),
    /// An acknowledged message once more.
    Again(u32),
    Read(u32),
}

/// A device and what it remembers.
pub(crate) struct Client<'a> {
    plan: Plan,
    shared: &'a Shared,
    slot: &'a Slot,
    random: Random,
    log: Vec<Event>,
    last: u64,
    next_k: u32,
    unacked: BTreeSet<u32>,
    /// A read mark that has no PUBACK yet.
    mark: Option<u32>,
    marked: u32,
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    next_id: u16,
    in_flight: VecDeque<(u16, Item)>,
    acks: Vec<(u16, u64)>,
    slow_until: Instant,
    heard: Instant,
    asked: bool,
    subscribed: bool,
}

impl<'a> Client<'a> {
    pub(crate) fn new(plan: Plan, shared: &'a Shared, slot: &'a Slot) -> Self {
        let random = Random::new(shared.seed, 1000 + u64::from(plan.index));
        let (log, unacked) = (Vec::new(), BTreeSet::new());
        Self { plan, shared, slot, random, log, last: 0, next_k: 0, unacked, mark: None, marked: 0 }
    }

    /// Lives until the conductor says that it is over; returns the log.
    pub(crate) fn run(mut self) -> Vec<Event> {
        while !self.shared.finish.load(SeqCst) {
            // A connection that ends is what the run is about.
            let _ended = self.live_once();
            sleep(Duration::from_millis(5 + self.random.below(30)));
        }
        self.log
    }

    fn note(&mut self, what: What) {
        let at = u64::try_from(self.shared.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.log.push(Event { at, what });
    }

    fn topic(&self, kind: &str) -> String {
        format!("users/{}/d{}/{kind}", user_name(self.plan.user), self.plan.device)
    }

    fn body(&self, k: u32) -> String {
        let mut random = Random::new(self.shared.seed ^ u64::from(self.plan.index) << 40, k.into());
        let mut body = format!("{:x} ", random.next());
        (0..random.below(12)).for_each(|_| body.push_str(&format!("{:016x}", random.next())));
        body
    }

    fn live_once(&mut self) -> std::io::Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.shared.port.load(SeqCst)));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_WAIT))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let (user, client_id) =
            (user_name(self.plan.user), format!("{}-d{}", user_name(self.plan.user), self.plan.device));
        stream.write_all(&mqtt::connect(self.plan.v5, self.plan.clean, &client_id, &user, &self.plan.token))?;
        let now = Instant::now();
        let mut connection = Connection {
            stream,
            buffer: Vec::new(),
            next_id: 0,
            in_flight: VecDeque::new(),
            acks: Vec::new(),
            slow_until: now,
            heard: now,
            asked: false,
            subscribed: false,
        };
        let mut resent = false;
        while !self.shared.finish.load(SeqCst) {
            if self.obey(&mut connection)? {
                return Ok(());
            }
            self.read(&mut connection)?;
            if connection.subscribed {
                self.slot.ready.store(true, SeqCst);
                self.acknowledge(&mut connection)?;
                if !resent {
                    resent = true;
                    let again: Vec<u32> = self.unacked.iter().copied().collect();
                    let mut bytes = Vec::new();
                    again.into_iter().for_each(|k| self.publish(&mut connection, &mut bytes, Item::Message(k)));
                    if let Some(n) = self.mark {
                        self.publish(&mut connection, &mut bytes, Item::Read(n));
                    }
                    connection.stream.write_all(&bytes)?;
                }
                self.write(&mut connection)?;
            }
        }
        Ok(())
    }

    /// Does what the nemesis wants; `true` ends the connection.
    fn obey(&mut self, connection: &mut Connection) -> std::io::Result<bool> {
        match self.slot.order.swap(0, SeqCst) {
            CUT => connection.stream.shutdown(std::net::Shutdown::Both)?,
            RESET => rustix::net::sockopt::set_socket_linger(&connection.stream, Some(Duration::ZERO))?,
            // What was read and not taken, and what was taken and not acknowledged, is gone with the connection.
            CRASH => {}
            SLOW => {
                connection.slow_until = Instant::now() + DELAY;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn read(&mut self, connection: &mut Connection) -> std::io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match connection.stream.read(&mut chunk) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                connection.buffer.extend_from_slice(chunk.get(..length).unwrap_or_default());
                (connection.heard, connection.asked) = (Instant::now(), false);
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                let silent = connection.heard.elapsed();
                if silent > 2 * SILENCE {
                    return Err(ErrorKind::TimedOut.into());
                }
                if silent > SILENCE && !connection.asked {
                    connection.asked = true;
                    connection.stream.write_all(&mqtt::frame(0xc0, &[]))?;
                }
            }
            Err(e) => return Err(e),
        }
        let buffer = std::mem::take(&mut connection.buffer);
        let mut at = 0;
        while let Some((body, end)) = buffer.get(at..).and_then(mqtt::measure) {
            let packet = buffer.get(at..at + end).and_then(|whole| {
                let (first, rest) = (whole.first()?, whole.get(body..)?);
                mqtt::decode(*first, rest, self.plan.v5)
            });
            at += end;
            match packet {
                Some(packet) => self.handle(connection, packet)?,
                None => self.note(What::Phantom),
            }
        }
        connection.buffer = buffer.get(at..).unwrap_or_default().to_vec();
        Ok(())
    }

    fn handle(&mut self, connection: &mut Connection, packet: Packet) -> std::io::Result<()> {
        match packet {
            Packet::ConnAck { code: 0, session_present } => {
                if session_present && self.slot.ready.load(SeqCst) {
                    connection.subscribed = true;
                } else {
                    connection.stream.write_all(&mqtt::subscribe(self.plan.v5, &self.topic("inbox")))?;
                }
            }
            Packet::SubAck { code: 1 } => connection.subscribed = true,
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
        if reason >= 0x80 {
            self.note(What::Refused);
        }
        match item {
            Item::Message(k) => {
                if reason < 0x80 {
                    self.note(What::Acked { k, n });
                    self.shared.acked.fetch_add(1, SeqCst);
                }
                self.unacked.remove(&k);
            }
            Item::Again(k) => self.note(What::Acked { k, n }),
            Item::Read(n) => self.mark = self.mark.filter(|mark| *mark != n),
        }
    }

    fn take(&mut self, connection: &mut Connection, qos: u8, id: u16, payload: &[u8]) -> std::io::Result<()> {
        let Ok(entry) = serde_json::from_slice::<Entry<'_>>(payload) else {
            self.note(What::Phantom);
            return Ok(());
        };
        let (Some(seq), Some(prev)) = (entry.seq, entry.prev) else {
            if entry.status.as_deref() == Some("failed") {
                self.note(What::Refused);
            }
            return Ok(());
        };
        if qos != 1 {
            self.note(What::Phantom);
        }
        if seq <= self.last {
            connection.acks.push((id, seq));
            return Ok(());
        }
        if prev > self.last {
            self.note(What::Gap);
            // Once: a second gap is counted again, and taken.
            return Err(ErrorKind::InvalidData.into());
        }
        self.last = seq;
        self.take_new(&entry, seq);
        connection.acks.push((id, seq));
        Ok(())
    }

    fn take_new(&mut self, entry: &Entry<'_>, seq: u64) {
        let message = entry.id.as_deref().and_then(Message::parse);
        let what = match (entry.r#type.as_deref(), entry.status.as_deref(), message, entry.n) {
            (Some("text"), None, Some(message), Some(n)) => {
                self.slot.taken.fetch_add(1, SeqCst);
                let hash = entry.text.as_ref().map_or(0, |text| hash(text.body.as_bytes()));
                What::Taken { message, n, seq, hash }
            }
            (Some("status"), Some(status @ ("delivered" | "read")), Some(message), Some(n)) => {
                let recipient = entry.recipient_id.as_deref().and_then(|name| name.strip_prefix('u')?.parse().ok());
                let (Some(recipient), Some(after)) = (recipient, entry.after) else { return self.note(What::Phantom) };
                if status == "read" && recipient != self.plan.user {
                    self.slot.read.fetch_max(n, SeqCst);
                }
                What::Receipt { read: status == "read", recipient, after, n, message, seq }
            }
            (Some("gap"), ..) => What::Gap,
            (_, Some("failed"), ..) => What::Refused,
            _ => What::Phantom,
        };
        self.note(what);
        if let What::Taken { message, n, .. } = what
            && message.device / self.plan.devices != self.plan.user
        {
            self.slot.theirs.fetch_max(n, SeqCst);
        }
    }

    fn acknowledge(&mut self, connection: &mut Connection) -> std::io::Result<()> {
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
        connection.stream.write_all(&bytes)
    }

    fn write(&mut self, connection: &mut Connection) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let stop = self.shared.stop_sending.load(SeqCst);
        while connection.in_flight.len() < WINDOW && self.next_k < self.plan.quota && !stop {
            let k = self.next_k;
            self.next_k += 1;
            self.slot.sent.fetch_add(1, SeqCst);
            self.unacked.insert(k);
            self.note(What::Sent { k, hash: hash(self.body(k).as_bytes()) });
            self.publish(connection, &mut bytes, Item::Message(k));
            if self.random.below(50) == 0 {
                let again = u32::try_from(self.random.below(u64::from(k) + 1)).unwrap_or(0);
                if !self.unacked.contains(&again) {
                    self.publish(connection, &mut bytes, Item::Again(again));
                }
            }
        }
        let theirs = self.slot.theirs.load(SeqCst);
        let all = self.shared.read_all.load(SeqCst) && self.plan.device == 0;
        if self.mark.is_none() && theirs > self.marked && (all || self.random.below(20) == 0) {
            (self.mark, self.marked) = (Some(theirs), theirs);
            self.note(What::MarkedRead { n: theirs });
            self.publish(connection, &mut bytes, Item::Read(theirs));
        }
        let done = (stop || self.next_k >= self.plan.quota) && self.unacked.is_empty();
        self.slot.done.store(done, SeqCst);
        connection.stream.write_all(&bytes)
    }

    fn publish(&mut self, connection: &mut Connection, bytes: &mut Vec<u8>, item: Item) {
        connection.next_id = connection.next_id % 60_000 + 1;
        let chat = user_name(self.plan.user ^ 1);
        let payload = match item {
            Item::Message(k) | Item::Again(k) => {
                let id = Message { device: self.plan.index, k }.id();
                format!(r#"{{"id":"{id}","to":"{chat}","type":"text","text":{{"body":"{}"}}}}"#, self.body(k))
            }
            Item::Read(n) => format!(r#"{{"status":"read","chat":"{chat}","n":{n}}}"#),
        };
        connection.in_flight.push_back((connection.next_id, item));
        bytes.extend_from_slice(&mqtt::publish(self.plan.v5, &self.topic("outbox"), connection.next_id, &payload));
    }
}
