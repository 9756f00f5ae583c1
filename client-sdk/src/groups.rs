//! Groups: a chat of up to 1,024 members, who all see one history.
//!
//! A group is changed as a message is sent: the change is in the client's store when the call returns, goes out in the order of sending,
//! and is made once however often it is sent. The call returns the [`OutgoingMessage`] of it: [`OutgoingMessage::sent`] says that the
//! server made the change, or why not (not an admin, not a member, no such user, no room). A message that is sent to a group right after
//! [`Client::create_group`] arrives behind the creation.
//!
//! What changes, every member hears as [`crate::Event::Group`], on every device, with a number of its own in the chat; the device that
//! asked for it too. A message has two ticks when all members have it, and blue ones when all have read it; how many have,
//! [`Counts`] in a [`crate::Receipt`] says.
//!
//! With the feature `http` a group can be looked at: its members, who of them has read a message, its invite link.

#[cfg(feature = "http")]
mod ask;
mod change;
mod counts;
#[cfg(feature = "http")]
mod error;

use natter_protocol::{Chat as ChatName, MessageId};
use serde_json::{Value, json};

#[cfg(feature = "http")]
pub use ask::{GroupInfo, Member, MemberTicks, Summary};
pub use change::{Change, GroupChange};
pub use counts::Counts;
#[cfg(feature = "http")]
pub use error::GroupError;

use crate::chat::Chat;
use crate::client::Client;
use crate::error::Error;
use crate::message::OutgoingMessage;

/// A group, made by [`Client::create_group`] or [`Client::group`]. Cheap to clone.
///
/// Every change returns when it is in the client's store, and waits for no server: [`OutgoingMessage::sent`] does. They fail with
/// [`Error::Invalid`] (a bad name, too many users, too much text), [`Error::OutboxFull`], [`Error::Store`] and [`Error::Closed`].
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), natter_client::Error> {
/// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
/// let trip = client.create_group("Trip", &["bob", "carol"]).await?;
/// trip.chat().send_text("who drives?").await?; // arrives behind the creation
/// trip.add(&["dave"]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    client: Client,
    name: String,
}

impl Group {
    /// Its name, `g:` and what was chosen at its creation.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let trip = client.create_group("Trip", &["bob"]).await?;
    /// assert!(trip.name().starts_with("g:"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its chat, to send into.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let message = client.create_group("Trip", &["bob"]).await?.chat().send_text("hi").await?;
    /// assert!(message.chat().starts_with("g:"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn chat(&self) -> Chat {
        self.client.chat(&self.name)
    }

    /// The creation of this group, if this device made it and remembers it (as [`Client::message`] does): `sent` says that the group is there.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let trip = client.create_group("Trip", &["bob"]).await?;
    /// assert!(trip.creation().is_some()); // waits for the server: trip.creation().unwrap().sent().await
    /// assert!(client.group("g:another").creation().is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn creation(&self) -> Option<OutgoingMessage> {
        self.client.message(self.name.strip_prefix(PREFIX)?)
    }

    /// These users, 1 to 256 of them, are members from now on; for an admin. Those who are already are left out; if all are, it is refused. A
    /// user that is not known, or that has blocked this one or is blocked by him, refuses the whole of it.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let added = client.group("g:0191f0a2c3d4e5f6").add(&["carol"]).await?;
    /// assert_eq!(added.progress().sent, None); // added.sent().await waits for the server
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Group`] says.
    pub async fn add(&self, users: &[impl AsRef<str> + Sync]) -> Result<OutgoingMessage, Error> {
        self.name_users("add", users).await
    }

    /// These members, 1 to 256 of them, are none any more; for an admin. This change is the last that they get.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.group("g:0191f0a2c3d4e5f6").remove(&["carol"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Group`] says.
    pub async fn remove(&self, users: &[impl AsRef<str> + Sync]) -> Result<OutgoingMessage, Error> {
        self.name_users("remove", users).await
    }

    /// These members are admins from now on; for an admin.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.group("g:0191f0a2c3d4e5f6").promote(&["bob"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Group`] says.
    pub async fn promote(&self, users: &[impl AsRef<str> + Sync]) -> Result<OutgoingMessage, Error> {
        self.name_users("promote", users).await
    }

    /// These admins are none any more; for an admin. The last one stays: it is refused.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.group("g:0191f0a2c3d4e5f6").demote(&["bob"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Group`] says.
    pub async fn demote(&self, users: &[impl AsRef<str> + Sync]) -> Result<OutgoingMessage, Error> {
        self.name_users("demote", users).await
    }

    /// This user is no member any more. If he was the last admin, the member who has been there for longest is admin.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.group("g:0191f0a2c3d4e5f6").leave().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Group`] says.
    pub async fn leave(&self) -> Result<OutgoingMessage, Error> {
        self.change(json!({"group": "leave"})).await
    }

    /// Calls it something else, in 1 to 100 characters; for an admin.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.group("g:0191f0a2c3d4e5f6").set_subject("Trip to Crete").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Group`] says.
    pub async fn set_subject(&self, subject: &str) -> Result<OutgoingMessage, Error> {
        self.change(json!({"group": "change", "subject": subject})).await
    }

    /// Says what it is for, in at most 2,048 characters, none to take that away; for an admin.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.group("g:0191f0a2c3d4e5f6").set_description("Two weeks in May").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Group`] says.
    pub async fn set_description(&self, description: &str) -> Result<OutgoingMessage, Error> {
        self.change(json!({"group": "change", "description": description})).await
    }

    async fn name_users(&self, what: &str, users: &[impl AsRef<str> + Sync]) -> Result<OutgoingMessage, Error> {
        self.change(json!({"group": what, "users": names(users)})).await
    }

    async fn change(&self, mut command: Value) -> Result<OutgoingMessage, Error> {
        let chat = match ChatName::parse(&self.name) {
            Ok(chat @ ChatName::Group(_)) => chat.to_string(),
            _ => return Err(Error::Invalid("group: expected g:{group}, got another string".into())),
        };
        let id = MessageId::parse(&uuid::Uuid::now_v7().to_string()).map_err(|e| Error::Invalid(e.to_string()))?;
        command["chat"] = chat.as_str().into();
        command["id"] = id.as_str().into();
        self.client.send_message(id.to_string(), Some(chat), &command).await
    }

    #[cfg(feature = "http")]
    fn client(&self) -> &Client {
        &self.client
    }
}

impl Client {
    /// Makes a group of this user, who is its admin, and of these others, at most 256. It is on the disk when this returns and its name is
    /// known: what is sent into its chat goes behind it. [`Group::creation`] says what became of it.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let trip = client.create_group("Trip", &["bob", "carol"]).await?;
    /// assert!(client.create_group("", &["bob"]).await.is_err(), "a group is called something");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Group`] says.
    pub async fn create_group(&self, subject: &str, users: &[impl AsRef<str> + Sync]) -> Result<Group, Error> {
        // One name for both: whoever knows the group finds what became of its creation, after a restart too.
        let id = uuid::Uuid::now_v7().to_string();
        let group = self.group(&format!("{PREFIX}{id}"));
        let command =
            json!({"id": id, "group": "create", "chat": group.name, "subject": subject, "users": names(users)});
        self.send_message(id, Some(group.name.clone()), &command).await?;
        Ok(group)
    }

    /// The group of that name, `g:` and more. Whether there is one, and a bad name, is said when something is asked of it.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.group("g:0191f0a2c3d4e5f6").chat().send_text("hi").await?;
    /// assert!(client.group("bob").leave().await.is_err(), "not a group");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn group(&self, name: &str) -> Group {
        Group { client: self.clone(), name: name.to_owned() }
    }

    /// Joins the group of an invite link (`natter:join/` and a code, or the code alone). Which group that is, the [`crate::Event::Group`] says
    /// that follows: [`Change::Added`], by this user.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let joined = client.join_group("natter:join/Ab3dEf9hIjKl0nOpQrStUv").await?; // joined.sent().await: whether the link is good
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Group`] says.
    pub async fn join_group(&self, invite_link: &str) -> Result<OutgoingMessage, Error> {
        let id = uuid::Uuid::now_v7().to_string();
        let command = json!({"id": id, "group": "join", "invite": invite_link});
        self.send_message(id, None, &command).await
    }
}

/// How the name of a group's chat begins.
const PREFIX: &str = "g:";

fn names(users: &[impl AsRef<str>]) -> Vec<&str> {
    users.iter().map(AsRef::as_ref).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Tick;

    async fn client() -> Client {
        Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await.expect("a client without a server")
    }

    #[tokio::test]
    async fn a_group_is_found_again_by_its_name_and_what_is_sent_to_it_goes_behind_its_creation() {
        let client = client().await;
        let trip = client.create_group("Trip", &["bob", "carol"]).await.expect("on the disk");
        let hi = trip.chat().send_text("hi").await.expect("on the disk");
        let added = trip.add(&["dave"]).await.expect("on the disk");
        let creation = client.group(trip.name()).creation().expect("the creation");
        assert_eq!((creation.chat(), creation.progress().tick), (trip.name().to_owned(), Tick::Queued));
        let keys = [&creation, &hi, &added].map(|message| message.progress().key);
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
    }

    #[tokio::test]
    async fn what_the_server_would_refuse_for_its_shape_is_refused_here() {
        let client = client().await;
        let group = client.group("g:0191f0a2c3d4e5f6");
        let many: Vec<String> = (0..257).map(|i| format!("u{i}")).collect();
        for (expected, outcome) in [
            ("users: expected 1 to 256", group.add(&[] as &[&str]).await),
            ("users: expected 1 to 256", group.remove(&many).await),
            ("users[0]", group.promote(&["NO NAME"]).await),
            ("subject: expected 1 to 100", group.set_subject("").await),
            ("description: expected 0 to 2048", group.set_description(&"x".repeat(2049)).await),
            ("group: expected g:", client.group("bob").leave().await),
            ("invite: expected natter:join/", client.join_group("https://example.org").await),
        ] {
            match outcome {
                Err(Error::Invalid(details)) => assert!(details.starts_with(expected), "{details}"),
                other => panic!("expected {expected}, got {other:?}"),
            }
        }
        assert!(client.outgoing().is_empty());
    }
}
