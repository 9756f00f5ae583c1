//! Tells whoever waits for it that an inbox has grown: long polls, webhooks. No lost wake-ups: watch first, then look, then wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use natter_protocol::{Seq, UserId};
use tokio::sync::watch;

/// Who waits for what. Only users that somebody watches are in it.
#[derive(Debug, Default)]
pub struct News {
    watched: Mutex<HashMap<UserId, watch::Sender<Heard>>>,
    /// How many users are watched: the loop looks no further while there is none.
    count: AtomicUsize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    newest: Seq,
    nudges: u64,
}

/// Why a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The inbox has grown.
    Grown,
    /// Something else about the user has changed, or the server stops: look again, and wait no more if nothing has.
    Nudged,
}

impl News {
    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, watch::Sender<Heard>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch a user's inbox.
    #[must_use]
    pub fn watch(self: &Arc<Self>, user: &UserId) -> Watch {
        let mut watched = self.lock();
        let heard = watched.entry(user.clone()).or_default().subscribe();
        self.count.store(watched.len(), Ordering::Relaxed);
        let nudges = heard.borrow().nudges;
        Watch { news: Arc::clone(self), user: user.clone(), heard: Some(heard), nudges }
    }

    /// The inbox of `user` has entries up to `newest` now.
    pub fn grown(&self, user: &UserId, newest: impl FnOnce() -> Option<Seq>) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(sender) = self.lock().get(user)
            && let Some(newest) = newest()
        {
            sender.send_if_modified(|heard| {
                let is_more = newest > heard.newest;
                heard.newest = heard.newest.max(newest);
                is_more
            });
        }
    }

    /// Wakes whoever watches `user`, or everybody.
    pub fn nudge(&self, user: Option<&UserId>) {
        for (known, sender) in self.lock().iter() {
            if user.is_none_or(|user| user == known) {
                sender.send_modify(|heard| heard.nudges += 1);
            }
        }
    }
}

/// Somebody who watches an inbox.
#[derive(Debug)]
pub struct Watch {
    news: Arc<News>,
    user: UserId,
    /// Always there until the drop.
    heard: Option<watch::Receiver<Heard>>,
    nudges: u64,
}

impl Watch {
    /// Waits until the inbox has an entry above `seq`, which the caller knows as its newest.
    pub async fn beyond(&mut self, seq: Seq) -> Woken {
        let Some(heard) = &mut self.heard else { return Woken::Nudged };
        let before = self.nudges;
        let heard = heard.wait_for(|heard| heard.newest > seq || heard.nudges != before).await;
        match heard.map(|heard| heard.nudges) {
            Ok(nudges) if nudges == before => Woken::Grown,
            Ok(nudges) => {
                self.nudges = nudges;
                Woken::Nudged
            }
            // The sender is there as long as this is.
            Err(_) => Woken::Nudged,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.news.lock();
        drop(self.heard.take());
        if watched.get(&self.user).is_some_and(|sender| sender.receiver_count() == 0) {
            watched.remove(&self.user);
            self.news.count.store(watched.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> UserId {
        UserId::parse("alice").unwrap()
    }

    #[tokio::test]
    async fn what_comes_between_the_look_and_the_wait_is_not_missed() {
        let news = Arc::new(News::default());
        let mut watch = news.watch(&alice());
        news.grown(&alice(), || Some(5));
        assert_eq!(watch.beyond(4).await, Woken::Grown);
        news.nudge(Some(&alice()));
        assert_eq!(watch.beyond(5).await, Woken::Nudged);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_who_has_stopped_watching() {
        let news = Arc::new(News::default());
        let (first, second) = (news.watch(&alice()), news.watch(&alice()));
        drop(first);
        assert_eq!(news.lock().len(), 1);
        drop(second);
        assert!(news.lock().is_empty());
        news.grown(&alice(), || panic!("nobody asks for it"));
    }
}
