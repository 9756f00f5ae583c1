//! What must hold at the end of a world.

use std::collections::BTreeSet;

use natter_client::Tick;

use super::World;

impl World {
    pub(super) fn is_quiet(&self) -> bool {
        let wire = self.wire.as_ref();
        let silent = wire.is_some_and(|w| w.up.is_empty() && w.answers.is_empty() && w.entries.is_empty());
        silent && self.core.is_idle() && self.batch.is_none() && self.handed.is_empty() && self.server.is_idle()
    }

    pub(super) fn judge(&self) {
        if !self.is_quiet() {
            self.fail("it does not come to an end");
        }
        let committed = &self.server.committed;
        let unique: BTreeSet<&String> = committed.iter().collect();
        if unique.len() != committed.len() {
            self.fail(&format!("doubled: {committed:?}"));
        }
        // Ids rise in the order of the sends. But for what a store had taken that is gone: whether the client had kept that answer when it
        // crashed, nobody can say, so what it sends again of that may come behind what was sent since.
        if !committed.iter().filter(|id| !self.gone.contains(*id)).is_sorted() {
            self.fail(&format!("reordered: {committed:?}"));
        }
        if let Some(lost) = self.accepted.iter().find(|id| !unique.contains(id) && !self.failed.contains(*id)) {
            self.fail(&format!("lost: {lost}"));
        }
        let of =
            |epoch| self.app.iter().filter(move |place| place.0 == epoch).map(|place| place.1).collect::<Vec<u64>>();
        if of(self.server.epoch) != self.server.everything() {
            self.fail(&format!("expected entries {:?}, the app has {:?}", self.server.everything(), self.app));
        }
        // Of what is gone nobody knows how much there was; nothing of it comes twice, or behind what is newer.
        if !self.app.is_sorted_by(|a, b| a < b) {
            self.fail(&format!("doubled or reordered: {:?}", self.app));
        }
        for id in self.accepted.iter().filter(|id| !self.failed.contains(*id)) {
            let tick = self.progress.get(id).map_or(Tick::Queued, |progress| progress.tick);
            let expected = self.server.tick(id);
            // Without a disk, receipts that an earlier process took are forgotten with it.
            if tick != expected && (self.durable || tick > expected) {
                self.fail(&format!("{id}: expected {expected:?}, got {tick:?}"));
            }
        }
    }
}
