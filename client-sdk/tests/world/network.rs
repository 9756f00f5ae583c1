//! Connections and the server at their other end.

use bytes::Bytes;
use natter_client::core::Input;
use natter_client::core::takeover::{GHOST_MS_MAX, TAKEOVERS_MAX};
use natter_protocol::entry::Entry;

use super::server::Server;
use super::{DAY_MS, Down, MESSAGES, Up, Wire, World};

impl World {
    pub(super) fn connect(&mut self) {
        if self.wire.is_none() {
            if !self.calm && self.random.one_in(8) {
                self.ghost = true;
                return;
            }
            self.begun_ms = self.true_ms;
            self.wire = Some(Wire::default());
            self.server.connected();
            self.handle(Input::Epoch(self.server.epoch.to_string()));
            self.handle(Input::Connected);
        }
    }

    pub(super) fn drop_connection(&mut self) {
        self.end_connection(false);
    }

    /// As the driver does at the end of a connection.
    fn end_connection(&mut self, taken_over: bool) {
        if self.wire.take().is_some() {
            self.seen.drops += 1;
            let lived = self.true_ms.abs_diff(self.begun_ms);
            if lived > GHOST_MS_MAX {
                self.ghosts_in_a_row = 0;
            }
            if !self.takeovers.ended(lived, taken_over) {
                self.fail("a late attempt of its own ended the client");
            }
            self.handle(Input::Disconnected);
        }
    }

    /// What was given up long ago arrives, while it can: the server hears it as a newer connection of the device.
    pub(super) fn ghost_arrives(&mut self) {
        let is_young = self.true_ms.abs_diff(self.begun_ms) <= GHOST_MS_MAX;
        if self.wire.is_some() && is_young && self.ghosts_in_a_row < TAKEOVERS_MAX && std::mem::take(&mut self.ghost) {
            self.seen.ghosts += 1;
            self.ghosts_in_a_row += 1;
            self.end_connection(true);
        }
    }

    /// Its data is gone, and with it whatever it had said yes to.
    pub(super) fn server_begins_anew(&mut self) {
        if self.server.epoch >= 2 || !self.random.one_in(12) {
            return;
        }
        self.drop_connection();
        self.accepted.retain(|id| !self.server.committed.contains(id));
        self.gone.extend(self.server.committed.iter().cloned());
        self.server = Server::new(self.server.epoch + 1, self.server.is_group);
    }

    pub(super) fn server_reads(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        match wire.up.pop_front() {
            // Not now: nothing behind it on this connection is taken in.
            Some(Up::Publish(..)) if !self.calm && self.random.one_in(15) => self.drop_connection(),
            Some(Up::Publish(key, payload)) => {
                let (answer, again) = self.server.publish(&payload, self.true_ms);
                self.seen.resent += u64::from(again);
                wire.answers.push_back(Down::Answer(key, answer));
            }
            Some(Up::Ack(seq)) => self.server.acked(seq),
            None => {}
        }
    }

    pub(super) fn server_speaks(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let (entry, again) = self.server.next_entry();
        self.seen.repeats += u64::from(again);
        if let Some((seq, payload)) = entry {
            // What is lost although the connection stays: only what goes out for the first time, as the server sends again until it is told.
            if !self.calm && self.server.is_first_time(seq) && self.random.one_in(8) {
                return;
            }
            wire.entries.push_back(Down::Entry(seq, payload));
        }
    }

    pub(super) fn client_reads(&mut self) {
        let answers = self.random.one_in(2);
        let Some(wire) = &mut self.wire else { return };
        let packet = if answers { wire.answers.pop_front() } else { wire.entries.pop_front() };
        match packet {
            Some(Down::Answer(key, answer)) => self.handle(Input::Answered { key, answer }),
            Some(Down::Entry(seq, payload)) => {
                self.next_delivery += 1;
                let delivery = self.next_delivery;
                wire.deliveries.insert(delivery, seq);
                let entry = Box::new(Entry::parse(&payload).unwrap());
                if self.handed.len() >= self.inbox_max {
                    self.seen.full += 1;
                }
                self.handle(Input::Arrived { delivery, entry, payload: Bytes::from(payload) });
            }
            None => {}
        }
    }

    pub(super) fn server_acts(&mut self) {
        let what = self.random.below(3);
        self.server.act(what, MESSAGES);
    }

    /// A clock is wrong by two days at most. Days pass while nothing happens.
    pub(super) fn time_jumps(&mut self) {
        if self.random.one_in(4) {
            self.true_ms += i64::try_from(self.random.below(40)).unwrap() * DAY_MS;
            // Nothing stays under way for that long.
            self.drop_connection();
        } else {
            self.skew_ms = (i64::try_from(self.random.below(5)).unwrap() - 2) * DAY_MS;
        }
    }
}
