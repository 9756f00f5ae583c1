//! How far every message is that this device remembers, and who waits for that.

use std::collections::HashMap;

use tokio::sync::watch;

use crate::progress::Progress;

#[derive(Debug)]
struct Record {
    progress: Progress,
    /// Made when somebody looks, gone when nobody does.
    watch: Option<watch::Sender<Progress>>,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    records: HashMap<String, Record>,
    closed: bool,
}

impl Registry {
    pub(crate) fn set(&mut self, id: String, progress: Progress) {
        match self.records.get_mut(&id) {
            Some(record) => {
                match &record.watch {
                    Some(watch) if watch.receiver_count() > 0 => drop(watch.send_replace(progress.clone())),
                    _ => record.watch = None,
                }
                record.progress = progress;
            }
            None => drop(self.records.insert(id, Record { progress, watch: None })),
        }
    }

    pub(crate) fn forget(&mut self, id: &str) {
        self.records.remove(id);
    }

    /// The store was read again: what it does not have was never taken.
    pub(crate) fn retain(&mut self, knows: impl Fn(&str) -> bool) {
        self.records.retain(|id, _| knows(id));
    }

    pub(crate) fn watch(&mut self, id: &str) -> Option<watch::Receiver<Progress>> {
        let record = self.records.get_mut(id)?;
        if self.closed {
            return Some(watch::channel(record.progress.clone()).1);
        }
        let watch = record.watch.get_or_insert_with(|| watch::channel(record.progress.clone()).0);
        Some(watch.subscribe())
    }

    /// Every id, in the order of sending.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.records.iter().map(|(id, record)| (record.progress.key, id.clone())).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Nothing gets any further: those who wait hear it.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.records.values_mut().for_each(|record| record.watch = None);
    }
}
