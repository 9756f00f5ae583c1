//! An upload: bytes go to the object store as they come, with their sum and their limit; the row comes last.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{MediaId, UserId};
use tokio::sync::OwnedSemaphorePermit;

use super::kind::{self, Declared, HEAD_BYTES};
use super::objects::Writer;
use super::row::{MediaFile, MediaKind};
use super::rules::{Question, Reply};
use super::{Error, Media, Running, name};

/// An upload that has begun. Dropped before [`Upload::finish`], it leaves nothing behind.
pub struct Upload {
    media: Media,
    id: MediaId,
    owner: UserId,
    writer: Writer,
    sum: digest::Context,
    head: Vec<u8>,
    size: u64,
    limiting: MediaKind,
    _running: Running,
    _place: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upload({} of {}, {} bytes so far)", self.id, self.owner, self.size)
    }
}

impl Media {
    /// Begins an upload of `owner`, of `size` bytes as far as that is known. Nothing is stored before the first [`Upload::write`].
    ///
    /// # Errors
    /// [`Error::Refused`] beyond a quota; [`Error::Busy`] when too many uploads run.
    pub async fn begin(&self, owner: &UserId, size: Option<u64>) -> Result<Upload, Error> {
        let place = Arc::clone(&self.shared.places).try_acquire_owned().map_err(|_| Error::Busy)?;
        let used = match self.ask(Question::Use(owner.clone())).await? {
            Reply::Use(used) => used,
            _ => return Err(crate::Error::Ended.into()),
        };
        self.shared.limits.check(used, size.unwrap_or(1))?;
        let id = new_id()?;
        let running = self.run(&id, owner)?;
        let writer = self.shared.objects.write(&id).await?;
        Ok(Upload {
            media: self.clone(),
            id,
            owner: owner.clone(),
            writer,
            sum: digest::Context::new(&digest::SHA256),
            head: Vec::new(),
            size: 0,
            limiting: MediaKind::Document,
            _running: running,
            _place: place,
        })
    }
}

impl Upload {
    /// What limits the bytes that come from now on; 100 MiB if it was never said.
    pub fn limit_to(&mut self, declared: &Declared) {
        self.limiting = declared.limiting();
    }

    /// Takes the next bytes in.
    ///
    /// # Errors
    /// [`Error::Refused`] (131009, 413) beyond the limit, before anything beyond it is stored; [`Error::Store`] when the store does not take them.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let size = self.size + bytes.len() as u64;
        if size > self.limiting.bytes_max() {
            return Err(kind::too_large(self.limiting).into());
        }
        let room = HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(bytes.get(..room).unwrap_or_default());
        self.sum.update(bytes);
        self.size = size;
        self.writer.write(bytes).await
    }

    /// Ends the upload: the object is published, and then its row is committed. When this returns, both are on disk.
    ///
    /// # Errors
    /// [`Error::Refused`] when the file is none, larger than its kind may be, not what it should be, or beyond a quota.
    pub async fn finish(self, declared: &Declared, file_name: Option<&str>) -> Result<MediaFile, Error> {
        let Self { media, id, owner, writer, sum, head, size, limiting: _, _running, _place } = self;
        if size == 0 {
            return Err(Refusal::new(Kind::InvalidValue, "file: expected at least one byte, got none").into());
        }
        let (kind, mime) = kind::settle(declared, &head)?;
        if size > kind.bytes_max() {
            return Err(kind::too_large(kind).into());
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(sum.finish().as_ref());
        let made_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let name = file_name.and_then(name::kept);
        let file = MediaFile { id: id.clone(), owner, kind, mime, sha256, size, name, made_at, until: 0 };
        writer.finish().await?;
        let added = media.ask(Question::Add(Box::new(file))).await;
        let refused = match added {
            Ok(Reply::Files(mut files)) if !files.is_empty() => return Ok(files.swap_remove(0)),
            Ok(Reply::Refused(refusal)) => refusal.into(),
            Ok(_) => crate::Error::Ended.into(),
            Err(error) => error,
        };
        if matches!(refused, Error::Refused(_) | Error::Bridge(crate::Error::NotNow(_))) {
            // No row, no object. If this fails too, the sweep finds it.
            if let Err(error) = media.shared.objects.delete(&id).await {
                tracing::debug!(%id, %error, "media: an object without a row stays until the sweep");
            }
        }
        Err(refused)
    }
}

/// 19 digits of which nobody can guess one: 63 random bits, but for those that have fewer digits.
fn new_id() -> Result<MediaId, Error> {
    const SMALLEST: u64 = 1_000_000_000_000_000_000;
    loop {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Store("the system has no random bytes".into()))?;
        let number = u64::from_be_bytes(bytes) >> 1;
        if number >= SMALLEST {
            return MediaId::parse(&number.to_string()).map_err(|e| Error::Store(e.to_string()));
        }
    }
}
