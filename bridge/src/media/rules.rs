//! The rules of media: who may read a file, what a user may keep, what a message may carry. The bytes are none of their business.

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::outbox::Message as Written;
use natter_protocol::{MediaId, UserId};

use super::row::{MediaFile, MediaKind, MediaUse};
use crate::change::Change;
use crate::engine::Engine;
use crate::state::State;
use crate::store::{Store, StoreError};

/// Files that a search by name finds at most.
pub const FOUND_MAX: usize = 100;
/// Files that one request takes away because their time is over.
pub const EXPIRED_A_STEP: usize = 100;
/// A file that is sent again is kept longer, in steps of a day: not every message needs a row.
pub(crate) const KEPT_STEP_SECS: u64 = 24 * 3600;

/// Asked about media from inside the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Adds a file whose bytes are stored; [`MediaFile::until`] is set here. Refused beyond the owner's quota.
    Add(Box<MediaFile>),
    /// What a user has.
    Use(UserId),
    /// A file, for somebody who wants to read it.
    Read(UserId, MediaId),
    /// The files of that name that a user may read, newest first.
    Find(UserId, String),
    /// Takes a file away, for its owner.
    Delete(UserId, MediaId),
    /// Takes away [`EXPIRED_A_STEP`] files at most whose time is over.
    TakeExpired,
    /// Which of these are there.
    Known(Vec<MediaId>),
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Files: the one added, those found, those taken away.
    Files(Vec<MediaFile>),
    /// What a user has.
    Use(MediaUse),
    /// The ids that are there.
    Known(Vec<MediaId>),
    /// It was not done, for good.
    Refused(Refusal),
}

impl<S: Store> Engine<S> {
    /// Answers a question.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn media_question(&mut self, question: Question) -> Result<Reply, StoreError> {
        Ok(match question {
            Question::Add(file) => self.add_media(*file)?,
            Question::Use(user) => Reply::Use(self.state.media_use(&user)?),
            Question::Read(user, id) => {
                Reply::Files(self.state.readable_media(&user, &id, self.now.server_secs)?.into_iter().collect())
            }
            Question::Find(user, name) => Reply::Files(self.state.find_media(&user, &name, FOUND_MAX)?),
            Question::Delete(user, id) => {
                let file = self.state.media(&id)?.filter(|file| file.owner == user);
                if let Some(file) = &file {
                    self.change(Change::MediaGone { id, owner: file.owner.clone() })?;
                }
                Reply::Files(file.into_iter().collect())
            }
            Question::TakeExpired => {
                let mut expired = self.state.expired_media(self.now.server_secs, EXPIRED_A_STEP)?;
                for file in &expired {
                    self.change(Change::MediaGone { id: file.id.clone(), owner: file.owner.clone() })?;
                }
                expired.extend(self.take_ended_files(EXPIRED_A_STEP - expired.len()));
                Reply::Files(expired)
            }
            Question::Known(ids) => {
                let mut known = Vec::new();
                for id in ids {
                    if self.state.media(&id)?.is_some() {
                        known.push(id);
                    }
                }
                Reply::Known(known)
            }
        })
    }

    fn add_media(&mut self, mut file: MediaFile) -> Result<Reply, StoreError> {
        if self.state.media(&file.id)?.is_some() {
            // 63 random bits: a repeat is no chance.
            let details = format!("id: expected one that is free, got {}", file.id);
            return Ok(Reply::Refused(Refusal::new(Kind::InvalidValue, details)));
        }
        let used = self.state.media_use(&file.owner)?;
        if let Err(refusal) = self.limits.media.check(used, file.size) {
            return Ok(Reply::Refused(refusal));
        }
        // A user that an app's own backend names in a token exists from his first call.
        self.add_user(&file.owner)?;
        file.until = self.now.server_secs.saturating_add(self.limits.media.ttl_secs);
        self.change(Change::Media(Box::new(file.clone())))?;
        Ok(Reply::Files(vec![file]))
    }

    /// The file that a message carries, if its sender may send it so; recipients then see its type, sum and size.
    pub(crate) fn carried_media(
        &mut self,
        user: &UserId,
        written: &mut Written,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let Some(id) = written.media.clone() else { return Ok(Ok(())) };
        let member = written.kind.as_str();
        let Some(file) = self.state.readable_media(user, &id, self.now.server_secs)? else {
            let details = format!("{member}.id: expected media that {user} uploaded or received, got {id}");
            return Ok(Err(Refusal::new(Kind::NoMedia, details)));
        };
        let bytes_max = MediaKind::parse(member).unwrap_or(MediaKind::Document).bytes_max();
        if file.size > bytes_max {
            let details =
                format!("{member}.id: expected media of at most {bytes_max} bytes, got {}: send a document", file.size);
            return Ok(Err(Refusal::new(Kind::TooLarge, details)));
        }
        written.add_media_facts(&file.mime, &file.sha256_hex(), file.size);
        Ok(Ok(()))
    }

    /// A file is kept as long as the newest message with it may wait.
    pub(crate) fn keep_media(&mut self, id: &MediaId) -> Result<(), StoreError> {
        self.keep_media_for(id, self.limits.media.ttl_secs)
    }

    /// A file is kept for so many server seconds, or a day less.
    pub(crate) fn keep_media_for(&mut self, id: &MediaId, secs: u64) -> Result<(), StoreError> {
        let until = self.now.server_secs.saturating_add(secs);
        if let Some(file) = self.state.media(id)?
            && file.until.saturating_add(KEPT_STEP_SECS) <= until
        {
            self.change(Change::MediaKept { id: id.clone(), owner: file.owner, until })?;
        }
        Ok(())
    }
}

impl<S: Store> State<S> {
    /// A file that `user` may read at a server second: an own one, one that was sent to him, or that of a status that is shown to him.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn readable_media(&mut self, user: &UserId, id: &MediaId, now: u64) -> Result<Option<MediaFile>, StoreError> {
        let Some(file) = self.media(id)? else { return Ok(None) };
        let may = file.owner == *user
            || self.has_media_grant(user, id)?
            || self.has_status_grant(user, id, now)?
            || self.has_group_grant(user, id)?;
        Ok(may.then_some(file))
    }
}
