//! One connection: rumqttc's side of it.
//!
//! Every connection gets a fresh rumqttc event loop: what rumqttc carries over from one connection to the next (requests, packet ids,
//! collisions) is what goes wrong in it, and the core knows all that must be sent again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use natter_protocol::topic;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnectReturnCode, DisconnectReasonCode, PubAck, PubAckReason, Publish};
use rumqttc::v5::{AsyncClient, ConnectionError, EventLoop, MqttOptions, StateError};

use crate::builder::Settings;
use crate::core::{Answer, Key, WINDOW};
use crate::error::Error;
use crate::url::Scheme;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(15);
/// As the server's Maximum Packet Size.
const PACKET_BYTES_MAX: u32 = 128 * 1024;
/// Entries that are not acknowledged: the Receive Maximum towards the server.
const RECEIVE_MAX: u16 = 100;
/// Requests on their way into rumqttc: every publication, every acknowledgement, live ones, a SUBSCRIBE and a DISCONNECT.
const REQUESTS_MAX: usize = 1024;

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Try again after a while.
    Broken(Error),
    /// Entries are missing: connect again at once, the server sends from the cursor.
    Missing,
    /// The token was refused.
    Denied(Error),
    /// A newer connection has the device.
    TakenOver,
    /// Do not try again.
    Final(Error),
}

/// What a connection has been given, and under which packet ids.
pub(crate) struct Connection {
    client: AsyncClient,
    outbox: String,
    /// Given to rumqttc, which has not said their packet ids.
    handed: VecDeque<Key>,
    written: HashMap<u16, Key>,
    deliveries: HashMap<u64, Publish>,
    next_delivery: u64,
}

impl Connection {
    pub(crate) fn new(settings: &Settings, token: &str) -> Result<(Self, EventLoop), Error> {
        let (client, mqtt) = AsyncClient::new(options(settings, token)?, REQUESTS_MAX);
        let outbox = topic::outbox(&settings.user, &settings.device);
        let (handed, written, deliveries) = Default::default();
        Ok((Self { client, outbox, handed, written, deliveries, next_delivery: 0 }, mqtt))
    }

    pub(crate) fn subscribe(&self, settings: &Settings) {
        let _ = self.client.try_subscribe(topic::inbox(&settings.user, &settings.device), QoS::AtLeastOnce);
    }

    /// The queue holds more than can be unanswered, so it is full only if rumqttc stands still.
    pub(crate) fn publish(&mut self, key: Key, payload: Bytes) -> Result<(), End> {
        self.handed.push_back(key);
        let sent = self.client.try_publish(&self.outbox, QoS::AtLeastOnce, false, payload);
        sent.map_err(|_| End::Broken(Error::Unreachable("the connection takes no publications".into())))
    }

    pub(crate) fn publish_live(&self, payload: String) {
        let _ = self.client.try_publish(&self.outbox, QoS::AtMostOnce, false, payload);
    }

    /// rumqttc wrote a publication; packet id 0 is a live one.
    pub(crate) fn written(&mut self, packet_id: u16) {
        if packet_id != 0
            && let Some(key) = self.handed.pop_front()
        {
            self.written.insert(packet_id, key);
        }
    }

    pub(crate) fn answered(&mut self, ack: &PubAck) -> Option<(Key, Answer)> {
        self.written.remove(&ack.pkid).map(|key| (key, answer(ack)))
    }

    pub(crate) fn arrived(&mut self, publish: Publish) -> u64 {
        self.next_delivery += 1;
        self.deliveries.insert(self.next_delivery, publish);
        self.next_delivery
    }

    pub(crate) fn acknowledge(&mut self, delivery: u64) -> Result<(), End> {
        let Some(publish) = self.deliveries.remove(&delivery) else { return Ok(()) };
        let sent = self.client.try_ack(&publish);
        sent.map_err(|_| End::Broken(Error::Unreachable("the connection takes no acknowledgements".into())))
    }

    pub(crate) fn forget(&mut self, delivery: u64) {
        self.deliveries.remove(&delivery);
    }

    pub(crate) fn disconnect(&self) -> bool {
        self.client.try_disconnect().is_ok()
    }
}

fn options(settings: &Settings, token: &str) -> Result<MqttOptions, Error> {
    let Settings { url, user, device, .. } = settings;
    let host = match url.scheme {
        Scheme::Mqtt | Scheme::Mqtts => url.host.clone(),
        Scheme::Ws => format!("ws://{}:{}{}", url.host, url.port, url.path),
        Scheme::Wss => format!("wss://{}:{}{}", url.host, url.port, url.path),
    };
    let mut options = MqttOptions::new(format!("{user}-{device}"), host, url.port);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_MAX.as_secs());
    options
        .set_credentials(user.as_str(), token)
        .set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_manual_acks(true)
        .set_connection_timeout(CONNECT_MAX.as_secs())
        .set_receive_maximum(Some(RECEIVE_MAX))
        .set_max_packet_size(Some(PACKET_BYTES_MAX))
        // Without it rumqttc sets aside 14 MB; more than the window, so that packet ids never collide.
        .set_outgoing_inflight_upper_limit(2 * u16::try_from(WINDOW).unwrap_or(u16::MAX / 2))
        .set_network_options(network);
    match url.scheme {
        Scheme::Mqtt => {}
        #[cfg(feature = "tls")]
        Scheme::Mqtts => drop(options.set_transport(rumqttc::Transport::tls_with_config(
            rumqttc::TlsConfiguration::Rustls(crate::tls::config(settings)?),
        ))),
        #[cfg(feature = "websocket")]
        Scheme::Ws => drop(options.set_transport(rumqttc::Transport::ws())),
        #[cfg(all(feature = "tls", feature = "websocket"))]
        Scheme::Wss => drop(options.set_transport(rumqttc::Transport::wss_with_config(
            rumqttc::TlsConfiguration::Rustls(crate::tls::config(settings)?),
        ))),
        #[cfg(not(all(feature = "tls", feature = "websocket")))]
        _ => return Err(Error::Invalid("url: expected a scheme that the features of this build have".into())),
    }
    Ok(options)
}

/// Which store the server has, if it says so: Natter does, another broker does not.
pub(crate) fn epoch(ack: &ConnAck) -> Option<String> {
    let mut properties = ack.properties.iter().flat_map(|properties| &properties.user_properties);
    properties.find(|(key, _)| key == "epoch").map(|(_, value)| value.clone())
}

pub(crate) fn end_of(error: &ConnectionError) -> End {
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::NotAuthorized
            | ConnectReturnCode::Banned
            | ConnectReturnCode::ClientIdentifierNotValid => End::Denied(Error::Denied(format!("{code:?}"))),
            other => End::Broken(Error::Unreachable(format!("{other:?}"))),
        },
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => match reason_code {
            DisconnectReasonCode::SessionTakenOver => End::TakenOver,
            DisconnectReasonCode::NotAuthorized => {
                End::Denied(Error::Denied(reason_string.clone().unwrap_or_else(|| "not authorized any more".into())))
            }
            other => End::Broken(Error::Unreachable(format!("the server ended the connection: {other:?}"))),
        },
        other => End::Broken(Error::Unreachable(other.to_string())),
    }
}

fn answer(ack: &PubAck) -> Answer {
    let reason = match ack.reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => return accepted(ack),
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => 0x87,
        PubAckReason::TopicNameInvalid => 0x90,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => 0x99,
    };
    let details = ack.properties.as_ref().and_then(|p| p.reason_string.clone()).unwrap_or_default();
    Answer::Refused { reason, details }
}

fn accepted(ack: &PubAck) -> Answer {
    let get = |name: &str| {
        let properties = ack.properties.iter().flat_map(|properties| &properties.user_properties);
        properties.clone().find(|(key, _)| key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
    };
    Answer::Accepted { n: get("n"), timestamp: get("timestamp") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::v5::PubAckProperties;

    #[test]
    fn a_puback_says_where_a_message_is_or_why_it_is_none() {
        let properties = |reason_string: Option<&str>, pairs: &[(&str, &str)]| {
            let user_properties = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Some(PubAckProperties { reason_string: reason_string.map(str::to_owned), user_properties })
        };
        let ack = PubAck::new(7, properties(None, &[("id", "m1"), ("n", "3"), ("timestamp", "9")]));
        assert_eq!(answer(&ack), Answer::Accepted { n: 3, timestamp: 9 });
        let mut ack = PubAck::new(8, properties(Some("full"), &[]));
        ack.reason = PubAckReason::QuotaExceeded;
        assert_eq!(answer(&ack), Answer::Refused { reason: 0x97, details: "full".into() });
    }
}
