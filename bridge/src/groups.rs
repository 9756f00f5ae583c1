//! Groups: who is in them, and what is asked about them.
//!
//! - `rules` the commands that change one · `marks` who has had and read what, and which messages are whose · `row` what is kept ·
//!   `known` what is not settled of it beside the conversation itself
//! - `ticks` what senders are told when marks rise, pure · `receipts` the entries that say it

pub(crate) mod known;
pub(crate) mod marks;
pub mod receipts;
pub mod row;
pub(crate) mod rules;
pub mod ticks;

use std::sync::Arc;

use natter_protocol::error::Refusal;
use natter_protocol::{GroupId, N, UserId};

use crate::change::Change;
use crate::chat_key::ChatKey;
use crate::engine::{Engine, Reply, Request};
use crate::store::{Store, StoreError};
use crate::{Error, Handle};

/// Groups that one answer lists.
pub const GROUPS_A_PAGE: usize = 100;

/// What can be asked for. Who asks comes first; of a group that he is not in, the answer is that of one that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The groups of a user behind a name, in order of names, at most so many.
    List(UserId, Option<GroupId>, usize),
    /// A group, with its members.
    Show(UserId, GroupId),
    /// Who has had and who has read message `n` of a group: its sender may ask.
    Receipts(UserId, GroupId, N),
    /// The code of the invite link, for an admin.
    Invite(UserId, GroupId),
    /// Another code from now on (the caller makes it, of at least 128 random bits), for an admin; the one before is no good any more.
    NewInvite(UserId, GroupId, String),
    /// No code from now on, for an admin.
    NoInvite(UserId, GroupId),
    /// What an invite link's code invites to.
    Preview(String),
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// To [`Ask::List`].
    List(Vec<Summary>),
    /// To [`Ask::Show`].
    Group(Group),
    /// To [`Ask::Receipts`]: in order of names.
    Receipts(Vec<MemberTicks>),
    /// To [`Ask::Invite`], [`Ask::NewInvite`] and [`Ask::NoInvite`].
    Invite(Option<String>),
    /// To [`Ask::Preview`].
    Preview(Summary),
    /// There is nothing of that name, or the asker is not in it.
    NotFound,
    /// It was not done, for good.
    Refused(Refusal),
}

/// A group, in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub group: GroupId,
    /// What it is called.
    pub subject: String,
    /// What it is for.
    pub description: Option<String>,
    /// How many members it has.
    pub members_count: usize,
    /// Unix second in which it was made.
    pub created_at: u64,
    /// Who made it.
    pub created_by: UserId,
}

/// A group, with its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What a list says of it.
    pub summary: Summary,
    /// Its members, in order of names.
    pub members: Vec<Member>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// Whether he may change the group.
    pub is_admin: bool,
    /// The number behind which he joined: what came before is not his.
    pub joined_n: N,
}

/// A member's ticks of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberTicks {
    /// Who.
    pub user: UserId,
    /// A device of his has it.
    pub delivered: bool,
    /// He has read it.
    pub read: bool,
}

impl<S: Store> Engine<S> {
    pub(crate) fn groups_question(&mut self, ask: Ask) -> Result<Told, StoreError> {
        match ask {
            Ask::List(user, after, limit) => {
                let after = after.as_ref().map(ChatKey::of_group);
                let chats = self.state.groups_of(&user, after.as_ref(), limit.clamp(1, GROUPS_A_PAGE))?;
                let mut all = Vec::with_capacity(chats.len());
                for chat in chats {
                    all.extend(self.summary(&chat)?);
                }
                Ok(Told::List(all))
            }
            Ask::Show(user, group) => {
                let Ok(chat) = self.group_of(&user, &group, "group")? else { return Ok(Told::NotFound) };
                let Some(summary) = self.summary(&chat)? else { return Ok(Told::NotFound) };
                let members = self.state.chat(&chat)?.members_now().map(|(user, row)| Member {
                    user: user.clone(),
                    is_admin: row.is_admin,
                    joined_n: row.joined_n,
                });
                Ok(Told::Group(Group { members: members.collect(), summary }))
            }
            Ask::Receipts(user, group, n) => {
                let Ok(chat) = self.group_of(&user, &group, "group")? else { return Ok(Told::NotFound) };
                let message = self.state.accepted_between(&chat, n.saturating_sub(1), n, 1)?.pop();
                if message.is_none_or(|(at, sender, _)| at != n || sender != user) {
                    return Ok(Told::NotFound);
                }
                let known = self.state.chat(&chat)?;
                let others = known.members_now().filter(|(member, _)| **member != user && known.is_his(member, n));
                let ticks = others.map(|(member, row)| MemberTicks {
                    user: member.clone(),
                    delivered: row.delivered_n >= n,
                    read: row.read_n >= n,
                });
                Ok(Told::Receipts(ticks.collect()))
            }
            Ask::Invite(user, group) => match self.may_invite(&user, &group)? {
                Ok(chat) => Ok(Told::Invite(self.invite(&chat)?)),
                Err(told) => Ok(told),
            },
            Ask::NewInvite(user, group, code) => match self.may_invite(&user, &group)? {
                Ok(chat) => self.set_invite(&chat, Some(code)),
                Err(told) => Ok(told),
            },
            Ask::NoInvite(user, group) => match self.may_invite(&user, &group)? {
                Ok(chat) => self.set_invite(&chat, None),
                Err(told) => Ok(told),
            },
            Ask::Preview(code) => {
                let Some(chat) = self.state.invited_by(&code)? else { return Ok(Told::NotFound) };
                Ok(self.summary(&chat)?.map_or(Told::NotFound, Told::Preview))
            }
        }
    }

    fn summary(&mut self, chat: &ChatKey) -> Result<Option<Summary>, StoreError> {
        let known = self.state.chat(chat)?;
        let members_count = known.members_now().count();
        Ok(known.group.as_ref().zip(chat.group()).map(|(row, group)| Summary {
            group,
            subject: row.subject.to_string(),
            description: row.description.as_ref().map(ToString::to_string),
            members_count,
            created_at: row.created_at,
            created_by: row.created_by.clone(),
        }))
    }

    fn may_invite(&mut self, user: &UserId, group: &GroupId) -> Result<Result<ChatKey, Told>, StoreError> {
        if self.group_of(user, group, "group")?.is_err() {
            return Ok(Err(Told::NotFound));
        }
        Ok(self.changeable(user, group)?.map_err(Told::Refused))
    }

    fn invite(&mut self, chat: &ChatKey) -> Result<Option<String>, StoreError> {
        let group = self.state.chat(chat)?.group.as_ref();
        Ok(group.and_then(|group| group.invite.as_ref()).map(ToString::to_string))
    }

    fn set_invite(&mut self, chat: &ChatKey, code: Option<String>) -> Result<Told, StoreError> {
        let Some(mut group) = self.state.chat(chat)?.group.clone() else { return Ok(Told::NotFound) };
        let code: Option<Arc<str>> = code.map(Arc::from);
        let before = std::mem::replace(&mut group.invite, code.clone());
        for (code, is_good) in [(before, false), (code.clone(), true)] {
            if let Some(code) = code {
                self.change(Change::Invite { chat: chat.clone(), code, is_good })?;
            }
        }
        self.change(Change::Group { chat: chat.clone(), group: Some(Box::new(group)) })?;
        Ok(Told::Invite(code.map(|code| code.to_string())))
    }
}

impl Handle {
    /// Asks about groups; what changes is answered after the commit. Members, subject and so on are changed by [`Handle::publish`].
    ///
    /// # Errors
    /// [`Error::Refused`] for good; else when the loop has ended or the commit fails.
    pub async fn groups(&self, ask: Ask) -> Result<Told, Error> {
        match self.reply(Request::Groups(ask)).await? {
            Reply::Groups(Told::Refused(refusal)) => Err(refusal.into()),
            Reply::Groups(told) => Ok(told),
            _ => Err(Error::Ended),
        }
    }
}
