//! What app developers depend on: a client of Natter over MQTT 5.
//!
//! ```no_run
//! use natter_client::{Client, Event};
//!
//! # async fn example(token: &str) -> Result<(), natter_client::Error> {
//! let client = Client::builder("mqtt://127.0.0.1:1883").user("alice").device("phone").token(token).in_memory().connect().await?;
//! let message = client.chat("bob").send_text("hi").await?; // in the store when this returns
//! println!("{} is number {} of the chat", message.id(), message.sent().await?.n); // one tick
//!
//! let mut events = client.events();
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Message(message) => message.mark_read().await?,
//!         Event::Receipt(receipt) => println!("{:?} in {} up to {}", receipt.kind, receipt.chat, receipt.n),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **A message is in the store when `send_*` returns**, and leaves it only when the server has committed or refused it: after a lost
//!   connection, a crash of the client or of the server it is sent again, with the same id, in the same order, and the server makes one
//!   message of it. What was first tried 25 days ago and never answered is reported as [`Error::Unconfirmed`] and not sent again, since the
//!   server forgets ids after 30 days.
//! - **What arrives is in the store before the server hears that it is delivered**; it is handed to the app at least once, in order, with a
//!   stable position ([`IncomingMessage::seq`]), and exactly once through [`Events::next_in_transaction`]. See [`Events`].
//! - **In memory** (without `.store(path)`) the server keeps what the app has not acknowledged; what waits to be sent is gone with the process.
//! - The client reconnects for ever, with full jitter up to 30 s, and subscribes and sends again by itself. It ends only when it is closed,
//!   when its token is refused for good, or when another program takes its device over ([`Error::TakenOver`]): [`ConnectionState::Closed`]
//!   says which.
//!
//! # Features
//!
//! `sqlite` (default): durable stores. `tls` (default): `mqtts://`. `http` (default): files, and devices that are linked and unlinked, over HTTP. `websocket`: `ws://`, and `wss://` with `tls`. They only add.
//! The minimum supported Rust version is 1.92.

mod backoff;
mod builder;
mod chat;
mod client;
mod connection;
mod content;
#[doc(hidden)]
pub mod core;
#[cfg(feature = "http")]
pub mod devices;
mod driver;
mod error;
mod event;
mod feed;
pub mod groups;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "http")]
pub mod media;
mod message;
mod progress;
mod registry;
mod storage;
pub mod store;
#[cfg(feature = "tls")]
mod tls;
mod url;

pub use builder::Builder;
pub use chat::Chat;
pub use client::{Client, ConnectionState};
pub use content::{MediaObject, MessageRef};
pub use error::{BoxError, Error};
pub use event::{Deleted, Event, Failed, Gap, IncomingMessage, Presence, Receipt, Typing};
pub use feed::Events;
pub use message::{OutgoingMessage, Sent};
pub use natter_protocol::MediaId;
pub use natter_protocol::entry::ReceiptKind;
pub use progress::{Progress, Tick};
#[cfg(feature = "sqlite")]
pub use rusqlite;
