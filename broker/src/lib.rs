//! The door: the listener that clients' sockets are connected to, and rumqttd's router behind it.

use std::sync::Arc;

use natter_protocol::accounts::Accounts;
use natter_protocol::link::{LinkDown, LinkReceiver, LinkSender};

/// One end of the link between door and bridge.
pub struct Link {
    /// For sending.
    pub sender: Box<dyn LinkSender>,
    /// For receiving.
    pub receiver: Box<dyn LinkReceiver>,
}

/// Both ends of the link, over a router that runs.
pub struct Ends {
    /// The door's.
    pub door: Link,
    /// The bridge's.
    pub bridge: Link,
}

/// Starts rumqttd's router and builds both links. Blocking; at most 5 s.
///
/// # Errors
/// [`LinkDown`] when the router does not come up.
pub fn start_router() -> Result<Ends, LinkDown> {
    Err(LinkDown)
}

/// Limits and times of a door.
#[derive(Debug, Clone, Default)]
pub struct Config {}

/// A running door.
pub struct Door {}

impl Door {
    /// Serves `listener`. `boot` is the number of this start, never used before.
    pub fn start(
        _config: Config,
        _listener: tokio::net::TcpListener,
        _accounts: Arc<dyn Accounts>,
        _link: Link,
        _boot: u32,
    ) -> Self {
        Self {}
    }

    /// Waits until the link has stopped: the process must end then.
    pub async fn failed(&self) -> LinkDown {
        LinkDown
    }

    /// Stops accepting, tells every client (0x8B), and returns when their connections have ended.
    pub async fn drain(self) {}
}
