//! What is told, to whom, and what bounds it.

use natter_protocol::{ConnectionId, UserId};

/// What one user may see of another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sight {
    /// Whether he is available.
    pub online: bool,
    /// When he left last.
    pub last_seen: bool,
}

impl Sight {
    /// Nothing.
    pub const NONE: Self = Self { online: false, last_seen: false };

    /// Of how somebody is, what may be seen. Who shows nothing looks like one who never was there.
    #[must_use]
    pub fn of(self, is: Shown) -> Shown {
        let available = is.available && self.online;
        Shown { available, last_seen: is.last_seen.filter(|_| self.last_seen && !available) }
    }
}

/// How somebody is, or looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shown {
    /// A device of his is there.
    pub available: bool,
    /// Unix second at which he left last.
    pub last_seen: Option<u64>,
}

/// A presence that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// To which connection.
    pub connection: ConnectionId,
    /// Whose connection that is.
    pub watcher: UserId,
    /// Of whom.
    pub watched: UserId,
    /// How he looks.
    pub shown: Shown,
}

/// Whether a connection can be told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// It can.
    Now,
    /// It has not taken what it has.
    Later,
    /// It reads no inbox: [`super::Presence::began`] says when it does.
    Nothing,
}

/// Why a connection does not watch somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// It watches as many as a connection may.
    Watches,
    /// He is watched by as many as a user may be.
    Watchers,
}

/// How many may watch and be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Users that a connection watches.
    pub watches_max: usize,
    /// Connections that watch a user and see something of him. Those who see nothing take no place: strangers keep nobody out.
    pub watchers_max: usize,
}
