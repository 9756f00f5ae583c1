//! The way up.

use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use hyper::{Method, header};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::part::hex;
use super::progress::{OnProgress, Progress};
use super::retry::Retry;
use super::{Facts, Media, MediaError, MediaKind, MediaRef};
use crate::http::{HttpError, Problem, SILENCE_MAX, base, whole};

/// Read from a file at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// Most bytes of a name, as the server has it.
const NAME_BYTES_MAX: usize = 255;

type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Where the bytes are.
enum Source {
    Path(PathBuf),
    Bytes(Bytes),
    /// Once.
    Reader(Mutex<Option<Reader>>),
}

/// An upload, made by [`Media::upload`]; it runs when it is awaited.
///
/// ```no_run
/// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
/// let file = media.upload("scan").await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens before it is awaited"]
pub struct Upload {
    media: Media,
    source: Source,
    name: String,
    kind: Option<MediaKind>,
    mime_type: Option<String>,
    on_progress: Option<Arc<OnProgress>>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What a body that is being sent knows of itself.
struct Sent {
    sum: Mutex<Sha256>,
    bytes: AtomicU64,
    whole: AtomicBool,
    total: Option<u64>,
    bytes_max: u64,
    on_progress: Option<Arc<OnProgress>>,
    /// Why the body ended early; the request only says that it did.
    failed: Mutex<Option<MediaError>>,
}

impl Upload {
    fn new(media: Media, source: Source, name: String) -> Self {
        Self { media, source, name, kind: None, mime_type: None, on_progress: None }
    }

    pub(super) fn of_path(media: Media, path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self::new(media, Source::Path(path.to_owned()), name)
    }

    pub(super) fn of_bytes(media: Media, name: &str, bytes: Bytes) -> Self {
        Self::new(media, Source::Bytes(bytes), name.to_owned())
    }

    pub(super) fn of_reader(media: Media, name: &str, reader: Reader) -> Self {
        Self::new(media, Source::Reader(Mutex::new(Some(reader))), name.to_owned())
    }

    /// What it is; without a call, what its name says.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
    /// let file = media.upload("scan").kind(natter_client::media::MediaKind::Image).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn kind(mut self, kind: MediaKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Its MIME type, as `image/png`. The first bytes of the file count above it.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
    /// let file = media.upload("scan").mime_type("image/png").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn mime_type(mut self, mime_type: &str) -> Self {
        self.mime_type = Some(mime_type.to_owned());
        self
    }

    /// What it is called, at most 255 bytes; whoever receives it sees this.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
    /// let file = media.upload("scan").name("Our scan.png").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Hears how far it is. Called on the task that sends: it must not block.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
    /// let file = media.upload("scan").on_progress(|p| println!("{:?} %", p.percent())).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_progress(mut self, hears: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(Box::new(hears)));
        self
    }

    async fn run(mut self) -> Result<MediaRef, MediaError> {
        if self.name.len() > NAME_BYTES_MAX {
            let got = self.name.len();
            return Err(MediaError::Invalid(format!("name: expected at most {NAME_BYTES_MAX} bytes, got {got}")));
        }
        let kind = self.kind.unwrap_or_else(|| MediaKind::of_name(&self.name));
        let (mut retry, mut refused) = (Retry::default(), None);
        loop {
            let token = self.media.token(refused.take()).await?;
            let (body, sent) = self.open(kind).await?;
            let error = match self.try_once(body, &sent, kind, &token).await {
                Ok(file) => return Ok(file),
                Err(error) => error,
            };
            if matches!(self.source, Source::Reader(_)) {
                return Err(error);
            }
            refused = self.media.again(&mut retry, error, token).await?;
            // All of it went out and the answer did not come: it may be there.
            if sent.whole.load(Ordering::Acquire)
                && let Some(file) = self.find(&sent.sum()).await
            {
                return Ok(file);
            }
        }
    }

    async fn try_once(
        &self,
        body: Reader,
        sent: &Arc<Sent>,
        kind: MediaKind,
        token: &str,
    ) -> Result<MediaRef, MediaError> {
        sent.tell();
        let mut path = format!("/v1/media?file_type={}", kind.as_str());
        if !self.name.is_empty() {
            path.push_str(&format!("&name={}", base::encoded(&self.name)));
        }
        let http = self.media.http()?;
        let mime_type = self.mime_type.as_deref().unwrap_or("application/octet-stream");
        let mut request = http.request(Method::POST, &path, token).header(header::CONTENT_TYPE, mime_type);
        if let Some(total) = sent.total {
            request = request.header(header::CONTENT_LENGTH, total);
        }
        let body = Pieces { reader: body, sent: Arc::clone(sent) }.boxed_unsync();
        let answer = match http.send_body(request, body, stalled(sent)).await {
            Ok(answer) => answer,
            // What went wrong on this side says more than "the connection ended".
            Err(error) => return Err(sent.failure().unwrap_or_else(|| error.into())),
        };
        let (head, body) = answer.into_parts();
        let body = whole(body).await;
        if !head.status.is_success() {
            return Err(match HttpError::Refused(Problem::of(&head, &body.unwrap_or_default())).into() {
                MediaError::TooLarge { details, .. } => MediaError::TooLarge { max: kind.bytes_max(), details },
                other => other,
            });
        }
        let file = Facts::read(&body?)?;
        let got = sent.sum();
        match &file.sha256 {
            Some(stored) if *stored != got => Err(MediaError::Corrupt { expected: stored.clone(), got }),
            _ => Ok(file),
        }
    }

    async fn open(&mut self, kind: MediaKind) -> Result<(Reader, Arc<Sent>), MediaError> {
        let (reader, total): (Reader, Option<u64>) = match &mut self.source {
            Source::Path(path) => {
                let of = |error| MediaError::io(path, error);
                let file = tokio::fs::File::open(&*path).await.map_err(of)?;
                let facts = file.metadata().await.map_err(of)?;
                if !facts.is_file() {
                    return Err(MediaError::Invalid(format!(
                        "{}: expected a file, got something else",
                        path.display()
                    )));
                }
                (Box::new(file), Some(facts.len()))
            }
            Source::Bytes(bytes) => (Box::new(std::io::Cursor::new(bytes.clone())), Some(bytes.len() as u64)),
            Source::Reader(reader) => {
                let reader = reader.get_mut().unwrap_or_else(PoisonError::into_inner).take();
                (reader.ok_or_else(|| MediaError::Invalid("reader: expected bytes, got its end".into()))?, None)
            }
        };
        let bytes_max = kind.bytes_max();
        if let Some(total) = total.filter(|total| *total > bytes_max) {
            return Err(MediaError::TooLarge { max: bytes_max, details: format!("{total} bytes") });
        }
        let sent = Sent {
            sum: Mutex::new(Sha256::new()),
            bytes: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            total,
            bytes_max,
            on_progress: self.on_progress.clone(),
            failed: Mutex::new(None),
        };
        Ok((reader, Arc::new(sent)))
    }

    /// The file with these bytes under this name, if the server has it.
    async fn find(&self, sum: &str) -> Option<MediaRef> {
        if self.name.is_empty() {
            return None;
        }
        let found = self.media.find(&self.name).await.ok()?;
        found.into_iter().find(|file| file.sha256.as_deref() == Some(sum))
    }
}

/// Ends when nothing has moved for a while.
async fn stalled(sent: &Sent) {
    let mut before = None;
    loop {
        let now = sent.bytes.load(Ordering::Relaxed);
        // The answer to a whole file may take its time: the server syncs it.
        let patience = if sent.whole.load(Ordering::Acquire) { 4 * SILENCE_MAX } else { SILENCE_MAX };
        if before.replace(now) == Some(now) {
            return;
        }
        tokio::time::sleep(patience).await;
    }
}

impl Sent {
    fn sum(&self) -> String {
        hex(&self.sum.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize())
    }

    fn failure(&self) -> Option<MediaError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn tell(&self) {
        if let Some(hears) = &self.on_progress {
            hears(Progress { done: self.bytes.load(Ordering::Relaxed), total: self.total });
        }
    }

    /// Takes note of a piece before it leaves.
    fn take(&self, piece: &[u8]) -> Result<(), MediaError> {
        let bytes = self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
        if bytes > self.bytes_max {
            return Err(MediaError::TooLarge { max: self.bytes_max, details: format!("{bytes} bytes so far") });
        }
        if self.total.is_some_and(|total| bytes > total) {
            return Err(MediaError::Invalid("the file grew while it was being sent".into()));
        }
        self.sum.lock().unwrap_or_else(PoisonError::into_inner).update(piece);
        if self.total == Some(bytes) {
            // A body of a known length is not asked for its end.
            self.whole.store(true, Ordering::Release);
        }
        self.tell();
        Ok(())
    }

    fn end(&self) -> Result<(), MediaError> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        if self.total.is_some_and(|total| bytes < total) {
            return Err(MediaError::Invalid("the file shrank while it was being sent".into()));
        }
        self.whole.store(true, Ordering::Release);
        Ok(())
    }

    fn fail(&self, error: MediaError) -> std::io::Error {
        let told = std::io::Error::other(error.to_string());
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        told
    }
}

/// A body, read piece by piece.
struct Pieces {
    reader: Reader,
    sent: Arc<Sent>,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let this = self.get_mut();
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let read = ready!(poll_read_buf(Pin::new(&mut this.reader), cx, &mut piece));
        let outcome = match read {
            Err(source) => Err(MediaError::Io { path: "the file that is being sent".into(), source }),
            Ok(0) => match this.sent.end() {
                Ok(()) => return Poll::Ready(None),
                Err(error) => Err(error),
            },
            Ok(_) => this.sent.take(&piece),
        };
        Poll::Ready(Some(match outcome {
            Ok(()) => Ok(Frame::data(piece.freeze())),
            Err(error) => Err(this.sent.fail(error)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.sent.total == Some(0)
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        let left = self.sent.total.map(|total| total.saturating_sub(self.sent.bytes.load(Ordering::Relaxed)));
        left.map_or_else(hyper::body::SizeHint::default, hyper::body::SizeHint::with_exact)
    }
}

impl IntoFuture for Upload {
    type Output = Result<MediaRef, MediaError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
