//! The door: the listener that clients' sockets are connected to, and rumqttd's router behind it.
//!
//! - [`router`] starts rumqttd's router and makes the two ends of the link; [`watchdog`] notices when it has died
//! - `input` cuts a socket's bytes into packets · `validate` says whether a packet is legal · `packet` reads and writes it
//! - `connect` decides about a CONNECT · `session` is what a connection may do after it; both are pure
//! - `connection` drives one socket · `mailbox` is what it waits for · `registry` knows them all · `wills` wait for their delay
//! - `addresses` and `rate` bound what one address or user may do · `memory` what the process has in use
//! - `uplink` sends to the bridge, within its credit · `downlink` hands out what the bridge sends
//! - [`Door`] accepts, drains and counts · [`TlsAcceptor`] does the handshakes of a TLS listener
//!
//! Nothing a client writes reaches the router but inside a frame of `natter_protocol::link`.

mod addresses;
mod config;
mod connect;
mod connection;
mod door;
mod downlink;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod input;
mod mailbox;
mod memory;
mod metrics;
mod packet;
mod rate;
mod registry;
pub mod router;
mod session;
mod stages;
mod tls;
mod uplink;
mod validate;
pub mod watchdog;
mod wills;

pub use addresses::{Addresses, Seat};
pub use config::Config;
pub use door::{Door, Place, limit_writes};
pub use metrics::Stats;
pub use rate::{Bucket, Rate};
pub use router::{Ends, Link, start_router};
pub use stages::StageTimes;
pub use tls::{TlsAcceptor, TlsError};
pub use validate::OVERSIZE_BYTES_MAX;

#[cfg(test)]
mod testing {
    //! The time at which tests of the pure parts begin; they take it from outside as their subjects do.

    pub(crate) fn start() -> std::time::Instant {
        std::time::Instant::now()
    }
}
