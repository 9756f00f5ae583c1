//! What time takes away: entries that nobody took, and the memory of repeats. A little at a time, between batches.

use std::collections::BTreeMap;

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{MessageId, N, Seq, UserId};

use crate::change::{Change, Failed, Gap, Item, Message, Row, Tick};
use crate::chat_key::ChatKey;
use crate::engine::Engine;
use crate::stats::Counters;
use crate::store::{Store, StoreError};

/// Inboxes looked at in one step of the sweep.
const USERS_A_STEP: usize = 50;
/// Entries that expire in one step.
pub(crate) const ROWS_A_STEP: usize = 500;
/// Dedupe rows looked at in one step.
const ACCEPTED_A_STEP: usize = 500;

/// Where the sweep stands.
#[derive(Debug, Default)]
pub struct Sweep {
    user: Option<UserId>,
    accepted: Option<(MessageId, UserId)>,
}

impl<S: Store> Engine<S> {
    /// One step around the store: the next inboxes, the next dedupe rows. Changes join the batch. `true`: there was more to drop than a
    /// step takes, and the next one should come soon.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sweep(&mut self, now: crate::engine::Now) -> Result<bool, StoreError> {
        self.now = now;
        if self.sweep_statuses()? || self.sweep_unheard()? {
            return Ok(true);
        }
        let oldest = self.state.store.oldest_rows(self.sweep.user.as_ref(), USERS_A_STEP)?;
        let is_round_over = oldest.len() < USERS_A_STEP;
        let before = now.server_secs.saturating_sub(self.limits.entry_ttl_secs);
        let mut rows_left = ROWS_A_STEP;
        for (user, at) in oldest {
            if rows_left == 0 {
                return Ok(true);
            }
            if at < before {
                rows_left -= self.expire(&user, before, rows_left)?;
            }
            // With no rows left the same inbox is looked at again: it may have more.
            if rows_left > 0 {
                self.sweep.user = Some(user);
            }
        }
        if rows_left == 0 {
            return Ok(true);
        }
        if is_round_over {
            self.sweep.user = None;
        }
        self.sweep.accepted =
            self.state.store.sweep_accepted(self.sweep.accepted.take(), ACCEPTED_A_STEP, now.server_secs)?;
        self.state.store.sweep_kept(ROWS_A_STEP, now.server_secs)?;
        self.state.store.sweep_redacted(ROWS_A_STEP, now.server_secs)?;
        Ok(false)
    }

    /// Drops the entries of an inbox that were made before `before`, at most `limit`; how many.
    fn expire(&mut self, user: &UserId, before: u64, limit: usize) -> Result<usize, StoreError> {
        let floor = self.state.user(user)?.floor();
        let mut rows = self.state.page(user, floor, limit)?;
        let over = rows.iter().take_while(|(_, row)| row.at < before).count();
        rows.truncate(over);
        self.drop_rows(user, rows, false)?;
        Ok(over)
    }

    /// Drops the oldest rows of an inbox: devices that had not got them are told by a gap, senders by `failed` if no device had.
    pub(crate) fn drop_rows(&mut self, user: &UserId, rows: Vec<(Seq, Row)>, lagged: bool) -> Result<(), StoreError> {
        let (Some((first, _)), Some((upto, last))) = (rows.first(), rows.last()) else { return Ok(()) };
        let (first, upto, offset) = (*first, *upto, last.offset);
        let silent = self.state.silent_rows(user, &rows, self.now.server_secs)?;
        let mut gaps: BTreeMap<natter_protocol::DeviceId, (Seq, Seq)> = BTreeMap::new();
        for (device, known) in &self.state.user(user)?.devices {
            let is_missed =
                |seq: Seq, row: &Row| seq > known.position() && row.is_for(device) && !silent.contains(&seq);
            for (seq, row) in rows.iter().filter(|(seq, row)| is_missed(*seq, row)) {
                // A gap that goes untold takes what it tells of along.
                let from = if let Item::Gap(gap) = &row.item { gap.from.min(*seq) } else { *seq };
                let gap = gaps.entry(device.clone()).or_insert((from, *seq));
                *gap = (gap.0.min(from), gap.1.max(*seq));
            }
        }
        self.change(Change::Dropped { user: user.clone(), upto, offset })?;
        Counters::add_many(&self.counters.expired, rows.len() as u64);
        tracing::debug!(%user, first, upto, lagged, "entries dropped");
        for (device, (from, to)) in gaps {
            self.put_notice(user, Some(device), None, Item::Gap(Gap { from, to, lagged }))?;
        }
        for (_, row) in rows.into_iter().filter(|(seq, _)| !silent.contains(seq)) {
            if let Item::Message(message) = row.item {
                self.tell_expired(user, &message, lagged)?;
            }
        }
        Ok(())
    }

    fn tell_expired(&mut self, user: &UserId, message: &Message, lagged: bool) -> Result<(), StoreError> {
        // A status that does not arrive does not: that is what it is. Of a group the counts tell.
        let is_told = message.from != *user && !message.chat.is_status() && !message.chat.is_group();
        if !is_told || self.state.chat(&message.chat)?.mark(user, Tick::Delivered) >= message.n {
            return Ok(());
        }
        self.tell_undelivered(&message.from, user, &message.chat, (message.n, &message.id), lagged)
    }

    /// `failed`, for the sender of a message that no device of `member` has had.
    pub(crate) fn tell_undelivered(
        &mut self,
        sender: &UserId,
        member: &UserId,
        chat: &ChatKey,
        (n, id): (N, &MessageId),
        lagged: bool,
    ) -> Result<(), StoreError> {
        let days = self.limits.entry_ttl_secs / 86_400;
        let details = if lagged {
            format!("expected a device of {member} before too much else had come, got none")
        } else {
            format!("expected a device of {member} within {days} days, got none")
        };
        let refusal = Refusal::new(Kind::Expired, details);
        let at = Some((chat.clone(), n, member.clone(), self.now.unix_secs));
        let failed = Failed { at, ..Failed::refused(Some(id.clone()), &refusal) };
        // Dropping for want of room must not make more work of its kind, or two crowded inboxes would toss it to each other.
        if lagged {
            self.put_notice(sender, None, None, Item::Failed(failed))?;
        } else {
            self.notice(sender, None, None, Item::Failed(failed))?;
        }
        Ok(())
    }
}
