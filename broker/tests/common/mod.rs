//! A door with a bridge that does what a test says, and clients of raw bytes.
#![allow(dead_code, reason = "every test uses its part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use natter_broker::{Config, Door, Ends, start_router};
use natter_protocol::accounts::{Accounts, Denied, Grant, RevocationListener, Scope};
use natter_protocol::ids::UserId;
use natter_protocol::link::{Credit, Down, LinkReceiver, LinkSender, Up};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Long enough for whatever is to happen.
pub(crate) const SOON: Duration = Duration::from_secs(5);

struct Everybody;

impl Accounts for Everybody {
    fn verify(&self, user: &UserId, token: &[u8], _: Scope, now: u64) -> Result<Grant, Denied> {
        match token {
            b"expired" => Err(Denied::Expired),
            _ => {
                Ok(Grant { user: user.clone(), device: None, expires_at: now + 3600, jti: "j".into(), issued_at: now })
            }
        }
    }

    // A door never asks this.
    fn identify(&self, _: &[u8], _: Scope, _: u64) -> Result<Grant, Denied> {
        Err(Denied::Bad)
    }

    fn still_holds(&self, _: &Grant, _: u64) -> Result<(), Denied> {
        Ok(())
    }

    fn on_revocation(&self, _: RevocationListener) {}
}

/// The bridge's end of the link.
pub(crate) struct FakeBridge {
    sender: Box<dyn LinkSender>,
    receiver: Arc<Mutex<Box<dyn LinkReceiver>>>,
    taken: Credit,
}

impl FakeBridge {
    /// The next frame within `wait`; nothing is confirmed.
    pub(crate) async fn next_within(&mut self, wait: Duration) -> Option<Up> {
        let receiver = Arc::clone(&self.receiver);
        let received = tokio::task::spawn_blocking(move || receiver.lock().unwrap().receive(Instant::now() + wait));
        let (_, frame) = received.await.unwrap().unwrap()?;
        self.taken.frames += 1;
        self.taken.bytes += frame.len() as u64;
        Some(Up::decode(frame).unwrap())
    }

    pub(crate) async fn next(&mut self) -> Up {
        self.next_within(SOON).await.expect("a frame")
    }

    pub(crate) fn send(&mut self, frame: &Down) {
        self.sender.send(&mut vec![(UserId::parse("alice").ok(), frame.encode())]).unwrap();
    }

    /// Gives credit for everything received.
    pub(crate) fn confirm(&mut self) {
        let frame = Down::Took(self.taken).encode();
        self.sender.send(&mut vec![(None, frame)]).unwrap();
    }
}

/// A door on a port of its own. `start_router` is called for each: every router is its own.
pub(crate) async fn start(config: Config) -> (Door, FakeBridge, SocketAddr) {
    start_with(config, Arc::new(Everybody)).await
}

/// The same, with who may connect.
pub(crate) async fn start_with(config: Config, accounts: Arc<dyn Accounts>) -> (Door, FakeBridge, SocketAddr) {
    let Ends { door, bridge } = tokio::task::spawn_blocking(start_router).await.unwrap().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let boot = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let door = Door::start(config, listener, accounts, door, boot);
    let receiver = Arc::new(Mutex::new(bridge.receiver));
    (door, FakeBridge { sender: bridge.sender, receiver, taken: Credit::default() }, address)
}

/// A client of MQTT 5 that writes bytes.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    /// Connects, and leaves CONNACK to be read.
    pub(crate) async fn dial(address: SocketAddr, token: &str, keep_alive: u8) -> Self {
        Self::dial_with(address, token, keep_alive, 'c', true).await
    }

    /// The same with a client id; without a clean start CONNACK waits for the bridge.
    pub(crate) async fn dial_with(address: SocketAddr, token: &str, keep_alive: u8, id: char, clean: bool) -> Self {
        let mut client = Self(TcpStream::connect(address).await.unwrap());
        let mut body = b"\0\x04MQTT\x05".to_vec();
        body.extend([if clean { 0xc2 } else { 0xc0 }, 0, keep_alive, 0, 0, 1]);
        body.push(u8::try_from(id).unwrap());
        body.extend(b"\0\x05alice");
        body.extend(u16::try_from(token.len()).unwrap().to_be_bytes());
        body.extend(token.as_bytes());
        client.write(&packet(0x10, &body)).await;
        client
    }

    pub(crate) async fn connect(address: SocketAddr, keep_alive: u8) -> Self {
        Self::connect_as(address, keep_alive, 'c').await
    }

    pub(crate) async fn connect_as(address: SocketAddr, keep_alive: u8, id: char) -> Self {
        let mut client = Self::dial_with(address, "good", keep_alive, id, true).await;
        let (first, body) = client.read().await.expect("CONNACK");
        assert_eq!((first, body[1]), (0x20, 0));
        client
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next packet; `None` at the end.
    pub(crate) async fn read(&mut self) -> Option<(u8, Bytes)> {
        tokio::time::timeout(SOON, self.read_on()).await.expect("a packet or the end")
    }

    async fn read_on(&mut self) -> Option<(u8, Bytes)> {
        let first = self.0.read_u8().await.ok()?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.0.read_u8().await.ok()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.ok()?;
        Some((first, body.into()))
    }

    /// Nothing comes for a while.
    pub(crate) async fn expect_nothing(&mut self) {
        let quiet = tokio::time::timeout(Duration::from_millis(300), self.read_on()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap();
        length >>= 7;
        packet.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// A PUBLISH of MQTT 5; id 0 is QoS 0.
pub(crate) fn publish(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    if id > 0 {
        body.extend(id.to_be_bytes());
    }
    body.push(0);
    body.extend(payload);
    packet(if id > 0 { 0x32 } else { 0x30 }, &body)
}
