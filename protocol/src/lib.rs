//! What crosses Natter's wire and the router between door and bridge, as types. No I/O, no runtime, no clock.
//!
//! The contract is `wire.md`; the golden files under `golden/` hold it in bytes.
//!
//! - [`ids`] names and numbers · [`topic`] topics, spelled here only
//! - [`outbox`] what a device publishes: [`message`] and commands · [`entry`] what a device receives
//! - [`error`] refusals in the words of MQTT, HTTP and the Cloud API
//! - [`link`] frames between door and bridge, and their credit · [`accounts`] what a door asks about a token
//! - [`planted`] bugs on purpose, for the tests that must find them
//!
//! ```
//! use natter_protocol::outbox::{self, Item};
//!
//! let item = outbox::parse(br#"{"to":"bob","type":"text","text":{"body":"hi"}}"#)?;
//! let Item::Message(message) = item else { panic!("a message") };
//! assert_eq!(message.to.to_string(), "bob");
//! # Ok::<(), natter_protocol::outbox::Rejected>(())
//! ```

pub mod accounts;
pub mod entry;
pub mod error;
pub mod group;
pub mod histogram;
pub mod ids;
pub mod json;
pub mod link;
pub mod message;
pub mod outbox;
pub mod planted;
pub mod topic;

pub use ids::{Chat, ConnectionId, DeviceId, GroupId, MediaId, MessageId, N, Seq, Slot, UserId};
