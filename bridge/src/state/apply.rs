//! The one function that takes a [`Change`] in: in the running server, at a start, and in tests. What it changes is pinned until that is
//! settled.

use std::sync::Arc;

use natter_protocol::{MediaId, Seq, UserId};

use super::{DEDUPE_SECS, State};
use crate::change::{Accepted, Account, Change, Item, Place, Row, Tick};
use crate::chat_key::ChatKey;
use crate::media::row::MediaFile;
use crate::status::Status;
use crate::store::{DeviceRow, Store, StoreError};

impl<S: Store> State<S> {
    /// Takes one fact in.
    ///
    /// # Errors
    /// When the store cannot be read. The state is of no use then, and must be recovered.
    pub fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        self.pin(change)?;
        match change {
            Change::User { user } => self.user(user)?.known = true,
            Change::Device { user, device, cursor, offset, at } => {
                let row = DeviceRow { cursor: *cursor, offset: *offset, active_at: *at, ..DeviceRow::default() };
                self.user(user)?.devices.insert(device.clone(), row);
            }
            Change::DeviceGone { user, device, cursor } => {
                let user = self.user(user)?;
                user.devices.remove(device);
                user.bury(*cursor, Seq::MAX - 1);
            }
            Change::DeviceSeen { user, device, at } => {
                if let Some(row) = self.user(user)?.devices.get_mut(device) {
                    row.active_at = row.active_at.max(*at);
                }
            }
            Change::DeviceInfo { user, device, linked_at, seen_at, label } => {
                if let Some(row) = self.user(user)?.devices.get_mut(device) {
                    row.linked_at = *linked_at;
                    row.seen_at = row.seen_at.max(*seen_at);
                    row.label = label.clone();
                }
            }
            Change::Message { message, hash, at, grant, places } => {
                if message.chat.is_status() {
                    let status = Status::new(Arc::clone(message), *at, granted(grant.as_deref()), places);
                    self.statuses.put((message.chat.clone(), message.n), Some(Arc::new(status)));
                } else if message.chat.is_group() {
                    self.groups.grant(message, granted(grant.as_deref()));
                } else if let Some(media) = granted(grant.as_deref()) {
                    let users = places.iter().map(|place| place.user.clone());
                    self.media_grants.entry(media).or_default().extend(users);
                }
                let accepted = Accepted {
                    chat: message.chat.clone(),
                    n: message.n,
                    timestamp: message.timestamp,
                    hash: *hash,
                    until: at + DEDUPE_SECS,
                };
                let chat = self.chat(&message.chat)?;
                chat.last_n = chat.last_n.max(message.n);
                chat.recent.insert(message.n, (message.from.clone(), message.id.clone()));
                self.accepted.entry(message.id.clone()).or_default().push((message.from.clone(), accepted));
                for place in places {
                    let row = Row {
                        at: *at,
                        offset: place.offset,
                        only: place.only.clone(),
                        except: place.except.clone(),
                        item: Item::Message(Arc::clone(message)),
                    };
                    self.user(&place.user)?.keep(place.seq, row);
                }
            }
            Change::Notice { user, seq, row } => self.user(user)?.keep(*seq, row.clone()),
            Change::Merged { user, seq, n, id, timestamp } => {
                if let Some(Row { item: Item::Receipt(receipt), .. }) = self.user(user)?.rows.get_mut(seq) {
                    receipt.n = *n;
                    receipt.id = id.clone();
                    receipt.timestamp = *timestamp;
                }
            }
            Change::Counted { user, seq, receipt } => {
                if let Some(Row { item: Item::GroupReceipt(unsent), .. }) = self.user(user)?.rows.get_mut(seq) {
                    unsent.clone_from(receipt);
                }
            }
            Change::Cursor { user, device, from, upto, offset } => {
                let user = self.user(user)?;
                if let Some(row) = user.devices.get_mut(device) {
                    row.cursor = row.cursor.max(*upto);
                    row.offset = row.offset.max(*offset);
                }
                user.bury(*from, *upto);
            }
            Change::Skipped { user, device, from, upto, offset } => {
                let user = self.user(user)?;
                if let Some(row) = user.devices.get_mut(device) {
                    row.skipped = row.skipped.max(*upto);
                    row.offset = row.offset.max(*offset);
                }
                user.bury(*from, *upto);
            }
            Change::Mark { chat, member, tick, n } => {
                let row = self.chat(chat)?.members.entry(member.clone()).or_default();
                match tick {
                    Tick::Delivered => row.delivered_n = row.delivered_n.max(*n),
                    Tick::Read => row.read_n = row.read_n.max(*n),
                }
            }
            Change::Dropped { user, upto, offset } => {
                let user = self.user(user)?;
                user.base = (user.base.0.max(*upto), user.base.1.max(*offset));
                user.rows = user.rows.split_off(&(upto + 1));
            }
            Change::Kept { user, message, until: _ } => {
                self.kept.insert((user.clone(), message.chat.clone(), message.n), Arc::clone(message));
            }
            Change::Session { user, client_id, session } => {
                self.sessions.put((user.clone(), client_id.clone()), Some(session.clone()));
            }
            Change::SessionGone { user, client_id } => self.sessions.put((user.clone(), client_id.clone()), None),
            Change::Revoked(revoked) => {
                self.revoked.insert(revoked.clone());
            }
            Change::Password { user, hash } => self.change_account(user, |account| account.password = hash.clone())?,
            Change::Disabled { user, disabled } => {
                if *disabled {
                    self.disabled.insert(user.clone());
                } else {
                    self.disabled.remove(user);
                }
                self.change_account(user, |account| account.disabled = *disabled)?;
            }
            Change::Webhook { user, device, webhook } => {
                let key = (user.clone(), device.clone());
                match webhook {
                    Some(webhook) => self.webhooks.insert(key, webhook.clone()),
                    None => self.webhooks.remove(&key),
                };
            }
            Change::Media(file) => self.media.put(file.id.clone(), Some(MediaFile::clone(file))),
            Change::MediaKept { id, owner: _, until } => {
                let file = self.media(id)?.map(|file| MediaFile { until: file.until.max(*until), ..file });
                self.media.put(id.clone(), file);
            }
            Change::MediaGone { id, owner: _ } => self.media.put(id.clone(), None),
            Change::Contact { user, contact, known } => {
                self.contacts.put((user.clone(), contact.clone()), known.clone());
            }
            Change::Block { user, other, since } => {
                self.user(user)?.blocks = true;
                self.blocks.put((user.clone(), other.clone()), *since);
            }
            Change::Hidden { chat, member, after, upto } => {
                self.user(member)?.hides = true;
                self.chat(chat)?.hidden.entry(member.clone()).or_default().add(*after, *upto);
            }
            Change::Redacted { chat, n, redacted } => {
                self.chat(chat)?.redacted.note(*n, *redacted);
            }
            Change::LastSeen { user, at } => {
                let before = self.last_seen.get(user).copied().unwrap_or_default();
                self.last_seen.put(user.clone(), before.max(*at));
            }
            Change::Privacy { user, aspect, rule } => {
                let mut privacy = self.privacy(user)?;
                privacy.set(*aspect, rule.who);
                self.user(user)?.privacy = Some(privacy);
                self.privacy_lists.put((user.clone(), *aspect), Arc::clone(&rule.users));
            }
            Change::Unheard { chat, member, oldest } => self.unheard.put((chat.clone(), member.clone()), *oldest),
            Change::Group { chat, group } => self.chat(chat)?.group = group.as_deref().cloned(),
            Change::Member { chat, user, standing } => {
                let row = self.chat(chat)?.members.entry(user.clone()).or_default();
                (row.joined_n, row.left_n) = (standing.joined_n, standing.left_n);
                row.is_admin = standing.is_admin;
                self.groups.is_in.put((user.clone(), chat.clone()), standing.left_n.is_none());
            }
            Change::Invite { chat, code, is_good } => {
                self.groups.invites.put(Arc::clone(code), is_good.then(|| chat.clone()));
            }
            Change::StatusGone { chat, n, places } => {
                self.statuses.put((chat.clone(), *n), None);
                for (user, seq) in places {
                    // Who is not in memory has nothing that is not settled.
                    if let Some(user) = self.users.get_mut(user) {
                        user.rows.remove(seq);
                    }
                }
            }
        }
        Ok(())
    }

    fn change_account(&mut self, user: &UserId, change: impl FnOnce(&mut Account)) -> Result<(), StoreError> {
        let mut account = self.account(user)?;
        change(&mut account);
        self.accounts.put(user.clone(), account);
        Ok(())
    }

    fn pin(&mut self, change: &Change) -> Result<(), StoreError> {
        for user in users_of(change) {
            self.user(user)?.pins += 1;
        }
        if let Some(chat) = chat_of(change) {
            self.chat(chat)?.pins += 1;
        }
        Ok(())
    }

    /// The counterpart of [`State::pin`], once the change is settled.
    pub(crate) fn unpin(&mut self, change: &Change) {
        for user in users_of(change) {
            if let Some(user) = self.users.get_mut(user) {
                user.pins = user.pins.saturating_sub(1);
            }
        }
        if let Some(chat) = chat_of(change).and_then(|key| self.chats.get_mut(key)) {
            chat.pins = chat.pins.saturating_sub(1);
            if let Change::Message { message, .. } = change {
                chat.recent.remove(&message.n);
            }
        }
        match change {
            Change::Message { message, grant, places, .. } => {
                if message.chat.is_status() {
                    self.statuses.unpin(&(message.chat.clone(), message.n));
                } else if message.chat.is_group() {
                    self.groups.ungrant(message, granted(grant.as_deref()));
                } else {
                    self.unpin_grants(grant.as_deref(), places);
                }
                if let Some(all) = self.accepted.get_mut(&message.id) {
                    all.retain(|(from, _)| *from != message.from);
                    if all.is_empty() {
                        self.accepted.remove(&message.id);
                    }
                }
            }
            Change::Session { user, client_id, .. } | Change::SessionGone { user, client_id } => {
                self.sessions.unpin(&(user.clone(), client_id.clone()));
            }
            Change::Password { user, .. } | Change::Disabled { user, .. } => self.accounts.unpin(user),
            Change::Kept { user, message, .. } => {
                self.kept.remove(&(user.clone(), message.chat.clone(), message.n));
            }
            Change::Media(file) => self.media.unpin(&file.id),
            Change::MediaKept { id, .. } | Change::MediaGone { id, .. } => self.media.unpin(id),
            Change::Contact { user, contact, .. } => self.contacts.unpin(&(user.clone(), contact.clone())),
            Change::Block { user, other, .. } => self.blocks.unpin(&(user.clone(), other.clone())),
            Change::LastSeen { user, .. } => self.last_seen.unpin(user),
            Change::Privacy { user, aspect, .. } => self.privacy_lists.unpin(&(user.clone(), *aspect)),
            Change::Unheard { chat, member, .. } => self.unheard.unpin(&(chat.clone(), member.clone())),
            Change::Member { chat, user, .. } => self.groups.is_in.unpin(&(user.clone(), chat.clone())),
            Change::Invite { code, .. } => self.groups.invites.unpin(code),
            Change::StatusGone { chat, n, .. } => self.statuses.unpin(&(chat.clone(), *n)),
            _ => {}
        }
    }

    fn unpin_grants(&mut self, grant: Option<&str>, places: &[Place]) {
        let Some(media) = granted(grant) else { return };
        let Some(users) = self.media_grants.get_mut(&media) else { return };
        for place in places {
            if let Some(at) = users.iter().position(|user| *user == place.user) {
                users.swap_remove(at);
            }
        }
        if users.is_empty() {
            self.media_grants.remove(&media);
        }
    }
}

/// The media that a message grants.
pub(crate) fn granted(grant: Option<&str>) -> Option<MediaId> {
    grant.and_then(|id| MediaId::parse(id).ok())
}

fn users_of(change: &Change) -> Vec<&UserId> {
    match change {
        Change::Message { places, .. } => places.iter().map(|place| &place.user).collect(),
        Change::User { user }
        | Change::Device { user, .. }
        | Change::DeviceGone { user, .. }
        | Change::DeviceSeen { user, .. }
        | Change::DeviceInfo { user, .. }
        | Change::Notice { user, .. }
        | Change::Merged { user, .. }
        | Change::Counted { user, .. }
        | Change::Cursor { user, .. }
        | Change::Skipped { user, .. }
        | Change::Block { user, .. }
        | Change::Privacy { user, .. }
        | Change::Dropped { user, .. } => vec![user],
        Change::Hidden { member, .. } => vec![member],
        Change::Mark { .. }
        | Change::Kept { .. }
        | Change::Session { .. }
        | Change::SessionGone { .. }
        | Change::Media(_)
        | Change::MediaKept { .. }
        | Change::MediaGone { .. }
        | Change::Contact { .. }
        | Change::StatusGone { .. }
        | Change::LastSeen { .. }
        | Change::Unheard { .. }
        | Change::Group { .. }
        | Change::Member { .. }
        | Change::Invite { .. }
        | Change::Redacted { .. }
        | Change::Revoked(_)
        | Change::Password { .. }
        | Change::Disabled { .. }
        | Change::Webhook { .. } => Vec::new(),
    }
}

fn chat_of(change: &Change) -> Option<&ChatKey> {
    match change {
        Change::Message { message, .. } => Some(&message.chat),
        Change::Mark { chat, .. }
        | Change::Hidden { chat, .. }
        | Change::Group { chat, .. }
        | Change::Member { chat, .. }
        | Change::Redacted { chat, .. } => Some(chat),
        _ => None,
    }
}
