//! Users who watch some others each, while some of them come and go: beside pairs, with and without.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// Between two words of the same user: more than the server waits before it believes that he has left.
const TURN: f64 = 12.0;
/// The rest before what is measured: until everybody's first word has had its effect.
const FIRST: Duration = Duration::from_secs(14);
/// How long watches may take to be answered.
const WATCHED_MAX: Duration = Duration::from_secs(60);
/// Watches of one connection without an answer.
const UNANSWERED: usize = 16;
/// How often the clock is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Who watches, and how many words a second are said.
pub(crate) struct Plan {
    pub(crate) users: Vec<String>,
    /// The next ones of the list, for each.
    pub(crate) watches: usize,
    pub(crate) changes_per_s: f64,
}

/// What came of it.
pub(crate) struct Watched {
    /// Nobody comes or goes.
    pub(crate) still: Outcome,
    /// Some do.
    pub(crate) moving: Outcome,
    /// Changes a second of some user, and presences told a second, while it was measured.
    pub(crate) changes_per_s: f64,
    pub(crate) told_per_s: f64,
}

#[derive(Debug, Default)]
struct Shared {
    moves: AtomicBool,
    ends: AtomicBool,
    said: AtomicU64,
    told: AtomicU64,
}

#[derive(Debug, Default)]
struct Crowd {
    told: u64,
    answered: u64,
}

impl Packets for Crowd {
    fn handle(&mut self, index: usize, first: u8, body: &[u8], _: Instant, _: &mut Vec<u8>) -> Result<()> {
        match first >> 4 {
            3 if first & 0x06 == 0 => self.told += 1,
            4 if body.get(2).is_none_or(|reason| *reason < 0x80) => self.answered += 1,
            _ => return Err(unexpected(index, "a presence, or a PUBACK that accepts", body)),
        }
        Ok(())
    }
}

/// Everybody watches the next ones; connection i of `net` is user i's.
pub(crate) fn watch(plan: &Plan, net: &mut Net) -> Result<()> {
    let mut crowd = Crowd::default();
    let (deadline, count) = (Instant::now() + WATCHED_MAX, plan.users.len());
    for from in (0..plan.watches).step_by(UNANSWERED) {
        let upto = (from + UNANSWERED).min(plan.watches);
        let before = crowd.answered;
        for (index, user) in plan.users.iter().enumerate() {
            let Some(output) = net.output(index) else { continue };
            for by in from..upto {
                let Some(other) = plan.users.get((index + by + 1) % count) else { continue };
                let payload = format!(r#"{{"status":"watch","chat":"{other}"}}"#);
                let id = u16::try_from(by % 60_000).unwrap_or(0) + 1;
                mqtt::write_publish(output, true, &topic(user, DEVICE, "outbox"), id, payload.as_bytes());
            }
            net.flush(index)?;
        }
        while crowd.answered < before + (count * (upto - from)) as u64 {
            net.turn(LOOK, &mut crowd)?;
            if Instant::now() > deadline {
                bail!("watches: {} are answered, and nothing more comes", crowd.answered);
            }
        }
    }
    // What is told of each at once, and of those who came later.
    while crowd.told < crowd.answered {
        net.turn(LOOK, &mut crowd)?;
        if Instant::now() > deadline {
            bail!("watches: expected {} presences, got {}", crowd.answered, crowd.told);
        }
    }
    Ok(())
}

/// Runs `pairs` twice beside the crowd: while nobody comes or goes, and while some do.
pub(crate) fn run(
    plan: &Plan,
    crowd: &mut Net,
    pairs: &pairs::Plan,
    net: &mut Net,
    progress: &mut Progress,
) -> Result<Watched> {
    let shared = Shared::default();
    thread::scope(|scope| {
        let thread = scope.spawn(|| live(plan, crowd, &shared));
        let measured = (|| {
            let still = pairs::run::<Natter>(pairs, net, progress)?;
            shared.moves.store(true, Ordering::Relaxed);
            thread::sleep(FIRST);
            let (begun, said, told) = (Instant::now(), read(&shared.said), read(&shared.told));
            let moving = pairs::run::<Natter>(&pairs::Plan { run: pairs.run + 1, ..pairs.clone() }, net, progress)?;
            let secs = begun.elapsed().as_secs_f64();
            let a_second = |now: u64, before: u64| (now - before) as f64 / secs;
            let changes_per_s = a_second(read(&shared.said), said);
            Ok(Watched { still, moving, changes_per_s, told_per_s: a_second(read(&shared.told), told) })
        })();
        shared.ends.store(true, Ordering::Relaxed);
        thread.join().unwrap_or_else(|_| bail!("the thread of those who watch has panicked"))?;
        measured
    })
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What the crowd does until it is told to end.
fn live(plan: &Plan, net: &mut Net, shared: &Shared) -> Result<()> {
    // So many say a word each turn.
    let moving = ((plan.changes_per_s * TURN).ceil() as usize).min(plan.users.len());
    let mut crowd = Crowd::default();
    let (mut begun, mut said) = (None, 0_usize);
    while !shared.ends.load(Ordering::Relaxed) {
        net.turn(LOOK, &mut crowd)?;
        shared.told.store(crowd.told, Ordering::Relaxed);
        if !shared.moves.load(Ordering::Relaxed) || moving == 0 {
            continue;
        }
        let begun = *begun.get_or_insert_with(Instant::now);
        let due = (begun.elapsed().as_secs_f64() * moving as f64 / TURN) as usize;
        while said < due {
            let index = said % moving;
            // Half of them begin with a word that changes nothing: so some come while others go, at any time.
            let word = if (said / moving + index).is_multiple_of(2) { "unavailable" } else { "available" };
            if let (Some(user), Some(output)) = (plan.users.get(index), net.output(index)) {
                mqtt::write_live(
                    output,
                    true,
                    &topic(user, DEVICE, "outbox"),
                    format!(r#"{{"status":"{word}"}}"#).as_bytes(),
                );
            }
            net.flush(index)?;
            said += 1;
        }
        shared.said.store(said as u64, Ordering::Relaxed);
    }
    Ok(())
}
