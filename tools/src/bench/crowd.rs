//! What is printed of runs with a crowd beside the pairs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::pairs::Outcome;
use super::presence::Watched;
use super::report::{Percentiles, Setup};

/// What pairs saw.
#[derive(Debug, Serialize)]
struct Pairs {
    messages_per_s: f64,
    server_cpu_us_per_message: f64,
    delivered_us: Percentiles,
    others_cores: f64,
}

impl Pairs {
    fn of(outcome: &Outcome) -> Self {
        let secs = outcome.time.as_secs_f64();
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        Self {
            messages_per_s: outcome.round_trips as f64 / secs,
            server_cpu_us_per_message: micros(outcome.cpu.server) / outcome.round_trips.max(1) as f64,
            delivered_us: Percentiles::of(&outcome.latencies.deliver),
            others_cores: outcome.cpu.others().as_secs_f64() / secs,
        }
    }

    fn row(&self, out: &mut String, name: &str) {
        let Percentiles { p50, p99, max, .. } = &self.delivered_us;
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{name:<28}{:>12.0}{:>12.1}{p50:>12.1}{p99:>12.1}{max:>12.1}{:>12.2}",
            self.messages_per_s, self.server_cpu_us_per_message, self.others_cores
        );
    }
}

fn heads(out: &mut String) {
    let _ = writeln!(
        out,
        "{:<28}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "pairs", "messages/s", "CPU us/msg", "p50 us", "p99 us", "max us", "others"
    );
}

/// A run of `presence`.
#[derive(Debug, Serialize)]
pub(crate) struct PresenceReport {
    #[serde(flatten)]
    setup: Setup,
    connections: usize,
    watches_each: usize,
    still: Pairs,
    moving: Pairs,
    changes_per_s: f64,
    told_per_s: f64,
    /// What the server used more while some came and went.
    server_cpu_us_per_change: f64,
    rss_bytes_per_watch: Option<u64>,
}

impl PresenceReport {
    pub(crate) fn new(
        setup: Setup,
        (connections, watches_each): (usize, usize),
        watched: &Watched,
        rss_bytes_per_watch: Option<u64>,
    ) -> Self {
        let Watched { still, moving, changes_per_s, told_per_s } = watched;
        let a_second = |outcome: &Outcome| outcome.cpu.server.as_secs_f64() * 1e6 / outcome.time.as_secs_f64();
        let server_cpu_us_per_change = (a_second(moving) - a_second(still)) / changes_per_s.max(1.0);
        let (still, moving) = (Pairs::of(still), Pairs::of(moving));
        let (changes_per_s, told_per_s) = (*changes_per_s, *told_per_s);
        Self {
            setup,
            connections,
            watches_each,
            still,
            moving,
            changes_per_s,
            told_per_s,
            server_cpu_us_per_change,
            rss_bytes_per_watch,
        }
    }

    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}, {} connections, each watching {}\n",
            self.setup.server, self.connections, self.watches_each
        );
        heads(&mut out);
        self.still.row(&mut out, "nobody comes or goes");
        self.moving.row(&mut out, "some do");
        let _ = writeln!(out, "\n{:<28}{:>12.0}", "changes/s", self.changes_per_s);
        let _ = writeln!(out, "{:<28}{:>12.0}", "presences told/s", self.told_per_s);
        let _ = writeln!(out, "{:<28}{:>12.1}", "server CPU, us/change", self.server_cpu_us_per_change);
        if let Some(bytes) = self.rss_bytes_per_watch {
            let _ = writeln!(out, "{:<28}{bytes:>12}", "RSS a watch, B");
        }
        out
    }
}

/// A run of `status`.
#[derive(Debug, Serialize)]
pub(crate) struct StatusReport {
    #[serde(flatten)]
    setup: Setup,
    contacts: u64,
    alone: Pairs,
    beside: Pairs,
    commit_ms: Vec<f64>,
}

impl StatusReport {
    pub(crate) fn new(setup: Setup, contacts: u64, alone: &Outcome, beside: &Outcome, commits: &[Duration]) -> Self {
        let commit_ms = commits.iter().map(|time| (time.as_secs_f64() * 10_000.0).round() / 10.0).collect();
        Self { setup, contacts, alone: Pairs::of(alone), beside: Pairs::of(beside), commit_ms }
    }

    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{}, a text status for {} contacts\n", self.setup.server, self.contacts);
        heads(&mut out);
        self.alone.row(&mut out, "alone");
        self.beside.row(&mut out, "a status a second");
        let times: Vec<String> = self.commit_ms.iter().map(|ms| format!("{ms:.1}")).collect();
        let _ = writeln!(out, "\n{:<28}{}", "status to PUBACK, ms", times.join(", "));
        out
    }
}
