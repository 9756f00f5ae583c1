//! Settling: what the journal holds moves into tables, a slice at a time, in one transaction with the journal rows it covers.
//!
//! A slice covers whole journal rows from the oldest on, but writes what is true *now*: an entry that was delivered since is never
//! written at all. Applying is idempotent, so replaying later rows over these tables ends in the same state.

use std::collections::{BTreeMap, BTreeSet};

use natter_protocol::{DeviceId, MessageId, Seq, UserId};

use crate::change::{Change, Item};
use crate::chat_key::ChatKey;
use crate::state::State;
use crate::store::{Settlement, Store, StoreError};

/// Most changes of a slice, unless one journal row alone holds more: what keeps the loop waiting for a few milliseconds at most.
pub(crate) const SLICE_CHANGES_MAX: usize = 1024;
/// Rows of a slice's inbox scan; a cursor that passed more is scanned to the end all the same, page by page.
const SCAN_ROWS: usize = 1024;

#[derive(Default)]
struct Touched<'a> {
    users: BTreeSet<&'a UserId>,
    devices: BTreeSet<(&'a UserId, &'a DeviceId)>,
    chats: BTreeSet<&'a ChatKey>,
    members: BTreeSet<(&'a ChatKey, &'a UserId)>,
    rows: BTreeSet<(&'a UserId, Seq)>,
    sessions: BTreeSet<(&'a UserId, &'a str)>,
    accepted: Vec<(&'a MessageId, &'a UserId)>,
    /// Inbox ranges that a cursor passed: what the tables hold of them may be dead.
    passed: BTreeMap<&'a UserId, (Seq, Seq)>,
    dropped: BTreeMap<&'a UserId, Seq>,
}

impl<'a> Touched<'a> {
    fn add(&mut self, change: &'a Change) {
        match change {
            Change::User { user } => {
                self.users.insert(user);
            }
            Change::Device { user, device, .. } | Change::DeviceSeen { user, device, .. } => {
                self.devices.insert((user, device));
            }
            Change::DeviceGone { user, device, cursor } => {
                self.devices.insert((user, device));
                self.pass(user, *cursor, Seq::MAX >> 1);
            }
            Change::Message { message, places, .. } => {
                self.chats.insert(&message.chat);
                self.accepted.push((&message.id, &message.from));
                for place in places {
                    self.users.insert(&place.user);
                    self.rows.insert((&place.user, place.seq));
                }
            }
            Change::Notice { user, seq, .. } => {
                self.users.insert(user);
                self.rows.insert((user, *seq));
            }
            // The receipt it speaks of was settled with its own row, or is still to come with it.
            Change::Merged { .. } => {}
            Change::Cursor { user, device, from, upto } => {
                self.devices.insert((user, device));
                self.pass(user, *from, *upto);
            }
            Change::Mark { chat, member, .. } => {
                self.chats.insert(chat);
                self.members.insert((chat, member));
            }
            Change::Dropped { user, upto } => {
                let dropped = self.dropped.entry(user).or_default();
                *dropped = (*dropped).max(*upto);
            }
            Change::Session { user, client_id, .. } | Change::SessionGone { user, client_id } => {
                self.sessions.insert((user, client_id));
            }
            Change::Revoked(_) => {}
        }
    }

    fn pass(&mut self, user: &'a UserId, from: Seq, upto: Seq) {
        let range = self.passed.entry(user).or_insert((from, upto));
        *range = (range.0.min(from), range.1.max(upto));
    }
}

impl<S: Store> State<S> {
    /// Settles the oldest journal rows, at most 1,024 changes; `false`: there is nothing to settle.
    ///
    /// # Errors
    /// Nothing was settled; the journal still has everything.
    pub fn settle_slice(&mut self, log: u8, server_secs: u64) -> Result<bool, StoreError> {
        let mut count = 0;
        let rows = self
            .journal
            .iter()
            .take_while(|(_, changes)| {
                let first = count == 0;
                count += changes.len().max(1);
                first || count <= SLICE_CHANGES_MAX
            })
            .count();
        if rows == 0 {
            return Ok(false);
        }
        let slice: Vec<(u64, Vec<Change>)> = self.journal.drain(..rows).collect();
        let upto = slice.last().map_or(0, |(no, _)| *no);
        let result = self.settlement(&slice, server_secs, upto).and_then(|settlement| {
            self.store.settle(log, &settlement)?;
            Ok(settlement)
        });
        match result {
            Ok(settlement) => {
                self.settled(&slice, &settlement)?;
                Ok(true)
            }
            Err(error) => {
                for row in slice.into_iter().rev() {
                    self.journal.push_front(row);
                }
                Err(error)
            }
        }
    }

    fn settlement(
        &mut self,
        slice: &[(u64, Vec<Change>)],
        server_secs: u64,
        upto: u64,
    ) -> Result<Settlement, StoreError> {
        let mut touched = Touched::default();
        let mut settlement = Settlement { server_secs, upto, ..Settlement::default() };
        for change in slice.iter().flat_map(|(_, changes)| changes) {
            touched.add(change);
            match change {
                Change::Revoked(revoked) => settlement.revoked.push(revoked.clone()),
                Change::Message { grant: Some(media), places, .. } => {
                    settlement.grants.extend(places.iter().map(|place| (media.clone(), place.user.clone())));
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
        for (id, (from, passed)) in &touched.passed {
            self.dead_rows(id, *from, *passed, &mut settlement)?;
        }
        for id in &touched.users {
            let newest = touched.rows.range((*id, 0)..=(*id, Seq::MAX)).next_back().map_or(0, |(_, seq)| *seq);
            let user = self.user(id)?;
            let row = crate::store::UserRow { last_seq: user.last_seq, settled_seq: user.settled_seq.max(newest) };
            settlement.users.push(((*id).clone(), row));
        }
        for (id, device) in &touched.devices {
            let row = self.user(id)?.devices.get(*device).copied();
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
        settlement.dropped = touched.dropped.iter().map(|(user, upto)| ((*user).clone(), *upto)).collect();
        Ok(settlement)
    }

    fn dead_rows(&mut self, id: &UserId, from: Seq, upto: Seq, out: &mut Settlement) -> Result<(), StoreError> {
        let user = self.user(id)?;
        let upto = upto.min(user.settled_seq);
        let mut after = from;
        while self.user(id)?.stored && after < upto {
            let places = self.store.inbox_places(id, after, upto, SCAN_ROWS)?;
            let Some(last) = places.last() else { break };
            after = last.seq;
            let user = self.user(id)?;
            for place in &places {
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
