//! A change of a group, as its members hear of it. Pure.

use natter_protocol::entry::Entry;
use natter_protocol::{N, Seq};
use serde_json::Value;

/// A change of a group, in its chat: it has a number there as a message has, and all members get it at the same place.
///
/// ```no_run
/// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
/// use natter_client::Event;
/// use natter_client::groups::Change;
///
/// while let Some(event) = events.next().await {
///     let Event::Group(change) = event else { continue };
///     match &change.what {
///         Change::Created { subject, .. } => println!("{} made {subject}", change.by),
///         Change::Added { users, .. } => println!("{} added {}", change.by, users.join(", ")),
///         Change::Removed { users } if users.contains(&change.by) => println!("{} left", change.by),
///         Change::Removed { users } => println!("{} removed {}", change.by, users.join(", ")),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GroupChange {
    /// Its position in this user's inbox.
    pub seq: Seq,
    /// The chat, `g:` and more.
    pub chat: String,
    /// Its number in the chat.
    pub n: N,
    /// Its id; that of the [`crate::OutgoingMessage`] at the device that asked for it.
    pub id: Option<String>,
    /// Who did it.
    pub by: String,
    /// Unix seconds of the commit.
    pub timestamp: u64,
    /// What is new.
    pub what: Change,
}

/// What is new of a group.
///
/// ```
/// use natter_client::groups::Change;
///
/// let words = |by: &str, change: &Change| match change {
///     Change::Changed { subject: Some(subject), .. } => format!("{by} calls it {subject}"),
///     other => format!("{by}: {other:?}"),
/// };
/// assert_eq!(words("alice", &Change::Changed { subject: Some("Trip".into()), description: None }), "alice calls it Trip");
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// It was made, with these members beside its maker.
    Created {
        /// What it is called.
        subject: String,
        /// What it is for.
        description: Option<String>,
        /// Its first members, without its maker.
        users: Vec<String>,
    },
    /// These are members. By one of them alone: he joined with an invite link.
    Added {
        /// Who.
        users: Vec<String>,
        /// What the group is called: it is new to them.
        subject: Option<String>,
    },
    /// These are no members any more. By one of them alone: he left.
    Removed {
        /// Who.
        users: Vec<String>,
    },
    /// These are admins.
    AdminAdded {
        /// Who.
        users: Vec<String>,
    },
    /// These are no admins any more.
    AdminRemoved {
        /// Who.
        users: Vec<String>,
    },
    /// It is called something else, or is for something else.
    Changed {
        /// Its new subject.
        subject: Option<String>,
        /// Its new description; empty: none.
        description: Option<String>,
    },
    /// What later versions add: the `system` object of wire.md section 5.
    Other(Value),
}

impl GroupChange {
    /// Of an entry of type `system`; nothing, if it lacks what each has.
    pub(crate) fn of_entry(entry: &Entry) -> Option<Self> {
        let system = entry.rest.get("system")?;
        let by = system.get("by").and_then(Value::as_str).or_else(|| entry.from_user())?;
        Some(Self {
            seq: entry.seq?,
            chat: entry.chat.clone()?,
            n: entry.n?,
            id: entry.id.clone(),
            by: by.to_owned(),
            timestamp: entry.timestamp.as_deref().and_then(|secs| secs.parse().ok()).unwrap_or(0),
            what: Change::of_object(system),
        })
    }
}

impl Change {
    /// Reads the `system` object of wire.md section 5.
    fn of_object(system: &Value) -> Self {
        let text = |name: &str| system.get(name).and_then(Value::as_str).map(str::to_owned);
        let several = system.get("users").and_then(Value::as_array).into_iter().flatten();
        let users: Vec<String> =
            text("user").into_iter().chain(several.filter_map(Value::as_str).map(str::to_owned)).collect();
        match (system.get("type").and_then(Value::as_str), text("subject")) {
            (Some("group_created"), Some(subject)) => {
                Self::Created { subject, description: text("description"), users }
            }
            (Some("group_user_added"), subject) if !users.is_empty() => Self::Added { users, subject },
            (Some("group_user_removed"), _) if !users.is_empty() => Self::Removed { users },
            (Some("group_admin_added"), _) if !users.is_empty() => Self::AdminAdded { users },
            (Some("group_admin_removed"), _) if !users.is_empty() => Self::AdminRemoved { users },
            (Some("group_changed"), subject) => Self::Changed { subject, description: text("description") },
            _ => Self::Other(system.clone()),
        }
    }

    /// What the group is called since, where that is told.
    ///
    /// ```
    /// use natter_client::groups::Change;
    ///
    /// let change = Change::Added { users: vec!["carol".into()], subject: Some("Trip".into()) };
    /// assert_eq!(change.subject(), Some("Trip"));
    /// ```
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Created { subject, .. } => Some(subject),
            Self::Added { subject, .. } | Self::Changed { subject, .. } => subject.as_deref(),
            Self::Removed { .. } | Self::AdminAdded { .. } | Self::AdminRemoved { .. } | Self::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::UserId;
    use natter_protocol::group::System;
    use serde_json::json;

    use super::*;

    /// What the server writes, as it writes it.
    fn told(system: System<'_>) -> Change {
        let by = UserId::parse("alice").expect("a name");
        let body = [
            b"{\"seq\":9,\"chat\":\"g:42\",\"n\":3,\"from\":\"alice\",\"id\":\"x\",\"timestamp\":\"5\",",
            system.body(&by).as_slice(),
            b"}",
        ]
        .concat();
        let change = GroupChange::of_entry(&Entry::parse(&body).expect("an entry")).expect("a change");
        assert_eq!((change.seq, change.n, change.by.as_str(), change.timestamp), (9, 3, "alice", 5));
        change.what
    }

    #[test]
    fn every_change_that_the_server_writes_is_read() {
        let names: Vec<UserId> = ["bob", "carol"].iter().map(|name| UserId::parse(name).expect("a name")).collect();
        let users: Vec<String> = names.iter().map(ToString::to_string).collect();
        let trip = || Some("Trip".to_owned());
        assert_eq!(
            told(System::Created { subject: "Trip", description: Some("May"), users: &names }),
            Change::Created { subject: "Trip".into(), description: Some("May".into()), users: users.clone() }
        );
        assert_eq!(
            told(System::UserAdded { users: &names[1..], subject: "Trip" }),
            Change::Added { users: users[1..].to_vec(), subject: trip() }
        );
        assert_eq!(told(System::UserRemoved(&names)), Change::Removed { users: users.clone() });
        assert_eq!(told(System::AdminAdded(&names)), Change::AdminAdded { users: users.clone() });
        assert_eq!(told(System::AdminRemoved(&names)), Change::AdminRemoved { users });
        assert_eq!(
            told(System::Changed { subject: Some("Trip"), description: Some("") }),
            Change::Changed { subject: trip(), description: Some(String::new()) }
        );
    }

    #[test]
    fn what_is_not_known_is_kept_as_it_came() {
        let strange = json!({"type": "group_frozen", "by": "alice"});
        assert_eq!(Change::of_object(&strange), Change::Other(strange.clone()));
        let without = json!({"type": "group_user_added", "by": "alice"});
        assert_eq!(Change::of_object(&without), Change::Other(without.clone()));
    }
}
