//! Groups: the commands that change one, and what its members see of a change.
//!
//! A change is a message of the group's chat, of type `system`: it has an `id` of its sender's (a repeat is answered as the first time), an
//! `n`, and a place in the inbox of every member, so all members see one history.

use sha2::{Digest, Sha256};

use crate::error::{Kind, Refusal};
use crate::ids::{Chat, GroupId, MessageId, UserId};
use crate::json::{Json, write_string};

/// Members a group, its admins among them.
pub const MEMBERS_MAX: usize = 1024;
/// Most users that one command names.
pub const USERS_A_COMMAND_MAX: usize = 256;
/// Most characters of a subject; it has one at least.
pub const SUBJECT_CHARS_MAX: usize = 100;
/// Most characters of a description; an empty one takes it away.
pub const DESCRIPTION_CHARS_MAX: usize = 2048;
/// Fewest characters of a group id that a client makes: it must not be guessed. A UUID will do.
pub const CHOSEN_ID_MIN: usize = 16;

/// A command: `{"group":"add","chat":"g:42","users":["carol"],"id":".."}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The sender's name for it, as that of a message.
    pub id: Option<MessageId>,
    /// What is to be done.
    pub act: Act,
    /// Of everything parsed but the id, as [`crate::outbox::Message::hash`].
    pub hash: [u8; 16],
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// `create`: a group with this subject, of the sender, who is its admin, and these users.
    Create {
        /// The name that the sender made for it (`chat`), if he did; else the server makes one.
        group: Option<GroupId>,
        /// What it is called.
        subject: String,
        /// What it is for.
        description: Option<String>,
        /// Who is in it from the beginning.
        users: Vec<UserId>,
    },
    /// `add`: these users are members.
    Add(GroupId, Vec<UserId>),
    /// `remove`: these users are none any more.
    Remove(GroupId, Vec<UserId>),
    /// `leave`: the sender is none any more.
    Leave(GroupId),
    /// `promote`: these members are admins.
    Promote(GroupId, Vec<UserId>),
    /// `demote`: these members are no admins any more.
    Demote(GroupId, Vec<UserId>),
    /// `change`: another subject, another description, or both.
    Change {
        /// Of which group.
        group: GroupId,
        /// The new one.
        subject: Option<String>,
        /// The new one; empty: none.
        description: Option<String>,
    },
    /// `join`: by the code of an invite link.
    Join(String),
}

/// What members see of a change: the object behind `"system":`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System<'a> {
    /// `group_created`: with its first members beside its maker.
    Created {
        /// What it is called.
        subject: &'a str,
        /// What it is for.
        description: Option<&'a str>,
        /// Its members, without its maker.
        users: &'a [UserId],
    },
    /// `group_user_added`: by an admin, or by himself with an invite link.
    UserAdded {
        /// Who.
        users: &'a [UserId],
        /// What the group is called: whom it is new to knows nothing of it yet.
        subject: &'a str,
    },
    /// `group_user_removed`: by an admin, or by himself.
    UserRemoved(&'a [UserId]),
    /// `group_admin_added`.
    AdminAdded(&'a [UserId]),
    /// `group_admin_removed`.
    AdminRemoved(&'a [UserId]),
    /// `group_changed`: what is new of it.
    Changed {
        /// Its new subject.
        subject: Option<&'a str>,
        /// Its new description; empty: none.
        description: Option<&'a str>,
    },
}

impl System<'_> {
    /// The body of the message that says it: `"type":"system","system":{"type":"group_user_added","user":"carol","by":"alice"}`. One user is
    /// `user`, several are `users`.
    #[must_use]
    pub fn body(&self, by: &UserId) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(b"\"type\":\"system\",\"system\":{\"type\":\"");
        let (name, users): (_, &[UserId]) = match self {
            Self::Created { users, .. } => ("group_created", users),
            Self::UserAdded { users, .. } => ("group_user_added", users),
            Self::UserRemoved(users) => ("group_user_removed", users),
            Self::AdminAdded(users) => ("group_admin_added", users),
            Self::AdminRemoved(users) => ("group_admin_removed", users),
            Self::Changed { .. } => ("group_changed", &[]),
        };
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
        match users {
            [] => {}
            [user] => write_text(&mut out, "user", user.as_str()),
            users => {
                out.extend_from_slice(b",\"users\":[");
                for (i, user) in users.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_string(&mut out, user.as_str());
                }
                out.push(b']');
            }
        }
        let (subject, description) = match self {
            Self::Created { subject, description, .. } => (Some(*subject), *description),
            Self::UserAdded { subject, .. } => (Some(*subject), None),
            Self::Changed { subject, description } => (*subject, *description),
            Self::UserRemoved(_) | Self::AdminAdded(_) | Self::AdminRemoved(_) => (None, None),
        };
        for (name, text) in [("subject", subject), ("description", description), ("by", Some(by.as_str()))] {
            if let Some(text) = text {
                write_text(&mut out, name, text);
            }
        }
        out.push(b'}');
        out
    }
}

fn write_text(out: &mut Vec<u8>, name: &str, text: &str) {
    out.push(b',');
    write_string(out, name);
    out.push(b':');
    write_string(out, text);
}

/// Reads a command: an object with `group`.
///
/// # Errors
/// A [`Refusal`] that names the member, what it must be and what came.
pub fn parse(tree: &Json<'_>, id: Option<MessageId>) -> Result<Command, Refusal> {
    let words = "create, add, remove, leave, promote, demote, change or join";
    let act = match tree.get("group") {
        Some(Json::String(name)) => match name.as_ref() {
            "create" => Act::Create {
                group: chosen(tree)?,
                subject: text(tree, "subject", 1, SUBJECT_CHARS_MAX)?
                    .ok_or_else(|| malformed("subject", "what the group is called", None))?,
                description: text(tree, "description", 0, DESCRIPTION_CHARS_MAX)?,
                users: users(tree, 0)?,
            },
            "add" => Act::Add(group(tree)?, users(tree, 1)?),
            "remove" => Act::Remove(group(tree)?, users(tree, 1)?),
            "leave" => Act::Leave(group(tree)?),
            "promote" => Act::Promote(group(tree)?, users(tree, 1)?),
            "demote" => Act::Demote(group(tree)?, users(tree, 1)?),
            "change" => {
                let subject = text(tree, "subject", 1, SUBJECT_CHARS_MAX)?;
                let description = text(tree, "description", 0, DESCRIPTION_CHARS_MAX)?;
                if subject.is_none() && description.is_none() {
                    return Err(malformed("subject", "a new subject or description", None));
                }
                Act::Change { group: group(tree)?, subject, description }
            }
            "join" => match tree.get("invite") {
                Some(Json::String(invite)) => Act::Join(invite_code(invite)?),
                other => return Err(malformed("invite", "the code of an invite link", other)),
            },
            _ => return Err(Refusal::new(Kind::InvalidValue, format!("group: expected {words}, got another string"))),
        },
        other => return Err(malformed("group", words, other)),
    };
    let hash = hash(&act);
    Ok(Command { id, act, hash })
}

/// How an invite link begins; its code stands behind.
pub const INVITE_LINK: &str = "natter:join/";
/// Most bytes of an invite code.
const INVITE_BYTES_MAX: usize = 64;

/// The code of an invite link, which may come with the link around it.
fn invite_code(text: &str) -> Result<String, Refusal> {
    let code = text.strip_prefix(INVITE_LINK).unwrap_or(text);
    let is_code = (1..=INVITE_BYTES_MAX).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if is_code {
        return Ok(code.to_owned());
    }
    let details = format!("invite: expected {INVITE_LINK} and a code, or the code, got another string");
    Err(Refusal::new(Kind::InvalidValue, details))
}

fn group(tree: &Json<'_>) -> Result<GroupId, Refusal> {
    match tree.get("chat") {
        Some(Json::String(text)) => match Chat::parse(text) {
            Ok(Chat::Group(group)) => Ok(group),
            _ => Err(Refusal::new(Kind::InvalidValue, "chat: expected g:{group}, got another string")),
        },
        other => Err(malformed("chat", "g:{group}", other)),
    }
}

fn chosen(tree: &Json<'_>) -> Result<Option<GroupId>, Refusal> {
    if tree.get("chat").is_none() {
        return Ok(None);
    }
    let group = group(tree)?;
    if group.as_str().len() < CHOSEN_ID_MIN {
        let details = format!(
            "chat: expected g: and at least {CHOSEN_ID_MIN} characters that nobody guesses, as a UUID's, got {}",
            group.as_str().len()
        );
        return Err(Refusal::new(Kind::InvalidValue, details));
    }
    Ok(Some(group))
}

/// `users`, sorted, each once.
fn users(tree: &Json<'_>, min: usize) -> Result<Vec<UserId>, Refusal> {
    let expected = format!("{min} to {USERS_A_COMMAND_MAX} users");
    let items: &[Json<'_>] = match tree.get("users") {
        Some(Json::Array(items)) => items,
        None if min == 0 => &[],
        other => return Err(malformed("users", &expected, other)),
    };
    if !(min..=USERS_A_COMMAND_MAX).contains(&items.len()) {
        let details = format!("users: expected {expected}, got {}", items.len());
        return Err(Refusal::new(Kind::InvalidValue, details));
    }
    let mut users = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let Json::String(text) = item else { return Err(malformed(&format!("users[{i}]"), "a user", Some(item))) };
        let user = UserId::parse_recipient(text).map_err(|e| {
            Refusal::new(Kind::InvalidValue, format!("users[{i}]: expected {}, got another string", e.expected))
        })?;
        users.push(user);
    }
    users.sort();
    users.dedup();
    Ok(users)
}

fn text(tree: &Json<'_>, name: &str, min: usize, max: usize) -> Result<Option<String>, Refusal> {
    let value = match tree.get(name) {
        None => return Ok(None),
        Some(Json::String(text)) => text,
        other => return Err(malformed(name, "a string", other)),
    };
    let count = value.chars().count();
    if (min..=max).contains(&count) && !value.chars().any(|c| c.is_control() && c != '\n') {
        return Ok(Some(value.to_string()));
    }
    let details = format!("{name}: expected {min} to {max} characters, none of them a control character, got {count}");
    Err(Refusal::new(Kind::InvalidValue, details))
}

/// How the hash of a command begins, and that of a message never does: what is kept for repeats says which it was.
const HASH_START: [u8; 4] = *b"grp\0";

/// Whether a hash is a command's, and what has it a line that says what changed in a group.
#[must_use]
pub fn is_command(hash: &[u8; 16]) -> bool {
    hash.starts_with(&HASH_START)
}

fn hash(act: &Act) -> [u8; 16] {
    let mut sha = Sha256::new();
    let mut part = |text: &str| {
        sha.update(text.as_bytes());
        sha.update([0]);
    };
    let (name, group, users): (_, Option<&GroupId>, &[UserId]) = match act {
        Act::Create { group, users, .. } => ("create", group.as_ref(), users),
        Act::Add(group, users) => ("add", Some(group), users),
        Act::Remove(group, users) => ("remove", Some(group), users),
        Act::Leave(group) => ("leave", Some(group), &[]),
        Act::Promote(group, users) => ("promote", Some(group), users),
        Act::Demote(group, users) => ("demote", Some(group), users),
        Act::Change { group, .. } => ("change", Some(group), &[]),
        Act::Join(_) => ("join", None, &[]),
    };
    part("group");
    part(name);
    part(group.map_or("", GroupId::as_str));
    for user in users {
        part(user.as_str());
    }
    let (first, second) = match act {
        Act::Create { subject, description, .. } => (Some(subject), description.as_ref()),
        Act::Change { subject, description, .. } => (subject.as_ref(), description.as_ref()),
        Act::Join(code) => (Some(code), None),
        _ => (None, None),
    };
    for text in [first, second] {
        part(if text.is_some() { "1" } else { "0" });
        part(text.map_or("", String::as_str));
    }
    let digest = sha.finalize();
    std::array::from_fn(|i| HASH_START.get(i).copied().unwrap_or(digest[i]))
}

fn malformed(path: &str, expected: &str, got: Option<&Json<'_>>) -> Refusal {
    let got = got.map_or("nothing", Json::what);
    Refusal::new(Kind::Malformed, format!("{path}: expected {expected}, got {got}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Act, Refusal> {
        parse(&crate::json::parse(text.as_bytes()).unwrap(), None).map(|command| command.act)
    }

    fn names(all: &[&str]) -> Vec<UserId> {
        all.iter().map(|name| UserId::parse(name).unwrap()).collect()
    }

    #[test]
    fn commands_are_read_and_what_is_wrong_is_named() {
        let group = GroupId::parse("42").unwrap();
        let add = r#"{"group":"add","chat":"g:42","users":["dave","carol","dave"]}"#;
        assert_eq!(read(add), Ok(Act::Add(group.clone(), names(&["carol", "dave"]))));
        assert_eq!(read(r#"{"group":"leave","chat":"g:42"}"#), Ok(Act::Leave(group)));
        assert_eq!(read(r#"{"group":"join","invite":"natter:join/Ab_-9"}"#), Ok(Act::Join("Ab_-9".into())));
        let Ok(Act::Create { group: None, subject, description: None, users }) =
            read(r#"{"group":"create","subject":"Trip"}"#)
        else {
            panic!("created")
        };
        assert_eq!((subject.as_str(), users.len()), ("Trip", 0));
        for (text, names) in [
            (r#"{"group":"add","chat":"bob","users":["carol"]}"#, "chat: expected g:{group}"),
            (r#"{"group":"add","chat":"g:42","users":[]}"#, "users: expected 1 to 256"),
            (r#"{"group":"add","chat":"g:42","users":[7]}"#, "users[0]: expected a user"),
            (r#"{"group":"create","subject":""}"#, "subject: expected 1 to 100"),
            (r#"{"group":"create","subject":"x","chat":"g:short"}"#, "chat: expected g: and at least 16"),
            (r#"{"group":"change","chat":"g:42"}"#, "subject: expected a new subject or description"),
            (r#"{"group":"dance","chat":"g:42"}"#, "group: expected create, add"),
            (r#"{"group":"join","invite":"a b"}"#, "invite: expected natter:join/"),
        ] {
            let refusal = read(text).unwrap_err();
            assert!(refusal.details.starts_with(names), "{text}: {refusal}");
        }
    }

    #[test]
    fn the_same_command_has_the_same_hash_and_another_has_another() {
        let texts = [
            r#"{"group":"add","chat":"g:42","users":["carol"]}"#,
            r#"{"group":"remove","chat":"g:42","users":["carol"]}"#,
            r#"{"group":"add","chat":"g:43","users":["carol"]}"#,
            r#"{"group":"change","chat":"g:42","subject":"a"}"#,
            r#"{"group":"change","chat":"g:42","description":"a"}"#,
            r#"{"group":"change","chat":"g:42","subject":"a","description":""}"#,
        ];
        let hashes: std::collections::BTreeSet<[u8; 16]> =
            texts.iter().map(|text| hash(&read(text).unwrap())).collect();
        assert_eq!(hashes.len(), texts.len());
        assert_eq!(
            hash(&read(texts[0]).unwrap()),
            hash(&read(r#"{"users":["carol"],"group":"add","chat":"g:42"}"#).unwrap())
        );
    }

    #[test]
    fn one_user_is_user_and_several_are_users() {
        let by = UserId::parse("alice").unwrap();
        let text = |system: System<'_>| String::from_utf8(system.body(&by)).unwrap();
        assert_eq!(
            text(System::UserAdded { users: &names(&["carol"]), subject: "Trip" }),
            r#""type":"system","system":{"type":"group_user_added","user":"carol","subject":"Trip","by":"alice"}"#
        );
        assert_eq!(
            text(System::UserRemoved(&names(&["carol", "dave"]))),
            r#""type":"system","system":{"type":"group_user_removed","users":["carol","dave"],"by":"alice"}"#
        );
        assert_eq!(
            text(System::Changed { subject: None, description: Some("") }),
            r#""type":"system","system":{"type":"group_changed","description":"","by":"alice"}"#
        );
    }
}
