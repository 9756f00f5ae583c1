//! How far a message is.

use natter_protocol::N;

use crate::error::Error;

/// The ticks of a message.
///
/// ```
/// use natter_client::Tick;
///
/// assert!(Tick::Queued < Tick::Sent && Tick::Delivered < Tick::Read);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Tick {
    /// On this device's disk.
    Queued,
    /// One tick: on the server's disk.
    Sent,
    /// Two ticks: a device of the recipient has it; in a group, of every member.
    Delivered,
    /// Blue ticks: the recipient has read it; in a group, every member.
    Read,
}

/// Everything known about an own message.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), natter_client::Error> {
/// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
/// let progress = client.chat("bob").send_text("hi").await?.progress();
/// assert_eq!((progress.sent, progress.failure), (None, None));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The chat.
    pub chat: String,
    /// Its place in the order of sending on this device.
    pub key: u64,
    /// Number and Unix seconds, once the server has it.
    pub sent: Option<(N, u64)>,
    /// The ticks.
    pub tick: Tick,
    /// Why it will not be delivered.
    pub failure: Option<Error>,
}
