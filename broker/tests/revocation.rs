//! A token that is revoked while its client is connected, or after it has left a will; security test S41.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Client, FakeBridge, packet, start_with};
use natter_broker::Config;
use natter_protocol::accounts::{Accounts, Denied, Grant, Revocation, RevocationListener, Scope};
use natter_protocol::ids::{ConnectionId, DeviceId, UserId};
use natter_protocol::link::{Down, Up};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// The token is the `jti`, and whatever is behind a colon the device that it is bound to.
#[derive(Default)]
struct Revocable {
    listeners: Mutex<Vec<RevocationListener>>,
}

impl Revocable {
    fn revoke(&self, revocation: &Revocation) {
        self.listeners.lock().unwrap().iter().for_each(|listener| listener(revocation));
    }
}

impl Accounts for Revocable {
    fn verify(&self, user: &UserId, token: &[u8], _: Scope, now: u64) -> Result<Grant, Denied> {
        let token = std::str::from_utf8(token).map_err(|_| Denied::Bad)?;
        let (jti, device) = token.split_once(':').unwrap_or((token, ""));
        let device = DeviceId::parse(device).ok();
        Ok(Grant { user: user.clone(), device, expires_at: now + 3600, jti: jti.into(), issued_at: now })
    }

    // A door never asks this.
    fn identify(&self, _: &[u8], _: Scope, _: u64) -> Result<Grant, Denied> {
        Err(Denied::Bad)
    }

    fn still_holds(&self, _: &Grant, _: u64) -> Result<(), Denied> {
        Ok(())
    }

    fn on_revocation(&self, listener: RevocationListener) {
        self.listeners.lock().unwrap().push(listener);
    }
}

fn token(jti: &str) -> Revocation {
    Revocation::Token { user: UserId::parse("alice").unwrap(), jti: jti.into() }
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

/// A CONNECT of alice with a will: MQTT 5 with a session of a minute and this will delay, or 3.1.1 with a clean session.
fn connect(v5: bool, client_id: &str, token: &str, delay_secs: u8) -> Vec<u8> {
    let mut body = text("MQTT");
    if v5 {
        body.extend([5, 0xc4, 0, 60, 5, 0x11, 0, 0, 0, 60]);
    } else {
        body.extend([4, 0xc6, 0, 60]);
    }
    body.extend(text(client_id));
    if v5 {
        body.extend([5, 0x18, 0, 0, 0, delay_secs]);
    }
    for part in ["users/alice/phone/outbox", "{}", "alice", token] {
        body.extend(text(part));
    }
    packet(0x10, &body)
}

struct Stage {
    accounts: Arc<Revocable>,
    bridge: FakeBridge,
    address: std::net::SocketAddr,
    _door: natter_broker::Door,
}

impl Stage {
    async fn new() -> Self {
        let accounts = Arc::new(Revocable::default());
        let (door, bridge, address) = start_with(Config::default(), accounts.clone()).await;
        Self { accounts, bridge, address, _door: door }
    }

    /// Sends CONNECT and waits until the bridge has heard of it; on MQTT 5 CONNACK waits for the bridge.
    async fn dial(&mut self, bytes: &[u8]) -> (Client, ConnectionId) {
        let mut client = Client(TcpStream::connect(self.address).await.unwrap());
        client.write(bytes).await;
        match self.bridge.next().await {
            Up::Open(connection, _) => (client, connection),
            other => panic!("expected an open, got {other:?}"),
        }
    }

    async fn open(&mut self, v5: bool, client_id: &str, token: &str, delay_secs: u8) -> (Client, ConnectionId) {
        let (mut client, connection) = self.dial(&connect(v5, client_id, token, delay_secs)).await;
        if v5 {
            self.bridge.send(&Down::Opened { connection, session_present: true, device: None, held: Vec::new() });
        }
        let (kind, body) = client.read().await.expect("CONNACK");
        assert_eq!((kind, body[1]), (0x20, 0));
        (client, connection)
    }

    /// The next frame up is the close of that connection: no will before it.
    async fn closes(&mut self, connection: ConnectionId) {
        let up = self.bridge.next().await;
        assert!(matches!(up, Up::Close { connection: got, .. } if got == connection), "{up:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s41_a_revocation_ends_connections_and_their_wills() {
    let mut stage = Stage::new().await;
    let revocations = [
        ("one", token("one")),
        (
            "two:phone",
            Revocation::Device {
                user: UserId::parse("alice").unwrap(),
                device: DeviceId::parse("phone").unwrap(),
                before: u64::MAX,
            },
        ),
        ("three", Revocation::User { user: UserId::parse("alice").unwrap(), before: u64::MAX }),
    ];
    for (jti, revocation) in revocations {
        for v5 in [true, false] {
            let (mut client, connection) = stage.open(v5, "revoked", jti, 0).await;
            stage.accounts.revoke(&revocation);
            if v5 {
                let (kind, body) = client.read().await.expect("a DISCONNECT");
                assert_eq!((kind, body[0]), (0xe0, 0x87), "{jti}");
            }
            assert!(client.read().await.is_none(), "{jti}, MQTT 5: {v5}");
            stage.closes(connection).await;
        }
    }
    // Another token's connection is untouched, and its will is published.
    let (mut other, connection) = stage.open(true, "other", "four", 0).await;
    stage.accounts.revoke(&token("one"));
    other.write(&packet(0xc0, b"")).await;
    assert_eq!(other.read().await.expect("PINGRESP").0, 0xd0);
    drop(other);
    assert!(matches!(stage.bridge.next().await, Up::Publish(will) if will.will && will.connection == connection));
    stage.closes(connection).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s41_a_revocation_takes_back_a_will_that_waits() {
    let mut stage = Stage::new().await;
    for (jti, is_published) in [("revoked", false), ("kept", true)] {
        let (mut client, connection) = stage.open(true, jti, jti, 1).await;
        client.0.shutdown().await.unwrap();
        stage.closes(connection).await;
        assert!(client.read().await.is_none(), "the connection is done, and its will waits");
        stage.accounts.revoke(&token("revoked"));
        let up = stage.bridge.next_within(Duration::from_secs(3)).await;
        assert_eq!(matches!(up, Some(Up::Publish(will)) if will.will), is_published, "{jti}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s41_a_revocation_while_a_connection_ends_takes_its_will_back() {
    let mut stage = Stage::new().await;
    for _ in 0..20 {
        let (client, connection) = stage.open(true, "revoked", "revoked", 1).await;
        drop(client);
        stage.closes(connection).await;
        stage.accounts.revoke(&token("revoked"));
        let up = stage.bridge.next_within(Duration::from_millis(1500)).await;
        assert!(up.is_none(), "{up:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_before_connack_is_told_by_connack() {
    let mut stage = Stage::new().await;
    let (mut client, connection) = stage.dial(&connect(true, "early", "early", 0)).await;
    stage.accounts.revoke(&token("early"));
    let (kind, body) = client.read().await.expect("CONNACK");
    assert_eq!((kind, body[0], body[1]), (0x20, 0, 0x87));
    assert!(client.read().await.is_none());
    stage.closes(connection).await;
}
