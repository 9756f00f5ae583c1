//! What is printed: a table to read, or one JSON object.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::media::{Plan, Took};
use super::process::{Cpu, Machine};

/// Percentiles in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// How many were measured.
    pub(crate) count: u64,
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
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

pub(crate) fn each(time: Duration, count: u64) -> f64 {
    rounded(time.as_secs_f64() * 1e6 / count.max(1) as f64)
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

/// Backlogs that were drained.
#[derive(Debug, Serialize)]
pub(crate) struct BacklogReport {
    #[serde(flatten)]
    setup: Setup,
    entries: u64,
    /// Who came at once.
    devices: u64,
    seconds: f64,
    entries_per_s: f64,
    /// What one statement of SQLite reads of the same rows.
    sqlite_entries_per_s: f64,
    server_cpu_us_per_entry: f64,
    generator_cpu_us_per_entry: f64,
    others_cores: f64,
    rss_before_kib: Option<u64>,
    rss_after_kib: Option<u64>,
}

impl BacklogReport {
    pub(crate) fn new(
        setup: Setup,
        (entries, devices): (u64, u64),
        time: Duration,
        cpu: Cpu,
        sqlite_entries_per_s: f64,
        (rss_before_kib, rss_after_kib): (Option<u64>, Option<u64>),
    ) -> Self {
        let seconds = time.as_secs_f64().max(1e-9);
        Self {
            setup,
            entries,
            devices,
            seconds: (seconds * 1000.0).round() / 1000.0,
            entries_per_s: rounded(entries as f64 / seconds),
            sqlite_entries_per_s,
            server_cpu_us_per_entry: each(cpu.server, entries),
            generator_cpu_us_per_entry: each(cpu.generator, entries),
            others_cores: cores(cpu.others(), time),
            rss_before_kib,
            rss_after_kib,
        }
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let Self { setup, entries, devices, entries_per_s, sqlite_entries_per_s, server_cpu_us_per_entry, .. } = self;
        format!(
            "{}, {entries} entries of {}-byte texts for {devices} devices\n\nstored/s{:>32}\ndrained/s{entries_per_s:>31.0}\nSQLite alone \
             reads/s{sqlite_entries_per_s:>18.0}\nserver CPU, us/entry{server_cpu_us_per_entry:>20.1}\ncores of others{:>25.2}\n",
            setup.server, setup.text_bytes, setup.stored_per_s, self.others_cores
        )
    }
}

/// Cores that were busy for `used` within `time`.
fn cores(used: Duration, time: Duration) -> f64 {
    (used.as_secs_f64() / time.as_secs_f64().max(1e-9) * 100.0).round() / 100.0
}

/// Files that went up and down.
#[derive(Debug, Serialize)]
pub(crate) struct MediaReport {
    #[serde(flatten)]
    setup: Setup,
    files: u32,
    file_bytes: u64,
    at_once: u32,
    up: Transfer,
    down: Transfer,
    rss_before_kib: Option<u64>,
    rss_after_kib: Option<u64>,
}

/// One direction. A MB is a million bytes.
#[derive(Debug, Serialize)]
struct Transfer {
    seconds: f64,
    mb_per_s: f64,
    server_cpu_ms_per_mb: f64,
    generator_cpu_ms_per_mb: f64,
    others_cores: f64,
}

impl Transfer {
    fn new(plan: &Plan, took: Took) -> Self {
        let mb = plan.bytes as f64 * f64::from(plan.files) / 1e6;
        let per_mb = |cpu: Duration| (cpu.as_secs_f64() * 1e6 / mb).round() / 1000.0;
        Self {
            seconds: (took.time.as_secs_f64() * 1000.0).round() / 1000.0,
            mb_per_s: rounded(mb / took.time.as_secs_f64().max(1e-9)),
            server_cpu_ms_per_mb: per_mb(took.cpu.server),
            generator_cpu_ms_per_mb: per_mb(took.cpu.generator),
            others_cores: cores(took.cpu.others(), took.time),
        }
    }
}

impl MediaReport {
    pub(crate) fn new(
        setup: Setup,
        plan: &Plan,
        (up, down): (Took, Took),
        (rss_before_kib, rss_after_kib): (Option<u64>, Option<u64>),
    ) -> Self {
        let Plan { files, bytes, at_once, .. } = *plan;
        let (up, down) = (Transfer::new(plan, up), Transfer::new(plan, down));
        Self { setup, files, file_bytes: bytes, at_once, up, down, rss_before_kib, rss_after_kib }
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let Self { setup, files, file_bytes, at_once, up, down, .. } = self;
        let mib = |kib: Option<u64>| kib.unwrap_or(0) / 1024;
        let line = |name: &str, Transfer { mb_per_s, server_cpu_ms_per_mb, others_cores, .. }: &Transfer| {
            format!("{name:<10}{mb_per_s:>12.1}{server_cpu_ms_per_mb:>20.3}{others_cores:>18.2}\n")
        };
        format!(
            "{}, {files} files of {file_bytes} bytes, {at_once} at a time\n\n{:<10}{:>12}{:>20}{:>18}\n{}{}RSS before, after, MiB{:>12}{:>8}\n",
            setup.server,
            "",
            "MB/s",
            "server CPU, ms/MB",
            "cores of others",
            line("up", up),
            line("down", down),
            mib(self.rss_before_kib),
            mib(self.rss_after_kib)
        )
    }
}
