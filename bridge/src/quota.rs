//! How much may wait in an inbox. Positions are counted in entries (`seq`) and in bytes (`offset`), both rising for ever, so what a
//! device lags behind is a difference and nothing has to be counted again.
//!
//! - A message is refused when the recipient's *most current* device lags by a whole quota: one lagging device never makes senders fail.
//! - From half of it on, chats with much undelivered are refused, so that a flood leaves room for everybody else.
//! - A device that lags too far behind a more current one skips a quarter of it, and is told by a gap.
//! - What is not a message (receipts, failures, copies of own messages) is never refused: far above the quota the oldest entries go.

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{DeviceId, Seq, UserId};

use crate::change::{Change, Gap, Item, Row, Tick};
use crate::chat_key::ChatKey;
use crate::engine::Engine;
use crate::state::User;
use crate::stats::Counters;
use crate::store::loss::SEQ_JUMP;
use crate::store::{DeviceRow, Store, StoreError};

/// Messages that a chat may have undelivered while the inbox is more than half full.
const CHAT_UNDELIVERED_MAX: u64 = 1000;
/// Entries that go at a time when an inbox is far above its quota.
const CROWDED_STEP: usize = 64;

/// A quota, or what is used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Inbox entries.
    pub entries: u64,
    /// Their bytes: bodies, and [`Item::OVERHEAD_BYTES`] for each.
    pub bytes: u64,
}

impl Amount {
    /// Whether either part has reached `limit`'s.
    #[must_use]
    pub fn reaches(self, limit: Self) -> bool {
        self.entries >= limit.entries || self.bytes >= limit.bytes
    }

    fn half(self) -> Self {
        Self { entries: self.entries / 2, bytes: self.bytes / 2 }
    }

    fn double(self) -> Self {
        Self { entries: self.entries.saturating_mul(2), bytes: self.bytes.saturating_mul(2) }
    }
}

impl User {
    /// What lies between a device and the newest entry, whether meant for it or not.
    #[must_use]
    pub fn lag(&self, device: &DeviceRow) -> Amount {
        Amount {
            entries: entries_between(device.position().max(self.base.0), self.last_seq),
            bytes: self.last_offset.saturating_sub(device.offset.max(self.base.1)),
        }
    }

    /// What waits for the user: for the most current device, or with none, for the first one to come.
    #[must_use]
    pub fn waiting(&self) -> Amount {
        match self.most_current() {
            Some((_, device)) => self.lag(device),
            None => Amount {
                entries: entries_between(self.base.0, self.last_seq),
                bytes: self.last_offset.saturating_sub(self.base.1),
            },
        }
    }

    fn most_current(&self) -> Option<(&DeviceId, &DeviceRow)> {
        self.devices.iter().max_by_key(|(_, row)| row.position())
    }
}

/// Positions between two. What an accepted loss made them jump by does not count.
fn entries_between(from: Seq, to: Seq) -> u64 {
    to.saturating_sub(from) % SEQ_JUMP
}

impl<S: Store> Engine<S> {
    /// Whether `recipient`'s inbox takes one more message of `chat`.
    pub(crate) fn inbox_takes(
        &mut self,
        sender: &UserId,
        recipient: &UserId,
        chat: &ChatKey,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let quota = self.limits.inbox;
        let waiting = self.state.user(recipient)?.waiting();
        let chat_max = if waiting.reaches(quota) {
            0
        } else if waiting.reaches(quota.half()) {
            CHAT_UNDELIVERED_MAX
        } else {
            return Ok(Ok(()));
        };
        let known = self.state.chat(chat)?;
        // What is hidden from the recipient waits for nobody.
        let mark = known.mark(recipient, Tick::Delivered);
        let mark = known.hidden.get(recipient).map_or(mark, |hidden| hidden.waits_behind(mark));
        let mut undelivered = known.last_n.saturating_sub(mark);
        if chat_max > 0 && undelivered >= chat_max {
            // Of both sides: only the sender's count, but counting takes longer.
            undelivered = self.state.count_of(chat, sender, mark, CHAT_UNDELIVERED_MAX)?;
        }
        if undelivered < chat_max {
            return Ok(Ok(()));
        }
        Counters::add(&self.counters.quota);
        let details = format!(
            "to: expected fewer than {} entries and {} bytes waiting for {recipient} (from half of that on fewer than \
             {CHAT_UNDELIVERED_MAX} undelivered messages a chat), got {} entries, {} bytes and {undelivered}: send it again when a \
             device of {recipient} has been online",
            quota.entries, quota.bytes, waiting.entries, waiting.bytes
        );
        Ok(Err(Refusal::new(Kind::Quota, details)))
    }

    /// After a new entry: devices that lag too far behind skip some, and an inbox far above its quota loses its oldest.
    pub(crate) fn keep_lag_bounded(&mut self, user: &UserId) -> Result<(), StoreError> {
        let (lag_max, crowded) = (self.limits.device_lag, self.limits.inbox.double());
        let known = self.state.user(user)?;
        if known.waiting().reaches(crowded) {
            let floor = known.floor();
            let rows = self.state.page(user, floor, CROWDED_STEP)?;
            return self.drop_rows(user, rows, true);
        }
        let Some(newest) = known.most_current().map(|(_, row)| row.position()) else { return Ok(()) };
        let lagging = known.devices.iter().find(|(_, row)| row.position() < newest && known.lag(row).reaches(lag_max));
        let Some((device, row)) = lagging.map(|(device, row)| (device.clone(), row.clone())) else { return Ok(()) };
        self.skip(user, &device, row.position(), newest)
    }

    /// A device skips a quarter of what it lags behind, and is told what of that was meant for it. What the most current device has not
    /// had (behind `newest`) is not skipped: no message goes that no device of the user has.
    fn skip(&mut self, user: &UserId, device: &DeviceId, after: Seq, newest: Seq) -> Result<(), StoreError> {
        let rows = self.state.page(user, after, CROWDED_STEP)?;
        let silent = self.state.silent_rows(user, &rows, self.now.server_secs)?;
        let is_for_it = |seq: Seq, row: &Row| row.is_for(device) && !silent.contains(&seq);
        let others = rows.iter().take_while(|(seq, row)| !is_for_it(*seq, row) && *seq <= newest).last();
        if let Some((upto, row)) = others {
            // Copies of its own messages, say.
            let (upto, offset) = (*upto, row.offset);
            return self.pass_over(user, device, after, upto, offset);
        }
        let Some((first, _)) = rows.first() else { return Ok(()) };
        let lag = entries_between(*first, self.state.user(user)?.last_seq);
        let upto = (first + lag / 4).min(newest);
        let offset = match self.state.page(user, upto.saturating_sub(1), 1)?.first() {
            Some((seq, row)) if *seq == upto => row.offset,
            Some((_, later)) => later.offset.saturating_sub(later.item.bytes()),
            None => self.state.user(user)?.last_offset,
        };
        tracing::debug!(%user, %device, after, upto, "a device lags too far behind and skips entries");
        Counters::add_many(&self.counters.skipped, entries_between(after, upto));
        self.pass_over(user, device, after, upto, offset)?;
        // From the cursor on: a gap that it had not been told yet is skipped too.
        let cursor = self.state.user(user)?.devices.get(device).map_or(after, |row| row.cursor);
        let gap = Gap { from: cursor + 1, to: upto, lagged: true };
        self.put_notice(user, Some(device.clone()), None, Item::Gap(gap))?;
        Ok(())
    }

    /// A device will not get what lies behind `after` up to `upto`.
    pub(crate) fn pass_over(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        after: Seq,
        upto: Seq,
        offset: u64,
    ) -> Result<(), StoreError> {
        self.change(Change::Skipped { user: user.clone(), device: device.clone(), from: after, upto, offset })?;
        if let Some(reader) = self.readers.get_mut(user).and_then(|all| all.iter_mut().find(|r| r.device == *device)) {
            reader.next = reader.next.max(upto + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(cursor: Seq, skipped: Seq, offset: u64) -> DeviceRow {
        DeviceRow { cursor, skipped, offset, ..DeviceRow::default() }
    }

    #[test]
    fn what_waits_is_what_the_most_current_device_lags_behind() {
        let mut user = User::default();
        (user.last_seq, user.last_offset, user.base) = (100, 10_000, (10, 1_000));
        assert_eq!(user.waiting(), Amount { entries: 90, bytes: 9_000 });
        user.devices.insert(DeviceId::parse("tablet").unwrap(), device(20, 0, 2_000));
        assert_eq!(user.waiting(), Amount { entries: 80, bytes: 8_000 });
        user.devices.insert(DeviceId::parse("phone").unwrap(), device(95, 0, 9_500));
        assert_eq!(user.waiting(), Amount { entries: 5, bytes: 500 });
        assert_eq!(
            user.lag(&device(20, 60, 6_000)),
            Amount { entries: 40, bytes: 4_000 },
            "what it skipped is behind it"
        );
    }

    #[test]
    fn a_quota_is_reached_by_entries_or_by_bytes() {
        let quota = Amount { entries: 10, bytes: 1000 };
        assert!(!Amount { entries: 9, bytes: 999 }.reaches(quota));
        assert!(Amount { entries: 10, bytes: 0 }.reaches(quota) && Amount { entries: 0, bytes: 1000 }.reaches(quota));
    }
}
