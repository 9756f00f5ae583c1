//! Limits and times of a door.

use std::time::Duration;

use natter_protocol::ids::UserId;

use crate::rate::Rate;

/// Limits and times of a door.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most connections at a time; one more is closed at once. Default 15,000.
    pub connections_max: usize,
    /// Most of them that have not had their CONNECT accepted; one more is closed at once. Default 8,192.
    pub handshakes_max: usize,
    /// Bytes in use above which new connections are closed, and, from an eighth more on, those end for whom the most waits. Default:
    /// three quarters of what the machine or the control group has.
    pub memory_max: Option<u64>,
    /// Most connections at a time of one address, IPv6 by /64; one more is closed at once. Default 1,000.
    pub connections_per_address_max: usize,
    /// Whether loopback counts as an address: for [`Config::connections_per_address_max`] and [`Config::auth_failure_rate`]. Default no.
    pub loopback_counts: bool,
    /// Most connections at a time of one user; one more is refused (0x97; 3). A takeover is not one more. Default 64.
    pub connections_per_user_max: usize,
    /// CONNECTs of one user, takeovers too; more are refused (0x9F; 3). Default 1,200 a minute.
    pub connect_rate: Rate,
    /// Authentications of one address that fail; then its CONNECTs are refused (0x9F; 3) before anyone looks at the token. Default 20 a
    /// minute.
    pub auth_failure_rate: Rate,
    /// CONNECTs that are decided about, from all clients: one more waits in turn, within [`Config::connect_time_max`]. When thousands come
    /// back at once, they must not take the processor from those who are there. Default 1,250 a second for each core.
    pub arrival_rate: Rate,
    /// Connections whose end is dealt with: one more waits in turn, for the same reason. Default 2,000 a second for each core.
    pub departure_rate: Rate,
    /// PUBLISHes of one user, over all connections; one that sends more is read more slowly. Default 5,000 a second.
    pub publish_rate: Rate,
    /// Packets of any kind of one connection; one that sends more is read more slowly. The PUBACK of an entry that is on its way does not
    /// count: there are no more of them than the bridge sends. Default 10,000 a second.
    pub packet_rate: Rate,
    /// Who a client is that shows neither user name nor password. Default: it is refused.
    pub anonymous_as: Option<UserId>,
    /// From accept to CONNACK, over everything in between. Default 10 s.
    pub connect_time_max: Duration,
    /// How long a packet may take to arrive once its first byte has. Default 30 s.
    pub packet_time_max: Duration,
    /// How long a client may take nothing of what is written to it. Default 20 s.
    pub write_time_max: Duration,
    /// The longest keepalive; one that is longer, or off, becomes this. At most 65,535 s. Default 20 min.
    pub keep_alive_max: Duration,
    /// QoS 1 and 2 publishes that a connection may have unanswered: CONNACK's Receive Maximum. Default 128.
    pub receive_maximum: u16,
    /// The longest session expiry that is granted. Default 30 days.
    pub session_expiry_max: Duration,
    /// Frames that wait for a connection to write them; one more closes it. At half of it live ones are dropped. Default 512.
    pub queue_frames_max: usize,
    /// Bytes that wait likewise. Default 2 MiB.
    pub queue_bytes_max: usize,
    /// The number of the store behind the door, said in CONNACK of MQTT 5 as the user property `epoch`, in 16 hexadecimal digits: a client that
    /// remembers positions of another store begins anew. Default: nothing is said.
    pub epoch: Option<u64>,
    /// How long [`Door::drain`](crate::Door::drain) waits for connections to end. Default 5 s.
    pub drain_time_max: Duration,
}

/// CONNECTs a second and core, each of which costs some 200 microseconds from accept to SUBACK: a quarter of the machine.
const ARRIVALS_PER_CORE: u32 = 1250;

/// Ends of connections a second and core, each of some 40 microseconds.
const DEPARTURES_PER_CORE: u32 = 2000;

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 15_000,
            handshakes_max: 8192,
            memory_max: None,
            connections_per_address_max: 1000,
            loopback_counts: false,
            connections_per_user_max: 64,
            connect_rate: Rate::per_minute(1200),
            arrival_rate: Rate::spread(ARRIVALS_PER_CORE.saturating_mul(cores())),
            departure_rate: Rate::spread(DEPARTURES_PER_CORE.saturating_mul(cores())),
            auth_failure_rate: Rate::per_minute(20),
            publish_rate: Rate::per_second(5000),
            packet_rate: Rate::per_second(10_000),
            anonymous_as: None,
            connect_time_max: Duration::from_secs(10),
            packet_time_max: Duration::from_secs(30),
            write_time_max: Duration::from_secs(20),
            keep_alive_max: Duration::from_secs(20 * 60),
            receive_maximum: 128,
            session_expiry_max: Duration::from_secs(30 * 24 * 60 * 60),
            queue_frames_max: 512,
            queue_bytes_max: 2 * 1024 * 1024,
            epoch: None,
            drain_time_max: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// `keep_alive_max` as CONNACK says it.
    pub(crate) fn keep_alive_secs_max(&self) -> u16 {
        u16::try_from(self.keep_alive_max.as_secs()).unwrap_or(u16::MAX).max(1)
    }

    /// `session_expiry_max` as CONNACK says it.
    pub(crate) fn session_expiry_secs_max(&self) -> u32 {
        u32::try_from(self.session_expiry_max.as_secs()).unwrap_or(u32::MAX)
    }
}
