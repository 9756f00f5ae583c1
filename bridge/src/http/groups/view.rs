//! How a group, its members, its changes and its receipts are written.

use serde::Serialize;
use utoipa::ToSchema;

use crate::groups::{Group, MemberTicks, Summary};
use crate::http::send::Committed;

/// Groups, in order of names.
#[derive(Serialize, ToSchema)]
pub(super) struct GroupsPage {
    pub(super) groups: Vec<Listed>,
    /// What to say as `after`, if there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// A group, without its members.
#[derive(Serialize, ToSchema)]
#[schema(as = GroupSummary)]
pub(super) struct Listed {
    /// Its chat: what `to` is for a message to it.
    #[schema(example = "g:0192f7a1b2c3d4e5f60718293a4b5c6d")]
    group: String,
    #[schema(example = "Trip")]
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    members_count: usize,
    /// Unix seconds.
    created_at: String,
    created_by: String,
}

impl From<Summary> for Listed {
    fn from(summary: Summary) -> Self {
        let Summary { group, subject, description, members_count, created_at, created_by } = summary;
        Self {
            group: format!("g:{group}"),
            subject,
            description,
            members_count,
            created_at: created_at.to_string(),
            created_by: created_by.to_string(),
        }
    }
}

/// A group, with its members.
#[derive(Serialize, ToSchema)]
#[schema(as = Group)]
pub(super) struct Whole {
    #[serde(flatten)]
    summary: Listed,
    /// In order of names.
    members: Vec<Member>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = GroupMember)]
struct Member {
    #[schema(example = "bob")]
    user: String,
    admin: bool,
    /// The number of the message behind which he joined: what came before is not his.
    joined_n: u64,
}

impl From<Group> for Whole {
    fn from(group: Group) -> Self {
        let Group { summary, members } = group;
        let members = members.into_iter().map(|member| Member {
            user: member.user.to_string(),
            admin: member.is_admin,
            joined_n: member.joined_n,
        });
        Self { summary: summary.into(), members: members.collect() }
    }
}

/// A change: it is a message of the group, which every member gets.
#[derive(Serialize, ToSchema)]
#[schema(as = GroupChanged)]
pub(super) struct Changed {
    success: bool,
    /// Of the message that tells of it. This and what follows is left out where everything was so before.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Its number in the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    /// Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
}

impl Changed {
    /// Nothing had to be done.
    pub(super) const BEFORE: Self = Self { success: true, id: None, n: None, timestamp: None };

    pub(super) fn to(committed: Committed) -> Self {
        let Committed { id, n, timestamp } = committed;
        Self { success: true, id: Some(id.to_string()), n: Some(n), timestamp: Some(timestamp.to_string()) }
    }
}

/// Who has had a message, and who has read it.
#[derive(Serialize, ToSchema)]
#[schema(as = GroupReceipts)]
pub(super) struct Receipts {
    /// How many have it.
    delivered_to: usize,
    /// How many have read it.
    read_by: usize,
    /// Of how many.
    of: usize,
    /// In order of names.
    receipts: Vec<Ticks>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = GroupReceipt)]
struct Ticks {
    #[schema(example = "bob")]
    user: String,
    /// A device of his has it.
    delivered: bool,
    read: bool,
}

impl From<Vec<MemberTicks>> for Receipts {
    fn from(members: Vec<MemberTicks>) -> Self {
        Self {
            delivered_to: members.iter().filter(|member| member.delivered).count(),
            read_by: members.iter().filter(|member| member.read).count(),
            of: members.len(),
            receipts: members
                .into_iter()
                .map(|MemberTicks { user, delivered, read }| Ticks { user: user.to_string(), delivered, read })
                .collect(),
        }
    }
}

/// An invite link.
#[derive(Serialize, ToSchema)]
pub(super) struct InviteLink {
    /// Left out: there is none.
    #[schema(example = "natter:join/3v8q0m5t2k7x9c4w1r6y8h0n5d")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) invite_link: Option<String>,
}

/// What an invite link leads to.
#[derive(Serialize, ToSchema)]
pub(super) struct Joined {
    /// The group; left out if the link has ended meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(flatten)]
    pub(super) changed: Changed,
}
