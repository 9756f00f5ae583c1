//! Files over HTTP: up from a path or from memory, down to a path, both with progress, both over broken connections.
//!
//! - [`Media`] is the handle; [`Upload`] and [`Download`] are what it starts, and are awaited
//! - `retry.rs` whether and when to try again · `progress.rs` how far it is (pure)
//! - `part.rs` the file that is not whole yet · `upload.rs`, `download.rs` the two ways

mod download;
mod error;
mod part;
mod progress;
mod retry;
mod upload;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use natter_protocol::MediaId;
use serde::Deserialize;

pub use download::{Download, Downloaded, safe_name};
pub use error::MediaError;
pub use progress::Progress;
pub use upload::Upload;

use crate::content::MediaObject;
use crate::http::{self, Base, Fixed, Http, OfClient, Tokens, base};
use crate::{Client, IncomingMessage};
use retry::Retry;

/// Most bytes of an image, audio, video or sticker: 16 MiB.
///
/// ```
/// assert_eq!(natter_client::media::MEDIA_BYTES_MAX, 16 * 1024 * 1024);
/// ```
pub const MEDIA_BYTES_MAX: u64 = 16 << 20;
/// Most bytes of a document: 100 MiB.
///
/// ```
/// assert_eq!(natter_client::media::DOCUMENT_BYTES_MAX, 100 * 1024 * 1024);
/// ```
pub const DOCUMENT_BYTES_MAX: u64 = 100 << 20;

/// What kind of message a file makes.
///
/// ```
/// use natter_client::media::MediaKind;
///
/// assert_eq!(MediaKind::of_name("us.jpg"), MediaKind::Image);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MediaKind {
    /// A picture, at most [`MEDIA_BYTES_MAX`].
    Image,
    /// Sound, at most [`MEDIA_BYTES_MAX`].
    Audio,
    /// Moving pictures, at most [`MEDIA_BYTES_MAX`].
    Video,
    /// A WebP picture, at most [`MEDIA_BYTES_MAX`].
    Sticker,
    /// Any file, at most [`DOCUMENT_BYTES_MAX`].
    Document,
}

impl MediaKind {
    /// As the wire has it, as `image`.
    ///
    /// ```
    /// assert_eq!(natter_client::media::MediaKind::Video.as_str(), "video");
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Sticker => "sticker",
            Self::Document => "document",
        }
    }

    /// The kind of that name.
    ///
    /// ```
    /// use natter_client::media::MediaKind;
    ///
    /// assert_eq!(MediaKind::parse("audio"), Some(MediaKind::Audio));
    /// assert_eq!(MediaKind::parse("text"), None);
    /// ```
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Image, Self::Audio, Self::Video, Self::Sticker, Self::Document].into_iter().find(|k| k.as_str() == name)
    }

    /// How large a file of this kind may be, in bytes.
    ///
    /// ```
    /// use natter_client::media::MediaKind;
    ///
    /// assert!(MediaKind::Image.bytes_max() < MediaKind::Document.bytes_max());
    /// ```
    #[must_use]
    pub fn bytes_max(self) -> u64 {
        if self == Self::Document { DOCUMENT_BYTES_MAX } else { MEDIA_BYTES_MAX }
    }

    /// What a file with this name usually is; a document, if its extension says nothing.
    ///
    /// ```
    /// use natter_client::media::MediaKind;
    ///
    /// assert_eq!(MediaKind::of_name("plan.pdf"), MediaKind::Document);
    /// ```
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "jpg" | "jpeg" | "png" | "gif" | "webp" => Self::Image,
            "mp3" | "ogg" | "opus" | "m4a" | "aac" | "wav" | "flac" => Self::Audio,
            "mp4" | "webm" | "mov" | "3gp" | "mkv" => Self::Video,
            _ => Self::Document,
        }
    }
}

/// A file on the server: what a message names, and what a download starts from.
///
/// ```no_run
/// # async fn example(message: natter_client::IncomingMessage) -> Result<(), natter_client::Error> {
/// if let Some(file) = message.media() {
///     println!("{:?}, {:?} bytes", file.filename, file.file_size);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MediaRef {
    /// Its id: 16 to 19 decimal digits.
    pub id: MediaId,
    /// What it is, where that is known.
    pub kind: Option<MediaKind>,
    /// Its MIME type, as its first bytes say.
    pub mime_type: Option<String>,
    /// SHA-256 of its bytes, in 64 hexadecimal digits. A download is compared with it.
    pub sha256: Option<String>,
    /// In bytes.
    pub file_size: Option<u64>,
    /// What its sender calls it. A stranger's words: no path, and no name to save it under without a look.
    pub filename: Option<String>,
}

impl MediaRef {
    /// A file of which only the id is known.
    ///
    /// ```
    /// use natter_client::MediaId;
    /// use natter_client::media::MediaRef;
    ///
    /// let file = MediaRef::new(MediaId::parse("1234567890123456")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(id: MediaId) -> Self {
        Self { id, kind: None, mime_type: None, sha256: None, file_size: None, filename: None }
    }

    /// The file of a media object of a message, as `message["image"]` has it.
    ///
    /// ```
    /// use natter_client::media::{MediaKind, MediaRef};
    ///
    /// let object = serde_json::json!({"id": "1234567890123456", "mime_type": "image/png"});
    /// assert!(MediaRef::of_object(MediaKind::Image, &object).is_some());
    /// ```
    #[must_use]
    pub fn of_object(kind: MediaKind, object: &serde_json::Value) -> Option<Self> {
        let text = |name: &str| object.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
        Some(Self {
            id: MediaId::parse(object.get("id")?.as_str()?).ok()?,
            kind: Some(kind),
            mime_type: text("mime_type"),
            sha256: text("sha256"),
            file_size: object.get("file_size").and_then(serde_json::Value::as_u64),
            filename: text("filename"),
        })
    }
}

impl Client {
    /// Files of this user, with the client's own tokens, at [`Client::http_url`]. What is wrong with that URL, the first call says.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = client.media().upload("us.jpg").await?;
    /// client.chat("bob").send_image(&file).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn media(&self) -> Media {
        Media::with_tokens(self.http_url(), Box::new(OfClient(self.clone())), self.tls())
    }
}

impl IncomingMessage {
    /// The file that it carries, for [`Media::download`]; `None` if it carries none.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client, message: natter_client::IncomingMessage) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(file) = message.media() {
    ///     client.media().download(&file, "photo.jpg").await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn media(&self) -> Option<MediaRef> {
        MediaRef::of_object(MediaKind::parse(&self.kind)?, self.object()?)
    }
}

/// A document keeps its name; other kinds have none on the wire.
impl From<&MediaRef> for MediaObject {
    fn from(file: &MediaRef) -> Self {
        match &file.filename {
            Some(name) if file.kind == Some(MediaKind::Document) => Self::new(&file.id).filename(name),
            _ => Self::new(&file.id),
        }
    }
}

/// Files of one user, over HTTP. Cheap to clone; every up- and download has a connection of its own, and they may run at the same time.
///
/// ```no_run
/// # async fn example(token: &str) -> Result<(), Box<dyn std::error::Error>> {
/// use natter_client::media::Media;
///
/// let media = Media::new("http://127.0.0.1:8080", token)?;
/// let file = media.upload("photo.jpg").on_progress(|p| println!("{} of {:?} bytes", p.done, p.total)).await?;
/// let saved = media.download(&file, "copy.jpg").await?;
/// println!("{} bytes in {}", saved.file_size, saved.path.display());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Media {
    inner: Arc<Inner>,
}

struct Inner {
    /// What is wrong with the URL is said by the first call.
    http: Result<Http, String>,
    tokens: Box<dyn Tokens>,
}

impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Media").field("base", &self.inner.http.as_ref().map(Http::base)).finish_non_exhaustive()
    }
}

/// Answers of the server.
#[derive(Debug, Deserialize)]
struct Facts {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    mime_type: Option<String>,
    sha256: Option<String>,
    file_size: Option<u64>,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Found {
    media: Vec<Facts>,
}

impl Facts {
    fn read(body: &[u8]) -> Result<MediaRef, MediaError> {
        let facts: Self = serde_json::from_slice(body).map_err(|e| MediaError::Protocol(e.to_string()))?;
        facts.into_ref()
    }

    fn into_ref(self) -> Result<MediaRef, MediaError> {
        Ok(MediaRef {
            id: MediaId::parse(&self.id).map_err(|e| MediaError::Protocol(e.to_string()))?,
            kind: self.kind.as_deref().and_then(MediaKind::parse),
            mime_type: self.mime_type,
            sha256: self.sha256,
            file_size: self.file_size,
            filename: self.name,
        })
    }
}

impl Media {
    /// Files of the user whose token that is, on the server at `url`: `http://host:port` or `https://host`.
    ///
    /// ```
    /// let media = natter_client::media::Media::new("http://127.0.0.1:8080", "token")?;
    /// assert!(natter_client::media::Media::new("ftp://host", "token").is_err());
    /// # Ok::<(), natter_client::media::MediaError>(())
    /// ```
    ///
    /// # Errors
    /// [`MediaError::Invalid`] for a URL that is none.
    pub fn new(url: &str, token: impl Into<String>) -> Result<Self, MediaError> {
        let media = Self::with_tokens(url, Box::new(Fixed(token.into())), None);
        media.http()?;
        Ok(media)
    }

    /// With tokens that change, and with other authorities than those of the system.
    fn with_tokens(url: &str, tokens: Box<dyn Tokens>, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        let http =
            Base::parse(url).map(|base| Http::new(base, tls)).map_err(|error| MediaError::from(error).to_string());
        Self { inner: Arc::new(Inner { http, tokens }) }
    }

    fn http(&self) -> Result<&Http, MediaError> {
        self.inner.http.as_ref().map_err(|error| MediaError::Invalid(error.clone()))
    }

    /// Uploads the file at `path`. Nothing happens before it is awaited.
    ///
    /// Its kind follows from the extension unless [`Upload::kind`] says another; its name on the server is the last part of the path.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
    /// let file = media.upload("us.jpg").await?;
    /// println!("{}", file.id);
    /// # Ok(())
    /// # }
    /// ```
    pub fn upload(&self, path: impl AsRef<Path>) -> Upload {
        Upload::of_path(self.clone(), path.as_ref())
    }

    /// Uploads bytes that are in memory, under a name.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
    /// let file = media.upload_bytes("note.txt", "here be dragons").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn upload_bytes(&self, name: &str, bytes: impl Into<Bytes>) -> Upload {
        Upload::of_bytes(self.clone(), name, bytes.into())
    }

    /// Uploads what a reader gives, under a name. It can be read only once: a connection that breaks ends it with
    /// [`MediaError::Unreachable`], and the caller begins again.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
    /// let file = media.upload_reader("log.txt", std::io::Cursor::new("a line")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn upload_reader(&self, name: &str, reader: impl tokio::io::AsyncRead + Send + Unpin + 'static) -> Upload {
        Upload::of_reader(self.clone(), name, Box::new(reader))
    }

    /// Downloads a file to `path`, which is there when it is whole, and not before. Nothing happens before it is awaited.
    ///
    /// The bytes go to `{path}.{id}.part` at first, also over several runs of the program: the next download of this file to this path
    /// goes on where the last one ended. A file that is at `path` already is replaced.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media, file: natter_client::media::MediaRef) -> Result<(), natter_client::media::MediaError> {
    /// let saved = media.download(&file, "copy.jpg").await?;
    /// println!("{} bytes, of which {} were there", saved.file_size, saved.resumed_at);
    /// # Ok(())
    /// # }
    /// ```
    pub fn download(&self, file: &MediaRef, path: impl AsRef<Path>) -> Download {
        Download::new(self.clone(), file.clone(), path.as_ref().to_owned())
    }

    /// The files of exactly that name that the user uploaded or was sent, the newest first; at most 100.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
    /// for file in media.find("plan.pdf").await? {
    ///     println!("{}", file.id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`MediaError`] lists them.
    pub async fn find(&self, name: &str) -> Result<Vec<MediaRef>, MediaError> {
        let path = format!("/v1/media?name={}", base::encoded(name));
        let (_, body) = self.ask(Method::GET, &path).await?;
        let found: Found = serde_json::from_slice(&body).map_err(|e| MediaError::Protocol(e.to_string()))?;
        found.media.into_iter().map(Facts::into_ref).collect()
    }

    /// What the server says of a file: its type, size and sum.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media, id: natter_client::MediaId) -> Result<(), natter_client::media::MediaError> {
    /// let file = media.info(&id).await?;
    /// println!("{:?}, {:?} bytes", file.mime_type, file.file_size);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`MediaError::NotFound`]: there is no such file, or it is not for this user; and the others of [`MediaError`].
    pub async fn info(&self, id: &MediaId) -> Result<MediaRef, MediaError> {
        let (head, _) = self.ask(Method::HEAD, &format!("/v1/media/{id}")).await?;
        let text = |name: hyper::header::HeaderName| head.headers.get(name).and_then(|v| v.to_str().ok());
        Ok(MediaRef {
            mime_type: text(hyper::header::CONTENT_TYPE).map(str::to_owned),
            sha256: text(hyper::header::ETAG).and_then(sum_of_tag),
            file_size: text(hyper::header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            ..MediaRef::new(id.clone())
        })
    }

    /// Takes a file away, for everybody. For who uploaded it.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media, id: natter_client::MediaId) -> Result<(), natter_client::media::MediaError> {
    /// media.delete(&id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`MediaError::NotFound`]: there is no such file, or it is another's; and the others of [`MediaError`].
    pub async fn delete(&self, id: &MediaId) -> Result<(), MediaError> {
        self.ask(Method::DELETE, &format!("/v1/media/{id}")).await.map(|_| ())
    }

    /// A request without a body, as often as it takes.
    async fn ask(&self, method: Method, path: &str) -> Result<(hyper::http::response::Parts, Bytes), MediaError> {
        let mut retry = Retry::default();
        let mut refused = None;
        loop {
            let token = self.token(refused.take()).await?;
            let error = match self.ask_once(&method, path, &token).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            refused = self.again(&mut retry, error, token).await?;
        }
    }

    async fn ask_once(
        &self,
        method: &Method,
        path: &str,
        token: &str,
    ) -> Result<(hyper::http::response::Parts, Bytes), MediaError> {
        let http = self.http()?;
        let request = http.request(method.clone(), path, token);
        Ok(http.ask(request, http::empty()).await?)
    }

    async fn token(&self, refused: Option<String>) -> Result<String, MediaError> {
        self.inner.tokens.token(refused).await.map_err(|error| MediaError::Unauthorized(error.to_string()))
    }

    /// Waits until the next try; an error, if there is none. A token that was refused comes back, once.
    async fn again(&self, retry: &mut Retry, error: MediaError, token: String) -> Result<Option<String>, MediaError> {
        if matches!(error, MediaError::Unauthorized(_)) && retry.first_refusal() {
            return Ok(Some(token));
        }
        let Some(wait) = retry.next(&error, http::random()) else { return Err(error) };
        tracing::debug!(%error, wait_ms = wait.as_millis(), "media: trying again");
        tokio::time::sleep(wait).await;
        Ok(None)
    }
}

/// The SHA-256 that the server's entity tags are: `"{64 hexadecimal digits}"`.
fn sum_of_tag(tag: &str) -> Option<String> {
    let sum = tag.trim().strip_prefix('"')?.strip_suffix('"')?;
    (sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit())).then(|| sum.to_ascii_lowercase())
}

/// Whether a request made it: 2xx.
fn is_file(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_sums() {
        let sum = "0F".repeat(32);
        assert_eq!(sum_of_tag(&format!("\"{sum}\"")), Some(sum.to_lowercase()));
        assert_eq!((sum_of_tag("\"abc\""), sum_of_tag(&sum)), (None, None));
    }
}
