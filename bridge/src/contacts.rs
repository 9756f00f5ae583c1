//! Contacts: whom a user knows, by the name he gives them. Who sees what of a user follows from it: his *audience* are the contacts of his
//! that have him as a contact too, so that nobody pushes anything at strangers, and neither of whom has blocked the other.
//!
//! - [`import`] contacts out of a file or a message · [`vcard`] the file

pub mod import;
pub mod vcard;

use std::collections::BTreeMap;

use natter_protocol::UserId;
use natter_protocol::error::{Kind, Refusal};
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::engine::{Engine, Reply, Request};
use crate::overlay::Overlay;
use crate::privacy::{Aspect, Who};
use crate::state::State;
use crate::stats::Counters;
use crate::store::{Store, StoreError};
use crate::{Error, Handle};

/// Contacts that one answer lists.
pub const CONTACTS_A_PAGE: usize = 1000;
/// More contacts than any limit allows.
const ALL: usize = 1 << 30;
/// Longest name that a user gives a contact, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// A contact of a user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// What the user calls him: data, at most [`NAME_BYTES_MAX`].
    pub name: Option<String>,
    /// Unix second of the first time.
    pub since: u64,
}

/// Names are not for logs.
impl std::fmt::Debug for Contact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Contact(since {})", self.since)
    }
}

/// Contacts that are not settled, or not settled as being gone, by user and contact.
pub(crate) type Unsettled = Overlay<(UserId, UserId), Option<Contact>>;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A user's contacts behind a name, in order, at most so many.
    List(UserId, Option<UserId>, usize),
    /// A user has another as a contact from now on, by that name.
    Put(UserId, UserId, Option<String>),
    /// And no more.
    Remove(UserId, UserId),
    /// A user has everybody as a contact whom these cards name, from now on: [`import`].
    Import(UserId, Vec<Result<vcard::Card, Refusal>>),
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Contacts.
    List(Vec<(UserId, Contact)>),
    /// Whether something changed.
    Done(bool),
    /// Of each card in order, what came of it; of one that names several users, for each.
    Imported(Vec<Vec<import::Outcome>>),
    /// It was not done, for good.
    Refused(Refusal),
}

impl<S: Store> Engine<S> {
    pub(crate) fn contacts_question(&mut self, ask: Ask) -> Result<Told, StoreError> {
        match ask {
            Ask::List(user, after, limit) => {
                let limit = limit.clamp(1, CONTACTS_A_PAGE);
                Ok(Told::List(self.state.contacts(&user, after.as_ref(), limit)?))
            }
            Ask::Put(user, contact, name) => self.put_contact(user, contact, name),
            Ask::Import(user, cards) => self.import_contacts(user, cards),
            Ask::Remove(user, contact) => {
                let is_there = self.state.contact(&user, &contact)?.is_some();
                if is_there {
                    self.presence.look_again(&user, &contact);
                    self.change(Change::Contact { user, contact, known: None })?;
                    Counters::add(&self.counters.contacts_removed);
                }
                Ok(Told::Done(is_there))
            }
        }
    }

    fn put_contact(&mut self, user: UserId, contact: UserId, name: Option<String>) -> Result<Told, StoreError> {
        let refused = |kind, details: String| Ok(Told::Refused(Refusal::new(kind, details)));
        if user == contact {
            return refused(Kind::InvalidValue, format!("user: expected another user, got {contact}"));
        }
        if !self.state.user(&contact)?.known {
            return refused(Kind::UnknownRecipient, format!("user: expected a user of this server, got {contact}"));
        }
        let bytes = name.as_ref().map_or(0, String::len);
        if bytes > NAME_BYTES_MAX {
            return refused(Kind::InvalidValue, format!("name: expected at most {NAME_BYTES_MAX} bytes, got {bytes}"));
        }
        let before = self.state.contact(&user, &contact)?;
        let contacts_max = self.limits.people.contacts_max;
        if before.is_none() && self.state.contacts_count(&user)? >= contacts_max as u64 {
            let details = format!("user: expected fewer than {contacts_max} contacts, got one more: remove some");
            return refused(Kind::Quota, details);
        }
        let since = before.as_ref().map_or(self.now.unix_secs, |before| before.since);
        let known = Some(Contact { name, since });
        if before == known {
            return Ok(Told::Done(false));
        }
        // A user that an app's own backend names in a token exists from his first call.
        self.add_user(&user)?;
        self.presence.look_again(&user, &contact);
        self.change(Change::Contact { user, contact, known })?;
        if before.is_none() {
            Counters::add(&self.counters.contacts_added);
        }
        Ok(Told::Done(true))
    }
}

impl<S: Store> State<S> {
    /// What `user` has of another as his contact.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn contact(&mut self, user: &UserId, contact: &UserId) -> Result<Option<Contact>, StoreError> {
        match self.contacts.get(&(user.clone(), contact.clone())) {
            Some(contact) => Ok(contact.clone()),
            None => self.store.contact(user, contact),
        }
    }

    /// The contacts of `user` behind a name, in order, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn contacts(
        &mut self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, Contact)>, StoreError> {
        let mine = self.contacts.iter().filter(|((of, contact), _)| of == user && after.is_none_or(|a| contact > a));
        let recent: Vec<(UserId, Option<Contact>)> =
            mine.map(|((_, contact), known)| (contact.clone(), known.clone())).collect();
        let mut all: BTreeMap<UserId, Contact> =
            self.store.contacts(user, after, limit + recent.len())?.into_iter().collect();
        for (contact, known) in recent {
            match known {
                Some(known) => all.insert(contact, known),
                None => all.remove(&contact),
            };
        }
        Ok(all.into_iter().take(limit).collect())
    }

    /// How many contacts `user` has.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn contacts_count(&mut self, user: &UserId) -> Result<u64, StoreError> {
        let mut count = self.store.contacts_count(user)?;
        for ((of, contact), known) in self.contacts.iter() {
            if of == user {
                let is_stored = self.store.contact(of, contact)?.is_some();
                count = (count + u64::from(known.is_some())).saturating_sub(u64::from(is_stored));
            }
        }
        Ok(count)
    }

    /// Whether each of the two has the other as a contact.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn are_contacts(&mut self, one: &UserId, other: &UserId) -> Result<bool, StoreError> {
        Ok(self.contact(one, other)?.is_some() && self.contact(other, one)?.is_some())
    }

    /// Who sees what `user` posts: contacts of his that have him as a contact too, neither having blocked the other, as far as his privacy
    /// admits them; in order of names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn audience(&mut self, user: &UserId) -> Result<Vec<UserId>, StoreError> {
        let rule = self.rule(user, Aspect::Status)?;
        let mut audience = Vec::new();
        if rule.who == Who::Nobody {
            return Ok(audience);
        }
        for (contact, _) in self.contacts(user, None, ALL)? {
            // Before any look-up of him.
            if !rule.who.admits(true, rule.users.binary_search(&contact).is_ok()) {
                continue;
            }
            if self.contact(&contact, user)?.is_some() && !self.is_cut_off(user, &contact)? {
                audience.push(contact);
            }
        }
        Ok(audience)
    }
}

impl Handle {
    /// Asks about contacts; what changes is answered after the commit.
    ///
    /// # Errors
    /// [`Error::Refused`] for good. Otherwise the loop has ended or the commit failed.
    pub async fn contacts(&self, ask: Ask) -> Result<Told, Error> {
        match self.reply(Request::Contacts(ask)).await? {
            Reply::Contacts(Told::Refused(refusal)) => Err(refusal.into()),
            Reply::Contacts(told) => Ok(told),
            _ => Err(Error::Ended),
        }
    }
}
