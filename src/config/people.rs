//! What `natter` is told of contacts, blocks and statuses: `[people]`.

use natter_bridge::PeopleLimits;
use serde::{Deserialize, Serialize};

use super::{ConfigError, check_ranges};

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
        check_ranges([
            ("people.contacts_max", "1 to 1000000", 1..=1_000_000, self.contacts_max as u64),
            ("people.blocks_max", "1 to 100000", 1..=100_000, self.blocks_max as u64),
            ("people.statuses_max", "1 to 1000", 1..=1000, self.statuses_max as u64),
        ])?;
        Ok(())
    }

    /// What the bridge is told.
    pub(crate) fn limits(&self) -> PeopleLimits {
        let Self { contacts_max, blocks_max, statuses_max } = *self;
        PeopleLimits { contacts_max, blocks_max, statuses_max }
    }
}
