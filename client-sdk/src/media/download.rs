//! The way down.

use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode, header};
use tokio::time::timeout;

use super::part::Part;
use super::progress::{OnProgress, Progress};
use super::retry::Retry;
use super::{Media, MediaError, MediaRef, is_file};
use crate::http::{self, HttpError, Problem, SILENCE_MAX, whole};

/// How often one request is sent on: once, to a store.
const REDIRECTS_MAX: usize = 3;

/// A file that is whole, checked and on disk.
///
/// ```no_run
/// # async fn example(media: natter_client::media::Media, file: natter_client::media::MediaRef) -> Result<(), natter_client::media::MediaError> {
/// let saved = media.download(&file, "copy.jpg").await?;
/// println!("{}: {}", saved.path.display(), saved.sha256);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Downloaded {
    /// Where it is.
    pub path: PathBuf,
    /// In bytes.
    pub file_size: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// How many bytes of it were there from an earlier attempt.
    pub resumed_at: u64,
}

/// A download, made by [`Media::download`]; it runs when it is awaited, and may be dropped at any time: the next one goes on.
///
/// ```no_run
/// # async fn example(media: natter_client::media::Media, file: natter_client::media::MediaRef) -> Result<(), natter_client::media::MediaError> {
/// let download = media.download(&file, "copy.jpg"); // nothing has happened
/// let saved = download.await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens before it is awaited"]
pub struct Download {
    media: Media,
    file: MediaRef,
    path: PathBuf,
    on_progress: Option<OnProgress>,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("id", &self.file.id).field("path", &self.path).finish_non_exhaustive()
    }
}

/// What must come.
struct Wanted {
    sha256: String,
    size: u64,
}

impl Download {
    pub(super) fn new(media: Media, file: MediaRef, path: PathBuf) -> Self {
        Self { media, file, path, on_progress: None }
    }

    /// Hears how far it is. Called on the task that awaits: it must not block.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media, file: natter_client::media::MediaRef) -> Result<(), natter_client::media::MediaError> {
    /// media.download(&file, "copy.jpg").on_progress(|p| println!("{:?} %", p.percent())).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_progress(mut self, hears: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Box::new(hears));
        self
    }

    async fn run(self) -> Result<Downloaded, MediaError> {
        let wanted = self.wanted().await?;
        let mut part = Part::open(&self.path, &self.file.id).await?;
        // Left by a file of another size under this id: there is none, but the disk of a stranger is no place for trust.
        if part.length() > wanted.size {
            part.clear().await?;
        }
        let resumed_at = part.length();
        self.tell(&part, &wanted);
        let (mut retry, mut refused) = (Retry::default(), None);
        loop {
            let before = part.length();
            let token = self.media.token(refused.take()).await?;
            let error = match self.fetch(&mut part, &wanted, &token).await {
                Ok(()) => break,
                Err(error) => error,
            };
            part.flush().await?;
            if part.length() > before {
                retry.progressed();
            }
            refused = self.media.again(&mut retry, error, token).await?;
        }
        let path = part.publish().await?;
        Ok(Downloaded { path, file_size: wanted.size, sha256: wanted.sha256, resumed_at })
    }

    /// What the message says of the file, or the server.
    async fn wanted(&self) -> Result<Wanted, MediaError> {
        if let (Some(sha256), Some(size)) = (&self.file.sha256, self.file.file_size) {
            return Ok(Wanted { sha256: sha256.to_ascii_lowercase(), size });
        }
        let info = self.media.info(&self.file.id).await?;
        match (self.file.sha256.clone().or(info.sha256), info.file_size) {
            (Some(sha256), Some(size)) => Ok(Wanted { sha256: sha256.to_ascii_lowercase(), size }),
            _ => Err(MediaError::Protocol("expected ETag and Content-Length of a file, got an answer without".into())),
        }
    }

    /// One attempt: what is missing, to the end of the file.
    async fn fetch(&self, part: &mut Part, wanted: &Wanted, token: &str) -> Result<(), MediaError> {
        if part.length() < wanted.size || wanted.size == 0 {
            let answer = self.ask(part.length(), wanted, token).await?;
            self.receive(answer, part, wanted).await?;
        }
        if part.length() < wanted.size {
            return Err(MediaError::Unreachable("the file broke off".into()));
        }
        let got = part.sum();
        if got != wanted.sha256 {
            part.clear().await?;
            return Err(MediaError::Corrupt { expected: wanted.sha256.clone(), got });
        }
        Ok(())
    }

    async fn ask(&self, from: u64, wanted: &Wanted, token: &str) -> Result<Response<Incoming>, MediaError> {
        let http = self.media.http()?;
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let mut request = http.request(Method::GET, &format!("/v1/media/{}", self.file.id), token);
        if let Some(range) = &range {
            request = request.header(header::RANGE, range).header(header::IF_RANGE, format!("\"{}\"", wanted.sha256));
        }
        let mut answer = http.send(request, http::empty()).await?;
        let mut base = http.base().clone();
        for _ in 0..REDIRECTS_MAX {
            if !answer.status().is_redirection() {
                break;
            }
            let location = answer.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
            let (to, path) = location
                .and_then(|location| base.redirected(location))
                .ok_or_else(|| MediaError::Protocol("expected a redirect to an http(s) URL, got another".into()))?;
            // No token for a stranger; the URL itself is the permission there.
            let mut request = http::request(&to, Method::GET, &path);
            if let Some(range) = &range {
                request = request.header(header::RANGE, range);
            }
            answer = http.follow(&to, request).await?;
            if answer.status() == StatusCode::FORBIDDEN && !to.is_origin_of(http.base()) {
                // A signature that is too old: the server makes another one.
                return Err(MediaError::Unreachable("the store does not accept the server's redirect".into()));
            }
            base = to;
        }
        if is_file(answer.status()) {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        Err(HttpError::Refused(Problem::of(&head, &whole(body).await.unwrap_or_default())).into())
    }

    async fn receive(
        &self,
        mut answer: Response<Incoming>,
        part: &mut Part,
        wanted: &Wanted,
    ) -> Result<(), MediaError> {
        let is_rest = answer.status() == StatusCode::PARTIAL_CONTENT && starts_at(&answer) == Some(part.length());
        if !is_rest && part.length() > 0 {
            part.clear().await?;
        }
        if answer.status() == StatusCode::PARTIAL_CONTENT && !is_rest {
            return Err(MediaError::Unreachable("another range came than was asked for".into()));
        }
        loop {
            let frame = timeout(SILENCE_MAX, answer.body_mut().frame()).await;
            let frame = frame.map_err(|_| MediaError::Unreachable("nothing more comes of the file".into()))?;
            let Some(frame) = frame else { return Ok(()) };
            let Ok(bytes) = frame.map_err(|error| http::broken(&error))?.into_data() else { continue };
            if part.length() + bytes.len() as u64 > wanted.size {
                let got = format!("more than {} bytes", wanted.size);
                part.clear().await?;
                return Err(MediaError::Corrupt { expected: wanted.sha256.clone(), got });
            }
            part.write(&bytes).await?;
            self.tell(part, wanted);
        }
    }

    fn tell(&self, part: &Part, wanted: &Wanted) {
        if let Some(hears) = &self.on_progress {
            hears(Progress { done: part.length(), total: Some(wanted.size) });
        }
    }
}

/// Where a `Content-Range` begins.
fn starts_at(answer: &Response<Incoming>) -> Option<u64> {
    let range = answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

impl IntoFuture for Download {
    type Output = Result<Downloaded, MediaError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A name under which a stranger's file may be saved: its last part, without what a path or a terminal could take amiss; `fallback` if
/// nothing is left.
///
/// ```
/// use natter_client::media::safe_name;
///
/// assert_eq!(safe_name("plan.pdf", "17"), "plan.pdf");
/// assert!(!safe_name("../../etc/passwd", "17").contains('/'));
/// ```
#[must_use]
pub fn safe_name(name: &str, fallback: &str) -> String {
    const CHARS_MAX: usize = 120;
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last.chars().filter(|c| !c.is_control() && !"<>:\"|?*".contains(*c)).take(CHARS_MAX).collect();
    let kept = kept.trim().trim_start_matches('.');
    let name = if kept.is_empty() { fallback } else { kept };
    Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(fallback).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_name_is_no_path() {
        for (name, safe) in [
            ("plan.txt", "plan.txt"),
            ("../../etc/passwd", "passwd"),
            ("C:\\x\\y.doc", "y.doc"),
            (".bashrc", "bashrc"),
            ("..", "f"),
            ("", "f"),
            ("a\u{1b}[2Jb", "a[2Jb"),
            ("dir/", "f"),
        ] {
            assert_eq!(safe_name(name, "f"), safe, "{name:?}");
        }
    }
}
