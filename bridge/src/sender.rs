//! The sender's part: what a device publishes becomes a message, a mark or a refusal.

use std::sync::Arc;

use natter_protocol::error::{Kind, NotNow, Refusal};
use natter_protocol::link::{Answer, Dialect, Packet, Publication};
use natter_protocol::outbox::{self, Item, Message as Written, Read, ReadUpTo, Reference};
use natter_protocol::planted::{self, Bug};
use natter_protocol::{Chat, ConnectionId, DeviceId, MessageId, N, Seq, UserId};

use crate::change::{Accepted, Change, Failed, Item as RowItem, Message, Place, Row, Tick};
use crate::chat_key::ChatKey;
use crate::engine::Engine;
use crate::long_ack::Asker;
use crate::stats::Counters;
use crate::store::{Store, StoreError};

/// Senders looked at for an id that stands alone; more of them make it ambiguous anyway.
pub(crate) const SENDERS_MAX: usize = 64;

/// An answer, or why not. The outer error is the store's.
pub(crate) type Ruling<T> = Result<Result<T, Refusal>, StoreError>;

/// Unpacks the inner result of a [`Ruling`] or returns it.
macro_rules! ruled {
    ($ruling:expr) => {
        match $ruling? {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
}
pub(crate) use ruled;

impl<S: Store> Engine<S> {
    /// A PUBLISH, or a will.
    pub(crate) fn publish(&mut self, user: &UserId, publication: Publication) -> Result<(), StoreError> {
        let Publication { connection, packet, device, stamp, will, payload } = publication;
        // After "not now" nothing behind it is taken in. A will may fire when its connection is gone.
        match self.connections.get(&connection) {
            Some(known) if known.deaf => return Ok(()),
            None if !will => return Ok(()),
            _ => {}
        }
        if packet.qos == 2 {
            self.hold(user, connection, packet.id, true)?;
        }
        let (id, ruling) = match outbox::parse(&payload) {
            Ok(Item::Message(written)) => {
                let id = if will { None } else { written.id.clone() };
                (id.clone(), self.message(user, connection, packet, &device, id, stamp, written)?)
            }
            Ok(Item::Group(command)) => {
                let id = if will { None } else { command.id.clone() };
                let ruling = self.group_command(user, id.clone(), stamp, command)?;
                if let Ok((answer, accepted, chat)) = &ruling {
                    self.hint_if_bare(user, connection, packet, &device, chat, answer, accepted.n);
                }
                (id, ruling.map(|(answer, _, _)| answer))
            }
            Ok(Item::Ack(upto)) => match self.ack_upto(user, &device, upto)? {
                Ok(true) => (None, Ok(Answer::Done)),
                Ok(false) => {
                    if !self.ack_later(user, device, Asker::Packet(connection, packet), upto) {
                        self.not_now(user, connection, NotNow::Busy);
                    }
                    return Ok(());
                }
                Err(refusal) => (None, Err(refusal)),
            },
            Ok(item) => (None, self.command(user, &device, Some(connection), item)?.map(|()| Answer::Done)),
            Err(rejected) => (rejected.id, Err(rejected.refusal)),
        };
        self.conclude(user, connection, packet, &device, id, ruling)
    }

    /// Answers a PUBLISH, one way or the other.
    pub(crate) fn conclude(
        &mut self,
        user: &UserId,
        connection: ConnectionId,
        packet: Packet,
        device: &DeviceId,
        id: Option<MessageId>,
        ruling: Result<Answer, Refusal>,
    ) -> Result<(), StoreError> {
        match ruling {
            Ok(answer) => {
                self.answer_packet(user, connection, packet, answer);
                Ok(())
            }
            Err(refusal) => {
                if packet.qos == 2 && self.connections.get(&connection).is_some_and(|c| c.dialect == Dialect::Full) {
                    // A PUBREC with an error ends the exchange [MQTT-4.3.3-9]: no PUBREL will come.
                    self.hold(user, connection, packet.id, false)?;
                }
                self.refuse(user, connection, packet, device, id, refusal)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a PUBLISH brings, and nothing else")]
    fn message(
        &mut self,
        user: &UserId,
        connection: ConnectionId,
        packet: Packet,
        device: &DeviceId,
        id: Option<MessageId>,
        stamp: u128,
        written: Written,
    ) -> Ruling<Answer> {
        let chat = written.to.clone();
        let (answer, accepted) = ruled!(self.accepted_answer(user, device, id, stamp, written));
        self.hint_if_bare(user, connection, packet, device, &chat, &answer, accepted.n);
        Ok(Ok(answer))
    }

    /// `sent`, for a device whose PUBACK cannot say it.
    #[expect(clippy::too_many_arguments, reason = "what an answer is made of")]
    fn hint_if_bare(
        &mut self,
        user: &UserId,
        connection: ConnectionId,
        packet: Packet,
        device: &DeviceId,
        chat: &Chat,
        answer: &Answer,
        n: N,
    ) {
        let bare = self.connections.get(&connection).is_some_and(|known| known.dialect == Dialect::Bare);
        if bare
            && packet.qos > 0
            && let Answer::Message { id, .. } = answer
        {
            self.hint_sent(user, device, chat, id, n);
        }
    }

    /// Accepts a message, counts it, and says what its sender is told.
    pub(crate) fn accepted_answer(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        id: Option<MessageId>,
        stamp: u128,
        written: Written,
    ) -> Ruling<(Answer, Accepted)> {
        let (id, accepted) = match ruled!(self.accept(user, device, id, stamp, written)) {
            Accept::New(id, accepted) => {
                Counters::add(&self.counters.messages);
                (id, accepted)
            }
            Accept::Repeat(id, accepted) => {
                Counters::add(&self.counters.repeats);
                (id, accepted)
            }
        };
        Ok(Ok((Answer::Message { id, n: accepted.n, timestamp: accepted.timestamp }, accepted)))
    }

    /// Accepts a message: once, whatever is tried. A repeat gets the first answer again.
    pub(crate) fn accept(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        id: Option<MessageId>,
        stamp: u128,
        mut written: Written,
    ) -> Ruling<Accept> {
        let hash = written.hash;
        let id = match id {
            Some(id) => {
                if let Some(first) = self.state.accepted(&id, user)?
                    && !planted::has(Bug::DroppedDedupe)
                {
                    return Ok(if first.hash == hash { Ok(Accept::Repeat(id, first)) } else { Err(conflict(id)) });
                }
                id
            }
            None => MessageId::from_stamp(stamp),
        };
        if written.to == Chat::Status {
            return self.post_status(user, device, id, written);
        }
        let chat = ChatKey::new(user, &written.to);
        let (mut recipient, mut is_blocked) = (None, false);
        match &written.to {
            Chat::Direct(to) => {
                is_blocked = ruled!(self.may_write(user, to, &chat));
                recipient = Some(to.clone());
            }
            Chat::Group(group) => {
                ruled!(self.group_of(user, group, "to"));
            }
            Chat::Status => {}
        }
        let about = ruled!(self.about(&chat, user, recipient.as_ref(), &mut written));
        let kind = written.kind;

        ruled!(self.carried_media(user, &mut written));
        if let Some(media) = &written.media {
            self.keep_media(media)?;
        }
        let n = self.state.chat(&chat)?.last_n + 1;
        let grant = written.media.as_ref().map(ToString::to_string);
        let body = String::from_utf8(written.into_body_about(about.from.as_ref(), about.n))
            .map_err(|e| StoreError::Corrupt { expected: "a body in UTF-8", got: e.to_string() })?;
        let message = Arc::new(Message {
            chat,
            n,
            from: user.clone(),
            id: id.clone(),
            timestamp: self.now.unix_secs,
            body: Arc::from(body),
        });
        let mut places = Vec::new();
        match &recipient {
            None => places = self.group_places(&message.chat, user, device, message.bytes())?,
            Some(recipient) => {
                if !is_blocked {
                    places.push(self.place(recipient, None, None, message.bytes())?);
                }
                if recipient != user && self.state.user(user)?.devices.keys().any(|other| other != device) {
                    // The sender's other devices show it too.
                    places.push(self.place(user, None, Some(device.clone()), message.bytes())?);
                }
            }
        }
        let users: Vec<UserId> = places.iter().map(|place| place.user.clone()).collect();
        let timestamp = message.timestamp;
        let at = self.now.server_secs;
        let accepted = Accepted { chat: message.chat.clone(), n, timestamp, hash, until: at };
        let chat = message.chat.clone();
        self.change(Change::Message { message, hash, at, grant, places })?;
        if let Some(target) = about.n {
            self.redact(&chat, kind, target, n)?;
        }
        if let Some(recipient) = recipient.filter(|_| is_blocked) {
            self.hide_upto(&chat, &recipient, n)?;
            self.never_heard(&chat, &recipient, n)?;
            Counters::add(&self.counters.hidden);
        }
        for place in users {
            self.keep_lag_bounded(&place)?;
            self.hungry.insert(place);
        }
        Ok(Ok(Accept::New(id, accepted)))
    }

    /// Whether `user` may write to another; and then, whether that one has blocked him: he is not told.
    fn may_write(&mut self, user: &UserId, to: &UserId, chat: &ChatKey) -> Ruling<bool> {
        if !self.state.user(to)?.known {
            let details = format!("to: expected a user of this server, got {to}");
            return Ok(Err(Refusal::new(Kind::UnknownRecipient, details)));
        }
        if self.state.is_blocked(user, to)? {
            let details = format!("to: expected a user who is not blocked, got {to}: unblock first");
            return Ok(Err(Refusal::new(Kind::NotAllowed, details)));
        }
        let is_blocked = self.state.is_blocked(to, user)?;
        ruled!(self.inbox_takes(user, to, chat));
        Ok(Ok(is_blocked))
    }

    /// The next position of an inbox. It counts as given with the change that takes it.
    pub(crate) fn place(
        &mut self,
        user: &UserId,
        only: Option<DeviceId>,
        except: Option<DeviceId>,
        bytes: u64,
    ) -> Result<Place, StoreError> {
        let known = self.state.user(user)?;
        Ok(Place { user: user.clone(), seq: known.last_seq + 1, offset: known.last_offset + bytes, only, except })
    }

    /// Puts a notice into an inbox.
    pub(crate) fn notice(
        &mut self,
        user: &UserId,
        only: Option<DeviceId>,
        except: Option<DeviceId>,
        item: RowItem,
    ) -> Result<(), StoreError> {
        self.put_notice(user, only, except, item)?;
        self.keep_lag_bounded(user)
    }

    /// As [`Engine::notice`], whatever is there already.
    pub(crate) fn put_notice(
        &mut self,
        user: &UserId,
        only: Option<DeviceId>,
        except: Option<DeviceId>,
        item: RowItem,
    ) -> Result<Seq, StoreError> {
        let Place { seq, offset, .. } = self.place(user, None, None, item.bytes())?;
        let row = Row { at: self.now.server_secs, offset, only, except, item };
        self.change(Change::Notice { user: user.clone(), seq, row })?;
        self.hungry.insert(user.clone());
        Ok(seq)
    }

    /// `failed`, for the device that published: or for all, if it reads no inbox.
    pub(crate) fn tell_failed(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        id: Option<MessageId>,
        refusal: &Refusal,
    ) -> Result<(), StoreError> {
        let only = self.state.user(user)?.devices.contains_key(device).then(|| device.clone());
        self.notice(user, only, None, RowItem::Failed(Failed::refused(id, refusal)))?;
        Ok(())
    }

    /// Finds the message that a reference in a message to `recipient` means; its sender. One to a status of either of them says so then.
    pub(crate) fn resolve(
        &mut self,
        chat: &ChatKey,
        user: &UserId,
        recipient: Option<&UserId>,
        to: &Chat,
        reference: &mut Reference,
    ) -> Ruling<UserId> {
        let Some(recipient) = recipient else {
            if reference.chat.as_ref().is_some_and(|named| named != to) {
                return Ok(Err(ambiguous(reference, "a message of the chat in `to`")));
            }
            return self.resolve_in_group(chat, user, reference);
        };
        let refusal = match &reference.chat {
            Some(Chat::Status) => ambiguous(reference, "a status that is shown to both"),
            Some(named) if named != to => return Ok(Err(ambiguous(reference, "a message of the chat in `to`"))),
            _ => match self.resolve_in(chat, user, reference)? {
                Ok(sender) => return Ok(Ok(sender)),
                Err(refusal) if reference.chat.is_some() => return Ok(Err(refusal)),
                Err(refusal) => refusal,
            },
        };
        let poster = reference.from.clone().unwrap_or_else(|| recipient.clone());
        let other = if poster == *user { recipient } else { user };
        if poster != *user && poster != *recipient {
            return Ok(Err(refusal));
        }
        let statuses = ChatKey::new(&poster, &Chat::Status);
        let accepted = self.state.accepted(&reference.id, &poster)?.filter(|accepted| accepted.chat == statuses);
        if let Some(accepted) = accepted
            && self.is_given(other, &statuses, accepted.n)?
        {
            reference.chat = Some(Chat::Status);
            return Ok(Ok(poster));
        }
        Ok(Err(refusal))
    }

    /// Finds the one message of `chat` that a reference means; its sender.
    pub(crate) fn resolve_in(&mut self, chat: &ChatKey, user: &UserId, reference: &Reference) -> Ruling<UserId> {
        let senders: Vec<UserId> = match &reference.from {
            Some(from) => vec![from.clone()],
            None => {
                [Some(user.clone()), chat.other(user).filter(|other| other != user)].into_iter().flatten().collect()
            }
        };
        let mut found = Vec::new();
        for sender in senders {
            if self.state.accepted(&reference.id, &sender)?.is_some_and(|accepted| accepted.chat == *chat) {
                found.push(sender);
            }
        }
        match (found.pop(), found.is_empty()) {
            (Some(sender), true) => Ok(Ok(sender)),
            (Some(_), false) => Ok(Err(ambiguous(reference, "one message of the chat (say `from`)"))),
            (None, _) => Ok(Err(ambiguous(reference, "a message of the chat"))),
        }
    }

    /// A command; `connection` is the one that it came on, if one did.
    pub(crate) fn command(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        connection: Option<ConnectionId>,
        item: Item,
    ) -> Ruling<()> {
        match item {
            Item::Read(Read { upto, typing }) => {
                let (chat, n) = ruled!(self.read_place(user, &upto));
                if typing && let Some(seen) = chat.seen_by(user) {
                    self.typing(user, &seen)?;
                }
                self.read(user, device, &chat, n)?;
                Ok(Ok(()))
            }
            Item::Deleted(reference) => {
                let is_own = reference.from.as_ref().is_none_or(|from| from == user);
                if is_own && self.delete_status(user, device, &reference.id)? {
                    return Ok(Ok(()));
                }
                Ok(Err(ambiguous(&reference, "an own status")))
            }
            Item::Starred(chat, reference, is_starred) => self.star(user, &chat, &reference, is_starred),
            Item::Typing(chat) => {
                self.typing(user, &chat)?;
                Ok(Ok(()))
            }
            Item::Watch(chat) => self.watch(user, connection, &chat),
            Item::Unwatch(chat) => self.unwatch(connection, &chat),
            Item::Available(in_front) => self.set_in_front(user, connection, in_front),
            Item::Sync => self.sync(user, device),
            // Taken care of before.
            Item::Group(_) | Item::Message(_) | Item::Ack(_) => Ok(Ok(())),
        }
    }

    fn read_place(&mut self, user: &UserId, upto: &ReadUpTo) -> Ruling<(ChatKey, N)> {
        match upto {
            ReadUpTo::Number(chat, n) => {
                let key = ChatKey::new(user, chat);
                if let Chat::Group(group) = chat {
                    ruled!(self.group_of(user, group, "chat"));
                }
                let last_n = self.state.chat(&key)?.last_n;
                if *n > last_n {
                    let details = format!("n: expected at most {last_n}, the newest of the chat, got {n}");
                    return Ok(Err(Refusal::new(Kind::InvalidValue, details)));
                }
                Ok(Ok((key, *n)))
            }
            ReadUpTo::Status(poster, n) => self.status_place(user, poster, *n),
            ReadUpTo::Message(reference) => {
                let mine = reference.chat.as_ref().map(|chat| ChatKey::new(user, chat));
                let may_be_status = reference.chat.as_ref().is_none_or(|chat| *chat == Chat::Status);
                let candidates = match &reference.from {
                    Some(from) => {
                        let accepted = self.state.accepted(&reference.id, from)?;
                        accepted.map(|accepted| (from.clone(), accepted)).into_iter().collect()
                    }
                    None => self.state.accepted_by_id(&reference.id, SENDERS_MAX)?,
                };
                let mut received: Vec<Accepted> = Vec::new();
                for (from, accepted) in candidates {
                    let to_me = if accepted.chat.is_status() {
                        may_be_status && self.is_given(user, &accepted.chat, accepted.n)?
                    } else if accepted.chat.is_group() {
                        from != *user
                            && mine.as_ref().is_none_or(|chat| accepted.chat == *chat)
                            && self.state.chat(&accepted.chat)?.is_his(user, accepted.n)
                    } else {
                        accepted.chat.has(user)
                            && (from != *user || accepted.chat.other(user).as_ref() == Some(user))
                            && mine.as_ref().is_none_or(|chat| accepted.chat == *chat)
                    };
                    if to_me {
                        received.push(accepted);
                    }
                }
                match (received.pop(), received.is_empty()) {
                    (Some(accepted), true) => Ok(Ok((accepted.chat, accepted.n))),
                    (Some(_), false) => Ok(Err(ambiguous(reference, "one received message (say `from` or `chat`)"))),
                    (None, _) => Ok(Err(ambiguous(reference, "a received message"))),
                }
            }
        }
    }

    /// Everything of the chat up to `n` is read.
    fn read(&mut self, user: &UserId, device: &DeviceId, chat: &ChatKey, n: N) -> Result<(), StoreError> {
        if chat.is_status() {
            return self.read_statuses(user, device, chat, n);
        }
        if chat.is_group() {
            return self.read_group(user, device, chat, n);
        }
        let before = self.state.chat(chat)?.mark(user, Tick::Read);
        if n <= before {
            return Ok(());
        }
        let Some(other) = chat.other(user) else { return Ok(()) };
        // No receipt covers what he never had.
        let shown = match self.state.chat(chat)?.hidden.get(user) {
            Some(hidden) => hidden.shown(before, n),
            None => vec![(before, n)],
        };
        let mut covered = Vec::new();
        for (after, upto) in shown {
            let newest = self.state.newest_of(chat, &other, after, upto)?;
            covered.extend(newest.map(|(newest, id)| (after, newest, id)));
        }
        // `read` implies `delivered`: a later acknowledgement says nothing new.
        for tick in [Tick::Delivered, Tick::Read] {
            if self.state.chat(chat)?.mark(user, tick) < n {
                self.change(Change::Mark { chat: chat.clone(), member: user.clone(), tick, n })?;
            }
        }
        let others = self.state.user(user)?.devices.keys().any(|known| known != device);
        // Whom he has blocked is told nothing that he does, of what came before the block neither: then or later.
        let is_told = !self.state.is_blocked(user, &other)?;
        for (after, newest, id) in covered {
            if is_told {
                self.receipt(&other, None, Tick::Read, chat, (after, newest), &id, user)?;
            }
            if others && other != *user {
                // The own mark, for the other devices.
                self.receipt(user, Some(device), Tick::Read, chat, (after, newest), &id, user)?;
            }
        }
        Ok(())
    }
}

/// What [`Engine::accept`] did.
pub(crate) enum Accept {
    /// It is a message now.
    New(MessageId, Accepted),
    /// It was one already.
    Repeat(MessageId, Accepted),
}

pub(crate) fn conflict(id: MessageId) -> Refusal {
    let details = format!("id: expected the content that {id} was first sent with, got other content");
    Refusal { conflicts_with: Some(id), ..Refusal::new(Kind::Conflict, details) }
}

pub(crate) fn ambiguous(reference: &Reference, expected: &str) -> Refusal {
    Refusal::new(Kind::Ambiguous, format!("message_id: expected {expected}, got {}", reference.id))
}
