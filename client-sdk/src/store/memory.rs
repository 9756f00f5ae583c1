//! A store that ends with the process.

use std::collections::BTreeMap;

use natter_protocol::Seq;

use super::{IncomingRow, Outcome, OutgoingRow, Owner, ReceiptRow, Snapshot, Store, StoreError, Write};

/// Keeps everything in memory: what was not sent when the process ends is gone; what was received and not taken, the server still has.
///
/// ```
/// use natter_client::store::{MemoryStore, Store};
///
/// assert!(!MemoryStore::default().is_durable());
/// ```
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    last_seq: Option<Seq>,
    epoch: Option<String>,
    outgoing: BTreeMap<u64, OutgoingRow>,
    incoming: BTreeMap<Seq, IncomingRow>,
    receipts: BTreeMap<String, ReceiptRow>,
}

impl Store for MemoryStore {
    fn load(&mut self, _owner: &Owner) -> Result<Snapshot, StoreError> {
        Ok(Snapshot {
            last_seq: self.last_seq,
            epoch: self.epoch.clone(),
            outgoing: self.outgoing.values().cloned().collect(),
            incoming: self.incoming.values().cloned().collect(),
            receipts: self.receipts.values().cloned().collect(),
        })
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        for write in writes {
            match write {
                Write::Outgoing(row) => drop(self.outgoing.insert(row.key, row.clone())),
                Write::ForgetOutgoing(key) => drop(self.outgoing.remove(key)),
                Write::Tried { upto, at_ms } => {
                    let rows = self.outgoing.range_mut(..=*upto).map(|(_, row)| row);
                    for row in rows.filter(|row| row.outcome == Outcome::Queued) {
                        row.tried_ms.get_or_insert(*at_ms);
                    }
                }
                Write::Incoming(row) => {
                    self.last_seq = self.last_seq.max(Some(row.seq));
                    self.incoming.insert(row.seq, row.clone());
                }
                Write::Taken(seq) => drop(self.incoming.remove(seq)),
                Write::Epoch(epoch) => self.epoch = Some(epoch.clone()),
                Write::BeginAnew => {
                    self.last_seq = None;
                    self.receipts.clear();
                }
                Write::Receipts(row) => drop(self.receipts.insert(row.chat.clone(), row.clone())),
            }
        }
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }
}
