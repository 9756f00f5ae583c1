//! The bridge: takes messages in, commits them, fans them out.

use std::path::PathBuf;

use natter_protocol::UserId;
use natter_protocol::accounts::Revocation;
use natter_protocol::link::{LinkReceiver, LinkSender};

/// Where the store is, and the limits.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The database file; made if it is not there.
    pub path: PathBuf,
}

/// What a bridge could not do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// A store that is open, with everything recovered; no link yet. Used alone by `natter user` while no server runs.
pub struct Bridge {}

impl Bridge {
    /// Opens (or makes) the store and recovers what the journal holds.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do.
    pub fn open(_config: Config) -> Result<Self, Error> {
        Err(Error("not yet".into()))
    }

    /// The number of this start: one more than the last one's.
    #[must_use]
    pub fn boot(&self) -> u32 {
        0
    }

    /// Every revocation that still matters.
    #[must_use]
    pub fn revocations(&self) -> Vec<Revocation> {
        Vec::new()
    }

    /// Adds a user; `false`: it was there.
    ///
    /// # Errors
    /// When the commit fails.
    pub fn add_user(&mut self, _user: &UserId) -> Result<bool, Error> {
        Ok(false)
    }

    /// Whether there is such a user.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_user(&mut self, _user: &UserId) -> Result<bool, Error> {
        Ok(false)
    }

    /// Runs the loop on a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(self, _sender: Box<dyn LinkSender>, _receiver: Box<dyn LinkReceiver>) -> Result<Running, Error> {
        Ok(Running { handle: Handle {} })
    }
}

/// A bridge whose loop runs.
pub struct Running {
    /// For everyone who asks it something.
    pub handle: Handle,
}

impl Running {
    /// Waits until the loop has ended by itself, and says why: the process must end then.
    pub async fn failed(&mut self) -> Error {
        std::future::pending().await
    }

    /// Commits what has arrived, settles, closes the store. The doors must be closed before.
    ///
    /// # Errors
    /// What could not be written.
    pub async fn stop(self) -> Result<(), Error> {
        Ok(())
    }
}

/// Asks the loop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {}

impl Handle {
    /// As [`Bridge::add_user`], after the commit.
    ///
    /// # Errors
    /// When the loop has ended or the commit fails.
    pub async fn add_user(&self, _user: UserId) -> Result<bool, Error> {
        Ok(false)
    }

    /// As [`Bridge::has_user`].
    ///
    /// # Errors
    /// When the loop has ended.
    pub async fn has_user(&self, _user: UserId) -> Result<bool, Error> {
        Ok(false)
    }

    /// Keeps a revocation, after the commit.
    ///
    /// # Errors
    /// When the loop has ended or the commit fails.
    pub async fn revoke(&self, _revocation: Revocation) -> Result<(), Error> {
        Ok(())
    }

    /// Counters and gauges, for `/metrics` and `/readyz`.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// What the loop has done since its start.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Batches committed.
    pub commits: u64,
    /// Messages accepted.
    pub messages: u64,
    /// Commands and messages refused for good.
    pub refused: u64,
    /// Publishes that got "not now".
    pub not_now: u64,
    /// Entries handed to doors.
    pub entries: u64,
    /// Entries acknowledged by devices.
    pub acknowledged: u64,
    /// Whether the last commit went well.
    pub healthy: bool,
}
