//! A request's body that carries a file: multipart, or the bytes alone. The file goes to the object store as it comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use natter_protocol::UserId;
use natter_protocol::error::{Kind, Refusal};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::Problem;
use crate::media::kind::Declared;
use crate::media::row::{MediaFile, MediaKind};
use crate::media::{Error, Media};

/// Fields beside the file, at most.
const FIELDS_MAX: usize = 32;
/// Bytes of a field, at most.
const FIELD_BYTES_MAX: usize = 64 * 1024;
/// What a multipart body may have around the file: fields, boundaries, headers.
const AROUND_BYTES_MAX: u64 = 3 << 20;
/// Bytes in which no part of a file or field is found: headers or a preamble that never end.
const WITHOUT_PROGRESS_MAX: usize = 4 << 20;
/// What is read and thrown away of a refused body, and for how long, since many clients send all of it before they listen.
const DRAINED_BYTES_MAX: usize = 32 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// What a multipart body said.
#[derive(Debug, Default)]
pub struct Form {
    /// Fields that are no file, in order.
    pub fields: Vec<(String, String)>,
    /// The file, stored.
    pub file: Option<MediaFile>,
    /// The name of the part that the file was.
    pub part: Option<String>,
}

impl Form {
    /// The first field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// Whether the body is multipart.
#[must_use]
pub fn is_multipart(headers: &HeaderMap) -> bool {
    text(headers, header::CONTENT_TYPE)
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("multipart/"))
}

/// Takes a multipart body in. `said` is what was said of the file before, in a query; `user` is who uploads. A file that is not accepted
/// leaves nothing behind, nor does one whose form turns out wrong behind it.
///
/// # Errors
/// What is wrong with the form, or why the file is not accepted.
pub async fn multipart(
    media: &Media,
    user: &UserId,
    headers: &HeaderMap,
    said: &Declared,
    body: Body,
) -> Result<Form, Problem> {
    let boundary = text(headers, header::CONTENT_TYPE).and_then(|kind| multer::parse_boundary(kind).ok());
    let boundary = boundary.ok_or_else(|| malformed("expected multipart/form-data with a boundary"))?;
    let size = content_length(headers);
    if size.is_some_and(|size| size > MediaKind::BYTES_MAX + AROUND_BYTES_MAX) {
        return Err(crate::media::kind::too_large(MediaKind::Document).into());
    }
    let body = Source::new(media, body);
    let mut form = Form::default();
    let read = body.within_time(read_parts(media, user, said, body.guarded(), boundary, &mut form)).await;
    match read {
        Ok(()) => Ok(form),
        Err(problem) => {
            if let Some(file) = &form.file {
                media.delete(user, &file.id).await?;
            }
            body.drain(headers).await;
            Err(problem)
        }
    }
}

/// Takes a body in that is the file itself. `said` is what was said of it in a query, above its `Content-Type`.
///
/// # Errors
/// Why the file is not accepted.
pub async fn raw(
    media: &Media,
    user: &UserId,
    headers: &HeaderMap,
    said: &Declared,
    name: Option<&str>,
    body: Body,
) -> Result<MediaFile, Problem> {
    let said = said.clone().or(&text(headers, header::CONTENT_TYPE).and_then(Declared::of_type).unwrap_or_default());
    let size = content_length(headers);
    if size.is_some_and(|size| size > said.limiting().bytes_max()) {
        let body = Source::new(media, body);
        body.drain(headers).await;
        return Err(crate::media::kind::too_large(said.limiting()).into());
    }
    let body = Source::new(media, body);
    let read = async {
        let mut upload = media.begin(user, size).await?;
        upload.limit_to(&said);
        let mut bytes = std::pin::pin!(body.guarded().1);
        while let Some(bytes) = bytes.next().await {
            upload.write(&bytes.map_err(Problem::from)?).await?;
            body.progress.store(0, Ordering::Relaxed);
        }
        Ok(upload.finish(&said, name).await?)
    };
    let read = body.within_time(read).await;
    if read.is_err() {
        body.drain(headers).await;
    }
    read
}

async fn read_parts<S>(
    media: &Media,
    user: &UserId,
    said: &Declared,
    (progress, bytes): (Arc<AtomicUsize>, S),
    boundary: String,
    form: &mut Form,
) -> Result<(), Problem>
where
    S: Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
{
    let mut parts = multer::Multipart::new(bytes, boundary);
    // What is said before the file limits it while it is read; what is said behind it is looked at then.
    let mut said = said.clone();
    let mut waiting = None;
    while let Some(mut part) = parts.next_field().await? {
        progress.store(0, Ordering::Relaxed);
        let name = part.name().unwrap_or_default().to_owned();
        let file_name = part.file_name().map(ToOwned::to_owned);
        if file_name.is_none() && name != "file" {
            let value = field(&mut part, &name, &progress).await?;
            if form.fields.len() == FIELDS_MAX {
                return Err(malformed(format!("expected at most {FIELDS_MAX} fields, got more")));
            }
            if name == "file_type" || name == "type" {
                said = declared(&name, &value)?.or(&said);
            }
            form.fields.push((name, value));
            continue;
        }
        if waiting.is_some() {
            return Err(malformed("expected one file, got a second one"));
        }
        let of_part = part.content_type().and_then(|kind| Declared::of_type(kind.as_ref())).unwrap_or_default();
        // A message's parameter of that name.
        let by_name = (name == "document").then_some(MediaKind::Document);
        let of_part = Declared { kind: by_name, mime: None }.or(&of_part);
        let mut upload = media.begin(user, None).await?;
        upload.limit_to(&said.clone().or(&of_part));
        while let Some(bytes) = part.chunk().await? {
            upload.write(&bytes).await?;
            progress.store(0, Ordering::Relaxed);
        }
        form.part = Some(name);
        waiting = Some((upload, of_part, file_name));
    }
    if let Some((upload, of_part, file_name)) = waiting {
        form.file = Some(upload.finish(&said.or(&of_part), file_name.as_deref()).await?);
    }
    Ok(())
}

/// What a field says of the file. A message's `type` may say nothing of it.
fn declared(name: &str, value: &str) -> Result<Declared, Problem> {
    let is_message = natter_protocol::message::MessageType::parse(value.trim()).is_some();
    match Declared::parse(name, value) {
        Ok(declared) => Ok(declared),
        Err(_) if name == "type" && is_message => Ok(Declared::default()),
        Err(refusal) => Err(refusal.into()),
    }
}

async fn field(part: &mut multer::Field<'_>, name: &str, progress: &AtomicUsize) -> Result<String, Problem> {
    let mut value = Vec::new();
    while let Some(bytes) = part.chunk().await? {
        progress.store(0, Ordering::Relaxed);
        if value.len() + bytes.len() > FIELD_BYTES_MAX {
            let detail = format!("{name}: expected at most {FIELD_BYTES_MAX} bytes, got more");
            return Err(Problem::of(Kind::TooLarge, detail));
        }
        value.extend_from_slice(&bytes);
    }
    String::from_utf8(value).map_err(|_| malformed(format!("{name}: expected UTF-8")))
}

/// A body that is read with an eye on time and progress, and of which the rest can still be thrown away.
struct Source {
    body: Arc<Mutex<BodyDataStream>>,
    progress: Arc<AtomicUsize>,
    idle_time_max: Duration,
    deadline: Instant,
}

impl Source {
    fn new(media: &Media, body: Body) -> Self {
        let config = media.config();
        Self {
            body: Arc::new(Mutex::new(body.into_data_stream())),
            progress: Arc::default(),
            idle_time_max: config.idle_time_max,
            deadline: Instant::now() + config.upload_time_max,
        }
    }

    /// The bytes, and the count of those that came since it was last set to 0.
    fn guarded(&self) -> (Arc<AtomicUsize>, impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) {
        let (body, progress, idle) = (Arc::clone(&self.body), Arc::clone(&self.progress), self.idle_time_max);
        let count = Arc::clone(&progress);
        let stream = futures_util::stream::unfold(Some(body), move |body| {
            let count = Arc::clone(&count);
            async move {
                let body = body?;
                let next = timeout(idle, async { body.lock().await.next().await }).await;
                match next {
                    Err(_) => Some((Err(BodyError::Idle(idle)), None)),
                    Ok(None) => None,
                    Ok(Some(Err(error))) => Some((Err(BodyError::Broken(error.to_string())), None)),
                    Ok(Some(Ok(bytes))) => {
                        let so_far = count.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
                        if so_far > WITHOUT_PROGRESS_MAX {
                            return Some((Err(BodyError::NoProgress), None));
                        }
                        Some((Ok(bytes), Some(body)))
                    }
                }
            }
        });
        (progress, stream)
    }

    async fn within_time<T>(&self, read: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        timeout_at(self.deadline, read).await.unwrap_or_else(|_| {
            let detail = "expected the whole upload sooner: send less at a time, or over a faster connection";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, Kind::TooLarge, detail))
        })
    }

    /// Throws away what still comes, so that the client hears the answer; one that waits to be asked for the body is not asked.
    async fn drain(&self, headers: &HeaderMap) {
        if headers.contains_key(header::EXPECT) {
            return;
        }
        let drain = async {
            let (mut body, mut left) = (self.body.lock().await, DRAINED_BYTES_MAX);
            while let Some(Ok(bytes)) = body.next().await {
                let Some(less) = left.checked_sub(bytes.len()) else { return };
                left = less;
            }
        };
        // What comes later meets a closed connection.
        let _ = timeout(DRAIN_TIME_MAX, drain).await;
    }
}

/// Why no more of a body comes.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("expected the next bytes of the body within {} s", .0.as_secs())]
    Idle(Duration),
    #[error("the body ended before its end: {0}")]
    Broken(String),
    #[error("expected a part of the form within {WITHOUT_PROGRESS_MAX} bytes")]
    NoProgress,
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::Idle(_) => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken(_) | BodyError::NoProgress => StatusCode::BAD_REQUEST,
        };
        Self::new(status, Kind::Malformed, error.to_string())
    }
}

impl From<multer::Error> for Problem {
    fn from(error: multer::Error) -> Self {
        if let multer::Error::StreamReadFailed(inner) = &error
            && matches!(inner.downcast_ref(), Some(BodyError::Idle(_)))
        {
            return Self::new(StatusCode::REQUEST_TIMEOUT, Kind::Malformed, inner.to_string());
        }
        malformed(format!("expected multipart/form-data, got {error}"))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refusal.into(),
            Error::Bridge(error) => error.into(),
            Error::Busy => Self::not_now(error.to_string()),
            Error::Store(_) | Error::Config(_) => {
                tracing::warn!(%error, "media");
                Self::not_now("expected the store of media to answer: try again")
            }
        }
    }
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::from(Refusal::new(Kind::Malformed, detail))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, header::CONTENT_LENGTH).and_then(|text| text.parse().ok())
}
