//! Groups: who is in them, and what is asked about them.
//!
//! - [`ticks`] what senders are told of who has had their messages · [`receipts`] marks that rise, once a batch  (pure)

pub mod receipts;
pub mod ticks;

use natter_protocol::error::Refusal;
use natter_protocol::{GroupId, N, UserId};

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
            Ask::List(..) => Ok(Told::List(Vec::new())),
            Ask::Receipts(asker, group, n) => self.group_receipts(&asker, &group, n),
            _ => Ok(Told::NotFound),
        }
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
