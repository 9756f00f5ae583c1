//! What goes into messages.

use natter_protocol::MediaId;
use serde_json::{Map, Value};

use crate::event::IncomingMessage;
use crate::message::OutgoingMessage;

/// A file in a message: `client.chat("bob").send_image(MediaObject::new(&id).caption("us"))`.
///
/// The id comes from an upload. Which other members a type has, wire.md section 3 and 5 say; those it has not are ignored.
///
/// ```
/// use natter_client::{MediaId, MediaObject};
///
/// let id = MediaId::parse("1234567890123456")?;
/// let picture = MediaObject::new(&id).caption("us").size(1920, 1080);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MediaObject(pub(crate) Map<String, Value>);

impl MediaObject {
    /// A file by its id.
    ///
    /// ```
    /// use natter_client::{MediaId, MediaObject};
    ///
    /// let id = MediaId::parse("1234567890123456")?;
    /// let object = MediaObject::new(&id);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(id: &MediaId) -> Self {
        Self(Map::new()).with("id", id.as_str())
    }

    /// Words under an image, a video or a document.
    ///
    /// ```
    /// use natter_client::{MediaId, MediaObject};
    ///
    /// let id = MediaId::parse("1234567890123456")?;
    /// let object = MediaObject::new(&id).caption("us");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn caption(self, caption: &str) -> Self {
        self.with("caption", caption)
    }

    /// What a document is called.
    ///
    /// ```
    /// use natter_client::{MediaId, MediaObject};
    ///
    /// let id = MediaId::parse("1234567890123456")?;
    /// let object = MediaObject::new(&id).filename("plan.pdf");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn filename(self, name: &str) -> Self {
        self.with("filename", name)
    }

    /// Marks sound as a voice message.
    ///
    /// ```
    /// use natter_client::{MediaId, MediaObject};
    ///
    /// let id = MediaId::parse("1234567890123456")?;
    /// let object = MediaObject::new(&id).voice();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn voice(self) -> Self {
        self.with("voice", true)
    }

    /// Width and height of a picture, in pixels.
    ///
    /// ```
    /// use natter_client::{MediaId, MediaObject};
    ///
    /// let id = MediaId::parse("1234567890123456")?;
    /// let object = MediaObject::new(&id).size(1920, 1080);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn size(self, width: u32, height: u32) -> Self {
        self.with("width", width).with("height", height)
    }

    /// Seconds of sound or film.
    ///
    /// ```
    /// use natter_client::{MediaId, MediaObject};
    ///
    /// let id = MediaId::parse("1234567890123456")?;
    /// let object = MediaObject::new(&id).duration(90);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn duration(self, seconds: u32) -> Self {
        self.with("duration", seconds)
    }

    /// A small JPEG in base64, at most 3 kB, to show before the file is there.
    ///
    /// ```
    /// use natter_client::{MediaId, MediaObject};
    ///
    /// let id = MediaId::parse("1234567890123456")?;
    /// let object = MediaObject::new(&id).thumb("/9j/4AAQ");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn thumb(self, base64: &str) -> Self {
        self.with("thumb", base64)
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }
}

impl From<&MediaId> for MediaObject {
    fn from(id: &MediaId) -> Self {
        Self::new(id)
    }
}

impl From<MediaId> for MediaObject {
    fn from(id: MediaId) -> Self {
        Self::new(&id)
    }
}

/// A message that another one is about: made from an [`IncomingMessage`] or an [`OutgoingMessage`].
///
/// ```
/// let about = natter_client::MessageRef { id: "0191".into(), from: Some("bob".into()) };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRef {
    /// Its id.
    pub id: String,
    /// Its sender, without whom the id may be ambiguous.
    pub from: Option<String>,
}

impl From<&IncomingMessage> for MessageRef {
    fn from(message: &IncomingMessage) -> Self {
        Self { id: message.id.clone(), from: Some(message.from.clone()) }
    }
}

impl From<&OutgoingMessage> for MessageRef {
    fn from(message: &OutgoingMessage) -> Self {
        Self { id: message.id().to_owned(), from: Some(message.user().to_owned()) }
    }
}
