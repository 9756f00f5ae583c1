//! What members of a group have had and have read, and which messages of it are theirs to speak of.

use natter_protocol::outbox::Reference;
use natter_protocol::{DeviceId, MessageId, N, UserId};

use crate::change::{Change, Tick};
use crate::chat_key::ChatKey;
use crate::engine::Engine;
use crate::sender::{Ruling, SENDERS_MAX, ambiguous};
use crate::store::{MemberRow, Store, StoreError};

/// Messages that are read at once in search of one of others.
const A_PAGE: usize = 64;

/// What changed in a group's ticks: what its senders are told of before the batch is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Risen {
    /// Whose marks.
    pub(crate) member: UserId,
    /// His row before.
    pub(crate) before: MemberRow,
}

impl<S: Store> Engine<S> {
    /// A member's mark is at `n`, if it was below. Of who is not in the group nothing rises.
    pub(crate) fn raise_group_mark(
        &mut self,
        chat: &ChatKey,
        member: &UserId,
        tick: Tick,
        n: N,
    ) -> Result<(), StoreError> {
        let known = self.state.chat(chat)?;
        let Some(before) = known.member(member).copied() else { return Ok(()) };
        if known.mark(member, tick) >= n {
            return Ok(());
        }
        self.change(Change::Mark { chat: chat.clone(), member: member.clone(), tick, n })?;
        self.note_risen(chat, Risen { member: member.clone(), before });
        Ok(())
    }

    /// What senders are told of a member follows from his row before, and from whether he is in the group when the batch is committed.
    pub(crate) fn note_risen(&mut self, chat: &ChatKey, risen: Risen) {
        self.risen.entry(chat.clone()).or_default().push(risen);
    }

    /// Everything of the group up to `n` is read by a member: his other devices are told as in a chat of two, the senders by counts.
    pub(crate) fn read_group(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        chat: &ChatKey,
        n: N,
    ) -> Result<(), StoreError> {
        let before = self.state.chat(chat)?.mark(user, Tick::Read);
        if n <= before {
            return Ok(());
        }
        for tick in [Tick::Delivered, Tick::Read] {
            self.raise_group_mark(chat, user, tick, n)?;
        }
        let others = self.state.user(user)?.devices.keys().any(|known| known != device);
        if others && let Some((newest, id)) = self.newest_of_others(user, chat, before, n)? {
            self.receipt(user, Some(device), Tick::Read, chat, (before, newest), &id, user)?;
        }
        Ok(())
    }

    /// The newest message of others with `after < n <= upto` that is a member's: what his read mark names.
    fn newest_of_others(
        &mut self,
        user: &UserId,
        chat: &ChatKey,
        after: N,
        mut upto: N,
    ) -> Result<Option<(N, MessageId)>, StoreError> {
        let after = self.state.chat(chat)?.member(user).map_or(upto, |row| row.joined_n.max(after));
        loop {
            let page = self.state.accepted_between(chat, after, upto, A_PAGE)?;
            let is_last = page.len() < A_PAGE;
            upto = page.last().map_or(after, |(n, _, _)| n.saturating_sub(1));
            let found = page.into_iter().find(|(_, sender, _)| sender != user);
            if found.is_some() || is_last {
                return Ok(found.map(|(n, _, id)| (n, id)));
            }
        }
    }

    /// Finds the message of a group that a member means; its sender.
    pub(crate) fn resolve_in_group(&mut self, chat: &ChatKey, user: &UserId, reference: &Reference) -> Ruling<UserId> {
        let candidates = match &reference.from {
            Some(from) => {
                let accepted = self.state.accepted(&reference.id, from)?;
                accepted.map(|accepted| (from.clone(), accepted)).into_iter().collect()
            }
            None => self.state.accepted_by_id(&reference.id, SENDERS_MAX)?,
        };
        let known = self.state.chat(chat)?;
        let mut his =
            candidates.into_iter().filter(|(_, accepted)| accepted.chat == *chat && known.is_his(user, accepted.n));
        match (his.next(), his.next()) {
            (Some((sender, _)), None) => Ok(Ok(sender)),
            (Some(_), Some(_)) => Ok(Err(ambiguous(reference, "one message of the chat (say `from`)"))),
            (None, _) => Ok(Err(ambiguous(reference, "a message of the chat"))),
        }
    }
}
