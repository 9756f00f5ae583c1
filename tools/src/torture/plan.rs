//! Who is who in a run, in a file that the conductor writes and the hosts read.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// A run. Users 2p and 2p + 1 write to each other; the devices of a user are numbered one after the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Where clients connect to.
    pub(crate) port: u16,
    /// A token for each user.
    pub(crate) tokens: Vec<String>,
    /// Devices of each user.
    pub(crate) devices: u32,
    /// How many of them are clients of the SDK, the first ones.
    pub(crate) sdk: u32,
    /// Processes that the devices are spread over.
    pub(crate) hosts: u32,
    /// How many messages are sent in all; `None`: until the conductor says that it is enough.
    pub(crate) messages: Option<u32>,
}

/// One device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of the device among all.
    pub(crate) index: u32,
    pub(crate) user: u32,
    /// Index among the user's devices.
    pub(crate) device: u32,
    pub(crate) v5: bool,
    pub(crate) clean: bool,
    /// A client of the SDK; what stands in `v5` and `clean` is nothing to it.
    pub(crate) is_sdk: bool,
    /// How many messages it sends.
    pub(crate) quota: u32,
}

impl Plan {
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("plan.json");
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        serde_json::from_reader(file).with_context(|| path.display().to_string())
    }

    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join("plan.json");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        serde_json::to_writer_pretty(file, self).with_context(|| path.display().to_string())
    }

    /// How many devices there are in all.
    pub(crate) fn all(&self) -> u32 {
        self.devices * u32::try_from(self.tokens.len()).unwrap_or(0)
    }

    pub(crate) fn place(&self, index: u32) -> Place {
        let (user, device) = (index / self.devices, index % self.devices);
        let all = self.all();
        let quota =
            self.messages.map_or(u32::MAX, |all_messages| all_messages / all + u32::from(index < all_messages % all));
        // Both versions, and clean and kept sessions of each.
        let (v5, clean) = ((user + device).is_multiple_of(2), user.is_multiple_of(2));
        Place { index, user, device, v5, clean, is_sdk: device < self.sdk, quota }
    }

    /// The process that hosts a device.
    pub(crate) fn host_of(&self, index: u32) -> u32 {
        index % self.hosts
    }
}

/// The journal of a device.
pub(crate) fn journal(dir: &Path, index: u32) -> PathBuf {
    dir.join(format!("device-{index}.journal"))
}

/// The name of a user.
pub(crate) fn user_name(user: u32) -> String {
    format!("u{user}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_devices_are_all_messages_and_both_versions_keep_and_drop_sessions() {
        let (seed, port, devices, hosts) = (1, 2, 2, 3);
        let plan = Plan { seed, port, tokens: vec![String::new(); 4], devices, sdk: 1, hosts, messages: Some(1003) };
        let places: Vec<Place> = (0..plan.all()).map(|index| plan.place(index)).collect();
        assert_eq!(places.iter().map(|place| place.quota).sum::<u32>(), 1003);
        assert!(places.iter().all(|place| place.is_sdk == (place.device == 0)));
        assert_eq!(places.iter().map(|place| (place.user, place.device)).nth(5), Some((2, 1)));
        for kind in [(false, false), (false, true), (true, false), (true, true)] {
            assert!(places.iter().any(|place| (place.v5, place.clean) == kind), "{kind:?}");
        }
        assert!((0..plan.all()).all(|index| plan.host_of(index) < 3));
    }
}
