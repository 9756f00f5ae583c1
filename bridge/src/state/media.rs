//! Files, as the loop knows them: those that are not settled from memory, the others from the store.

use std::collections::BTreeSet;

use natter_protocol::{MediaId, UserId};

use super::State;
use crate::media::row::{MediaFile, MediaUse};
use crate::store::{Store, StoreError};

impl<S: Store> State<S> {
    /// A file.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn media(&mut self, id: &MediaId) -> Result<Option<MediaFile>, StoreError> {
        match self.media.get(id) {
            Some(file) => Ok(file.clone()),
            None => self.store.media(id),
        }
    }

    /// Whether a message with the file was sent to `user`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_media_grant(&mut self, user: &UserId, id: &MediaId) -> Result<bool, StoreError> {
        if self.media_grants.get(id).is_some_and(|users| users.contains(user)) {
            return Ok(true);
        }
        self.store.has_media_grant(user, id)
    }

    /// What `owner` has uploaded and not deleted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn media_use(&mut self, owner: &UserId) -> Result<MediaUse, StoreError> {
        let mut sum = self.store.media_use(owner)?;
        for (id, file) in self.media.iter() {
            let stored = self.store.media(id)?;
            for file in stored.iter().filter(|file| file.owner == *owner) {
                sum.files = sum.files.saturating_sub(1);
                sum.bytes = sum.bytes.saturating_sub(file.size);
            }
            for file in file.iter().filter(|file| file.owner == *owner) {
                sum.files += 1;
                sum.bytes += file.size;
            }
        }
        Ok(sum)
    }

    /// The files called `name` that `user` may read, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find_media(&mut self, user: &UserId, name: &str, limit: usize) -> Result<Vec<MediaFile>, StoreError> {
        let mut ids: BTreeSet<MediaId> =
            self.store.find_media(user, name, limit + self.media.len())?.into_iter().map(|file| file.id).collect();
        ids.extend(self.media.iter().map(|(id, _)| id.clone()));
        ids.extend(self.media_grants.iter().filter(|(_, users)| users.contains(user)).map(|(id, _)| id.clone()));
        let mut found = Vec::new();
        for id in ids {
            if let Some(file) = self.media(&id)?
                && file.name.as_deref() == Some(name)
                && (file.owner == *user || self.has_media_grant(user, &id)?)
            {
                found.push(file);
            }
        }
        found.sort_by(|a, b| (b.made_at, &b.id).cmp(&(a.made_at, &a.id)));
        found.truncate(limit);
        Ok(found)
    }

    /// At most `limit` files whose time was over before `now`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn expired_media(&mut self, now: u64, limit: usize) -> Result<Vec<MediaFile>, StoreError> {
        let mut expired = self.store.expired_media(now, limit)?;
        // What was decided since counts.
        expired.retain(|file| self.media.get(&file.id).is_none());
        Ok(expired)
    }
}
