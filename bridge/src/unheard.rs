//! Hidden messages that nobody will have: their sender is told `failed` when he would be if nobody took them, so that not even a patient one
//! can tell a block from a device that is off. Pure.
//!
//! Of each chat and member the oldest such message is known; the next one is found when that has failed.

use natter_protocol::{N, UserId};

use crate::change::{Change, Item};
use crate::chat_key::ChatKey;
use crate::engine::Engine;
use crate::expiry::ROWS_A_STEP;
use crate::overlay::Overlay;
use crate::state::{DEDUPE_SECS, State};
use crate::store::{Store, StoreError, Waits};

/// Chats looked at in one step of the sweep.
const CHATS_A_STEP: usize = 50;

/// What is not settled: by conversation and member, the oldest hidden message that has not failed yet, and its server second.
pub(crate) type Unsettled = Overlay<(ChatKey, UserId), Option<(N, u64)>>;

impl<S: Store> Engine<S> {
    /// A message that was accepted now is hidden.
    pub(crate) fn never_heard(&mut self, chat: &ChatKey, member: &UserId, n: N) -> Result<(), StoreError> {
        self.note_unheard(chat, member, (n, self.now.server_secs))
    }

    /// What lay in the inbox of `member` from `sender` was hidden, behind what he has.
    pub(crate) fn heard_no_more(
        &mut self,
        chat: &ChatKey,
        member: &UserId,
        sender: &UserId,
        after: N,
    ) -> Result<(), StoreError> {
        match self.state.oldest_waiting(member, chat, sender, after)? {
            Some(oldest) => self.note_unheard(chat, member, oldest),
            None => Ok(()),
        }
    }

    fn note_unheard(&mut self, chat: &ChatKey, member: &UserId, oldest: (N, u64)) -> Result<(), StoreError> {
        // A status that does not arrive does not: that is what it is. And what is known already is older.
        if chat.is_status() || self.state.unheard(chat, member)?.is_some() {
            return Ok(());
        }
        self.change(Change::Unheard { chat: chat.clone(), member: member.clone(), oldest: Some(oldest) })
    }

    /// Tells of those whose time is over, a step of them; `true`: there are more.
    pub(crate) fn sweep_unheard(&mut self) -> Result<bool, StoreError> {
        let before = self.now.server_secs.saturating_sub(self.limits.entry_ttl_secs);
        let over = self.state.store.unheard_over(before, CHATS_A_STEP)?;
        let (is_full, mut told) = (over.len() == CHATS_A_STEP, 0);
        for (chat, member) in over {
            let Some(sender) = chat.other(&member) else { continue };
            // What the store says may have been told already, by what is not settled.
            while let Some((n, at)) = self.state.unheard(&chat, &member)?.filter(|(_, at)| *at < before) {
                if told >= ROWS_A_STEP {
                    return Ok(true);
                }
                told += 1;
                if let Some((_, id)) = self.state.newest_of(&chat, &sender, n - 1, n)? {
                    self.tell_undelivered(&sender, &member, &chat, (n, &id), false)?;
                }
                let oldest = self.state.next_hidden(&chat, &member, &sender, n, at)?;
                self.change(Change::Unheard { chat: chat.clone(), member: member.clone(), oldest })?;
            }
        }
        Ok(is_full && told > 0)
    }
}

impl<S: Store> State<S> {
    /// The oldest message hidden from a member that has not failed yet, and the server second since which it counts.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn unheard(&mut self, chat: &ChatKey, member: &UserId) -> Result<Option<(N, u64)>, StoreError> {
        match self.unheard.get(&(chat.clone(), member.clone())) {
            Some(oldest) => Ok(*oldest),
            None => self.store.unheard(chat, member),
        }
    }

    /// The oldest message of `sender` behind `after` that lies in a user's inbox, and its server second.
    fn oldest_waiting(
        &mut self,
        user: &UserId,
        chat: &ChatKey,
        sender: &UserId,
        after: N,
    ) -> Result<Option<(N, u64)>, StoreError> {
        let known = self.user(user)?;
        let (floor, settled) = (known.floor(), known.settled_seq);
        let stored = if known.stored && floor < settled {
            self.store.oldest_waiting(&Waits { user, chat, sender, after, behind: floor, upto: settled })?
        } else {
            None
        };
        let known = self.user(user)?;
        let recent = known.rows.range(floor.max(settled) + 1..).find_map(|(_, row)| match &row.item {
            Item::Message(message) if message.chat == *chat && message.from == *sender && message.n > after => {
                Some((message.n, row.at))
            }
            _ => None,
        });
        Ok(stored.or(recent))
    }

    /// The next message of `sender` behind `n` that is hidden from `member`, and its server second.
    fn next_hidden(
        &mut self,
        chat: &ChatKey,
        member: &UserId,
        sender: &UserId,
        n: N,
        at: u64,
    ) -> Result<Option<(N, u64)>, StoreError> {
        let ranges = self.chat(chat)?.hidden.get(member).map(|hidden| hidden.sure().to_vec()).unwrap_or_default();
        for (after, upto) in ranges.into_iter().filter(|(_, upto)| *upto > n) {
            if let Some((next, id)) = self.oldest_of(chat, sender, after.max(n), upto)? {
                let accepted = self.accepted(&id, sender)?;
                let since = accepted.map_or(at, |accepted| accepted.until.saturating_sub(DEDUPE_SECS));
                return Ok(Some((next, since)));
            }
        }
        Ok(None)
    }
}
