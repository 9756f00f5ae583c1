//! A conversation as the store names it: one key for all its members.

use std::fmt;
use std::sync::Arc;

use natter_protocol::{Chat, GroupId, Slot, UserId};
use serde::{Deserialize, Serialize};

/// The name of a conversation in the store.
///
/// `alice bob` for a pair (the smaller name first; a blank stands in no name), `g:{group}`, or `s:{poster}` for what a user posts to
/// `status@broadcast`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChatKey(Arc<str>);

impl ChatKey {
    /// The conversation that `user` sees as `chat`.
    #[must_use]
    pub fn new(user: &UserId, chat: &Chat) -> Self {
        Self(Arc::from(match chat {
            Chat::Direct(other) => {
                let (first, second) = if user <= other { (user, other) } else { (other, user) };
                format!("{first} {second}")
            }
            Chat::Group(group) => format!("g:{group}"),
            Chat::Status => format!("s:{user}"),
        }))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes a key back from the store.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// Both members of a pair; the same user twice for a chat with oneself.
    #[must_use]
    pub fn pair(&self) -> Option<(&str, &str)> {
        self.0.split_once(' ')
    }

    /// Whether `user` is one of a pair, or the poster.
    #[must_use]
    pub fn has(&self, user: &UserId) -> bool {
        match self.pair() {
            Some((first, second)) => first == user.as_str() || second == user.as_str(),
            None => self.0.strip_prefix("s:") == Some(user.as_str()),
        }
    }

    /// Who posts here, if these are statuses.
    #[must_use]
    pub fn poster(&self) -> Option<UserId> {
        self.0.strip_prefix("s:").and_then(|poster| UserId::parse(poster).ok())
    }

    /// Whether these are a user's statuses.
    #[must_use]
    pub fn is_status(&self) -> bool {
        self.0.starts_with("s:")
    }

    /// The conversation of a group.
    #[must_use]
    pub fn of_group(group: &GroupId) -> Self {
        Self(Arc::from(format!("g:{group}")))
    }

    /// Whether this is a group's.
    #[must_use]
    pub fn is_group(&self) -> bool {
        self.0.starts_with("g:")
    }

    /// The group, if this is one's.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        self.0.strip_prefix("g:").and_then(|group| GroupId::parse(group).ok())
    }

    /// The other one of a pair, from `user`'s side.
    #[must_use]
    pub fn other(&self, user: &UserId) -> Option<UserId> {
        let (first, second) = self.pair()?;
        UserId::parse(if first == user.as_str() { second } else { first }).ok()
    }

    /// The conversation as `user` sees it. `None` only for a key that this program did not make.
    #[must_use]
    pub fn seen_by(&self, user: &UserId) -> Option<Chat> {
        if let Some(group) = self.0.strip_prefix("g:") {
            GroupId::parse(group).ok().map(Chat::Group)
        } else if self.0.starts_with("s:") {
            Some(Chat::Status)
        } else {
            self.other(user).map(Chat::Direct)
        }
    }

    /// The slot a conversation lives in: a group's own, a poster's, or that of the smaller name of a pair.
    #[must_use]
    pub fn slot(&self) -> Slot {
        let name = match self.0.split_once([' ', ':']) {
            Some(("g" | "s", name)) => name,
            Some((first, _)) => first,
            None => &self.0,
        };
        Slot::of(name)
    }
}

impl fmt::Debug for ChatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn both_sides_of_a_pair_make_one_key() {
        let (alice, bob) = (user("alice"), user("bob"));
        let key = ChatKey::new(&alice, &Chat::Direct(bob.clone()));
        assert_eq!(key, ChatKey::new(&bob, &Chat::Direct(alice.clone())));
        assert_eq!(key.seen_by(&alice), Some(Chat::Direct(bob.clone())));
        assert_eq!(key.seen_by(&bob), Some(Chat::Direct(alice.clone())));
        assert!(key.has(&alice) && !key.has(&user("carol")));
        assert_eq!(key.slot(), alice.slot());
    }

    #[test]
    fn a_chat_with_oneself_has_oneself_on_the_other_side() {
        let alice = user("alice");
        let key = ChatKey::new(&alice, &Chat::Direct(alice.clone()));
        assert_eq!(key.seen_by(&alice), Some(Chat::Direct(alice.clone())));
    }
}
