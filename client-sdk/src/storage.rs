//! The thread that a store runs on.

use std::any::Any;
use std::sync::mpsc;
use std::thread;

use tokio::sync::mpsc as tokio_mpsc;

use crate::driver::Job;
use crate::error::Error;
use crate::store::{Owner, Snapshot, Store, StoreError, Write};

enum Task {
    Load,
    Commit(Vec<Write>),
    Transaction { ticket: u64, writes: Vec<Write>, job: Job },
}

/// What the store has done, in the order of the calls.
pub(crate) enum Done {
    Loaded(Result<Snapshot, StoreError>),
    Committed(Result<(), StoreError>),
    Transaction { ticket: u64, result: Result<(), Error> },
}

/// The way to the thread, and back. The thread ends when it is dropped, after everything that was asked before.
pub(crate) struct Storage {
    tasks: mpsc::Sender<Task>,
    done: tokio_mpsc::UnboundedReceiver<Done>,
    pub(crate) durable: bool,
}

impl Storage {
    pub(crate) fn spawn(mut store: Box<dyn Store>, owner: Owner) -> Result<Self, Error> {
        let (tasks, queue) = mpsc::channel();
        let (say, done) = tokio_mpsc::unbounded_channel();
        let durable = store.is_durable();
        let run = move || {
            for task in queue {
                let _ = say.send(match task {
                    Task::Load => Done::Loaded(store.load(&owner)),
                    Task::Commit(writes) => Done::Committed(store.commit(&writes)),
                    Task::Transaction { ticket, writes, mut job } => {
                        let mut work = |inside: &dyn Any| job(inside);
                        let result = store.transaction(&writes, &mut work);
                        Done::Transaction { ticket, result: result.map_err(|e| Error::Transaction(e.to_string())) }
                    }
                });
            }
            // Closed, and its lock given back, before the end is heard.
            drop(store);
            drop(say);
        };
        let thread = thread::Builder::new().name("natter-store".into()).spawn(run);
        thread.map_err(|error| Error::Store(format!("its thread: {error}")))?;
        Ok(Self { tasks, done, durable })
    }

    pub(crate) async fn load(&mut self) -> Result<Snapshot, Error> {
        let _ = self.tasks.send(Task::Load);
        loop {
            match self.done.recv().await {
                Some(Done::Loaded(result)) => return result.map_err(|error| Error::Store(error.to_string())),
                Some(Done::Committed(_) | Done::Transaction { .. }) => {}
                None => return Err(Error::Store("its thread has ended".into())),
            }
        }
    }

    pub(crate) fn commit(&self, writes: Vec<Write>) {
        let _ = self.tasks.send(Task::Commit(writes));
    }

    pub(crate) fn transaction(&self, ticket: u64, writes: Vec<Write>, job: Job) {
        let _ = self.tasks.send(Task::Transaction { ticket, writes, job });
    }

    /// What was done next; a thread that has ended (the store panicked) fails as a commit does.
    pub(crate) async fn done(&mut self) -> Done {
        let ended = || Done::Committed(Err(StoreError("its thread has ended".into())));
        self.done.recv().await.unwrap_or_else(ended)
    }

    /// Waits until everything is done and the store is closed.
    pub(crate) async fn close(mut self) {
        drop(self.tasks);
        while self.done.recv().await.is_some() {}
    }
}
