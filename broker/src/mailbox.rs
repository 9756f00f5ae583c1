//! What one connection waits for beside its socket: frames of the bridge, its end, credit. Bounded, and nobody who puts something in waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use natter_protocol::link::Down;

use crate::session::End;

/// Frames that are taken out at a time.
const TAKE_FRAMES: usize = 64;
/// Bytes after which no more is taken out at a time.
const TAKE_BYTES: usize = 64 * 1024;
/// What a frame costs beside its payload.
const FRAME_BYTES: usize = 64;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It waits.
    Queued,
    /// It was a live one, and there was little room.
    Dropped,
    /// There was no room: the connection ends.
    Overflow,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mailbox {
    frames_max: usize,
    bytes_max: usize,
    inner: Mutex<Inner>,
    /// The uplink will wake this when there is credit.
    waits_for_credit: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    frames: VecDeque<Down>,
    bytes: usize,
    /// When the oldest of them left the bridge, in microseconds of Unix time; 0: not known.
    committed_at: u64,
    end: Option<End>,
    waker: Option<Waker>,
    is_done: bool,
    /// Who waits for this connection to be done.
    successor: Option<Waker>,
}

impl Inner {
    fn cut(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.frames = VecDeque::new();
        self.bytes = 0;
    }
}

/// What was taken out.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) frames: Vec<Down>,
    /// When the oldest of them left the bridge, in microseconds of Unix time; 0: not known.
    pub(crate) committed_at: u64,
    pub(crate) end: Option<End>,
}

impl Mailbox {
    /// An empty one.
    pub(crate) fn new(frames_max: usize, bytes_max: usize) -> Self {
        Self { frames_max, bytes_max, inner: Mutex::default(), waits_for_credit: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame in, which has left the bridge at `committed_at`.
    pub(crate) fn put(&self, frame: Down, committed_at: u64) -> Put {
        let mut inner = self.lock();
        if inner.end.is_some() {
            return Put::Queued;
        }
        let bytes = size(&frame);
        let is_half_full = 2 * (inner.frames.len() + 1) > self.frames_max || 2 * (inner.bytes + bytes) > self.bytes_max;
        if is_half_full && matches!(frame, Down::Live { .. }) {
            return Put::Dropped;
        }
        let put = if inner.frames.len() >= self.frames_max || inner.bytes + bytes > self.bytes_max {
            inner.cut(End::SLOW);
            Put::Overflow
        } else {
            if inner.frames.is_empty() {
                inner.committed_at = committed_at;
            }
            inner.frames.push_back(frame);
            inner.bytes += bytes;
            Put::Queued
        };
        wake(inner);
        put
    }

    /// Ends the connection; the first reason counts, but for a revocation, which stands above the others.
    pub(crate) fn end(&self, end: End) {
        let mut inner = self.lock();
        if end == End::REVOKED {
            inner.end = Some(end);
            // What its client has no right to any more does not go out to it.
            inner.cut(end);
        }
        inner.end.get_or_insert(end);
        wake(inner);
    }

    /// Whether its token was revoked, before or after its end.
    pub(crate) fn is_revoked(&self) -> bool {
        self.lock().end == Some(End::REVOKED)
    }

    /// As [`Mailbox::end`], and what waits goes at once.
    pub(crate) fn cut(&self, end: End) {
        let mut inner = self.lock();
        inner.cut(end);
        wake(inner);
    }

    /// How many bytes wait.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Makes the connection look around.
    pub(crate) fn wake(&self) {
        wake(self.lock());
    }

    /// Takes out what is there; `None` when there is nothing, and the task of `cx` is woken when there is something.
    pub(crate) fn poll_take(&self, cx: &Context<'_>) -> Option<Taken> {
        let mut inner = self.lock();
        if inner.frames.is_empty() && inner.end.is_none() {
            set_waker(&mut inner.waker, cx);
            return None;
        }
        let mut taken = Taken {
            frames: Vec::with_capacity(inner.frames.len().min(TAKE_FRAMES)),
            committed_at: inner.committed_at,
            end: None,
        };
        let mut bytes = 0;
        while taken.frames.len() < TAKE_FRAMES
            && bytes < TAKE_BYTES
            && let Some(frame) = inner.frames.pop_front()
        {
            bytes += size(&frame);
            taken.frames.push(frame);
        }
        inner.bytes = inner.bytes.saturating_sub(bytes);
        if inner.frames.is_empty() {
            inner.frames = VecDeque::new();
            taken.end = inner.end;
        }
        Some(taken)
    }

    /// Only whether the connection is to end.
    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Option<End> {
        let mut inner = self.lock();
        set_waker(&mut inner.waker, cx);
        inner.end
    }

    /// Nothing of this connection goes up any more.
    pub(crate) fn set_done(&self) {
        let mut inner = self.lock();
        inner.is_done = true;
        inner.frames = VecDeque::new();
        inner.end.get_or_insert(End::GONE);
        if let Some(waker) = inner.successor.take() {
            drop(inner);
            waker.wake();
        }
    }

    /// Waits for [`Mailbox::set_done`]. Only one may wait: the connection that took this one over.
    pub(crate) async fn done(&self) {
        std::future::poll_fn(|cx| {
            let mut inner = self.lock();
            if inner.is_done {
                return Poll::Ready(());
            }
            set_waker(&mut inner.successor, cx);
            Poll::Pending
        })
        .await;
    }

    /// Notes that this one waits for credit; whether it did not before.
    pub(crate) fn begin_wait_for_credit(&self) -> bool {
        !self.waits_for_credit.swap(true, Ordering::AcqRel)
    }

    /// There is credit, perhaps.
    pub(crate) fn end_wait_for_credit(&self) {
        self.waits_for_credit.store(false, Ordering::Release);
        self.wake();
    }
}

fn size(frame: &Down) -> usize {
    FRAME_BYTES
        + match frame {
            Down::Entry { payload, .. } | Down::Live { payload, .. } => payload.len(),
            _ => 0,
        }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    if let Some(waker) = inner.waker.take() {
        drop(inner);
        waker.wake();
    }
}

fn set_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(bytes: usize) -> Down {
        Down::Entry { connection: Default::default(), seq: 1, again: false, payload: vec![0; bytes].into() }
    }

    fn live() -> Down {
        Down::Live { connection: Default::default(), payload: Bytes::from_static(b"{}") }
    }

    #[test]
    fn live_frames_give_way_and_an_overflow_ends_the_connection() {
        let mailbox = Mailbox::new(4, 100_000);
        assert_eq!(mailbox.put(live(), 0), Put::Queued);
        assert_eq!(mailbox.put(entry(1), 0), Put::Queued);
        assert_eq!(mailbox.put(live(), 0), Put::Dropped);
        assert_eq!(mailbox.put(entry(1), 0), Put::Queued);
        assert_eq!(mailbox.put(entry(1), 0), Put::Queued);
        assert_eq!(mailbox.put(entry(1), 0), Put::Overflow);
        let taken = mailbox.poll_take(&Context::from_waker(Waker::noop())).unwrap();
        assert_eq!((taken.frames.len(), taken.end), (0, Some(End::SLOW)));

        let mailbox = Mailbox::new(100, 10_000);
        assert_eq!(mailbox.put(entry(9000), 0), Put::Queued);
        assert_eq!(mailbox.put(entry(900), 0), Put::Overflow);
    }

    #[test]
    fn the_end_comes_behind_the_frames() {
        let mailbox = Mailbox::new(512, 1 << 20);
        for _ in 0..TAKE_FRAMES + 1 {
            mailbox.put(entry(1), 0);
        }
        mailbox.end(End::TAKEN_OVER);
        mailbox.end(End::GONE);
        let cx = &Context::from_waker(Waker::noop());
        let first = mailbox.poll_take(cx).unwrap();
        assert_eq!((first.frames.len(), first.end), (TAKE_FRAMES, None));
        let second = mailbox.poll_take(cx).unwrap();
        assert_eq!((second.frames.len(), second.end), (1, Some(End::TAKEN_OVER)));
    }
}
