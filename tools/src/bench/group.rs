//! A message to a large group, and beside it the same number of messages to its members one by one: what a delivery costs.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;

use super::dialect::{DEVICE, scan};
use super::names::Cast;
use super::net::{Net, unexpected};
use super::options::Common;
use super::packets::{Packets, topic};
use super::print;
use super::process::Cpu;
use super::report::{Setup, each, rounded};
use super::stage::{Place, Stage};
use crate::mqtt;
use crate::torture::progress::Progress;

/// Users that one command adds.
const ADDED_AT_ONCE: usize = 256;
/// Who writes to members one by one: what one user may publish a second must not be what is measured.
const WRITERS: u64 = 20;
/// How long nothing may come.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often the clock is looked at.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Args)]
pub(crate) struct GroupOptions {
    /// Members, all connected, beside the one who writes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1023))]
    members: u32,
    /// Messages to the group
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: u32,
    /// How many of them are on their way at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    in_flight: u32,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What the connections see: members first, then writers.
struct Seen {
    members: usize,
    answered: u64,
    /// Deliveries of messages that are measured.
    delivered: u64,
    /// Of those messages, the ones of which the writer knows that all have them, or that the one recipient has.
    covered: u64,
    last: Instant,
}

impl Packets for Seen {
    fn handle(&mut self, index: usize, first: u8, body: &[u8], now: Instant, output: &mut Vec<u8>) -> Result<()> {
        if first >> 4 == 4 {
            if body.get(2).is_some_and(|reason| *reason >= 0x80) {
                return Err(unexpected(index, "a PUBACK that accepts", body));
            }
            self.answered += 1;
            return Ok(());
        }
        let (qos, id, payload) = mqtt::split_publish(first, body, true)
            .filter(|_| first >> 4 == 3)
            .with_context(|| unexpected(index, "an entry", body).to_string())?;
        if qos > 0 {
            output.extend_from_slice(&mqtt::puback_bytes(id));
        }
        if index < self.members {
            if scan::message(payload).is_some() && has(payload, br#""type":"text""#) {
                self.delivered += 1;
                self.last = now;
            }
        } else if has(payload, br#""of":"#) {
            let number = |name: &[u8]| scan::number_after(payload, name);
            let range = number(br#""n":"#).zip(number(br#""after":"#));
            if number(br#""delivered_to":"#) == number(br#""of":"#) {
                self.covered += range.map_or(0, |(n, after)| n.saturating_sub(after));
            }
        } else if has(payload, br#""status":"delivered""#) {
            self.covered += 1;
        }
        Ok(())
    }
}

fn has(payload: &[u8], what: &[u8]) -> bool {
    payload.windows(what.len()).any(|window| window == what)
}

/// One way of bringing something to all.
#[derive(Debug, Serialize)]
struct Way {
    deliveries: u64,
    deliveries_per_s: f64,
    server_cpu_us_per_delivery: f64,
    others_cores: f64,
    /// From the first PUBLISH of a round to its last delivery.
    round_ms: Times,
}

#[derive(Debug, Serialize)]
struct Times {
    median: f64,
    max: f64,
}

/// A run.
#[derive(Debug, Serialize)]
struct GroupReport {
    #[serde(flatten)]
    setup: Setup,
    members: u32,
    messages: u32,
    in_flight: u32,
    group: Way,
    direct: Way,
}

impl GroupReport {
    fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{}, a group of {} and who writes, {} messages, {} at a time\n",
            self.setup.server, self.members, self.messages, self.in_flight
        );
        let _ = writeln!(
            out,
            "{:<20}{:>14}{:>18}{:>20}{:>18}{:>10}",
            "", "deliveries/s", "CPU us/delivery", "round, median ms", "round, max ms", "others"
        );
        for (name, way) in [("to the group", &self.group), ("one by one", &self.direct)] {
            let _ = writeln!(
                out,
                "{name:<20}{:>14.0}{:>18.1}{:>20.1}{:>18.1}{:>10.2}",
                way.deliveries_per_s,
                way.server_cpu_us_per_delivery,
                way.round_ms.median,
                way.round_ms.max,
                way.others_cores
            );
        }
        out
    }
}

/// All connections of a run, and what they have seen.
struct Hall {
    net: Net,
    seen: Seen,
    pid: Option<u32>,
}

impl Hall {
    /// Turns until `is_done`.
    fn until(&mut self, what: &str, is_done: impl Fn(&Seen) -> bool) -> Result<()> {
        let count = |seen: &Seen| seen.answered + seen.delivered + seen.covered;
        let mut heard = (Instant::now(), count(&self.seen));
        while !is_done(&self.seen) {
            self.net.turn(LOOK, &mut self.seen)?;
            if count(&self.seen) > heard.1 {
                heard = (Instant::now(), count(&self.seen));
            } else if heard.0.elapsed() > SILENCE_MAX {
                let Seen { answered, delivered, covered, .. } = self.seen;
                bail!(
                    "{what}: {answered} answers, {delivered} deliveries and {covered} receipts are there, and nothing more comes"
                );
            }
        }
        Ok(())
    }

    fn publish(&mut self, index: usize, user: &str, id: u64, payload: &str) -> Result<()> {
        let packet_id = u16::try_from(id % 60_000).unwrap_or(0) + 1;
        if let Some(output) = self.net.output(index) {
            mqtt::write_publish(output, true, &topic(user, DEVICE, "outbox"), packet_id, payload.as_bytes());
        }
        self.net.flush(index)
    }

    /// Measures rounds: each publishes something that makes so many deliveries and receipts.
    fn measure(
        &mut self,
        rounds: u64,
        progress: &mut Progress,
        mut publish: impl FnMut(&mut Self, u64) -> Result<(u64, u64)>,
    ) -> Result<Way> {
        let (start, before, first) = (Instant::now(), Cpu::now(self.pid)?, self.seen.delivered);
        let mut times = Vec::new();
        for round in 0..rounds {
            let begun = Instant::now();
            let (delivered, covered) = (self.seen.delivered, self.seen.covered);
            let (more, receipts) = publish(self, round)?;
            self.until("a round", |seen| seen.delivered >= delivered + more && seen.covered >= covered + receipts)?;
            times.push(self.seen.last.duration_since(begun).as_secs_f64() * 1000.0);
            progress
                .tell((round + 1) as f64 / rounds as f64, &format!("{} deliveries", self.seen.delivered - first))?;
        }
        let (time, cpu, deliveries) = (start.elapsed(), Cpu::now(self.pid)?.since(before), self.seen.delivered - first);
        times.sort_by(f64::total_cmp);
        Ok(Way {
            deliveries,
            deliveries_per_s: rounded(deliveries as f64 / time.as_secs_f64()),
            server_cpu_us_per_delivery: rounded(each(cpu.server, deliveries)),
            others_cores: rounded(cpu.others().as_secs_f64() / time.as_secs_f64()),
            round_ms: Times {
                median: rounded(times.get(times.len() / 2).copied().unwrap_or_default()),
                max: rounded(times.last().copied().unwrap_or_default()),
            },
        })
    }
}

pub(super) fn run(options: &GroupOptions, place: &Place) -> Result<()> {
    let GroupOptions { members, messages, in_flight, common } = options;
    let cast = Cast { seed: common.seed, pairs: 0, idle: 0, writers: WRITERS, absent: (*members).into(), users: 0 };
    let target = place.target(common)?;
    let stage = Stage::set(&target, cast, common)?;
    let names: Vec<String> = (0..u64::from(*members)).map(|i| cast.absent(i)).collect();
    let writers: Vec<String> = (0..WRITERS).map(|i| cast.writer(i)).collect();
    let all: Vec<String> = names.iter().chain(&writers).cloned().collect();
    let seen = Seen { members: names.len(), answered: 0, delivered: 0, covered: 0, last: Instant::now() };
    let mut hall = Hall { net: stage.open(&all, true)?, seen, pid: target.pid };
    hall.net.begin(&mut hall.seen)?;
    let chat = format!("g:{:032x}", stage.run);
    let owner = writers.first().context("expected who writes")?;
    hall.publish(names.len(), owner, 0, &format!(r#"{{"group":"create","chat":"{chat}","subject":"bench"}}"#))?;
    hall.until("the group", |seen| seen.answered == 1)?;
    for (number, users) in (1..).zip(names.chunks(ADDED_AT_ONCE)) {
        let payload = format!(r#"{{"group":"add","chat":"{chat}","users":{}}}"#, serde_json::to_string(users)?);
        hall.publish(names.len(), owner, number, &payload)?;
        hall.until("adding members", |seen| seen.answered == 1 + number)?;
    }
    // What members and writer are told of all that.
    target.settle()?;
    let rest = Instant::now() + LOOK * 200;
    while Instant::now() < rest {
        hall.net.turn(LOOK, &mut hall.seen)?;
    }
    target.settle()?;
    let text = "x".repeat(stage.text_bytes);
    let body =
        |id: String, to: &str| format!(r#"{{"id":"{id}","to":"{to}","type":"text","text":{{"body":"{text}"}}}}"#);
    let (many, at_once, run) = (u64::from(*members), u64::from(*in_flight), stage.run);
    let mut progress = Progress::new();
    let rounds = u64::from(*messages).div_ceil(at_once);
    let group = hall.measure(rounds, &mut progress, |hall, round| {
        for i in 0..at_once {
            let number = round * at_once + i;
            hall.publish(names.len(), owner, number, &body(format!("{run:x}-g{number}"), &chat))?;
        }
        Ok((many * at_once, at_once))
    })?;
    let direct = hall.measure(rounds, &mut progress, |hall, round| {
        for i in 0..at_once {
            for (at, name) in names.iter().enumerate() {
                let number = (round * at_once + i) * many + at as u64;
                let by = at % writers.len();
                let Some(writer) = writers.get(by) else { continue };
                hall.publish(names.len() + by, writer, number, &body(format!("{run:x}-d{number}"), name))?;
            }
        }
        Ok((many * at_once, many * at_once))
    })?;
    progress.end()?;
    let setup = stage.setup("group", 0, 0, 0);
    let report = GroupReport { setup, members: *members, messages: *messages, in_flight: *in_flight, group, direct };
    print(common, &report, &report.table())
}
