//! What is printed of round trips.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::pairs::{Counts, Outcome};
use super::process::Cpu;
use super::report::{Percentiles, Setup, each, rounded};

/// How often an idle connection is taken to say that it is there, in seconds: the same for every server.
const KEEP_ALIVE_S: f64 = 300.0;

/// Latencies in microseconds from when the message was sent, or in an open loop should have been.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    /// Until the PUBACK; none in XMPP, which has nothing like it.
    accept: Option<Percentiles>,
    /// Until the entry is at the receiver.
    deliver: Percentiles,
    /// Until the receipt is at the sender.
    round_trip: Percentiles,
}

/// A run of pairs.
#[derive(Debug, Serialize)]
pub(crate) struct PairsReport {
    #[serde(flatten)]
    pub(crate) setup: Setup,
    #[serde(rename = "loop")]
    kind: &'static str,
    pairs: usize,
    /// Of a pair, in a closed loop.
    in_flight: Option<u32>,
    /// Messages a second in all, in an open loop.
    rate: Option<f64>,
    warmup_s: f64,
    seconds: f64,
    round_trips: u64,
    round_trips_per_s: f64,
    latency_us: Latency,
    /// User and system time of the server; none if its process is not known.
    server_cpu_us_per_round_trip: Option<f64>,
    server_cores: Option<f64>,
    generator_cpu_us_per_round_trip: f64,
    generator_cores: f64,
    /// What the rest of the machine used meanwhile: a figure far above 0 spoils the others.
    others_cores: f64,
    rss_before_kib: Option<u64>,
    rss_after_kib: Option<u64>,
    pub(crate) rss_idle_bytes_each: Option<u64>,
    /// Connections that were dropped and came back at once; none was refused.
    storm: Option<u32>,
    /// Until all of them were subscribed again.
    storm_ms: Option<f64>,
    /// A round trip's share of what was written to the server and read from it, without TCP's own.
    wire_bytes_to_server: f64,
    wire_bytes_from_server: f64,
    /// Both ways, with the headers of IP and TCP: what the loopback interface carried meanwhile, whoever sent it.
    ip_bytes: f64,
    /// An idle connection's keep-alive (MQTT's PINGREQ and PINGRESP, XEP-0199's ping and its answer), both ways, as `ip_bytes`.
    keep_alive_ip_bytes: Option<f64>,
    /// Of an idle hour: one every [`KEEP_ALIVE_S`].
    idle_hour_ip_bytes: Option<f64>,
    /// Memory of the server on the way: round trips, and VmRSS in KiB.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    marks: Vec<(u64, u64)>,
    /// Of the whole run, with its warm-up.
    counts: Counts,
}

/// What else a run of pairs was told and saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around {
    pub(crate) in_flight: u32,
    pub(crate) rate: Option<f64>,
    pub(crate) warmup: Duration,
    pub(crate) has_pid: bool,
    pub(crate) rss_before_kib: Option<u64>,
    pub(crate) rss_after_kib: Option<u64>,
    pub(crate) rss_idle_bytes_each: Option<u64>,
    /// What the keep-alive of an idle connection cost.
    pub(crate) keep_alive_bytes: Option<f64>,
    /// How many connections were dropped and came back at once, and how long that took.
    pub(crate) storm: Option<(u32, Duration)>,
}

impl PairsReport {
    pub(crate) fn new(setup: Setup, pairs: usize, around: Around, outcome: &Outcome) -> Self {
        let Outcome { round_trips, time, cpu, traffic, ip_bytes, marks, latencies, counts } = outcome;
        let Cpu { server, generator, machine: _ } = *cpu;
        let seconds = time.as_secs_f64();
        let cores = |used: Duration| (used.as_secs_f64() / seconds * 100.0).round() / 100.0;
        let bytes = |all: u64| rounded(all as f64 / (*round_trips).max(1) as f64);
        Self {
            setup,
            kind: if around.rate.is_some() { "open" } else { "closed" },
            pairs,
            in_flight: around.rate.is_none().then_some(around.in_flight),
            rate: around.rate,
            warmup_s: around.warmup.as_secs_f64(),
            seconds: rounded(seconds),
            round_trips: *round_trips,
            round_trips_per_s: rounded(*round_trips as f64 / seconds),
            latency_us: Latency {
                accept: (!latencies.accept.is_empty()).then(|| Percentiles::of(&latencies.accept)),
                deliver: Percentiles::of(&latencies.deliver),
                round_trip: Percentiles::of(&latencies.round_trip),
            },
            server_cpu_us_per_round_trip: around.has_pid.then(|| each(server, *round_trips)),
            server_cores: around.has_pid.then(|| cores(server)),
            generator_cpu_us_per_round_trip: each(generator, *round_trips),
            generator_cores: cores(generator),
            others_cores: cores(cpu.others()),
            rss_before_kib: around.rss_before_kib,
            rss_after_kib: around.rss_after_kib,
            rss_idle_bytes_each: around.rss_idle_bytes_each,
            storm: around.storm.map(|(connections, _)| connections),
            storm_ms: around.storm.map(|(_, time)| rounded(time.as_secs_f64() * 1000.0)),
            wire_bytes_to_server: bytes(traffic.to_server),
            wire_bytes_from_server: bytes(traffic.from_server),
            ip_bytes: bytes(*ip_bytes),
            keep_alive_ip_bytes: around.keep_alive_bytes.map(rounded),
            idle_hour_ip_bytes: around.keep_alive_bytes.map(|bytes| rounded(bytes * 3600.0 / KEEP_ALIVE_S)),
            marks: marks.clone(),
            counts: *counts,
        }
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let Self { setup, kind, pairs, counts, .. } = self;
        let how = match (self.in_flight, self.rate) {
            (_, Some(rate)) => format!("{rate} messages/s"),
            (in_flight, None) => format!("{} in flight each", in_flight.unwrap_or(0)),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{}, {pairs} pairs, {kind} loop, {how}, {}-byte texts, {} s",
            setup.server, setup.text_bytes, self.seconds
        );
        let _ = writeln!(
            out,
            "{} users, {} entries stored for {} of them, {} idle connections",
            setup.users, setup.stored, setup.stored_users, setup.idle
        );
        if let (Some(storm), Some(ms)) = (self.storm, self.storm_ms) {
            let _ = writeln!(out, "{storm} of them dropped and back at once, in {ms:.0} ms");
        }
        let _ = writeln!(out, "\n{:<28}{:>12.0}", "round trips/s", self.round_trips_per_s);
        let optional = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.1}"));
        let _ = writeln!(out, "{:<28}{:>12}", "server CPU, us/round trip", optional(self.server_cpu_us_per_round_trip));
        let _ = writeln!(out, "{:<28}{:>12.1}", "generator CPU, us", self.generator_cpu_us_per_round_trip);
        let _ = writeln!(
            out,
            "{:<28}{:>12}{:>12.2}{:>12.2}",
            "cores: server, generator, others",
            self.server_cores.map_or_else(|| "unknown".to_owned(), |cores| format!("{cores:.2}")),
            self.generator_cores,
            self.others_cores
        );
        let mib = |kib: Option<u64>| kib.map_or_else(|| "unknown".to_owned(), |kib| format!("{}", kib / 1024));
        let _ = writeln!(
            out,
            "{:<28}{:>12}{:>12}",
            "RSS before, after, MiB",
            mib(self.rss_before_kib),
            mib(self.rss_after_kib)
        );
        if let Some(bytes) = self.rss_idle_bytes_each {
            let _ = writeln!(out, "{:<28}{bytes:>12}", "RSS an idle connection, B");
        }
        let _ = writeln!(
            out,
            "{:<28}{:>12.1}{:>12.1}",
            "wire to, from server, B", self.wire_bytes_to_server, self.wire_bytes_from_server
        );
        let _ = writeln!(out, "{:<28}{:>12.1}", "with IP and TCP, B", self.ip_bytes);
        if let (Some(each), Some(hour)) = (self.keep_alive_ip_bytes, self.idle_hour_ip_bytes) {
            let _ = writeln!(out, "{:<28}{each:>12.1}{hour:>12.0}", "a keep-alive, idle hour, B");
        }
        for (round_trips, kib) in &self.marks {
            let _ = writeln!(out, "{:<28}{:>12}", format!("RSS at {round_trips}, MiB"), kib / 1024);
        }
        let _ =
            writeln!(out, "\n{:<28}{:>12}{:>12}{:>12}{:>12}{:>12}", "latency, us", "p50", "p90", "p99", "p99.9", "max");
        let Latency { accept, deliver, round_trip } = &self.latency_us;
        let all = [("accepted", accept.as_ref()), ("delivered", Some(deliver)), ("receipted", Some(round_trip))];
        for (name, percentiles) in all {
            let Some(percentiles) = percentiles else { continue };
            let Percentiles { p50, p90, p99, p999, max, count: _ } = percentiles;
            let _ = writeln!(out, "{name:<28}{p50:>12.1}{p90:>12.1}{p99:>12.1}{p999:>12.1}{max:>12.1}");
        }
        let Counts { sent, acked, delivered, receipted, receipts, parsed } = counts;
        let _ = writeln!(
            out,
            "\nsent {sent}, acked {acked}, delivered {delivered}, receipted {receipted} by {receipts} receipts, {parsed} parsed as JSON"
        );
        out
    }
}
