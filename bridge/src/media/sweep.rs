//! What time and crashes leave: expired files, unfinished uploads, objects that no row knows of.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use natter_protocol::MediaId;
use tokio::time::sleep;

use super::rules::{EXPIRED_A_STEP, Question, Reply};
use super::{Error, Media};

/// Objects about which the rows are asked at a time.
const ASKED_MAX: usize = 100;

/// What a sweep took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Uploads that had not been finished.
    pub unfinished: usize,
    /// Files whose time was over.
    pub expired: usize,
    /// Objects that no row knew of.
    pub orphans: usize,
}

impl Media {
    /// Sweeps at once, and then again and again; ends with the task it runs in.
    pub async fn keep_swept(self) {
        loop {
            match self.sweep().await {
                Ok(swept) if swept == Swept::default() => {}
                Ok(Swept { unfinished, expired, orphans }) => {
                    tracing::info!(unfinished, expired, orphans, "media: swept");
                }
                Err(error) => tracing::warn!(%error, "media: the sweep was cut short and will be tried again"),
            }
            sleep(self.shared.config.sweep_rest).await;
        }
    }

    /// One sweep over everything. Of unfinished uploads, expired files and orphans, a trouble with one does not keep the others.
    ///
    /// # Errors
    /// The first trouble.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let running = self.clone();
        let unfinished = self.shared.objects.forget_unfinished(move |id| running.runs(id)).await;
        let expired = self.sweep_expired().await;
        let orphans = self.sweep_orphans().await;
        Ok(Swept { unfinished: unfinished?, expired: expired?, orphans: orphans? })
    }

    async fn sweep_expired(&self) -> Result<usize, Error> {
        let mut count = 0;
        loop {
            let Reply::Files(files) = self.ask(Question::TakeExpired).await? else { return Ok(count) };
            count += files.len();
            for file in &files {
                // The row is gone: what fails here is an orphan.
                self.shared.objects.delete(&file.id).await?;
            }
            if files.len() < EXPIRED_A_STEP {
                return Ok(count);
            }
        }
    }

    async fn sweep_orphans(&self) -> Result<usize, Error> {
        // Two servers over one prefix would take each other's files for orphans.
        self.shared.objects.belongs_to(&self.shared.owner).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let before = i64::try_from(now.saturating_sub(self.shared.config.orphan_age.as_secs())).unwrap_or(i64::MAX);
        let mut count = 0;
        let mut listed = self.shared.objects.list();
        let mut old = Vec::new();
        loop {
            let next = listed.next().await.transpose()?;
            let is_end = next.is_none();
            old.extend(next.filter(|object| object.changed_at < before).map(|object| object.id));
            if old.len() >= ASKED_MAX || (is_end && !old.is_empty()) {
                count += self.delete_unknown(std::mem::take(&mut old)).await?;
            }
            if is_end {
                return Ok(count);
            }
        }
    }

    async fn delete_unknown(&self, ids: Vec<MediaId>) -> Result<usize, Error> {
        // Those that run now are looked at first: their rows may come while we ask.
        let ids: Vec<MediaId> = ids.into_iter().filter(|id| !self.runs(id)).collect();
        let Reply::Known(known) = self.ask(Question::Known(ids.clone())).await? else { return Ok(0) };
        let mut count = 0;
        for id in ids.iter().filter(|id| !known.contains(id)) {
            self.shared.objects.delete(id).await?;
            count += 1;
        }
        Ok(count)
    }
}
