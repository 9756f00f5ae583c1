//! `natter torture`: real servers and real clients, killed, paused and cut while they talk; then the history is judged.

pub mod check;
mod client;
pub mod history;
mod mqtt;
mod random;
mod server;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use check::{Verdict, check};
use client::{CRASH, CUT, Client, Plan, RESET, SLOW, Shared, Slot, user_name};
use history::{Device, History};
use random::Random;
use server::{Peak, Server};

/// How often the conductor looks.
const STEP: Duration = Duration::from_millis(20);
/// How long everything may take to arrive after the last fault.
const DRAIN_MAX: Duration = Duration::from_secs(90);
/// How long a run by count may take for a message and for a kill, and beside these.
const MESSAGE_MAX: Duration = Duration::from_millis(5);
const KILL_MAX: Duration = Duration::from_secs(5);
const RUN_MAX: Duration = Duration::from_secs(60);

/// What `natter torture` can be told.
#[derive(Debug, Clone, Args)]
pub struct Torture {
    /// How many messages to send [default: 10000, or no limit with --seconds]
    #[arg(long)]
    messages: Option<u32>,
    /// How long to send
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// How often the server is killed (SIGKILL)
    #[arg(long, default_value_t = 5)]
    kills: u32,
    /// Pairs of users that write to each other
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pairs: u32,
    /// Devices of each user
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    devices: u32,
    /// What the faults and the messages follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the server's data directory
    #[arg(long)]
    keep: bool,
}

/// Runs it: the line on stdout, and exit code 1 if anything in it is not as it must be.
///
/// # Errors
/// When the server cannot be started or prepared; not when messages are lost.
pub fn run(options: &Torture, data: Option<PathBuf>) -> Result<ExitCode> {
    let keep = options.keep || data.is_some();
    let data = data.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("natter-torture-{}-{}", std::process::id(), options.seed))
    });
    if data.exists() {
        bail!("{}: the data directory of a torture run must be a new one", data.display());
    }
    let result = Conductor::new(options, data.clone()).and_then(Conductor::conduct);
    if !keep {
        let _left_over = std::fs::remove_dir_all(&data);
    }
    let (verdict, line) = result?;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Conductor<'a> {
    options: &'a Torture,
    server: Server,
    random: Random,
    port: u16,
    tokens: Vec<String>,
    messages: u32,
    kills: u32,
    told: Instant,
}

impl<'a> Conductor<'a> {
    fn new(options: &'a Torture, data: PathBuf) -> Result<Self> {
        let mut server = Server::new(std::env::current_exe().context("the program itself")?, data);
        let port = server.start()?;
        let mut tokens = Vec::new();
        for user in (0..options.pairs * 2).map(user_name) {
            server.ask(&["user", "add", &user])?;
            tokens.push(server.ask(&["token", &user])?);
        }
        let messages = options.messages.unwrap_or(if options.seconds.is_some() { u32::MAX } else { 10_000 });
        let random = Random::new(options.seed, 0);
        Ok(Self { options, server, random, port, tokens, messages, kills: 0, told: Instant::now() })
    }

    fn conduct(mut self) -> Result<(Verdict, String)> {
        let shared = Shared {
            start: Instant::now(),
            port: AtomicU16::new(self.port),
            seed: self.options.seed,
            stop_sending: AtomicBool::new(true),
            read_all: AtomicBool::new(false),
            finish: AtomicBool::new(false),
            acked: AtomicU64::new(0),
        };
        let slots: Vec<Slot> = (0..self.options.pairs * 2 * self.options.devices).map(|_| Slot::default()).collect();
        let (history, sending) = thread::scope(|scope| {
            let mut threads = Vec::new();
            for (index, slot) in (0_u32..).zip(&slots) {
                let client = Client::new(self.plan(index), &shared, slot);
                threads.push(scope.spawn(move || client.run()));
            }
            let sending = self.drive(&shared, &slots);
            shared.finish.store(true, SeqCst);
            let mut devices = Vec::new();
            for (index, thread) in (0_u32..).zip(threads) {
                let events = thread.join().map_err(|_| anyhow::anyhow!("a client's thread panicked"))?;
                devices.push(Device { user: index / self.options.devices, events });
            }
            sending.map(|sending| (History { devices }, sending))
        })?;
        let verdict = check(&history);
        let line = self.line(&verdict, sending);
        Ok((verdict, line))
    }

    fn plan(&self, index: u32) -> Plan {
        let devices = self.options.devices;
        let (user, device) = (index / devices, index % devices);
        let all = self.options.pairs * 2 * devices;
        let quota = if self.messages == u32::MAX {
            u32::MAX
        } else {
            self.messages / all + u32::from(index < self.messages % all)
        };
        let token = self.tokens.get(user as usize).cloned().unwrap_or_default();
        let (v5, clean) = ((user + device).is_multiple_of(2), (index / 2).is_multiple_of(2));
        Plan { index, user, device, devices, v5, clean, quota, token }
    }

    /// The run: faults while messages are sent, then peace until all has arrived. How long sending took.
    fn drive(&mut self, shared: &Shared, slots: &[Slot]) -> Result<Duration> {
        self.wait(shared, Instant::now() + Duration::from_secs(30), || {
            slots.iter().all(|slot| slot.ready.load(SeqCst))
        })?;
        if !slots.iter().all(|slot| slot.ready.load(SeqCst)) {
            bail!("not every device could subscribe");
        }
        shared.stop_sending.store(false, SeqCst);
        slots.iter().for_each(|slot| slot.done.store(false, SeqCst));
        let sending = Instant::now();
        let by_count = RUN_MAX + MESSAGE_MAX * self.messages.min(10_000_000) + KILL_MAX * self.options.kills;
        let limit = self.options.seconds.map_or(by_count, Duration::from_secs);
        let mut next = sending;
        loop {
            let part = f64::from(u32::try_from(shared.acked.load(SeqCst)).unwrap_or(u32::MAX))
                / f64::from(self.messages.max(1));
            let part = match self.options.seconds {
                Some(_) => part.max(sending.elapsed().as_secs_f64() / limit.as_secs_f64()),
                None => part,
            };
            let sent_all = slots.iter().all(|slot| slot.done.load(SeqCst));
            if (sent_all && self.messages != u32::MAX) || sending.elapsed() >= limit {
                break;
            }
            if self.kills < self.options.kills
                && part * f64::from(self.options.kills + 1) >= f64::from(self.kills) + 0.5
            {
                self.kill(shared)?;
            } else if Instant::now() >= next {
                next = Instant::now() + Duration::from_millis(100 + self.random.below(400));
                self.disturb(slots)?;
            }
            self.step(shared)?;
        }
        shared.stop_sending.store(true, SeqCst);
        let took = sending.elapsed();
        let devices = self.options.devices as usize;
        let deadline = Instant::now() + DRAIN_MAX;
        self.wait(shared, deadline, || arrived(slots, devices))?;
        shared.read_all.store(true, SeqCst);
        self.wait(shared, deadline, || all_read(slots, devices))?;
        // What comes twice may come late.
        let quiet = Instant::now() + Duration::from_secs(1);
        self.wait(shared, quiet, || false)?;
        Ok(took)
    }

    fn wait(&mut self, shared: &Shared, deadline: Instant, done: impl Fn() -> bool) -> Result<()> {
        while !done() && Instant::now() < deadline {
            self.step(shared)?;
        }
        Ok(())
    }

    fn step(&mut self, shared: &Shared) -> Result<()> {
        sleep(STEP);
        self.server.measure();
        if !self.server.runs() {
            bail!("the server ended by itself");
        }
        if self.told.elapsed() >= Duration::from_secs(5) {
            self.told = Instant::now();
            let (acked, time) = (shared.acked.load(SeqCst), shared.start.elapsed().as_secs());
            writeln!(std::io::stderr(), "{time} s: acked={acked} kills={}", self.kills)?;
        }
        Ok(())
    }

    fn kill(&mut self, shared: &Shared) -> Result<()> {
        self.server.kill();
        self.kills += 1;
        sleep(Duration::from_millis(self.random.below(100)));
        shared.port.store(self.server.start()?, SeqCst);
        Ok(())
    }

    fn disturb(&mut self, slots: &[Slot]) -> Result<()> {
        let victim = usize::try_from(self.random.below(slots.len() as u64)).unwrap_or(0);
        match self.random.below(5) {
            0 => {
                let time = Duration::from_millis(20 + self.random.below(200));
                return self.server.pause(time);
            }
            order => {
                let order = [CUT, RESET, CRASH, SLOW].get(usize::try_from(order - 1).unwrap_or(0)).copied();
                if let Some(slot) = slots.get(victim) {
                    slot.order.store(order.unwrap_or(CUT), SeqCst);
                }
            }
        }
        Ok(())
    }

    fn line(&self, verdict: &Verdict, sending: Duration) -> String {
        let Torture { messages, seconds, kills, pairs, devices, seed, .. } = self.options;
        let rate = verdict.acked as f64 / sending.as_secs_f64().max(0.001);
        let Peak { rss_kib, wal_bytes, fds } = self.server.peak;
        let mut again = format!("natter torture --kills {kills} --pairs {pairs} --devices {devices} --seed {seed}");
        if let Some(messages) = messages {
            again.push_str(&format!(" --messages {messages}"));
        }
        if let Some(seconds) = seconds {
            again.push_str(&format!(" --seconds {seconds}"));
        }
        format!(
            "{verdict} kills={} messages/s={rate:.0} seed={seed} rss_max_mib={} wal_max_mib={} fds_max={fds} again=\"{again}\"",
            self.kills,
            rss_kib / 1024,
            wal_bytes / (1024 * 1024),
        )
    }
}

/// Whether every message is acknowledged, and with every device that should have it.
fn arrived(slots: &[Slot], devices: usize) -> bool {
    slots.chunks(devices * 2).all(|pair| {
        let sent: u64 = pair.iter().map(|slot| slot.sent.load(SeqCst)).sum();
        pair.iter()
            .all(|slot| slot.done.load(SeqCst) && slot.taken.load(SeqCst) >= sent - slot.sent.load(SeqCst).min(sent))
    })
}

/// Whether every device knows that all its user's messages are read.
fn all_read(slots: &[Slot], devices: usize) -> bool {
    let newest = |user: &[Slot]| user.iter().map(|slot| slot.theirs.load(SeqCst)).max().unwrap_or(0);
    slots.chunks(devices * 2).all(|pair| {
        let (a, b) = pair.split_at(devices.min(pair.len()));
        let knows = |user: &[Slot], upto| user.iter().all(|slot| slot.read.load(SeqCst) >= upto);
        knows(a, newest(b)) && knows(b, newest(a))
    })
}
