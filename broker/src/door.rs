//! A running door: accepts sockets, and ends them in good order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use natter_protocol::accounts::Accounts;
use natter_protocol::ids::ConnectionId;
use natter_protocol::link::{LinkDown, Up};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::addresses::{Addresses, Seat};
use crate::config::Config;
use crate::connection;
use crate::downlink;
use crate::memory;
use crate::metrics::{Metrics, Stats, count};
use crate::rate::{Bucket, Rate};
use crate::registry::Registry;
use crate::router::Link;
use crate::session::End;
use crate::stages::{StageTimes, Stages, unix_now};
use crate::tls::{TlsAcceptor, TlsError};
use crate::uplink::Uplink;
use crate::wills::Wills;

/// The first and the longest pause after a failed accept, as when there are no file descriptors left.
const ACCEPT_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What all parts of a door know.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) boot: u32,
    pub(crate) uplink: Uplink,
    pub(crate) registry: Registry,
    pub(crate) wills: Wills,
    pub(crate) metrics: Metrics,
    pub(crate) stages: Stages,
    pub(crate) addresses: Arc<Addresses>,
    /// Memory is above its ceiling.
    pub(crate) is_memory_full: AtomicBool,
    /// Connections whose CONNECT is not accepted yet.
    handshakes: AtomicUsize,
    /// CONNECTs that were decided about.
    arrivals: Mutex<Bucket>,
    /// Connections that ended.
    departures: Mutex<Bucket>,
    last_number: AtomicU64,
    /// No more sockets are taken.
    closing: watch::Sender<bool>,
    /// Nothing is taken from the link any more.
    has_stopped: AtomicBool,
    /// Sockets that are open.
    live: watch::Sender<usize>,
}

/// Waits until it is one's turn at `rate`; whether there was anything to wait for.
async fn in_turn(bucket: &Mutex<Bucket>, rate: Rate) -> bool {
    let wait = {
        let now = Instant::now();
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = bucket.wait(rate, now);
        bucket.take(rate, now);
        wait
    };
    if wait.is_zero() {
        return false;
    }
    tokio::time::sleep(wait).await;
    true
}

impl Shared {
    /// The number of a new connection.
    pub(crate) fn next_id(&self) -> ConnectionId {
        ConnectionId { boot: self.boot, n: self.last_number.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Waits for a turn at deciding about a CONNECT ([`Config::arrival_rate`]).
    pub(crate) async fn turn(&self) {
        if in_turn(&self.arrivals, self.config.arrival_rate).await {
            count(&self.metrics.connects_paced);
        }
    }

    /// Waits for a turn at ending a connection ([`Config::departure_rate`]).
    pub(crate) async fn turn_to_leave(&self) {
        if !self.is_closing() {
            in_turn(&self.departures, self.config.departure_rate).await;
        }
    }

    /// Whether the door is about to close.
    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Whether the door has closed.
    pub(crate) fn has_stopped(&self) -> bool {
        self.has_stopped.load(Ordering::Relaxed)
    }

    /// Room for one more connection from `peer`, which has its seat, if there is.
    fn place(self: &Arc<Self>, peer: SocketAddr, seat: Arc<Seat>) -> Option<Place> {
        if self.is_closing() {
            return None;
        }
        if self.is_memory_full.load(Ordering::Relaxed) {
            count(&self.metrics.memory_refused);
            return None;
        }
        let Some(handshake) = Handshake::begin(self) else {
            count(&self.metrics.over_handshake_limit);
            return None;
        };
        let mut has_room = false;
        self.live.send_if_modified(|live| {
            has_room = *live < self.config.connections_max;
            *live += usize::from(has_room);
            has_room
        });
        if has_room {
            count(&self.metrics.accepted);
            count(&self.metrics.connections);
            let arrival = Arrival { peer, at: Instant::now() };
            Some(Place { shared: self.clone(), arrival, handshake: Some(handshake), _seat: seat })
        } else {
            count(&self.metrics.over_limit);
            None
        }
    }
}

/// Who came, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// The address of the other side.
    pub(crate) peer: SocketAddr,
    /// The time for CONNECT counts from here.
    pub(crate) at: Instant,
}

/// The place of one connection among [`Config::connections_max`], from [`Door::place`]. Dropping it gives it back.
pub struct Place {
    shared: Arc<Shared>,
    arrival: Arrival,
    handshake: Option<Handshake>,
    _seat: Arc<Seat>,
}

/// One of the [`Config::handshakes_max`] connections whose CONNECT is not accepted yet. Dropping it says that it is, or is gone.
pub(crate) struct Handshake(Arc<Shared>);

impl Handshake {
    fn begin(shared: &Arc<Shared>) -> Option<Self> {
        let handshake = Self(Arc::clone(shared));
        let others = shared.handshakes.fetch_add(1, Ordering::Relaxed);
        (others < shared.config.handshakes_max).then_some(handshake)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place {
    /// Serves a byte stream that carries MQTT, until its end: a socket, a TLS session, a WebSocket.
    /// CONNECT must come within [`Config::connect_time_max`] of the place's own beginning.
    pub async fn serve<S>(mut self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = self.handshake.take();
        connection::run(stream, self.arrival, handshake, Arc::clone(&self.shared)).await;
    }

    async fn serve_tls(self, stream: TcpStream, tls: Arc<TlsAcceptor>) {
        // Boxed, as the session is: what is needed for a handshake only is not kept for as long as a connection.
        match Box::pin(tls.accept(stream)).await {
            Ok(stream) => self.serve(Box::new(stream)).await,
            Err(error) => {
                let metrics = &self.shared.metrics;
                count(if matches!(error, TlsError::Timeout) {
                    &metrics.handshakes_timed_out
                } else {
                    &metrics.tls_failed
                });
                tracing::debug!(peer = %self.arrival.peer, %error, "no TLS session");
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        self.shared.live.send_modify(|live| *live -= 1);
    }
}

/// A running door.
pub struct Door {
    shared: Arc<Shared>,
}

impl Door {
    /// Serves `listener`. `boot` is the number of this start, never used before. Must be called in a tokio runtime.
    ///
    /// The bridge must have its end of the link before this, or what clients say is lost.
    pub fn start(config: Config, listener: TcpListener, accounts: Arc<dyn Accounts>, link: Link, boot: u32) -> Self {
        let shared = Arc::new(Shared {
            addresses: Addresses::new(&config),
            config,
            accounts,
            boot,
            uplink: Uplink::new(link.sender),
            registry: Registry::default(),
            wills: Wills::default(),
            metrics: Metrics::default(),
            stages: Stages::default(),
            is_memory_full: AtomicBool::new(false),
            handshakes: AtomicUsize::new(0),
            arrivals: Mutex::default(),
            departures: Mutex::default(),
            last_number: AtomicU64::new(0),
            closing: watch::Sender::new(false),
            has_stopped: AtomicBool::new(false),
            live: watch::Sender::new(0),
        });
        let weak = Arc::downgrade(&shared);
        shared.accounts.on_revocation(Box::new(move |revocation| {
            if let Some(shared) = weak.upgrade() {
                shared.registry.revoke(revocation);
                shared.wills.revoke(revocation);
            }
        }));
        if let Err(error) = downlink::start(link.receiver, shared.clone()) {
            tracing::error!(%error, "no thread for the link");
            shared.uplink.fail();
        }
        tokio::spawn(memory::watch(Arc::downgrade(&shared)));
        let door = Self { shared };
        door.listen(listener);
        door
    }

    /// Serves another listener as well.
    pub fn listen(&self, listener: TcpListener) {
        self.serve(listener, None);
    }

    /// Serves another listener, over TLS.
    pub fn listen_tls(&self, listener: TcpListener, tls: Arc<TlsAcceptor>) {
        self.serve(listener, Some(tls));
    }

    fn serve(&self, listener: TcpListener, tls: Option<Arc<TlsAcceptor>>) {
        limit_writes(&listener, self.shared.config.write_time_max);
        tokio::spawn(accept(listener, tls, self.shared.clone()));
    }

    /// What addresses may hold: a listener beside the door's own takes its connections' seats from here.
    #[must_use]
    pub fn addresses(&self) -> Arc<Addresses> {
        Arc::clone(&self.shared.addresses)
    }

    /// A place for a connection that was accepted elsewhere, as a WebSocket is, from the address `peer`, with the seat it has there.
    /// `None` when [`Config::connections_max`] are open or the door is closing.
    #[must_use]
    pub fn place(&self, peer: SocketAddr, seat: Arc<Seat>) -> Option<Place> {
        self.shared.place(peer, seat)
    }

    /// Waits until the link has stopped: the process must end then.
    pub async fn failed(&self) -> LinkDown {
        self.shared.uplink.failed().await;
        LinkDown
    }

    /// What was counted since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { over_address_limit: self.shared.addresses.over_limit(), ..self.shared.metrics.stats() }
    }

    /// How long messages took, stage by stage.
    #[must_use]
    pub fn stages(&self) -> StageTimes {
        self.shared.stages.times()
    }

    /// Stops accepting, tells every client (0x8B), and returns when their connections have ended, or after
    /// [`Config::drain_time_max`]. Wills are published, those that wait for their delay too. The bridge must run on until this returns.
    pub async fn drain(self) {
        let shared = &self.shared;
        shared.closing.send_replace(true);
        shared.registry.end_all(End::SHUTTING_DOWN);
        let ended = async {
            let _ = shared.live.subscribe().wait_for(|live| *live == 0).await;
            for (user, will) in shared.wills.take_all(unix_now()) {
                shared.uplink.send_patiently(&user, &Up::Publish(will)).await;
            }
        };
        if tokio::time::timeout(shared.config.drain_time_max, ended).await.is_err() {
            tracing::warn!(left = *shared.live.borrow(), "connections did not end in time");
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shared.closing.send_replace(true);
        self.shared.has_stopped.store(true, Ordering::Relaxed);
        self.shared.registry.end_all(End::SHUTTING_DOWN);
    }
}

/// Sockets that `listener` accepts break when their other side has confirmed nothing, or had no room, for `time_max` though something was
/// sent. The kernel's buffer takes as much as a device may have in flight, so a write that waits would not tell of one that never reads.
pub fn limit_writes(listener: &TcpListener, time_max: Duration) {
    let millis = u32::try_from(time_max.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(listener, millis) {
        tracing::warn!(%error, "TCP_USER_TIMEOUT cannot be set: who never reads is noticed late");
    }
}

async fn accept(listener: TcpListener, tls: Option<Arc<TlsAcceptor>>, shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    let mut pause = ACCEPT_PAUSES.0;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = ACCEPT_PAUSES.0;
                let _ = stream.set_nodelay(true);
                let Some(seat) = shared.addresses.seat(peer) else { continue };
                let Some(place) = shared.place(peer, Arc::new(seat)) else { continue };
                match tls.clone() {
                    None => tokio::spawn(place.serve(stream)),
                    Some(tls) => tokio::spawn(place.serve_tls(stream, tls)),
                };
            }
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(ACCEPT_PAUSES.1);
            }
        }
    }
}
