//! What `natter` is told of contacts, blocks and statuses: `[people]`.

use natter_bridge::PeopleLimits;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Whom a user may know and block, and what he may show.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct People {
    pub(crate) contacts_max: usize,
    pub(crate) blocks_max: usize,
    pub(crate) statuses_max: usize,
}

impl People {
    /// The values that a type alone does not check.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (key, expected, range, got) in [
            ("people.contacts_max", "1 to 1000000", 1..=1_000_000, self.contacts_max),
            ("people.blocks_max", "1 to 100000", 1..=100_000, self.blocks_max),
            ("people.statuses_max", "1 to 1000", 1..=1000, self.statuses_max),
        ] {
            if !range.contains(&got) {
                return Err(ConfigError::Value { key, expected, got: got.to_string() });
            }
        }
        Ok(())
    }

    /// What the bridge is told.
    pub(crate) fn limits(&self) -> PeopleLimits {
        let Self { contacts_max, blocks_max, statuses_max } = *self;
        PeopleLimits { contacts_max, blocks_max, statuses_max }
    }
}
