//! The one task that owns the connection.
//!
//! Every connection gets a fresh rumqttc event loop: what rumqttc carries over from one connection to the next (requests, packet ids,
//! collisions) is what goes wrong in it, and the outbox and the inbox here know all that must be sent again. The loop's inputs are rumqttc's
//! events, the app's publications, and the positions that the app has taken.

use std::time::Duration;

use natter_protocol::entry::Entry;
use natter_protocol::{Seq, topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event as Mqtt, EventLoop, MqttOptions, StateError};
use rumqttc::{NetworkOptions, Outgoing};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::builder::Settings;
use crate::error::Error;
use crate::event::{Delivery, ENTRIES_MAX, Event, Feed, State};
use crate::inbox::{Arrival, Inbox};
use crate::outbox::{OUTBOX_MAX, Outbox, Publication};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// rumqttc says something at least every keep-alive, if only that it pings; a socket that takes no bytes silences it.
const SILENCE_MAX: Duration = Duration::from_secs(75);
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// A connection that lived this long was a good one: the next failure waits the shortest time again.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);
/// As the server's Maximum Packet Size.
const PACKET_BYTES_MAX: u32 = 128 * 1024;
/// Requests on their way into rumqttc: every publication, every acknowledgement, a SUBSCRIBE and a DISCONNECT.
const REQUESTS_MAX: usize = OUTBOX_MAX + 2 * ENTRIES_MAX;

pub(crate) struct Driver {
    settings: Settings,
    publications: mpsc::Receiver<Publication>,
    closing: mpsc::Receiver<oneshot::Sender<()>>,
    feed: Feed,
    outbox: Outbox,
    inbox: Inbox,
}

/// Why a connection ended.
enum End {
    /// Try again after a while.
    Broken(Error),
    /// Entries are missing: connect again at once, the server sends from the cursor.
    Missing,
    /// Do not try again.
    Final(Error),
}

impl Driver {
    pub(crate) fn new(
        settings: Settings,
        publications: mpsc::Receiver<Publication>,
        closing: mpsc::Receiver<oneshot::Sender<()>>,
        feed: Feed,
    ) -> Self {
        Self { settings, publications, closing, feed, outbox: Outbox::default(), inbox: Inbox::default() }
    }

    /// Runs until the client is closed, dropped, or refused. `ready` hears how the first connection went; if it failed, that is all.
    pub(crate) async fn run(mut self, ready: oneshot::Sender<Result<(), Error>>) {
        let mut ready = Some(ready);
        let mut backoff = Backoff::default();
        let error = loop {
            let began = Instant::now();
            let end = self.connection(&mut ready).await;
            if began.elapsed() >= GOOD_CONNECTION {
                backoff.reset();
            }
            self.outbox.rewind();
            self.inbox.rewind();
            match (end, ready.take()) {
                (End::Final(error) | End::Broken(error), Some(ready)) => {
                    let _ = ready.send(Err(error.clone()));
                    break error;
                }
                (End::Final(error), None) => break error,
                (End::Broken(error), None) => {
                    debug!(%error, "connection lost");
                    self.say(State::Reconnecting(error));
                    if self.wait(backoff.next(random())).await {
                        break Error::Closed;
                    }
                }
                (End::Missing, again) => ready = again,
            }
        };
        self.outbox.fail(&error);
        self.say(State::Closed(error));
    }

    /// One connection, from CONNECT to its end.
    async fn connection(&mut self, ready: &mut Option<oneshot::Sender<Result<(), Error>>>) -> End {
        let (client, mut mqtt) = AsyncClient::new(self.options(), REQUESTS_MAX);
        match timeout(CONNECT_MAX, self.open(&client, &mut mqtt)).await {
            Ok(Ok(())) => {}
            Ok(Err(end)) => return end,
            Err(_) => return End::Broken(Error::Unreachable("no answer to CONNECT or SUBSCRIBE in time".into())),
        }
        if let Some(ready) = ready.take() {
            let _ = ready.send(Ok(()));
        }
        self.say(State::Connected);
        match self.serve(&client, &mut mqtt).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    /// CONNECT, CONNACK, SUBSCRIBE, SUBACK. Entries may come before the SUBACK.
    async fn open(&mut self, client: &AsyncClient, mqtt: &mut EventLoop) -> Result<(), End> {
        loop {
            match mqtt.poll().await.map_err(|error| end_of(&error))? {
                Mqtt::Incoming(Packet::ConnAck(_)) => {
                    let inbox = topic::inbox(&self.settings.user, &self.settings.device);
                    let _ = client.try_subscribe(inbox, QoS::AtLeastOnce);
                }
                Mqtt::Incoming(Packet::SubAck(answer)) => match answer.return_codes.first() {
                    Some(SubscribeReasonCode::Success(_)) => return Ok(()),
                    Some(SubscribeReasonCode::NotAuthorized) => {
                        return Err(End::Final(Error::Denied("this token does not read this inbox".into())));
                    }
                    other => return Err(End::Broken(Error::InboxRefused(format!("{other:?}")))),
                },
                Mqtt::Incoming(Packet::Publish(publish)) => self.arrived(client, &publish)?,
                _ => {}
            }
        }
    }

    async fn serve(&mut self, client: &AsyncClient, mqtt: &mut EventLoop) -> Result<std::convert::Infallible, End> {
        let outbox = topic::outbox(&self.settings.user, &self.settings.device);
        loop {
            // Before what the app publishes: a read mark goes out behind the acknowledgement of what was read.
            while let Ok(seq) = self.feed.taken.try_recv() {
                self.took(client, seq)?;
            }
            self.outbox.hand_out(|payload| client.try_publish(&outbox, QoS::AtLeastOnce, false, payload).is_ok());
            tokio::select! {
                event = timeout(SILENCE_MAX, mqtt.poll()) => match event {
                    Err(_) => return Err(End::Broken(Error::Unreachable("the connection takes no bytes".into()))),
                    Ok(Err(error)) => return Err(end_of(&error)),
                    Ok(Ok(Mqtt::Outgoing(Outgoing::Publish(packet_id)))) => self.outbox.written(packet_id),
                    Ok(Ok(Mqtt::Incoming(Packet::PubAck(ack)))) => self.outbox.answered(&ack),
                    Ok(Ok(Mqtt::Incoming(Packet::Publish(publish)))) => self.arrived(client, &publish)?,
                    Ok(Ok(_)) => {}
                },
                Some(seq) = self.feed.taken.recv() => self.took(client, seq)?,
                publication = self.publications.recv(), if self.outbox.has_room() => match publication {
                    Some(publication) => self.outbox.push(publication),
                    None => {
                        say_goodbye(client, mqtt).await;
                        return Err(End::Final(Error::Closed));
                    }
                },
                Some(done) = self.closing.recv() => {
                    while let Ok(seq) = self.feed.taken.try_recv() {
                        self.took(client, seq)?;
                    }
                    say_goodbye(client, mqtt).await;
                    let _ = done.send(());
                    return Err(End::Final(Error::Closed));
                }
            }
        }
    }

    /// The app has it.
    fn took(&mut self, client: &AsyncClient, seq: Seq) -> Result<(), End> {
        self.inbox.taken(seq).map_or(Ok(()), |publish| acknowledge(client, &publish))
    }

    fn arrived(&mut self, client: &AsyncClient, publish: &Publish) -> Result<(), End> {
        let Ok(entry) = Entry::parse(&publish.payload) else {
            warn!(bytes = publish.payload.len(), "an entry that does not read: acknowledged and dropped");
            return acknowledge(client, publish);
        };
        let Some(seq) = entry.seq else {
            // Live: worth something now or never, and never at the price of an entry.
            if self.feed.events.capacity() > ENTRIES_MAX {
                let _ = self.feed.events.try_send(Delivery { seq: None, event: Event::from_entry(entry) });
            }
            return Ok(());
        };
        match self.inbox.arrived(seq, entry.prev.unwrap_or(0), publish) {
            Arrival::New => {
                let delivery = Delivery { seq: Some(seq), event: Event::from_entry(entry) };
                match self.feed.events.try_send(delivery) {
                    // Without a listener entries stay unacknowledged, and the server keeps them.
                    Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
                    Err(TrySendError::Full(_)) => {
                        self.inbox.forget(seq);
                        Err(End::Broken(Error::Protocol("more entries than the Receive Maximum".into())))
                    }
                }
            }
            Arrival::Waiting => Ok(()),
            Arrival::Repeat => acknowledge(client, publish),
            Arrival::Gap => Err(End::Missing),
        }
    }

    fn options(&self) -> MqttOptions {
        let Settings { host, port, user, device, token } = &self.settings;
        let mut options = MqttOptions::new(format!("{user}-{device}"), host.clone(), *port);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_MAX.as_secs());
        options
            .set_credentials(user.as_str(), token.as_str())
            .set_clean_start(true)
            .set_keep_alive(KEEP_ALIVE)
            .set_manual_acks(true)
            .set_connection_timeout(CONNECT_MAX.as_secs())
            .set_receive_maximum(u16::try_from(ENTRIES_MAX).ok())
            .set_max_packet_size(Some(PACKET_BYTES_MAX))
            // Without it rumqttc sets aside 14 MB; more than the outbox, so that packet ids never collide.
            .set_outgoing_inflight_upper_limit(2 * u16::try_from(OUTBOX_MAX).unwrap_or(u16::MAX / 2))
            .set_network_options(network);
        options
    }

    fn say(&self, state: State) {
        // A full queue means that the app does not look; it will see the entries first.
        let _ = self.feed.events.try_send(Delivery { seq: None, event: Event::State(state) });
    }

    /// Waits; `true` when the client was closed meanwhile. Publications stay in their queue.
    async fn wait(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return false,
                Some(seq) = self.feed.taken.recv() => { let _ = self.inbox.taken(seq); }
                publication = self.publications.recv(), if self.outbox.has_room() => match publication {
                    Some(publication) => self.outbox.push(publication),
                    None => return true,
                },
                Some(done) = self.closing.recv() => {
                    let _ = done.send(());
                    return true;
                }
            }
        }
    }
}

fn acknowledge(client: &AsyncClient, publish: &Publish) -> Result<(), End> {
    // The queue holds more than can be unacknowledged, so it is full only if rumqttc stands still.
    client
        .try_ack(publish)
        .map_err(|_| End::Broken(Error::Unreachable("the connection takes no acknowledgements".into())))
}

async fn say_goodbye(client: &AsyncClient, mqtt: &mut EventLoop) {
    if client.try_disconnect().is_ok() {
        let _ = timeout(Duration::from_secs(2), async {
            while !matches!(mqtt.poll().await, Err(_) | Ok(Mqtt::Outgoing(Outgoing::Disconnect))) {}
        })
        .await;
    }
}

fn end_of(error: &ConnectionError) -> End {
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::NotAuthorized
            | ConnectReturnCode::Banned
            | ConnectReturnCode::ClientIdentifierNotValid => End::Final(Error::Denied(format!("{code:?}"))),
            other => End::Broken(Error::Unreachable(format!("{other:?}"))),
        },
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => match reason_code {
            DisconnectReasonCode::SessionTakenOver => End::Final(Error::TakenOver),
            DisconnectReasonCode::NotAuthorized => {
                End::Final(Error::Denied(reason_string.clone().unwrap_or_else(|| "not authorized any more".into())))
            }
            other => End::Broken(Error::Unreachable(format!("the server ended the connection: {other:?}"))),
        },
        other => End::Broken(Error::Unreachable(other.to_string())),
    }
}

/// The random part of a UUID is random enough to spread reconnects.
fn random() -> u32 {
    let [.., a, b, c, d] = uuid::Uuid::now_v7().into_bytes();
    u32::from_be_bytes([a, b, c, d])
}
