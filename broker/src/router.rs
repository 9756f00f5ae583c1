//! rumqttd's router, in the process: started once, with one link for the door and one for the bridge, both alive until the process ends.
//!
//! What ends its thread or loses messages silently is kept away here: only topics of [`Direction::topic`] go in, payloads are never
//! empty, nothing is retained, properties are `None`, no link is ever disconnected or built twice, and a link wakes the router exactly
//! once per `Unschedule`. A skipped offset is [`LinkDown`].

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use natter_protocol::ids::UserId;
use natter_protocol::link::{Bell, LinkDown, LinkReceiver, LinkSender, Up, WINDOW_BYTES};
use natter_protocol::topic::Direction;
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{Packet, Publish};
use rumqttd::{Notification, Router, RouterConfig};

use crate::watchdog::{Health, Watchdog};

/// How long the router may take to come up.
const START_MAX: Duration = Duration::from_secs(5);
/// One segment of a direction's log.
const SEGMENT_BYTES: usize = 256 * 1024;
/// Segments of a direction's log. A reader that lags by more than all but one of them skips; two windows of payloads and as much again
/// for topics and headers fit.
const SEGMENTS: usize = 20;
const _: () = assert!((SEGMENTS as u64 - 1) * SEGMENT_BYTES as u64 >= 4 * WINDOW_BYTES);
/// Frames that the router hands a link at a time.
const BATCH_FRAMES: u64 = 4096;
/// Links, and room to spare: a full house is refused silently.
const LINKS_MAX: usize = 10;

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
/// The router has no way to stop: its thread lives as long as the process. Both receivers report [`LinkDown`] when it has died or is stuck.
///
/// # Errors
/// [`LinkDown`] when the router does not come up.
pub fn start_router() -> Result<Ends, LinkDown> {
    let (ends_tx, ends_rx) = mpsc::channel();
    // Building a link waits for the router without a limit, so it is done on a thread that may be left behind.
    thread::Builder::new()
        .name("router-start".into())
        .spawn(move || {
            let _ = ends_tx.send(build());
        })
        .map_err(|_| LinkDown)?;
    ends_rx.recv_timeout(START_MAX).unwrap_or(Err(LinkDown))
}

fn build() -> Result<Ends, LinkDown> {
    let config = RouterConfig {
        max_connections: LINKS_MAX,
        max_outgoing_packet_count: BATCH_FRAMES,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    };
    let router_tx = Router::new(0, config).spawn();
    let link = |name: &str| LinkBuilder::new(name, router_tx.clone()).build().map_err(down);

    let (watch_tx, watch_rx, _) = link("watchdog")?;
    let health = Watchdog::start(watch_tx, watch_rx).map_err(|_| LinkDown)?;
    let (door_tx, door_rx, _) = link("door")?;
    let (bridge_tx, bridge_rx, _) = link("bridge")?;
    // A link that only rings: what wakes the bridge's loop comes the way of everything else that it waits for.
    let (bell_tx, _, _) = link("bell")?;
    let bell = bell(bell_tx);

    let bridge = end(bridge_tx, bridge_rx, Direction::Down, health.clone(), bell.clone())?;
    let door = end(door_tx, door_rx, Direction::Up, health, bell)?;
    Ok(Ends { door, bridge })
}

/// Makes the end that sends in direction `sends`, subscribed to the other direction.
fn end(mut tx: LinkTx, mut rx: LinkRx, sends: Direction, health: Health, bell: Bell) -> Result<Link, LinkDown> {
    let receives = match sends {
        Direction::Up => Direction::Down,
        Direction::Down => Direction::Up,
    };
    tx.subscribe(receives.filter()).map_err(down)?;
    await_suback(&mut rx)?;
    Ok(Link {
        sender: Box::new(RouterSender { tx, direction: sends, last: None }),
        receiver: Box::new(RouterReceiver { rx, direction: receives, health, bell, next_offset: 0, last: None }),
    })
}

/// Rings towards the bridge. A router that is dead is noticed by whoever waits for it.
fn bell(tx: LinkTx) -> Bell {
    let tx = Mutex::new(tx);
    Arc::new(move || {
        let topic = Bytes::from(Direction::Up.topic(None));
        let ring = Packet::Publish(Publish::new(topic, Up::Ring.encode(), false), None);
        let _ = send_now(&mut tx.lock().unwrap_or_else(PoisonError::into_inner), ring);
    })
}

/// What is published before the router has processed a SUBSCRIBE is lost, so nothing starts before its SUBACK.
fn await_suback(rx: &mut LinkRx) -> Result<(), LinkDown> {
    let deadline = Instant::now() + START_MAX;
    loop {
        let Some(notification) = rx.recv_deadline(deadline).map_err(down)? else { continue };
        if let Some(Packet::SubAck(..)) = Option::<Packet>::from(notification) {
            return Ok(());
        }
    }
}

/// Every error of a link means the same: the router's thread is gone.
fn down(error: LinkError) -> LinkDown {
    tracing::error!(%error, "the router has stopped");
    LinkDown
}

struct RouterSender {
    tx: LinkTx,
    direction: Direction,
    /// The topic of the last frame: frames of a batch often are about one user.
    last: Option<(Option<UserId>, Bytes)>,
}

impl RouterSender {
    fn topic(&mut self, user: Option<UserId>) -> Bytes {
        match &self.last {
            Some((last, topic)) if *last == user => topic.clone(),
            _ => {
                let topic = Bytes::from(self.direction.topic(user.as_ref()));
                self.last = Some((user, topic.clone()));
                topic
            }
        }
    }
}

impl LinkSender for RouterSender {
    fn send(&mut self, frames: &mut Vec<(Option<UserId>, Bytes)>) -> Result<(), LinkDown> {
        let mut packets = Vec::with_capacity(frames.len());
        for (user, frame) in frames.drain(..) {
            // An empty payload would be taken for a command; no frame is empty.
            if !frame.is_empty() {
                let topic = self.topic(user);
                packets.push(Packet::Publish(Publish::new(topic, frame, false), None));
            }
        }
        let Some(last) = packets.pop() else { return Ok(()) };
        self.tx.buffer().extend(packets);
        send_now(&mut self.tx, last)
    }
}

/// `LinkTx::send` is async by name only: it blocks while the router's queue of events is full.
fn send_now(tx: &mut LinkTx, packet: Packet) -> Result<(), LinkDown> {
    let sending = std::pin::pin!(tx.send(packet));
    match sending.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(sent) => sent.map(|_| ()).map_err(down),
        Poll::Pending => Err(LinkDown),
    }
}

struct RouterReceiver {
    rx: LinkRx,
    direction: Direction,
    health: Health,
    bell: Bell,
    /// The log's offset that the next frame must have.
    next_offset: u64,
    last: Option<(Bytes, Option<UserId>)>,
}

impl RouterReceiver {
    fn user(&mut self, topic: Bytes) -> Result<Option<UserId>, LinkDown> {
        if let Some((last, user)) = &self.last
            && *last == topic
        {
            return Ok(user.clone());
        }
        let text = std::str::from_utf8(&topic).map_err(|_| LinkDown)?;
        let user = match self.direction.user(text).map_err(|_| LinkDown)? {
            Some(name) => Some(UserId::parse(name).map_err(|_| LinkDown)?),
            None => None,
        };
        self.last = Some((topic, user.clone()));
        Ok(user)
    }

    fn check_offset(&mut self, cursor: Option<(u64, u64)>) -> Result<(), LinkDown> {
        match cursor {
            Some((_, offset)) if offset == self.next_offset => {
                self.next_offset += 1;
                Ok(())
            }
            got => {
                tracing::error!(expected = self.next_offset, ?got, "the router skipped frames");
                Err(LinkDown)
            }
        }
    }
}

impl LinkReceiver for RouterReceiver {
    fn receive(&mut self, deadline: Instant) -> Result<Option<(Option<UserId>, Bytes)>, LinkDown> {
        loop {
            if self.health.is_dead() {
                return Err(LinkDown);
            }
            match self.rx.recv_deadline(deadline) {
                Ok(Some(Notification::Forward(forward))) => {
                    self.check_offset(forward.cursor)?;
                    let user = self.user(forward.publish.topic)?;
                    return Ok(Some((user, forward.publish.payload)));
                }
                // The router paused this link and waits for exactly one `Ready`. It is the last of its batch, so the batch is handled.
                Ok(Some(Notification::Unschedule)) => self.rx.ready().map_err(down)?,
                Ok(_) => {}
                Err(LinkError::RecvTimeout(error)) if is_timeout(&error) => return Ok(None),
                Err(error) => return Err(down(error)),
            }
        }
    }

    fn bell(&self) -> Bell {
        self.bell.clone()
    }
}

fn is_timeout(error: &flume::RecvTimeoutError) -> bool {
    matches!(error, flume::RecvTimeoutError::Timeout)
}

#[cfg(test)]
mod tests {
    use natter_protocol::link::{Credit, Down, Intake, Up, Window};

    use super::*;

    const FRAMES: u64 = 100_000;

    /// Sends `FRAMES` numbered frames and takes in as many, keeping the window on both sides.
    fn pump(mut link: Link, frame: fn(u64) -> Bytes, took: fn(Credit) -> Bytes, read: fn(Bytes) -> Read) {
        let users: Vec<UserId> = (0..50).map(|n| UserId::parse(&format!("u{n}")).unwrap()).collect();
        let (mut window, mut intake) = (Window::default(), Intake::default());
        let (mut sent, mut received) = (0, 0);
        let mut batch = Vec::new();
        let give_up = Instant::now() + Duration::from_secs(60);
        while sent < FRAMES || received < FRAMES {
            assert!(Instant::now() < give_up, "stuck at {sent} sent, {received} received");
            while sent < FRAMES && window.is_open() && batch.len() < 64 {
                let bytes = frame(sent);
                window.sent(bytes.len());
                batch.push((Some(users[usize::try_from(sent % 50).unwrap()].clone()), bytes));
                sent += 1;
            }
            link.sender.send(&mut batch).unwrap();
            let wait = if window.is_open() && sent < FRAMES { 0 } else { 20 };
            let mut until = Instant::now() + Duration::from_millis(wait);
            while let Some((user, bytes)) = link.receiver.receive(until).unwrap() {
                until = Instant::now();
                if let Some(credit) = intake.took(bytes.len()) {
                    let bytes = took(credit);
                    window.sent(bytes.len());
                    link.sender.send(&mut vec![(None, bytes)]).unwrap();
                }
                match read(bytes) {
                    Read::Took(credit) => window.confirmed(credit),
                    Read::Number(n) => {
                        assert_eq!(n, received, "in order, none lost");
                        assert_eq!(user.as_ref(), Some(&users[usize::try_from(n % 50).unwrap()]));
                        received += 1;
                    }
                }
            }
        }
        // The other side may still want the last confirmations.
        thread::sleep(Duration::from_millis(200));
    }

    enum Read {
        Took(Credit),
        Number(u64),
    }

    #[test]
    fn a_hundred_thousand_frames_each_way_arrive_in_order_and_none_is_lost() {
        let Ends { door, bridge } = start_router().unwrap();
        let bridge = thread::spawn(move || {
            pump(
                bridge,
                |n| {
                    let payload = Bytes::from(n.to_be_bytes().repeat(25));
                    Down::Live { connection: Default::default(), payload }.encode()
                },
                |credit| Down::Took(credit).encode(),
                |bytes| match Up::decode(bytes).unwrap() {
                    Up::Took(credit) => Read::Took(credit),
                    Up::Acked { seq, .. } => Read::Number(seq),
                    other => panic!("{other:?}"),
                },
            );
        });
        pump(
            door,
            |n| Up::Acked { connection: Default::default(), seq: n, taken: true }.encode(),
            |credit| Up::Took(credit).encode(),
            |bytes| match Down::decode(bytes).unwrap() {
                Down::Took(credit) => Read::Took(credit),
                Down::Live { payload, .. } => Read::Number(u64::from_be_bytes(payload[..8].try_into().unwrap())),
                other => panic!("{other:?}"),
            },
        );
        bridge.join().unwrap();
    }

    #[test]
    fn a_reader_that_lags_by_the_whole_window_loses_nothing() {
        let Ends { mut door, mut bridge } = start_router().unwrap();
        let alice = UserId::parse("alice").unwrap();
        let payload = Bytes::from(vec![7; 60 * 1024]);
        let frame = Down::Live { connection: Default::default(), payload }.encode();
        let mut window = Window::default();
        let mut sent = 0;
        while window.is_open_in_reserve() {
            window.sent(frame.len());
            bridge.sender.send(&mut vec![(Some(alice.clone()), frame.clone())]).unwrap();
            sent += 1;
        }
        thread::sleep(Duration::from_millis(100));
        for n in 0..sent {
            let got = door.receiver.receive(Instant::now() + Duration::from_secs(5)).unwrap();
            assert!(got.is_some(), "frame {n} of {sent}");
        }
    }

    #[test]
    fn skipped_frames_are_noticed() {
        let Ends { mut door, mut bridge } = start_router().unwrap();
        let frame = Down::Live { connection: Default::default(), payload: Bytes::from(vec![7; 60 * 1024]) }.encode();
        for _ in 0..2000 {
            bridge.sender.send(&mut vec![(None, frame.clone())]).unwrap();
        }
        // The router writes on while the door's link waits to be woken, so the log runs over.
        thread::sleep(Duration::from_millis(300));
        let mut outcome = Ok(());
        for _ in 0..2000 {
            if let Err(down) = door.receiver.receive(Instant::now() + Duration::from_secs(1)) {
                outcome = Err(down);
                break;
            }
        }
        assert_eq!(outcome, Err(LinkDown));
    }
}
