//! The file limit: every connection needs a file handle.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
