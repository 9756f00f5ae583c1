//! Conducts a run: starts everything, lets messages and faults fly, makes peace, and waits until all has arrived.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Torture;
use super::check::{Judgement, check};
use super::client::{DRAINING, READING, SENDING, Status};
use super::history::{Device, History};
use super::host::Line;
use super::hosts::Hosts;
use super::journal;
use super::nemesis::{Nemesis, World};
use super::plan::{self, Plan, user_name};
use super::progress::Progress;
use super::proxy::Proxy;
use super::random::Random;
use super::sdk;
use super::server::{Peak, Server};

/// How often the conductor looks.
const STEP: Duration = Duration::from_millis(20);
/// How often it measures the server.
const MEASURE: Duration = Duration::from_millis(200);
/// How long all devices may take to subscribe at first.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(60);
/// While a device is so many messages behind, nobody sends new ones: what is left to drain at the end has a bound too.
const LAG_MAX: u64 = 10_000;
/// What comes twice may come late.
const QUIET: Duration = Duration::from_secs(1);
/// How long a run by count may take for a message and for a kill, and beside these.
const MESSAGE_MAX: Duration = Duration::from_millis(10);
const KILL_MAX: Duration = Duration::from_secs(15);
const RUN_MAX: Duration = Duration::from_secs(60);

/// The memory that a server may use, in MiB.
const RSS_MIB_MAX: u64 = 512;
/// How large its write-ahead log may become, in MiB.
const WAL_MIB_MAX: u64 = 128;
/// Its file descriptors, beside four for each device.
const FDS_MAX: usize = 64;

/// A [`World`] of a conductor's parts, so that its nemesis can be borrowed beside it.
macro_rules! world {
    ($conductor:expr) => {
        World {
            plan: &$conductor.plan,
            server: &mut $conductor.server,
            hosts: &mut $conductor.hosts,
            proxy: &$conductor.proxy,
        }
    };
}

/// How a run went.
pub(crate) struct Outcome {
    pub(crate) judgement: Judgement,
    pub(crate) kills: u32,
    pub(crate) client_kills: u32,
    pub(crate) faults: u32,
    pub(crate) connections: usize,
    pub(crate) sending: Duration,
    /// From the last fault until everything had arrived and was read.
    pub(crate) draining: Duration,
    pub(crate) peak: Peak,
}

/// A run in progress.
pub(crate) struct Conductor<'a> {
    options: &'a Torture,
    dir: &'a Path,
    plan: Plan,
    server: Server,
    hosts: Hosts,
    proxy: Proxy,
    nemesis: Nemesis,
    random: Random,
    progress: Progress,
    measured: Instant,
    /// Somebody is too far behind.
    holding: bool,
}

impl<'a> Conductor<'a> {
    /// Prepares a run in `dir`, which is there and empty.
    pub(crate) fn new(options: &'a Torture, dir: &'a Path) -> Result<Self> {
        let mut server = Server::new(std::env::current_exe().context("the program itself")?, dir);
        let proxy = Proxy::start()?;
        proxy.lead_to(server.start()?);
        let mut tokens = Vec::new();
        for user in (0..options.pairs * 2).map(user_name) {
            server.ask(&["user", "add", &user])?;
            tokens.push(server.ask(&["token", &user])?);
        }
        let Torture { seed, devices, hosts, sdk, .. } = *options;
        let messages = options.messages_max();
        let plan = Plan { seed, port: proxy.port, tokens, devices, sdk, hosts, messages };
        plan.save(dir)?;
        let hosts = Hosts::new(dir, &plan);
        let nemesis = Nemesis::new(dir, seed, plan.tokens.len(), options.kinds(), options.kills)?;
        let (random, progress) = (Random::new(seed, 1), Progress::new());
        let (measured, holding) = (Instant::now(), false);
        Ok(Self { options, dir, plan, server, hosts, proxy, nemesis, random, progress, measured, holding })
    }

    /// The whole run.
    pub(crate) fn conduct(mut self) -> Result<Outcome> {
        (0..self.plan.hosts).try_for_each(|host| self.hosts.start(host))?;
        let deadline = Instant::now() + SUBSCRIBE_MAX;
        if !self.wait("subscribing", deadline, |statuses| statuses.iter().all(|status| status.subscribed))? {
            bail!("not every device could subscribe");
        }
        let sending = self.send()?;
        self.nemesis.heal(&mut world!(self))?;
        let mut stuck = self.unsent();
        let (not_drained, draining) = self.drain()?;
        stuck.extend(not_drained);
        self.hosts.finish()?;
        self.progress.end()?;
        let mut judgement = Judgement::default();
        for (device, text) in stuck {
            judgement.stuck(device, &text);
        }
        self.judge(&mut judgement)?;
        let peak = std::mem::take(&mut self.server.peak);
        bound(&peak, self.plan.all() as usize, &mut judgement);
        let Nemesis { kills, client_kills, faults, .. } = self.nemesis;
        Ok(Outcome {
            judgement,
            kills,
            client_kills,
            faults,
            connections: self.proxy.opened(),
            sending,
            draining,
            peak,
        })
    }

    /// Faults while messages are sent; how long it took.
    fn send(&mut self) -> Result<Duration> {
        let sending = Instant::now();
        let (kills, messages) = (self.options.kills, self.plan.messages);
        let by_count = RUN_MAX + MESSAGE_MAX * messages.unwrap_or(0) + KILL_MAX * kills;
        let limit = self.options.seconds.map_or(by_count, Duration::from_secs);
        self.allow()?;
        self.hosts.order(Line::Phase(SENDING))?;
        let mut threshold = self.threshold();
        loop {
            let statuses = self.hosts.statuses();
            let answered: u64 = statuses.iter().map(|status| status.answered).sum();
            let by_time = sending.elapsed().as_secs_f64() / limit.as_secs_f64();
            let part = match messages {
                Some(messages) if self.options.seconds.is_none() => answered as f64 / f64::from(messages.max(1)),
                Some(messages) => by_time.max(answered as f64 / f64::from(messages.max(1))),
                None => by_time,
            };
            let all = messages.is_some_and(|messages| answered >= messages.into());
            if (all && self.nemesis.kills >= kills) || sending.elapsed() >= limit {
                return Ok(sending.elapsed());
            }
            let before = self.nemesis.kills;
            if before < kills && part >= threshold {
                self.nemesis.kill_server(&mut world!(self))?;
            }
            self.nemesis.step(&mut world!(self))?;
            let lag = lag(&statuses, self.plan.devices as usize);
            let holding = lag > if self.holding { LAG_MAX / 2 } else { LAG_MAX };
            if self.nemesis.kills != before {
                threshold = self.threshold();
            }
            if self.nemesis.kills != before || holding != self.holding {
                self.holding = holding;
                self.allow()?;
            }
            let text = format!(
                "answered={answered} kills={} client_kills={} faults={} connections={}",
                self.nemesis.kills,
                self.nemesis.client_kills,
                self.nemesis.faults,
                self.proxy.opened()
            );
            self.step(part, &text)?;
        }
    }

    /// The part of the run at which the server is killed next.
    fn threshold(&mut self) -> f64 {
        let within = 0.3 + 0.6 * (self.random.below(1000) as f64 / 1000.0);
        (f64::from(self.nemesis.kills) + within) / f64::from(self.options.kills + 1)
    }

    /// Messages wait for who is too far behind, and for kills: each kill is in the middle of its share of them.
    fn allow(&mut self) -> Result<()> {
        if self.holding {
            return self.hosts.order(Line::Limit(0));
        }
        let Some(messages) = self.plan.messages else { return self.hosts.order(Line::Limit(u32::MAX)) };
        let each = u64::from(messages.div_ceil(self.plan.all().max(1)));
        let limit = (each * (u64::from(self.nemesis.kills) + 1)).div_ceil(u64::from(self.options.kills) + 1);
        self.hosts.order(Line::Limit(u32::try_from(limit).unwrap_or(u32::MAX)))
    }

    /// The devices that did not send their share, in a run by count.
    fn unsent(&self) -> Vec<(u32, String)> {
        let statuses = self.hosts.statuses();
        let shares = (0_u32..).zip(&statuses).map(|(index, status)| (index, self.plan.place(index).quota, status.sent));
        let by_count = self.plan.messages.is_some() && self.options.seconds.is_none();
        let unsent = shares.filter(|(_, quota, sent)| by_count && *sent < (*quota).into());
        unsent.map(|(index, quota, sent)| (index, format!("{sent} of {quota} messages are sent"))).collect()
    }

    /// Waits until all is acknowledged, received and read; the devices that are not so far in time, and how long
    /// it took.
    fn drain(&mut self) -> Result<(Vec<(u32, String)>, Duration)> {
        let devices = self.plan.devices as usize;
        let peace = Instant::now();
        let deadline = peace + Duration::from_secs(self.options.drain);
        self.hosts.order(Line::Phase(DRAINING))?;
        self.wait("draining", deadline, |statuses| late(statuses, devices).is_empty())?;
        self.hosts.order(Line::Phase(READING))?;
        self.wait("reading", deadline, |statuses| unread(statuses, devices).is_empty())?;
        let draining = peace.elapsed();
        self.wait("quiet", Instant::now() + QUIET, |_| false)?;
        let statuses = self.hosts.statuses();
        let stuck = [late(&statuses, devices), unread(&statuses, devices)].concat();
        Ok((stuck, draining))
    }

    /// `false`: it did not come true in time.
    fn wait(&mut self, what: &str, deadline: Instant, done: impl Fn(&[Status]) -> bool) -> Result<bool> {
        loop {
            if done(&self.hosts.statuses()) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.step(1.0, what)?;
        }
    }

    fn step(&mut self, part: f64, text: &str) -> Result<()> {
        sleep(STEP);
        if self.measured.elapsed() >= MEASURE {
            self.measured = Instant::now();
            self.server.measure();
            self.hosts.look()?;
        }
        if self.server.has_ended() {
            bail!("the server ended by itself, see {}", self.dir.join("server.log").display());
        }
        Ok(self.progress.tell(part, text)?)
    }

    /// Pair by pair: no more than one conversation is in memory.
    fn judge(&self, judgement: &mut Judgement) -> Result<()> {
        let devices = self.plan.devices;
        for pair in 0..self.options.pairs {
            let first = pair * 2 * devices;
            let mut history = History { first, devices: Vec::new() };
            for index in first..first + 2 * devices {
                let place = self.plan.place(index);
                let events = if place.is_sdk {
                    sdk::read(self.dir, index)?
                } else {
                    let path = plan::journal(self.dir, index);
                    journal::read(&path).with_context(|| path.display().to_string())?.0
                };
                history.devices.push(Device { user: place.user, is_sdk: place.is_sdk, events });
            }
            check(&history, judgement);
        }
        Ok(())
    }
}

/// How many messages the device that is most behind has not received.
fn lag(statuses: &[Status], devices: usize) -> u64 {
    let lags = statuses.chunks(devices * 2).flat_map(|pair| {
        let sent: u64 = pair.iter().map(|status| status.sent).sum();
        pair.iter().map(move |status| (sent - status.sent).saturating_sub(status.taken))
    });
    lags.max().unwrap_or(0)
}

/// The devices that have messages without an answer, or have not received all that they should.
fn late(statuses: &[Status], devices: usize) -> Vec<(u32, String)> {
    let mut late = Vec::new();
    for (pair, statuses) in statuses.chunks(devices * 2).enumerate() {
        let sent: u64 = statuses.iter().map(|status| status.sent).sum();
        for (index, status) in statuses.iter().enumerate() {
            let index = u32::try_from(pair * devices * 2 + index).unwrap_or(u32::MAX);
            if status.settled < DRAINING {
                late.push((index, format!("{} of {} messages are answered", status.answered, status.sent)));
            } else if status.taken < sent - status.sent {
                late.push((index, format!("{} of {} messages are received", status.taken, sent - status.sent)));
            }
        }
    }
    late
}

/// The devices that do not know that all its user's messages are read.
fn unread(statuses: &[Status], devices: usize) -> Vec<(u32, String)> {
    let newest = |user: &[Status]| user.iter().map(|status| status.theirs).max().unwrap_or(0);
    let mut unread = Vec::new();
    for (pair, statuses) in statuses.chunks(devices * 2).enumerate() {
        let (a, b) = statuses.split_at(devices.min(statuses.len()));
        let sides = a.iter().map(|status| (status, newest(b))).chain(b.iter().map(|status| (status, newest(a))));
        for (index, (status, upto)) in sides.enumerate().filter(|(_, (status, upto))| status.read < *upto) {
            let index = u32::try_from(pair * devices * 2 + index).unwrap_or(u32::MAX);
            unread.push((index, format!("knows that {} of {upto} is read", status.read)));
        }
    }
    unread
}

/// Looks that the server stayed within its bounds.
fn bound(peak: &Peak, devices: usize, judgement: &mut Judgement) {
    let mib = 1024 * 1024;
    let fds_max = FDS_MAX + 4 * devices;
    for (what, most, got) in [
        ("MiB of memory", RSS_MIB_MAX, peak.rss_kib / 1024),
        ("MiB of write-ahead log", WAL_MIB_MAX, peak.wal_bytes / mib),
        ("file descriptors", fds_max as u64, peak.fds as u64),
    ] {
        if got > most {
            judgement.unbounded(&format!("the server: expected at most {most} {what}, got {got}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_waits_for_answers_for_entries_and_for_what_is_read() {
        let status = |sent, taken, theirs, read| {
            let settled = DRAINING;
            Status { subscribed: true, sent, answered: sent, settled, taken, theirs, read }
        };
        // Two users with a device each: 3 and 2 messages.
        let done = [status(3, 2, 5, 4), status(2, 3, 4, 5)];
        assert_eq!((lag(&done, 1), lag(&[status(3, 2, 5, 4), status(2, 1, 4, 5)], 1)), (0, 2));
        assert!(late(&done, 1).is_empty() && unread(&done, 1).is_empty());
        let change = |index: usize, change: fn(&mut Status)| {
            let mut statuses = [done, done].concat();
            change(&mut statuses[index]);
            let devices = |stuck: Vec<(u32, String)>| stuck.into_iter().map(|(device, _)| device).collect::<Vec<_>>();
            (devices(late(&statuses, 1)), devices(unread(&statuses, 1)))
        };
        assert_eq!(change(1, |status| status.settled = SENDING), (vec![1], vec![]));
        assert_eq!(change(2, |status| status.taken = 1), (vec![2], vec![]));
        assert_eq!(change(3, |status| status.read = 4), (vec![], vec![3]));
    }

    #[test]
    fn what_is_above_its_bound_is_told() {
        let mut judgement = Judgement::default();
        let mut peak = Peak { rss_kib: RSS_MIB_MAX * 1024, wal_bytes: 0, fds: FDS_MAX + 8 };
        bound(&peak, 2, &mut judgement);
        assert!(judgement.verdict.is_clean());
        peak.rss_kib += 1024;
        bound(&peak, 2, &mut judgement);
        peak.fds += 1;
        bound(&peak, 2, &mut judgement);
        assert_eq!(judgement.verdict.unbounded, 3, "{:?}", judgement.words);
    }
}
