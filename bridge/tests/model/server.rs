//! What is under test: the rules over a store, without sockets, and the three ways in which a batch can end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use natter_bridge::config::Limits;
use natter_bridge::engine::{Engine, Event, Now, Released};
use natter_bridge::stats::Counters;
use natter_bridge::store::Store;
use natter_bridge::store::memory::Memory;
use natter_bridge::store::sqlite::Sqlite;
use natter_protocol::error::NotNow;
use natter_protocol::link::{Up, WINDOW_BYTES, Window};
use natter_protocol::{Seq, UserId};

/// Frames as the door gets them.
pub(crate) type Frames = Vec<(Option<UserId>, Bytes)>;

/// The bridge's loop, one call at a time. Every error of the store ends the test.
pub(crate) trait Server {
    fn handle(&mut self, event: Ask, now: Now);
    fn sweep(&mut self, now: Now);
    fn commit(&mut self);
    /// `credit`: bytes that the door can take; `None`: enough.
    fn release(&mut self, credit: Option<usize>) -> Frames;
    /// The batch was not committed.
    fn abort(&mut self) -> Frames;
    /// One slice; `false`: there was nothing to settle.
    fn settle(&mut self) -> bool;
    /// The process dies and starts again.
    fn crash(&mut self);
    fn server_secs(&self) -> u64;
    /// What the tables still hold of an inbox. This is a crash too.
    fn stored(&mut self, user: &UserId) -> Vec<Seq>;
}

/// An event that can be told to two servers.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Up(UserId, Up),
    AddUser(UserId),
}

/// The rules over one store.
pub(crate) struct Rig<S> {
    engine: Option<Engine<S>>,
    reopen: Box<dyn Fn(S) -> S>,
}

impl<S: Store> Rig<S> {
    fn new(store: S, reopen: Box<dyn Fn(S) -> S>) -> Self {
        Self { engine: Some(recover(store)), reopen }
    }

    fn engine(&mut self) -> &mut Engine<S> {
        self.engine.as_mut().unwrap()
    }
}

fn recover<S: Store>(store: S) -> Engine<S> {
    Engine::recover(store, Limits::default(), Arc::new(Counters::default())).unwrap()
}

impl Rig<Memory> {
    pub(crate) fn memory() -> Self {
        Self::new(Memory::default(), Box::new(|store| store))
    }
}

impl Rig<Sqlite> {
    pub(crate) fn sqlite(dir: &Directory) -> Self {
        let path = dir.0.join("natter.db");
        let store = Sqlite::open(&path).unwrap();
        // The file is opened anew: what counts is what stands there.
        let reopen = move |store: Sqlite| {
            drop(store);
            Sqlite::open(&path).unwrap()
        };
        Self::new(store, Box::new(reopen))
    }
}

impl<S: Store> Server for Rig<S> {
    fn handle(&mut self, event: Ask, now: Now) {
        let event = match event {
            Ask::Up(user, up) => Event::Up(user, up),
            Ask::AddUser(user) => Event::Request(0, natter_bridge::engine::Request::AddUser(user)),
        };
        self.engine().handle(event, now).unwrap();
    }

    fn sweep(&mut self, now: Now) {
        self.engine().sweep(now).unwrap();
    }

    fn commit(&mut self) {
        self.engine().commit().unwrap();
    }

    fn release(&mut self, credit: Option<usize>) -> Frames {
        let mut window = Window::default();
        if let Some(left) = credit {
            window.sent(usize::try_from(WINDOW_BYTES).unwrap() - left);
        }
        let mut released = Released::default();
        self.engine().release(&mut window, &mut released).unwrap();
        released.frames
    }

    fn abort(&mut self) -> Frames {
        self.engine().abort(NotNow::Unavailable).unwrap().frames
    }

    fn settle(&mut self) -> bool {
        self.engine().settle().unwrap()
    }

    fn crash(&mut self) {
        let store = self.engine.take().unwrap().into_store();
        self.engine = Some(recover((self.reopen)(store)));
    }

    fn server_secs(&self) -> u64 {
        self.engine.as_ref().unwrap().server_secs()
    }

    fn stored(&mut self, user: &UserId) -> Vec<Seq> {
        let mut store = self.engine.take().unwrap().into_store();
        let rows = store.inbox(user, 0, 10_000).unwrap();
        self.engine = Some(recover(store));
        rows.into_iter().map(|(seq, _)| seq).collect()
    }
}

/// Two servers that are told the same and must say the same.
pub(crate) struct Twins<A, B>(pub(crate) A, pub(crate) B);

fn same<T: PartialEq + std::fmt::Debug>((a, b): (T, T)) -> T {
    assert_eq!(a, b, "the two stores make the rules say different things");
    a
}

impl<A: Server, B: Server> Server for Twins<A, B> {
    fn handle(&mut self, event: Ask, now: Now) {
        self.0.handle(event.clone(), now);
        self.1.handle(event, now);
    }

    fn sweep(&mut self, now: Now) {
        self.0.sweep(now);
        self.1.sweep(now);
    }

    fn commit(&mut self) {
        self.0.commit();
        self.1.commit();
    }

    fn release(&mut self, credit: Option<usize>) -> Frames {
        same((self.0.release(credit), self.1.release(credit)))
    }

    fn abort(&mut self) -> Frames {
        // Connections lie in a map without an order, and every one of them is closed.
        let sorted = |mut frames: Frames| {
            frames.sort();
            frames
        };
        same((sorted(self.0.abort()), sorted(self.1.abort())))
    }

    fn settle(&mut self) -> bool {
        same((self.0.settle(), self.1.settle()))
    }

    fn crash(&mut self) {
        self.0.crash();
        self.1.crash();
    }

    fn server_secs(&self) -> u64 {
        same((self.0.server_secs(), self.1.server_secs()))
    }

    fn stored(&mut self, user: &UserId) -> Vec<Seq> {
        same((self.0.stored(user), self.1.stored(user)))
    }
}

/// A directory of a case, removed with it.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // A process that dies loses nothing that was written, synced or not: memory will do, and saves an fsync a commit.
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let path = parent.join(format!("natter-model-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
