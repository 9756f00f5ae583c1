//! What app developers depend on: a client of Natter over MQTT 5.
//!
//! ```no_run
//! use natter_client::{Client, Event};
//!
//! # async fn example(token: &str) -> Result<(), natter_client::Error> {
//! let client = Client::builder("mqtt://127.0.0.1:1883").user("alice").device("phone").token(token).connect().await?;
//! let sent = client.chat("bob").send_text("hi").await?; // on the server's disk when this returns: one tick
//! println!("{} is number {} of the chat", sent.id, sent.n);
//!
//! let mut events = client.events();
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Message(message) => client.mark_read(&message.chat, message.n).await?,
//!         Event::Receipt(receipt) => println!("{} has {:?} up to {}", receipt.recipient, receipt.kind, receipt.n),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The client keeps what `wire.md` asks of one: ids are UUIDv7 made here, so a message that is sent again after a reconnect is one
//! message; entries are acknowledged after they were handed to the app, and repeats are dropped by `seq`. It has no store yet: what
//! was not sent when the process ends is gone, and entries that the app took in the moment before a crash may come again.

mod backoff;
mod builder;
mod client;
mod driver;
mod error;
mod event;
mod inbox;
#[cfg(feature = "media")]
pub mod media;
mod outbox;

pub use builder::Builder;
pub use client::{Chat, Client, Sent};
pub use error::Error;
pub use event::{Event, Events, Failed, Gap, Message, Receipt, State};
pub use natter_protocol::entry::ReceiptKind;
