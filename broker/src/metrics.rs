//! What a door counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What a door has counted since its start, as [`Door::stats`](crate::Door::stats) saw it.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)+
        }

        /// The counters behind [`Stats`].
        #[derive(Debug, Default)]
        pub(crate) struct Metrics {
            $(pub(crate) $name: AtomicU64,)+
        }

        impl Metrics {
            pub(crate) fn stats(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

stats! {
    /// Sockets that are open now.
    connections,
    /// Sockets accepted.
    accepted,
    /// Sockets closed at once because the door was full.
    over_limit,
    /// Sockets closed at once because too many had not said who they are.
    over_handshake_limit,
    /// Sockets closed at once because memory was above its ceiling.
    memory_refused,
    /// Connections ended because memory was far above its ceiling.
    memory_ended,
    /// Bytes of memory in use, as last seen.
    memory_bytes,
    /// Connections closed at once because their address had too many.
    over_address_limit,
    /// CONNECTs refused because their user had too many connections.
    over_user_limit,
    /// CONNECTs refused because their user had connected too often.
    connects_too_often,
    /// CONNECTs that waited for their turn.
    connects_paced,
    /// CONNECTs whose user name and token were wrong.
    auth_failures,
    /// CONNECTs refused unseen after too many failures of their address.
    auth_throttled,
    /// CONNECTs that were answered with a refusal.
    connects_refused,
    /// Sessions begun: CONNACKs that accepted.
    connects,
    /// Connections whose handshake was not done in time: TLS or CONNECT.
    handshakes_timed_out,
    /// TLS handshakes that failed otherwise.
    tls_failed,
    /// Connections that a newer one of the same client took over.
    takeovers,
    /// PUBLISHes passed to the bridge.
    publishes,
    /// PUBLISHes that the door refused.
    publishes_refused,
    /// PUBLISHes too large to read that were read past, and answered.
    publishes_oversize,
    /// Times a connection was not read from for a while because it, or its user, had sent too much.
    rate_pauses,
    /// SUBSCRIBE filters that the door refused.
    filters_refused,
    /// Entries written to clients.
    entries,
    /// Connections ended for a malformed packet or a protocol error.
    violations,
    /// Connections ended because nothing came within the keepalive.
    keep_alives_missed,
    /// Connections ended because they read too slowly.
    slow_consumers,
    /// Live payloads dropped on a connection that reads slowly.
    live_dropped,
    /// Times a connection stopped reading because the bridge had given no credit.
    no_credit_stops,
    /// Frames of the bridge for connections that were gone.
    frames_dropped,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
