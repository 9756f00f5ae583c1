//! The client's process, its disk and its app.

use natter_client::Error;
use natter_client::core::{Core, Input, Output};
use natter_client::store::{MemoryStore, Store, Write};

use super::{MESSAGES, Up, World, owner, server};

impl World {
    /// Some of what the core wants is done; a crash may come before the rest.
    pub(super) fn outputs(&mut self) {
        for _ in 0..self.random.below(6) {
            let Some(output) = self.core.next_output() else { break };
            self.output(output);
        }
        if self.batch.is_none() {
            self.batch = self.core.take_batch();
        }
    }

    pub(super) fn output(&mut self, output: Output) {
        match output {
            Output::Publish { key, payload } => {
                let Some(wire) = &mut self.wire else { return };
                let id = server::id_of(&payload);
                let rows = self.disk.load(&owner()).unwrap().outgoing;
                let row = rows.into_iter().find(|row| row.id.as_deref() == Some(id.as_str()));
                if row.is_none_or(|row| row.tried_ms.is_none()) {
                    self.fail("published before it and its first attempt were on the disk");
                }
                wire.up.push_back(Up::Publish(key, payload));
            }
            Output::Acknowledge(delivery) => {
                let Some(wire) = &mut self.wire else { return };
                let Some(seq) = wire.deliveries.remove(&delivery) else {
                    self.fail("acknowledged what did not come over this connection");
                };
                wire.up.push_back(Up::Ack(seq));
                let last = self.disk.load(&owner()).unwrap().last_seq;
                let kept = if self.durable { last >= Some(seq) } else { self.app.contains(&(self.server.epoch, seq)) };
                if !kept {
                    self.fail("acknowledged before it was kept");
                }
            }
            Output::Accepted(ticket) => {
                let id = self.tickets.remove(&ticket).unwrap();
                self.accepted.push(id);
            }
            Output::Rejected(..) => self.fail("rejected"),
            Output::Progress(id, progress) => {
                if progress.failure.is_some() {
                    self.failed.insert(id.clone());
                }
                self.progress.insert(id, *progress);
            }
            Output::Failed(failed) => match failed.error {
                Error::Unconfirmed => self.seen.unconfirmed += 1,
                Error::Refused { .. } => self.seen.refused += 1,
                other => panic!("{other}"),
            },
            Output::BegunAnew => self.seen.begun_anew += 1,
            Output::Forgotten(id) if self.server.epoch > 0 => drop(self.progress.remove(&id)),
            Output::Forgotten(_) | Output::Live(_) => self.fail("nothing of the kind is expected here"),
            Output::Entry(seq, entry) => self.handed.push_back((seq, *entry)),
            Output::Reconnect => {
                self.seen.gaps += 1;
                self.drop_connection();
            }
        }
    }

    pub(super) fn disk_step(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.disk.commit(&batch).unwrap();
            self.handle(Input::Stored);
        }
    }

    /// The commit fails, done or not; the driver looks what is there.
    pub(super) fn disk_fails(&mut self) {
        let Some(batch) = self.batch.take() else { return };
        self.seen.failed_commits += 1;
        if self.random.one_in(2) {
            self.disk.commit(&batch).unwrap();
        }
        self.restart();
        for (_, id) in std::mem::take(&mut self.tickets) {
            if self.core.knows(&id) {
                self.accepted.push(id);
            }
        }
    }

    pub(super) fn crash(&mut self) {
        self.seen.crashes += 1;
        if !self.durable {
            self.disk = MemoryStore::default();
            self.accepted.clear();
            self.progress.clear();
        } else if let Some(batch) = self.batch.take()
            && self.random.one_in(2)
        {
            self.disk.commit(&batch).unwrap();
        }
        self.tickets.clear();
        self.restart();
    }

    pub(super) fn restart(&mut self) {
        self.batch = None;
        self.handed.clear();
        self.wire = None;
        (self.takeovers, self.ghosts_in_a_row) = Default::default();
        let snapshot = self.disk.load(&owner()).unwrap();
        self.core = Core::with_inbox(snapshot, self.durable, self.inbox_max);
    }

    pub(super) fn app_takes(&mut self) {
        let Some((seq, entry)) = self.handed.pop_front() else { return };
        assert_eq!(entry.seq, Some(seq));
        let place = (entry.rest["epoch"].as_u64().unwrap(), seq);
        if self.exactly_once {
            // One transaction: the app's row and the mark.
            if self.random.one_in(5) {
                return self.handed.push_front((seq, entry));
            }
            self.disk.commit(&[Write::Taken(seq)]).unwrap();
            self.app.push(place);
            if self.calm || !self.random.one_in(20) {
                self.handle(Input::Took { seq, stored: true });
            } else {
                self.crash();
            }
            return;
        }
        // At least once: what comes again has the same position.
        if !self.app.contains(&place) {
            self.app.push(place);
        }
        if self.calm || !self.random.one_in(20) {
            self.handle(Input::Took { seq, stored: false });
        } else {
            self.crash();
        }
    }

    pub(super) fn app_sends(&mut self) {
        if self.next_message >= MESSAGES {
            return;
        }
        self.next_message += 1;
        let id = format!("m{:03}", self.next_message);
        self.tickets.insert(self.next_message, id.clone());
        let payload = server::message(&id);
        self.handle(Input::Send {
            ticket: self.next_message,
            id: Some(id),
            chat: Some(self.server.chat().into()),
            payload,
        });
    }
}
