//! Entries for users who are not there, sent through the server itself, many on their way at a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::dialect::DEVICE;
use super::net::{Net, unexpected};
use super::packets::{Packets, topic};
use crate::mqtt;
use crate::torture::progress::Progress;

/// Connections that write.
pub(crate) const WRITERS_MAX: u64 = 16;
/// PUBLISHes of one of them without a PUBACK.
const UNANSWERED_MAX: u64 = 64;
/// How long nothing may be answered.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What is to be stored: message j goes from writer j modulo their number; one recipient gets all of his before the next one does, as after a
/// burst. (Entries that reach a thousand absent users in turn cost the server many times the writes when it settles them.)
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) writers: Vec<String>,
    pub(crate) recipients: Vec<String>,
    pub(crate) entries: u64,
    pub(crate) text_bytes: usize,
    /// What makes the ids of this run its own.
    pub(crate) run: u64,
}

struct Storing<'a> {
    plan: &'a Plan,
    topics: Vec<String>,
    text: String,
    /// Of each writer.
    sent: Vec<u64>,
    acked: Vec<u64>,
    all_acked: u64,
}

/// Stores them, and returns when all are acknowledged; how long it took. Connection i of `net` is writer i.
pub(crate) fn run(plan: &Plan, net: &mut Net, progress: &mut Progress) -> Result<Duration> {
    let writers = plan.writers.len();
    let mut storing = Storing {
        plan,
        topics: plan.writers.iter().map(|writer| topic(writer, DEVICE, "outbox")).collect(),
        text: "y".repeat(plan.text_bytes),
        sent: vec![0; writers],
        acked: vec![0; writers],
        all_acked: 0,
    };
    let start = Instant::now();
    for index in 0..writers {
        if let Some(output) = net.output(index) {
            storing.refill(index, output);
        }
        net.flush(index)?;
    }
    let mut heard = (start, 0);
    while storing.all_acked < plan.entries {
        net.turn(Duration::from_secs(1), &mut storing)?;
        if storing.all_acked > heard.1 {
            heard = (Instant::now(), storing.all_acked);
        } else if heard.0.elapsed() > SILENCE_MAX {
            bail!("storing: {} of {} entries are acknowledged, and nothing more comes", heard.1, plan.entries);
        }
        progress.tell(
            storing.all_acked as f64 / plan.entries as f64,
            &format!("{} of {} entries stored", storing.all_acked, plan.entries),
        )?;
    }
    Ok(start.elapsed())
}

impl Storing<'_> {
    fn refill(&mut self, index: usize, output: &mut Vec<u8>) {
        let (Some(sent), Some(acked)) = (self.sent.get_mut(index), self.acked.get(index)) else { return };
        let Some(topic) = self.topics.get(index) else { return };
        let (writers, recipients) = (self.plan.writers.len() as u64, self.plan.recipients.len() as u64);
        while *sent - acked < UNANSWERED_MAX {
            let j = *sent * writers + index as u64;
            let at = u128::from(j) * u128::from(recipients) / u128::from(self.plan.entries.max(1));
            // Beyond the last one: all is sent.
            let Some(to) = usize::try_from(at).ok().and_then(|at| self.plan.recipients.get(at)) else { return };
            let (run, text) = (self.plan.run, &self.text);
            let payload =
                format!(r#"{{"id":"{run:016x}-{j:016x}","to":"{to}","type":"text","text":{{"body":"{text}"}}}}"#);
            // Below 65,535.
            let id = u16::try_from(*sent % 65_535).unwrap_or(0) + 1;
            mqtt::write_publish(output, true, topic, id, payload.as_bytes());
            *sent += 1;
        }
    }
}

impl Packets for Storing<'_> {
    fn handle(&mut self, index: usize, first: u8, body: &[u8], _: Instant, output: &mut Vec<u8>) -> Result<()> {
        if first >> 4 != 4 || body.get(2).is_some_and(|reason| *reason >= 0x80) {
            return Err(unexpected(index, "a PUBACK that accepts", body));
        }
        if let Some(acked) = self.acked.get_mut(index) {
            *acked += 1;
            self.all_acked += 1;
        }
        self.refill(index, output);
        Ok(())
    }
}
