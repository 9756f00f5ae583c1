//! Edits and deletions for everybody: which messages of whom, until when, and what becomes of what they are about. And stars, which are
//! for a user's own devices.
//!
//! Both are messages of their own, with their numbers, places and ticks. What a message was said anew by is a [`Redacted`] of its number:
//! a deleted message, and an edit behind which a later one came, go out to nobody who has not got them yet ([`State::is_redacted`]), so that
//! a device that was away gets only the last word. A message is known by its dedupe row, which holds when it was committed.
//!
//! Of an edited message the newest edit is known, and of either of them by what it went; so an edit or a deletion is never taken for a
//! message, which could be edited or deleted: a device that had not got it would see what all others do not.
//!
//! Who has something hidden (a block, see [`crate::hidden`]) hears of no edit and no deletion of it, and none that is hidden takes anything
//! from him, or his devices would differ. Of who is out of a group the same is true of what was said since he went.
//!
//! In a group an admin deletes others' messages too, of those that are his to speak of. What the group says of itself goes out whatever is
//! said of it: who is in it is not to be forgotten.

use std::collections::{BTreeMap, BTreeSet};

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::group;
use natter_protocol::message::MessageType;
use natter_protocol::outbox::{Message as Written, Reference};
use natter_protocol::{Chat, MessageId, N, UserId};
use serde::{Deserialize, Serialize};

use crate::change::{Change, Item, Message};
use crate::chat_key::ChatKey;
use crate::engine::Engine;
use crate::sender::{Ruling, ambiguous, ruled};
use crate::state::{DEDUPE_SECS, State};
use crate::stats::Counters;
use crate::store::{Store, StoreError};

/// Server seconds after its commit in which a message can be edited: 15 minutes.
pub const EDIT_SECS: u64 = 15 * 60;
/// Server seconds after its commit in which a message can be deleted for everybody: 60 hours.
pub const DELETE_SECS: u64 = 60 * 3600;
/// Server seconds that what was said anew is known beyond the longest time that a copy of the message may lie somewhere.
const SPARE_SECS: u64 = 24 * 3600;

/// What was said anew of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redacted {
    /// The number of the edit or deletion that said it.
    pub by: N,
    /// Nothing of it goes out any more: it was deleted, or is an edit and was edited over.
    pub is_gone: bool,
    /// Known until this server second: no copy of the message lies anywhere then, and nothing can refer to it.
    pub until: u64,
}

/// What was said anew of a conversation's messages.
#[derive(Debug, Clone, Default)]
pub struct Redactions {
    by_n: BTreeMap<N, Redacted>,
    sayers: BTreeSet<N>,
}

impl Redactions {
    /// Notes what is true of message `n`; of two, that with the greater number stays.
    pub fn note(&mut self, n: N, redacted: Redacted) {
        self.sayers.insert(redacted.by);
        let known = self.by_n.entry(n).or_insert(redacted);
        if known.by <= redacted.by {
            *known = redacted;
        }
    }

    /// By the numbers of the messages.
    #[must_use]
    pub fn all(&self) -> &BTreeMap<N, Redacted> {
        &self.by_n
    }

    /// What was said anew of message `n`.
    #[must_use]
    pub fn get(&self, n: N) -> Option<Redacted> {
        self.by_n.get(&n).copied()
    }

    /// Whether message `n` is an edit or a deletion, as far as that is known.
    #[must_use]
    pub fn is_sayer(&self, n: N) -> bool {
        self.sayers.contains(&n)
    }
}

/// A star on a message, or that it was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starred {
    /// The conversation.
    pub chat: ChatKey,
    /// Who sent the message.
    pub from: UserId,
    /// Its number.
    pub n: N,
    /// Its id.
    pub id: MessageId,
    /// Whether it has a star now.
    pub is_starred: bool,
    /// Unix seconds.
    pub timestamp: u64,
}

/// What a message is about, once that was found.
#[derive(Debug, Default)]
pub(crate) struct About {
    /// The sender of the message that it refers to.
    pub(crate) from: Option<UserId>,
    /// Its number, if it is edited or deleted.
    pub(crate) n: Option<N>,
}

impl<S: Store> Engine<S> {
    /// What a message that `user` sends to a chat is about, if it may be.
    pub(crate) fn about(
        &mut self,
        chat: &ChatKey,
        user: &UserId,
        recipient: Option<&UserId>,
        written: &mut Written,
    ) -> Ruling<About> {
        let (kind, to) = (written.kind, written.to.clone());
        let Some(reference) = &mut written.reference else { return Ok(Ok(About::default())) };
        if matches!(kind, MessageType::Edit | MessageType::Delete) {
            let n = ruled!(self.target(chat, user, &to, kind, reference));
            return Ok(Ok(About { from: reference.from.clone(), n: Some(n) }));
        }
        let from = ruled!(self.resolve(chat, user, recipient, &to, reference));
        if kind == MessageType::Reaction
            && reference.chat != Some(Chat::Status)
            && let Some(accepted) = self.state.accepted(&reference.id, &from)?
        {
            ruled!(self.is_whole(chat, accepted.n, &reference.id));
        }
        Ok(Ok(About { from: Some(from), n: None }))
    }

    /// The number of the message that an edit or a deletion means. One without `from` means an own one.
    fn target(
        &mut self,
        chat: &ChatKey,
        user: &UserId,
        to: &Chat,
        kind: MessageType,
        reference: &mut Reference,
    ) -> Ruling<N> {
        if reference.chat.as_ref().is_some_and(|named| named != to) {
            return Ok(Err(ambiguous(reference, "a message of the chat in `to`")));
        }
        let from = reference.from.get_or_insert_with(|| user.clone()).clone();
        let accepted = self.state.accepted(&reference.id, &from)?.filter(|accepted| accepted.chat == *chat);
        let known = self.state.chat(chat)?;
        // Of a group's messages, what came before he joined is as if it were not there, unless it is his own.
        let accepted = accepted.filter(|accepted| !chat.is_group() || from == *user || known.is_his(user, accepted.n));
        let Some(accepted) = accepted else { return Ok(Err(ambiguous(reference, "a message of the chat"))) };
        if group::is_command(&accepted.hash) {
            let details =
                format!("message_id: expected a message, got a line that says what changed: {}", reference.id);
            return Ok(Err(Refusal::new(Kind::InvalidValue, details)));
        }
        let is_edit = kind == MessageType::Edit;
        if from != *user && (is_edit || !self.may_delete(chat, user)?) {
            let details = format!("message_id: expected an own message, got {} of {from}", reference.id);
            return Ok(Err(Refusal::new(Kind::NotAllowed, details)));
        }
        let limit = if is_edit { EDIT_SECS } else { DELETE_SECS };
        let age = self.now.server_secs.saturating_sub(accepted.until.saturating_sub(DEDUPE_SECS));
        if age > limit {
            let what = kind.as_str();
            let details = format!(
                "{what}: expected a message of the last {} minutes, got one {} minutes old",
                limit / 60,
                age / 60
            );
            return Ok(Err(Refusal::new(Kind::NotAllowed, details)));
        }
        ruled!(self.is_whole(chat, accepted.n, &reference.id));
        Ok(Ok(accepted.n))
    }

    /// Whether `user` may delete a message of somebody else for everybody: an admin of the group may, in a chat of two nobody.
    fn may_delete(&mut self, chat: &ChatKey, user: &UserId) -> Result<bool, StoreError> {
        Ok(self.state.chat(chat)?.member(user).is_some_and(|row| row.is_admin))
    }

    /// A message that is neither deleted nor an edit or a deletion of another.
    fn is_whole(&mut self, chat: &ChatKey, n: N, id: &MessageId) -> Ruling<()> {
        let redacted = &self.state.chat(chat)?.redacted;
        let got = if redacted.get(n).is_some_and(|redacted| redacted.is_gone) {
            "one that was deleted"
        } else if redacted.is_sayer(n) {
            "an edit or a deletion"
        } else {
            return Ok(Ok(()));
        };
        Ok(Err(Refusal::new(Kind::InvalidValue, format!("message_id: expected a message, got {got}: {id}"))))
    }

    /// Message `by` of a chat was accepted, which edits or deletes message `n`.
    pub(crate) fn redact(&mut self, chat: &ChatKey, kind: MessageType, n: N, by: N) -> Result<(), StoreError> {
        let kept_secs = self.limits.entry_ttl_secs.saturating_mul(2).max(DEDUPE_SECS);
        let until = self.now.server_secs.saturating_add(kept_secs).saturating_add(SPARE_SECS);
        let before = self.state.chat(chat)?.redacted.get(n);
        let mut note = |n, is_gone| {
            self.change(Change::Redacted { chat: chat.clone(), n, redacted: Redacted { by, is_gone, until } })
        };
        if let Some(edit) = before {
            // What it said is not to be said any more.
            note(edit.by, true)?;
        }
        note(n, kind == MessageType::Delete)?;
        let counter = if kind == MessageType::Delete { &self.counters.deletions } else { &self.counters.edits };
        Counters::add(counter);
        Ok(())
    }

    /// Stars a message for the user's devices, or takes the star away.
    pub(crate) fn star(&mut self, user: &UserId, chat: &Chat, reference: &Reference, is_starred: bool) -> Ruling<()> {
        if reference.chat.as_ref().is_some_and(|named| named != chat) {
            return Ok(Err(ambiguous(reference, "a message of `chat`")));
        }
        let (key, from) = match chat {
            Chat::Group(group) => {
                let key = ruled!(self.group_of(user, group, "chat"));
                let from = ruled!(self.resolve_in_group(&key, user, reference));
                (key, from)
            }
            _ => {
                let key = ChatKey::new(user, chat);
                let from = ruled!(self.resolve_in(&key, user, reference));
                (key, from)
            }
        };
        let Some(accepted) = self.state.accepted(&reference.id, &from)? else {
            return Ok(Err(ambiguous(reference, "a message of the chat")));
        };
        ruled!(self.is_whole(&key, accepted.n, &reference.id));
        let (n, id, timestamp) = (accepted.n, reference.id.clone(), self.now.unix_secs);
        self.notice(user, None, None, Item::Starred(Starred { chat: key, from, n, id, is_starred, timestamp }))?;
        Ok(Ok(()))
    }
}

impl<S: Store> State<S> {
    /// Whether nothing of a message goes out any more to a device of `user` that has not got it: it was deleted, or is an edit that was
    /// edited over, by something that is not hidden from him.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_redacted(&mut self, user: &UserId, message: &Message) -> Result<bool, StoreError> {
        if message.is_system() {
            return Ok(false);
        }
        let chat = self.chat(&message.chat)?;
        let mut n = message.n;
        while let Some(redacted) = chat.redacted.get(n).filter(|redacted| redacted.is_gone) {
            let is_own_doing = !message.chat.is_group() && message.from == *user;
            if is_own_doing || chat.is_told(user, redacted.by) {
                return Ok(true);
            }
            // What took its place may have gone itself, by something later.
            n = redacted.by;
        }
        Ok(false)
    }
}
