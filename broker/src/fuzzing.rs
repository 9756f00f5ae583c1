//! The pure parts of a door, driven by bytes without a socket, a router or a clock: for the fuzz targets in `fuzz/` only.

use std::time::Instant;

use bytes::BytesMut;
use natter_protocol::accounts::{Accounts, Denied, Grant, RevocationListener, Scope};
use natter_protocol::ids::{ConnectionId, UserId};
use natter_protocol::link::{Down, Packet, Up};

use crate::config::Config;
use crate::connect;
use crate::input::{Input, Next};
use crate::packet::{self, Outbound, Version};
use crate::session::Session;
use crate::validate::BadConnect;

/// The connection that is driven.
pub const CONNECTION: ConnectionId = ConnectionId { boot: 1, n: 7 };

/// The other end of the link.
pub trait Bridge {
    /// A frame has come up.
    fn take(&mut self, frame: Up);
    /// The next frame to send down, if it is time for one.
    fn next(&mut self) -> Option<Down>;
}

/// Every user with any token.
struct Everybody;

impl Accounts for Everybody {
    fn verify(&self, user: &UserId, _: &[u8], _: Scope, now: u64) -> Result<Grant, Denied> {
        Ok(Grant { user: user.clone(), device: None, expires_at: now + 60, jti: "j".into(), issued_at: now })
    }

    // A door never asks this.
    fn identify(&self, _: &[u8], _: Scope, _: u64) -> Result<Grant, Denied> {
        Err(Denied::Bad)
    }

    fn still_holds(&self, _: &Grant, _: u64) -> Result<(), Denied> {
        Ok(())
    }

    fn on_revocation(&self, _: RevocationListener) {}
}

/// Reads one whole packet as the door does, a CONNECT or one after it. Whether it is legal.
#[must_use]
pub fn decode(v5: bool, raw: &[u8]) -> bool {
    if raw.first().is_some_and(|first| first >> 4 == 1) {
        return match packet::decode_connect(raw) {
            Ok(asked) => connect::decide(asked, CONNECTION, &Everybody, 1_764_000_000, &Config::default()).is_ok(),
            Err(_) => false,
        };
    }
    packet::decode(if v5 { Version::V5 } else { Version::V3 }, raw).is_ok()
}

/// Takes a connection's bytes in as they come, to its end. What the client is told.
#[must_use]
pub fn drive<'a>(chunks: impl Iterator<Item = &'a [u8]>, bridge: &mut impl Bridge) -> Vec<u8> {
    let mut connection =
        Connection { input: Input::default(), session: None, out: BytesMut::new(), now: Instant::now() };
    for chunk in chunks {
        connection.input.push(chunk);
        if connection.read(bridge).is_none() {
            break;
        }
    }
    if let Some(mut session) = connection.session {
        let legacy = session.finish();
        legacy.will.into_iter().for_each(|(will, _)| bridge.take(Up::Publish(will)));
        bridge.take(legacy.close);
    }
    connection.out.to_vec()
}

struct Connection {
    input: Input,
    session: Option<Session>,
    out: BytesMut,
    now: Instant,
}

impl Connection {
    /// Takes in what there is. `None`: the connection has ended.
    fn read(&mut self, bridge: &mut impl Bridge) -> Option<()> {
        loop {
            let session = match &mut self.session {
                Some(session) => session,
                None => match self.input.next() {
                    Ok(Next::Packet(range)) => {
                        self.session = Some(self.shake_hands(range)?);
                        self.pump(bridge);
                        continue;
                    }
                    Ok(Next::Wait) => return Some(()),
                    Ok(Next::Oversize { .. }) | Err(_) => return None,
                },
            };
            let next = if session.may_read() { self.input.next() } else { Ok(Next::Wait) };
            let is_waiting = next == Ok(Next::Wait);
            match next {
                Ok(Next::Wait) => {}
                Ok(Next::Packet(range)) => match packet::decode(session.version(), self.input.bytes(range)) {
                    Ok(packet) => session.handle_packet(packet, self.now),
                    Err(violation) => session.handle_violation(violation),
                },
                Ok(Next::Oversize { packet_id, qos }) => {
                    session.handle_oversize(Packet { id: packet_id, qos }, self.now);
                }
                Err(violation) => session.handle_violation(violation),
            }
            self.pump(bridge);
            let frame = bridge.next();
            let has_frame = frame.is_some();
            let session = self.session.as_mut()?;
            frame.into_iter().for_each(|frame| session.handle_down(frame));
            self.pump(bridge);
            if self.session.as_ref()?.end().is_some() {
                return None;
            }
            if is_waiting && !has_frame {
                return Some(());
            }
        }
    }

    fn shake_hands(&mut self, range: std::ops::Range<usize>) -> Option<Session> {
        let refusal = match packet::decode_connect(self.input.bytes(range)) {
            Ok(asked) => match connect::decide(asked, CONNECTION, &Everybody, 1_764_000_000, &Config::default()) {
                Ok(accepted) => {
                    self.input.set_version(accepted.version);
                    return Some(Session::new(CONNECTION, accepted, None, || 5, self.now));
                }
                Err(refused) => Some((refused.version, refused.code)),
            },
            Err(BadConnect::Refuse(version, code)) => Some((version, code)),
            Err(BadConnect::Close) => None,
        };
        let (version, code) = refusal?;
        Outbound::ConnRefused(code).encode(version, u32::MAX, &mut self.out);
        None
    }

    /// What the session has to say goes out and up.
    fn pump(&mut self, bridge: &mut impl Bridge) {
        let Some(session) = &mut self.session else { return };
        while let Some(frame) = session.poll_up() {
            bridge.take(frame);
        }
        let (version, bytes_max) = (session.version(), session.packet_bytes_max());
        while let Some(packet) = session.poll_transmit() {
            packet.encode(version, bytes_max, &mut self.out);
        }
    }
}
