//! Media: files that users upload and send each other.
//!
//! - [`row`] what the store knows of a file · [`rules`] who may read one, what a user may keep, what a message may carry  (pure)
//! - [`kind`] what a file is, and how large it may be for that · [`name`] what it is called · [`range`] which bytes a client wants  (pure)
//! - [`objects`] the bytes, on local disk or S3 · [`upload`] the way in · [`sweep`] what time and crashes leave
//! - [`signed`] short-lived URLs

pub mod config;
pub mod kind;
pub mod name;
pub mod objects;
pub mod range;
pub mod row;
pub mod rules;
pub mod signed;
pub mod sweep;
pub mod upload;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{MediaId, UserId};
use tokio::sync::Semaphore;

pub use config::{Config, Links, S3Config, StoreConfig};
pub use upload::Upload;

use crate::{Handle, MediaLimits};
use objects::Objects;
use row::MediaFile;
use rules::{Question, Reply};
use signed::Signer;

/// What could not be done with a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Refused for good; trying again does not help.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The object store failed: trying again may help.
    #[error("the store of media: {0}")]
    Store(String),
    /// Too many uploads run: trying again may help.
    #[error("expected fewer uploads at the same time: try again")]
    Busy,
    /// The rows could not be asked.
    #[error(transparent)]
    Bridge(#[from] crate::Error),
    /// The configuration makes no sense.
    #[error("media: {0}")]
    Config(String),
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error.to_string())
    }
}

/// Files: their rows in the bridge, their bytes in an object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Media {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bridge: Handle,
    objects: Objects,
    config: Config,
    limits: MediaLimits,
    places: Arc<Semaphore>,
    running: Mutex<HashMap<MediaId, UserId>>,
    signer: Signer,
    /// The name by which the object store knows that it is ours.
    owner: String,
}

impl Media {
    /// Opens the object store. `limits` are those that the bridge has.
    ///
    /// # Errors
    /// What is wrong with the configuration or the directories. That an S3 store does not answer is no error yet.
    pub fn open(bridge: Handle, config: Config, limits: MediaLimits) -> Result<Self, Error> {
        let objects = Objects::open(&config.store, &config.notes)?;
        let places = Arc::new(Semaphore::new(config.uploads_max));
        let owner = owner(&config.notes)?;
        let (running, signer) = (Mutex::default(), Signer::new()?);
        Ok(Self { shared: Arc::new(Shared { bridge, objects, config, limits, places, running, signer, owner }) })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// What signs short-lived URLs.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.shared.signer
    }

    /// A file that `user` may read.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub async fn readable(&self, user: &UserId, id: &MediaId) -> Result<Option<MediaFile>, Error> {
        Ok(self.files(Question::Read(user.clone(), id.clone())).await?.pop())
    }

    /// The files called `name` that `user` may read, newest first.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub async fn find(&self, user: &UserId, name: &str) -> Result<Vec<MediaFile>, Error> {
        self.files(Question::Find(user.clone(), name.to_owned())).await
    }

    /// Takes a file away, for its owner; `false`: there is none, or it is another's.
    ///
    /// # Errors
    /// When the bridge does not answer. The bytes may go later.
    pub async fn delete(&self, user: &UserId, id: &MediaId) -> Result<bool, Error> {
        let files = self.files(Question::Delete(user.clone(), id.clone())).await?;
        for file in &files {
            if let Err(error) = self.shared.objects.delete(&file.id).await {
                tracing::debug!(%id, %error, "media: the object of a deleted file stays until the sweep");
            }
        }
        Ok(!files.is_empty())
    }

    /// The bytes `range` of a file, a piece at a time.
    pub fn read(&self, file: &MediaFile, range: Range<u64>) -> BoxStream<'static, Result<Bytes, Error>> {
        self.shared.objects.read(&file.id, range)
    }

    /// Where a client that downloads the file is sent on to, if the configuration says so and the store can.
    ///
    /// # Errors
    /// When the URL cannot be signed.
    pub async fn redirect(&self, file: &MediaFile) -> Result<Option<String>, Error> {
        if !self.shared.config.redirect {
            return Ok(None);
        }
        let disposition = name::disposition(file.name.as_deref(), file.id.as_str());
        self.shared.objects.signed_url(&file.id, self.shared.config.url_time, &disposition, &file.mime).await
    }

    async fn files(&self, question: Question) -> Result<Vec<MediaFile>, Error> {
        match self.ask(question).await? {
            Reply::Files(files) => Ok(files),
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => Err(crate::Error::Ended.into()),
        }
    }

    async fn ask(&self, question: Question) -> Result<Reply, Error> {
        Ok(self.shared.bridge.media(question).await?)
    }

    /// Whether an upload to this id runs.
    fn runs(&self, id: &MediaId) -> bool {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    fn run(&self, id: &MediaId, owner: &UserId) -> Result<Running, Error> {
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        let max = self.shared.config.uploads_per_user_max;
        if running.values().filter(|user| *user == owner).count() >= max {
            let details =
                format!("expected at most {max} uploads of one user at the same time, got one more: wait for one");
            return Err(Refusal::new(Kind::Quota, details).into());
        }
        running.insert(id.clone(), owner.clone());
        drop(running);
        Ok(Running { media: self.clone(), id: id.clone() })
    }
}

/// An upload that runs, until this is dropped.
#[derive(Debug)]
struct Running {
    media: Media,
    id: MediaId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.media.shared.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// The name by which an object store knows its server: made once, kept beside the notes.
fn owner(notes: &Path) -> Result<String, Error> {
    let path = notes.join("owner");
    let of = |error: std::io::Error| Error::Config(format!("{}: {error}", path.display()));
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(of(error)),
    }
    let name = uuid::Uuid::now_v7().to_string();
    std::fs::write(&path, &name).map_err(of)?;
    Ok(name)
}
