//! Drives one socket: bytes to packets to the session, the session's packets to bytes, its frames up. One task a connection; an idle
//! one holds no buffers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use natter_protocol::accounts::Grant;
use natter_protocol::ids::ConnectionId;
use natter_protocol::link::{Packet, Up};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Sleep, sleep_until, timeout, timeout_at};

use crate::connect::{self, Accepted, Refused};
use crate::door::{Arrival, Handshake, Shared};
use crate::input::{Input, Next};
use crate::mailbox::{Mailbox, Taken};
use crate::metrics::count;
use crate::packet::{self, Inbound, Outbound};
use crate::rate::{Bucket, Rate};
use crate::registry::{Client, Entry, NoEntry, Present};
use crate::session::{Cause, End, Legacy, Session};
use crate::stages::{self, OnTheirWay, unix_now};
use crate::uplink::Frame;
use crate::validate::BadConnect;

/// Read from a socket at a time, into memory that all connections of a thread share.
const SCRATCH_BYTES: usize = 16 * 1024;
/// Unwritten bytes above which nothing more is taken in: from the socket, or from the mailbox.
const OUT_BYTES_MAX: usize = 64 * 1024;
/// Frames that are sent up at a time.
const UP_FRAMES: usize = 64;
/// The shortest pause of a connection that has sent too much: many short ones would cost more than what they hold back.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// How long a client that is being told why its connection ends may take to read it.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// Bytes of a client that are read and dropped meanwhile: closing over unread bytes would take our last words away.
const FAREWELL_BYTES: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Serves a socket to its end.
pub(crate) async fn run<S>(stream: S, arrival: Arrival, handshake: Option<Handshake>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut presence = Presence::new(shared);
    // Boxed: what only the beginning and the end need is not kept for as long as a connection.
    let opened = Box::pin(open(stream, arrival, handshake, &mut presence)).await;
    let Some(mut driver) = opened else { return };
    driver.drive().await;
    Box::pin(driver.leave()).await;
    presence.is_up = false;
}

/// Everything up to an accepted CONNECT, or the refusal.
async fn open<S>(
    mut stream: S,
    arrival: Arrival,
    handshake: Option<Handshake>,
    presence: &mut Presence,
) -> Option<Box<Driver<S>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let shared = Arc::clone(&presence.shared);
    let connect_by = arrival.at + shared.config.connect_time_max;
    match timeout_at(connect_by.into(), shake_hands(&mut stream, presence.id, arrival, &shared, &presence.mailbox))
        .await
    {
        Ok(Ok(guest)) => {
            presence.client = Some(Arc::clone(&guest.client));
            presence.is_up = true;
            drop(handshake);
            return Some(begin(stream, connect_by, presence, guest).await);
        }
        Ok(Err(refusal)) => {
            if let Some(refused) = refusal {
                count(&shared.metrics.connects_refused);
                tracing::debug!(peer = %arrival.peer, code = refused.code, "CONNECT refused");
                let mut out = BytesMut::new();
                Outbound::ConnRefused(refused.code).encode(refused.version, u32::MAX, &mut out);
                say_farewell(&mut stream, &out).await;
            }
        }
        Err(_) => {
            count(&shared.metrics.handshakes_timed_out);
            tracing::debug!(peer = %arrival.peer, "no CONNECT in time");
        }
    }
    None
}

/// A connection's place in the registry. It is left in any case, by a panic too, and the bridge hears of it.
struct Presence {
    shared: Arc<Shared>,
    id: ConnectionId,
    mailbox: Arc<Mailbox>,
    client: Option<Arc<Client>>,
    /// The bridge may have heard of the connection, and not of its end.
    is_up: bool,
}

impl Presence {
    /// Enters the registry.
    fn new(shared: Arc<Shared>) -> Self {
        let id = shared.next_id();
        let mailbox = Arc::new(Mailbox::new(shared.config.queue_frames_max, shared.config.queue_bytes_max));
        shared.registry.add(id.n, Arc::clone(&mailbox));
        if shared.is_closing() {
            // Those that came before were told.
            mailbox.end(End::SHUTTING_DOWN);
        }
        Self { shared, id, mailbox, client: None, is_up: false }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.is_up {
            let close = Up::Close { connection: self.id, expiry_secs: None, by_server: true };
            self.shared.uplink.send_anyway(self.client.as_ref().map(|client| &client.user), &close);
        }
        self.mailbox.set_done();
        self.shared.registry.leave(self.id.n, self.client.as_ref());
    }
}

/// A client that was let in.
struct Guest {
    client: Arc<Client>,
    grant: Grant,
    accepted: Accepted,
    input: Input,
    /// The connection that this one takes over.
    earlier: Option<Arc<Mailbox>>,
    /// What its user has published.
    publishes: Arc<Mutex<Bucket>>,
}

/// Reads CONNECT and decides about it. `Err(None)`: closed without an answer.
async fn shake_hands<S>(
    stream: &mut S,
    id: ConnectionId,
    Arrival { peer, .. }: Arrival,
    shared: &Arc<Shared>,
    mailbox: &Arc<Mailbox>,
) -> Result<Guest, Option<Refused>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut input = Input::default();
    let connect = loop {
        match input.next() {
            Ok(Next::Packet(range)) => match packet::decode_connect(input.bytes(range)) {
                Ok(connect) => break connect,
                Err(BadConnect::Close) => return Err(None),
                Err(BadConnect::Refuse(version, code)) => {
                    return Err(Some(Refused { version, code, is_guess: false }));
                }
            },
            Ok(Next::Oversize { .. }) | Err(_) => return Err(None),
            Ok(Next::Wait) => {}
        }
        let read = poll_fn(|cx| {
            if mailbox.poll_end(cx).is_some() {
                return Poll::Ready(Ok(0));
            }
            poll_read(Pin::new(&mut *stream), cx, &mut input)
        });
        if !matches!(read.await, Ok(1..)) {
            return Err(None);
        }
    };

    let now = Instant::now();
    if !shared.addresses.may_authenticate(peer, now) {
        count(&shared.metrics.auth_throttled);
        return Err(Some(Refused::new(connect.version(), 3, 0x9f)));
    }
    shared.turn().await;
    let mark = shared.registry.revocation_mark();
    let accepted = connect::decide(connect, id, &*shared.accounts, unix_now(), &shared.config).map_err(|refused| {
        if refused.is_guess {
            count(&shared.metrics.auth_failures);
            shared.addresses.failed(peer, now);
        }
        Some(refused)
    })?;
    input.set_version(accepted.version);
    let grant = accepted.grant.clone();
    let client = Arc::new(Client { user: grant.user.clone(), client_id: accepted.opening.client_id.clone() });
    let present = Present { number: id.n, mailbox: Arc::clone(mailbox), grant: grant.clone() };
    let entered = shared.registry.enter(Arc::clone(&client), present, mark, &shared.config, now);
    let Entry { earlier, publishes } = entered.map_err(|no| {
        let (v3, v5) = match no {
            NoEntry::Revoked => (5, 0x87),
            NoEntry::TooMany => {
                count(&shared.metrics.over_user_limit);
                (3, 0x97)
            }
            NoEntry::TooOften => {
                count(&shared.metrics.connects_too_often);
                (3, 0x9f)
            }
        };
        Some(Refused::new(accepted.version, v3, v5))
    })?;
    count(&shared.metrics.connects);
    Ok(Guest { client, grant, accepted, input, earlier, publishes })
}

/// What an accepted CONNECT begins with: whoever was there before leaves first.
async fn begin<S>(stream: S, open_by: Instant, presence: &Presence, guest: Guest) -> Box<Driver<S>> {
    let Presence { shared, mailbox, id, .. } = presence;
    let Guest { client, grant, accepted, input, earlier, publishes } = guest;
    // Not under the time limit: giving up half-way would let a third connection open before the first one's close.
    if let Some(earlier) = earlier {
        count(&shared.metrics.takeovers);
        // What the old connection has said goes up before what the new one says.
        earlier.done().await;
    }
    if let Some(will) = shared.wills.came_back(&client, accepted.opening.clean_start, unix_now()) {
        shared.uplink.send_patiently(&client.user, &Up::Publish(will)).await;
    }
    let now = Instant::now();
    let expires_at = now.checked_add(Duration::from_secs(grant.expires_at.saturating_sub(unix_now())));
    let session = Session::new(*id, accepted, expires_at, stages::stamp, now);
    Box::new(Driver {
        stream,
        shared: Arc::clone(shared),
        mailbox: Arc::clone(mailbox),
        client,
        grant,
        input,
        session,
        out: BytesMut::new(),
        up: VecDeque::new(),
        entries: OnTheirWay::default(),
        written_at: now,
        open_by,
        publishes,
        packets: Bucket::default(),
        paused_until: None,
        begun_at: None,
        has_more: false,
        stopped_for_credit: false,
        needs_flush: false,
    })
}

struct Driver<S> {
    stream: S,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    client: Arc<Client>,
    grant: Grant,
    input: Input,
    session: Session,
    /// Not written yet.
    out: BytesMut,
    /// Not sent up yet, for want of credit.
    up: VecDeque<Frame>,
    entries: OnTheirWay,
    /// When the client last took something of what is written to it, or had nothing to take.
    written_at: Instant,
    /// When CONNACK must have gone out.
    open_by: Instant,
    /// What the user has published, with all connections.
    publishes: Arc<Mutex<Bucket>>,
    /// What has come on this connection.
    packets: Bucket,
    /// It, or its user, has sent too much: nothing is read until then.
    paused_until: Option<Instant>,
    /// Since when a packet is on its way in.
    begun_at: Option<Instant>,
    /// There may be a whole packet in `input`: taking in stopped before its end, so the socket will not wake this task for it.
    has_more: bool,
    stopped_for_credit: bool,
    /// A stream of another kind than TCP may hold back what was written.
    needs_flush: bool,
}

/// What a driver has waited for.
enum Event {
    /// Bytes came, or were written, or there is credit: look again.
    Progress,
    Mail(Taken),
    /// The socket is broken or closed.
    Gone(End),
    Time,
}

impl Event {
    const GONE: Self = Self::Gone(End::GONE);

    fn broken(error: &io::Error) -> Self {
        // See `limit_writes`.
        let has_taken_nothing = error.kind() == io::ErrorKind::TimedOut;
        Self::Gone(if has_taken_nothing { End { reason: 0, ..End::SLOW } } else { End::GONE })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    async fn drive(&mut self) {
        let mut timer = Box::pin(sleep_until(self.next_timeout().into()));
        loop {
            self.take_packets();
            self.send_up();
            self.encode_packets();
            if self.session.end().is_some() {
                return;
            }
            if self.has_more && self.may_take() {
                continue;
            }
            self.session.set_reading(self.may_take(), Instant::now());
            let wake_at = self.next_timeout();
            if wake_at < timer.deadline().into_std() {
                timer.as_mut().reset(wake_at.into());
            }
            let event = poll_fn(|cx| self.poll_event(cx, timer.as_mut())).await;
            let now = Instant::now();
            match event {
                Event::Progress => {}
                Event::Mail(Taken { frames, committed_at, end }) => {
                    self.entries.out(&frames, committed_at, now, &self.shared.stages);
                    for frame in frames {
                        self.session.handle_down(frame);
                    }
                    if let Some(end) = end {
                        self.session.close(end);
                    }
                }
                Event::Gone(end) => self.session.close(end),
                Event::Time => {
                    self.handle_timeout(now);
                    timer.as_mut().reset(self.next_timeout().into());
                }
            }
        }
    }

    /// Takes in what has been read, as far as the session and the credit allow.
    fn take_packets(&mut self) {
        let now = Instant::now();
        self.has_more = true;
        while self.may_take() && self.up.len() < UP_FRAMES {
            let (mut is_publish, mut is_awaited) = (false, false);
            match self.input.next() {
                Ok(Next::Wait) => {
                    self.has_more = false;
                    break;
                }
                Ok(Next::Packet(range)) => match packet::decode(self.session.version(), self.input.bytes(range)) {
                    Ok(packet) => {
                        is_publish = matches!(packet, Inbound::Publish(_));
                        is_awaited = self.session.awaits(&packet);
                        self.session.handle_packet(packet, now);
                    }
                    Err(violation) => self.session.handle_violation(violation),
                },
                Ok(Next::Oversize { packet_id, qos }) => {
                    count(&self.shared.metrics.publishes_oversize);
                    is_publish = true;
                    self.session.handle_oversize(Packet { id: packet_id, qos }, now);
                }
                Err(violation) => self.session.handle_violation(violation),
            }
            if !is_awaited {
                self.keep_pace(is_publish, now);
            }
            self.begun_at = None;
            self.collect_up();
        }
        // While nothing is read the client cannot bring a packet to its end.
        if self.input.has_begun() && self.may_take() {
            self.begun_at.get_or_insert(now);
        } else {
            self.begun_at = None;
        }
    }

    fn may_take(&self) -> bool {
        self.session.may_read()
            && !self.stopped_for_credit
            && self.paused_until.is_none()
            && self.out.len() < OUT_BYTES_MAX
    }

    /// A packet was taken in: nothing more is, for a while, if there were too many.
    fn keep_pace(&mut self, is_publish: bool, now: Instant) {
        let config = &self.shared.config;
        let wait = |bucket: &mut Bucket, rate: Rate| {
            bucket.take(rate, now);
            bucket.wait(rate, now)
        };
        let mut pause = wait(&mut self.packets, config.packet_rate);
        if is_publish {
            let mut publishes = self.publishes.lock().unwrap_or_else(PoisonError::into_inner);
            pause = pause.max(wait(&mut publishes, config.publish_rate));
        }
        if !pause.is_zero() {
            count(&self.shared.metrics.rate_pauses);
            self.paused_until = Some(now + pause.max(PAUSE_MIN));
        }
    }

    fn collect_up(&mut self) {
        while let Some(frame) = self.session.poll_up() {
            match &frame {
                Up::Publish(_) => count(&self.shared.metrics.publishes),
                Up::Acked { seq, .. } => self.entries.acked(*seq, Instant::now(), &self.shared.stages),
                _ => {}
            }
            self.up.push_back(Frame::from(&frame));
        }
    }

    fn send_up(&mut self) {
        self.collect_up();
        let waits = !self.up.is_empty() && !self.shared.uplink.send(&self.client.user, &mut self.up, &self.mailbox);
        if waits && !self.stopped_for_credit {
            count(&self.shared.metrics.no_credit_stops);
        }
        self.stopped_for_credit = waits;
    }

    fn encode_packets(&mut self) {
        let (version, bytes_max) = (self.session.version(), self.session.packet_bytes_max());
        if self.out.is_empty() {
            self.written_at = Instant::now();
        }
        while let Some(packet) = self.session.poll_transmit() {
            let mut is_dispensable = false;
            match &packet {
                Outbound::Publish { packet_id: 0, .. } => is_dispensable = true,
                Outbound::Publish { .. } => count(&self.shared.metrics.entries),
                Outbound::SubAck { codes, .. } => {
                    let refused = codes.iter().filter(|code| **code >= 0x80);
                    refused.for_each(|_| count(&self.shared.metrics.filters_refused));
                }
                _ => {}
            }
            let is_welcome = matches!(packet, Outbound::ConnAck(_));
            if packet.encode(version, bytes_max, &mut self.out) || is_dispensable {
                continue;
            }
            if is_welcome {
                self.session.cannot_welcome();
            } else {
                // Left out in silence, an entry or an answer would be waited for as long as the connection lasts.
                tracing::debug!(user = %self.client.user, "a packet is larger than the client takes");
                self.session.close(End::TOO_LARGE);
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Event> {
        if !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(1..)) if self.out.is_empty() => {}
                Poll::Ready(Ok(written @ 1..)) => {
                    self.out.advance(written);
                    self.written_at = Instant::now();
                    if self.out.is_empty() {
                        self.out = BytesMut::new();
                        self.needs_flush = true;
                    }
                    return Poll::Ready(Event::Progress);
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Event::GONE),
                Poll::Ready(Err(error)) => return Poll::Ready(Event::broken(&error)),
                Poll::Pending => {}
            }
        }
        if self.needs_flush {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.needs_flush = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Event::broken(&error)),
                Poll::Pending => {}
            }
        }
        if self.out.len() < OUT_BYTES_MAX {
            if let Some(taken) = self.mailbox.poll_take(cx) {
                return Poll::Ready(Event::Mail(taken));
            }
        } else if let Some(end) = self.mailbox.poll_end(cx) {
            return Poll::Ready(Event::Mail(Taken { end: Some(end), ..Taken::default() }));
        }
        if self.stopped_for_credit {
            // The mailbox's waker is set, so credit that comes from now on wakes this task.
            self.send_up();
            if !self.stopped_for_credit {
                return Poll::Ready(Event::Progress);
            }
        }
        if self.may_take() {
            match poll_read(Pin::new(&mut self.stream), cx, &mut self.input) {
                Poll::Ready(Ok(1..)) => return Poll::Ready(Event::Progress),
                Poll::Ready(Ok(_)) => return Poll::Ready(Event::GONE),
                Poll::Ready(Err(error)) => return Poll::Ready(Event::broken(&error)),
                Poll::Pending => {}
            }
        }
        timer.poll(cx).map(|()| Event::Time)
    }

    fn next_timeout(&self) -> Instant {
        let config = &self.shared.config;
        let write = (!self.out.is_empty()).then(|| self.written_at + config.write_time_max);
        let read = self.begun_at.filter(|_| self.may_take()).map(|at| at + config.packet_time_max);
        let far = self.written_at + Duration::from_secs(24 * 60 * 60);
        let open = (!self.session.is_open()).then_some(self.open_by);
        [write, read, open, self.paused_until, self.session.poll_timeout()].into_iter().flatten().min().unwrap_or(far)
    }

    fn handle_timeout(&mut self, now: Instant) {
        let config = &self.shared.config;
        self.paused_until = self.paused_until.filter(|until| *until > now);
        if !self.out.is_empty() && self.written_at + config.write_time_max <= now {
            self.session.close(End { reason: 0, ..End::SLOW });
        } else if self.may_take() && self.begun_at.is_some_and(|at| at + config.packet_time_max <= now) {
            self.session.close(End { cause: Cause::Silence, reason: 0x8d });
        } else if !self.session.is_open() && self.open_by <= now {
            self.session.close(End::server(0x88));
        } else {
            self.session.handle_timeout(now);
        }
    }

    /// The end: last words, the will, and the close frame; in that order what goes up.
    async fn leave(mut self: Box<Self>) {
        self.shared.turn_to_leave().await;
        let client = Arc::clone(&self.client);
        let end = self.session.end().unwrap_or(End::GONE);
        let metrics = &self.shared.metrics;
        metrics.publishes_refused.fetch_add(self.session.denials().into(), std::sync::atomic::Ordering::Relaxed);
        match end.cause {
            Cause::Slow => count(&metrics.slow_consumers),
            Cause::Silence => count(&metrics.keep_alives_missed),
            Cause::Violation => count(&metrics.violations),
            Cause::Disconnect | Cause::Gone | Cause::Revoked | Cause::Server => {}
        }
        self.collect_up();
        while !self.up.is_empty() {
            // The first is sent whenever there is credit; it is what was taken in, and is not lost.
            if self.shared.uplink.send(&self.client.user, &mut self.up, &self.mailbox) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let Legacy { will, close } = self.session.finish();
        let (now, later) = match will {
            Some((will, delay)) if delay > Duration::ZERO => (None, Some((will, delay))),
            Some((will, _)) => (Some(will), None),
            None => (None, None),
        };
        if let Some(will) = now {
            self.shared.uplink.send_patiently(&client.user, &Up::Publish(will)).await;
        }
        self.shared.uplink.send_patiently(&client.user, &close).await;
        if let Some((will, delay)) = later {
            let number = will.connection.n;
            let waiting_max = self.shared.config.connections_max;
            if let Some(will) = self.shared.wills.wait(Arc::clone(&client), will, self.grant.clone(), waiting_max) {
                self.shared.uplink.send_patiently(&client.user, &Up::Publish(will)).await;
            }
            if self.mailbox.is_revoked() {
                // It came after the end and before the will waited: `Wills::revoke` has missed it.
                let _ = self.shared.wills.due(&client, number, unix_now());
            }
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                if let Some(will) = shared.wills.due(&client, number, unix_now()) {
                    shared.uplink.send_patiently(&client.user, &Up::Publish(will)).await;
                }
            });
        }
        // Behind the will: whoever comes back must find it waiting.
        self.mailbox.set_done();
        if end.cause != Cause::Gone && (end.cause != Cause::Slow || end.reason != 0) {
            say_farewell(&mut self.stream, &self.out).await;
        }
    }
}

/// Reads once, through the thread's scratch memory, and appends to `input`. Zero bytes: the other side has closed.
fn poll_read<S: AsyncRead + Unpin>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    input: &mut Input,
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(stream.poll_read(cx, &mut buffer))?;
        input.push(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

/// Writes last words, and waits a moment that they are read.
async fn say_farewell<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, words: &[u8]) {
    let farewell = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut left = FAREWELL_BYTES;
        let mut dropped = [0; 512];
        while left > 0 {
            match stream.read(&mut dropped).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<(), io::Error>(())
    };
    // Whether they arrive is the other side's affair.
    let _ = timeout(FAREWELL_MAX, farewell).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::door::Place;

    fn future_bytes<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// There are many of them. What only a handshake or an end needs belongs in a box.
    #[test]
    fn what_an_idle_connection_is_made_of_stays_small() {
        let task = future_bytes(|(place, stream): (Place, TcpStream)| place.serve(stream));
        let driver = size_of::<Driver<TcpStream>>();
        assert!(task <= 512 && driver <= 1024, "task {task}, driver {driver} bytes");
    }
}
