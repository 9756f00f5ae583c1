//! Marks of a group's members, and what follows from those that a batch has moved: entries for the senders, once a batch and group.

use std::collections::BTreeMap;

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{DeviceId, GroupId, N, Seq, UserId};

use super::ticks::{self, Marks, RISEN_MAX, Run, Sent, Standing};
use super::{MemberTicks, Told};
use crate::change::{Change, GroupReceipt, Item, Tick};
use crate::chat_key::ChatKey;
use crate::engine::Engine;
use crate::sender::Ruling;
use crate::state::{Conversation, State};
use crate::store::{MemberRow, Store, StoreError};

/// Entries at the end of a sender's inbox, sent to nobody, among which one that says less is looked for.
pub const UNSENT_MAX: usize = 8;
/// Messages before a read mark among which the newest of somebody else is looked for.
const OTHERS_MAX: usize = 64;

/// Whose marks a batch has moved, by group, as they were before it; `None`: he was not in the group.
#[derive(Debug, Default)]
pub(crate) struct Moved(BTreeMap<ChatKey, BTreeMap<UserId, Option<Marks>>>);

impl Moved {
    /// A batch that is given up has moved nothing.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl From<&MemberRow> for Marks {
    fn from(row: &MemberRow) -> Self {
        Self { delivered_n: row.delivered_n, read_n: row.read_n }
    }
}

impl<S: Store> Engine<S> {
    /// Notes where a member stands, before his marks move or he goes: the commit tells what came of it.
    pub(crate) fn member_moves(&mut self, chat: &ChatKey, member: &UserId) -> Result<(), StoreError> {
        let marks = self.state.chat(chat)?.members.get(member).filter(|row| row.left_n.is_none()).map(Marks::from);
        self.moved.0.entry(chat.clone()).or_default().entry(member.clone()).or_insert(marks);
        Ok(())
    }

    /// Raises a mark. That of one who is not in the group does not rise.
    pub(crate) fn raise_in_group(
        &mut self,
        chat: &ChatKey,
        member: &UserId,
        tick: Tick,
        n: N,
    ) -> Result<(), StoreError> {
        let known = self.state.chat(chat)?;
        let is_in = known.members.get(member).is_some_and(|row| row.left_n.is_none());
        if !is_in || known.mark(member, tick) >= n {
            return Ok(());
        }
        self.member_moves(chat, member)?;
        self.change(Change::Mark { chat: chat.clone(), member: member.clone(), tick, n })
    }

    /// A member has read everything up to `n`; his other devices hear of it.
    pub(crate) fn read_in_group(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        chat: &ChatKey,
        n: N,
    ) -> Result<(), StoreError> {
        let before = self.state.chat(chat)?.mark(user, Tick::Read);
        // `read` implies `delivered`: a later acknowledgement says nothing new.
        self.raise_in_group(chat, user, Tick::Delivered, n)?;
        self.raise_in_group(chat, user, Tick::Read, n)?;
        if self.state.chat(chat)?.mark(user, Tick::Read) <= before {
            return Ok(());
        }
        if self.state.user(user)?.devices.keys().all(|known| known == device) {
            return Ok(());
        }
        let sent = self.state.sent(chat, before, n, OTHERS_MAX)?;
        if let Some(newest) = sent.iter().rev().find(|sent| sent.from != *user) {
            self.receipt(user, Some(device), Tick::Read, chat, (before, newest.n), &newest.id, user)?;
        }
        Ok(())
    }

    /// What a read mark in a group means. Who is not in it learns nothing, not even that it is there.
    pub(crate) fn group_place(&mut self, user: &UserId, chat: &ChatKey, n: N) -> Ruling<()> {
        let known = self.state.chat(chat)?;
        if known.members.get(user).is_none_or(|row| row.left_n.is_some()) {
            let details = format!("chat: expected a group that you are a member of, got {}", chat.as_str());
            return Ok(Err(Refusal::new(Kind::UnknownRecipient, details)));
        }
        if n > known.last_n {
            let details = format!("n: expected at most {}, the newest of the chat, got {n}", known.last_n);
            return Ok(Err(Refusal::new(Kind::InvalidValue, details)));
        }
        Ok(Ok(()))
    }

    /// Whether a message of a group is one that a member has received.
    pub(crate) fn has_received(
        &mut self,
        user: &UserId,
        chat: &ChatKey,
        from: &UserId,
        n: N,
    ) -> Result<bool, StoreError> {
        let known = self.state.chat(chat)?;
        let row = known.members.get(user).filter(|row| row.left_n.is_none() && row.joined_n < n);
        Ok(row.is_some() && from != user && !known.is_hidden(user, n))
    }

    /// Tells senders what the batch has moved: each group is gone through once.
    pub(crate) fn tell_moved(&mut self) -> Result<(), StoreError> {
        for (chat, moved) in std::mem::take(&mut self.moved.0) {
            let known = self.state.chat(&chat)?;
            let last_n = known.last_n;
            let Some((after, upto)) = ticks::range(&standings(known, &moved), last_n) else { continue };
            let messages = self.state.sent(&chat, after, upto, RISEN_MAX)?;
            let known = self.state.chat(&chat)?;
            let told = ticks::told(&standings(known, &moved), &messages);
            let is_in = |user: &UserId| known.members.get(user).is_some_and(|row| row.left_n.is_none());
            let told: Vec<Run<'_>> = told.into_iter().filter(|run| is_in(run.to)).collect();
            for Run { to, tick, after, n, id, counts } in told {
                let receipt = GroupReceipt {
                    kind: tick,
                    chat: chat.clone(),
                    after,
                    n,
                    id: id.clone(),
                    delivered_to: counts.delivered_to,
                    read_by: counts.read_by,
                    of: counts.of,
                    timestamp: self.now.unix_secs,
                };
                self.group_receipt(to, receipt)?;
            }
        }
        Ok(())
    }

    /// Puts counts into a sender's inbox, or into the place of those that lie there unsent and that they make void.
    fn group_receipt(&mut self, to: &UserId, mut receipt: GroupReceipt) -> Result<(), StoreError> {
        let user = self.state.user(to)?;
        if let Some((seq, kind)) = voided(user.rows.range(user.pushed + 1..).rev(), user.last_seq, &receipt) {
            receipt.kind = receipt.kind.max(kind);
            self.hungry.insert(to.clone());
            return self.change(Change::Counted { user: to.clone(), seq, receipt: Box::new(receipt) });
        }
        self.notice(to, None, None, Item::GroupReceipt(Box::new(receipt)))
    }

    /// Who has had and who has read a message: for its sender, as long as he is in the group.
    pub(crate) fn group_receipts(&mut self, asker: &UserId, group: &GroupId, n: N) -> Result<Told, StoreError> {
        let chat = ChatKey::new(asker, &natter_protocol::Chat::Group(group.clone()));
        let is_own = n > 0 && self.state.sent(&chat, n - 1, n, 1)?.iter().any(|sent| sent.from == *asker);
        let known = self.state.chat(&chat)?;
        if !is_own || known.members.get(asker).is_none_or(|row| row.left_n.is_some()) {
            return Ok(Told::NotFound);
        }
        let all = standings(known, &BTreeMap::new());
        let others = all.iter().filter(|standing| standing.user != asker && standing.may_have(n));
        let ticks = others.filter_map(|standing| {
            let Marks { delivered_n, read_n } = standing.after?;
            Some(MemberTicks { user: standing.user.clone(), delivered: delivered_n >= n, read: read_n >= n })
        });
        Ok(Told::Receipts(ticks.collect()))
    }
}

/// Of unsent rows, newest first: the place of counts that say less than `receipt` and that nothing between speaks against.
fn voided<'a>(
    rows: impl Iterator<Item = (&'a Seq, &'a crate::change::Row)>,
    last_seq: Seq,
    receipt: &GroupReceipt,
) -> Option<(Seq, Tick)> {
    for ((seq, row), expected) in rows.zip((0..=last_seq).rev()).take(UNSENT_MAX) {
        let Item::GroupReceipt(unsent) = &row.item else { return None };
        if *seq != expected || unsent.chat != receipt.chat {
            return None;
        }
        if receipt.after <= unsent.after && unsent.n <= receipt.n {
            return Some((*seq, unsent.kind));
        }
        if receipt.after < unsent.n && unsent.after < receipt.n {
            // They speak of the same message: the later one counts.
            return None;
        }
    }
    None
}

/// All who are in a group or were before the batch, with their marks before and after it.
fn standings<'a>(known: &'a Conversation, moved: &BTreeMap<UserId, Option<Marks>>) -> Vec<Standing<'a>> {
    let mut moved = moved.iter().peekable();
    let mut all = Vec::with_capacity(known.members.len());
    for (user, row) in &known.members {
        // Both are in order of names.
        while moved.next_if(|(name, _)| *name < user).is_some() {}
        let after = row.left_n.is_none().then(|| Marks::from(row));
        let before = moved.next_if(|(name, _)| *name == user).map_or(after, |(_, before)| *before);
        if before.is_some() || after.is_some() {
            all.push(Standing { user, joined_n: row.joined_n, hidden: known.hidden.get(user), before, after });
        }
    }
    all
}

impl<S: Store> State<S> {
    /// The newest messages of a conversation with `after < n <= upto`, at most `limit`, in order of numbers.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sent(&mut self, key: &ChatKey, after: N, upto: N, limit: usize) -> Result<Vec<Sent>, StoreError> {
        if upto <= after {
            return Ok(Vec::new());
        }
        let recent = self.chat(key)?.recent.range(after + 1..=upto).rev().take(limit);
        let recent = recent.map(|(n, (from, id))| (*n, Sent { n: *n, from: from.clone(), id: id.clone() }));
        let mut all: BTreeMap<N, Sent> = recent.collect();
        if all.len() < limit && all.keys().next().is_none_or(|oldest| *oldest > after + 1) {
            for (n, from, id) in self.store.sent(key, after, upto, limit)? {
                all.entry(n).or_insert(Sent { n, from, id });
            }
        }
        let beyond = all.len().saturating_sub(limit);
        Ok(all.into_values().skip(beyond).collect())
    }
}
