//! Connections and sessions: what a door tells of a client that comes and goes.

use std::sync::Arc;

use natter_protocol::link::{Down, Mode, Opening};
use natter_protocol::{ConnectionId, DeviceId, Seq, UserId};

use crate::change::{Change, Session};
use crate::engine::{Connection, Engine};
use crate::reader::{Reader, Viewer};
use crate::state::User;
use crate::store::{Store, StoreError};

/// A device that had no reader for so long may be replaced by a new one, in server seconds.
pub(crate) const DEVICE_IDLE_SECS: u64 = 7 * 24 * 3600;
/// How exactly a device's last activity is kept, in server seconds.
const SEEN_SECS: u64 = 3600;
/// So many changes of hands between different clients within [`SWAP_SECS`] make a newcomer wait.
const SWAPS_MAX: usize = 3;
const SWAP_SECS: u64 = 60;

/// SUBACK: granted at QoS 0.
const GRANTED_0: u8 = 0;
/// SUBACK: granted at QoS 1.
const GRANTED_1: u8 = 1;
/// SUBACK: not authorized.
const NOT_AUTHORIZED: u8 = 0x87;
/// SUBACK: quota exceeded.
const QUOTA: u8 = 0x97;
/// DISCONNECT: session taken over.
const TAKEN_OVER: u8 = 0x8e;

impl<S: Store> Engine<S> {
    /// A client connected: its session is begun, gone on with, or forgotten.
    pub(crate) fn open(&mut self, user: UserId, id: ConnectionId, opening: Opening) -> Result<(), StoreError> {
        // A user that an app's own backend names in a token exists from his first connection.
        self.add_user(&user)?;
        if self.is_unlinked(&user, &opening) {
            return self.turn_away(user, id, opening);
        }
        let client_id: Arc<str> = Arc::from(opening.client_id.as_str());
        let old = self.by_client.insert((user.clone(), Arc::clone(&client_id)), id);
        if let Some(old) = old {
            self.stop_reading(&user, old, true)?;
        }
        let stored = self.state.session(&user, &client_id)?;
        let stored = stored.filter(|session| old.is_some() || self.is_alive(session));
        let resumed = if opening.clean_start { None } else { stored };
        self.connections.insert(
            id,
            Connection {
                user: user.clone(),
                client_id: Arc::clone(&client_id),
                bound: opening.device.clone(),
                dialect: opening.dialect,
                receive_maximum: opening.receive_maximum,
                packet_bytes_max: opening.packet_bytes_max,
                expiry_secs: opening.expiry_secs,
                reading: None,
                is_resumed: resumed.is_some(),
                deaf: false,
                in_front: true,
            },
        );
        let session_present = resumed.is_some();
        let mut session = resumed.unwrap_or(Session { device: None, expiry_secs: 0, gone_at: None, held: Vec::new() });
        session.expiry_secs = opening.expiry_secs;
        session.gone_at = None;
        let held = session.held.clone();
        let readable = |device: &DeviceId| opening.device.as_ref().is_none_or(|bound| bound == device);
        let device = session.device.clone().filter(readable);
        self.store_session(&user, &client_id, session)?;
        let device = match device {
            Some(device) if self.read_device(&user, id, &device)? < 0x80 => Some(device),
            _ => None,
        };
        self.answer(&user, Down::Opened { connection: id, session_present, device, held });
        Ok(())
    }

    /// Whether a session that nobody is connected to still holds. One whose connection died with the server is gone since then.
    fn is_alive(&self, session: &Session) -> bool {
        let gone = session.gone_at.unwrap_or(self.recovered_at);
        session.expiry_secs == u32::MAX || gone + u64::from(session.expiry_secs) > self.now.server_secs
    }

    /// Stores a session that outlives its connection, or forgets one that does not.
    fn store_session(&mut self, user: &UserId, client_id: &Arc<str>, session: Session) -> Result<(), StoreError> {
        let stored = self.state.session(user, client_id)?;
        if session.expiry_secs == 0 {
            if stored.is_some() {
                self.change(Change::SessionGone { user: user.clone(), client_id: client_id.to_string() })?;
            }
            return Ok(());
        }
        if stored.as_ref() == Some(&session) {
            return Ok(());
        }
        if stored.is_none() {
            self.make_room_for_session(user)?;
        }
        self.change(Change::Session { user: user.clone(), client_id: client_id.to_string(), session })
    }

    /// Forgets sessions that are over, and the one that ended first if there are too many.
    fn make_room_for_session(&mut self, user: &UserId) -> Result<(), StoreError> {
        let sessions = self.state.sessions(user)?;
        if sessions.len() < self.limits.sessions_max {
            return Ok(());
        }
        let left: Vec<&(String, Session)> = sessions
            .iter()
            .filter(|(client_id, _)| !self.by_client.contains_key(&(user.clone(), Arc::from(client_id.as_str()))))
            .collect();
        let over: Vec<String> = left
            .iter()
            .filter(|(_, session)| !self.is_alive(session))
            .map(|(client_id, _)| client_id.clone())
            .collect();
        let oldest = left.iter().min_by_key(|(_, session)| session.gone_at).map(|(client_id, _)| client_id.clone());
        let gone = if over.is_empty() { oldest.into_iter().collect() } else { over };
        for client_id in gone {
            self.change(Change::SessionGone { user: user.clone(), client_id })?;
        }
        Ok(())
    }

    /// A connection ended.
    pub(crate) fn close(
        &mut self,
        user: &UserId,
        id: ConnectionId,
        expiry_secs: Option<u32>,
        by_server: bool,
    ) -> Result<(), StoreError> {
        self.stop_reading(user, id, !by_server)?;
        self.presence.closed(id);
        let Some(connection) = self.connections.remove(&id) else { return Ok(()) };
        let key = (user.clone(), Arc::clone(&connection.client_id));
        if self.by_client.get(&key) != Some(&id) {
            return Ok(());
        }
        self.by_client.remove(&key);
        if connection.expiry_secs == 0 && !connection.deaf {
            // Forgotten when it was opened (one that is deaf may not have been), and a DISCONNECT cannot prolong it [MQTT-3.1.2-23]: thousands that leave at once cost no reads.
            return Ok(());
        }
        if let Some(mut session) = self.state.session(user, &connection.client_id)? {
            session.expiry_secs = expiry_secs.unwrap_or(connection.expiry_secs);
            session.gone_at = Some(self.now.server_secs);
            self.store_session(user, &connection.client_id, session)?;
        }
        Ok(())
    }

    /// PUBREL: the packet id is free again; PUBCOMP says so once that is committed.
    pub(crate) fn release_packet(&mut self, user: &UserId, id: ConnectionId, packet_id: u16) -> Result<(), StoreError> {
        self.hold(user, id, packet_id, false)?;
        self.answer(user, Down::Complete { connection: id, packet_id });
        Ok(())
    }

    /// Keeps or frees a QoS 2 packet id, for sessions that outlive their connection.
    pub(crate) fn hold(
        &mut self,
        user: &UserId,
        id: ConnectionId,
        packet_id: u16,
        held: bool,
    ) -> Result<(), StoreError> {
        let Some(connection) = self.connections.get(&id).filter(|connection| connection.expiry_secs > 0) else {
            return Ok(());
        };
        let client_id = Arc::clone(&connection.client_id);
        let Some(mut session) = self.state.session(user, &client_id)? else { return Ok(()) };
        session.held.retain(|other| *other != packet_id);
        if held {
            session.held.push(packet_id);
        }
        self.store_session(user, &client_id, session)
    }

    /// SUBSCRIBE to the own inbox.
    pub(crate) fn attach(
        &mut self,
        user: &UserId,
        id: ConnectionId,
        request: u16,
        device: DeviceId,
        mode: Mode,
    ) -> Result<(), StoreError> {
        if self.is_deaf(id) || !self.connections.contains_key(&id) {
            return Ok(());
        }
        let reading = self.connections.get(&id).and_then(|connection| connection.reading.clone());
        let reason = match (&reading, mode) {
            (Some((other, _)), _) if *other != device => QUOTA,
            (_, Mode::Device) => self.read_device(user, id, &device)?,
            (_, Mode::Viewer) => {
                self.stop_reading(user, id, true)?;
                self.remember_subscription(user, id, None)?;
                let prev = self.state.user(user)?.last_seq;
                self.viewers.entry(user.clone()).or_default().push(Viewer {
                    device: device.clone(),
                    connection: id,
                    prev,
                });
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.reading = Some((device, Mode::Viewer));
                }
                self.began_to_read(user, id);
                GRANTED_0
            }
        };
        self.answer(user, Down::Attached { connection: id, request, reason });
        Ok(())
    }

    /// UNSUBSCRIBE.
    pub(crate) fn detach(&mut self, user: &UserId, id: ConnectionId) -> Result<(), StoreError> {
        self.stop_reading(user, id, true)?;
        self.remember_subscription(user, id, None)
    }

    /// Makes a connection the reader of a device's inbox; the SUBACK's reason.
    fn read_device(&mut self, user: &UserId, id: ConnectionId, device: &DeviceId) -> Result<u8, StoreError> {
        if *device == DeviceId::http() {
            return Ok(NOT_AUTHORIZED);
        }
        let Some(connection) = self.connections.get(&id) else { return Ok(NOT_AUTHORIZED) };
        let client_id = Arc::clone(&connection.client_id);
        let (receive_maximum, packet_bytes_max) = (connection.receive_maximum, connection.packet_bytes_max);
        let is_resumed = connection.is_resumed;
        if !self.may_take_over(user, device, &client_id) || !self.begin_device(user, device)? {
            return Ok(QUOTA);
        }
        self.stop_reading(user, id, true)?;
        let old = self.readers.get(user).and_then(|all| all.iter().find(|reader| reader.device == *device));
        if let Some(old) = old.map(|reader| reader.connection) {
            self.stop_reading(user, old, false)?;
            self.answer(user, Down::Close { connection: old, reason: TAKEN_OVER });
        }
        let row = self.state.user(user)?.devices.get(device).cloned().unwrap_or_default();
        let mut reader = Reader::new(device.clone(), id, client_id, receive_maximum, packet_bytes_max, row.cursor);
        reader.next = row.position() + 1;
        reader.is_resumed = is_resumed;
        reader.since = self.now.unix_secs;
        reader.stub_at = self.stuck.stub_at(user, device, self.now.server_secs);
        self.readers.entry(user.clone()).or_default().push(reader);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.reading = Some((device.clone(), Mode::Device));
            // What it gets from now on, it may get again behind an UNSUBSCRIBE.
            connection.is_resumed = true;
        }
        self.began_to_read(user, id);
        self.remember_subscription(user, id, Some(device.clone()))?;
        self.hungry.insert(user.clone());
        Ok(GRANTED_1)
    }

    /// Two clients that fight for one inbox: after a few swaps a minute the newcomer waits.
    fn may_take_over(&mut self, user: &UserId, device: &DeviceId, client_id: &Arc<str>) -> bool {
        let now = self.now.server_secs;
        let rival = self
            .readers
            .get(user)
            .is_some_and(|all| all.iter().any(|reader| reader.device == *device && reader.client_id != *client_id));
        if !rival {
            return true;
        }
        let swaps = self.swaps.entry((user.clone(), device.clone())).or_default();
        swaps.retain(|at| at + SWAP_SECS > now);
        if swaps.len() >= SWAPS_MAX {
            return false;
        }
        swaps.push_back(now);
        if self.swaps.len() > self.limits.swaps_max {
            self.swaps.retain(|_, swaps| swaps.back().is_some_and(|at| at + SWAP_SECS > now));
        }
        true
    }

    /// Makes sure that the device exists; `false`: the user has as many as may be, and none is idle.
    pub(crate) fn begin_device(&mut self, user: &UserId, device: &DeviceId) -> Result<bool, StoreError> {
        let now = self.now.server_secs;
        let known = self.state.user(user)?;
        if let Some(row) = known.devices.get(device) {
            if row.active_at + SEEN_SECS <= now {
                self.note_seen(user, device)?;
            }
            return Ok(true);
        }
        if known.devices.len() >= self.limits.devices_max {
            let Some((idle, cursor)) = self.idle_device(user)? else { return Ok(false) };
            self.change(Change::DeviceGone { user: user.clone(), device: idle, cursor })?;
        }
        let (cursor, offset) = match smallest_position(self.state.user(user)?) {
            Some(position) => position,
            None => self.state.start(user)?,
        };
        self.change(Change::Device { user: user.clone(), device: device.clone(), cursor, offset, at: now })?;
        self.note_begun(user, device)?;
        Ok(true)
    }

    fn idle_device(&mut self, user: &UserId) -> Result<Option<(DeviceId, u64)>, StoreError> {
        let now = self.now.server_secs;
        let read: Vec<DeviceId> =
            self.readers.get(user).into_iter().flatten().map(|reader| reader.device.clone()).collect();
        let all = self.state.webhooks.keys();
        let webhooks: Vec<DeviceId> = all.filter(|(of, _)| of == user).map(|(_, device)| device.clone()).collect();
        let devices = &self.state.user(user)?.devices;
        Ok(devices
            .iter()
            .filter(|(device, row)| !read.contains(device) && row.active_at + DEVICE_IDLE_SECS <= now)
            // A webhook is never idle: what it has not got, it has not got for want of its receiver.
            .filter(|(device, _)| !webhooks.contains(device))
            .min_by_key(|(_, row)| row.active_at)
            .map(|(device, row)| (device.clone(), row.position())))
    }

    /// A stored session resumes what it read last.
    fn remember_subscription(
        &mut self,
        user: &UserId,
        id: ConnectionId,
        device: Option<DeviceId>,
    ) -> Result<(), StoreError> {
        let Some(connection) = self.connections.get(&id).filter(|connection| connection.expiry_secs > 0) else {
            return Ok(());
        };
        let client_id = Arc::clone(&connection.client_id);
        match self.state.session(user, &client_id)? {
            Some(session) if session.device != device => {
                self.store_session(user, &client_id, Session { device, ..session })
            }
            _ => Ok(()),
        }
    }

    /// The connection reads nothing any more, by its client's doing or not.
    pub(crate) fn stop_reading(&mut self, user: &UserId, id: ConnectionId, by_client: bool) -> Result<(), StoreError> {
        let Some((device, mode)) = self.connections.get_mut(&id).and_then(|connection| connection.reading.take())
        else {
            return Ok(());
        };
        match mode {
            Mode::Viewer => {
                if let Some(all) = self.viewers.get_mut(user) {
                    all.retain(|viewer| viewer.connection != id);
                    if all.is_empty() {
                        self.viewers.remove(user);
                    }
                }
            }
            Mode::Device => {
                if let Some(all) = self.readers.get_mut(user) {
                    let oldest = all.iter().find(|reader| reader.connection == id).and_then(Reader::oldest_in_flight);
                    if let Some(seq) = oldest.filter(|_| by_client) {
                        self.stuck.ended(user, &device, seq, self.now.server_secs);
                    }
                    all.retain(|reader| reader.connection != id);
                    if all.is_empty() {
                        self.readers.remove(user);
                    }
                }
                let now = self.now.server_secs;
                let seen = self.state.user(user)?.devices.get(&device).map(|row| row.active_at);
                if seen.is_some_and(|at| at + SEEN_SECS <= now) {
                    self.note_seen(user, &device)?;
                }
                self.left.note(user, device, self.now.unix_secs);
            }
        }
        self.ended_to_read(user, id);
        Ok(())
    }
}

fn smallest_position(user: &User) -> Option<(Seq, u64)> {
    user.devices.values().map(|row| (row.position(), row.offset)).min()
}
