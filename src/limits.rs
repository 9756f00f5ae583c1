//! The limits of files: how many, since every connection needs a handle; and how large.

use std::io;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Fewer than this are worth a warning.
const OPEN_FILES_LOW: u64 = 10_000;

/// Raises the soft limit of open files to the hard one, and warns if that is not many.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    if let Some(files) = getrlimit(Resource::Nofile).current
        && files < OPEN_FILES_LOW
    {
        tracing::warn!(files, "few files may be open, and every connection needs one: raise `ulimit -n`");
    }
}

/// A file that may not grow any more (`ulimit -f`) is a full disk, which is waited out, and not a reason to be killed. In a runtime only.
///
/// # Errors
/// When the signal cannot be caught.
pub(crate) fn outlive_file_size_limit() -> io::Result<()> {
    // The handler stays when this is dropped.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}
