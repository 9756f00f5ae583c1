//! Where a client keeps what must outlive its process: what is to be sent, what has come and the app has not taken, ticks.
//!
//! A store belongs to one user and device. Its calls run on a thread of their own, one after the other, so it may block.
//! [`conformance`] is the test of a store of your own.

use std::any::Any;

use natter_protocol::{N, Seq};

use crate::error::BoxError;

pub mod conformance;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

/// Why a store failed: said to the app as [`crate::Error::Store`].
///
/// ```
/// use natter_client::store::StoreError;
///
/// assert_eq!(StoreError("the disk is full".into()).to_string(), "the disk is full");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Whose store it is.
///
/// ```
/// use natter_client::store::Owner;
///
/// let owner = Owner { user: "alice".into(), device: "phone".into() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub user: String,
    /// The installation.
    pub device: String,
}

/// What became of something to be sent.
///
/// ```
/// use natter_client::store::Outcome;
///
/// assert_eq!(Outcome::default(), Outcome::Queued);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Outcome {
    /// The server has not answered.
    #[default]
    Queued,
    /// The server committed it.
    Sent {
        /// Its number in the chat.
        n: N,
        /// Unix seconds of the commit.
        timestamp: u64,
    },
    /// It will not be delivered.
    Failed {
        /// An MQTT 5 reason code (below 256) or a code of wire.md section 6; 0: never answered in time.
        code: u32,
        /// Why.
        details: String,
        /// Number and Unix seconds, if it was accepted before it failed.
        sent: Option<(N, u64)>,
    },
}

/// Something to be sent, or what became of it.
///
/// ```
/// use natter_client::store::{Outcome, OutgoingRow};
///
/// let row = OutgoingRow {
///     key: 1,
///     id: Some("m1".into()),
///     chat: Some("bob".into()),
///     payload: br#"{"id":"m1","to":"bob","text":{"body":"hi"}}"#.to_vec(),
///     created_ms: 1_764_000_000_000,
///     tried_ms: None,
///     outcome: Outcome::Queued,
/// };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingRow {
    /// Its place in the order of sending, unique in a store.
    pub key: u64,
    /// The id of a message; a command has none.
    pub id: Option<String>,
    /// The chat of a message.
    pub chat: Option<String>,
    /// The publication; empty once it is answered.
    pub payload: Vec<u8>,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// Unix milliseconds of the first attempt.
    pub tried_ms: Option<i64>,
    /// The answer.
    pub outcome: Outcome,
}

/// An entry of the inbox that the app has not taken.
///
/// ```
/// use natter_client::store::IncomingRow;
///
/// let row = IncomingRow { seq: 5, payload: br#"{"seq":5,"type":"text"}"#.to_vec() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingRow {
    /// Its position.
    pub seq: Seq,
    /// As it came.
    pub payload: Vec<u8>,
}

/// Which own messages of a chat have which tick: ranges `after < n <= upto`.
///
/// ```
/// use natter_client::store::ReceiptRow;
///
/// // Numbers 1 to 7 are delivered, 3 and 4 are read.
/// let row = ReceiptRow { chat: "bob".into(), delivered: vec![(0, 7)], read: vec![(2, 4)] };
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReceiptRow {
    /// The chat.
    pub chat: String,
    /// Delivered.
    pub delivered: Vec<(N, N)>,
    /// Read.
    pub read: Vec<(N, N)>,
}

/// One change. A batch of them is one transaction.
///
/// ```
/// use natter_client::store::{IncomingRow, MemoryStore, Store, Write};
///
/// let mut store = MemoryStore::default();
/// store.commit(&[Write::Incoming(IncomingRow { seq: 5, payload: Vec::new() }), Write::Taken(5)])?;
/// # Ok::<(), natter_client::store::StoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Insert, or replace the row of that key.
    Outgoing(OutgoingRow),
    /// Delete the row of that key.
    ForgetOutgoing(u64),
    /// Every queued row up to this key that has no `tried_ms` gets this one.
    Tried {
        /// The last key.
        upto: u64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Insert, and raise [`Snapshot::last_seq`] to its `seq`.
    Incoming(IncomingRow),
    /// Delete the row of that `seq`; `last_seq` stays.
    Taken(Seq),
    /// Insert or replace the row of that chat.
    Receipts(ReceiptRow),
    /// Set [`Snapshot::epoch`].
    Epoch(String),
    /// The server's store is another one: `last_seq` is `None` again, and every row of receipts goes. Incoming rows stay.
    BeginAnew,
}

/// Everything in a store.
///
/// ```
/// use natter_client::store::{IncomingRow, MemoryStore, Owner, Store, Write};
///
/// let mut store = MemoryStore::default();
/// store.commit(&[Write::Incoming(IncomingRow { seq: 5, payload: Vec::new() }), Write::Taken(5)])?;
/// let snapshot = store.load(&Owner { user: "alice".into(), device: "phone".into() })?;
/// assert_eq!((snapshot.last_seq, snapshot.incoming.len()), (Some(5), 0)); // the position stays
/// # Ok::<(), natter_client::store::StoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The highest `seq` written since the start or the last [`Write::BeginAnew`].
    pub last_seq: Option<Seq>,
    /// Which store of the server it is a position of, as the server calls it; `None` before it was said.
    pub epoch: Option<String>,
    /// By key.
    pub outgoing: Vec<OutgoingRow>,
    /// By `seq`.
    pub incoming: Vec<IncomingRow>,
    /// By chat.
    pub receipts: Vec<ReceiptRow>,
}

/// The app's part of a transaction; it gets what [`Store::transaction`] gives it.
///
/// ```
/// use std::any::Any;
///
/// let mut seen = 0;
/// let mut work = |_inside: &dyn Any| {
///     seen += 1;
///     Ok(())
/// };
/// let work: natter_client::store::Work<'_> = &mut work;
/// ```
pub type Work<'a> = &'a mut dyn FnMut(&dyn Any) -> Result<(), BoxError>;

/// Where a client keeps things.
///
/// ```
/// use natter_client::store::{MemoryStore, Owner, Snapshot, Store, StoreError, Write};
///
/// /// Says what it writes.
/// #[derive(Default)]
/// struct Told(MemoryStore);
///
/// impl Store for Told {
///     fn load(&mut self, owner: &Owner) -> Result<Snapshot, StoreError> {
///         self.0.load(owner)
///     }
///     fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
///         println!("{} writes", writes.len());
///         self.0.commit(writes)
///     }
///     fn is_durable(&self) -> bool {
///         self.0.is_durable()
///     }
/// }
///
/// assert_eq!(natter_client::store::conformance::check(Told::default), Ok(()));
/// ```
pub trait Store: Send + 'static {
    /// Opens the store for `owner` and reads everything.
    ///
    /// # Errors
    /// It cannot be read, or belongs to somebody else.
    fn load(&mut self, owner: &Owner) -> Result<Snapshot, StoreError>;

    /// Does all of `writes`, in order, or nothing; it is on the disk when this returns.
    ///
    /// # Errors
    /// Nothing was done, or it is not known: the client loads again and looks.
    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError>;

    /// Whether what was committed outlives the process. If not, the server keeps entries until the app has taken them.
    fn is_durable(&self) -> bool;

    /// As [`Store::commit`], with the app's own `work` in the same transaction. What `work` gets is the store's to say:
    /// [`SqliteStore`] gives a `rusqlite::Connection` inside the transaction.
    ///
    /// # Errors
    /// As [`Store::commit`], or `work` failed, or the store has no such transactions: nothing was done.
    fn transaction(&mut self, writes: &[Write], work: Work<'_>) -> Result<(), BoxError> {
        let _ = (writes, work);
        Err("this store has no transactions for the app: use .store(path)".into())
    }
}
