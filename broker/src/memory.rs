//! The memory ceiling: once a second, how much the process has in use; above the ceiling nobody more comes in, and well above it those go
//! for whom the most waits. Their inboxes wait in the store.

use std::fs;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::door::Shared;

/// How often the process looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Connections that are ended at a time.
const ENDED_MAX: usize = 64;

/// How much is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Below the ceiling.
    Fine,
    /// Above it: no new connections.
    Full,
    /// An eighth above it: the slowest connections end.
    Critical,
}

impl Level {
    /// The level of `used` bytes. What was full stays so until there is some room again.
    fn of(used: u64, ceiling: u64, before: Self) -> Self {
        if used > ceiling + ceiling / 8 {
            Self::Critical
        } else if used > ceiling || (before > Self::Fine && used > ceiling - ceiling / 16) {
            Self::Full
        } else {
            Self::Fine
        }
    }
}

/// Looks until the door is gone.
pub(crate) async fn watch(shared: Weak<Shared>) {
    let Some(ceiling) = shared.upgrade().and_then(|shared| shared.config.memory_max.or_else(three_quarters)) else {
        tracing::warn!("how much memory there is cannot be read: there is no ceiling; set door.memory_max_mib");
        return;
    };
    let mib = |bytes: u64| bytes >> 20;
    let mut level = Level::Fine;
    while let Some(shared) = shared.upgrade() {
        let used = used().unwrap_or(0);
        let before = level;
        level = Level::of(used, ceiling, before);
        look(&shared, used, level);
        match (before, level) {
            (Level::Fine, Level::Full | Level::Critical) => tracing::warn!(
                used_mib = mib(used),
                ceiling_mib = mib(ceiling),
                "memory is above its ceiling (door.memory_max_mib): new connections are closed"
            ),
            (Level::Full | Level::Critical, Level::Fine) => {
                tracing::warn!(used_mib = mib(used), "memory is below its ceiling again: new connections are taken");
            }
            _ => {}
        }
        drop(shared);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn look(shared: &Arc<Shared>, used: u64, level: Level) {
    shared.metrics.memory_bytes.store(used, Ordering::Relaxed);
    shared.is_memory_full.store(level > Level::Fine, Ordering::Relaxed);
    if level == Level::Critical {
        let ended = shared.registry.end_hungriest(ENDED_MAX);
        if ended > 0 {
            tracing::warn!(ended, "memory is far above its ceiling: connections that read slowly end");
            shared.metrics.memory_ended.fetch_add(ended as u64, Ordering::Relaxed);
        }
    }
}

/// Bytes of the process that are in memory and of no file.
fn used() -> Option<u64> {
    in_status(&fs::read_to_string("/proc/self/status").ok()?)
}

fn in_status(status: &str) -> Option<u64> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    kib(field("RssAnon:").or_else(|| field("VmRSS:"))?)
}

fn kib(text: &str) -> Option<u64> {
    text.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Three quarters of what the machine or the control group has, whichever is less.
fn three_quarters() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok();
    let machine = meminfo.and_then(|text| kib(text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?));
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group = group.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok()).min();
    let all = machine.into_iter().chain(group).min()?;
    Some(all / 4 * 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_has_two_marks_and_is_left_with_some_room() {
        let mut level = Level::Fine;
        for (used, expected) in [
            (1599, Level::Fine),
            (1600, Level::Fine),
            (1601, Level::Full),
            (1550, Level::Full),
            (1801, Level::Critical),
            (1800, Level::Full),
            (1501, Level::Full),
            (1500, Level::Fine),
            (1550, Level::Fine),
        ] {
            level = Level::of(used, 1600, level);
            assert_eq!(level, expected, "{used}");
        }
    }

    #[test]
    fn what_is_in_use_is_read() {
        let status = "Name:\tnatter\nVmRSS:\t    3000 kB\nRssAnon:\t    2048 kB\n";
        assert_eq!(in_status(status), Some(2 << 20));
        assert_eq!(in_status("VmRSS:\t 3 kB\n"), Some(3072));
        assert!(used().unwrap() > 100_000 && three_quarters().unwrap() > used().unwrap());
    }
}
