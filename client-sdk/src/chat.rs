//! A conversation.

use natter_protocol::{Chat as ChatName, MessageId, N};
use serde_json::{Value, json};

use crate::client::Client;
use crate::content::{MediaObject, MessageRef};
use crate::error::Error;
use crate::message::OutgoingMessage;

/// A conversation, made by [`Client::chat`]. Cheap to clone.
///
/// Every `send_*` returns when the message is in the client's store, and waits for no server: [`OutgoingMessage::sent`] does. A message is at
/// most 60 KiB of JSON. They fail with [`Error::Invalid`] (a bad name, a value out of its range, too much text), [`Error::OutboxFull`],
/// [`Error::Store`] and [`Error::Closed`].
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), natter_client::Error> {
/// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
/// let bob = client.chat("bob");
/// let message = bob.send_text("hi").await?;
/// assert_eq!(message.chat(), "bob");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Chat {
    client: Client,
    name: String,
    context: Option<MessageRef>,
}

impl Chat {
    pub(crate) fn new(client: Client, name: &str) -> Self {
        Self { client, name: name.to_owned(), context: None }
    }

    /// Its name: the other user's, `g:{group}` or `status@broadcast`.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// assert_eq!(client.chat("bob").name(), "bob");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This chat, in which everything that is sent answers `message`.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
    /// let chat = client.chat("bob");
    /// let question = chat.send_text("tea or coffee?").await?;
    /// chat.reply(&question).send_text("I mean now").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn reply(&self, message: impl Into<MessageRef>) -> Self {
        Self { context: Some(message.into()), ..self.clone() }
    }

    /// Sends words.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let message = client.chat("bob").send_text("hi").await?;
    /// assert_eq!(message.progress().tick, natter_client::Tick::Queued); // on the disk; one tick when the server has it
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chat`] says.
    pub async fn send_text(&self, body: impl AsRef<str> + Send) -> Result<OutgoingMessage, Error> {
        self.send(json!({"type": "text", "text": {"body": body.as_ref()}})).await
    }

    /// Sends a point on the earth, in degrees: -90 to 90 and -180 to 180. `name` as "Paris", with `send` an address too.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.chat("bob").send_location(48.85, 2.35, Some("Paris")).await?;
    /// assert!(client.chat("bob").send_location(91.0, 0.0, None).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chat`] says.
    pub async fn send_location(
        &self,
        latitude: f64,
        longitude: f64,
        name: Option<&str>,
    ) -> Result<OutgoingMessage, Error> {
        let mut location = json!({"latitude": latitude, "longitude": longitude});
        if let Some(name) = name {
            location["name"] = name.into();
        }
        self.send(json!({"type": "location", "location": location})).await
    }

    /// Sends contact cards in the Cloud API's shape: `[{"name":{"formatted_name":"Ann"},"phones":[{"phone":"+331","type":"CELL"}]}]`.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let ann = serde_json::json!({"name": {"formatted_name": "Ann"}, "phones": [{"phone": "+331", "type": "CELL"}]});
    /// client.chat("bob").send_contacts(vec![ann]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chat`] says.
    pub async fn send_contacts(&self, contacts: Vec<Value>) -> Result<OutgoingMessage, Error> {
        self.send(json!({"type": "contacts", "contacts": contacts})).await
    }

    /// Sends a picture (its file at most 16 MiB).
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = client.media().upload("us.jpg").await?;
    /// client.chat("bob").send_image(natter_client::MediaObject::new(&file.id).caption("us")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chat`] says.
    pub async fn send_image(&self, image: impl Into<MediaObject> + Send) -> Result<OutgoingMessage, Error> {
        self.send_media("image", image.into()).await
    }

    /// Sends sound (at most 16 MiB).
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = client.media().upload("hello.ogg").await?;
    /// client.chat("bob").send_audio(natter_client::MediaObject::new(&file.id).voice().duration(3)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chat`] says.
    pub async fn send_audio(&self, audio: impl Into<MediaObject> + Send) -> Result<OutgoingMessage, Error> {
        self.send_media("audio", audio.into()).await
    }

    /// Sends a film (at most 16 MiB).
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = client.media().upload("waves.mp4").await?;
    /// client.chat("bob").send_video(&file).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chat`] says.
    pub async fn send_video(&self, video: impl Into<MediaObject> + Send) -> Result<OutgoingMessage, Error> {
        self.send_media("video", video.into()).await
    }

    /// Sends a sticker (WebP, at most 16 MiB).
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = client.media().upload("cat.webp").await?;
    /// client.chat("bob").send_sticker(&file).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chat`] says.
    pub async fn send_sticker(&self, sticker: impl Into<MediaObject> + Send) -> Result<OutgoingMessage, Error> {
        self.send_media("sticker", sticker.into()).await
    }

    /// Sends any file (at most 100 MiB).
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = client.media().upload("plan.pdf").await?;
    /// client.chat("bob").send_document(natter_client::MediaObject::new(&file.id).filename("Our plan.pdf")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chat`] says.
    pub async fn send_document(&self, document: impl Into<MediaObject> + Send) -> Result<OutgoingMessage, Error> {
        self.send_media("document", document.into()).await
    }

    async fn send_media(&self, kind: &str, object: MediaObject) -> Result<OutgoingMessage, Error> {
        self.send(json!({"type": kind, kind: object.0})).await
    }

    /// Puts an emoji on a message; an empty one takes it back.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client, message: natter_client::IncomingMessage) -> Result<(), natter_client::Error> {
    /// client.chat("bob").react(&message, "\u{1f44d}").await?;
    /// client.chat("bob").react(&message, "").await?; // taken back
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chat`] says.
    pub async fn react(&self, message: impl Into<MessageRef> + Send, emoji: &str) -> Result<OutgoingMessage, Error> {
        let mut reaction = reference(&message.into());
        reaction["emoji"] = emoji.into();
        self.send(json!({"type": "reaction", "reaction": reaction})).await
    }

    /// Sends a message object of wire.md section 3. `to` and, unless it has one, `id` are added here. The same object with the same id is
    /// one message, however often it is sent.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let message = client.chat("bob").send(serde_json::json!({"type": "text", "text": {"body": "hi"}, "id": "order-17"})).await?;
    /// assert_eq!(message.id(), "order-17"); // sent twice, it is one message
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chat`] says.
    pub async fn send(&self, mut message: Value) -> Result<OutgoingMessage, Error> {
        let to = self.parse()?.to_string();
        let Some(members) = message.as_object_mut() else {
            return Err(Error::Invalid("message: expected an object".into()));
        };
        members.insert("to".into(), to.clone().into());
        let id = members.entry("id").or_insert_with(|| uuid::Uuid::now_v7().to_string().into());
        let id = id.as_str().ok_or_else(|| Error::Invalid("id: expected a string".into()))?;
        let id = MessageId::parse(id).map_err(|error| Error::Invalid(error.to_string()))?.to_string();
        if let Some(context) = &self.context {
            members.entry("context").or_insert_with(|| reference(context));
        }
        self.client.send_message(id, Some(to), &message).await
    }

    /// Says that everything up to number `n` is read. On the disk when it returns; sent when there is a connection.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.chat("bob").mark_read(17).await?; // everything up to number 17
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chat`] says. A refusal comes as [`crate::Event::Failed`].
    pub async fn mark_read(&self, n: N) -> Result<(), Error> {
        let chat = self.parse()?.to_string();
        self.client.command(&json!({"status": "read", "chat": chat, "n": n})).await
    }

    /// Shows the other side that this user types. Live: without a connection it is dropped.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.chat("bob").typing().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, [`Error::Closed`].
    pub async fn typing(&self) -> Result<(), Error> {
        let chat = self.parse()?.to_string();
        self.client.live(json!({"status": "typing", "chat": chat})).await
    }

    /// From now on, over reconnects, [`crate::Event::Presence`] tells how the other user is, at once and when he comes and goes, as far as he
    /// shows it to this user and this user to him. At most 256 chats a client; one more tells nothing.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
    /// let mut events = client.events();
    /// client.chat("bob").watch_presence().await?;
    /// while let Some(event) = events.next().await {
    ///     if let natter_client::Event::Presence(presence) = event {
    ///         println!("{} is {}", presence.from, if presence.available { "here" } else { "away" });
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, [`Error::Closed`].
    pub async fn watch_presence(&self) -> Result<(), Error> {
        self.client.watch(self.parse()?.to_string(), true).await
    }

    /// Ends [`Chat::watch_presence`].
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.chat("bob").watch_presence().await?;
    /// client.chat("bob").unwatch_presence().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As there.
    pub async fn unwatch_presence(&self) -> Result<(), Error> {
        self.client.watch(self.parse()?.to_string(), false).await
    }

    fn parse(&self) -> Result<ChatName, Error> {
        ChatName::parse(&self.name).map_err(|error| Error::Invalid(error.to_string()))
    }
}

fn reference(message: &MessageRef) -> Value {
    let mut reference = json!({"message_id": message.id});
    if let Some(from) = &message.from {
        reference["from"] = from.as_str().into();
    }
    reference
}
