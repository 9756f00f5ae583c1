//! The data directory: what lies where in it, and who may use it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket, in bytes, with the 0 byte that ends it: 108 on Linux, 104 on macOS and the BSDs.
const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 108 } else { 104 };

/// The bridge's database, in the data directory; `natter.mark` beside it says how far it had come.
pub(crate) const DATABASE: &str = "natter.db";

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// It cannot be made or opened.
    #[error("data directory {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The lock file cannot be made or locked.
    #[error("lock {}: {source}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    /// There is no way to name the control socket.
    #[error(
        "data directory {}: its path is too long for a Unix socket: expected at most {max} bytes, got {got}; choose a shorter one with --data",
        path.display()
    )]
    PathTooLong { path: PathBuf, max: usize, got: usize },
}

/// An open data directory. Only the holder of its [`Lock`] may touch the store and the keys.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    handle: File,
}

/// The right to use the store and the keys, until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl DataDir {
    /// Opens the directory; makes it with mode 0700 if it is not there.
    ///
    /// # Errors
    /// [`DataError::Open`].
    pub(crate) fn open_or_make(path: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError::Open { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), handle: File::open(path).map_err(failed)? })
    }

    /// Where it is, as configured.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The bridge's database.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// The keys that this server made for itself.
    pub(crate) fn keys(&self) -> PathBuf {
        self.path.join("keys")
    }

    /// The control socket, by a path that a socket address can hold while this value lives: a deep directory is named through our open
    /// handle of it.
    ///
    /// # Errors
    /// [`DataError::PathTooLong`] where there is no `/proc`.
    pub(crate) fn socket(&self) -> Result<PathBuf, DataError> {
        const NAME: &str = "natter.sock";
        let socket = self.path.join(NAME);
        if socket.as_os_str().as_bytes().len() < SOCKET_PATH_BYTES_MAX {
            return Ok(socket);
        }
        let by_handle = PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()));
        if by_handle.exists() {
            return Ok(by_handle.join(NAME));
        }
        let max = SOCKET_PATH_BYTES_MAX - NAME.len() - 2;
        Err(DataError::PathTooLong { path: self.path.clone(), max, got: self.path.as_os_str().as_bytes().len() })
    }

    /// Takes the lock, or `None`: another process has it.
    ///
    /// # Errors
    /// [`DataError::Lock`].
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>, DataError> {
        let path = self.path.join("natter.lock");
        let mut options = OpenOptions::new();
        let opened = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let file = opened.map_err(|source| DataError::Lock { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(DataError::Lock { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_new_directory_is_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        DataDir::open_or_make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn only_one_holds_the_lock() {
        let parent = tempfile::tempdir().unwrap();
        let (one, two) = (DataDir::open_or_make(parent.path()).unwrap(), DataDir::open_or_make(parent.path()).unwrap());
        let lock = one.try_lock().unwrap().unwrap();
        assert!(two.try_lock().unwrap().is_none());
        drop(lock);
        assert!(two.try_lock().unwrap().is_some());
    }

    #[test]
    fn a_deep_directory_has_a_socket_too() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("d".repeat(100)).join("e".repeat(100));
        let dir = DataDir::open_or_make(&path).unwrap();
        let _listener = UnixListener::bind(dir.socket().unwrap()).unwrap();
        assert!(path.join("natter.sock").exists());
        let again = DataDir::open_or_make(&path).unwrap();
        UnixStream::connect(again.socket().unwrap()).unwrap();
    }
}
