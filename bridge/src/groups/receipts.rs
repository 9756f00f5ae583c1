//! Entries for the senders of a group's messages: what a batch has moved of its members' marks, told once a batch and group.

use std::collections::BTreeMap;

use natter_protocol::{Seq, UserId};

use super::marks::Risen;
use super::ticks::{self, Marks, RISEN_MAX, Run, Sent, Standing};
use crate::change::{Change, GroupReceipt, Item, Row, Tick};
use crate::engine::Engine;
use crate::state::Conversation;
use crate::store::{MemberRow, Store, StoreError};

/// Entries at the end of a sender's inbox, sent to nobody, among which one that says less is looked for.
pub const UNSENT_MAX: usize = 8;

impl From<&MemberRow> for Marks {
    fn from(row: &MemberRow) -> Self {
        Self { delivered_n: row.delivered_n, read_n: row.read_n }
    }
}

impl<S: Store> Engine<S> {
    /// Tells senders what the batch has moved: each group is gone through once.
    pub(crate) fn tell_risen(&mut self) -> Result<(), StoreError> {
        for (chat, risen) in std::mem::take(&mut self.risen) {
            let moved = first_of(&risen);
            let known = self.state.chat(&chat)?;
            let last_n = known.last_n;
            let Some((after, upto)) = ticks::range(&standings(known, &moved), last_n) else { continue };
            let messages = self.state.accepted_between(&chat, after, upto, RISEN_MAX)?;
            let messages: Vec<Sent> = messages.into_iter().rev().map(|(n, from, id)| Sent { n, from, id }).collect();
            let known = self.state.chat(&chat)?;
            let mut told = ticks::told(&standings(known, &moved), &messages);
            told.retain(|run| known.member(run.to).is_some());
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
}

/// Where members stood before the batch: what was noted of each first.
fn first_of(risen: &[Risen]) -> BTreeMap<UserId, Marks> {
    let mut moved = BTreeMap::new();
    for Risen { member, before } in risen {
        moved.entry(member.clone()).or_insert(Marks::from(before));
    }
    moved
}

/// Of unsent rows, newest first: the place of counts that say less than `receipt` and that nothing between speaks against.
fn voided<'a>(
    rows: impl Iterator<Item = (&'a Seq, &'a Row)>,
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
fn standings<'a>(known: &'a Conversation, moved: &BTreeMap<UserId, Marks>) -> Vec<Standing<'a>> {
    let mut moved = moved.iter().peekable();
    let mut all = Vec::with_capacity(known.members.len());
    for (user, row) in &known.members {
        // Both are in order of names.
        while moved.next_if(|(name, _)| *name < user).is_some() {}
        let after = (known.group.is_some() && row.left_n.is_none()).then(|| Marks::from(row));
        let before = moved.next_if(|(name, _)| *name == user).map_or(after, |(_, before)| Some(*before));
        if before.is_some() || after.is_some() {
            all.push(Standing { user, joined_n: row.joined_n, hidden: known.hidden.get(user), before, after });
        }
    }
    all
}
