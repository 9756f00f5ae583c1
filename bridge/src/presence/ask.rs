//! What is asked over HTTP: how somebody is, and who may see what of the caller.

use natter_protocol::UserId;
use natter_protocol::error::{Kind, Refusal};

use super::{Shown, Sight};
use crate::change::Change;
use crate::engine::{Engine, Reply, Request};
use crate::privacy::{Aspect, Rule, Who};
use crate::store::{Store, StoreError};
use crate::{Error, Handle};

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// How a user is, as another sees him.
    Presence {
        /// Who asks.
        asker: UserId,
        /// For whom.
        user: UserId,
    },
    /// A user's rules.
    Rules(UserId),
    /// These rules of a user are others from now on.
    Put(UserId, Vec<(Aspect, Rule)>),
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// How he looks.
    Presence(Shown),
    /// All rules.
    Rules(Vec<(Aspect, Rule)>),
    /// Whether something changed.
    Done(bool),
    /// It was not done, for good.
    Refused(Refusal),
}

impl<S: Store> Engine<S> {
    pub(crate) fn presence_question(&mut self, ask: Ask) -> Result<Told, StoreError> {
        match ask {
            Ask::Presence { asker, user } => {
                if !self.state.user(&user)?.known {
                    let details = format!("user: expected a user of this server, got {user}");
                    return Ok(Told::Refused(Refusal::new(Kind::UnknownRecipient, details)));
                }
                let sight = if asker == user {
                    Sight { online: true, last_seen: true }
                } else {
                    self.state.sight(&asker, &user)?
                };
                Ok(Told::Presence(sight.of(self.is_as(&user)?)))
            }
            Ask::Rules(user) => {
                let all = Aspect::ALL.into_iter();
                all.map(|aspect| Ok((aspect, self.state.rule(&user, aspect)?)))
                    .collect::<Result<_, _>>()
                    .map(Told::Rules)
            }
            Ask::Put(user, rules) => self.put_rules(&user, rules),
        }
    }

    fn put_rules(&mut self, user: &UserId, rules: Vec<(Aspect, Rule)>) -> Result<Told, StoreError> {
        // A list names contacts: it is as long as theirs.
        let listed_max = self.limits.people.contacts_max;
        for (aspect, rule) in &rules {
            let name = aspect.as_str();
            let details = if (*aspect, rule.who) == (Aspect::Status, Who::Everyone) {
                format!(
                    "{name}.who: expected contacts, except, only or nobody, got everyone: nothing is pushed at strangers"
                )
            } else if rule.users.len() > listed_max {
                format!("{name}.users: expected at most {listed_max}, got {}", rule.users.len())
            } else {
                continue;
            };
            return Ok(Told::Refused(Refusal::new(Kind::InvalidValue, details)));
        }
        // A user that an app's own backend names in a token exists from his first call.
        self.add_user(user)?;
        let mut has_changed = false;
        for (aspect, rule) in rules {
            if self.state.rule(user, aspect)? == rule {
                continue;
            }
            has_changed = true;
            if aspect != Aspect::Status {
                self.presence.look_again_at(user);
            }
            self.change(Change::Privacy { user: user.clone(), aspect, rule })?;
        }
        Ok(Told::Done(has_changed))
    }
}

impl Handle {
    /// Asks about presence and privacy; what changes is answered after the commit.
    ///
    /// # Errors
    /// [`Error::Refused`] for good. Otherwise the loop has ended or the commit failed.
    pub async fn presence(&self, ask: Ask) -> Result<Told, Error> {
        match self.reply(Request::Presence(ask)).await? {
            Reply::Presence(Told::Refused(refusal)) => Err(refusal.into()),
            Reply::Presence(told) => Ok(told),
            _ => Err(Error::Ended),
        }
    }
}
