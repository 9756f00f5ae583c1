//! Bytes by id, on local disk or in an S3-compatible store, through the crate `object_store`.
//!
//! An object becomes visible whole or not at all: both kinds of store write beside it first (a staged file, a multipart upload) and
//! publish it at the end. What a killed server leaves of that is taken away by [`Objects::forget_unfinished`]. S3 does not drop the parts of
//! an upload by itself, so their upload ids are noted in a directory of ours before the first part goes.

use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use natter_protocol::MediaId;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};
use object_store::{
    BackoffConfig, ClientOptions, Error as StoreError, MultipartId, MultipartUpload, ObjectStore, ObjectStoreExt as _,
    PutMode, PutPayload, RetryConfig,
};
use tokio::task::spawn_blocking;

use super::Error;
use super::config::{S3Config, StoreConfig};

/// A part of an upload to S3: the least that it takes, and all of one length, as some stores want them.
const S3_PART_BYTES: usize = 5 << 20;
/// What is written to a local file at a time.
const LOCAL_PART_BYTES: usize = 256 << 10;
/// What is read from S3 with one request: a slow client holds no connection to it open.
const S3_READ_BYTES: u64 = 1 << 20;
/// What is read from a local file at a time.
const LOCAL_READ_BYTES: u64 = 256 << 10;
/// How long a connection to S3 may take to come about.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// How often a request to S3 is tried again, at most.
const RETRIES_MAX: usize = 5;
/// The object that says whose the store is.
const OWNER_KEY: &str = "natter-owner";

/// An object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Local { root: PathBuf },
    S3 { s3: Arc<AmazonS3>, public: Arc<AmazonS3>, notes: PathBuf },
}

/// An object that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Whose bytes.
    pub id: MediaId,
    /// Unix seconds of its last change, by the store's clock.
    pub changed_at: i64,
}

impl Objects {
    /// Opens the store. An S3 store is not asked yet: it may come up later than we do. `notes` is a directory of ours.
    ///
    /// # Errors
    /// When a directory cannot be made, or the configuration makes no sense.
    pub fn open(config: &StoreConfig, notes: &FilePath) -> Result<Self, Error> {
        make_dir(notes)?;
        match config {
            StoreConfig::Local(root) => {
                make_dir(root)?;
                let local = LocalFileSystem::new_with_prefix(root).map_err(|e| Error::Config(e.to_string()))?;
                let store = Arc::new(local.with_fsync(true));
                Ok(Self { store, prefix: Path::default(), kind: Kind::Local { root: root.clone() } })
            }
            StoreConfig::S3(config) => {
                let s3 = Arc::new(s3(config, config.endpoint.as_deref())?);
                let public = match &config.public_endpoint {
                    Some(endpoint) => Arc::new(self::s3(config, Some(endpoint))?),
                    None => Arc::clone(&s3),
                };
                let prefix = Path::parse(&config.prefix).map_err(|e| Error::Config(e.to_string()))?;
                let store: Arc<dyn ObjectStore> = Arc::<AmazonS3>::clone(&s3);
                Ok(Self { store, prefix, kind: Kind::S3 { s3, public, notes: notes.to_owned() } })
            }
        }
    }

    /// Two digits spread the objects over directories; the rest is the id. No user's word is in a key.
    fn key(&self, id: &MediaId) -> Path {
        let text = id.as_str();
        let spread = text.get(text.len().saturating_sub(2)..).unwrap_or_default();
        self.prefix.clone().join("objects").join(spread).join(text)
    }

    /// Begins to write an object.
    ///
    /// # Errors
    /// When nothing can be written.
    pub async fn write(&self, id: &MediaId) -> Result<Writer, Error> {
        let key = self.key(id);
        let (parts, part_bytes) = match &self.kind {
            Kind::Local { .. } => (Parts::Local(self.store.put_multipart(&key).await?), LOCAL_PART_BYTES),
            Kind::S3 { .. } => (Parts::S3 { upload: None, parts: Vec::new() }, S3_PART_BYTES),
        };
        Ok(Writer { objects: self.clone(), id: id.clone(), key, parts, part_bytes, buffer: Vec::new(), done: false })
    }

    /// Reads `range` of an object, a piece at a time; nothing is read ahead of what is taken.
    pub fn read(&self, id: &MediaId, range: Range<u64>) -> BoxStream<'static, Result<Bytes, Error>> {
        let piece = if matches!(self.kind, Kind::Local { .. }) { LOCAL_READ_BYTES } else { S3_READ_BYTES };
        let (store, key) = (Arc::clone(&self.store), self.key(id));
        let pieces = futures_util::stream::try_unfold(range, move |left| {
            let (store, key) = (Arc::clone(&store), key.clone());
            async move {
                if left.is_empty() {
                    return Ok(None);
                }
                let end = left.start.saturating_add(piece).min(left.end);
                let bytes = store.get_range(&key, left.start..end).await?;
                if bytes.len() as u64 != end - left.start {
                    let got = format!("expected {} bytes at {}, got {}", end - left.start, left.start, bytes.len());
                    return Err(Error::Store(got));
                }
                Ok(Some((bytes, end..left.end)))
            }
        });
        pieces.boxed()
    }

    /// Takes an object away; one that is not there is gone already.
    ///
    /// # Errors
    /// When the store does not answer so.
    pub async fn delete(&self, id: &MediaId) -> Result<(), Error> {
        match self.store.delete(&self.key(id)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Every object whose key is one of ours.
    pub fn list(&self) -> BoxStream<'static, Result<Listed, Error>> {
        let objects = self.store.list(Some(&self.prefix.clone().join("objects")));
        let listed = objects.filter_map(|object| async move {
            match object {
                Ok(meta) => {
                    let id = MediaId::parse(meta.location.filename()?).ok()?;
                    Some(Ok(Listed { id, changed_at: meta.last_modified.timestamp() }))
                }
                Err(error) => Some(Err(error.into())),
            }
        });
        listed.boxed()
    }

    /// A URL of the store itself that is good for `time` and offers the object as `disposition` and `mime` say; `None`: there is none.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub async fn signed_url(
        &self,
        id: &MediaId,
        time: Duration,
        disposition: &str,
        mime: &str,
    ) -> Result<Option<String>, Error> {
        let Kind::S3 { public, .. } = &self.kind else { return Ok(None) };
        let options = SignedUrlOptions::new()
            .with_query([("response-content-disposition", disposition), ("response-content-type", mime)]);
        let url = public.signed_url_opts(Method::GET, &self.key(id), time, &options).await?;
        Ok(Some(url.into()))
    }

    /// Whether the store is `owner`'s; one that is nobody's becomes his.
    ///
    /// # Errors
    /// [`Error::Config`] when it is another's.
    pub async fn belongs_to(&self, owner: &str) -> Result<(), Error> {
        let key = self.prefix.clone().join(OWNER_KEY);
        let found = match self.store.get(&key).await {
            Ok(found) => found.bytes().await?,
            Err(StoreError::NotFound { .. }) => {
                let payload = PutPayload::from(owner.as_bytes().to_vec());
                match self.store.put_opts(&key, payload, PutMode::Create.into()).await {
                    Ok(_) | Err(StoreError::AlreadyExists { .. }) => self.store.get(&key).await?.bytes().await?,
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        if found == owner.as_bytes() {
            return Ok(());
        }
        Err(Error::Config(format!(
            "the store of media belongs to another data directory: expected {owner} in {key}, got {}; give each server a prefix of its \
             own, or, if this is the same server with a new data directory, write that name into the file `owner` of its directory media-notes",
            String::from_utf8_lossy(&found)
        )))
    }

    /// Takes away what uploads have left that are none of those that run; how many.
    ///
    /// # Errors
    /// When some could not be taken away: they are tried again the next time.
    pub async fn forget_unfinished(&self, runs: impl Fn(&MediaId) -> bool + Send + 'static) -> Result<usize, Error> {
        match &self.kind {
            Kind::Local { root } => {
                let root = root.join("objects");
                spawn_blocking(move || remove_staged(&root, runs)).await.map_err(|e| Error::Store(e.to_string()))?
            }
            Kind::S3 { s3, notes, .. } => {
                let mut forgotten = 0;
                for (id, path, upload) in noted(notes)?.into_iter().filter(|(id, ..)| !runs(id)) {
                    match s3.abort_multipart(&self.key(&id), &upload).await {
                        Ok(()) | Err(StoreError::NotFound { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                    // Somebody else may have been as fast.
                    forgotten += usize::from(std::fs::remove_file(path).is_ok());
                }
                Ok(forgotten)
            }
        }
    }
}

fn s3(config: &S3Config, endpoint: Option<&str>) -> Result<AmazonS3, Error> {
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: RETRIES_MAX,
        retry_timeout: config.retry_time_max,
    };
    let client = ClientOptions::new()
        .with_timeout(config.request_time_max)
        .with_connect_timeout(CONNECT_TIME_MAX.min(config.request_time_max))
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_access_key_id(&config.access_key)
        .with_secret_access_key(&config.secret_key)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // Not every store has DeleteObjects.
        .with_disable_bulk_delete(true)
        .with_retry(retry)
        .with_client_options(client);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    builder.build().map_err(|e| Error::Config(e.to_string()))
}

fn make_dir(path: &FilePath) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| Error::Config(format!("{}: {e}", path.display())))
}

/// Files beside an object that were never renamed to it: `{id}#{n}`.
fn remove_staged(root: &FilePath, runs: impl Fn(&MediaId) -> bool) -> Result<usize, Error> {
    let of = |path: &FilePath, error: &std::io::Error| Error::Store(format!("{}: {error}", path.display()));
    let mut removed = 0;
    let Ok(spread) = std::fs::read_dir(root) else { return Ok(0) };
    for dir in spread.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let files = std::fs::read_dir(dir.path()).map_err(|e| of(&dir.path(), &e))?;
        for file in files.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let Some((id, _)) = name.split_once('#') else { continue };
            if MediaId::parse(id).is_ok_and(|id| !runs(&id)) {
                match std::fs::remove_file(file.path()) {
                    Ok(()) => removed += 1,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(of(&file.path(), &error)),
                }
            }
        }
    }
    Ok(removed)
}

/// The uploads that were begun and not ended: whose, the note's path, the store's name for it.
fn noted(notes: &FilePath) -> Result<Vec<(MediaId, PathBuf, MultipartId)>, Error> {
    let of = |error: std::io::Error| Error::Store(format!("{}: {error}", notes.display()));
    let mut found = Vec::new();
    for file in std::fs::read_dir(notes).map_err(of)? {
        let path = file.map_err(of)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Ok(id) = MediaId::parse(&name) {
            found.push((id, path.clone(), std::fs::read_to_string(&path).map_err(of)?));
        }
    }
    Ok(found)
}

/// Written and synced before the first part goes: the parts would stay for ever otherwise.
fn note(notes: &FilePath, id: &MediaId, upload: &str) -> std::io::Result<()> {
    let path = notes.join(id.as_str());
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(upload.as_bytes())?;
    file.sync_all()?;
    std::fs::File::open(notes)?.sync_all()
}

enum Parts {
    Local(Box<dyn MultipartUpload>),
    S3 { upload: Option<MultipartId>, parts: Vec<PartId> },
}

/// An object that is being written. Dropped before [`Writer::finish`], it leaves nothing behind.
pub struct Writer {
    objects: Objects,
    id: MediaId,
    key: Path,
    parts: Parts,
    part_bytes: usize,
    buffer: Vec<u8>,
    done: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({})", self.key)
    }
}

impl Writer {
    /// Appends `bytes`. Returns when all but less than a part is handed to the store: memory stays flat.
    ///
    /// # Errors
    /// When the store does not take them; the writer is of no use then.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer.reserve_exact(self.part_bytes);
            }
            let room = self.part_bytes - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == self.part_bytes {
                self.put_part().await?;
            }
        }
        Ok(())
    }

    /// Publishes the object.
    ///
    /// # Errors
    /// When the store does not confirm it. It may be there all the same: nobody knows of it, and a sweep takes it away.
    pub async fn finish(mut self) -> Result<(), Error> {
        if let Parts::S3 { upload: None, .. } = self.parts {
            let payload = PutPayload::from(std::mem::take(&mut self.buffer));
            self.objects.store.put(&self.key, payload).await?;
            self.done = true;
            return Ok(());
        }
        if !self.buffer.is_empty() {
            self.put_part().await?;
        }
        let s3 = self.s3();
        match &mut self.parts {
            Parts::Local(upload) => {
                upload.complete().await?;
            }
            Parts::S3 { upload, parts } => {
                if let (Some((s3, notes)), Some(id)) = (s3, upload.as_ref()) {
                    s3.complete_multipart(&self.key, id, std::mem::take(parts)).await?;
                    unnote(&notes, &self.id);
                }
            }
        }
        self.done = true;
        Ok(())
    }

    async fn put_part(&mut self) -> Result<(), Error> {
        let payload = PutPayload::from(std::mem::take(&mut self.buffer));
        let s3 = self.s3();
        match &mut self.parts {
            Parts::Local(upload) => upload.put_part(payload).await?,
            Parts::S3 { upload, parts } => {
                let Some((s3, notes)) = s3 else { return Ok(()) };
                if upload.is_none() {
                    let id = s3.create_multipart(&self.key).await?;
                    if let Err(error) = note(&notes, &self.id, &id) {
                        // Without a note it is not begun.
                        let _ = s3.abort_multipart(&self.key, &id).await;
                        return Err(Error::Store(format!("{}: {error}", notes.display())));
                    }
                    *upload = Some(id);
                }
                if let Some(id) = upload.as_ref() {
                    parts.push(s3.put_part(&self.key, id, parts.len(), payload).await?);
                }
            }
        }
        Ok(())
    }

    fn s3(&self) -> Option<(Arc<AmazonS3>, PathBuf)> {
        match &self.objects.kind {
            Kind::S3 { s3, notes, .. } => Some((Arc::clone(s3), notes.clone())),
            Kind::Local { .. } => None,
        }
    }
}

fn unnote(notes: &FilePath, id: &MediaId) {
    if let Err(error) = std::fs::remove_file(notes.join(id.as_str())) {
        // The next start aborts an upload that is none any more: no harm.
        tracing::debug!(%id, %error, "media: the note of an upload");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // A local upload removes its file by itself. The parts of an upload to S3 need a request.
        let Parts::S3 { upload: Some(upload), .. } = &mut self.parts else { return };
        let (upload, key, id) = (std::mem::take(upload), self.key.clone(), self.id.clone());
        let Some((s3, notes)) = self.s3() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                match s3.abort_multipart(&key, &upload).await {
                    Ok(()) | Err(StoreError::NotFound { .. }) => unnote(&notes, &id),
                    // Its note is still there: the next start does it.
                    Err(error) => tracing::warn!(%id, %error, "media: an upload that was given up is not gone yet"),
                }
            });
        }
    }
}
