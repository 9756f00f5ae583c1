//! The clock that all processes of a run share.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of CLOCK_MONOTONIC: what one process saw before another did has the smaller number, or the same.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}
