//! The control socket in the data directory: `natter user` and `natter token` ask a running server through it.
//!
//! One connection carries one [`Request`] and one [`Answer`], each a line of JSON. Only the server's own user and root are heard.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::desk::{Answer, Desk, Request};

/// Longest line either way, in bytes, with its end: 500 of the longest names fit.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// A connection that takes longer is closed.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// More connections than this at a time wait.
const CONNECTIONS_MAX: usize = 16;
/// Pause after an accept that failed, as it does when file handles run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The server's end. The socket's file goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens at `path`, with mode 0600. What a dead server left there is replaced: the caller holds the data directory's lock.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn bind(path: PathBuf) -> io::Result<Self> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Answers until `stop`, then finishes the answers that have been asked for.
    pub(crate) async fn run(self, desk: Arc<Desk>, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (desk, stop) = (Arc::clone(&desk), stop.clone());
                    tokio::spawn(async move {
                        let outcome = timeout(CONNECTION_TIME_MAX, serve_one(stream, &desk, &stop)).await;
                        if let Err(error) = outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                            tracing::debug!(%error, "control connection");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket: accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
        let _idle = permits.acquire_many(all).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "control socket: remove");
        }
    }
}

async fn serve_one(mut stream: UnixStream, desk: &Desk, stop: &CancellationToken) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("uid {peer} may not ask")));
    }
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(LINE_BYTES_MAX));
    tokio::select! {
        read = reader.read_line(&mut line) => read?,
        () = stop.cancelled() => return Ok(()),
    };
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => desk.answer(request).await,
        Err(error) => Answer::Failed { reason: format!("the request was not understood: {error}") },
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.shutdown().await
}

/// Asks the server that listens at `path`; `None`: nobody listens there.
///
/// # Errors
/// When the answer does not come, whole and in time.
pub(crate) fn ask(path: &Path, request: &Request) -> io::Result<Option<Answer>> {
    let mut stream = match StdUnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(CONNECTION_TIME_MAX))?;
    stream.set_write_timeout(Some(CONNECTION_TIME_MAX))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server did not answer; if it has just stopped, try again",
        ));
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// Whether a server listens at `path`.
pub(crate) fn is_answered(path: &Path) -> bool {
    StdUnixStream::connect(path).is_ok()
}
