//! What the kernel says of a process and of the machine.

use std::fs::read_to_string;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// CPU time used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// User and system time of the server.
    pub(crate) server: Duration,
    /// Of this process.
    pub(crate) generator: Duration,
    /// Of everything on the machine, what a hypervisor took among it.
    pub(crate) machine: Duration,
}

impl Cpu {
    /// Now. `server` is its process, if it is known.
    pub(crate) fn now(server: Option<u32>) -> Result<Self> {
        Ok(Self {
            server: server.map_or(Ok(Duration::ZERO), of_process)?,
            generator: of_process(std::process::id())?,
            machine: of_machine()?,
        })
    }

    /// What has been used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            server: self.server.saturating_sub(before.server),
            generator: self.generator.saturating_sub(before.generator),
            machine: self.machine.saturating_sub(before.machine),
        }
    }

    /// What is neither the server's nor the generator's.
    pub(crate) fn others(self) -> Duration {
        self.machine.saturating_sub(self.server + self.generator)
    }
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_nanos(count.saturating_mul(1_000_000_000 / per_second))
}

fn of_process(pid: u32) -> Result<Duration> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    // The name, in brackets, may hold anything.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    match (fields.next(), fields.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok(ticks(user + system)),
        _ => anyhow::bail!("/proc/{pid}/stat: expected utime and stime, got {stat:?}"),
    }
}

fn of_machine() -> Result<Duration> {
    let stat = read_to_string("/proc/stat").context("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum();
    Ok(ticks(busy))
}

/// What the loopback interface has carried so far: the wire between server and generator, where nobody else uses it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loopback {
    bytes: u64,
    packets: u64,
}

impl Loopback {
    /// Of a packet on the interface: what stands before IP.
    const LINK_HEADER: u64 = 14;

    pub(crate) fn now() -> Result<Self> {
        let text = read_to_string("/proc/net/dev").context("/proc/net/dev")?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
        let mut fields = line.unwrap_or_default().split_whitespace().map(str::parse::<u64>);
        match (fields.next(), fields.next()) {
            (Some(Ok(bytes)), Some(Ok(packets))) => Ok(Self { bytes, packets }),
            _ => anyhow::bail!("/proc/net/dev: expected bytes and packets of lo, got {line:?}"),
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(before.bytes), packets: self.packets.saturating_sub(before.packets) }
    }

    /// With the headers of IP and TCP, and with packets that only acknowledge.
    pub(crate) fn ip_bytes(self) -> u64 {
        self.bytes.saturating_sub(self.packets * Self::LINK_HEADER)
    }
}

/// VmRSS of a process, in KiB.
pub(crate) fn rss_kib(pid: u32) -> Result<u64> {
    let status = read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    rss.with_context(|| format!("/proc/{pid}/status: expected VmRSS"))
}

/// What is worth knowing of the machine, and nothing that names it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    kernel: String,
    /// Load over the last minute.
    load: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let read = |path: &str| read_to_string(path).unwrap_or_default();
        let first = |text: String| text.split_whitespace().next().unwrap_or("unknown").to_owned();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: first(read("/proc/sys/kernel/osrelease")),
            load: first(read("/proc/loadavg")),
        }
    }
}
