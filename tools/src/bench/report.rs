//! What is printed: a table to read, or one JSON object.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::pairs::{Counts, Outcome};
use super::process::{Cpu, Machine};

/// Percentiles in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    pub(crate) max: f64,
    /// How many were measured.
    count: u64,
}

impl Percentiles {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let micros = |nanos: u64| rounded(nanos as f64 / 1000.0);
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(histogram.max()),
            count: histogram.len(),
        }
    }
}

/// Tenths are enough for everything here.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn each(time: Duration, count: u64) -> f64 {
    rounded(time.as_secs_f64() * 1e6 / count.max(1) as f64)
}

/// Latencies in microseconds from when the message was sent, or in an open loop should have been.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    /// Until the PUBACK.
    accept: Percentiles,
    /// Until the entry is at the receiver.
    deliver: Percentiles,
    /// Until the receipt is at the sender.
    round_trip: Percentiles,
}

/// How a run was set up.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Setup {
    pub(crate) bench: &'static str,
    /// Program and version of what was measured.
    pub(crate) server: String,
    pub(crate) generator: String,
    pub(crate) machine: Machine,
    pub(crate) seed: u64,
    pub(crate) text_bytes: usize,
    pub(crate) users: u64,
    pub(crate) stored: u64,
    pub(crate) stored_users: u64,
    /// How fast they were stored; 0 if nothing was.
    pub(crate) stored_per_s: u64,
    pub(crate) idle: u64,
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
    /// How many connections were dropped and came back at once, and how long that took.
    pub(crate) storm: Option<(u32, Duration)>,
}

impl PairsReport {
    pub(crate) fn new(setup: Setup, pairs: usize, around: Around, outcome: &Outcome) -> Self {
        let Outcome { round_trips, time, cpu, traffic, latencies, counts } = outcome;
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
                accept: Percentiles::of(&latencies.accept),
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
        let Machine { .. } = setup.machine;
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
        let _ =
            writeln!(out, "\n{:<28}{:>12}{:>12}{:>12}{:>12}{:>12}", "latency, us", "p50", "p90", "p99", "p99.9", "max");
        let Latency { accept, deliver, round_trip } = &self.latency_us;
        for (name, percentiles) in [("accepted", accept), ("delivered", deliver), ("receipted", round_trip)] {
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

/// A backlog that was drained.
#[derive(Debug, Serialize)]
pub(crate) struct BacklogReport {
    #[serde(flatten)]
    pub(crate) setup: Setup,
    pub(crate) entries: u64,
    pub(crate) seconds: f64,
    pub(crate) entries_per_s: f64,
    pub(crate) server_cpu_us_per_entry: Option<f64>,
    pub(crate) generator_cpu_us_per_entry: f64,
    pub(crate) others_cores: f64,
    pub(crate) rss_before_kib: Option<u64>,
    pub(crate) rss_after_kib: Option<u64>,
}

impl BacklogReport {
    pub(crate) fn new(
        setup: Setup,
        entries: u64,
        time: Duration,
        cpu: Cpu,
        has_pid: bool,
        (rss_before_kib, rss_after_kib): (Option<u64>, Option<u64>),
    ) -> Self {
        let seconds = time.as_secs_f64().max(1e-9);
        Self {
            setup,
            entries,
            seconds: (seconds * 1000.0).round() / 1000.0,
            entries_per_s: rounded(entries as f64 / seconds),
            server_cpu_us_per_entry: has_pid.then(|| each(cpu.server, entries)),
            generator_cpu_us_per_entry: each(cpu.generator, entries),
            others_cores: (cpu.others().as_secs_f64() / seconds * 100.0).round() / 100.0,
            rss_before_kib,
            rss_after_kib,
        }
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let cpu = self.server_cpu_us_per_entry.map_or_else(|| "unknown".to_owned(), |cpu| format!("{cpu:.1}"));
        format!(
            "{}, {} entries of {}-byte texts for one device\n\nstored/s{:>32}\ndrained/s{:>31.0}\nserver CPU, us/entry{cpu:>20}\ncores of others{:>25.2}\n",
            self.setup.server,
            self.entries,
            self.setup.text_bytes,
            self.setup.stored_per_s,
            self.entries_per_s,
            self.others_cores
        )
    }
}
