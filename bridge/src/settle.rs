//! Settling: what the journal holds moves into tables, a slice at a time, in one transaction with the journal rows it covers.
//!
//! A slice covers whole journal rows from the oldest on, but writes what is true *now*: an entry that was delivered since is never
//! written at all. Applying is idempotent, so replaying later rows over these tables ends in the same state.
//!
//! What cursors passed is purged from the tables by the same slices, so many rows a slice. Ranges that wait are not stored: after a
//! crash they are found again, since an inbox whose oldest row is dead is one that was being purged ([`State::user`]).
//!
//! A journal row with more places than a slice takes, as a status for thousands makes one, is settled a part of its places at a time, in order.
//! It stays in the journal until its last slice, which writes everything else of it: replayed over tables that have some of its places, it
//! gives none of them again, since an inbox knows up to where it is settled.

mod touched;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use natter_protocol::planted::{self, Bug};
use natter_protocol::{MediaId, Seq, UserId};

use self::touched::{Touched, places_of};
use crate::change::{Change, Item};
use crate::media::row::MediaGrant;
use crate::state::{State, granted};
use crate::store::{Settlement, Store, StoreError};

/// Most changes of a slice, unless one journal row alone holds more: what keeps the loop waiting for a few milliseconds at most.
pub(crate) const SLICE_CHANGES_MAX: usize = 192;
/// Most changes of a slice when the journal holds too much: many of them touch the same pages, so a greater slice is less work a change.
pub(crate) const SLICE_CHANGES_FULL_MAX: usize = 2048;
/// Places of one journal row that a slice takes: more than an ordinary batch has, and a few milliseconds of work.
pub(crate) const SLICE_PLACES_MAX: usize = 512;
/// Inbox rows that a slice looks at to purge them; the rest waits for the next slice.
pub(crate) const PURGE_ROWS_MAX: usize = 2 * SLICE_CHANGES_MAX;

/// Inbox ranges that cursors passed: what the tables hold of them may be dead. Per user a few, since touching ones are joined.
#[derive(Debug, Default)]
pub(crate) struct Purge {
    ranges: BTreeMap<UserId, Vec<(Seq, Seq)>>,
}

impl Purge {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Rows behind `after` up to `upto` are to be looked at.
    pub(crate) fn add(&mut self, user: &UserId, mut after: Seq, mut upto: Seq) {
        if after >= upto {
            return;
        }
        if !self.ranges.contains_key(user) {
            self.ranges.insert(user.clone(), Vec::new());
        }
        let Some(ranges) = self.ranges.get_mut(user) else { return };
        ranges.retain(|(from, to)| {
            let touches = *from <= upto && after <= *to;
            if touches {
                (after, upto) = (after.min(*from), upto.max(*to));
            }
            !touches
        });
        ranges.push((after, upto));
    }

    fn take(&mut self) -> Option<(UserId, Seq, Seq)> {
        let mut first = self.ranges.first_entry()?;
        let user = first.key().clone();
        let range = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        range.map(|(after, upto)| (user, after, upto))
    }
}

/// What a change counts for in a slice. One that drops many rows, or gives many, is as much work as they are.
fn weight(change: &Change) -> usize {
    match change {
        Change::Dropped { .. } => crate::expiry::ROWS_A_STEP,
        Change::Message { places, .. } => places.len().max(1),
        Change::StatusGone { places, .. } => places.len().max(1),
        Change::Privacy { rule, .. } => rule.users.len().max(1),
        _ => 1,
    }
}

/// What a journal row counts for.
pub(crate) fn weight_of(changes: &[Change]) -> usize {
    changes.iter().map(weight).sum()
}

impl<S: Store> State<S> {
    /// Settles the oldest journal rows, at most `rows_max` of them and about `changes_max` changes, and purges at most
    /// `PURGE_ROWS_MAX` inbox rows; `false`: there was nothing to do.
    ///
    /// # Errors
    /// Nothing was settled; the journal still has everything.
    pub fn settle_slice(
        &mut self,
        log: u8,
        server_secs: u64,
        rows_max: usize,
        changes_max: usize,
    ) -> Result<bool, StoreError> {
        let part = if rows_max > 0 { self.part(changes_max.max(SLICE_PLACES_MAX)) } else { None };
        let mut count = 0;
        let rows = self
            .journal
            .iter()
            .take(if part.is_some() { 1 } else { rows_max })
            .take_while(|(_, changes)| {
                let first = count == 0;
                count += weight_of(changes).max(1);
                first || count <= changes_max
            })
            .count();
        if rows == 0 && self.purge.is_empty() {
            return Ok(false);
        }
        let slice: Vec<(u64, Vec<Change>)> = self.journal.drain(..rows).collect();
        let upto = match (&part, slice.last()) {
            (None, Some((no, _))) => *no,
            _ => self.settled_no,
        };
        let mut purged = Vec::new();
        let result = self.settlement(&slice, part.as_ref(), server_secs, upto, &mut purged).and_then(|settlement| {
            self.store.settle(log, &settlement)?;
            Ok(settlement)
        });
        match result {
            Ok(settlement) => {
                if let Some(part) = part {
                    self.settled_places = part.end;
                    self.settled(&[], &settlement)?;
                    self.journal.extend(slice);
                    self.journal.rotate_right(1);
                } else {
                    self.settled_places = 0;
                    self.settled_no = upto;
                    self.settled(&slice, &settlement)?;
                }
                Ok(true)
            }
            Err(error) => {
                for row in slice.into_iter().rev() {
                    self.journal.push_front(row);
                }
                for (user, after, upto) in purged {
                    self.purge.add(&user, after, upto);
                }
                Err(error)
            }
        }
    }

    /// The places of the oldest journal row that this slice settles, if the row has more than a slice takes.
    fn part(&self, places_max: usize) -> Option<Range<usize>> {
        let (_, changes) = self.journal.front()?;
        let all: usize = changes.iter().map(places_of).sum();
        let from = self.settled_places;
        (all - from > places_max).then(|| from..from + places_max)
    }

    /// The rows of a slice, or of a part of the places of its only journal row.
    fn settlement(
        &mut self,
        slice: &[(u64, Vec<Change>)],
        part: Option<&Range<usize>>,
        server_secs: u64,
        upto: u64,
        purged: &mut Vec<(UserId, Seq, Seq)>,
    ) -> Result<Settlement, StoreError> {
        let mut touched = Touched::default();
        let mut settlement = Settlement { server_secs, upto, ..Settlement::default() };
        // Places that earlier slices have settled, of the first journal row.
        let mut behind = self.settled_places;
        let mut left = part.map_or(usize::MAX, Range::len);
        for change in slice.iter().flat_map(|(_, changes)| changes) {
            let places = places_of(change);
            let from = behind.min(places);
            let upto = places.min(from.saturating_add(left));
            behind -= from;
            left -= upto - from;
            touched.add_places(change, from..upto);
            if let Change::StatusGone { places, .. } = change {
                settlement.gone.extend_from_slice(&places[from..upto]);
            }
            if part.is_some() {
                continue;
            }
            touched.add(change);
            match change {
                Change::Revoked(revoked) => settlement.revoked.push(revoked.clone()),
                Change::Kept { user, message, until } => {
                    settlement.messages.push(std::sync::Arc::clone(message));
                    settlement.kept.push((user.clone(), std::sync::Arc::clone(message), *until));
                }
                Change::Message { message, grant, places, .. } if !message.chat.is_status() => {
                    if let Some(media) = granted(grant.as_deref()) {
                        if message.chat.is_group() {
                            settlement.media_groups.push((media, message.chat.clone(), message.n));
                            continue;
                        }
                        let users = places.iter().map(|place| place.user.clone());
                        self.grant(&media, users, &mut settlement.grants)?;
                    }
                }
                _ => {}
            }
        }
        for (id, seq) in &touched.rows {
            if let Some(row) = self.user(id)?.rows.get(seq) {
                if let Item::Message(message) = &row.item
                    && !settlement.messages.iter().rev().take(16).any(|known| std::sync::Arc::ptr_eq(known, message))
                {
                    settlement.messages.push(std::sync::Arc::clone(message));
                }
                settlement.inbox.push(((*id).clone(), *seq, row.clone()));
            }
        }
        for (user, contact) in &touched.contacts {
            let known = self.contact(user, contact)?;
            settlement.contacts.push(((*user).clone(), (*contact).clone(), known));
        }
        for (user, other) in &touched.blocks {
            let since = match self.blocks.get(&((*user).clone(), (*other).clone())) {
                Some(since) => *since,
                None => self.store.block(user, other)?,
            };
            settlement.blocks.push(((*user).clone(), (*other).clone(), since));
        }
        for user in &touched.last_seen {
            if let Some(at) = self.last_seen(user)? {
                settlement.last_seen.push(((*user).clone(), at));
            }
        }
        for (user, aspect) in &touched.privacy {
            settlement.privacy.push(((*user).clone(), *aspect, self.rule(user, *aspect)?));
        }
        for (chat, member) in &touched.hidden {
            let hidden = self.chat(chat)?.hidden.get(*member).cloned().unwrap_or_default();
            settlement.hidden.push(((*chat).clone(), (*member).clone(), hidden));
        }
        for (chat, member) in &touched.unheard {
            let oldest = self.unheard(chat, member)?;
            settlement.unheard.push(((*chat).clone(), (*member).clone(), oldest));
        }
        for chat in &touched.groups {
            settlement.groups.push(((*chat).clone(), self.chat(chat)?.group.clone()));
        }
        for (chat, n) in &touched.redacted {
            if let Some(redacted) = self.chat(chat)?.redacted.get(*n) {
                settlement.redacted.push(((*chat).clone(), *n, redacted));
            }
        }
        for (chat, n) in &touched.statuses {
            let status = self.status(chat, *n)?;
            if let Some(status) = &status {
                settlement.messages.push(std::sync::Arc::clone(&status.message));
            }
            settlement.statuses.push(((*chat).clone(), *n, status));
        }
        for (id, after, upto) in touched.passed {
            self.purge.add(id, after, upto);
        }
        self.dead_rows(&mut settlement, purged)?;
        for id in &touched.users {
            let newest = touched.rows.range((*id, 0)..=(*id, Seq::MAX)).next_back().map_or(0, |(_, seq)| *seq);
            let user = self.user(id)?;
            let row = crate::store::UserRow {
                last_seq: user.last_seq,
                settled_seq: user.settled_seq.max(newest),
                last_offset: user.last_offset,
            };
            settlement.users.push(((*id).clone(), row));
        }
        for (id, device) in touched.devices.iter().filter(|_| !planted::has(Bug::SettlingForgetsDevice)) {
            let row = self.user(id)?.devices.get(*device).cloned();
            settlement.devices.push(((*id).clone(), (*device).clone(), row));
        }
        for key in &touched.chats {
            let last_n = self.chat(key)?.last_n;
            settlement.chats.push(((*key).clone(), last_n));
        }
        for (key, member) in &touched.members {
            let row = self.chat(key)?.members.get(*member).copied().unwrap_or_default();
            settlement.members.push(((*key).clone(), (*member).clone(), row));
        }
        for (id, sender) in &touched.accepted {
            if let Some(accepted) = self.accepted(id, sender)? {
                settlement.accepted.push(((*id).clone(), (*sender).clone(), accepted));
            }
        }
        for (user, client_id) in &touched.sessions {
            let session = self.session(user, client_id)?;
            settlement.sessions.push(((*user).clone(), (*client_id).to_owned(), session));
        }
        for id in touched.accounts {
            settlement.accounts.push((id.clone(), self.account(id)?));
        }
        for (id, device) in touched.webhooks {
            let webhook = self.webhooks.get(&(id.clone(), device.clone())).cloned();
            settlement.webhooks.push((id.clone(), device.clone(), webhook));
        }
        for id in &touched.media {
            let file = self.media(id)?;
            if let Some(file) = &file {
                self.grant(id, std::iter::once(file.owner.clone()), &mut settlement.grants)?;
            }
            settlement.media.push(((*id).clone(), file));
        }
        settlement.dropped = touched.dropped.iter().map(|(user, upto)| ((*user).clone(), *upto)).collect();
        Ok(settlement)
    }

    /// Rows of those who may read a file, if it is still there.
    fn grant(
        &mut self,
        id: &MediaId,
        users: impl Iterator<Item = UserId>,
        out: &mut Vec<MediaGrant>,
    ) -> Result<(), StoreError> {
        if let Some(file) = self.media(id)? {
            out.extend(users.map(|user| MediaGrant {
                media: id.clone(),
                user,
                name: file.name.clone(),
                made_at: file.made_at,
            }));
        }
        Ok(())
    }

    /// What of the ranges that wait is dead, as far as a slice goes. What it looked at goes to `purged`.
    fn dead_rows(&mut self, out: &mut Settlement, purged: &mut Vec<(UserId, Seq, Seq)>) -> Result<(), StoreError> {
        let mut budget = PURGE_ROWS_MAX;
        while budget > 0
            && let Some((id, after, upto)) = self.purge.take()
        {
            purged.push((id.clone(), after, upto));
            let user = self.user(&id)?;
            let upto = upto.min(user.settled_seq);
            if !user.stored || after >= upto {
                continue;
            }
            let places = self.store.inbox_places(&id, after, upto, budget)?;
            if places.len() == budget
                && let Some(last) = places.last()
            {
                self.purge.add(&id, last.seq, upto);
            }
            budget -= places.len();
            let user = self.user(&id)?;
            for place in places {
                if user.is_dead(place.seq, place.only.as_ref(), place.except.as_ref()) {
                    out.gone.push((id.clone(), place.seq));
                }
            }
        }
        Ok(())
    }

    fn settled(&mut self, slice: &[(u64, Vec<Change>)], settlement: &Settlement) -> Result<(), StoreError> {
        for (id, row) in &settlement.users {
            if let Some(user) = self.user_in_memory_mut(id) {
                user.settled_seq = row.settled_seq;
                user.rows = user.rows.split_off(&(row.settled_seq + 1));
            }
        }
        for (id, _, _) in &settlement.inbox {
            if let Some(user) = self.user_in_memory_mut(id) {
                user.stored = true;
            }
        }
        let thinned: BTreeSet<&UserId> =
            settlement.gone.iter().map(|(id, _)| id).chain(settlement.dropped.iter().map(|(id, _)| id)).collect();
        for id in thinned {
            let stored = !self.store.inbox_places(id, 0, Seq::MAX >> 1, 1)?.is_empty();
            if let Some(user) = self.user_in_memory_mut(id) {
                user.stored = stored;
            }
        }
        for change in slice.iter().flat_map(|(_, changes)| changes) {
            self.unpin(change);
        }
        Ok(())
    }
}
