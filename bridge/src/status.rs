//! Statuses: what a user posts to `status@broadcast`, for his audience to see for a day.
//!
//! A status is a message of a conversation of its poster's own (`s:{poster}`), with a place in the inbox of each of its audience; so
//! repeats, numbers, delivery and ticks are those of messages. Beside that it is kept by itself until its time is over, which is what makes
//! it different: whoever has a place may list it and fetch its media for as long, and no longer; a place that nobody has taken by then says
//! nothing, neither a gap nor a failure. Who the audience is, is decided once, when the status is committed.
//!
//! - this file posts, ends and sweeps · [`known`] what the loop knows of them · [`ask`] lists, viewers and deletion, for HTTP and commands

pub mod ask;
pub mod known;

use std::sync::Arc;

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::outbox::Message as Written;
use natter_protocol::{Chat, DeviceId, MediaId, MessageId, N, Seq, UserId};

use crate::change::{Accepted, Change, Deleted, Item, Message, Place, Tick};
use crate::chat_key::ChatKey;
use crate::engine::Engine;
use crate::media::row::MediaFile;
use crate::media::rules::KEPT_STEP_SECS;
use crate::sender::{Accept, Ruling, ruled};
use crate::stats::Counters;
use crate::store::{Store, StoreError};

/// Server seconds that a status is shown: a day.
pub const STATUS_SECS: u64 = 24 * 3600;
/// Places of statuses that one step of the sweep takes away, and one status more.
const PLACES_A_STEP: usize = 500;
/// Statuses looked at in one step of the sweep.
const STATUSES_A_STEP: usize = 50;
/// Files that wait for the sweep of the object store; what is beyond it finds as an orphan.
const ENDED_FILES_MAX: usize = 10_000;

/// A status that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What was posted; its conversation is its poster's.
    pub message: Arc<Message>,
    /// It is shown before this server second.
    pub until: u64,
    /// The file it carries.
    pub media: Option<MediaId>,
    /// Who was given a place in his inbox, and which, sorted by name. The poster's name stands for his other devices.
    pub places: Vec<(UserId, Seq)>,
}

impl Status {
    /// What a message of a conversation of statuses makes, at a server second.
    #[must_use]
    pub fn new(message: Arc<Message>, at: u64, media: Option<MediaId>, places: &[Place]) -> Self {
        let mut places: Vec<(UserId, Seq)> = places.iter().map(|place| (place.user.clone(), place.seq)).collect();
        places.sort();
        Self { message, until: at.saturating_add(STATUS_SECS), media, places }
    }

    /// Whether it was given to `user`; its poster is none of his audience.
    #[must_use]
    pub fn is_for(&self, user: &UserId) -> bool {
        *user != self.message.from && self.places.binary_search_by(|(name, _)| name.cmp(user)).is_ok()
    }

    /// Who it was given to, and at which position of his inbox, in order of names.
    pub fn audience(&self) -> impl Iterator<Item = (&UserId, Seq)> {
        let all = self.places.iter().filter(|(user, _)| *user != self.message.from);
        all.map(|(user, seq)| (user, *seq))
    }
}

impl<S: Store> Engine<S> {
    /// Accepts a status. Whose inbox is full is left out, without a word.
    pub(crate) fn post_status(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        id: MessageId,
        mut written: Written,
    ) -> Ruling<Accept> {
        let chat = ChatKey::new(user, &Chat::Status);
        let statuses_max = self.limits.people.statuses_max;
        if written.reference.is_some() {
            let details = "context: expected none in a status; an answer to one is a message to its poster";
            return Ok(Err(Refusal::new(Kind::InvalidValue, details)));
        }
        let live = self.state.live_statuses(&chat, self.now.server_secs)?.len();
        if live >= statuses_max {
            Counters::add(&self.counters.quota);
            Counters::add(&self.counters.statuses_refused);
            let details = format!(
                "to: expected fewer than {statuses_max} statuses of {user} that are shown, got {live}: delete some, or wait until they expire"
            );
            return Ok(Err(Refusal::new(Kind::Quota, details)));
        }
        ruled!(self.carried_media(user, &mut written));
        if let Some(media) = &written.media {
            self.keep_media_for(media, STATUS_SECS + KEPT_STEP_SECS)?;
        }
        let (n, hash) = (self.state.chat(&chat)?.last_n + 1, written.hash);
        let grant = written.media.as_ref().map(ToString::to_string);
        let body = String::from_utf8(written.into_body(None))
            .map_err(|e| StoreError::Corrupt { expected: "a body in UTF-8", got: e.to_string() })?;
        let (timestamp, at) = (self.now.unix_secs, self.now.server_secs);
        let (from, body) = (user.clone(), Arc::from(body));
        let message = Arc::new(Message { chat: chat.clone(), n, from, id: id.clone(), timestamp, body });
        let mut places = Vec::new();
        for viewer in self.state.audience(user)? {
            if !self.state.user(&viewer)?.waiting().reaches(self.limits.inbox) {
                places.push(self.place(&viewer, None, None, message.bytes())?);
            }
        }
        if self.state.user(user)?.devices.keys().any(|other| other != device) {
            places.push(self.place(user, None, Some(device.clone()), message.bytes())?);
        }
        let users: Vec<UserId> = places.iter().map(|place| place.user.clone()).collect();
        self.change(Change::Message { message, hash, at, grant, places })?;
        Counters::add(&self.counters.statuses);
        for place in users {
            self.keep_lag_bounded(&place)?;
            self.hungry.insert(place);
        }
        Ok(Ok(Accept::New(id, Accepted { chat, n, timestamp, hash, until: at })))
    }

    /// Takes a status back, for its poster; those who may have it are told. `false`: he never posted it. One that is over is gone already.
    pub(crate) fn delete_status(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        id: &MessageId,
    ) -> Result<bool, StoreError> {
        let chat = ChatKey::new(user, &Chat::Status);
        let Some(accepted) = self.state.accepted(id, user)?.filter(|accepted| accepted.chat == chat) else {
            return Ok(false);
        };
        let kept = self.state.status(&chat, accepted.n)?;
        // One that is over ends without a word, though the sweep has not come by: who never had it is to hear nothing of it.
        let Some(status) = kept.filter(|status| status.until > self.now.server_secs) else { return Ok(true) };
        let item = |now| Item::Deleted(Deleted { poster: user.clone(), n: accepted.n, id: id.clone(), timestamp: now });
        let mut told = Vec::new();
        for (viewer, seq) in status.audience() {
            let known = self.state.chat(&chat)?;
            if known.is_hidden(viewer, accepted.n) {
                continue;
            }
            let has = known.mark(viewer, Tick::Delivered) >= accepted.n;
            // What was sent and not acknowledged may be there all the same.
            if has || self.state.user(viewer)?.pushed >= seq {
                told.push(viewer.clone());
            }
        }
        self.end_status(&status)?;
        Counters::add(&self.counters.statuses_deleted);
        let now = self.now.unix_secs;
        for viewer in told {
            self.notice(&viewer, None, None, item(now))?;
        }
        if self.state.user(user)?.devices.keys().any(|other| other != device) {
            self.notice(user, None, Some(device.clone()), item(now))?;
        }
        Ok(true)
    }

    /// A status is no more, and neither is its file if it was sent nowhere else.
    fn end_status(&mut self, status: &Status) -> Result<(), StoreError> {
        let Message { chat, n, from, .. } = &*status.message;
        self.change(Change::StatusGone { chat: chat.clone(), n: *n, places: status.places.clone() })?;
        let Some(media) = &status.media else { return Ok(()) };
        let Some(file) = self.state.media(media)?.filter(|file| file.owner == *from) else { return Ok(()) };
        if self.state.is_media_shared(media, from)? || self.state.is_in_status(media)? {
            return Ok(());
        }
        self.change(Change::MediaGone { id: media.clone(), owner: from.clone() })?;
        if self.ended_files.len() < ENDED_FILES_MAX {
            self.ended_files.push_back(file);
        }
        Ok(())
    }

    /// Files that went with their statuses and whose bytes are still there: once each, at most `limit`.
    pub(crate) fn take_ended_files(&mut self, limit: usize) -> Vec<MediaFile> {
        let count = limit.min(self.ended_files.len());
        self.ended_files.drain(..count).collect()
    }

    /// Ends statuses whose time is over, a step of them; `true`: there are more.
    pub(crate) fn sweep_statuses(&mut self) -> Result<bool, StoreError> {
        let over = self.state.statuses_over(self.now.server_secs, STATUSES_A_STEP)?;
        let is_full = over.len() == STATUSES_A_STEP;
        let mut places = 0;
        for (chat, n) in over {
            if places >= PLACES_A_STEP {
                return Ok(true);
            }
            if let Some(status) = self.state.status(&chat, n)? {
                places += status.places.len().max(1);
                self.end_status(&status)?;
                Counters::add(&self.counters.statuses_expired);
            }
        }
        Ok(is_full && places > 0)
    }

    /// What is shown to `user` of a poster's statuses, with `after < n <= upto`, oldest first.
    pub(crate) fn given_statuses(
        &mut self,
        user: &UserId,
        chat: &ChatKey,
        after: N,
        upto: N,
    ) -> Result<Vec<Arc<Status>>, StoreError> {
        let mut given = Vec::new();
        for n in self.state.live_statuses(chat, self.now.server_secs)? {
            if n > after
                && n <= upto
                && let Some(status) = self.state.status(chat, n)?
                && self.state.is_shown(user, &status, self.now.server_secs)?
            {
                given.push(status);
            }
        }
        Ok(given)
    }

    /// Everything that `user` was given of a poster's statuses up to `n` is read. A receipt covers no status that he was not given.
    pub(crate) fn read_statuses(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        chat: &ChatKey,
        n: N,
    ) -> Result<(), StoreError> {
        let Some(poster) = chat.poster() else { return Ok(()) };
        let before = self.state.chat(chat)?.mark(user, Tick::Read);
        if n <= before {
            return Ok(());
        }
        let mut runs: Vec<(N, N, MessageId)> = Vec::new();
        for status in self.given_statuses(user, chat, before, n)? {
            let (n, id) = (status.message.n, status.message.id.clone());
            match runs.last_mut() {
                Some((_, last, newest)) if *last + 1 == n => (*last, *newest) = (n, id),
                _ => runs.push((n - 1, n, id)),
            }
        }
        for tick in [Tick::Delivered, Tick::Read] {
            if self.state.chat(chat)?.mark(user, tick) < n {
                self.change(Change::Mark { chat: chat.clone(), member: user.clone(), tick, n })?;
            }
        }
        let others = self.state.user(user)?.devices.keys().any(|known| known != device);
        for (after, n, id) in runs {
            self.receipt(&poster, None, Tick::Read, chat, (after, n), &id, user)?;
            if others {
                self.receipt(user, Some(device), Tick::Read, chat, (after, n), &id, user)?;
            }
        }
        Ok(())
    }

    /// The place of a poster's status `n`, for `user` to read up to; a refusal if he was not given it or it is over: which of them, is
    /// nobody's business.
    pub(crate) fn status_place(&mut self, user: &UserId, poster: &UserId, n: N) -> Ruling<(ChatKey, N)> {
        let chat = ChatKey::new(poster, &Chat::Status);
        if self.is_given(user, &chat, n)? {
            return Ok(Ok((chat, n)));
        }
        let details = format!("n: expected the number of a status of {poster} that is shown to {user}, got {n}");
        Ok(Err(Refusal::new(Kind::InvalidValue, details)))
    }

    /// Whether `user` was given a status, and its time is not over. A block since makes no difference: nobody can tell one by what he may
    /// answer to or mark as read.
    pub(crate) fn is_given(&mut self, user: &UserId, chat: &ChatKey, n: N) -> Result<bool, StoreError> {
        let status = self.state.status(chat, n)?;
        Ok(status.is_some_and(|status| status.until > self.now.server_secs && status.is_for(user)))
    }
}
