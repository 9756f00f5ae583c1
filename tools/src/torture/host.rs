//! A process that hosts a share of the devices, and may be killed at any instant.
//!
//! It reads orders from stdin, a line each, and ends when stdin does. A few times a second it prints a line for each device.

use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::client::{Client, Order, Shared, Status};
use super::plan::Plan;
use super::sdk::SdkDevice;

/// How often it says how far its devices are.
const TELL: Duration = Duration::from_millis(100);

/// A line of stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Phase(u8),
    Limit(u32),
    Device(u32, Order),
}

impl Line {
    pub(crate) fn write(self) -> String {
        let (device, word, time) = match self {
            Self::Phase(phase) => return format!("phase {phase}\n"),
            Self::Limit(limit) => return format!("limit {limit}\n"),
            Self::Device(device, Order::Cut) => (device, "cut", Duration::ZERO),
            Self::Device(device, Order::Reset) => (device, "reset", Duration::ZERO),
            Self::Device(device, Order::Takeover) => (device, "takeover", Duration::ZERO),
            Self::Device(device, Order::Slow(time)) => (device, "slow", time),
            Self::Device(device, Order::Away(time)) => (device, "away", time),
        };
        format!("{word} {device} {}\n", time.as_millis())
    }

    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (word, number) = (words.next()?, words.next()?.parse().ok()?);
        let time = words.next().and_then(|word| word.parse().ok()).map(Duration::from_millis);
        Some(match (word, time) {
            ("phase", None) => Self::Phase(u8::try_from(number).ok()?),
            ("limit", None) => Self::Limit(number),
            ("cut", Some(_)) => Self::Device(number, Order::Cut),
            ("reset", Some(_)) => Self::Device(number, Order::Reset),
            ("takeover", Some(_)) => Self::Device(number, Order::Takeover),
            ("slow", Some(time)) => Self::Device(number, Order::Slow(time)),
            ("away", Some(time)) => Self::Device(number, Order::Away(time)),
            _ => return None,
        })
    }
}

/// A line of stdout: how far a device is.
pub(crate) fn write_status(index: u32, status: &Status) -> String {
    let Status { subscribed, sent, answered, settled, taken, theirs, read } = status;
    format!("{index} {} {sent} {answered} {settled} {taken} {theirs} {read}\n", u8::from(*subscribed))
}

pub(crate) fn read_status(line: &str) -> Option<(u32, Status)> {
    let mut words = line.split_whitespace().map(str::parse::<u64>);
    let mut next = || words.next()?.ok();
    let index = u32::try_from(next()?).ok()?;
    let status = Status {
        subscribed: next()? == 1,
        sent: next()?,
        answered: next()?,
        settled: u8::try_from(next()?).ok()?,
        taken: next()?,
        theirs: u32::try_from(next()?).ok()?,
        read: u32::try_from(next()?).ok()?,
    };
    Some((index, status))
}

/// Hosts the devices of host number `host` of the run in `dir`.
///
/// # Errors
/// When the plan or a journal cannot be read or written.
pub(crate) fn run(dir: &Path, host: u32) -> Result<()> {
    let plan = Plan::load(dir)?;
    let mine: Vec<u32> = (0..plan.all()).filter(|index| plan.host_of(*index) == host).collect();
    let shared = Shared { plan, phase: AtomicU8::new(0), limit: AtomicU32::new(0), finish: AtomicBool::new(false) };
    let statuses: Vec<Mutex<Status>> = mine.iter().map(|_| Mutex::default()).collect();
    let mut orders = Vec::new();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, status) in mine.iter().zip(&statuses) {
            let (sender, receiver) = channel();
            orders.push((*index, sender));
            let place = shared.plan.place(*index);
            let shared = &shared;
            threads.push(scope.spawn(move || {
                let lived = if place.is_sdk {
                    SdkDevice::open(dir, place, shared, status, receiver).and_then(SdkDevice::run)
                } else {
                    let client = Client::open(dir, place, shared, status, receiver);
                    client.and_then(Client::run).map_err(anyhow::Error::from)
                };
                if let Err(error) = lived.with_context(|| format!("device {index}")) {
                    // Nothing that is not in its journal may leave: the whole host ends.
                    let _no_stderr = writeln!(io::stderr(), "host {host}, device {index}: {error:#}");
                    std::process::exit(1);
                }
            }));
        }
        let told = scope.spawn(|| tell(&shared, &mine, &statuses));
        let listened = listen(&shared, &orders);
        shared.finish.store(true, SeqCst);
        for thread in threads {
            thread.join().map_err(|_| anyhow!("the thread of a device panicked"))?;
        }
        told.join().map_err(|_| anyhow!("the thread that tells panicked"))?;
        listened
    })
}

/// Takes orders until stdin ends.
fn listen(shared: &Shared, orders: &[(u32, Sender<Order>)]) -> Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line.context("stdin")?;
        match Line::read(&line) {
            Some(Line::Phase(phase)) => shared.phase.store(phase, SeqCst),
            Some(Line::Limit(limit)) => shared.limit.store(limit, SeqCst),
            Some(Line::Device(device, order)) => {
                if let Some((_, sender)) = orders.iter().find(|(index, _)| *index == device) {
                    // A device whose thread has ended ends the host.
                    let _ended = sender.send(order);
                }
            }
            None => bail!("stdin: expected an order of the conductor, got {line:?}"),
        }
    }
    Ok(())
}

fn tell(shared: &Shared, mine: &[u32], statuses: &[Mutex<Status>]) {
    while !shared.finish.load(SeqCst) {
        let mut lines = String::new();
        for (index, status) in mine.iter().zip(statuses) {
            lines.push_str(&write_status(*index, &status.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        let mut stdout = io::stdout().lock();
        if stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            // Nobody listens: stdin has ended, or is about to.
            return;
        }
        drop(stdout);
        thread::sleep(TELL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let time = Duration::from_millis(1500);
        for order in [Order::Cut, Order::Reset, Order::Takeover, Order::Slow(time), Order::Away(time)] {
            let line = Line::Device(7, order);
            assert_eq!(Line::read(&line.write()), Some(line));
        }
        assert_eq!(Line::read(&Line::Phase(2).write()), Some(Line::Phase(2)));
        assert_eq!(Line::read(&Line::Limit(9).write()), Some(Line::Limit(9)));
        assert_eq!(Line::read("cut"), None);
        let status = Status { subscribed: true, sent: 1, answered: 2, settled: 3, taken: 4, theirs: 5, read: 6 };
        assert_eq!(read_status(&write_status(8, &status)), Some((8, status)));
        assert_eq!(read_status("8 1 2"), None);
    }
}
