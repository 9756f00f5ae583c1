//! The file that is not whole yet: `{path}.{id}.part`, locked while a download writes it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use natter_protocol::MediaId;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::MediaError;

/// What is there of a file, and its sum so far.
pub(super) struct Part {
    target: PathBuf,
    path: PathBuf,
    file: tokio::fs::File,
    sum: Sha256,
    length: u64,
}

impl Part {
    /// Opens or makes it, and reads what an earlier run left.
    pub(super) async fn open(target: &Path, id: &MediaId) -> Result<Self, MediaError> {
        let mut path = target.as_os_str().to_owned();
        path.push(format!(".{id}.part"));
        let path = PathBuf::from(path);
        let target = target.to_owned();
        let opened = blocking(move || {
            let of = |error| MediaError::io(&path, error);
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(of)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(MediaError::Busy(target.display().to_string())),
                // A file system without locks.
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(of(error)),
            }
            let (sum, length) = read(&mut file).map_err(of)?;
            Ok((target, path, file, sum, length))
        });
        let (target, path, file, sum, length) = opened.await?;
        let mut part = Self { target, path, file: tokio::fs::File::from_std(file), sum, length };
        let end = part.length;
        part.seek(end).await?;
        Ok(part)
    }

    /// Bytes that are there.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), MediaError> {
        self.file.write_all(bytes).await.map_err(|error| MediaError::io(&self.path, error))?;
        self.sum.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Everything that was written is the system's.
    pub(super) async fn flush(&mut self) -> Result<(), MediaError> {
        self.file.flush().await.map_err(|error| MediaError::io(&self.path, error))
    }

    /// Begins again.
    pub(super) async fn clear(&mut self) -> Result<(), MediaError> {
        self.flush().await?;
        self.file.set_len(0).await.map_err(|error| MediaError::io(&self.path, error))?;
        self.seek(0).await?;
        (self.sum, self.length) = (Sha256::new(), 0);
        Ok(())
    }

    /// The sum of what is there, in hexadecimal digits.
    pub(super) fn sum(&self) -> String {
        hex(&self.sum.clone().finalize())
    }

    /// It is whole: on disk, and then under its own name.
    pub(super) async fn publish(mut self) -> Result<PathBuf, MediaError> {
        self.flush().await?;
        self.file.sync_all().await.map_err(|error| MediaError::io(&self.path, error))?;
        let Self { target, path, file, .. } = self;
        let file = file.into_std().await;
        blocking(move || {
            std::fs::rename(&path, &target).map_err(|error| MediaError::io(&target, error))?;
            drop(file);
            let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // The name is on disk too; where a directory cannot be synced, the system does it in its own time.
            if let Ok(dir) = File::open(dir) {
                let _ = dir.sync_all();
            }
            Ok(target)
        })
        .await
    }

    async fn seek(&mut self, to: u64) -> Result<(), MediaError> {
        let sought = self.file.seek(std::io::SeekFrom::Start(to)).await;
        sought.map(|_| ()).map_err(|error| MediaError::io(&self.path, error))
    }
}

fn read(file: &mut File) -> std::io::Result<(Sha256, u64)> {
    let (mut sum, mut length, mut chunk) = (Sha256::new(), 0, vec![0; 256 * 1024]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok((sum, length)),
            n => {
                sum.update(chunk.get(..n).unwrap_or_default());
                length += n as u64;
            }
        }
    }
}

/// In lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MediaError> + Send + 'static,
) -> Result<T, MediaError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(MediaError::Protocol("the runtime is shutting down".into())))
}
