//! A status for many contacts, posted beside pairs: how long its commit takes, and what that does to the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::dialect::DEVICE;
use super::dialect::natter::Natter;
use super::net::{Net, unexpected};
use super::packets::{Packets, topic};
use super::pairs::{self, Outcome};
use crate::mqtt;
use crate::torture::progress::Progress;

/// The rest between two statuses.
const REST: Duration = Duration::from_secs(1);
/// How long one may take.
const COMMIT_MAX: Duration = Duration::from_secs(30);
/// How often the clock is looked at.
const LOOK: Duration = Duration::from_millis(1);

struct Waiting {
    answered: Option<Instant>,
}

impl Packets for Waiting {
    fn handle(&mut self, index: usize, first: u8, body: &[u8], now: Instant, _: &mut Vec<u8>) -> Result<()> {
        if first >> 4 != 4 || body.get(2).is_some_and(|reason| *reason >= 0x80) {
            return Err(unexpected(index, "a PUBACK that accepts", body));
        }
        self.answered = Some(now);
        Ok(())
    }
}

/// Runs `pairs` while `poster`, the connection of `one`, posts statuses; how long each took to be answered.
pub(crate) fn run(
    poster: &str,
    one: &mut Net,
    pairs: &pairs::Plan,
    net: &mut Net,
    progress: &mut Progress,
) -> Result<(Outcome, Vec<Duration>)> {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            thread::sleep(pairs.warmup);
            let mut times = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                times.push(post(poster, one, pairs.run, times.len())?);
                thread::sleep(REST);
            }
            Ok(times)
        });
        let outcome = pairs::run::<Natter>(pairs, net, progress);
        ends.store(true, Ordering::Relaxed);
        let times = thread.join().unwrap_or_else(|_| bail!("the thread of the poster has panicked"));
        Ok((outcome?, times?))
    })
}

fn post(poster: &str, net: &mut Net, run: u64, number: usize) -> Result<Duration> {
    let payload =
        format!(r#"{{"id":"{run:x}-{number}","to":"status@broadcast","type":"text","text":{{"body":"at the sea"}}}}"#);
    let id = u16::try_from(number % 60_000).unwrap_or(0) + 1;
    let begun = Instant::now();
    if let Some(output) = net.output(0) {
        mqtt::write_publish(output, true, &topic(poster, DEVICE, "outbox"), id, payload.as_bytes());
    }
    net.flush(0)?;
    let mut waiting = Waiting { answered: None };
    loop {
        net.turn(LOOK, &mut waiting)?;
        match waiting.answered {
            Some(at) => return Ok(at.duration_since(begun)),
            None if begun.elapsed() > COMMIT_MAX => bail!("a status: expected an answer, got none"),
            None => {}
        }
    }
}
