//! The devices of a user: which there are, how one is linked before it connects, and how one is cut off.
//!
//! Cut off is cut off with the commit. In one batch the device's tokens are revoked, its inbox position goes (what only it waited for goes
//! with it) and its stored sessions; from that batch on nothing is taken in of its connections and nothing is sent to them. A connection
//! whose token is older, and which is still on its way here, is turned away when it arrives (`Engine::is_unlinked`). So nothing depends on how fast the door
//! closes sockets.

use std::collections::HashMap;
use std::sync::Arc;

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::ids::{HTTP_DEVICE, WEBHOOK_DEVICE};
use natter_protocol::link::{Down, Opening};
use natter_protocol::{ConnectionId, DeviceId, Seq, UserId};

use crate::change::{Change, Revoked};
use crate::engine::{Connection, Engine, Reply, Request};
use crate::stats::Counters;
use crate::store::{Store, StoreError};
use crate::{Error, Handle};

/// Most characters of a label; a longer one is refused, and one with control characters.
pub const LABEL_CHARS_MAX: usize = 64;
/// Devices of which it is remembered to the second when they left, in this run; at this many all are forgotten, and the hour that the
/// store knows is said.
const LEFT_MAX: usize = 50_000;
/// DISCONNECT: not authorized.
const NOT_AUTHORIZED: u8 = 0x87;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A user's devices.
    List(UserId),
    /// Begins a device before it connects; what arrives from now on waits for it.
    Link {
        /// Whose.
        user: UserId,
        /// Which; none of that name may be there.
        device: DeviceId,
        /// What its user calls it.
        label: Option<String>,
    },
    /// Cuts a device off.
    Unlink {
        /// Whose.
        user: UserId,
        /// Which.
        device: DeviceId,
        /// Its tokens issued before this Unix second are revoked.
        before: u64,
    },
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The devices, in order of names.
    List(Vec<Device>),
    /// It was done; `false`: there is no such device.
    Done(bool),
    /// It was not done, for good.
    Refused(Refusal),
}

/// A device, as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: DeviceId,
    /// What its user calls it.
    pub label: Option<Arc<str>>,
    /// Unix second in which it began; `None`: before that was kept.
    pub linked_at: Option<u64>,
    /// Unix second since which it reads its inbox over MQTT; `None`: it does not.
    pub connected_since: Option<u64>,
    /// Unix second in which it was there: now, if it is connected; to the second, if it left since the server started; else to the hour.
    pub last_seen: Option<u64>,
}

/// When devices lost their readers.
#[derive(Debug, Default)]
pub(crate) struct Left(HashMap<(UserId, DeviceId), u64>);

impl Left {
    pub(crate) fn note(&mut self, user: &UserId, device: DeviceId, unix_secs: u64) {
        if self.0.len() >= LEFT_MAX {
            self.0.clear();
        }
        self.0.insert((user.clone(), device), unix_secs);
    }
}

impl<S: Store> Engine<S> {
    pub(crate) fn devices_question(&mut self, ask: Ask) -> Result<Told, StoreError> {
        match ask {
            Ask::List(user) => self.list_devices(&user).map(Told::List),
            Ask::Link { user, device, label } => self.link_device(&user, &device, label),
            Ask::Unlink { user, device, before } => self.unlink_device(&user, &device, before),
        }
    }

    fn list_devices(&mut self, user: &UserId) -> Result<Vec<Device>, StoreError> {
        let now = self.now.unix_secs;
        let readers = self.readers.get(user).map(Vec::as_slice).unwrap_or_default();
        let devices = &self.state.user(user)?.devices;
        let known = |secs: u64| (secs > 0).then_some(secs);
        let all = devices.iter().map(|(name, row)| {
            let since = readers.iter().find(|reader| reader.device == *name).map(|reader| reader.since);
            let left = self.left.0.get(&(user.clone(), name.clone())).copied().unwrap_or_default();
            Device {
                name: name.clone(),
                label: row.label.clone(),
                linked_at: known(row.linked_at),
                connected_since: since,
                last_seen: since.map(|_| now).or_else(|| known(row.seen_at.max(left))),
            }
        });
        Ok(all.collect())
    }

    fn link_device(&mut self, user: &UserId, device: &DeviceId, label: Option<String>) -> Result<Told, StoreError> {
        let refused = |kind, details: String| Ok(Told::Refused(Refusal::new(kind, details)));
        if [HTTP_DEVICE, WEBHOOK_DEVICE].contains(&device.as_str()) {
            let details =
                format!("device: expected another name than {HTTP_DEVICE} and {WEBHOOK_DEVICE}, got {device}");
            return refused(Kind::InvalidValue, details);
        }
        if label.as_ref().is_some_and(|label| label.chars().any(char::is_control)) {
            return refused(Kind::InvalidValue, "label: expected no control characters, got some".to_owned());
        }
        if let Some(got) = label.as_ref().map(|label| label.chars().count()).filter(|got| *got > LABEL_CHARS_MAX) {
            let details = format!("label: expected at most {LABEL_CHARS_MAX} characters, got {got}");
            return refused(Kind::InvalidValue, details);
        }
        self.add_user(user)?;
        if self.state.user(user)?.devices.contains_key(device) {
            let details = format!(
                "device: expected a name that no device of yours has, got {device}: choose another, or unlink that one first"
            );
            return refused(Kind::Conflict, details);
        }
        if !self.begin_device(user, device)? {
            let max = self.limits.devices_max;
            let details =
                format!("device: expected fewer than {max} devices, or one that was idle for a week: unlink one first");
            return refused(Kind::Quota, details);
        }
        if label.is_some() {
            let now = self.now.unix_secs;
            let (user, device, label) = (user.clone(), device.clone(), label.map(Arc::from));
            self.change(Change::DeviceInfo { user, device, linked_at: now, seen_at: now, label })?;
        }
        Counters::add(&self.counters.devices_linked);
        Ok(Told::Done(true))
    }

    fn unlink_device(&mut self, user: &UserId, device: &DeviceId, before: u64) -> Result<Told, StoreError> {
        if device.as_str() == WEBHOOK_DEVICE {
            let details = format!("device: expected another one than {WEBHOOK_DEVICE}: DELETE /v1/webhook ends that");
            return Ok(Told::Refused(Refusal::new(Kind::NotAllowed, details)));
        }
        let known = self.state.user(user)?;
        let Some(cursor) = known.devices.get(device).map(|row| row.position()) else { return Ok(Told::Done(false)) };
        known.sent.remove(device);
        known.stubs.retain(|(of, _)| of != device);
        self.change(Change::Revoked(Revoked::Device(user.clone(), device.clone(), before)))?;
        self.change(Change::DeviceGone { user: user.clone(), device: device.clone(), cursor })?;
        self.cut_connections(user, device)?;
        for (client_id, session) in self.state.sessions(user)? {
            if session.device.as_ref() == Some(device) {
                self.change(Change::SessionGone { user: user.clone(), client_id })?;
            }
        }
        let key = (user.clone(), device.clone());
        self.left.0.remove(&key);
        self.swaps.remove(&key);
        self.passed_over.remove(&key);
        self.stuck.passed(user, device, Seq::MAX);
        Counters::add(&self.counters.devices_unlinked);
        Ok(Told::Done(true))
    }

    /// Whoever has a token of the device, or reads its inbox with one of every device, is not heard any more and gets nothing.
    fn cut_connections(&mut self, user: &UserId, device: &DeviceId) -> Result<(), StoreError> {
        let is_of = |connection: &Connection| {
            connection.bound.as_ref() == Some(device)
                || connection.reading.as_ref().is_some_and(|(reading, _)| reading == device)
        };
        let all = self.connections.iter().filter(|(_, connection)| connection.user == *user && is_of(connection));
        let cut: Vec<ConnectionId> = all.map(|(id, _)| *id).collect();
        for id in cut {
            self.stop_reading(user, id, false)?;
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.deaf = true;
            let client_id = connection.client_id.to_string();
            if self.state.session(user, &client_id)?.is_some() {
                self.change(Change::SessionGone { user: user.clone(), client_id })?;
            }
            self.answer(user, Down::Close { connection: id, reason: NOT_AUTHORIZED });
        }
        Ok(())
    }

    /// Whether a connection comes with a token that its device lost while it was on its way.
    pub(crate) fn is_unlinked(&self, user: &UserId, opening: &Opening) -> bool {
        let Some(device) = &opening.device else { return false };
        let revoked = |before| Revoked::Device(user.clone(), device.clone(), before);
        self.state.revoked.range(revoked(opening.issued_at.saturating_add(1))..=revoked(u64::MAX)).next().is_some()
    }

    /// A connection that [`Engine::is_unlinked`]: nothing of it is taken in, and nothing of its client is touched.
    pub(crate) fn turn_away(&mut self, user: UserId, id: ConnectionId, opening: Opening) -> Result<(), StoreError> {
        self.answer(&user, Down::Close { connection: id, reason: NOT_AUTHORIZED });
        let Opening { client_id, dialect, receive_maximum, packet_bytes_max, device, .. } = opening;
        self.connections.insert(
            id,
            Connection {
                user,
                client_id: client_id.into(),
                bound: device,
                dialect,
                receive_maximum,
                packet_bytes_max,
                expiry_secs: 0,
                reading: None,
                is_resumed: false,
                deaf: true,
                in_front: false,
            },
        );
        Ok(())
    }

    /// A device has begun now.
    pub(crate) fn note_begun(&mut self, user: &UserId, device: &DeviceId) -> Result<(), StoreError> {
        let now = self.now.unix_secs;
        let (user, device) = (user.clone(), device.clone());
        self.change(Change::DeviceInfo { user, device, linked_at: now, seen_at: now, label: None })
    }

    /// A device is there now.
    pub(crate) fn note_seen(&mut self, user: &UserId, device: &DeviceId) -> Result<(), StoreError> {
        let Some(row) = self.state.user(user)?.devices.get(device) else { return Ok(()) };
        let (linked_at, label) = (row.linked_at, row.label.clone());
        let (at, seen_at) = (self.now.server_secs, self.now.unix_secs);
        self.change(Change::DeviceSeen { user: user.clone(), device: device.clone(), at })?;
        self.change(Change::DeviceInfo { user: user.clone(), device: device.clone(), linked_at, seen_at, label })
    }
}

impl Handle {
    /// Asks about devices; what changes is answered after the commit.
    ///
    /// # Errors
    /// [`Error::Refused`] for good. Otherwise the loop has ended or the commit failed.
    pub async fn devices(&self, ask: Ask) -> Result<Told, Error> {
        match self.reply(Request::Devices(ask)).await? {
            Reply::Devices(Told::Refused(refusal)) => Err(refusal.into()),
            Reply::Devices(told) => Ok(told),
            _ => Err(Error::Ended),
        }
    }
}
