//! Groups: what is typed to change one, and what is told of a change, in words. Pure.

use natter_client::groups::{self, Change};

/// How the name of a group's chat begins.
const PREFIX: &str = "g:";
/// Ranges of messages whose counts are kept for a chat; the oldest go.
pub(super) const COUNTS_MAX: usize = 256;

/// Whether a chat is a group's.
pub(super) fn is_group(chat: &str) -> bool {
    chat.starts_with(PREFIX)
}

/// What `/group` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    New {
        subject: String,
        users: Vec<String>,
    },
    Add(Vec<String>),
    Remove(Vec<String>),
    Promote(Vec<String>),
    Demote(Vec<String>),
    Leave,
    /// Calls it something else.
    Name(String),
    /// Shows who is in it.
    Info,
}

impl Act {
    /// Reads what stands behind `/group`.
    ///
    /// # Errors
    /// Expected and got, as text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let users = || {
            let users: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
            if users.is_empty() { Err(format!("/group {word}: expected users")) } else { Ok(users) }
        };
        Ok(match word {
            "new" => {
                let (subject, users) = quoted(rest).ok_or("/group new: expected a name, and users behind it")?;
                Self::New { subject, users: users.split_whitespace().map(str::to_owned).collect() }
            }
            "add" => Self::Add(users()?),
            "remove" => Self::Remove(users()?),
            "promote" => Self::Promote(users()?),
            "demote" => Self::Demote(users()?),
            "leave" => Self::Leave,
            "name" if rest.is_empty() => return Err("/group name: expected what it is to be called".into()),
            "name" => Self::Name(rest.to_owned()),
            "info" => Self::Info,
            _ => return Err("/group: expected new, add, remove, promote, demote, leave, name or info".into()),
        })
    }
}

/// The first word, or what stands between the first two quotation marks; and the rest.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (first, rest) = match text.strip_prefix('"') {
        Some(open) => open.split_once('"')?,
        None => text.split_once(char::is_whitespace).unwrap_or((text, "")),
    };
    (!first.is_empty()).then(|| (first.to_owned(), rest))
}

/// How many members have a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) delivered_to: u64,
    pub(super) read_by: u64,
    pub(super) of: u64,
}

impl From<groups::Counts> for Counts {
    fn from(counts: groups::Counts) -> Self {
        Self { delivered_to: counts.delivered_to, read_by: counts.read_by, of: counts.of }
    }
}

/// A change in words: `alice added carol`.
pub(super) fn words(by: &str, change: &Change) -> String {
    let listed = |users: &[String]| users.join(", ");
    let admins = |users: &[String]| if users.len() == 1 { "an admin" } else { "admins" };
    match change {
        Change::Created { subject, users, .. } if users.is_empty() => format!("{by} made the group {subject}"),
        Change::Created { subject, users, .. } => format!("{by} made the group {subject} with {}", listed(users)),
        Change::Added { users, .. } if *users == [by] => format!("{by} joined by the invite link"),
        Change::Added { users, .. } => format!("{by} added {}", listed(users)),
        Change::Removed { users } if *users == [by] => format!("{by} left"),
        Change::Removed { users } => format!("{by} removed {}", listed(users)),
        Change::AdminAdded { users } => format!("{by} made {} {}", listed(users), admins(users)),
        Change::AdminRemoved { users } => format!("{by} ended that {} may change the group", listed(users)),
        Change::Changed { subject: Some(subject), .. } => format!("{by} calls the group {subject}"),
        Change::Changed { description: Some(text), .. } if text.is_empty() => {
            format!("{by} took the description away")
        }
        Change::Changed { description: Some(text), .. } => format!("{by} says what the group is for: {text}"),
        _ => format!("{by} changed something that this terminal does not know"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_typed_is_read() {
        let new = |subject: &str, users: &[&str]| Ok(Act::New { subject: subject.into(), users: names(users) });
        assert_eq!(Act::parse("new Trip bob  carol"), new("Trip", &["bob", "carol"]));
        assert_eq!(Act::parse(r#"new "Trip to Crete" bob"#), new("Trip to Crete", &["bob"]));
        assert_eq!(Act::parse("new Trip"), new("Trip", &[]));
        assert_eq!(Act::parse("add bob carol"), Ok(Act::Add(names(&["bob", "carol"]))));
        assert_eq!(Act::parse("remove bob"), Ok(Act::Remove(names(&["bob"]))));
        assert_eq!(Act::parse("promote bob"), Ok(Act::Promote(names(&["bob"]))));
        assert_eq!(Act::parse("demote bob"), Ok(Act::Demote(names(&["bob"]))));
        assert_eq!(Act::parse("name Trip to Crete"), Ok(Act::Name("Trip to Crete".into())));
        assert_eq!((Act::parse("leave"), Act::parse("info")), (Ok(Act::Leave), Ok(Act::Info)));
        for bad in ["", "new", r#"new "open"#, "add", "remove ", "name", "dance"] {
            let error = Act::parse(bad).unwrap_err();
            assert!(error.starts_with("/group") && error.contains("expected"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_change_is_told_in_words() {
        let of = |by: &str, change: Change| words(by, &change);
        let (carol, both) = (names(&["carol"]), names(&["carol", "dave"]));
        let added = |users: &[String]| Change::Added { users: users.to_vec(), subject: None };
        assert_eq!(of("alice", added(&carol)), "alice added carol");
        assert_eq!(of("carol", added(&carol)), "carol joined by the invite link");
        assert_eq!(of("alice", Change::Removed { users: both.clone() }), "alice removed carol, dave");
        assert_eq!(of("carol", Change::Removed { users: carol.clone() }), "carol left");
        assert_eq!(of("alice", Change::AdminAdded { users: carol }), "alice made carol an admin");
        assert_eq!(of("alice", Change::AdminAdded { users: both.clone() }), "alice made carol, dave admins");
        let made = Change::Created { subject: "Trip".into(), description: None, users: both };
        assert_eq!(of("alice", made), "alice made the group Trip with carol, dave");
        let changed = |subject: Option<&str>, description: Option<&str>| Change::Changed {
            subject: subject.map(str::to_owned),
            description: description.map(str::to_owned),
        };
        assert_eq!(of("alice", changed(Some("Crete"), None)), "alice calls the group Crete");
        assert_eq!(of("alice", changed(None, Some(""))), "alice took the description away");
        assert!(of("alice", Change::Other(serde_json::Value::Null)).contains("does not know"));
    }
}
