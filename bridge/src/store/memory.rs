//! The store in memory: the reference that the others are compared with, and what tests of the rules run on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use natter_protocol::{DeviceId, MediaId, MessageId, N, Seq, UserId};

use super::{Append, DeviceRow, InboxPlace, KEPT_MAX, MemberRow, Settlement, Store, StoreError, UserRow, Waits};
use crate::change::{Accepted, Account, Item, Message, Revoked, Row, Session, Webhook};
use crate::chat_key::ChatKey;
use crate::contacts::Contact;
use crate::edits::Redacted;
use crate::groups::row::GroupRow;
use crate::hidden::Hidden;
use crate::media::row::{MediaFile, MediaGrant, MediaUse};
use crate::privacy::{Aspect, Rule, Who};
use crate::status::Status;

/// Tables as maps. A clone is a snapshot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    journal: BTreeMap<(u8, u64), Vec<u8>>,
    settled: BTreeMap<u8, u64>,
    users: BTreeMap<UserId, UserRow>,
    devices: BTreeMap<(UserId, DeviceId), DeviceRow>,
    chats: BTreeMap<ChatKey, N>,
    members: BTreeMap<(ChatKey, UserId), MemberRow>,
    messages: BTreeMap<(ChatKey, N), Arc<Message>>,
    /// How many rows point to a message: inbox rows, kept ones and statuses.
    pointers: BTreeMap<(ChatKey, N), usize>,
    kept: BTreeMap<(UserId, ChatKey, N), u64>,
    inbox: BTreeMap<(UserId, Seq), Row>,
    accepted: BTreeMap<(MessageId, UserId), Accepted>,
    sessions: BTreeMap<(UserId, String), Session>,
    media: BTreeMap<MediaId, MediaFile>,
    grants: BTreeSet<MediaGrant>,
    contacts: BTreeMap<(UserId, UserId), Contact>,
    statuses: BTreeMap<(ChatKey, N), Status>,
    blocks: BTreeMap<(UserId, UserId), u64>,
    hidden: BTreeMap<(ChatKey, UserId), Hidden>,
    last_seen: BTreeMap<UserId, u64>,
    privacy: BTreeMap<(UserId, Aspect), Rule>,
    unheard: BTreeMap<(ChatKey, UserId), (N, u64)>,
    groups: BTreeMap<ChatKey, GroupRow>,
    media_groups: BTreeSet<(MediaId, ChatKey, N)>,
    redacted: BTreeMap<(ChatKey, N), Redacted>,
    revoked: Vec<Revoked>,
    accounts: BTreeMap<UserId, Account>,
    webhooks: BTreeMap<(UserId, DeviceId), Webhook>,
    server_secs: u64,
}

impl Memory {
    fn rows<'a>(&'a self, user: &UserId, after: Seq, upto: Seq) -> impl Iterator<Item = (Seq, &'a Row)> {
        let from = (user.clone(), after.saturating_add(1));
        let to = (user.clone(), upto.max(after.saturating_add(1)));
        self.inbox.range(from..=to).filter(move |((_, seq), _)| *seq <= upto).map(|((_, seq), row)| (*seq, row))
    }

    fn insert_row(&mut self, user: &UserId, seq: Seq, row: &Row) {
        if let Item::Message(message) = &row.item {
            self.point(message.chat.clone(), message.n);
        }
        let old = self.inbox.insert((user.clone(), seq), row.clone());
        self.unpoint_row(old);
    }

    fn remove_row(&mut self, user: &UserId, seq: Seq) {
        let old = self.inbox.remove(&(user.clone(), seq));
        self.unpoint_row(old);
    }

    fn unpoint_row(&mut self, row: Option<Row>) {
        if let Some(Row { item: Item::Message(message), .. }) = row {
            self.unpoint((message.chat.clone(), message.n));
        }
    }

    fn keep(&mut self, user: &UserId, message: &Message, until: u64) {
        if self.kept.insert((user.clone(), message.chat.clone(), message.n), until).is_none() {
            self.point(message.chat.clone(), message.n);
        }
        let mut mine: Vec<_> = self.kept.iter().filter(|((of, ..), _)| of == user).collect();
        mine.sort_by_key(|((_, chat, n), until)| (std::cmp::Reverse(**until), chat.clone(), *n));
        let over: Vec<_> = mine.into_iter().skip(KEPT_MAX).map(|(key, _)| key.clone()).collect();
        over.into_iter().for_each(|key| self.forget(key));
    }

    fn forget(&mut self, key: (UserId, ChatKey, N)) {
        if self.kept.remove(&key).is_some() {
            self.unpoint((key.1, key.2));
        }
    }

    fn point(&mut self, chat: ChatKey, n: N) {
        *self.pointers.entry((chat, n)).or_insert(0) += 1;
    }

    fn unpoint(&mut self, key: (ChatKey, N)) {
        if let Some(count) = self.pointers.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.pointers.remove(&key);
                self.messages.remove(&key);
            }
        }
    }
}

impl Store for Memory {
    fn append(&mut self, log: u8, no: u64, delta: &[u8]) -> Append {
        if self.journal.contains_key(&(log, no)) {
            return Append::Fenced;
        }
        self.journal.insert((log, no), delta.to_vec());
        Append::Committed
    }

    fn next_no(&mut self, log: u8) -> Result<u64, StoreError> {
        let newest = self.journal.range((log, 0)..=(log, u64::MAX)).next_back().map_or(0, |((_, no), _)| *no);
        Ok(newest.max(self.settled.get(&log).copied().unwrap_or(0)) + 1)
    }

    fn journal(&mut self, log: u8) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        Ok(self.journal.range((log, 0)..=(log, u64::MAX)).map(|((_, no), delta)| (*no, delta.clone())).collect())
    }

    fn settle(&mut self, log: u8, settlement: &Settlement) -> Result<(), StoreError> {
        self.users.extend(settlement.users.iter().cloned());
        for (user, device, row) in &settlement.devices {
            let key = (user.clone(), device.clone());
            match row {
                Some(row) => self.devices.insert(key, row.clone()),
                None => self.devices.remove(&key),
            };
        }
        self.chats.extend(settlement.chats.iter().cloned());
        for (chat, user, row) in &settlement.members {
            self.members.insert((chat.clone(), user.clone()), *row);
        }
        for message in &settlement.messages {
            self.messages.insert((message.chat.clone(), message.n), Arc::clone(message));
        }
        for (user, seq, row) in &settlement.inbox {
            self.insert_row(user, *seq, row);
        }
        for (user, message, until) in &settlement.kept {
            self.keep(user, message, *until);
        }
        for (user, contact, known) in &settlement.contacts {
            let key = (user.clone(), contact.clone());
            match known {
                Some(known) => self.contacts.insert(key, known.clone()),
                None => self.contacts.remove(&key),
            };
        }
        for (chat, n, status) in &settlement.statuses {
            let key = (chat.clone(), *n);
            match status {
                Some(status) => {
                    if self.statuses.insert(key, Status::clone(status)).is_none() {
                        self.point(chat.clone(), *n);
                    }
                }
                None => {
                    if self.statuses.remove(&key).is_some() {
                        self.unpoint(key);
                    }
                }
            }
        }
        for (user, seq) in &settlement.gone {
            self.remove_row(user, *seq);
        }
        for (user, upto) in &settlement.dropped {
            let seqs: Vec<Seq> = self.rows(user, 0, *upto).map(|(seq, _)| seq).collect();
            for seq in seqs {
                self.remove_row(user, seq);
            }
        }
        for (id, sender, accepted) in &settlement.accepted {
            self.accepted.insert((id.clone(), sender.clone()), accepted.clone());
        }
        for (user, client_id, session) in &settlement.sessions {
            let key = (user.clone(), client_id.clone());
            match session {
                Some(session) => self.sessions.insert(key, session.clone()),
                None => self.sessions.remove(&key),
            };
        }
        for (user, at) in &settlement.last_seen {
            let known = self.last_seen.entry(user.clone()).or_default();
            *known = (*known).max(*at);
        }
        for (user, aspect, rule) in &settlement.privacy {
            self.privacy.insert((user.clone(), *aspect), rule.clone());
        }
        for (user, other, since) in &settlement.blocks {
            let key = (user.clone(), other.clone());
            match since {
                Some(since) => self.blocks.insert(key, *since),
                None => self.blocks.remove(&key),
            };
        }
        for (chat, user, hidden) in &settlement.hidden {
            self.hidden.insert((chat.clone(), user.clone()), hidden.clone());
        }
        for (chat, group) in &settlement.groups {
            match group {
                Some(group) => self.groups.insert(chat.clone(), group.clone()),
                None => self.groups.remove(chat),
            };
        }
        self.media_groups.extend(settlement.media_groups.iter().cloned());
        for (id, _) in settlement.media.iter().filter(|(_, file)| file.is_none()) {
            self.media_groups.retain(|(media, _, _)| media != id);
        }
        for (chat, user, oldest) in &settlement.unheard {
            let key = (chat.clone(), user.clone());
            match oldest {
                Some(oldest) => self.unheard.insert(key, *oldest),
                None => self.unheard.remove(&key),
            };
        }
        for (chat, n, redacted) in &settlement.redacted {
            self.redacted.insert((chat.clone(), *n), *redacted);
        }
        for (id, file) in &settlement.media {
            match file {
                Some(file) => self.media.insert(id.clone(), file.clone()),
                None => self.media.remove(id),
            };
        }
        self.grants.extend(settlement.grants.iter().cloned());
        for (id, _) in settlement.media.iter().filter(|(_, file)| file.is_none()) {
            self.grants.retain(|grant| grant.media != *id);
        }
        for revoked in &settlement.revoked {
            if !self.revoked.contains(revoked) {
                self.revoked.push(revoked.clone());
            }
        }
        for (user, account) in &settlement.accounts {
            if *account == Account::default() {
                self.accounts.remove(user);
            } else {
                self.accounts.insert(user.clone(), account.clone());
            }
        }
        for (user, device, webhook) in &settlement.webhooks {
            let key = (user.clone(), device.clone());
            match webhook {
                Some(webhook) => self.webhooks.insert(key, webhook.clone()),
                None => self.webhooks.remove(&key),
            };
        }
        self.server_secs = settlement.server_secs;
        self.settled.insert(log, settlement.upto);
        self.journal.retain(|(of, no), _| *of != log || *no > settlement.upto);
        Ok(())
    }

    fn user(&mut self, user: &UserId) -> Result<Option<UserRow>, StoreError> {
        Ok(self.users.get(user).cloned())
    }

    fn devices(&mut self, user: &UserId) -> Result<Vec<(DeviceId, DeviceRow)>, StoreError> {
        let all = self.devices.iter().filter(|((owner, _), _)| owner == user);
        Ok(all.map(|((_, device), row)| (device.clone(), row.clone())).collect())
    }

    fn inbox(&mut self, user: &UserId, after: Seq, limit: usize) -> Result<Vec<(Seq, Row)>, StoreError> {
        Ok(self.rows(user, after, Seq::MAX).take(limit).map(|(seq, row)| (seq, row.clone())).collect())
    }

    fn inbox_places(
        &mut self,
        user: &UserId,
        after: Seq,
        upto: Seq,
        limit: usize,
    ) -> Result<Vec<InboxPlace>, StoreError> {
        let rows = self.rows(user, after, upto).take(limit);
        Ok(rows
            .map(|(seq, row)| InboxPlace {
                seq,
                offset: row.offset,
                only: row.only.clone(),
                except: row.except.clone(),
            })
            .collect())
    }

    fn chat(&mut self, chat: &ChatKey) -> Result<Option<N>, StoreError> {
        Ok(self.chats.get(chat).copied())
    }

    fn members(&mut self, chat: &ChatKey) -> Result<Vec<(UserId, MemberRow)>, StoreError> {
        let all = self.members.iter().filter(|((of, _), _)| of == chat);
        Ok(all.map(|((_, user), row)| (user.clone(), *row)).collect())
    }

    fn accepted(&mut self, id: &MessageId, sender: &UserId) -> Result<Option<Accepted>, StoreError> {
        Ok(self.accepted.get(&(id.clone(), sender.clone())).cloned())
    }

    fn accepted_by_id(&mut self, id: &MessageId, limit: usize) -> Result<Vec<(UserId, Accepted)>, StoreError> {
        let all = self.accepted.iter().filter(|((of, _), _)| of == id).take(limit);
        Ok(all.map(|((_, sender), accepted)| (sender.clone(), accepted.clone())).collect())
    }

    fn newest_of(
        &mut self,
        chat: &ChatKey,
        sender: &UserId,
        after: N,
        upto: N,
    ) -> Result<Option<(N, MessageId)>, StoreError> {
        let all = self.accepted.iter().filter(|((_, from), accepted)| {
            from == sender && accepted.chat == *chat && accepted.n > after && accepted.n <= upto
        });
        Ok(all.map(|((id, _), accepted)| (accepted.n, id.clone())).max())
    }

    fn oldest_of(
        &mut self,
        chat: &ChatKey,
        sender: &UserId,
        after: N,
        upto: N,
    ) -> Result<Option<(N, MessageId)>, StoreError> {
        let all = self.accepted.iter().filter(|((_, from), accepted)| {
            from == sender && accepted.chat == *chat && accepted.n > after && accepted.n <= upto
        });
        Ok(all.map(|((id, _), accepted)| (accepted.n, id.clone())).min())
    }

    fn count_of(&mut self, chat: &ChatKey, sender: &UserId, after: N, limit: u64) -> Result<u64, StoreError> {
        let all = self
            .accepted
            .iter()
            .filter(|((_, from), accepted)| from == sender && accepted.chat == *chat && accepted.n > after);
        Ok((all.count() as u64).min(limit))
    }

    fn session(&mut self, user: &UserId, client_id: &str) -> Result<Option<Session>, StoreError> {
        Ok(self.sessions.get(&(user.clone(), client_id.to_owned())).cloned())
    }

    fn sessions(&mut self, user: &UserId) -> Result<Vec<(String, Session)>, StoreError> {
        let all = self.sessions.iter().filter(|((owner, _), _)| owner == user);
        Ok(all.map(|((_, client_id), session)| (client_id.clone(), session.clone())).collect())
    }

    fn kept(&mut self, user: &UserId, chat: &ChatKey, n: N) -> Result<Option<Arc<Message>>, StoreError> {
        let is_kept = self.kept.contains_key(&(user.clone(), chat.clone(), n));
        Ok(if is_kept { self.messages.get(&(chat.clone(), n)).cloned() } else { None })
    }

    fn sweep_kept(&mut self, limit: usize, now: u64) -> Result<(), StoreError> {
        let over: Vec<_> = self.kept.iter().filter(|(_, until)| **until < now).map(|(key, _)| key.clone()).collect();
        over.into_iter().take(limit).for_each(|key| self.forget(key));
        Ok(())
    }

    fn media(&mut self, id: &MediaId) -> Result<Option<MediaFile>, StoreError> {
        Ok(self.media.get(id).cloned())
    }

    fn has_media_grant(&mut self, user: &UserId, id: &MediaId) -> Result<bool, StoreError> {
        Ok(self.grants.iter().any(|grant| grant.media == *id && grant.user == *user))
    }

    fn find_media(&mut self, user: &UserId, name: &str, limit: usize) -> Result<Vec<MediaFile>, StoreError> {
        let mine = self.grants.iter().filter(|grant| grant.user == *user && grant.name.as_deref() == Some(name));
        let mut found: Vec<_> = mine.filter_map(|grant| self.media.get(&grant.media)).cloned().collect();
        found.sort_by(|a, b| (b.made_at, &b.id).cmp(&(a.made_at, &a.id)));
        found.truncate(limit);
        Ok(found)
    }

    fn expired_media(&mut self, now: u64, limit: usize) -> Result<Vec<MediaFile>, StoreError> {
        let mut expired: Vec<_> = self.media.values().filter(|file| file.until < now).cloned().collect();
        expired.sort_by(|a, b| (a.until, &a.id).cmp(&(b.until, &b.id)));
        expired.truncate(limit);
        Ok(expired)
    }

    fn media_use(&mut self, owner: &UserId) -> Result<MediaUse, StoreError> {
        let mine = self.media.values().filter(|file| file.owner == *owner);
        Ok(mine.fold(MediaUse::default(), |sum, file| MediaUse { files: sum.files + 1, bytes: sum.bytes + file.size }))
    }

    fn is_media_shared(&mut self, id: &MediaId, owner: &UserId) -> Result<bool, StoreError> {
        Ok(self.grants.iter().any(|grant| grant.media == *id && grant.user != *owner))
    }

    fn contact(&mut self, user: &UserId, contact: &UserId) -> Result<Option<Contact>, StoreError> {
        Ok(self.contacts.get(&(user.clone(), contact.clone())).cloned())
    }

    fn contacts(
        &mut self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, Contact)>, StoreError> {
        let mine = self.contacts.iter().filter(|((of, contact), _)| of == user && after.is_none_or(|a| contact > a));
        Ok(mine.take(limit).map(|((_, contact), known)| (contact.clone(), known.clone())).collect())
    }

    fn contacts_count(&mut self, user: &UserId) -> Result<u64, StoreError> {
        Ok(self.contacts.keys().filter(|(of, _)| of == user).count() as u64)
    }

    fn block(&mut self, user: &UserId, other: &UserId) -> Result<Option<u64>, StoreError> {
        Ok(self.blocks.get(&(user.clone(), other.clone())).copied())
    }

    fn blocks(
        &mut self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, u64)>, StoreError> {
        let mine = self.blocks.iter().filter(|((of, other), _)| of == user && after.is_none_or(|after| other > after));
        Ok(mine.take(limit).map(|((_, other), since)| (other.clone(), *since)).collect())
    }

    fn has_blocks(&mut self, user: &UserId) -> Result<(bool, bool), StoreError> {
        Ok((self.blocks.keys().any(|(of, _)| of == user), self.hidden.keys().any(|(_, of)| of == user)))
    }

    fn hidden(&mut self, chat: &ChatKey) -> Result<Vec<(UserId, N, N)>, StoreError> {
        let of_chat = self.hidden.iter().filter(|((of, _), _)| of == chat);
        Ok(of_chat.flat_map(|((_, user), all)| all.ranges().iter().map(|(a, b)| (user.clone(), *a, *b))).collect())
    }

    fn last_seen(&mut self, user: &UserId) -> Result<Option<u64>, StoreError> {
        Ok(self.last_seen.get(user).copied())
    }

    fn privacy(&mut self, user: &UserId) -> Result<Vec<(Aspect, Who)>, StoreError> {
        let rules = self.privacy.iter().filter(|((of, _), _)| of == user);
        Ok(rules.map(|((_, aspect), rule)| (*aspect, rule.who)).collect())
    }

    fn privacy_list(&mut self, user: &UserId, aspect: Aspect) -> Result<Vec<UserId>, StoreError> {
        Ok(self.privacy.get(&(user.clone(), aspect)).map(|rule| rule.users.to_vec()).unwrap_or_default())
    }

    fn is_in_privacy_list(&mut self, user: &UserId, aspect: Aspect, other: &UserId) -> Result<bool, StoreError> {
        let rule = self.privacy.get(&(user.clone(), aspect));
        Ok(rule.is_some_and(|rule| rule.users.binary_search(other).is_ok()))
    }

    fn group(&mut self, chat: &ChatKey) -> Result<Option<GroupRow>, StoreError> {
        Ok(self.groups.get(chat).cloned())
    }

    fn groups_of(&mut self, user: &UserId, after: Option<&ChatKey>, limit: usize) -> Result<Vec<ChatKey>, StoreError> {
        let mine = self.members.iter().filter(|((chat, of), row)| {
            of == user && chat.is_group() && row.left_n.is_none() && after.is_none_or(|after| chat > after)
        });
        Ok(mine.take(limit).map(|((chat, _), _)| chat.clone()).collect())
    }

    fn invited_by(&mut self, code: &str) -> Result<Option<ChatKey>, StoreError> {
        let found = self.groups.iter().find(|(_, group)| group.invite.as_deref() == Some(code));
        Ok(found.map(|(chat, _)| chat.clone()))
    }

    fn groups_with(&mut self, media: &MediaId, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError> {
        let with = self.media_groups.iter().filter(|(id, _, _)| id == media);
        let mut found: Vec<(ChatKey, N)> = with.map(|(_, chat, n)| (chat.clone(), *n)).collect();
        found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        found.truncate(limit);
        Ok(found)
    }

    fn groups_open_with(
        &mut self,
        user: &UserId,
        media: &MediaId,
        limit: usize,
    ) -> Result<Vec<(ChatKey, N)>, StoreError> {
        let mut found: BTreeMap<ChatKey, N> = BTreeMap::new();
        for (_, chat, n) in self.media_groups.iter().filter(|(id, _, _)| id == media) {
            let row = self.members.get(&(chat.clone(), user.clone()));
            if row.is_some_and(|row| row.left_n.is_none() && row.joined_n < *n) {
                let newest = found.entry(chat.clone()).or_default();
                *newest = (*newest).max(*n);
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }

    fn newest_with(&mut self, media: &MediaId, chat: &ChatKey) -> Result<Option<N>, StoreError> {
        let with = self.media_groups.iter().filter(|(id, of, _)| id == media && of == chat);
        Ok(with.map(|(_, _, n)| *n).max())
    }

    fn accepted_between(
        &mut self,
        chat: &ChatKey,
        after: N,
        upto: N,
        limit: usize,
    ) -> Result<Vec<(N, UserId, MessageId)>, StoreError> {
        let of = self.accepted.iter().filter(|(_, accepted)| accepted.chat == *chat);
        let within = of.filter(|(_, accepted)| accepted.n > after && accepted.n <= upto);
        let mut found: Vec<_> =
            within.map(|((id, sender), accepted)| (accepted.n, sender.clone(), id.clone())).collect();
        found.sort_by_key(|found| std::cmp::Reverse(found.0));
        found.truncate(limit);
        Ok(found)
    }

    fn redacted(&mut self, chat: &ChatKey) -> Result<Vec<(N, Redacted)>, StoreError> {
        let of_chat = self.redacted.range((chat.clone(), 0)..=(chat.clone(), N::MAX));
        Ok(of_chat.map(|((_, n), redacted)| (*n, *redacted)).collect())
    }

    fn sweep_redacted(&mut self, limit: usize, now: u64) -> Result<(), StoreError> {
        let over: Vec<_> = self.redacted.iter().filter(|(_, r)| r.until < now).map(|(key, _)| key.clone()).collect();
        for key in over.into_iter().take(limit) {
            self.redacted.remove(&key);
        }
        Ok(())
    }

    fn unheard(&mut self, chat: &ChatKey, member: &UserId) -> Result<Option<(N, u64)>, StoreError> {
        Ok(self.unheard.get(&(chat.clone(), member.clone())).copied())
    }

    fn unheard_over(&mut self, before: u64, limit: usize) -> Result<Vec<(ChatKey, UserId)>, StoreError> {
        let over = self.unheard.iter().filter(|(_, (_, at))| *at < before);
        let mut over: Vec<_> = over.map(|((chat, user), (_, at))| (*at, user.clone(), chat.clone())).collect();
        over.sort();
        Ok(over.into_iter().take(limit).map(|(_, user, chat)| (chat, user)).collect())
    }

    fn oldest_waiting(&mut self, of: &Waits<'_>) -> Result<Option<(N, u64)>, StoreError> {
        let rows = self.inbox.range((of.user.clone(), of.behind + 1)..=(of.user.clone(), of.upto));
        let waiting = rows.filter_map(|(_, row)| match &row.item {
            Item::Message(m) if m.chat == *of.chat && m.from == *of.sender && m.n > of.after => Some((m.n, row.at)),
            _ => None,
        });
        Ok(waiting.min())
    }

    fn status(&mut self, chat: &ChatKey, n: N) -> Result<Option<Status>, StoreError> {
        Ok(self.statuses.get(&(chat.clone(), n)).cloned())
    }

    fn status_times(&mut self, chat: &ChatKey) -> Result<Vec<(N, u64)>, StoreError> {
        let all = self.statuses.range((chat.clone(), 0)..=(chat.clone(), N::MAX));
        Ok(all.map(|((_, n), status)| (*n, status.until)).collect())
    }

    fn statuses_over(&mut self, now: u64, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError> {
        let mut over: Vec<_> = self.statuses.iter().filter(|(_, status)| status.until <= now).collect();
        over.sort_by_key(|(_, status)| status.until);
        Ok(over.into_iter().take(limit).map(|(key, _)| key.clone()).collect())
    }

    fn statuses_with(&mut self, media: &MediaId, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError> {
        let mut with: Vec<_> =
            self.statuses.iter().filter(|(_, status)| status.media.as_ref() == Some(media)).collect();
        with.sort_by_key(|(_, status)| std::cmp::Reverse(status.until));
        Ok(with.into_iter().take(limit).map(|(key, _)| key.clone()).collect())
    }

    fn revoked(&mut self) -> Result<Vec<Revoked>, StoreError> {
        Ok(self.revoked.clone())
    }

    fn account(&mut self, user: &UserId) -> Result<Account, StoreError> {
        Ok(self.accounts.get(user).cloned().unwrap_or_default())
    }

    fn disabled(&mut self) -> Result<Vec<UserId>, StoreError> {
        let disabled = self.accounts.iter().filter(|(_, account)| account.disabled);
        Ok(disabled.map(|(user, _)| user.clone()).collect())
    }

    fn webhooks(&mut self) -> Result<Vec<(UserId, DeviceId, Webhook)>, StoreError> {
        let all = self.webhooks.iter();
        Ok(all.map(|((user, device), webhook)| (user.clone(), device.clone(), webhook.clone())).collect())
    }

    fn server_secs(&mut self) -> Result<u64, StoreError> {
        Ok(self.server_secs)
    }

    fn oldest_rows(&mut self, after: Option<&UserId>, limit: usize) -> Result<Vec<(UserId, u64)>, StoreError> {
        let mut out: Vec<(UserId, u64)> = Vec::new();
        for ((user, _), row) in &self.inbox {
            if after.is_none_or(|after| user > after) && out.last().is_none_or(|(last, _)| last != user) {
                if out.len() == limit {
                    break;
                }
                out.push((user.clone(), row.at));
            }
        }
        Ok(out)
    }

    fn sweep_accepted(
        &mut self,
        after: Option<(MessageId, UserId)>,
        limit: usize,
        now: u64,
    ) -> Result<Option<(MessageId, UserId)>, StoreError> {
        let keys: Vec<_> = self
            .accepted
            .keys()
            .filter(|key| after.as_ref().is_none_or(|after| *key > after))
            .take(limit)
            .cloned()
            .collect();
        for key in &keys {
            if self.accepted.get(key).is_some_and(|accepted| accepted.until < now) {
                self.accepted.remove(key);
            }
        }
        Ok(if keys.len() == limit { keys.last().cloned() } else { None })
    }
}
