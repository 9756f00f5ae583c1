//! The door's sending half of the link, within the credit that the bridge gives.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use natter_protocol::ids::UserId;
use natter_protocol::link::{Credit, LinkSender, Up, Window};
use tokio::sync::watch;

use crate::mailbox::Mailbox;

/// How often one that has no mailbox asks for credit again.
const RETRY: Duration = Duration::from_millis(20);

/// A frame that is to go up.
#[derive(Debug)]
pub(crate) struct Frame {
    /// It may use the reserve.
    is_acknowledgement: bool,
    bytes: Bytes,
}

impl From<&Up> for Frame {
    fn from(frame: &Up) -> Self {
        Self { is_acknowledgement: frame.is_acknowledgement(), bytes: frame.encode() }
    }
}

pub(crate) struct Uplink {
    inner: Mutex<Inner>,
    /// Becomes true when the link is down.
    failed: watch::Sender<bool>,
}

struct Inner {
    sender: Box<dyn LinkSender>,
    window: Window,
    batch: Vec<(Option<UserId>, Bytes)>,
    /// Connections that wait for credit.
    waiting: Vec<Arc<Mailbox>>,
}

impl Uplink {
    pub(crate) fn new(sender: Box<dyn LinkSender>) -> Self {
        let inner = Inner { sender, window: Window::default(), batch: Vec::new(), waiting: Vec::new() };
        Self { inner: Mutex::new(inner), failed: watch::Sender::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends frames from the front of `frames` while there is credit, as one batch. Whether all are gone; if not, `mailbox` is woken
    /// when there is credit again.
    pub(crate) fn send(&self, user: &UserId, frames: &mut VecDeque<Frame>, mailbox: &Arc<Mailbox>) -> bool {
        let mut inner = self.lock();
        self.send_some(&mut inner, user, frames);
        if frames.is_empty() {
            return true;
        }
        if mailbox.begin_wait_for_credit() {
            inner.waiting.push(mailbox.clone());
        }
        false
    }

    fn send_some(&self, inner: &mut Inner, user: &UserId, frames: &mut VecDeque<Frame>) {
        loop {
            let may_go = frames.front().is_some_and(|frame| match frame.is_acknowledgement {
                true => inner.window.is_open_in_reserve(),
                false => inner.window.is_open(),
            });
            let Some(frame) = (if may_go { frames.pop_front() } else { None }) else { break };
            inner.window.sent(frame.bytes.len());
            inner.batch.push((Some(user.clone()), frame.bytes));
        }
        self.send_batch(inner);
    }

    fn send_batch(&self, inner: &mut Inner) {
        if !inner.batch.is_empty() && inner.sender.send(&mut inner.batch).is_err() {
            self.fail();
        }
        inner.batch.clear();
    }

    /// Sends a frame for which there is no connection to wait.
    pub(crate) async fn send_patiently(&self, user: &UserId, frame: &Up) {
        let mut frames = VecDeque::from([Frame::from(frame)]);
        loop {
            self.send_some(&mut self.lock(), user, &mut frames);
            if frames.is_empty() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Sends a frame whatever the credit: for the few that credit itself hangs on.
    pub(crate) fn send_anyway(&self, user: Option<&UserId>, frame: &Up) {
        let mut inner = self.lock();
        let bytes = frame.encode();
        inner.window.sent(bytes.len());
        inner.batch.push((user.cloned(), bytes));
        self.send_batch(&mut inner);
    }

    /// The bridge has taken in this much.
    pub(crate) fn confirmed(&self, credit: Credit) {
        let waiting = {
            let mut inner = self.lock();
            inner.window.confirmed(credit);
            if inner.window.is_open_in_reserve() { std::mem::take(&mut inner.waiting) } else { Vec::new() }
        };
        for mailbox in waiting {
            mailbox.end_wait_for_credit();
        }
    }

    /// The link is down.
    pub(crate) fn fail(&self) {
        self.failed.send_replace(true);
    }

    /// Waits for [`Uplink::fail`].
    pub(crate) async fn failed(&self) {
        // The sender is owned by self, so the only outcome is that the value came.
        let _ = self.failed.subscribe().wait_for(|failed| *failed).await;
    }
}
