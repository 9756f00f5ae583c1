//! What is kept of a group, and of a member's place in it.

use std::sync::Arc;

use natter_protocol::{N, UserId};
use serde::{Deserialize, Serialize};

/// A group, beside its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// What it is called.
    pub subject: Arc<str>,
    /// What it is for.
    pub description: Option<Arc<str>>,
    /// Who made it.
    pub created_by: UserId,
    /// Unix second in which it was made.
    pub created_at: u64,
    /// The code of its invite link.
    pub invite: Option<Arc<str>>,
}

/// A member's place in a group, or the place of one who was a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The number behind which he joined: what came before is not his.
    pub joined_n: N,
    /// The number up to which he stayed; `None`: he is in it.
    pub left_n: Option<N>,
    /// Whether he may change the group.
    pub is_admin: bool,
}
