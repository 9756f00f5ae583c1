//! A store that has lost its end: how that is seen, and how it goes on without giving a position twice.

use std::path::Path;

use natter_protocol::Seq;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::mark::MARKED_LOG;
use super::sqlite::{Sqlite, number};
use super::{Store, StoreError};

/// How far positions jump after a loss (wire.md, section 1): more than a server can have given since any copy of the store was made.
pub const SEQ_JUMP: Seq = 1 << 32;

/// How much of a store is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The newest journal row that is there.
    pub newest: u64,
    /// The newest that was committed, as far as the mark knows; 0 without one.
    pub marked: u64,
}

impl Extent {
    /// How many acknowledged batches are missing, at least.
    #[must_use]
    pub fn missing(self) -> u64 {
        self.marked.saturating_sub(self.newest)
    }

    pub(super) fn or_refuse(self) -> Result<(), StoreError> {
        let Self { newest, marked } = self;
        if marked > newest { Err(StoreError::Missing { newest, marked }) } else { Ok(()) }
    }
}

/// What was accepted as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// How much of the store was there.
    pub extent: Extent,
    /// Users whose positions jumped.
    pub users: usize,
}

impl Sqlite {
    /// As [`Sqlite::open`], of a store that may have lost its end: settle it, then [`Sqlite::accept_loss`].
    ///
    /// # Errors
    /// As [`Sqlite::open`], but for the loss.
    pub fn open_with_loss(path: &Path) -> Result<(Self, Extent), StoreError> {
        let mut found = Extent { newest: 0, marked: 0 };
        let store = Self::open_if(path, |extent| {
            found = extent;
            Ok(())
        })?;
        Ok((store, found))
    }

    /// Goes on without what is missing: every inbox goes on [`SEQ_JUMP`] higher, that of a user that is to come too, and the journal behind
    /// the rows that are lost. Cursors stay: `prev` may not be above what a device has seen. The journal must be settled.
    ///
    /// # Errors
    /// Nothing was changed: rows wait in the journal, or it cannot be written.
    pub fn accept_loss(&mut self, extent: Extent) -> Result<Accepted, StoreError> {
        let waiting = self.journal(MARKED_LOG)?.len();
        if waiting > 0 {
            return Err(StoreError::Corrupt { expected: "a settled journal", got: format!("{waiting} rows in it") });
        }
        let upto = extent.marked.max(self.next_no(MARKED_LOG)? - 1);
        let jump = number(SEQ_JUMP);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let users =
            transaction.execute("UPDATE users SET last_seq = last_seq + ?1, settled_seq = last_seq + ?1", [jump])?;
        transaction.execute(
            "INSERT INTO meta VALUES ('first_seq', ?1) ON CONFLICT (key) DO UPDATE SET value = value + ?1",
            [jump],
        )?;
        transaction
            .execute("INSERT OR REPLACE INTO meta VALUES ('settled:' || ?1, ?2)", params![MARKED_LOG, number(upto)])?;
        transaction.commit()?;
        self.first_seq = first_seq(&self.connection)?;
        self.mark.rises_to(upto);
        self.newest = upto;
        Ok(Accepted { extent, users })
    }
}

pub(super) fn first_seq(connection: &Connection) -> Result<Seq, StoreError> {
    let value: Option<i64> =
        connection.query_row("SELECT value FROM meta WHERE key = 'first_seq'", [], |row| row.get(0)).optional()?;
    Ok(value.map_or(0, |value| u64::try_from(value).unwrap_or(0)))
}
