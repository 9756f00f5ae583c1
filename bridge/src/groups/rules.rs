//! The commands that change a group: who may do what, and what all members see of it.
//!
//! A change is a message of the group's conversation, of type `system`, and the facts that it tells, in one batch. So it has a number, an
//! answer that a repeat gets again, and a place in the inbox of everybody who was in the group before or is after it.

use std::sync::Arc;

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::group::{Act, Command, MEMBERS_MAX, System};
use natter_protocol::link::Answer;
use natter_protocol::{Chat, DeviceId, GroupId, MessageId, N, UserId};

use super::marks::Risen;
use super::row::{GroupRow, Standing};
use crate::change::{Accepted, Change, Message, Place};
use crate::chat_key::ChatKey;
use crate::engine::Engine;
use crate::sender::{Ruling, conflict, ruled};
use crate::stats::Counters;
use crate::store::{Store, StoreError};

/// Which command, by whom, and how it is called.
struct Line<'a> {
    chat: ChatKey,
    by: &'a UserId,
    id: MessageId,
    hash: [u8; 16],
}

impl<S: Store> Engine<S> {
    /// Does what a command says, once, whatever is tried: a repeat gets the first answer again. The chat is the group's.
    pub(crate) fn group_command(
        &mut self,
        user: &UserId,
        id: Option<MessageId>,
        stamp: u128,
        command: Command,
    ) -> Ruling<(Answer, Accepted, Chat)> {
        let Command { id: _, act, hash } = command;
        let told = |id: MessageId, accepted: Accepted| {
            let chat = accepted.chat.group().map_or(Chat::Status, Chat::Group);
            Ok(Ok((Answer::Message { id, n: accepted.n, timestamp: accepted.timestamp }, accepted, chat)))
        };
        let id = match id {
            Some(id) => {
                if let Some(first) = self.state.accepted(&id, user)? {
                    if first.hash != hash {
                        return Ok(Err(conflict(id)));
                    }
                    Counters::add(&self.counters.repeats);
                    return told(id, first);
                }
                id
            }
            None => MessageId::from_stamp(stamp),
        };
        let line = |chat: ChatKey| Line { chat, by: user, id: id.clone(), hash };
        let accepted = ruled!(match act {
            Act::Create { group, subject, description, users } => {
                let group = match group {
                    Some(group) => group,
                    None => made_of(stamp)?,
                };
                self.create_group(line(ChatKey::of_group(&group)), &group, subject, description, users)
            }
            Act::Add(group, users) => {
                let chat = ruled!(self.changeable(user, &group));
                self.add_members(line(chat), users)
            }
            Act::Remove(group, users) => {
                let chat = ruled!(self.changeable(user, &group));
                self.remove_members(line(chat), users, stamp)
            }
            Act::Leave(group) => {
                let chat = ruled!(self.group_of(user, &group, "chat"));
                self.remove_members(line(chat), vec![user.clone()], stamp)
            }
            Act::Promote(group, users) => {
                let chat = ruled!(self.changeable(user, &group));
                self.set_admins(line(chat), users, true)
            }
            Act::Demote(group, users) => {
                let chat = ruled!(self.changeable(user, &group));
                self.set_admins(line(chat), users, false)
            }
            Act::Change { group, subject, description } => {
                let chat = ruled!(self.changeable(user, &group));
                self.change_group(line(chat), subject, description)
            }
            Act::Join(code) => {
                let Some(chat) = self.state.invited_by(&code)? else {
                    let details = "invite: expected the code of an invite link that is good, got another";
                    return Ok(Err(Refusal::new(Kind::UnknownRecipient, details)));
                };
                self.join_group(line(chat))
            }
        });
        Counters::add(&self.counters.group_changes);
        told(id, accepted)
    }

    /// The conversation of a group that `user` is in. Of one that he is not in he hears what he would if it were not there.
    pub(crate) fn group_of(&mut self, user: &UserId, group: &GroupId, member: &str) -> Ruling<ChatKey> {
        let chat = ChatKey::of_group(group);
        if self.state.chat(&chat)?.member(user).is_some() {
            return Ok(Ok(chat));
        }
        Ok(Err(no_group(member, &Chat::Group(group.clone()))))
    }

    /// As [`Engine::group_of`], of one that he may change.
    pub(crate) fn changeable(&mut self, user: &UserId, group: &GroupId) -> Ruling<ChatKey> {
        let chat = ruled!(self.group_of(user, group, "chat"));
        if self.state.chat(&chat)?.member(user).is_some_and(|row| row.is_admin) {
            return Ok(Ok(chat));
        }
        let details = format!("chat: expected a group whose admin {user} is, got g:{group}: ask one of its admins");
        Ok(Err(Refusal::new(Kind::NotAllowed, details)))
    }

    fn create_group(
        &mut self,
        line: Line<'_>,
        group: &GroupId,
        subject: String,
        description: Option<String>,
        mut users: Vec<UserId>,
    ) -> Ruling<Accepted> {
        let known = self.state.chat(&line.chat)?;
        if known.last_n > 0 || known.group.is_some() {
            let details = format!("chat: expected a group id that is not used, got g:{group}: make another one");
            return Ok(Err(Refusal::new(Kind::Conflict, details)));
        }
        users.retain(|user| user != line.by);
        ruled!(self.may_come(line.by, &users, 1));
        ruled!(self.has_room_for_group(line.by));
        let description = description.filter(|text| !text.is_empty());
        let row = GroupRow {
            subject: subject.as_str().into(),
            description: description.as_deref().map(Arc::from),
            created_by: line.by.clone(),
            created_at: self.now.unix_secs,
            invite: None,
        };
        self.change(Change::Group { chat: line.chat.clone(), group: Some(Box::new(row)) })?;
        self.stand(&line.chat, line.by, Standing { joined_n: 0, left_n: None, is_admin: true })?;
        for user in &users {
            self.stand(&line.chat, user, Standing { joined_n: 0, left_n: None, is_admin: false })?;
        }
        let body = System::Created { subject: &subject, description: description.as_deref(), users: &users };
        self.tell_members(&line, &body).map(Ok)
    }

    fn add_members(&mut self, line: Line<'_>, mut users: Vec<UserId>) -> Ruling<Accepted> {
        let known = self.state.chat(&line.chat)?;
        users.retain(|user| known.member(user).is_none());
        let count = known.members_now().count();
        if users.is_empty() {
            return Ok(Err(nobody("somebody who is not a member", "members only")));
        }
        ruled!(self.may_come(line.by, &users, count));
        self.bring_in(line, &users)
    }

    fn join_group(&mut self, line: Line<'_>) -> Ruling<Accepted> {
        let known = self.state.chat(&line.chat)?;
        let count = known.members_now().count();
        if known.member(line.by).is_some() {
            return Ok(Err(Refusal::new(
                Kind::InvalidValue,
                "invite: expected a group that you are not in, got yours",
            )));
        }
        ruled!(self.fits(1, count));
        ruled!(self.has_room_for_group(line.by));
        let users = [line.by.clone()];
        self.bring_in(line, &users)
    }

    /// They are members from now on, and the line that says so is the first that is theirs.
    fn bring_in(&mut self, line: Line<'_>, users: &[UserId]) -> Ruling<Accepted> {
        let joined_n = self.state.chat(&line.chat)?.last_n;
        let mut subject = Arc::from("");
        for user in users {
            let known = self.state.chat(&line.chat)?;
            subject = known.group.as_ref().map_or(subject, |group| Arc::clone(&group.subject));
            // Of the time between nothing is his.
            let left_n = known.members.get(user).and_then(|row| row.left_n);
            if let Some(after) = left_n.filter(|after| *after < joined_n) {
                let (chat, member) = (line.chat.clone(), user.clone());
                self.change(Change::Hidden { chat, member, after, upto: joined_n })?;
            }
            self.stand(&line.chat, user, Standing { joined_n, left_n: None, is_admin: false })?;
        }
        self.tell_members(&line, &System::UserAdded { users, subject: &subject }).map(Ok)
    }

    /// They are members up to the line that says that they are none, which is the last that they get.
    fn remove_members(&mut self, line: Line<'_>, mut users: Vec<UserId>, stamp: u128) -> Ruling<Accepted> {
        let known = self.state.chat(&line.chat)?;
        users.retain(|user| known.member(user).is_some());
        if users.is_empty() {
            return Ok(Err(nobody("a member", "none")));
        }
        let accepted = self.tell_members(&line, &System::UserRemoved(&users))?;
        for user in &users {
            let Some(row) = self.state.chat(&line.chat)?.member(user).copied() else { continue };
            let standing = Standing { joined_n: row.joined_n, left_n: Some(accepted.n), is_admin: false };
            self.stand(&line.chat, user, standing)?;
            self.note_risen(&line.chat, Risen { member: user.clone(), before: row });
        }
        self.keep_an_admin(line, stamp)?;
        Ok(Ok(accepted))
    }

    /// A group without an admin gets the member who has been there longest; one without members is no more.
    fn keep_an_admin(&mut self, line: Line<'_>, stamp: u128) -> Result<(), StoreError> {
        let known = self.state.chat(&line.chat)?;
        let Some(group) = known.group.clone() else { return Ok(()) };
        if known.members_now().any(|(_, row)| row.is_admin) {
            return Ok(());
        }
        let oldest = known.members_now().min_by_key(|(user, row)| (row.joined_n, (*user).clone()));
        let Some((heir, row)) = oldest.map(|(user, row)| (user.clone(), *row)) else {
            if let Some(code) = group.invite {
                self.change(Change::Invite { chat: line.chat.clone(), code, is_good: false })?;
            }
            return self.change(Change::Group { chat: line.chat, group: None });
        };
        self.stand(&line.chat, &heir, Standing { joined_n: row.joined_n, left_n: None, is_admin: true })?;
        // No client has asked for it: its name is the server's, and none that a stamp makes.
        let id = self.unused_id(line.by, stamp)?;
        let line = Line { id, ..line };
        self.tell_members(&line, &System::AdminAdded(&[heir])).map(|_| ())
    }

    /// A name for a line that no client has asked for: not of a stamp's form, and not one that `by` has used.
    fn unused_id(&mut self, by: &UserId, stamp: u128) -> Result<MessageId, StoreError> {
        let mut count = 0_u64;
        loop {
            let id = MessageId::parse(&format!("system:{stamp:032x}:{count}"))
                .map_err(|e| StoreError::Corrupt { expected: "a message id", got: e.to_string() })?;
            if self.state.accepted(&id, by)?.is_none() {
                return Ok(id);
            }
            count += 1;
        }
    }

    fn set_admins(&mut self, line: Line<'_>, mut users: Vec<UserId>, is_admin: bool) -> Ruling<Accepted> {
        let known = self.state.chat(&line.chat)?;
        users.retain(|user| known.member(user).is_some_and(|row| row.is_admin != is_admin));
        if users.is_empty() {
            let (expected, got) = if is_admin { ("a member who is no admin", "none") } else { ("an admin", "none") };
            return Ok(Err(nobody(expected, got)));
        }
        if !is_admin && known.members_now().filter(|(_, row)| row.is_admin).count() == users.len() {
            let details = "users: expected that an admin is left, got all of them: make somebody else one first";
            return Ok(Err(Refusal::new(Kind::InvalidValue, details)));
        }
        for user in &users {
            let joined_n = self.state.chat(&line.chat)?.member(user).map_or(0, |row| row.joined_n);
            self.stand(&line.chat, user, Standing { joined_n, left_n: None, is_admin })?;
        }
        let body = if is_admin { System::AdminAdded(&users) } else { System::AdminRemoved(&users) };
        self.tell_members(&line, &body).map(Ok)
    }

    fn change_group(
        &mut self,
        line: Line<'_>,
        subject: Option<String>,
        description: Option<String>,
    ) -> Ruling<Accepted> {
        let Some(mut group) = self.state.chat(&line.chat)?.group.clone() else {
            return Ok(Err(Refusal::new(Kind::UnknownRecipient, "chat: expected a group, got none")));
        };
        if let Some(subject) = &subject {
            group.subject = subject.as_str().into();
        }
        if let Some(description) = &description {
            group.description = Some(description.as_str().into()).filter(|text: &Arc<str>| !text.is_empty());
        }
        self.change(Change::Group { chat: line.chat.clone(), group: Some(Box::new(group)) })?;
        let body = System::Changed { subject: subject.as_deref(), description: description.as_deref() };
        self.tell_members(&line, &body).map(Ok)
    }

    fn stand(&mut self, chat: &ChatKey, user: &UserId, standing: Standing) -> Result<(), StoreError> {
        self.change(Change::Member { chat: chat.clone(), user: user.clone(), standing })
    }

    /// Whether `by` may bring these users into a group of `count`.
    fn may_come(&mut self, by: &UserId, users: &[UserId], count: usize) -> Ruling<()> {
        ruled!(self.fits(users.len(), count));
        for user in users {
            if !self.state.user(user)?.known {
                let details = format!("users: expected users of this server, got {user}");
                return Ok(Err(Refusal::new(Kind::UnknownRecipient, details)));
            }
            if self.state.is_cut_off(by, user)? {
                let details = format!("users: expected users who may be added by {by}, got {user}");
                return Ok(Err(Refusal::new(Kind::NotAllowed, details)));
            }
            ruled!(self.has_room_for_group(user));
        }
        Ok(Ok(()))
    }

    fn fits(&self, more: usize, count: usize) -> Ruling<()> {
        let max = self.limits.groups.members_max.min(MEMBERS_MAX);
        if count + more <= max {
            return Ok(Ok(()));
        }
        let details = format!("users: expected at most {max} members, got {count} and {more} more: remove some first");
        Ok(Err(Refusal::new(Kind::Quota, details)))
    }

    fn has_room_for_group(&mut self, user: &UserId) -> Ruling<()> {
        let max = self.limits.groups.groups_max;
        if self.state.groups_of(user, None, max)?.len() < max {
            return Ok(Ok(()));
        }
        let details = format!("expected that {user} is in fewer than {max} groups, got {max}: leave some first");
        Ok(Err(Refusal::new(Kind::Quota, details)))
    }

    /// Puts a line into the group: everybody who is in it now has it, the device that asked for it too.
    fn tell_members(&mut self, line: &Line<'_>, body: &System<'_>) -> Result<Accepted, StoreError> {
        let known = self.state.chat(&line.chat)?;
        let n: N = known.last_n + 1;
        let users: Vec<UserId> = known.members_now().map(|(user, _)| user.clone()).collect();
        let body = String::from_utf8(body.body(line.by))
            .map_err(|e| StoreError::Corrupt { expected: "a body in UTF-8", got: e.to_string() })?;
        let (timestamp, at) = (self.now.unix_secs, self.now.server_secs);
        let (chat, from, id) = (line.chat.clone(), line.by.clone(), line.id.clone());
        let message = Arc::new(Message { chat: chat.clone(), n, from, id, timestamp, body: Arc::from(body) });
        let bytes = message.bytes();
        let places = users.iter().map(|user| self.place(user, None, None, bytes)).collect::<Result<Vec<Place>, _>>()?;
        self.change(Change::Message { message, hash: line.hash, at, grant: None, places })?;
        for user in users {
            self.keep_lag_bounded(&user)?;
            self.hungry.insert(user);
        }
        Ok(Accepted { chat, n, timestamp, hash: line.hash, until: at })
    }

    /// Where a message to a group goes: to its other members, and to the sender's other devices.
    pub(crate) fn group_places(
        &mut self,
        chat: &ChatKey,
        sender: &UserId,
        device: &DeviceId,
        bytes: u64,
    ) -> Result<Vec<Place>, StoreError> {
        let members: Vec<UserId> = self.state.chat(chat)?.members_now().map(|(user, _)| user.clone()).collect();
        let mut places = Vec::with_capacity(members.len());
        for member in members {
            if member != *sender {
                places.push(self.place(&member, None, None, bytes)?);
            } else if self.state.user(sender)?.devices.keys().any(|other| other != device) {
                places.push(self.place(sender, None, Some(device.clone()), bytes)?);
            }
        }
        Ok(places)
    }
}

/// What is said of a group that one is not in, and of one that is not there.
pub(crate) fn no_group(member: &str, chat: &Chat) -> Refusal {
    let details = format!("{member}: expected a group that you are a member of, got {chat}");
    Refusal::new(Kind::UnknownRecipient, details)
}

fn nobody(expected: &str, got: &str) -> Refusal {
    Refusal::new(Kind::InvalidValue, format!("users: expected {expected}, got {got}"))
}

fn made_of(stamp: u128) -> Result<GroupId, StoreError> {
    GroupId::parse(&format!("{stamp:032x}"))
        .map_err(|e| StoreError::Corrupt { expected: "a group id", got: e.to_string() })
}
