//! Pairs: one user writes, the other one's device acknowledges, and the round trip is complete when the writer has received a
//! `delivered` that covers the message.
//!
//! What they say is a [`Dialect`]'s; the scenario, its checks and its clocks are the same for every server.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;

use super::dialect::{Dialect, Heard, Script, Side, packet_id};
use super::net::{Handler, Net, Traffic, unexpected};
use super::process::{Cpu, Loopback, rss_kib};
use crate::torture::progress::Progress;

/// Messages of a pair on their way, at most: Natter's Receive Maximum.
pub(crate) const IN_FLIGHT_MAX: u32 = 128;
/// Of so many entries one is parsed in full and compared with what the scan found.
const SAMPLE: u64 = 256;
/// How long the last round trips may take when nothing more is sent.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How long a closed loop waits for something to come before it looks at the clock.
const WAIT: Duration = Duration::from_millis(20);

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
    /// How many round trips to measure, instead of `time`.
    pub(crate) messages: Option<u64>,
    pub(crate) text_bytes: usize,
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
    /// On the loopback interface, with the headers of IP and TCP.
    pub(crate) ip_bytes: u64,
    /// Memory of the server after a tenth of `messages`, and after all of them: round trips and VmRSS in KiB.
    pub(crate) marks: Vec<(u64, u64)>,
    pub(crate) latencies: Latencies,
    pub(crate) counts: Counts,
}

struct Pair<D> {
    dialect: D,
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
struct Pairs<D> {
    pairs: Vec<Pair<D>>,
    /// Closed loop: how many of a pair may be on their way; 0 stops it.
    in_flight: u64,
    recording: bool,
    latencies: Latencies,
    receipts: u64,
    parsed: u64,
    receipted: u64,
}

/// Runs it. Connection 2p of `net` is the sender of pair p, 2p + 1 its receiver.
pub(crate) fn run<D: Dialect>(plan: &Plan, net: &mut Net, progress: &mut Progress) -> Result<Outcome> {
    let mut pairs = Pairs::<D>::new(plan)?;
    net.begin(&mut pairs)?;
    pairs.first(net)?;
    pairs.in_flight = if plan.rate.is_some() { 0 } else { u64::from(plan.in_flight) };
    let start = Instant::now();
    for index in 0..pairs.pairs.len() {
        pairs.fill(index, net)?;
    }
    let mut schedule = plan.rate.map(|rate| Schedule { start, rate, next: 0 });
    let begin = start + plan.warmup;
    let end = plan.messages.is_none().then_some(begin + plan.time);
    let mut measured: Option<Begun> = None;
    let mut marks = Vec::new();
    let (time, used, round_trips) = loop {
        let mut now = Instant::now();
        match &measured {
            None if now >= begin => {
                pairs.recording = true;
                measured = Some(Begun::now(plan, net, pairs.receipted)?);
            }
            Some(begun) => {
                let round_trips = pairs.receipted - begun.receipted;
                let share = plan.messages.map_or(0, |messages| messages * if marks.is_empty() { 1 } else { 10 } / 10);
                if let Some(pid) = plan.server.filter(|_| share > 0 && round_trips >= share) {
                    marks.push((round_trips, rss_kib(pid)?));
                }
                if end.map_or(plan.messages.is_some_and(|messages| round_trips >= messages), |end| now >= end) {
                    pairs.recording = false;
                    break (now - begun.at, begun.used(plan, net)?, round_trips);
                }
            }
            None => {}
        }
        let mut wait = WAIT;
        if let Some(schedule) = &mut schedule {
            wait = wait.min(schedule.send(&mut pairs, net)?);
            now = Instant::now();
        }
        let until = if measured.is_none() { Some(begin) } else { end };
        net.turn(until.map_or(wait, |until| wait.min(until.saturating_duration_since(now))), &mut pairs)?;
        let part = match plan.messages {
            Some(messages) => pairs.receipted as f64 / messages as f64,
            None => start.elapsed().as_secs_f64() / (plan.warmup + plan.time).as_secs_f64(),
        };
        progress.tell(part, &format!("{} round trips", pairs.receipted))?;
    };
    pairs.in_flight = 0;
    pairs.drain(net)?;
    let counts = pairs.counts();
    let (cpu, traffic, ip_bytes) = used;
    Ok(Outcome { round_trips, time, cpu, traffic, ip_bytes, marks, latencies: pairs.latencies, counts })
}

/// Where the measurement began.
struct Begun {
    at: Instant,
    cpu: Cpu,
    traffic: Traffic,
    loopback: Loopback,
    receipted: u64,
}

impl Begun {
    fn now(plan: &Plan, net: &Net, receipted: u64) -> Result<Self> {
        let (cpu, loopback) = (Cpu::now(plan.server)?, Loopback::now()?);
        Ok(Self { at: Instant::now(), cpu, traffic: net.traffic, loopback, receipted })
    }

    fn used(&self, plan: &Plan, net: &Net) -> Result<(Cpu, Traffic, u64)> {
        let traffic = Traffic {
            to_server: net.traffic.to_server - self.traffic.to_server,
            from_server: net.traffic.from_server - self.traffic.from_server,
        };
        Ok((Cpu::now(plan.server)?.since(self.cpu), traffic, Loopback::now()?.since(self.loopback).ip_bytes()))
    }
}

/// An open loop: when each message is due, whatever became of those before it.
struct Schedule {
    start: Instant,
    rate: f64,
    next: u64,
}

impl Schedule {
    /// Sends what is due; how long until the next one is.
    fn send<D: Dialect>(&mut self, pairs: &mut Pairs<D>, net: &mut Net) -> Result<Duration> {
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

impl<D: Dialect> Pairs<D> {
    fn new(plan: &Plan) -> Result<Self> {
        let pair = |(from, to): &(String, String)| {
            let (from, to) = (from.clone(), to.clone());
            Pair::new(D::new(Script { from, to, text_bytes: plan.text_bytes, run: plan.run }))
        };
        Ok(Self {
            pairs: plan.users.iter().map(pair).collect(),
            in_flight: 0,
            recording: false,
            latencies: Latencies::new()?,
            receipts: 0,
            parsed: 0,
            receipted: 0,
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
        pair.send(due, output);
        net.flush(2 * index)
    }

    /// Begins a closed loop.
    fn fill(&mut self, index: usize, net: &mut Net) -> Result<()> {
        if let (Some(pair), Some(output)) = (self.pairs.get_mut(index), net.output(2 * index)) {
            pair.refill(self.in_flight, Instant::now(), output);
        }
        net.flush(2 * index)
    }

    /// What `got` said to connection `index`.
    fn heard(&mut self, index: usize, heard: Heard, got: &[u8], now: Instant, output: &mut Vec<u8>) -> Result<()> {
        let wrong = |expected: &str| unexpected(index, expected, got);
        let Some(pair) = self.pairs.get_mut(index / 2) else { return Ok(()) };
        match heard {
            Heard::Nothing => {}
            Heard::Accepted { packet } => {
                let expected = packet_id(pair.acked);
                if packet != expected || pair.acked == pair.sent {
                    return Err(wrong(&format!("an answer to packet {expected}")));
                }
                if (pair.base.is_none() || pair.acked.is_multiple_of(SAMPLE))
                    && let Some(n) = pair.dialect.accepted_as(got)
                {
                    let base = *pair.base.get_or_insert(n.saturating_sub(pair.acked + 1));
                    if n != base + pair.acked + 1 {
                        return Err(wrong(&format!("n = {}", base + pair.acked + 1)));
                    }
                }
                if let Some(due) = pair.due(pair.acked).filter(|_| self.recording) {
                    self.latencies.accept.saturating_record(nanos(due, now));
                }
                pair.acked += 1;
            }
            Heard::Message { n } => {
                let base = *pair.base.get_or_insert(n.saturating_sub(pair.delivered + 1));
                if n != base + pair.delivered + 1 {
                    let n = base + pair.delivered + 1;
                    return Err(wrong(&format!("message {n}: one is lost, doubled or out of order")));
                }
                if n.is_multiple_of(SAMPLE) {
                    self.parsed += 1;
                    if !pair.dialect.is_message(got, n, pair.delivered) {
                        return Err(wrong(&format!("message {n}, as it was sent")));
                    }
                }
                if let Some(due) = pair.due(pair.delivered).filter(|_| self.recording) {
                    self.latencies.deliver.saturating_record(nanos(due, now));
                }
                pair.dialect.write_receipt(n, output);
                pair.delivered += 1;
            }
            Heard::Receipt { after, n } => {
                let base = pair.base.unwrap_or(0);
                let before = base + pair.receipted;
                if after > before || n <= before || n > base + pair.delivered {
                    let upto = base + pair.delivered;
                    return Err(wrong(&format!("a receipt that covers from {} to at most {upto}", before + 1)));
                }
                self.receipts += 1;
                if self.receipts.is_multiple_of(SAMPLE) {
                    self.parsed += 1;
                    if !pair.dialect.is_receipt(got, after, n) {
                        return Err(wrong(&format!("a receipt for {after} to {n}")));
                    }
                }
                let covered = n - before;
                if self.recording {
                    for due in (pair.receipted..pair.receipted + covered).filter_map(|k| pair.due(k)) {
                        self.latencies.round_trip.saturating_record(nanos(due, now));
                    }
                }
                pair.receipted += covered;
                if !D::ACCEPTS {
                    pair.acked = pair.receipted;
                }
                self.receipted += covered;
                pair.refill(self.in_flight, now, output);
            }
        }
        Ok(())
    }
}

impl<D: Dialect> Handler for Pairs<D> {
    fn take(&mut self, index: usize, bytes: &[u8], now: Instant, output: &mut Vec<u8>) -> Result<usize> {
        let side = if index.is_multiple_of(2) { Side::Sender } else { Side::Receiver };
        let mut at = 0;
        while let (Some(rest), Some(pair)) =
            (bytes.get(at..).filter(|rest| !rest.is_empty()), self.pairs.get_mut(index / 2))
        {
            let heard = pair.dialect.hear(side, rest, output);
            let Some((heard, length)) = heard.with_context(|| unexpected(index, "something else", rest).to_string())?
            else {
                break;
            };
            self.heard(index, heard, rest.get(..length).unwrap_or_default(), now, output)?;
            at += length;
        }
        Ok(at)
    }
}

impl<D: Dialect> Pair<D> {
    fn new(dialect: D) -> Self {
        Self {
            base: dialect.base(),
            dialect,
            sent: 0,
            acked: 0,
            delivered: 0,
            receipted: 0,
            due: vec![Instant::now(); IN_FLIGHT_MAX as usize],
            waiting: VecDeque::new(),
        }
    }

    fn on_their_way(&self) -> u64 {
        self.sent - self.receipted.min(self.acked)
    }

    fn is_done(&self) -> bool {
        self.waiting.is_empty() && [self.acked, self.delivered, self.receipted] == [self.sent; 3]
    }

    fn due(&self, k: u64) -> Option<Instant> {
        self.due.get((k % u64::from(IN_FLIGHT_MAX)) as usize).copied()
    }

    fn send(&mut self, due: Instant, output: &mut Vec<u8>) {
        if let Some(slot) = self.due.get_mut((self.sent % u64::from(IN_FLIGHT_MAX)) as usize) {
            *slot = due;
        }
        self.dialect.write_message(self.sent, output);
        self.sent += 1;
    }

    /// What has waited goes first; then as many as may be on their way.
    fn refill(&mut self, in_flight: u64, now: Instant, output: &mut Vec<u8>) {
        while self.on_their_way() < IN_FLIGHT_MAX.into()
            && let Some(due) = self.waiting.pop_front()
        {
            self.send(due, output);
        }
        while self.on_their_way() < in_flight {
            self.send(now, output);
        }
    }
}
