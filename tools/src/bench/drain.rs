//! Backlogs: what waits for users, taken by a device of each as fast as it comes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::dialect::scan;
use super::net::{Net, unexpected};
use super::packets::Packets;
use crate::mqtt;
use crate::torture::progress::Progress;

/// How long nothing may come.
const SILENCE_MAX: Duration = Duration::from_secs(30);

struct Draining {
    taken: u64,
    /// Of each connection.
    last: Vec<u64>,
}

/// Takes and acknowledges `entries` on the connections of `net`; returns when the last one is there.
pub(crate) fn run(entries: u64, net: &mut Net, progress: &mut Progress) -> Result<()> {
    let mut draining = Draining { taken: 0, last: vec![0; net.len()] };
    net.begin(&mut draining)?;
    let mut heard = (Instant::now(), 0);
    while draining.taken < entries {
        net.turn(Duration::from_secs(1), &mut draining)?;
        if draining.taken > heard.1 {
            heard = (Instant::now(), draining.taken);
        } else if heard.0.elapsed() > SILENCE_MAX {
            bail!("backlog: {} of {entries} entries are there, and nothing more comes", heard.1);
        }
        progress.tell(draining.taken as f64 / entries as f64, &format!("{} of {entries} entries", draining.taken))?;
    }
    Ok(())
}

impl Packets for Draining {
    fn handle(&mut self, index: usize, first: u8, body: &[u8], _: Instant, output: &mut Vec<u8>) -> Result<()> {
        let (qos, id, payload) = mqtt::split_publish(first, body, true)
            .filter(|_| first >> 4 == 3)
            .with_context(|| unexpected(index, "an entry", body).to_string())?;
        let Some(last) = self.last.get_mut(index) else { return Ok(()) };
        let seq = scan::number_after(payload, br#""seq":"#);
        let prev = scan::number_after(payload, br#""prev":"#);
        if qos == 0 || scan::message(payload).is_none() || prev.is_none_or(|prev| prev > *last) {
            return Err(unexpected(index, &format!("a message behind entry {last}"), payload));
        }
        output.extend_from_slice(&mqtt::puback_bytes(id));
        if let Some(seq) = seq.filter(|seq| *seq > *last) {
            *last = seq;
            self.taken += 1;
        }
        Ok(())
    }
}
