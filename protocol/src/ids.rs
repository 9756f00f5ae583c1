//! Names and numbers: every identifier that crosses the wire, as a type with its grammar (wire.md section 1).
//!
//! Text identifiers are cheap to clone (`Arc<str>`), compare by bytes and are only ever made by parsing, so that a value of one of these
//! types is proof of its grammar.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest user, device, message or group id, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The user name nobody may have: the server's own.
pub const SYSTEM_USER: &str = "system";
/// The device name of the HTTP API; refused to MQTT clients.
pub const HTTP_DEVICE: &str = "http";
/// The device name of a user's webhook; refused to MQTT clients.
pub const WEBHOOK_DEVICE: &str = "webhook";
/// The chat that statuses are sent to.
pub const STATUS_BROADCAST: &str = "status@broadcast";

/// A text that does not follow the grammar of the name it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, got {got:?}")]
pub struct NameError {
    /// Which name was parsed, as `user` or `device`.
    pub what: &'static str,
    /// The grammar, as wire.md states it.
    pub expected: &'static str,
    /// What came, cut to 80 characters.
    pub got: String,
}

fn name_error(what: &'static str, expected: &'static str, got: &str) -> NameError {
    NameError { what, expected, got: got.chars().take(80).collect() }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses `text`.
            ///
            /// # Errors
            /// [`NameError`] when `text` does not follow the grammar.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(Arc::from(text))) } else { Err(name_error($what, $expected, text)) }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

fn within(text: &str, first: fn(u8) -> bool, rest: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match bytes.split_first() {
        Some((head, tail)) => bytes.len() <= NAME_BYTES_MAX && first(*head) && tail.iter().all(|b| rest(*b)),
        None => false,
    }
}

fn lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

name!(
    /// An account, usually a phone number in E.164 digits.
    UserId, "user", "[a-z0-9][a-z0-9._-]{0,63}, not \"system\"",
    |text| text != SYSTEM_USER && within(text, lower_or_digit, |b| lower_or_digit(b) || matches!(b, b'.' | b'_' | b'-'))
);

name!(
    /// One installation of a user. `http` is the HTTP API's own device.
    DeviceId, "device", "[A-Za-z0-9_-]{1,64}",
    |text| within(text, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'), |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
);

fn message_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-')
}

name!(
    /// The name of a message, made by its sender and unique per sender for the dedupe window.
    MessageId, "message id", "[A-Za-z0-9_.:-]{1,64}",
    |text| within(text, message_byte, message_byte)
);

name!(
    /// The name of a group, without the `g:` that marks it as a chat.
    GroupId, "group", "[A-Za-z0-9_-]{1,64}",
    |text| within(text, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'), |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
);

name!(
    /// The name of an uploaded file.
    MediaId, "media id", "16 to 19 decimal digits",
    |text| (16..=19).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
);

impl UserId {
    /// Parses the `to` of a message: as [`UserId::parse`], and a leading `+` keeps the digits only, so `+49 (151) 23` is `4915123`.
    ///
    /// # Errors
    /// [`NameError`] when what is left does not follow the grammar.
    pub fn parse_recipient(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix('+') {
            Some(number) => {
                let digits: String = number.chars().filter(char::is_ascii_digit).collect();
                Self::parse(&digits).map_err(|e| name_error(e.what, e.expected, text))
            }
            None => Self::parse(text),
        }
    }

    /// The slot of the name space this user lives in.
    #[must_use]
    pub fn slot(&self) -> Slot {
        Slot::of(&self.0)
    }
}

impl DeviceId {
    /// The HTTP API's device.
    #[must_use]
    pub fn http() -> Self {
        Self(Arc::from(HTTP_DEVICE))
    }

    /// The device that a user's webhook is.
    #[must_use]
    pub fn webhook() -> Self {
        Self(Arc::from(WEBHOOK_DEVICE))
    }
}

impl MessageId {
    /// The id of a message that came without one: the text of the UUID that the door stamped on it.
    #[must_use]
    pub fn from_stamp(stamp: u128) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(36);
        for (i, byte) in stamp.to_be_bytes().into_iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
        Self(Arc::from(text))
    }
}

/// A conversation as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chat {
    /// The conversation with that user; with oneself too.
    Direct(UserId),
    /// A group, `g:{group}` on the wire.
    Group(GroupId),
    /// Statuses, `status@broadcast` on the wire.
    Status,
}

impl Chat {
    /// Parses the wire form: a user (with `+` too), `g:{group}` or `status@broadcast`.
    ///
    /// # Errors
    /// [`NameError`] when it is none of these.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == STATUS_BROADCAST {
            Ok(Self::Status)
        } else if let Some(group) = text.strip_prefix("g:") {
            GroupId::parse(group).map(Self::Group)
        } else {
            UserId::parse_recipient(text).map(Self::Direct)
        }
    }
}

impl fmt::Display for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(user) => f.write_str(user.as_str()),
            Self::Group(group) => write!(f, "g:{group}"),
            Self::Status => f.write_str(STATUS_BROADCAST),
        }
    }
}

/// Which 256th part of the name space a user or group lives in: the first byte of the SHA-256 of its name.
///
/// It stands in every change that the store keeps, so that parts can live in different loops one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u8);

impl Slot {
    /// The slot of a name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(Sha256::digest(name.as_bytes())[0])
    }
}

/// A connection of a client to a door: the door's start and a count. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ConnectionId {
    /// Which start of which door.
    pub boot: u32,
    /// Which connection of it, from 1.
    pub n: u64,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.boot, self.n)
    }
}

/// A position in a user's inbox: strictly rising from 1, never reused.
pub type Seq = u64;
/// The number of a message in its chat: dense from 1, given in commit order.
pub type N = u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_grammar() {
        for good in ["alice", "4915112345678", "a.b_c-d", "0"] {
            assert_eq!(UserId::parse(good).map(|u| u.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "system", "Alice", "-a", "a/b", "a+", "é", "a b", &"a".repeat(65)] {
            assert!(UserId::parse(bad).is_err(), "{bad:?} must be refused");
        }
        assert_eq!(UserId::parse_recipient("+49 (151) 23").map(|u| u.to_string()), Ok("4915123".to_owned()));
        assert!(UserId::parse_recipient("+").is_err());
        assert!(DeviceId::parse("Phone_1-x").is_ok() && DeviceId::parse("a.b").is_err());
        assert!(MessageId::parse("a:b.c_d-E").is_ok() && MessageId::parse("a/b").is_err());
        assert!(MediaId::parse("1234567890123456").is_ok() && MediaId::parse("123456789012345").is_err());
    }

    #[test]
    fn chats_read_back_as_written() {
        for text in ["bob", "g:42", "status@broadcast"] {
            assert_eq!(Chat::parse(text).map(|c| c.to_string()), Ok(text.to_owned()));
        }
        assert!(Chat::parse("g:").is_err() && Chat::parse("status@x").is_err());
    }

    #[test]
    fn a_stamp_is_written_as_a_uuid() {
        let id = MessageId::from_stamp(0x0191_e4a0_1b2c_7def_8123_4567_89ab_cdef);
        assert_eq!(id.as_str(), "0191e4a0-1b2c-7def-8123-456789abcdef");
    }
}
