//! Entries that a client does not survive: what lies oldest and unacknowledged again and again goes out as a stub, so that one poisonous
//! message does not shut an inbox for ever (wire.md section 5).
//!
//! Kept in memory only: after a restart the count begins anew.

use std::collections::HashMap;

use natter_protocol::{DeviceId, Seq, UserId};

use crate::change::{Change, Item};
use crate::engine::Engine;
use crate::store::{Store, StoreError};

/// Subscriptions that end with the same entry oldest and unacknowledged before it goes out as a stub.
const ENDS_MAX: u32 = 5;
/// And over how many server seconds at least.
const SPREAD_SECS: u64 = 3600;
/// Devices of which this is known; above it those seen once are forgotten, and then all.
const DEVICES_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Stuck {
    seq: Seq,
    ends: u32,
    first_at: u64,
}

/// The oldest unacknowledged entry of devices whose subscriptions ended with one.
#[derive(Debug, Default)]
pub(crate) struct StuckEntries {
    devices: HashMap<(UserId, DeviceId), Stuck>,
}

impl StuckEntries {
    /// A subscription ended, and not by the server's doing, with `seq` oldest in flight.
    pub(crate) fn ended(&mut self, user: &UserId, device: &DeviceId, seq: Seq, now: u64) {
        if self.devices.len() >= DEVICES_MAX {
            self.devices.retain(|_, stuck| stuck.ends > 1);
            if self.devices.len() >= DEVICES_MAX {
                self.devices.clear();
            }
        }
        let stuck = self.devices.entry((user.clone(), device.clone())).or_insert(Stuck { seq, ends: 0, first_at: now });
        if stuck.seq == seq {
            stuck.ends += 1;
        } else {
            *stuck = Stuck { seq, ends: 1, first_at: now };
        }
    }

    /// The entry that goes out as a stub on the next subscription.
    pub(crate) fn stub_at(&self, user: &UserId, device: &DeviceId, now: u64) -> Option<Seq> {
        let stuck = self.devices.get(&(user.clone(), device.clone()))?;
        (stuck.ends >= ENDS_MAX && now.saturating_sub(stuck.first_at) >= SPREAD_SECS).then_some(stuck.seq)
    }

    /// A device has acknowledged everything up to `upto`.
    pub(crate) fn passed(&mut self, user: &UserId, device: &DeviceId, upto: Seq) {
        if self.devices.is_empty() {
            return;
        }
        let key = (user.clone(), device.clone());
        if self.devices.get(&key).is_some_and(|stuck| stuck.seq <= upto) {
            self.devices.remove(&key);
        }
    }
}

impl<S: Store> Engine<S> {
    /// What went out as a stub stays readable until its time to live.
    pub(crate) fn keep_stubs(&mut self, user: &UserId, stubs: Vec<Item>) -> Result<(), StoreError> {
        let until = self.now.server_secs + self.limits.entry_ttl_secs;
        for stub in stubs {
            // A status is listed over HTTP as long as it is shown, and not kept for longer.
            if let Item::Message(message) = stub
                && !message.chat.is_status()
            {
                self.change(Change::Kept { user: user.clone(), message, until })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_ends_over_an_hour_and_not_before() {
        let (bob, phone) = (UserId::parse("bob").unwrap(), DeviceId::parse("phone").unwrap());
        let mut stuck = StuckEntries::default();
        for at in [0, 10, 20, 30, 40] {
            assert_eq!(stuck.stub_at(&bob, &phone, 3600 + at), None);
            stuck.ended(&bob, &phone, 7, at);
        }
        assert_eq!(stuck.stub_at(&bob, &phone, 3599), None, "not yet an hour");
        assert_eq!(stuck.stub_at(&bob, &phone, 3600), Some(7));
        stuck.passed(&bob, &phone, 6);
        assert_eq!(stuck.stub_at(&bob, &phone, 3600), Some(7));
        stuck.ended(&bob, &phone, 8, 4000);
        assert_eq!(stuck.stub_at(&bob, &phone, 9000), None, "another entry: it got on");
        stuck.passed(&bob, &phone, 8);
        assert!(stuck.devices.is_empty());
    }
}
