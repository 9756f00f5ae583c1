//! What is said without a place in an inbox: hints and presence, at QoS 0. They are the first to give way: behind answers and entries, and not at
//! all while the link is full or their reader has not taken what it has.

use bytes::Bytes;
use natter_protocol::entry::Presence as Is;
use natter_protocol::link::{Down, Window};
use natter_protocol::{Chat, ConnectionId, DeviceId, MessageId, N, UserId, entry};

use super::Takes;
use crate::engine::{Engine, Released};
use crate::stats::Counters;
use crate::store::Store;

/// `sent` for devices whose PUBACK cannot say it: one payload a device, chat and batch.
#[derive(Debug)]
pub(crate) struct Sent {
    user: UserId,
    device: DeviceId,
    chat: Chat,
    messages: Vec<(MessageId, N)>,
}

impl<S: Store> Engine<S> {
    /// Notes that a device's PUBACK cannot say that its message was accepted.
    pub(crate) fn hint_sent(&mut self, user: &UserId, device: &DeviceId, chat: &Chat, id: &MessageId, n: N) {
        match self.sent.last_mut() {
            Some(last) if last.user == *user && last.device == *device && last.chat == *chat => {
                last.messages.push((id.clone(), n));
            }
            _ => self.sent.push(Sent {
                user: user.clone(),
                device: device.clone(),
                chat: chat.clone(),
                messages: vec![(id.clone(), n)],
            }),
        }
    }

    /// What was noted is said with the batch's answers.
    pub(crate) fn say_sent(&mut self) {
        for sent in std::mem::take(&mut self.sent) {
            let tail = entry::sent(&sent.chat, &sent.messages, self.now.unix_secs);
            self.live(&sent.user, Some(&sent.device), &tail);
        }
    }

    /// Sends something live to whoever reads `user`'s inbox, as `device` or as any.
    pub(crate) fn live(&mut self, user: &UserId, device: Option<&DeviceId>, tail: &[u8]) {
        let wanted = |of: &DeviceId| device.is_none_or(|device| device == of);
        let readers = self.readers.get(user).into_iter().flatten();
        let viewers = self.viewers.get(user).into_iter().flatten();
        let connections: Vec<ConnectionId> = readers
            .filter(|reader| wanted(&reader.device))
            .map(|reader| reader.connection)
            .chain(viewers.filter(|viewer| wanted(&viewer.device)).map(|viewer| viewer.connection))
            .collect();
        if connections.is_empty() {
            return;
        }
        let payload = Bytes::from(entry::live(tail));
        for connection in connections {
            self.answer(user, Down::Live { connection, payload: payload.clone() });
        }
    }

    /// As [`Engine::live`], to all of them, for what is worth something now or never: who is behind does not get it.
    pub(crate) fn hint(&mut self, user: &UserId, tail: &[u8]) {
        let payload = Bytes::from(entry::live(tail));
        let readers = self.readers.get(user).into_iter().flatten();
        let viewers = self.viewers.get(user).into_iter().flatten().map(|viewer| viewer.connection);
        let (able, behind): (Vec<_>, Vec<_>) = readers.partition(|reader| reader.room() > 0);
        Counters::add_many(&self.counters.hints_dropped, behind.len() as u64);
        let connections: Vec<ConnectionId> = able.into_iter().map(|reader| reader.connection).chain(viewers).collect();
        for connection in connections {
            self.hints.push((user.clone(), Down::Live { connection, payload: payload.clone() }));
        }
    }

    /// Hands out hints and presence as far as there is credit. Hints that do not go now never do; presence waits, and what is true then is told.
    pub(crate) fn say_live(&mut self, window: &mut Window, out: &mut Released) {
        for (user, down) in std::mem::take(&mut self.hints) {
            if window.is_open() {
                say(user, &down, window, out);
            } else {
                Counters::add(&self.counters.hints_dropped);
            }
        }
        let Self { presence, readers, viewers, counters, now, .. } = self;
        let takes = |connection: ConnectionId, user: &UserId| {
            let reader = readers.get(user).and_then(|all| all.iter().find(|reader| reader.connection == connection));
            match reader {
                Some(reader) if reader.room() > 0 => Takes::Now,
                Some(_) => Takes::Later,
                None if viewers.get(user).is_some_and(|all| all.iter().any(|of| of.connection == connection)) => {
                    Takes::Now
                }
                None => Takes::Nothing,
            }
        };
        while window.is_open()
            && let Some(told) = presence.next_told(now.server_secs, takes)
        {
            let is = if told.shown.available { Is::Available } else { Is::Unavailable };
            let payload = Bytes::from(entry::live(&entry::presence(&told.watched, is, told.shown.last_seen)));
            say(told.watcher, &Down::Live { connection: told.connection, payload }, window, out);
            Counters::add(&counters.presences);
        }
        counters.watches.store(presence.watches() as u64, std::sync::atomic::Ordering::Relaxed);
    }
}

fn say(user: UserId, down: &Down, window: &mut Window, out: &mut Released) {
    let frame = down.encode();
    window.sent(frame.len());
    out.frames.push((Some(user), frame));
}
