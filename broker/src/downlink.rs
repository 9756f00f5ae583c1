//! Hands what the bridge sends to the connections it is for. One thread, which never waits for a connection.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use bytes::Bytes;
use natter_protocol::UserId;
use natter_protocol::link::{Down, Intake, LinkReceiver, Up};
use natter_protocol::planted::{self, Bug};

use crate::door::Shared;
use crate::mailbox::Put;
use crate::metrics::count;

/// How long the thread waits for a frame before it looks whether the door has closed or the router has died.
const LOOK: Duration = Duration::from_millis(250);

/// Starts the thread. It ends with the door, or when the link is down.
pub(crate) fn start(mut receiver: Box<dyn LinkReceiver>, shared: Arc<Shared>) -> io::Result<()> {
    thread::Builder::new().name("downlink".into()).spawn(move || {
        let mut intake = Intake::default();
        let mut committed_at = 0;
        while !shared.has_stopped() {
            match receiver.receive(Instant::now() + LOOK) {
                Ok(Some((user, frame))) => take(&shared, &mut intake, &mut committed_at, user.as_ref(), frame),
                Ok(None) => {}
                Err(_) => return shared.uplink.fail(),
            }
        }
    })?;
    Ok(())
}

fn take(shared: &Shared, intake: &mut Intake, committed_at: &mut u64, user: Option<&UserId>, frame: Bytes) {
    if let Some(credit) = intake.took(frame.len()) {
        // What opens the other side's window must not wait for this side's.
        shared.uplink.send_anyway(None, &Up::Took(credit));
    }
    let frame = match Down::decode(frame) {
        Ok(frame) => frame,
        Err(error) => {
            tracing::error!(%error, "a frame of the bridge does not read");
            return;
        }
    };
    match frame.connection() {
        None => match frame {
            Down::Took(credit) => shared.uplink.confirmed(credit),
            Down::Committed(at) => *committed_at = at,
            _ => {}
        },
        Some(connection) => {
            let mailbox = if connection.boot == shared.boot { shared.registry.mailbox(connection.n) } else { None };
            let mailbox = match (&frame, user) {
                (Down::Answer { packet, .. }, Some(user)) if planted::has(Bug::AckByPacketId) && packet.id % 8 == 0 => {
                    shared.registry.any_of(user)
                }
                _ => mailbox,
            };
            match mailbox.map(|mailbox| mailbox.put(frame, *committed_at)) {
                Some(Put::Queued) => {}
                Some(Put::Dropped) => count(&shared.metrics.live_dropped),
                Some(Put::Overflow) => tracing::debug!(%connection, "reads too slowly"),
                None => count(&shared.metrics.frames_dropped),
            }
        }
    }
}
