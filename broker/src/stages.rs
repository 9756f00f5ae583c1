//! What a door knows of a message's stages: how long an entry took from the bridge's commit to its reader's connection, and from there until
//! its reader acknowledged it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use natter_protocol::histogram::{Histogram, Snapshot};
use natter_protocol::ids::Seq;
use natter_protocol::link::Down;
use uuid::{ContextV7, Timestamp, Uuid};

/// Entries of a connection that are remembered until they are acknowledged; beyond it the oldest is not measured. The bridge has no more
/// than 100 on their way to a device.
const REMEMBERED_MAX: usize = 128;

thread_local! {
    static CONTEXT: RefCell<ContextV7> = RefCell::new(ContextV7::new().with_additional_precision());
}

/// The stamp of a message that comes in: a UUIDv7 with fractions of a millisecond, by which the bridge knows how old it is.
pub(crate) fn stamp() -> u128 {
    CONTEXT.with_borrow(|context| Uuid::new_v7(Timestamp::now(context)).as_u128())
}

/// The histograms.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    out: Histogram,
    acked: Histogram,
}

/// What a door's histograms held, as [`Door::stages`](crate::Door::stages) saw them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Entries: from the bridge's commit until the reader's connection wrote them.
    pub out: Snapshot,
    /// Entries: from there until the reader's PUBACK was read.
    pub acked: Snapshot,
}

impl Stages {
    pub(crate) fn times(&self) -> StageTimes {
        StageTimes { out: self.out.snapshot(), acked: self.acked.snapshot() }
    }
}

/// Entries of one connection that are written and not acknowledged. Nothing is held for one that has none.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "a word for each connection that is idle, instead of four")]
pub(crate) struct OnTheirWay(Option<Box<VecDeque<(Seq, Instant)>>>);

impl OnTheirWay {
    /// The connection takes these from its mailbox, to write them at once; the oldest left the bridge at `committed_at`.
    pub(crate) fn out(&mut self, frames: &[Down], committed_at: u64, now: Instant, stages: &Stages) {
        let mut count = 0;
        for frame in frames {
            let Down::Entry { seq, .. } = frame else { continue };
            count += 1;
            let entries = self.0.get_or_insert_default();
            if entries.len() >= REMEMBERED_MAX {
                entries.pop_front();
            }
            entries.push_back((*seq, now));
        }
        if count > 0 && committed_at > 0 {
            stages.out.record_many(unix_micros().saturating_sub(committed_at), count);
        }
    }

    /// The reader has acknowledged an entry.
    pub(crate) fn acked(&mut self, seq: Seq, now: Instant, stages: &Stages) {
        let Some(entries) = &mut self.0 else { return };
        // Nearly always the first one.
        if let Some(at) = entries.iter().position(|(other, _)| *other == seq)
            && let Some((_, out_at)) = entries.remove(at)
        {
            let took = now.saturating_duration_since(out_at).as_micros();
            stages.acked.record(u64::try_from(took).unwrap_or(u64::MAX));
        }
        if entries.is_empty() {
            self.0 = None;
        }
    }
}

/// Seconds of Unix time.
pub(crate) fn unix_now() -> u64 {
    unix_micros() / 1_000_000
}

fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use natter_protocol::histogram::micros_of_uuid7;

    use super::*;

    #[test]
    fn a_stamp_tells_its_time_to_the_microsecond() {
        let before = unix_micros();
        let stamps: Vec<u128> = (0..1000).map(|_| stamp()).collect();
        let after = unix_micros();
        assert!(stamps.is_sorted() && stamps.windows(2).all(|pair| pair[0] != pair[1]));
        let times: Vec<u64> = stamps.into_iter().map(micros_of_uuid7).collect();
        assert!(
            times.iter().all(|time| (before.saturating_sub(2)..=after).contains(time)),
            "{before} {times:?} {after}"
        );
        assert!(times.iter().any(|time| time % 1000 != 0), "{times:?}");
    }

    #[test]
    fn entries_are_measured_until_they_are_acknowledged_and_the_memory_of_them_is_bounded() {
        let (stages, mut entries, now) = (Stages::default(), OnTheirWay::default(), Instant::now());
        let frames: Vec<Down> = (1..=200)
            .map(|seq| Down::Entry { connection: Default::default(), seq, again: false, payload: Default::default() })
            .collect();
        entries.out(&frames, 0, now, &stages);
        assert_eq!(stages.times().out, Snapshot::default(), "nobody knows when they were committed");
        entries.out(&frames, 1, now, &stages);
        assert_eq!(stages.times().out.buckets.iter().sum::<u64>(), 200);
        for seq in (1..=200).rev() {
            entries.acked(seq, now, &stages);
        }
        assert_eq!(stages.times().acked.buckets.iter().sum::<u64>(), REMEMBERED_MAX as u64);
        assert!(entries.0.is_none());
    }
}
