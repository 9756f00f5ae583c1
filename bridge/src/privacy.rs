//! Privacy: who sees when a user was there last, whether he is there, and what he posts to `status@broadcast`.
//!
//! The default is *contacts*: those whom a user has as a contact and who have him. `except` and `only` narrow these by a list; `nobody` is
//! nobody, `everyone` every user of the server (not for statuses: nothing is pushed at strangers). A block stands above all of it, in both directions.
//!
//! The first two are *reciprocal*: of another a user sees what he shows him. Of statuses the audience is decided once, when one is posted.

use std::sync::Arc;

use natter_protocol::UserId;
use serde::{Deserialize, Serialize};

use crate::overlay::Overlay;
use crate::presence::Sight;
use crate::state::State;
use crate::store::{Store, StoreError};

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Aspect {
    /// When a user was there last.
    LastSeen,
    /// Whether he is there.
    Online,
    /// What he posts to `status@broadcast`.
    Status,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::LastSeen, Self::Online, Self::Status];

    /// As the wire and the tables say it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LastSeen => "last_seen",
            Self::Online => "online",
            Self::Status => "status",
        }
    }

    /// [`Aspect::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|aspect| aspect.as_str() == text)
    }
}

/// Who sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Who {
    /// Every user of the server.
    Everyone,
    /// Contacts, each having the other.
    #[default]
    Contacts,
    /// Contacts that are not listed.
    Except,
    /// Contacts that are listed.
    Only,
    /// Nobody.
    Nobody,
}

impl Who {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Everyone, Self::Contacts, Self::Except, Self::Only, Self::Nobody];

    /// As the wire and the tables say it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::Contacts => "contacts",
            Self::Except => "except",
            Self::Only => "only",
            Self::Nobody => "nobody",
        }
    }

    /// [`Who::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|who| who.as_str() == text)
    }

    /// Whether a list goes with it.
    #[must_use]
    pub fn has_list(self) -> bool {
        matches!(self, Self::Except | Self::Only)
    }

    /// Whether one sees it who is a contact or not, and listed or not.
    #[must_use]
    pub fn admits(self, is_contact: bool, is_listed: bool) -> bool {
        match self {
            Self::Everyone => true,
            Self::Contacts => is_contact,
            Self::Except => is_contact && !is_listed,
            Self::Only => is_contact && is_listed,
            Self::Nobody => false,
        }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// Who sees it.
    pub who: Who,
    /// The list, in order of names, none twice; empty where [`Who::has_list`] says no.
    pub users: Arc<Vec<UserId>>,
}

impl Rule {
    /// A rule, with its list in order.
    #[must_use]
    pub fn new(who: Who, mut users: Vec<UserId>) -> Self {
        users.sort();
        users.dedup();
        Self { who, users: Arc::new(if who.has_list() { users } else { Vec::new() }) }
    }
}

/// The three rules of a user, without their lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Privacy {
    last_seen: Who,
    online: Who,
    status: Who,
}

impl Privacy {
    /// Who sees it.
    #[must_use]
    pub fn of(self, aspect: Aspect) -> Who {
        match aspect {
            Aspect::LastSeen => self.last_seen,
            Aspect::Online => self.online,
            Aspect::Status => self.status,
        }
    }

    /// From now on those.
    pub fn set(&mut self, aspect: Aspect, who: Who) {
        match aspect {
            Aspect::LastSeen => self.last_seen = who,
            Aspect::Online => self.online = who,
            Aspect::Status => self.status = who,
        }
    }
}

/// Lists that are not settled.
pub(crate) type Lists = Overlay<(UserId, Aspect), Arc<Vec<UserId>>>;

impl<S: Store> State<S> {
    /// The rules of a user: read once, and kept with him.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn privacy(&mut self, user: &UserId) -> Result<Privacy, StoreError> {
        if let Some(privacy) = self.user(user)?.privacy {
            return Ok(privacy);
        }
        let mut privacy = Privacy::default();
        for (aspect, who) in self.store.privacy(user)? {
            privacy.set(aspect, who);
        }
        self.user(user)?.privacy = Some(privacy);
        Ok(privacy)
    }

    /// A rule with its list.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn rule(&mut self, user: &UserId, aspect: Aspect) -> Result<Rule, StoreError> {
        let who = self.privacy(user)?.of(aspect);
        let users = match self.privacy_lists.get(&(user.clone(), aspect)) {
            Some(users) => Arc::clone(users),
            None if who.has_list() => Arc::new(self.store.privacy_list(user, aspect)?),
            None => Arc::default(),
        };
        Ok(Rule { who, users })
    }

    fn is_listed(&mut self, user: &UserId, aspect: Aspect, other: &UserId) -> Result<bool, StoreError> {
        match self.privacy_lists.get(&(user.clone(), aspect)) {
            Some(users) => Ok(users.binary_search(other).is_ok()),
            None => self.store.is_in_privacy_list(user, aspect, other),
        }
    }

    fn shows(&mut self, user: &UserId, aspect: Aspect, other: &UserId, contacts: bool) -> Result<bool, StoreError> {
        let who = self.privacy(user)?.of(aspect);
        let is_listed = contacts && who.has_list() && self.is_listed(user, aspect, other)?;
        Ok(who.admits(contacts, is_listed))
    }

    /// What `watcher` may see of `watched`: what he shows him, if he is shown the same.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sight(&mut self, watcher: &UserId, watched: &UserId) -> Result<Sight, StoreError> {
        if self.is_cut_off(watcher, watched)? {
            return Ok(Sight::NONE);
        }
        let (one, other) = (self.privacy(watcher)?, self.privacy(watched)?);
        let asks = |aspect| {
            let both = [one.of(aspect), other.of(aspect)];
            !both.contains(&Who::Nobody) && both != [Who::Everyone; 2]
        };
        let contacts = (asks(Aspect::Online) || asks(Aspect::LastSeen)) && self.are_contacts(watcher, watched)?;
        let mut both = |aspect| -> Result<bool, StoreError> {
            Ok(self.shows(watched, aspect, watcher, contacts)? && self.shows(watcher, aspect, watched, contacts)?)
        };
        Ok(Sight { online: both(Aspect::Online)?, last_seen: both(Aspect::LastSeen)? })
    }

    /// When a user was there last, in Unix seconds; `None`: never.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last_seen(&mut self, user: &UserId) -> Result<Option<u64>, StoreError> {
        match self.last_seen.get(user) {
            Some(at) => Ok(Some(*at)),
            None => self.store.last_seen(user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_a_list_stands_where_it_says_something() {
        for aspect in Aspect::ALL {
            assert_eq!(Aspect::parse(aspect.as_str()), Some(aspect));
        }
        let users: Vec<UserId> = ["bob", "alice", "bob"].map(|name| UserId::parse(name).unwrap()).into();
        for who in Who::ALL {
            assert_eq!(Who::parse(who.as_str()), Some(who));
            let rule = Rule::new(who, users.clone());
            let names: Vec<&str> = rule.users.iter().map(UserId::as_str).collect();
            assert_eq!(names, if who.has_list() { vec!["alice", "bob"] } else { vec![] });
        }
        assert_eq!(Who::ALL.map(|who| who.admits(true, true)), [true, true, false, true, false]);
        assert_eq!(Who::ALL.map(|who| who.admits(true, false)), [true, true, true, false, false]);
        assert_eq!(Who::ALL.map(|who| who.admits(false, true)), [true, false, false, false, false]);
    }
}
