//! The door's sending half of the link, within the credit that the bridge gives.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use natter_protocol::ids::UserId;
use natter_protocol::link::{Credit, LinkSender, Up, Window};
use tokio::sync::{Notify, watch};

use crate::door::Shared;
use crate::mailbox::Mailbox;

/// How often one that has no mailbox asks for credit again.
const RETRY: Duration = Duration::from_millis(20);

/// How long acknowledgements that nobody is told of wait for another frame at the most: each would wake the router and the bridge.
const HELD_MAX: Duration = Duration::from_millis(10);
/// How many frames may wait so. With one more they go up.
const HELD_FRAMES_MAX: usize = 128;

/// A frame that is to go up.
#[derive(Debug)]
pub(crate) struct Frame {
    /// It may use the reserve.
    is_acknowledgement: bool,
    /// It may wait for another frame, in its place before it.
    may_wait: bool,
    bytes: Bytes,
}

impl From<&Up> for Frame {
    fn from(frame: &Up) -> Self {
        Self { is_acknowledgement: frame.is_acknowledgement(), may_wait: false, bytes: frame.encode() }
    }
}

impl Frame {
    /// Whether it may wait for another frame.
    pub(crate) fn with_patience(self, may_wait: bool) -> Self {
        Self { may_wait, ..self }
    }
}

pub(crate) struct Uplink {
    inner: Mutex<Inner>,
    /// Becomes true when the link is down.
    failed: watch::Sender<bool>,
    /// Frames have begun to wait.
    held: Arc<Notify>,
}

struct Inner {
    sender: Box<dyn LinkSender>,
    window: Window,
    /// What goes up next, in order. Between two calls only what may wait is in it.
    batch: Vec<(Option<UserId>, Bytes)>,
    /// [`keep_time`] knows that something waits.
    is_timed: bool,
    /// Connections that wait for credit.
    waiting: Vec<Arc<Mailbox>>,
}

impl Uplink {
    pub(crate) fn new(sender: Box<dyn LinkSender>) -> Self {
        let inner =
            Inner { sender, window: Window::default(), batch: Vec::new(), is_timed: false, waiting: Vec::new() };
        Self { inner: Mutex::new(inner), failed: watch::Sender::new(false), held: Arc::default() }
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
        let mut may_wait = true;
        loop {
            let may_go = frames.front().is_some_and(|frame| match frame.is_acknowledgement {
                true => inner.window.is_open_in_reserve(),
                false => inner.window.is_open(),
            });
            let Some(frame) = (if may_go { frames.pop_front() } else { None }) else { break };
            may_wait &= frame.may_wait;
            inner.window.sent(frame.bytes.len());
            inner.batch.push((Some(user.clone()), frame.bytes));
        }
        // What is left wants credit, which the bridge gives for what it has.
        if !may_wait || !frames.is_empty() || inner.batch.len() > HELD_FRAMES_MAX {
            self.send_batch(inner);
        } else if !inner.batch.is_empty() && !inner.is_timed {
            inner.is_timed = true;
            self.held.notify_one();
        }
    }

    /// Sends what waits.
    fn send_held(&self) {
        let mut inner = self.lock();
        inner.is_timed = false;
        self.send_batch(&mut inner);
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

impl Drop for Uplink {
    fn drop(&mut self) {
        self.held.notify_one();
    }
}

/// Sends what has waited for [`HELD_MAX`], for as long as the door is there.
pub(crate) async fn keep_time(shared: Weak<Shared>) {
    let Some(held) = shared.upgrade().map(|shared| Arc::clone(&shared.uplink.held)) else { return };
    loop {
        held.notified().await;
        tokio::time::sleep(HELD_MAX).await;
        let Some(shared) = shared.upgrade() else { return };
        shared.uplink.send_held();
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::link::LinkDown;

    use super::*;

    /// Keeps the positions that were acknowledged, call by call.
    #[derive(Clone, Default)]
    struct Sent(Arc<Mutex<Vec<Vec<u64>>>>);

    impl LinkSender for Sent {
        fn send(&mut self, frames: &mut Vec<(Option<UserId>, Bytes)>) -> Result<(), LinkDown> {
            let seqs = frames.drain(..).map(|(_, frame)| match Up::decode(frame) {
                Ok(Up::Acked { seq, .. }) => seq,
                _ => 0,
            });
            self.0.lock().unwrap().push(seqs.collect());
            Ok(())
        }
    }

    #[test]
    fn what_may_wait_goes_up_before_the_next_frame_or_when_its_time_or_room_is_over() {
        let sent = Sent::default();
        let uplink = Uplink::new(Box::new(sent.clone()));
        let mailbox = Arc::new(Mailbox::new(4, 1000));
        let user = UserId::parse("alice").unwrap();
        let ack = |seq, may_wait| {
            let frame = Frame::from(&Up::Acked { connection: Default::default(), seq, taken: true });
            assert!(uplink.send(&user, &mut VecDeque::from([frame.with_patience(may_wait)]), &mailbox));
        };
        let calls = || std::mem::take(&mut *sent.0.lock().unwrap());

        ack(1, true);
        ack(2, true);
        assert_eq!(calls(), [] as [Vec<u64>; 0], "nobody waits for these");
        ack(3, false);
        assert_eq!(calls(), [[1, 2, 3]], "in their order");
        ack(4, true);
        uplink.send_held();
        assert_eq!(calls(), [[4]]);
        ack(5, true);
        uplink.send_anyway(None, &Up::Ring);
        assert_eq!(calls(), [[5, 0]]);
        for seq in 0..=HELD_FRAMES_MAX as u64 {
            ack(seq, true);
        }
        assert_eq!(calls().len(), 1, "there is room for no more");
    }
}
