//! What becomes of a CONNECT: who it is, what it asks for, what it is granted. Pure; the token is judged by [`Accounts`].

use std::time::Duration;

use bytes::Bytes;
use natter_protocol::accounts::{Accounts, Denied, Grant, Scope};
use natter_protocol::entry::assigned_client_id;
use natter_protocol::ids::{ConnectionId, DeviceId, HTTP_DEVICE, UserId, WEBHOOK_DEVICE};
use natter_protocol::link::{Dialect, Opening};
use natter_protocol::outbox::PAYLOAD_BYTES_MAX;
use natter_protocol::topic::{Topic, TopicKind};

use crate::config::Config;
use crate::packet::{Connect, Version, Welcome};
use crate::validate::{CLIENT_ID_BYTES_MAX, PACKET_BYTES_MAX};

/// A CONNECT that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) version: Version,
    pub(crate) grant: Grant,
    /// What the bridge is told.
    pub(crate) opening: Opening,
    pub(crate) will: Option<Will>,
    pub(crate) keep_alive: Duration,
    /// The longest session expiry that is granted, by DISCONNECT too.
    pub(crate) expiry_secs_max: u32,
    /// CONNACK, but for Session Present.
    pub(crate) welcome: Welcome,
}

/// What is published when the connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    pub(crate) device: DeviceId,
    pub(crate) payload: Bytes,
    /// MQTT 5's Will Delay Interval, in seconds.
    pub(crate) delay_secs: u32,
}

/// A CONNECT that is answered by a refusal: the return code of 3.1.1 or the reason of 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) version: Version,
    pub(crate) code: u8,
    /// The token was not one of ours, or another's: it may be a guess. One that was good once is none.
    pub(crate) is_guess: bool,
}

impl Refused {
    /// Refused for another reason than its token: the code of 3.1.1, and that of 5.
    pub(crate) fn new(version: Version, v3: u8, v5: u8) -> Self {
        let code = match version {
            Version::V3 => v3,
            Version::V5 => v5,
        };
        Self { version, code, is_guess: false }
    }
}

/// Decides about `connect`; `now` is in Unix seconds.
pub(crate) fn decide(
    connect: Connect,
    connection: ConnectionId,
    accounts: &dyn Accounts,
    now: u64,
    config: &Config,
) -> Result<Accepted, Refused> {
    let asked = Asked::from(connect);
    let refuse = |v3: u8, v5: u8| Refused::new(asked.version, v3, v5);
    let bad = || Refused { is_guess: true, ..refuse(4, 0x86) };
    // [MQTT-4.12.0-1]: no method is offered.
    if asked.has_auth_method {
        return Err(refuse(5, 0x8c));
    }
    let grant = match (&asked.user_name, &asked.password, &config.anonymous_as) {
        (None, None, Some(user)) => anonymous(user, now),
        (Some(user), Some(token), _) => {
            let user = UserId::parse(user).map_err(|_| bad())?;
            accounts.verify(&user, token, Scope::Mqtt, now).map_err(|denied| match denied {
                Denied::Bad => bad(),
                Denied::Expired | Denied::Revoked => refuse(4, 0x86),
                Denied::OtherUser | Denied::OtherScope => Refused { is_guess: true, ..refuse(5, 0x87) },
            })?
        }
        _ => return Err(bad()),
    };
    let user = grant.user.clone();
    if asked.client_id.len() > CLIENT_ID_BYTES_MAX {
        return Err(refuse(2, 0x85));
    }
    let expiry_secs = asked.expiry_secs.min(config.session_expiry_secs_max());
    let will = match asked.will {
        Some(will) => Some(will.check(asked.version, &grant, expiry_secs).map_err(|(v3, v5)| refuse(v3, v5))?),
        None => None,
    };

    let is_named = !asked.client_id.is_empty();
    let client_id = if is_named { asked.client_id } else { assigned_client_id(&user, connection) };
    let keep_alive_secs = match asked.keep_alive_secs {
        0 => config.keep_alive_secs_max(),
        secs => secs.min(config.keep_alive_secs_max()),
    };
    Ok(Accepted {
        version: asked.version,
        welcome: Welcome {
            session_present: false,
            receive_maximum: config.receive_maximum,
            packet_bytes_max: u32::try_from(PACKET_BYTES_MAX).unwrap_or(u32::MAX),
            expiry_secs: (expiry_secs != asked.expiry_secs).then_some(expiry_secs),
            client_id: (!is_named).then(|| client_id.clone()),
            keep_alive_secs: (keep_alive_secs != asked.keep_alive_secs).then_some(keep_alive_secs),
            epoch: config.epoch,
        },
        opening: Opening {
            client_id,
            clean_start: asked.clean_start,
            expiry_secs,
            dialect: asked.dialect,
            receive_maximum: asked.receive_maximum,
            packet_bytes_max: asked.packet_bytes_max,
            device: grant.device.clone(),
            issued_at: grant.issued_at,
        },
        grant,
        will,
        keep_alive: Duration::from_secs(keep_alive_secs.into()),
        expiry_secs_max: config.session_expiry_secs_max(),
    })
}

/// What a client may do that shows neither user name nor password: what `user` may, on any device, without end.
fn anonymous(user: &UserId, now: u64) -> Grant {
    Grant { user: user.clone(), device: None, expires_at: u64::MAX, jti: String::new(), issued_at: now }
}

/// The device of an outbox or inbox that a client of `grant` may name, or what it would have to be.
pub(crate) fn own_device(topic: &str, kind: TopicKind, user: &UserId, bound: Option<&DeviceId>) -> Option<DeviceId> {
    let topic = Topic::parse(topic)?;
    let is_own = topic.user == *user
        && topic.kind == kind
        && ![HTTP_DEVICE, WEBHOOK_DEVICE].contains(&topic.device.as_str())
        && bound.is_none_or(|bound| topic.device == *bound);
    is_own.then_some(topic.device)
}

/// A CONNECT in the words of both versions.
struct Asked {
    version: Version,
    client_id: String,
    user_name: Option<String>,
    password: Option<Bytes>,
    has_auth_method: bool,
    clean_start: bool,
    expiry_secs: u32,
    keep_alive_secs: u16,
    dialect: Dialect,
    receive_maximum: u16,
    packet_bytes_max: u32,
    will: Option<AskedWill>,
}

struct AskedWill {
    topic: String,
    payload: Bytes,
    retain: bool,
    delay_secs: u32,
}

impl From<Connect> for Asked {
    fn from(connect: Connect) -> Self {
        match connect {
            Connect::V3(connect) => Self {
                version: Version::V3,
                client_id: connect.client_id.to_string(),
                user_name: connect.username.map(|name| name.to_string()),
                password: connect.password,
                has_auth_method: false,
                clean_start: connect.clean_session,
                // As long as the server keeps sessions.
                expiry_secs: if connect.clean_session { 0 } else { u32::MAX },
                keep_alive_secs: connect.keep_alive,
                dialect: Dialect::Bare,
                receive_maximum: u16::MAX,
                packet_bytes_max: u32::MAX,
                will: connect.last_will.map(|will| AskedWill {
                    topic: will.topic.to_string(),
                    payload: will.message,
                    // On 3.1.1 the flag is ignored.
                    retain: false,
                    delay_secs: 0,
                }),
            },
            Connect::V5(connect) => Self {
                version: Version::V5,
                client_id: connect.client_id.to_string(),
                user_name: connect.username.map(|name| name.to_string()),
                password: connect.password,
                has_auth_method: connect.auth_method.is_some(),
                clean_start: connect.clean_start,
                expiry_secs: connect.session_expiry_interval_secs,
                keep_alive_secs: connect.keep_alive,
                dialect: if connect.request_problem_info { Dialect::Full } else { Dialect::Bare },
                receive_maximum: connect.receive_max.map_or(u16::MAX, std::num::NonZeroU16::get),
                packet_bytes_max: connect.max_packet_size.map_or(u32::MAX, std::num::NonZeroU32::get),
                will: connect.last_will.map(|will| AskedWill {
                    topic: will.topic.to_string(),
                    payload: will.message,
                    retain: will.retain,
                    delay_secs: will.will_delay_interval_sec.unwrap_or(0),
                }),
            },
        }
    }
}

impl AskedWill {
    /// A will is a PUBLISH to the own outbox, or CONNECT is refused with these codes.
    fn check(self, version: Version, grant: &Grant, expiry_secs: u32) -> Result<Will, (u8, u8)> {
        if self.retain && version == Version::V5 {
            return Err((5, 0x9a));
        }
        let device = own_device(&self.topic, TopicKind::Outbox, &grant.user, grant.device.as_ref()).ok_or((5, 0x87))?;
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            return Err((5, 0x97));
        }
        // The copy lets go of the rest of the packet. A will is due at the end of the session at the latest (3.1.3.2.2).
        let payload = Bytes::copy_from_slice(&self.payload);
        Ok(Will { device, payload, delay_secs: self.delay_secs.min(expiry_secs) })
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::accounts::{Denied, RevocationListener};
    use rmqtt_codec::{v3, v5};

    use super::*;

    struct OnePassword;

    impl Accounts for OnePassword {
        fn verify(&self, user: &UserId, token: &[u8], _: Scope, now: u64) -> Result<Grant, Denied> {
            let device = match token {
                b"good" => None,
                b"bound" => DeviceId::parse("phone").ok(),
                b"expired" => return Err(Denied::Expired),
                b"revoked" => return Err(Denied::Revoked),
                b"other" => return Err(Denied::OtherUser),
                b"http" => return Err(Denied::OtherScope),
                _ => return Err(Denied::Bad),
            };
            Ok(Grant { user: user.clone(), device, expires_at: now + 60, jti: "j".into(), issued_at: now })
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

    fn v3(user: &str, token: &'static str) -> v3::Connect {
        v3::Connect {
            client_id: "c".into(),
            clean_session: true,
            keep_alive: 60,
            username: Some(user.into()),
            password: Some(Bytes::from_static(token.as_bytes())),
            ..Default::default()
        }
    }

    fn v5(user: &str, token: &'static str) -> v5::Connect {
        v5::Connect {
            client_id: "c".into(),
            clean_start: true,
            keep_alive: 60,
            username: Some(user.into()),
            password: Some(Bytes::from_static(token.as_bytes())),
            ..Default::default()
        }
    }

    fn decide_v3(connect: v3::Connect) -> Result<Accepted, u8> {
        let id = ConnectionId { boot: 1, n: 2 };
        decide(Connect::V3(Box::new(connect)), id, &OnePassword, 1000, &Config::default()).map_err(|r| r.code)
    }

    fn decide_v5(connect: v5::Connect) -> Result<Accepted, u8> {
        let id = ConnectionId { boot: 1, n: 2 };
        decide(Connect::V5(Box::new(connect)), id, &OnePassword, 1000, &Config::default()).map_err(|r| r.code)
    }

    #[test]
    fn tokens_are_judged() {
        for (user, token, code3, code5) in [
            ("alice", "bad", 4, 0x86),
            ("alice", "expired", 4, 0x86),
            ("alice", "revoked", 4, 0x86),
            ("alice", "other", 5, 0x87),
            ("alice", "http", 5, 0x87),
            ("Not A User", "good", 4, 0x86),
            ("system", "good", 4, 0x86),
        ] {
            assert_eq!(decide_v3(v3(user, token)).unwrap_err(), code3, "{user} {token}");
            assert_eq!(decide_v5(v5(user, token)).unwrap_err(), code5, "{user} {token}");
        }
        assert_eq!(decide_v3(v3::Connect { password: None, ..v3("alice", "good") }).unwrap_err(), 4);
        assert_eq!(decide_v3(v3::Connect { username: None, ..v3("alice", "good") }).unwrap_err(), 4);
        assert!(decide_v3(v3("alice", "good")).is_ok());
        let method = v5::Connect { auth_method: Some("SCRAM".into()), ..v5("alice", "good") };
        assert_eq!(decide_v5(method).unwrap_err(), 0x8c);
    }

    #[test]
    fn client_ids_are_given_and_bounded() {
        let accepted = decide_v5(v5::Connect { client_id: "".into(), ..v5("alice", "good") }).unwrap();
        assert_eq!(accepted.opening.client_id, "alice-auto-1-2");
        assert_eq!(accepted.welcome.client_id.as_deref(), Some("alice-auto-1-2"));
        let accepted = decide_v5(v5("alice", "good")).unwrap();
        assert_eq!((accepted.opening.client_id.as_str(), accepted.welcome.client_id), ("c", None));
        let long = "é".repeat(129);
        assert_eq!(decide_v3(v3::Connect { client_id: long.clone().into(), ..v3("alice", "good") }).unwrap_err(), 2);
        assert_eq!(decide_v5(v5::Connect { client_id: long.into(), ..v5("alice", "good") }).unwrap_err(), 0x85);
    }

    #[test]
    fn sessions_and_keepalives_are_capped_and_told() {
        let accepted = decide_v3(v3::Connect { clean_session: false, keep_alive: 0, ..v3("alice", "good") }).unwrap();
        assert_eq!(accepted.opening.expiry_secs, 30 * 24 * 3600);
        assert_eq!(accepted.keep_alive, Duration::from_secs(1200));
        let asked = v5::Connect { session_expiry_interval_secs: u32::MAX, keep_alive: 0xffff, ..v5("alice", "good") };
        let accepted = decide_v5(asked).unwrap();
        assert_eq!(accepted.welcome.expiry_secs, Some(30 * 24 * 3600));
        assert_eq!(accepted.welcome.keep_alive_secs, Some(1200));
        let accepted = decide_v5(v5::Connect { session_expiry_interval_secs: 9, ..v5("alice", "good") }).unwrap();
        assert_eq!((accepted.welcome.expiry_secs, accepted.welcome.keep_alive_secs), (None, None));
        assert_eq!(accepted.opening.expiry_secs, 9);
    }

    #[test]
    fn wills_go_to_the_own_outbox_only() {
        let will = |topic: &str| v3::LastWill {
            qos: rmqtt_codec::types::QoS::ExactlyOnce,
            retain: true,
            topic: topic.into(),
            message: Bytes::from_static(b"{}"),
        };
        for (token, topic, is_legal) in [
            ("good", "users/alice/phone/outbox", true),
            ("good", "users/alice/laptop/outbox", true),
            ("bound", "users/alice/phone/outbox", true),
            ("bound", "users/alice/laptop/outbox", false),
            ("good", "users/alice/http/outbox", false),
            ("good", "users/alice/phone/inbox", false),
            ("good", "users/bob/phone/outbox", false),
            ("good", "été/x", false),
        ] {
            let result = decide_v3(v3::Connect { last_will: Some(will(topic)), ..v3("alice", token) });
            assert_eq!(result.map(|_| ()), if is_legal { Ok(()) } else { Err(5) }, "{token} {topic}");
        }
        let will = |retain, delay| v5::LastWill {
            qos: rmqtt_codec::types::QoS::AtLeastOnce,
            retain,
            topic: "users/alice/phone/outbox".into(),
            message: Bytes::from_static(b"{}"),
            will_delay_interval_sec: Some(delay),
            correlation_data: None,
            message_expiry_interval: None,
            content_type: None,
            user_properties: Vec::new(),
            is_utf8_payload: None,
            response_topic: None,
        };
        let connect = |retain, expiry| v5::Connect {
            last_will: Some(will(retain, 100)),
            session_expiry_interval_secs: expiry,
            ..v5("alice", "good")
        };
        assert_eq!(decide_v5(connect(true, 0)).unwrap_err(), 0x9a);
        assert_eq!(decide_v5(connect(false, 10)).unwrap().will.unwrap().delay_secs, 10);
        assert_eq!(decide_v5(connect(false, 0)).unwrap().will.unwrap().delay_secs, 0);
    }
}
