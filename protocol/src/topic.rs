//! The only place where topics are spelled: what clients see, and what the router in the process carries.

use std::fmt;

use crate::ids::{DeviceId, SYSTEM_USER, UserId};

/// The filter under which the bridge takes in everything from the doors.
pub const UP_FILTER: &str = "users/+/up";
/// The filter under which a door takes in everything from the bridge.
pub const DOWN_FILTER: &str = "users/+/down";

/// A topic that a client may name: `users/{user}/{device}/outbox` or `users/{user}/{device}/inbox`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Whose.
    pub user: UserId,
    /// Which device's.
    pub device: DeviceId,
    /// What for.
    pub kind: TopicKind,
}

/// The two topics of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicKind {
    /// The device publishes here.
    Outbox,
    /// The device subscribes here.
    Inbox,
}

impl Topic {
    /// Parses a topic or a filter; wildcards, `$share` and everything else that is not one of the two is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut levels = text.split('/');
        let ("users", user, device, kind, None) =
            (levels.next()?, levels.next()?, levels.next()?, levels.next()?, levels.next())
        else {
            return None;
        };
        let kind = match kind {
            "outbox" => TopicKind::Outbox,
            "inbox" => TopicKind::Inbox,
            _ => return None,
        };
        Some(Self { user: UserId::parse(user).ok()?, device: DeviceId::parse(device).ok()?, kind })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            TopicKind::Outbox => "outbox",
            TopicKind::Inbox => "inbox",
        };
        write!(f, "users/{}/{}/{kind}", self.user, self.device)
    }
}

/// The topic of a device's outbox.
#[must_use]
pub fn outbox(user: &UserId, device: &DeviceId) -> String {
    Topic { user: user.clone(), device: device.clone(), kind: TopicKind::Outbox }.to_string()
}

/// The topic of a device's inbox.
#[must_use]
pub fn inbox(user: &UserId, device: &DeviceId) -> String {
    Topic { user: user.clone(), device: device.clone(), kind: TopicKind::Inbox }.to_string()
}

/// Which way a frame goes over the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a door to the bridge.
    Up,
    /// From the bridge to a door.
    Down,
}

impl Direction {
    /// The filter that takes in this direction.
    #[must_use]
    pub fn filter(self) -> &'static str {
        match self {
            Self::Up => UP_FILTER,
            Self::Down => DOWN_FILTER,
        }
    }

    /// The topic of frames about `user`; `None` is the link's own business (credit, wake-ups).
    ///
    /// It is ASCII by construction: a topic that starts with another letter would end the router's thread.
    #[must_use]
    pub fn topic(self, user: Option<&UserId>) -> String {
        let user = user.map_or(SYSTEM_USER, UserId::as_str);
        match self {
            Self::Up => format!("users/{user}/up"),
            Self::Down => format!("users/{user}/down"),
        }
    }

    /// The user of a topic that [`Direction::topic`] made: `Ok(None)` for the link's own, `Err` for a topic that is none of ours.
    ///
    /// # Errors
    /// The topic, when this direction has no such topic.
    pub fn user(self, topic: &str) -> Result<Option<&str>, &str> {
        let suffix = match self {
            Self::Up => "/up",
            Self::Down => "/down",
        };
        match topic.strip_prefix("users/").and_then(|rest| rest.strip_suffix(suffix)) {
            Some(SYSTEM_USER) => Ok(None),
            Some(user) => Ok(Some(user)),
            None => Err(topic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_topics_of_a_device_parse() {
        let topic = Topic::parse("users/alice/phone/outbox").expect("an outbox");
        assert_eq!((topic.user.as_str(), topic.device.as_str(), topic.kind), ("alice", "phone", TopicKind::Outbox));
        assert_eq!(topic.to_string(), "users/alice/phone/outbox");
        for bad in [
            "",
            "#",
            "+",
            "users/alice/phone",
            "users/alice/phone/outbox/",
            "/users/alice/phone/outbox",
            "users/+/phone/inbox",
            "users/alice/+/inbox",
            "users/alice/#",
            "$share/g/users/alice/phone/inbox",
            "users/Alice/phone/inbox",
            "users/alice/phone/INBOX",
            "users/system/x/inbox",
            "users//phone/inbox",
            "users/alice%2f/phone/inbox",
            "élan/alice/x/inbox",
        ] {
            assert_eq!(Topic::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn link_topics_name_their_user() {
        let alice = UserId::parse("alice").expect("a user");
        assert_eq!(Direction::Up.topic(Some(&alice)), "users/alice/up");
        assert_eq!(Direction::Up.user("users/alice/up"), Ok(Some("alice")));
        assert_eq!(Direction::Down.user(&Direction::Down.topic(None)), Ok(None));
        assert!(Direction::Down.user("users/alice/up").is_err());
    }
}
