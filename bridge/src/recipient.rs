//! The recipient's part: what readers get, what they acknowledge, and the receipts that follow from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use natter_protocol::error::{Kind, Refusal};
use natter_protocol::link::{Down, Window};
use natter_protocol::planted::{self, Bug};
use natter_protocol::{Chat, ConnectionId, DeviceId, MessageId, N, Seq, UserId, entry, topic};

use crate::change::{Change, Deleted, GroupReceipt, Item, Message, Receipt, Row, Tick};
use crate::chat_key::ChatKey;
use crate::edits::Starred;
use crate::engine::{Engine, Released};
use crate::reader::Reader;
use crate::stats::Counters;
use crate::store::{DeviceRow, Store, StoreError};

/// Rows that an acknowledgement by position looks at in one batch.
pub(crate) const ACK_PAGE: usize = 500;
/// Rows meant for other devices that a reader passes before its device's position is noted.
pub(crate) const OTHERS_NOTED: u64 = 64;
/// Bytes of a QoS 1 PUBLISH beside topic and payload: fixed header, two lengths, packet id, empty properties.
const PUBLISH_OVERHEAD: usize = 1 + 4 + 2 + 2 + 1;

/// Messages of one sender that a member has had now, without a hole.
struct Run {
    chat: ChatKey,
    from: UserId,
    after: N,
    n: N,
    id: MessageId,
}

impl<S: Store> Engine<S> {
    /// PUBACK of a receiver. Of a connection that is not its device's reader it changes nothing.
    pub(crate) fn acknowledged(
        &mut self,
        user: &UserId,
        connection: ConnectionId,
        seq: Seq,
        taken: bool,
    ) -> Result<(), StoreError> {
        let reader = self.readers.get_mut(user).and_then(|all| all.iter_mut().find(|r| r.connection == connection));
        let Some(reader) = reader else { return Ok(()) };
        let passed = reader.acknowledged(seq, taken);
        let device = reader.device.clone();
        let Some(upto) = passed.last().map(|entry| (entry.seq, entry.offset)) else { return Ok(()) };
        let stubs = passed.iter().filter(|entry| entry.stub).filter_map(|entry| entry.message.clone());
        self.keep_stubs(user, stubs.map(Item::Message).collect())?;
        let messages: Vec<_> = passed.into_iter().filter_map(|entry| Some((entry.message?, entry.taken))).collect();
        self.pass(user, &device, upto, &messages)
    }

    /// Moves a device's cursor; what it passes may be delivered by that.
    fn pass(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        (upto, offset): (Seq, u64),
        messages: &[(Arc<Message>, bool)],
    ) -> Result<(), StoreError> {
        let from = self.state.user(user)?.devices.get(device).map_or(upto, |row| row.cursor);
        if from < upto {
            self.change(Change::Cursor { user: user.clone(), device: device.clone(), from, upto, offset })?;
        }
        self.stuck.passed(user, device, upto);
        let stubs = &mut self.state.user(user)?.stubs;
        if !stubs.is_empty() {
            stubs.retain(|(of, seq)| of != device || *seq > upto);
        }
        Counters::add_many(&self.counters.acknowledged, messages.len() as u64);
        self.hungry.insert(user.clone());
        self.delivered(user, messages)
    }

    /// `{"ack":N}`: everything up to N is acknowledged, a page of it now; `true`: that was all.
    pub(crate) fn ack_upto(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        upto: Seq,
    ) -> Result<Result<bool, Refusal>, StoreError> {
        let known = self.state.user(user)?;
        let last_seq = known.last_seq;
        let Some(cursor) = known.devices.get(device).map(|row| row.cursor) else {
            let details =
                format!("ack: expected a device that reads its inbox (SUBSCRIBE or sync first), got {device}");
            return Ok(Err(Refusal::new(Kind::InvalidValue, details)));
        };
        if upto > last_seq {
            let details = format!("ack: expected at most {last_seq}, the newest entry of the inbox, got {upto}");
            return Ok(Err(Refusal::new(Kind::InvalidValue, details)));
        }
        if upto <= cursor {
            return Ok(Ok(true));
        }
        let limit = ACK_PAGE.min(usize::try_from(upto - cursor).unwrap_or(ACK_PAGE));
        let mut rows = self.state.page(user, cursor, limit)?;
        let is_page_full = rows.len() == limit && rows.last().is_some_and(|(seq, _)| *seq < upto);
        rows.retain(|(seq, _)| *seq <= upto);
        let silent = self.state.silent_rows(user, &rows, self.now.server_secs)?;
        let seen = match rows.last() {
            Some((last, row)) if is_page_full => (*last, row.offset),
            last => (upto, last.map_or(0, |(_, row)| row.offset)),
        };
        let reader = self.readers.get_mut(user).and_then(|all| all.iter_mut().find(|r| r.device == *device));
        let passed = reader.map(|reader| reader.passed(seen.0)).unwrap_or_default();
        let known = self.state.user(user)?;
        let is_stub = |seq: Seq| known.stubs.contains(&(device.clone(), seq));
        let turned_down =
            |seq: Seq| is_stub(seq) || passed.iter().any(|entry| entry.seq == seq && entry.is_turned_down());
        let stubs: Vec<_> = rows.iter().filter(|(seq, _)| is_stub(*seq)).map(|(_, row)| row.item.clone()).collect();
        let messages: Vec<_> = rows
            .into_iter()
            .filter(|(seq, row)| row.is_for(device) && !silent.contains(seq))
            .filter_map(|(seq, row)| match row.item {
                Item::Message(message) => Some((message, !turned_down(seq))),
                _ => None,
            })
            .collect();
        self.keep_stubs(user, stubs)?;
        self.pass(user, device, seen, &messages)?;
        Ok(Ok(seen.0 == upto))
    }

    /// `{"sync":true}`: the device begins if it is new. A reader of ours goes on as it is: what is in flight is not resent on the same
    /// connection [MQTT-4.4.0-1].
    pub(crate) fn sync(&mut self, user: &UserId, device: &DeviceId) -> Result<Result<(), Refusal>, StoreError> {
        if !self.begin_device(user, device)? {
            let details = format!("sync: expected at most {} devices, got one more", self.limits.devices_max);
            return Ok(Err(Refusal::new(Kind::Quota, details)));
        }
        self.hungry.insert(user.clone());
        Ok(Ok(()))
    }

    /// Receipts for messages that a device of `member` has passed, each with whether it was taken.
    fn delivered(&mut self, member: &UserId, messages: &[(Arc<Message>, bool)]) -> Result<(), StoreError> {
        let mut marks: Vec<(ChatKey, N)> = Vec::new();
        let mut runs: Vec<Run> = Vec::new();
        let mut closed = 0;
        for (message, taken) in messages {
            if message.from == *member && message.chat.other(member).as_ref() != Some(member) {
                // The copy of an own message makes no ticks.
                continue;
            }
            let index = match marks.iter().position(|(chat, _)| *chat == message.chat) {
                Some(index) => index,
                None => {
                    let mark = self.state.chat(&message.chat)?.mark(member, Tick::Delivered);
                    marks.push((message.chat.clone(), mark));
                    marks.len() - 1
                }
            };
            if message.chat.is_group() && (!taken || message.is_system()) {
                // What is a line of the group, or was not taken, raises no mark by itself.
                continue;
            }
            let chat = self.state.chat(&message.chat)?;
            if chat.is_hidden(member, message.n) {
                // It was on its way when its sender was blocked.
                continue;
            }
            let Some((_, mark)) = marks.get_mut(index) else { continue };
            if message.n <= *mark {
                // Another device had it before.
                continue;
            }
            let mut after = std::mem::replace(mark, message.n);
            if message.chat.is_group() {
                // Its senders are told by counts.
                continue;
            }
            let is_status = message.chat.is_status();
            if is_status {
                // What lies between went to others.
                after = message.n - 1;
            }
            // What was not delivered at a block is hidden, so nothing hidden lies between two of one run.
            after = chat.hidden.get(member).map_or(after, |hidden| hidden.start(after, message.n));
            if !taken {
                // Nothing before it may be covered by what comes behind it.
                closed = runs.len();
                continue;
            }
            let open = runs.get_mut(closed..).into_iter().flatten();
            let same = |run: &&mut Run| run.chat == message.chat && run.from == message.from;
            match open.into_iter().rev().find(same).filter(|run| !is_status || run.n == after) {
                Some(run) => {
                    run.n = message.n;
                    run.id = message.id.clone();
                }
                None => runs.push(Run {
                    chat: message.chat.clone(),
                    from: message.from.clone(),
                    after,
                    n: message.n,
                    id: message.id.clone(),
                }),
            }
        }
        for (chat, n) in marks {
            if chat.is_group() {
                self.raise_group_mark(&chat, member, Tick::Delivered, n)?;
            } else if self.state.chat(&chat)?.mark(member, Tick::Delivered) < n {
                self.change(Change::Mark { chat, member: member.clone(), tick: Tick::Delivered, n })?;
            }
        }
        for Run { chat, from, after, n, id } in runs {
            self.receipt(&from, None, Tick::Delivered, &chat, (after, n), &id, member)?;
        }
        Ok(())
    }

    /// Puts a receipt into `to`'s inbox, or raises the one that lies there unsent with nothing behind it.
    #[expect(clippy::too_many_arguments, reason = "a receipt has that many parts")]
    pub(crate) fn receipt(
        &mut self,
        to: &UserId,
        except: Option<&DeviceId>,
        tick: Tick,
        chat: &ChatKey,
        (after, n): (N, N),
        id: &MessageId,
        member: &UserId,
    ) -> Result<(), StoreError> {
        let timestamp = self.now.unix_secs;
        let user = self.state.user(to)?;
        let tail = user.rows.last_key_value().filter(|(seq, row)| {
            **seq == user.last_seq && **seq > user.pushed && row.only.is_none() && row.except.as_ref() == except
        });
        if let Some((seq, Row { item: Item::Receipt(unsent), .. })) = tail
            && (unsent.kind, &unsent.chat, &unsent.member) == (tick, chat, member)
            && after <= unsent.n
        {
            let seq = *seq;
            self.hungry.insert(to.clone());
            return self.change(Change::Merged { user: to.clone(), seq, n, id: id.clone(), timestamp });
        }
        let receipt =
            Receipt { kind: tick, chat: chat.clone(), after, n, id: id.clone(), member: member.clone(), timestamp };
        self.notice(to, None, except.cloned(), Item::Receipt(receipt))?;
        Ok(())
    }

    /// Sends readers and viewers what they can take.
    pub(crate) fn feed(&mut self, window: &mut Window, out: &mut Released) -> Result<(), StoreError> {
        let mut unfed = BTreeSet::new();
        while let Some(user) = self.hungry.pop_first() {
            if !window.is_open() {
                unfed.insert(user);
                continue;
            }
            self.show_viewers(&user, window, out)?;
            let Some(mut readers) = self.readers.remove(&user) else { continue };
            let mut fed = Ok(true);
            for reader in &mut readers {
                fed = match fed {
                    Ok(all) => self.feed_reader(&user, reader, window, out).map(|done| all && done),
                    Err(error) => Err(error),
                };
            }
            self.readers.insert(user.clone(), readers);
            if !fed? {
                unfed.insert(user);
            }
        }
        self.hungry = unfed;
        Ok(())
    }

    /// `false`: credit ran out first.
    fn feed_reader(
        &mut self,
        user: &UserId,
        reader: &mut Reader,
        window: &mut Window,
        out: &mut Released,
    ) -> Result<bool, StoreError> {
        loop {
            let room = reader.room();
            let state = self.state.user(user)?;
            if room == 0 || reader.next > state.last_seq {
                return Ok(true);
            }
            let behind = state.stored && reader.next <= state.settled_seq;
            if behind && !reader.is_half_empty() {
                // A page at a time: one read of the store for many entries.
                return Ok(true);
            }
            let rows = self.state.page(user, reader.next - 1, room)?;
            if rows.is_empty() {
                reader.next = self.state.user(user)?.last_seq + 1;
                return Ok(true);
            }
            for (seq, row) in rows {
                if !row.is_for(&reader.device) || self.state.is_silent(user, &row, self.now.server_secs)? {
                    reader.next = seq + 1;
                    self.note_others(user, reader, seq, row.offset)?;
                    continue;
                }
                if !window.is_open() {
                    return Ok(false);
                }
                if !self.send(user, reader, seq, &row, window, out) {
                    return Ok(true);
                }
                if planted::has(Bug::CursorOnSend) {
                    let (user, device) = (user.clone(), reader.device.clone());
                    self.change(Change::Cursor { user, device, from: seq - 1, upto: seq, offset: row.offset })?;
                }
            }
        }
    }

    /// A reader has come to a row that is not meant for it. With nothing in flight that row is behind the device, though it moves no
    /// cursor: `prev` tells of what the device has seen. Noted now and then only, for the next commit.
    fn note_others(&mut self, user: &UserId, reader: &Reader, seq: Seq, offset: u64) -> Result<(), StoreError> {
        let position = self.state.user(user)?.devices.get(&reader.device).map_or(seq, DeviceRow::position);
        if reader.oldest_in_flight().is_none() && seq >= position + OTHERS_NOTED {
            self.passed_over.insert((user.clone(), reader.device.clone()), (seq, offset));
        }
        Ok(())
    }

    /// What was noted becomes changes.
    pub(crate) fn pass_over_noted(&mut self) -> Result<(), StoreError> {
        for ((user, device), (upto, offset)) in std::mem::take(&mut self.passed_over) {
            let position = self.state.user(&user)?.devices.get(&device).map_or(upto, DeviceRow::position);
            if position < upto {
                self.pass_over(&user, &device, position, upto, offset)?;
            }
        }
        Ok(())
    }

    /// Sends one entry; `false`: it must wait.
    fn send(
        &mut self,
        user: &UserId,
        reader: &mut Reader,
        seq: Seq,
        row: &Row,
        window: &mut Window,
        out: &mut Released,
    ) -> bool {
        let (message, tail) = tail(user, row);
        let mut payload = entry::head(seq, reader.prev, &tail);
        let around = topic::inbox(user, &reader.device).len() + PUBLISH_OVERHEAD;
        let mut stub = false;
        let why = if payload.len() > entry::ENTRY_BYTES_MAX || payload.len() + around > reader.packet_bytes_max {
            let limit = reader.packet_bytes_max.saturating_sub(around).min(entry::ENTRY_BYTES_MAX);
            let details = format!("expected an entry of at most {limit} bytes, got {}", payload.len());
            Some(Refusal::new(Kind::TooLarge, details))
        } else if reader.stub_at == Some(seq) {
            let details =
                "expected an acknowledgement within five subscriptions, got none: the client may not survive it";
            Some(Refusal::new(Kind::InvalidValue, details))
        } else {
            None
        };
        if let Some(why) = why
            && let Some(short) = message.as_ref().and_then(|message| stub_tail(user, message, &why))
        {
            payload = entry::head(seq, reader.prev, &short);
            stub = true;
        }
        if reader.must_wait(seq, payload.len()) {
            return false;
        }
        let (again, newest) = match self.state.user_in_memory_mut(user) {
            Some(state) => {
                // What was sent before the last start is not known: it may be all.
                let sent = state.sent.entry(reader.device.clone()).or_insert(state.loaded_seq);
                let again = reader.is_resumed && seq <= *sent;
                *sent = (*sent).max(seq);
                state.pushed = state.pushed.max(seq);
                if stub {
                    state.stubs.insert((reader.device.clone(), seq));
                } else if !state.stubs.is_empty() {
                    // Whole this time.
                    state.stubs.remove(&(reader.device.clone(), seq));
                }
                (again, state.last_seq)
            }
            None => (false, seq),
        };
        let is_given = seq <= newest || planted::has(Bug::SeqOutsideTransaction);
        debug_assert!(is_given, "an entry beyond the newest position");
        reader.sent(seq, row.offset, payload.len(), message, stub);
        Counters::add(&self.counters.entries);
        let down = Down::Entry { connection: reader.connection, seq, again, payload: Bytes::from(payload) };
        let frame = down.encode();
        window.sent(frame.len());
        out.frames.push((Some(user.clone()), frame));
        true
    }

    fn show_viewers(&mut self, user: &UserId, window: &mut Window, out: &mut Released) -> Result<(), StoreError> {
        let Some(viewers) = self.viewers.get_mut(user) else { return Ok(()) };
        let since = viewers.iter().map(|viewer| viewer.prev).min().unwrap_or_default();
        let unsettled = self.state.user_in_memory(user).into_iter().flat_map(|state| state.rows.range(since + 1..));
        let rows: Vec<(Seq, Row)> = unsettled.map(|(seq, row)| (*seq, row.clone())).collect();
        let silent = self.state.silent_rows(user, &rows, self.now.server_secs)?;
        let Some(state) = self.state.user_in_memory_mut(user) else { return Ok(()) };
        for viewer in viewers {
            for (seq, row) in state.rows.range(viewer.prev + 1..) {
                if !row.is_for(&viewer.device) || silent.contains(seq) {
                    continue;
                }
                let payload = Bytes::from(entry::head(*seq, viewer.prev, &tail(user, row).1));
                let frame = Down::Live { connection: viewer.connection, payload }.encode();
                window.sent(frame.len());
                out.frames.push((Some(user.clone()), frame));
                viewer.prev = *seq;
                state.pushed = state.pushed.max(*seq);
            }
        }
        Ok(())
    }
}

/// What an inbox row says to its reader, and the message in it.
pub(crate) fn tail(user: &UserId, row: &Row) -> (Option<Arc<Message>>, Vec<u8>) {
    match &row.item {
        Item::Message(message) => (Some(Arc::clone(message)), whole(user, message).unwrap_or_default()),
        Item::Receipt(receipt) => {
            let chat = receipt.chat.seen_by(user).unwrap_or(Chat::Status);
            let Receipt { kind, chat: key, after, n, id, member, timestamp } = receipt;
            if let Some(poster) = key.poster().filter(|poster| poster != user) {
                return (None, entry::status_read(&poster, *after, *n, id, member, *timestamp));
            }
            (None, entry::receipt((*kind).into(), &chat, *after, *n, id, member, *timestamp))
        }
        Item::Failed(failed) => {
            let at = failed.at.as_ref().and_then(|(chat, n, recipient, timestamp)| {
                let (n, recipient, timestamp) = (*n, recipient.clone(), *timestamp);
                Some(entry::FailedAt { chat: chat.seen_by(user)?, n, recipient, timestamp })
            });
            (None, entry::failed(failed.id.as_ref(), at.as_ref(), &failed.refusal()))
        }
        Item::Gap(gap) => (None, entry::gap(gap.from, gap.to, gap.reason())),
        Item::GroupReceipt(receipt) => (None, group_tail(user, receipt)),
        Item::Starred(Starred { chat, from, n, id, is_starred, timestamp }) => {
            let chat = chat.seen_by(user).unwrap_or(Chat::Status);
            (None, entry::starred(*is_starred, &chat, from, *n, id, *timestamp))
        }
        Item::Deleted(Deleted { poster, n, id, timestamp }) => {
            (None, entry::status_deleted(poster, *n, id, *timestamp))
        }
    }
}

fn group_tail(user: &UserId, receipt: &GroupReceipt) -> Vec<u8> {
    let chat = receipt.chat.seen_by(user).unwrap_or(Chat::Status);
    let GroupReceipt { kind, chat: _, after, n, id, delivered_to, read_by, of, timestamp } = receipt;
    let counts = entry::Counts { delivered_to: *delivered_to, read_by: *read_by, of: *of };
    entry::group_receipt((*kind).into(), &chat, (*after, *n), id, counts, *timestamp)
}

/// A message as `user` sees it.
pub(crate) fn whole(user: &UserId, message: &Message) -> Option<Vec<u8>> {
    with_tail(user, message, |tail| tail.with_body(message.body.as_bytes()))
}

fn stub_tail(user: &UserId, message: &Message, why: &Refusal) -> Option<Vec<u8>> {
    with_tail(user, message, |tail| tail.unsupported(why))
}

fn with_tail(user: &UserId, message: &Message, write: impl Fn(entry::MessageTail<'_>) -> Vec<u8>) -> Option<Vec<u8>> {
    let chat = message.chat.seen_by(user)?;
    let own = message.from == *user && chat != Chat::Direct(user.clone());
    Some(write(entry::MessageTail {
        from: &message.from,
        chat: &chat,
        to: own.then_some(&chat),
        n: message.n,
        id: &message.id,
        timestamp: message.timestamp,
    }))
}
