//! Blocks: what a blocked user sends, posts or shows does not arrive, and he cannot tell: his messages are accepted as ever and stay at one
//! tick, also when he is not blocked any more.
//!
//! A message of a blocked sender takes its number and his other devices' places, none in the inbox of who blocks him, and is *hidden* from
//! that member of the chat ([`crate::hidden`]). So is what lay undelivered at the block: those rows say nothing from then on
//! ([`State::is_silent`]). Both fail when they would if nobody took them (`unheard`).
//!
//! As long as the block stands, who is blocked is told nothing that the other does: a read mark then makes no receipt for him, of messages
//! from before the block neither, and none later. (WhatsApp sends no read receipts to whom one has blocked either.) What he does himself
//! with messages of the other from before is told as ever: those ticks are the other's own.

use std::collections::BTreeMap;

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{Chat, N, UserId};

use crate::change::{Change, Tick};
use crate::chat_key::ChatKey;
use crate::engine::{Engine, Reply, Request};
use crate::overlay::Overlay;
use crate::state::State;
use crate::stats::Counters;
use crate::store::{Store, StoreError};
use crate::{Error, Handle};

/// Blocked users that one answer lists, and that one request of the Cloud API's names.
pub const BLOCKS_A_PAGE: usize = 1000;

/// Blocks that are not settled, or not settled as being lifted: since which Unix second, by who blocks and who is blocked.
pub(crate) type Unsettled = Overlay<(UserId, UserId), Option<u64>>;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Whom a user has blocked, behind a name, in order, at most so many.
    List(UserId, Option<UserId>, usize),
    /// A user blocks another from now on.
    Block(UserId, UserId),
    /// And no more.
    Unblock(UserId, UserId),
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Users, each with the Unix second of the block.
    List(Vec<(UserId, u64)>),
    /// Whether something changed.
    Done(bool),
    /// It was not done, for good.
    Refused(Refusal),
}

impl<S: Store> Engine<S> {
    pub(crate) fn blocks_question(&mut self, ask: Ask) -> Result<Told, StoreError> {
        match ask {
            Ask::List(user, after, limit) => {
                Ok(Told::List(self.state.blocks(&user, after.as_ref(), limit.clamp(1, BLOCKS_A_PAGE))?))
            }
            Ask::Block(user, other) => self.block(user, other),
            Ask::Unblock(user, other) => {
                let is_blocked = self.state.is_blocked(&user, &other)?;
                if is_blocked {
                    self.presence.look_again(&user, &other);
                    self.change(Change::Block { user, other, since: None })?;
                    Counters::add(&self.counters.unblocks);
                }
                Ok(Told::Done(is_blocked))
            }
        }
    }

    fn block(&mut self, user: UserId, other: UserId) -> Result<Told, StoreError> {
        let refused = |kind, details: String| Ok(Told::Refused(Refusal::new(kind, details)));
        if user == other {
            return refused(Kind::InvalidValue, format!("user: expected another user, got {other}"));
        }
        if !self.state.user(&other)?.known {
            return refused(Kind::UnknownRecipient, format!("user: expected a user of this server, got {other}"));
        }
        if self.state.is_blocked(&user, &other)? {
            return Ok(Told::Done(false));
        }
        let blocks_max = self.limits.people.blocks_max;
        if self.state.blocks(&user, None, blocks_max)?.len() >= blocks_max {
            let details = format!("user: expected fewer than {blocks_max} blocked users, got one more: unblock some");
            return refused(Kind::Quota, details);
        }
        // A user that an app's own backend names in a token exists from his first call.
        self.add_user(&user)?;
        let since = Some(self.now.unix_secs);
        self.presence.look_again(&user, &other);
        self.change(Change::Block { user: user.clone(), other: other.clone(), since })?;
        Counters::add(&self.counters.blocks);
        // What has not arrived does not any more: neither his messages, nor the statuses of either for the other.
        self.hide(&ChatKey::new(&user, &Chat::Direct(other.clone())), &other, &user)?;
        self.hide(&ChatKey::new(&other, &Chat::Status), &other, &user)?;
        self.hide(&ChatKey::new(&user, &Chat::Status), &user, &other)?;
        Ok(Told::Done(true))
    }

    /// Hides from `member` what `sender` has sent in a chat and no device of the member has.
    fn hide(&mut self, chat: &ChatKey, sender: &UserId, member: &UserId) -> Result<(), StoreError> {
        let known = self.state.chat(chat)?;
        let (mark, last_n) = (known.mark(member, Tick::Delivered), known.last_n);
        match self.state.newest_of(chat, sender, mark, last_n)? {
            Some((newest, _)) => {
                self.heard_no_more(chat, member, sender, mark)?;
                self.hide_upto(chat, member, newest)
            }
            None => Ok(()),
        }
    }

    /// Hides from `member` everything up to `n` that no device of his has. What lies in it of his own is nothing that he could have.
    pub(crate) fn hide_upto(&mut self, chat: &ChatKey, member: &UserId, n: N) -> Result<(), StoreError> {
        let after = self.state.chat(chat)?.mark(member, Tick::Delivered);
        if after >= n {
            return Ok(());
        }
        self.change(Change::Hidden { chat: chat.clone(), member: member.clone(), after, upto: n })
    }
}

impl<S: Store> State<S> {
    /// Whether `user` has blocked `other`. Who has blocked nobody costs no look-up.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_blocked(&mut self, user: &UserId, other: &UserId) -> Result<bool, StoreError> {
        if !self.user(user)?.blocks {
            return Ok(false);
        }
        let since = match self.blocks.get(&(user.clone(), other.clone())) {
            Some(since) => *since,
            None => self.store.block(user, other)?,
        };
        Ok(since.is_some())
    }

    /// Whether one of the two has blocked the other: neither sees anything live of the other then, nor his statuses.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_cut_off(&mut self, one: &UserId, other: &UserId) -> Result<bool, StoreError> {
        Ok(self.is_blocked(one, other)? || self.is_blocked(other, one)?)
    }

    /// Whom `user` has blocked, behind a name, in order, at most `limit`; each with the Unix second of the block.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn blocks(
        &mut self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, u64)>, StoreError> {
        let mine = self.blocks.iter().filter(|((of, other), _)| of == user && after.is_none_or(|a| other > a));
        let recent: Vec<(UserId, Option<u64>)> = mine.map(|((_, other), since)| (other.clone(), *since)).collect();
        let mut all: BTreeMap<UserId, u64> =
            self.store.blocks(user, after, limit + recent.len())?.into_iter().collect();
        for (other, since) in recent {
            match since {
                Some(since) => all.insert(other, since),
                None => all.remove(&other),
            };
        }
        Ok(all.into_iter().take(limit).collect())
    }
}

impl Handle {
    /// Asks about blocks; what changes is answered after the commit.
    ///
    /// # Errors
    /// [`Error::Refused`] for good. Otherwise the loop has ended or the commit failed.
    pub async fn blocks(&self, ask: Ask) -> Result<Told, Error> {
        match self.reply(Request::Blocks(ask)).await? {
            Reply::Blocks(Told::Refused(refusal)) => Err(refusal.into()),
            Reply::Blocks(told) => Ok(told),
            _ => Err(Error::Ended),
        }
    }
}
