//! What goes wrong in a run, and when: from the seed, many things at a time.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::client::Order;
use super::clock;
use super::host::Line;
use super::hosts::Hosts;
use super::plan::Plan;
use super::proxy::{Fault, Link, Proxy};
use super::random::Random;
use super::server::Server;

/// A kind of fault, beside the kills of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// SIGSTOP, and SIGCONT later
    ServerPause,
    /// SIGKILL of a process that hosts clients
    ClientKill,
    /// SIGSTOP of one, and SIGCONT later
    ClientPause,
    /// Delays, partitions of one or both directions, slow links, cuts in the middle of a packet, resets
    Network,
    /// Clients disconnect and stay away; the last of three or more devices of a user is away most of the time
    Away,
    /// A second connection of the same client
    Takeover,
    /// Clients acknowledge late
    Slow,
}

/// The parts of a run that things happen to.
pub(crate) struct World<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) server: &'a mut Server,
    pub(crate) hosts: &'a mut Hosts,
    pub(crate) proxy: &'a Proxy,
}

/// What ends a fault.
enum Undo {
    StartServer,
    ResumeServer,
    StartHost(u32),
    ResumeHost(u32),
    Heal(Arc<Link>),
    Lighten,
}

/// The schedule.
pub(crate) struct Nemesis {
    random: Random,
    kinds: Vec<Kind>,
    /// Kinds that have not come since it was shuffled.
    deck: Vec<Kind>,
    next: Instant,
    undo: Vec<(Instant, Undo)>,
    /// When the next journey of the last device of each user begins.
    journeys: Vec<Instant>,
    log: File,
    kills_max: u32,
    pub(crate) kills: u32,
    pub(crate) client_kills: u32,
    pub(crate) faults: u32,
}

impl Nemesis {
    /// Writes what it does to a file in `dir`.
    pub(crate) fn new(dir: &Path, seed: u64, users: usize, kinds: Vec<Kind>, kills_max: u32) -> Result<Self> {
        let log = File::create(dir.join("nemesis.log")).context("nemesis.log")?;
        let now = Instant::now();
        Ok(Self {
            random: Random::new(seed, 0),
            kinds,
            deck: Vec::new(),
            next: now,
            undo: Vec::new(),
            journeys: vec![now; users],
            log,
            kills_max,
            kills: 0,
            client_kills: 0,
            faults: 0,
        })
    }

    /// Ends what is to end by now, and begins what is to begin.
    pub(crate) fn step(&mut self, world: &mut World<'_>) -> Result<()> {
        let now = Instant::now();
        for (_, undo) in self.undo.extract_if(.., |(due, _)| *due <= now).collect::<Vec<_>>() {
            self.end(undo, world)?;
        }
        if now >= self.next {
            self.next = now + self.millis(60, 300);
            self.begin(world)?;
        }
        self.travel(world)
    }

    /// Kills the server, unless it is down already; it starts again a moment later.
    pub(crate) fn kill_server(&mut self, world: &mut World<'_>) -> Result<()> {
        if self.undo.iter().any(|(_, undo)| matches!(undo, Undo::StartServer)) {
            return Ok(());
        }
        self.say("kill the server")?;
        world.server.kill();
        self.kills += 1;
        let down = if self.random.below(4) == 0 { self.millis(200, 1500) } else { self.millis(0, 100) };
        self.undo.push((Instant::now() + down, Undo::StartServer));
        Ok(())
    }

    /// Ends everything at once: peace.
    pub(crate) fn heal(&mut self, world: &mut World<'_>) -> Result<()> {
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.end(undo, world)?;
        }
        world.proxy.heal();
        self.say("peace")
    }

    fn end(&mut self, undo: Undo, world: &mut World<'_>) -> Result<()> {
        match undo {
            Undo::StartServer => {
                // Killed in its start too: while it replays its journal.
                while self.kills < self.kills_max && self.random.below(4) == 0 {
                    let life = self.millis(0, 60);
                    self.say(&format!("start the server, and kill it after {} ms", life.as_millis()))?;
                    world.server.start_in_vain(life)?;
                    self.kills += 1;
                }
                world.proxy.lead_to(world.server.start()?);
                self.say("the server is ready")
            }
            Undo::ResumeServer => {
                self.say("resume the server")?;
                world.server.pause(false)
            }
            Undo::StartHost(host) => {
                self.say(&format!("start host {host}"))?;
                world.hosts.start(host)
            }
            Undo::ResumeHost(host) => {
                self.say(&format!("resume host {host}"))?;
                world.hosts.pause(host, false)
            }
            Undo::Heal(link) => {
                link.heal();
                Ok(())
            }
            Undo::Lighten => {
                self.say("the network is there again")?;
                world.proxy.darken(false);
                Ok(())
            }
        }
    }

    fn begin(&mut self, world: &mut World<'_>) -> Result<()> {
        let Some(kind) = self.choose() else { return Ok(()) };
        self.faults += 1;
        let (host, device) = (self.below(world.plan.hosts), self.below(world.plan.all()));
        // Short ones are many, and long ones are not missing.
        let time = if self.random.below(5) == 0 { self.millis(500, 3500) } else { self.millis(10, 300) };
        let until = Instant::now() + time;
        let ms = time.as_millis();
        match kind {
            Kind::ServerPause => {
                self.say(&format!("pause the server for {ms} ms"))?;
                world.server.pause(true)?;
                self.undo.push((until, Undo::ResumeServer));
            }
            Kind::ClientKill => {
                self.say(&format!("kill host {host} for {ms} ms"))?;
                world.hosts.kill(host)?;
                self.client_kills += 1;
                self.undo.push((until, Undo::StartHost(host)));
            }
            Kind::ClientPause => {
                self.say(&format!("pause host {host} for {ms} ms"))?;
                world.hosts.pause(host, true)?;
                self.undo.push((until, Undo::ResumeHost(host)));
            }
            Kind::Network => self.break_network(world)?,
            Kind::Away => self.order(world, device, Order::Away(3 * time))?,
            Kind::Takeover => self.order(world, device, Order::Takeover)?,
            Kind::Slow => self.order(world, device, Order::Slow(time))?,
        }
        Ok(())
    }

    /// From a shuffled deck, so that every kind comes soon.
    fn choose(&mut self) -> Option<Kind> {
        if self.deck.is_empty() {
            for kind in &self.kinds {
                let cards = match kind {
                    Kind::Network => 4,
                    Kind::ClientKill => 2,
                    _ => 1,
                };
                self.deck.extend(std::iter::repeat_n(*kind, cards));
            }
        }
        let index = self.random.below(self.deck.len().max(1) as u64);
        let index = usize::try_from(index).ok().filter(|index| *index < self.deck.len())?;
        Some(self.deck.swap_remove(index))
    }

    fn break_network(&mut self, world: &World<'_>) -> Result<()> {
        let until = Instant::now() + self.millis(50, 4000);
        if self.random.below(20) == 0 {
            self.say("nothing passes the network")?;
            world.proxy.darken(true);
            let time = self.millis(50, 2500);
            self.undo.push((Instant::now() + time, Undo::Lighten));
            return Ok(());
        }
        let mut links = world.proxy.links();
        if links.is_empty() {
            return Ok(());
        }
        let link = links.swap_remove(usize::try_from(self.random.below(links.len() as u64)).unwrap_or(0));
        let fault = match self.random.below(7) {
            0 => Fault::Delay(self.below(2000)),
            1 => Fault::Delay(self.below(100)),
            2 => Fault::HoldOne,
            3 => Fault::HoldBoth,
            4 => Fault::Throttle(1000 + self.below(16_000)),
            5 => Fault::CutAfter(self.below(2000)),
            _ => Fault::Reset,
        };
        let up = self.random.below(2) == 0;
        self.say(&format!("{fault:?} on a link, {}", if up { "to the server" } else { "from the server" }))?;
        link.inflict(fault, up);
        self.undo.push((until, Undo::Heal(link)));
        Ok(())
    }

    /// The last device of each user that has three or more is away most of the time.
    fn travel(&mut self, world: &mut World<'_>) -> Result<()> {
        if world.plan.devices < 3 || !self.kinds.contains(&Kind::Away) {
            return Ok(());
        }
        let now = Instant::now();
        for user in 0..self.journeys.len() {
            if self.journeys.get(user).is_some_and(|next| *next <= now) {
                let (away, home) = (self.millis(2000, 6000), self.millis(300, 1500));
                if let Some(next) = self.journeys.get_mut(user) {
                    *next = now + away + home;
                }
                let user = u32::try_from(user).unwrap_or(0);
                self.order(world, (user + 1) * world.plan.devices - 1, Order::Away(away))?;
            }
        }
        Ok(())
    }

    fn order(&mut self, world: &mut World<'_>, device: u32, order: Order) -> Result<()> {
        self.say(&format!("device {device}: {order:?}"))?;
        world.hosts.order(Line::Device(device, order))
    }

    fn say(&mut self, text: &str) -> Result<()> {
        Ok(writeln!(self.log, "{} {text}", clock::now())?)
    }

    fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.random.below(end.into())).unwrap_or(0)
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.random.below(to - from))
    }
}
