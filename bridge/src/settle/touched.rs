//! What a slice of a settlement touches: the keys whose values it writes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use natter_protocol::{DeviceId, MediaId, MessageId, N, Seq, UserId};

use crate::change::Change;
use crate::chat_key::ChatKey;
use crate::privacy::Aspect;

/// How many places of inboxes a change takes, or takes away.
pub(super) fn places_of(change: &Change) -> usize {
    match change {
        Change::Message { places, .. } => places.len(),
        Change::StatusGone { places, .. } => places.len(),
        Change::Notice { .. } => 1,
        _ => 0,
    }
}

/// What a slice touches, once each.
#[derive(Default)]
pub(super) struct Touched<'a> {
    pub(super) users: BTreeSet<&'a UserId>,
    pub(super) devices: BTreeSet<(&'a UserId, &'a DeviceId)>,
    pub(super) chats: BTreeSet<&'a ChatKey>,
    pub(super) members: BTreeSet<(&'a ChatKey, &'a UserId)>,
    pub(super) rows: BTreeSet<(&'a UserId, Seq)>,
    pub(super) sessions: BTreeSet<(&'a UserId, &'a str)>,
    pub(super) accounts: BTreeSet<&'a UserId>,
    pub(super) webhooks: BTreeSet<(&'a UserId, &'a DeviceId)>,
    pub(super) media: BTreeSet<&'a MediaId>,
    pub(super) contacts: BTreeSet<(&'a UserId, &'a UserId)>,
    pub(super) statuses: BTreeSet<(&'a ChatKey, N)>,
    pub(super) blocks: BTreeSet<(&'a UserId, &'a UserId)>,
    pub(super) hidden: BTreeSet<(&'a ChatKey, &'a UserId)>,
    pub(super) last_seen: BTreeSet<&'a UserId>,
    pub(super) privacy: BTreeSet<(&'a UserId, Aspect)>,
    pub(super) unheard: BTreeSet<(&'a ChatKey, &'a UserId)>,
    pub(super) groups: BTreeSet<&'a ChatKey>,
    pub(super) redacted: BTreeSet<(&'a ChatKey, N)>,
    pub(super) accepted: Vec<(&'a MessageId, &'a UserId)>,
    /// Inbox ranges that a cursor passed.
    pub(super) passed: Vec<(&'a UserId, Seq, Seq)>,
    pub(super) dropped: BTreeMap<&'a UserId, Seq>,
}

impl<'a> Touched<'a> {
    /// A range of the places that a change takes in inboxes.
    pub(super) fn add_places(&mut self, change: &'a Change, range: Range<usize>) {
        match change {
            Change::Message { message, places, .. } if !range.is_empty() => {
                // No body is there without the number that it has.
                self.chats.insert(&message.chat);
                for place in &places[range] {
                    self.users.insert(&place.user);
                    self.rows.insert((&place.user, place.seq));
                }
            }
            Change::Notice { user, seq, .. } if !range.is_empty() => {
                self.users.insert(user);
                self.rows.insert((user, *seq));
            }
            _ => {}
        }
    }

    /// Everything of a change but its places.
    pub(super) fn add(&mut self, change: &'a Change) {
        match change {
            Change::User { user } => {
                self.users.insert(user);
            }
            Change::Device { user, device, .. }
            | Change::DeviceSeen { user, device, .. }
            | Change::DeviceInfo { user, device, .. } => {
                self.devices.insert((user, device));
            }
            Change::DeviceGone { user, device, cursor } => {
                self.devices.insert((user, device));
                self.passed.push((user, *cursor, Seq::MAX >> 1));
            }
            Change::Message { message, .. } => {
                self.chats.insert(&message.chat);
                self.accepted.push((&message.id, &message.from));
                if message.chat.is_status() {
                    self.statuses.insert((&message.chat, message.n));
                }
            }
            Change::Cursor { user, device, from, upto, .. } | Change::Skipped { user, device, from, upto, .. } => {
                self.devices.insert((user, device));
                self.passed.push((user, *from, *upto));
            }
            Change::Mark { chat, member, .. } => {
                self.chats.insert(chat);
                self.members.insert((chat, member));
            }
            Change::Dropped { user, upto, .. } => {
                let dropped = self.dropped.entry(user).or_default();
                *dropped = (*dropped).max(*upto);
            }
            Change::Session { user, client_id, .. } | Change::SessionGone { user, client_id } => {
                self.sessions.insert((user, client_id));
            }
            Change::Password { user, .. } | Change::Disabled { user, .. } => {
                self.accounts.insert(user);
            }
            Change::Webhook { user, device, .. } => {
                self.webhooks.insert((user, device));
            }
            Change::Media(file) => {
                self.media.insert(&file.id);
            }
            Change::MediaKept { id, .. } | Change::MediaGone { id, .. } => {
                self.media.insert(id);
            }
            Change::Contact { user, contact, .. } => {
                self.contacts.insert((user, contact));
            }
            Change::Block { user, other, .. } => {
                self.blocks.insert((user, other));
            }
            Change::Hidden { chat, member, .. } => {
                self.chats.insert(chat);
                self.hidden.insert((chat, member));
            }
            Change::LastSeen { user, .. } => {
                self.last_seen.insert(user);
            }
            Change::Privacy { user, aspect, .. } => {
                self.privacy.insert((user, *aspect));
            }
            Change::Unheard { chat, member, .. } => {
                self.unheard.insert((chat, member));
            }
            Change::Group { chat, .. } => {
                self.chats.insert(chat);
                self.groups.insert(chat);
            }
            Change::Member { chat, user, .. } => {
                self.chats.insert(chat);
                self.members.insert((chat, user));
            }
            Change::Redacted { chat, n, .. } => {
                self.chats.insert(chat);
                self.redacted.insert((chat, *n));
            }
            Change::StatusGone { chat, n, .. } => {
                self.statuses.insert((chat, *n));
            }
            // The receipt that a merge speaks of was settled with its own row, or is still to come with it.
            Change::Notice { .. }
            | Change::Merged { .. }
            | Change::Counted { .. }
            | Change::Kept { .. }
            | Change::Revoked(_) => {}
            // It stands in the group's row.
            Change::Invite { .. } => {}
        }
    }
}
