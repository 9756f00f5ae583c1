//! Which entries arrived, which of them the app has, and what may be acknowledged (wire.md, "What a client does").

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use natter_protocol::Seq;
use natter_protocol::entry::Entry;

use super::{After, Effects, Output};
use crate::store::{IncomingRow, Write};

#[derive(Debug)]
struct Arrived {
    delivery: u64,
    entry: Box<Entry>,
    payload: Bytes,
}

#[derive(Debug)]
pub(super) struct Inbox {
    durable: bool,
    untaken_max: usize,
    /// Which store of the server `last` is a position of.
    epoch: Option<String>,
    /// What is untaken is of another store than `epoch`; nothing is taken in beside it.
    is_of_old: bool,
    /// The newest position that was taken in; `None` before the first.
    last: Option<Seq>,
    /// Taken in and not to be acknowledged yet, with the packet to acknowledge, if it came over this connection: what is not on the disk,
    /// or, where nothing outlives the process, what the app has not taken.
    waiting: HashMap<Seq, Option<u64>>,
    /// Taken in, and not yet taken by the app.
    untaken: BTreeSet<Seq>,
    /// Arrived while too many were untaken; at most the Receive Maximum.
    parked: VecDeque<Arrived>,
    /// A gap that a new connection did not close is the server's word.
    gap_at: Option<Seq>,
    /// A gap was found: nothing of this connection counts any more.
    deaf: bool,
}

impl Inbox {
    pub(super) fn new(
        last: Option<Seq>,
        epoch: Option<String>,
        rows: Vec<IncomingRow>,
        durable: bool,
        untaken_max: usize,
        out: &mut VecDeque<Output>,
    ) -> Self {
        let mut untaken = BTreeSet::new();
        let mut waiting = HashMap::new();
        for row in rows {
            // It was read once before it was written.
            let Ok(entry) = Entry::parse(&row.payload) else { continue };
            untaken.insert(row.seq);
            if !durable {
                waiting.insert(row.seq, None);
            }
            out.push_back(Output::Entry(row.seq, Box::new(entry)));
        }
        // As a process left it that ended before the app had taken everything.
        let is_of_old = last.is_none() && !untaken.is_empty();
        let (parked, gap_at, deaf) = Default::default();
        Self { durable, untaken_max, epoch, is_of_old, last, waiting, untaken, parked, gap_at, deaf }
    }

    /// The server has said which store it has. Returns whether it is another one than before: its positions begin anew.
    pub(super) fn epoch(&mut self, epoch: String, to: &mut Effects<'_>) -> bool {
        if self.epoch.as_ref() == Some(&epoch) {
            return false;
        }
        let is_another = self.epoch.is_some();
        if is_another {
            self.is_of_old = true;
            (self.last, self.gap_at) = (None, None);
            to.writes.push(Write::BeginAnew);
        }
        to.writes.push(Write::Epoch(epoch.clone()));
        self.epoch = Some(epoch);
        is_another
    }

    /// Goes on with the new store's inbox, once nothing of the old one's waits for the app: their positions say nothing beside each other.
    pub(super) fn begin_anew(&mut self, to: &mut Effects<'_>) {
        if self.is_of_old && self.untaken.is_empty() {
            self.is_of_old = false;
            to.out.push_back(Output::BegunAnew);
        }
    }

    /// The connection is gone; acknowledgements of its packets would name others now.
    pub(super) fn disconnected(&mut self) {
        self.waiting.values_mut().for_each(|delivery| *delivery = None);
        self.parked.clear();
        self.deaf = false;
    }

    /// Returns what was taken in.
    pub(super) fn arrived(
        &mut self,
        delivery: u64,
        entry: Box<Entry>,
        payload: Bytes,
        to: &mut Effects<'_>,
    ) -> Option<Box<Entry>> {
        if self.deaf {
            return None;
        }
        if entry.seq.is_none() {
            to.out.push_back(Output::Live(entry));
            return None;
        }
        let arrived = Arrived { delivery, entry, payload };
        if self.is_of_old || !self.parked.is_empty() || self.untaken.len() >= self.untaken_max {
            self.parked.push_back(arrived);
            return None;
        }
        self.take_in(arrived, to)
    }

    fn take_in(&mut self, arrived: Arrived, to: &mut Effects<'_>) -> Option<Box<Entry>> {
        let Arrived { delivery, entry, payload } = arrived;
        let (seq, prev) = (entry.seq?, entry.prev.unwrap_or(0));
        if let Some(waiting) = self.waiting.get_mut(&seq) {
            *waiting = Some(delivery);
            return None;
        }
        match self.last {
            Some(last) if seq <= last => {
                to.out.push_back(Output::Acknowledge(delivery));
                return None;
            }
            Some(last) if prev > last && self.gap_at != Some(seq) => {
                self.gap_at = Some(seq);
                self.deaf = true;
                self.parked.clear();
                to.out.push_back(Output::Reconnect);
                return None;
            }
            _ => {}
        }
        self.last = Some(seq);
        self.waiting.insert(seq, Some(delivery));
        self.untaken.insert(seq);
        to.writes.push(Write::Incoming(IncomingRow { seq, payload: payload.to_vec() }));
        to.after.push(After::Kept(seq, entry.clone()));
        Some(entry)
    }

    /// It is on the disk.
    pub(super) fn kept(&mut self, seq: Seq, durable: bool, out: &mut VecDeque<Output>) {
        if durable && let Some(Some(delivery)) = self.waiting.remove(&seq) {
            out.push_back(Output::Acknowledge(delivery));
        }
    }

    /// The app has it.
    pub(super) fn took(&mut self, seq: Seq, stored: bool, to: &mut Effects<'_>) {
        if !self.untaken.remove(&seq) {
            return;
        }
        if !stored {
            to.writes.push(Write::Taken(seq));
        }
        if !self.durable
            && let Some(Some(delivery)) = self.waiting.remove(&seq)
        {
            to.out.push_back(Output::Acknowledge(delivery));
        }
    }

    /// Returns what there was no room for before.
    pub(super) fn unpark(&mut self, to: &mut Effects<'_>) -> Vec<Entry> {
        let mut taken_in = Vec::new();
        while !self.is_of_old
            && self.untaken.len() < self.untaken_max
            && let Some(arrived) = self.parked.pop_front()
        {
            taken_in.extend(self.take_in(arrived, to).map(|entry| *entry));
        }
        taken_in
    }
}
