//! Pairs: one user writes, the other one's device acknowledges, and the round trip is complete when the writer has received a
//! `delivered` that covers the message.
//!
//! Against a plain broker the receiving client publishes that receipt itself, one for each message, to the sender's topic.

use std::collections::VecDeque;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use serde_json::Value;

use super::net::{Handler, Net, Traffic, topic, unexpected};
use super::process::Cpu;
use super::scan;
use crate::mqtt::{self, Packet};
use crate::torture::progress::Progress;

/// Messages of a pair on their way, at most: Natter's Receive Maximum.
pub(crate) const IN_FLIGHT_MAX: u32 = 128;
/// Of so many entries one is parsed as JSON and compared with what the scan found.
const SAMPLE: u64 = 256;
/// How long the last round trips may take when nothing more is sent.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How long a closed loop waits for something to come before it looks at the clock.
const WAIT: Duration = Duration::from_millis(20);
/// The device of everybody here.
pub(crate) const DEVICE: &str = "phone";

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Who writes and who receives.
    pub(crate) users: Vec<(String, String)>,
    /// Of a pair, closed loop.
    pub(crate) in_flight: u32,
    /// Messages a second in all: an open loop.
    pub(crate) rate: Option<f64>,
    pub(crate) warmup: Duration,
    pub(crate) time: Duration,
    pub(crate) text_bytes: usize,
    /// A plain broker.
    pub(crate) relay: bool,
    /// What makes the ids of this run its own.
    pub(crate) run: u64,
    pub(crate) server: Option<u32>,
}

/// Round trips, step by step, of the whole run; each is at most the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    /// PUBACKs.
    pub(crate) acked: u64,
    /// Entries at the receivers.
    pub(crate) delivered: u64,
    /// Covered by receipts that the senders have.
    pub(crate) receipted: u64,
    /// Receipts, which may cover many.
    pub(crate) receipts: u64,
    /// Entries that were parsed as JSON too.
    pub(crate) parsed: u64,
}

/// Latencies in nanoseconds, each from the moment at which the message was (or in an open loop: should have been) sent.
pub(crate) struct Latencies {
    pub(crate) accept: Histogram<u64>,
    pub(crate) deliver: Histogram<u64>,
    pub(crate) round_trip: Histogram<u64>,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) round_trips: u64,
    pub(crate) time: Duration,
    pub(crate) cpu: Cpu,
    pub(crate) traffic: Traffic,
    pub(crate) latencies: Latencies,
    pub(crate) counts: Counts,
}

struct Pair {
    from: String,
    to: String,
    /// Where the message goes, and in a relay where its receipt goes.
    topic: String,
    back: String,
    /// The payload, with the number of the message to be written at `number_at`.
    payload: Vec<u8>,
    number_at: usize,
    /// Number of the message before the first, once known.
    base: Option<u64>,
    sent: u64,
    acked: u64,
    delivered: u64,
    receipted: u64,
    /// When message k was due, at k modulo [`IN_FLIGHT_MAX`].
    due: Vec<Instant>,
    /// Open loop: due, but too many are on their way.
    waiting: VecDeque<Instant>,
}

/// The handler of all pairs. Connection 2p sends for pair p, 2p + 1 receives.
struct Pairs {
    relay: bool,
    pairs: Vec<Pair>,
    /// Closed loop: how many of a pair may be on their way; 0 stops it.
    in_flight: u64,
    recording: bool,
    latencies: Latencies,
    receipts: u64,
    parsed: u64,
    receipted: u64,
    scratch: Vec<u8>,
}

/// Runs it. Connection 2p of `net` is the sender of pair p, 2p + 1 its receiver.
pub(crate) fn run(plan: &Plan, net: &mut Net, progress: &mut Progress) -> Result<Outcome> {
    let mut pairs = Pairs::new(plan)?;
    net.begin(&mut pairs)?;
    pairs.first(net)?;
    pairs.in_flight = if plan.rate.is_some() { 0 } else { u64::from(plan.in_flight) };
    let start = Instant::now();
    for index in 0..pairs.pairs.len() {
        pairs.fill(index, net)?;
    }
    let mut schedule = plan.rate.map(|rate| Schedule { start, rate, next: 0 });
    let (begin, end) = (start + plan.warmup, start + plan.warmup + plan.time);
    let mut before = None;
    let (time, cpu, traffic, round_trips) = loop {
        let mut now = Instant::now();
        if before.is_none() && now >= begin {
            pairs.recording = true;
            before = Some((now, Cpu::now(plan.server)?, net.traffic, pairs.receipted));
        }
        if let Some((begun, cpu, traffic, receipted)) = before
            && now >= end
        {
            pairs.recording = false;
            let traffic = Traffic {
                to_server: net.traffic.to_server - traffic.to_server,
                from_server: net.traffic.from_server - traffic.from_server,
            };
            let used = Cpu::now(plan.server)?.since(cpu);
            break (now - begun, used, traffic, pairs.receipted - receipted);
        }
        let mut wait = WAIT;
        if let Some(schedule) = &mut schedule {
            wait = wait.min(schedule.send(&mut pairs, net)?);
            now = Instant::now();
        }
        let until = if before.is_none() { begin } else { end };
        net.turn(wait.min(until.saturating_duration_since(now)), &mut pairs)?;
        let part = start.elapsed().as_secs_f64() / (plan.warmup + plan.time).as_secs_f64();
        progress.tell(part, &format!("{} round trips", pairs.receipted))?;
    };
    pairs.in_flight = 0;
    pairs.drain(net)?;
    let counts = pairs.counts();
    Ok(Outcome { round_trips, time, cpu, traffic, latencies: pairs.latencies, counts })
}

/// An open loop: when each message is due, whatever became of those before it.
struct Schedule {
    start: Instant,
    rate: f64,
    next: u64,
}

impl Schedule {
    /// Sends what is due; how long until the next one is.
    fn send(&mut self, pairs: &mut Pairs, net: &mut Net) -> Result<Duration> {
        loop {
            let due = self.start + Duration::from_secs_f64(self.next as f64 / self.rate);
            let now = Instant::now();
            if due > now {
                return Ok(due - now);
            }
            let index = usize::try_from(self.next % pairs.pairs.len() as u64)?;
            self.next += 1;
            pairs.send(index, due, net)?;
        }
    }
}

impl Latencies {
    fn new() -> Result<Self> {
        // From a microsecond to a minute, within a tenth of a percent.
        let new = || Histogram::new_with_bounds(1_000, 60_000_000_000, 3);
        Ok(Self { accept: new()?, deliver: new()?, round_trip: new()? })
    }
}

fn nanos(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}

impl Pairs {
    fn new(plan: &Plan) -> Result<Self> {
        let now = Instant::now();
        let pair = |(from, to): &(String, String)| {
            let text = "x".repeat(plan.text_bytes);
            let id = format!("{:016x}-{:016x}", plan.run, 0);
            let (topic_of, payload) = if plan.relay {
                (to, Vec::new())
            } else {
                let payload = format!(r#"{{"id":"{id}","to":"{to}","type":"text","text":{{"body":"{text}"}}}}"#);
                (from, payload.into_bytes())
            };
            Pair {
                from: from.clone(),
                to: to.clone(),
                topic: topic(topic_of, DEVICE, if plan.relay { "inbox" } else { "outbox" }),
                back: topic(from, DEVICE, "inbox"),
                payload: if plan.relay { text.into_bytes() } else { payload },
                number_at: r#"{"id":""#.len() + 17,
                base: plan.relay.then_some(0),
                sent: 0,
                acked: 0,
                delivered: 0,
                receipted: 0,
                due: vec![now; IN_FLIGHT_MAX as usize],
                waiting: VecDeque::new(),
            }
        };
        Ok(Self {
            relay: plan.relay,
            pairs: plan.users.iter().map(pair).collect(),
            in_flight: 0,
            recording: false,
            latencies: Latencies::new()?,
            receipts: 0,
            parsed: 0,
            receipted: 0,
            scratch: Vec::new(),
        })
    }

    /// One message of each pair, to the end: what a chat's first message costs is not measured, and its number is known then.
    fn first(&mut self, net: &mut Net) -> Result<()> {
        for index in 0..self.pairs.len() {
            self.send(index, Instant::now(), net)?;
        }
        self.drain(net)
    }

    /// Waits until all is answered that was sent.
    fn drain(&mut self, net: &mut Net) -> Result<()> {
        let deadline = Instant::now() + DRAIN_MAX;
        while !self.pairs.iter().all(Pair::is_done) {
            if Instant::now() > deadline {
                bail!("round trips that do not end within {} s: {:?}", DRAIN_MAX.as_secs(), self.counts());
            }
            net.turn(WAIT, self)?;
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts { receipts: self.receipts, parsed: self.parsed, ..Counts::default() };
        for Pair { sent, acked, delivered, receipted, .. } in &self.pairs {
            counts.sent += sent;
            counts.acked += acked;
            counts.delivered += delivered;
            counts.receipted += receipted;
        }
        counts
    }

    /// Sends a message of a pair, or lets it wait.
    fn send(&mut self, index: usize, due: Instant, net: &mut Net) -> Result<()> {
        let (Some(pair), Some(output)) = (self.pairs.get_mut(index), net.output(2 * index)) else { return Ok(()) };
        if pair.on_their_way() >= IN_FLIGHT_MAX.into() {
            pair.waiting.push_back(due);
            return Ok(());
        }
        pair.send(due, self.relay, &mut self.scratch, output);
        net.flush(2 * index)
    }

    /// Begins a closed loop.
    fn fill(&mut self, index: usize, net: &mut Net) -> Result<()> {
        if let (Some(pair), Some(output)) = (self.pairs.get_mut(index), net.output(2 * index)) {
            pair.refill(self.in_flight, Instant::now(), self.relay, &mut self.scratch, output);
        }
        net.flush(2 * index)
    }

    /// A PUBACK for the sender.
    fn acked(&mut self, index: usize, first: u8, body: &[u8], now: Instant) -> Result<()> {
        let Some(pair) = self.pairs.get_mut(index / 2) else { return Ok(()) };
        let expected = packet_id(pair.acked);
        let id = body.first_chunk().map(|id| u16::from_be_bytes(*id));
        let reason = body.get(2).copied().unwrap_or(0);
        if id != Some(expected) || reason >= 0x80 || pair.acked == pair.sent {
            return Err(unexpected(index, &format!("a PUBACK for {expected} that accepts"), first, body));
        }
        if !self.relay && (pair.base.is_none() || pair.acked.is_multiple_of(SAMPLE)) {
            let Some(Packet::PubAck { n: Some(n), .. }) = mqtt::decode(first, body, true) else {
                return Err(unexpected(index, "a PUBACK with `n`", first, body));
            };
            let base = *pair.base.get_or_insert(u64::from(n).saturating_sub(pair.acked + 1));
            if u64::from(n) != base + pair.acked + 1 {
                return Err(unexpected(index, &format!("n = {}", base + pair.acked + 1), first, body));
            }
        }
        if self.recording
            && let Some(due) = pair.due(pair.acked)
        {
            self.latencies.accept.saturating_record(nanos(due, now));
        }
        pair.acked += 1;
        Ok(())
    }

    /// A message for the receiver.
    fn delivered(&mut self, index: usize, first: u8, payload: &[u8], now: Instant, output: &mut Vec<u8>) -> Result<()> {
        let Some(pair) = self.pairs.get_mut(index / 2) else { return Ok(()) };
        let n = scan::message(payload).with_context(|| unexpected(index, "a message", first, payload).to_string())?;
        let base = *pair.base.get_or_insert(n.saturating_sub(pair.delivered + 1));
        if n != base + pair.delivered + 1 {
            let words = format!("message {}: one is lost, doubled or out of order", base + pair.delivered + 1);
            return Err(unexpected(index, &words, first, payload));
        }
        if n.is_multiple_of(SAMPLE) {
            self.parsed += 1;
            let entry: Value = serde_json::from_slice(payload).context("a message is no JSON")?;
            let id = entry["id"].as_str().and_then(|id| id.rsplit('-').next());
            if entry["n"] != n || entry["from"] != pair.from || id != Some(&format!("{:016x}", pair.delivered)) {
                return Err(unexpected(index, &format!("message {n} of {}", pair.from), first, payload));
            }
        }
        if self.recording
            && let Some(due) = pair.due(pair.delivered)
        {
            self.latencies.deliver.saturating_record(nanos(due, now));
        }
        if self.relay {
            pair.answer(n, &mut self.scratch, output);
        }
        pair.delivered += 1;
        Ok(())
    }

    /// A receipt for the sender.
    fn receipted(&mut self, index: usize, first: u8, payload: &[u8], now: Instant, output: &mut Vec<u8>) -> Result<()> {
        let Some(pair) = self.pairs.get_mut(index / 2) else { return Ok(()) };
        let receipt = scan::delivered(payload)
            .with_context(|| unexpected(index, "a receipt: delivered", first, payload).to_string())?;
        let base = pair.base.unwrap_or(0);
        let before = base + pair.receipted;
        if receipt.after > before || receipt.n <= before || receipt.n > base + pair.delivered {
            let words = format!("a receipt that covers from {} to at most {}", before + 1, base + pair.delivered);
            return Err(unexpected(index, &words, first, payload));
        }
        self.receipts += 1;
        if self.receipts.is_multiple_of(SAMPLE) {
            self.parsed += 1;
            let entry: Value = serde_json::from_slice(payload).context("a receipt is no JSON")?;
            let status = entry["type"] == "status" && entry["status"] == "delivered" && entry["chat"] == pair.to;
            if !status || entry["after"] != receipt.after || entry["n"] != receipt.n {
                return Err(unexpected(index, &format!("{receipt:?} of {}", pair.to), first, payload));
            }
        }
        let covered = receipt.n - before;
        if self.recording {
            for due in (pair.receipted..pair.receipted + covered).filter_map(|k| pair.due(k)) {
                self.latencies.round_trip.saturating_record(nanos(due, now));
            }
        }
        pair.receipted += covered;
        self.receipted += covered;
        pair.refill(self.in_flight, now, self.relay, &mut self.scratch, output);
        Ok(())
    }
}

impl Handler for Pairs {
    fn handle(&mut self, index: usize, first: u8, body: &[u8], now: Instant, output: &mut Vec<u8>) -> Result<()> {
        let sends = index.is_multiple_of(2);
        match first >> 4 {
            3 => {
                let (qos, id, payload) = mqtt::split_publish(first, body, true)
                    .with_context(|| unexpected(index, "a PUBLISH", first, body).to_string())?;
                if qos > 0 {
                    output.extend_from_slice(&mqtt::puback_bytes(id));
                }
                if sends {
                    self.receipted(index, first, payload, now, output)
                } else {
                    self.delivered(index, first, payload, now, output)
                }
            }
            4 if sends => self.acked(index, first, body, now),
            // Of the receipts that a relay's receiver publishes.
            4 if self.relay => Ok(()),
            _ => Err(unexpected(index, "PUBLISH or PUBACK", first, body)),
        }
    }
}

/// Of message k of a pair.
fn packet_id(k: u64) -> u16 {
    // Below 65,535.
    u16::try_from(k % 65_535).unwrap_or(0) + 1
}

impl Pair {
    fn on_their_way(&self) -> u64 {
        self.sent - self.receipted.min(self.acked)
    }

    fn is_done(&self) -> bool {
        self.waiting.is_empty() && [self.acked, self.delivered, self.receipted] == [self.sent; 3]
    }

    fn due(&self, k: u64) -> Option<Instant> {
        self.due.get((k % u64::from(IN_FLIGHT_MAX)) as usize).copied()
    }

    fn send(&mut self, due: Instant, relay: bool, scratch: &mut Vec<u8>, output: &mut Vec<u8>) {
        let k = self.sent;
        if let Some(slot) = self.due.get_mut((k % u64::from(IN_FLIGHT_MAX)) as usize) {
            *slot = due;
        }
        if relay {
            // As Natter's entry would be.
            scratch.clear();
            let text = String::from_utf8_lossy(&self.payload);
            let Self { from, .. } = self;
            let (seq, prev) = (k + 1, k);
            // Writing to memory does not fail.
            let _ = write!(
                scratch,
                r#"{{"seq":{seq},"prev":{prev},"from":"{from}","chat":"{from}","n":{seq},"id":"{:016x}-{k:016x}","#,
                0
            );
            let _ = write!(scratch, r#""timestamp":"1764000000","type":"text","text":{{"body":"{text}"}}}}"#);
            mqtt::write_publish(output, true, &self.topic, packet_id(k), scratch);
        } else {
            if let Some(digits) = self.payload.get_mut(self.number_at..self.number_at + 16) {
                let mut rest = k;
                for digit in digits.iter_mut().rev() {
                    *digit = *b"0123456789abcdef".get((rest & 15) as usize).unwrap_or(&b'0');
                    rest >>= 4;
                }
            }
            mqtt::write_publish(output, true, &self.topic, packet_id(k), &self.payload);
        }
        self.sent += 1;
    }

    /// What has waited goes first; then as many as may be on their way.
    fn refill(&mut self, in_flight: u64, now: Instant, relay: bool, scratch: &mut Vec<u8>, output: &mut Vec<u8>) {
        while self.on_their_way() < IN_FLIGHT_MAX.into()
            && let Some(due) = self.waiting.pop_front()
        {
            self.send(due, relay, scratch, output);
        }
        while self.on_their_way() < in_flight {
            self.send(now, relay, scratch, output);
        }
    }

    /// A relay's receipt for message `n`.
    fn answer(&self, n: u64, scratch: &mut Vec<u8>, output: &mut Vec<u8>) {
        scratch.clear();
        let Self { to, .. } = self;
        let (prev, k) = (n - 1, n - 1);
        // Writing to memory does not fail.
        let _ = write!(
            scratch,
            r#"{{"seq":{n},"prev":{prev},"type":"status","status":"delivered","chat":"{to}","after":{prev},"n":{n},"id":"{:016x}-{k:016x}","recipient_id":"{to}","timestamp":"1764000000"}}"#,
            0
        );
        mqtt::write_publish(output, true, &self.back, packet_id(k), scratch);
    }
}
