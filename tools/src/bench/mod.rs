//! `natter bench`: measures a server from outside, with clients that share one thread: the generator takes its CPU time from the same
//! machine, so it must be lean.
//!
//! - `pairs` round trips, in a closed or an open loop · `drain` a backlog · `stored` entries for users who are not there ·
//!   `idle` connections that say nothing, in a process of their own · `presence` users who watch others · `status` one for many contacts,
//!   both set up in `beside`
//! - `net` the connections · `scan` what is read of an entry · `names` who takes part
//! - `target` the server · `friends` contacts · `process` what the kernel says of it · `report`, `crowd` what is printed

mod beside;
mod crowd;
mod drain;
mod friends;
mod idle;
mod names;
mod net;
mod pairs;
mod presence;
mod process;
mod report;
mod scan;
mod status;
mod stored;
mod target;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::torture::child::die_with;
use crate::torture::progress::Progress;
use names::Cast;
use net::{Login, Net};
use pairs::{DEVICE, IN_FLIGHT_MAX};
use process::{Cpu, Machine, rss_kib};
use report::{Around, BacklogReport, PairsReport, Setup};
use target::Target;

/// Entries that are stored for one user, if nothing is said.
const STORED_EACH: u64 = 1000;
/// Entries of a backlog: what one user's inbox takes of few chats, half of `inbox_entries_max`.
const BACKLOG_MAX: u64 = 200_000;

/// What `natter bench` can be told.
#[derive(Debug, Clone, Args)]
pub struct Bench {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Clone, Subcommand)]
enum Scenario {
    /// Round trips: a message, and the receipt that its sender gets when the other device has it
    Pairs(PairsOptions),
    /// Entries that wait for one user, taken by one device as fast as it can
    Backlog(BacklogOptions),
    /// Users who watch some others each, beside pairs, while nobody and while some come and go
    Presence(beside::PresenceOptions),
    /// A status for many contacts, once a second, beside pairs
    Status(beside::StatusOptions),
    /// Holds idle connections
    #[command(hide = true)]
    IdleHost { parent: u32, address: SocketAddr },
    /// Becomes another program, and is killed when `parent` ends
    #[command(hide = true)]
    Child {
        parent: u32,
        program: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Without --server it starts a server of its own, in a temporary directory or in --data, which must be new then. With \
    --server, --data is that server's data directory: users and tokens are made there."
)]
struct Common {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// What names follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes of a text
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    text: u32,
    /// Measure a server that runs already
    #[arg(long, value_name = "IP:PORT")]
    server: Option<SocketAddr>,
    /// Its process, for CPU and memory
    #[arg(long, requires = "server")]
    pid: Option<u32>,
    /// Its admin listener, to see when it has settled what was stored
    #[arg(long, value_name = "IP:PORT", requires = "server")]
    admin: Option<SocketAddr>,
}

#[derive(Debug, Clone, Args)]
struct PairsOptions {
    /// Pairs of users, of whom one writes and one receives
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    pairs: u32,
    /// Messages of a pair on their way (closed loop)
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    in_flight: u32,
    /// Messages a second in all, whatever becomes of them (open loop): latencies count from when each should have been sent
    #[arg(long, value_parser = parse_rate, conflicts_with = "in_flight")]
    rate: Option<f64>,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// How long to run before, in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    warmup: u32,
    /// Connections that subscribe and say nothing, beside
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=15_000))]
    idle: u32,
    /// So many of the idle connections are dropped when the measurement begins, and come back, all at once
    #[arg(long, default_value_t = 0, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(0..=15_000))]
    storm: u32,
    /// Users in all [default: as many as have a part]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    users: Option<u64>,
    /// Entries to store, before, for users who are not there
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    stored: u64,
    /// For how many users [default: one for 1,000 entries]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    stored_users: Option<u64>,
    /// Measure mosquitto instead, as a relay that stores nothing: the receiving client publishes the receipt
    #[arg(long, conflicts_with_all = ["server", "stored", "users", "stored_users"])]
    broker: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Args)]
struct BacklogOptions {
    /// How many entries
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=BACKLOG_MAX))]
    entries: u64,
    #[command(flatten)]
    common: Common,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (1.0..=10_000_000.0).contains(rate));
    rate.ok_or_else(|| format!("expected 1 to 10000000 messages a second, got {text:?}"))
}

/// Runs it; the table or the JSON on stdout. `dir` is the run's directory, or with `--server` the server's data directory.
///
/// # Errors
/// When the server or the clients cannot be started, or the server does not do what it must.
pub fn run(options: &Bench, dir: Option<PathBuf>) -> Result<ExitCode> {
    match &options.scenario {
        Scenario::Pairs(options) => {
            let place = Place::new(&options.common, dir)?;
            run_pairs(options, &place)?;
        }
        Scenario::Backlog(options) => {
            let place = Place::new(&options.common, dir)?;
            run_backlog(options, &place)?;
        }
        Scenario::Presence(options) => {
            let place = Place::new(options.common(), dir)?;
            beside::run_presence(options, &place)?;
        }
        Scenario::Status(options) => {
            let place = Place::new(options.common(), dir)?;
            beside::run_status(options, &place)?;
        }
        Scenario::IdleHost { parent, address } => {
            die_with(*parent)?;
            idle::host(*address)?;
        }
        Scenario::Child { parent, program, arguments } => {
            die_with(*parent)?;
            return Err(Command::new(program).args(arguments).exec()).with_context(|| program.clone());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where a run is: a directory of its own, or the data of a server that runs.
struct Place {
    dir: PathBuf,
    is_temporary: bool,
}

impl Place {
    fn new(common: &Common, dir: Option<PathBuf>) -> Result<Self> {
        if common.server.is_some() {
            let dir = dir.context("--server: expected --data with the data directory of that server")?;
            return Ok(Self { dir, is_temporary: false });
        }
        let is_temporary = dir.is_none();
        let dir = dir.unwrap_or_else(|| std::env::temp_dir().join(format!("natter-bench-{}", std::process::id())));
        if dir.exists() {
            bail!("{}: expected a new directory for the run, got one that is there; name another", dir.display());
        }
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { dir, is_temporary })
    }

    fn target(&self, common: &Common) -> Result<Target> {
        match common.server {
            Some(address) => Ok(Target::given(address, common.pid, common.admin, self.dir.clone())),
            None => Target::own(&self.dir),
        }
    }

    fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_temporary {
            // A temporary directory that cannot be removed is no reason to fail.
            let _left_over = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// A run against a target: who takes part in it.
struct Stage<'a> {
    target: &'a Target,
    cast: Cast,
    text_bytes: usize,
    /// What makes the ids of this run its own, also on a server that has seen one.
    run: u64,
}

impl<'a> Stage<'a> {
    /// All users are there when this returns.
    fn set(target: &'a Target, cast: Cast, common: &Common) -> Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = u64::try_from(since.as_nanos()).unwrap_or(common.seed);
        if !target.relay {
            target.add_users(cast.all())?;
        }
        Ok(Self { target, cast, text_bytes: common.text as usize, run })
    }

    fn logins(&self, names: &[String], subscribes: bool) -> Result<Vec<Login>> {
        let tokens = self.target.tokens(names)?;
        let login = |(user, token): (&String, String)| {
            let (user, device) = (user.clone(), DEVICE.to_owned());
            Login { user, token, device, subscribes }
        };
        Ok(names.iter().zip(tokens).map(login).collect())
    }

    fn open(&self, names: &[String], subscribes: bool) -> Result<Net> {
        Net::new(net::open(self.target.address, &self.logins(names, subscribes)?, net::OPENING)?)
    }

    /// Stores entries and waits until they are settled; how many a second.
    fn store(&self, entries: u64) -> Result<u64> {
        if entries == 0 {
            return Ok(0);
        }
        let writers: Vec<String> = (0..self.cast.writers).map(|i| self.cast.writer(i)).collect();
        let mut net = self.open(&writers, false)?;
        let plan = stored::Plan {
            writers,
            recipients: (0..self.cast.absent).map(|i| self.cast.absent(i)).collect(),
            entries,
            text_bytes: self.text_bytes,
            run: self.run,
        };
        let mut progress = Progress::new();
        let time = stored::run(&plan, &mut net, &mut progress)?;
        progress.end()?;
        Ok((entries as f64 / time.as_secs_f64()) as u64)
    }

    /// Starts the idle connections; with what the server grew by for each of them, in bytes.
    fn idle(&self, connections: u64) -> Result<Option<(idle::Idle, Option<u64>)>> {
        if connections == 0 {
            return Ok(None);
        }
        let names: Vec<String> = (0..self.cast.idle).map(|i| self.cast.idle(i)).collect();
        let users = self.logins(&names, true)?;
        let device = |i: u64| {
            Some(Login { device: format!("d{i}"), ..users.get(usize::try_from(i / idle::DEVICES).ok()?)?.clone() })
        };
        let logins: Vec<Login> = (0..connections).filter_map(device).collect();
        let before = self.rss()?;
        let process = idle::start(self.target.address, &logins)?;
        self.target.settle()?;
        let grown = self.rss()?.zip(before).map(|(after, before)| after.saturating_sub(before) * 1024 / connections);
        Ok(Some((process, grown)))
    }

    fn rss(&self) -> Result<Option<u64>> {
        self.target.pid.map(rss_kib).transpose()
    }

    fn setup(&self, bench: &'static str, stored: u64, stored_per_s: u64, idle: u64) -> Setup {
        Setup {
            bench,
            server: self.target.name.clone(),
            generator: format!("natter {}", env!("CARGO_PKG_VERSION")),
            machine: Machine::look(),
            seed: self.cast.seed,
            text_bytes: self.text_bytes,
            users: self.cast.users.max(self.cast.needed()),
            stored,
            stored_users: self.cast.absent,
            stored_per_s,
            idle,
        }
    }
}

fn run_pairs(options: &PairsOptions, place: &Place) -> Result<()> {
    let PairsOptions { pairs, stored, idle, common, .. } = options;
    let absent = if *stored == 0 { 0 } else { options.stored_users.unwrap_or(stored.div_ceil(STORED_EACH)) };
    let cast = Cast {
        seed: common.seed,
        pairs: u64::from(*pairs),
        idle: u64::from(*idle).div_ceil(idle::DEVICES),
        writers: absent.min(stored::WRITERS_MAX),
        absent,
        users: options.users.unwrap_or(0),
    };
    if options.users.is_some_and(|users| users < cast.needed()) {
        bail!("--users: expected at least {}, since so many have a part, got {}", cast.needed(), cast.users);
    }
    if options.storm > *idle {
        bail!("--storm: expected at most the {idle} connections of --idle, got {}", options.storm);
    }
    let target = if options.broker {
        let Some(target) = Target::mosquitto(place.path())? else {
            writeln!(std::io::stderr(), "SKIPPED: mosquitto is missing (package mosquitto)")?;
            return Ok(());
        };
        target
    } else {
        place.target(common)?
    };
    let stage = Stage::set(&target, cast, common)?;
    let stored_per_s = stage.store(*stored)?;
    let mut idle_beside = {
        target.settle()?;
        stage.idle(u64::from(*idle))?
    };
    let users: Vec<(String, String)> = (0..cast.pairs).map(|pair| cast.pair(pair)).collect();
    let names: Vec<String> = users.iter().flat_map(|(from, to)| [from.clone(), to.clone()]).collect();
    let mut net = stage.open(&names, true)?;
    let plan = pairs::Plan {
        users,
        in_flight: options.in_flight,
        rate: options.rate,
        warmup: Duration::from_secs(options.warmup.into()),
        time: Duration::from_secs(options.seconds.into()),
        text_bytes: stage.text_bytes,
        relay: target.relay,
        // Behind those of the stored entries, as the ids of later messages are.
        run: stage.run + 1,
        server: target.pid,
    };
    let rss_before_kib = stage.rss()?;
    let setup = stage.setup("pairs", *stored, stored_per_s, u64::from(*idle));
    let mut progress = Progress::new();
    let (outcome, storm) = thread::scope(|scope| {
        let storm = idle_beside.as_mut().filter(|_| options.storm > 0).map(|(idle, _)| {
            let wait = plan.warmup;
            scope.spawn(move || idle.storm(options.storm as usize, wait))
        });
        let outcome = pairs::run(&plan, &mut net, &mut progress);
        let storm = storm.map(|storm| storm.join().unwrap_or_else(|_| bail!("the thread of the storm has panicked")));
        anyhow::Ok((outcome?, storm.transpose()?))
    })?;
    progress.end()?;
    let around = Around {
        in_flight: plan.in_flight,
        rate: plan.rate,
        warmup: plan.warmup,
        has_pid: target.pid.is_some(),
        rss_before_kib,
        rss_after_kib: stage.rss()?,
        storm: storm.map(|time| (options.storm, time)),
        rss_idle_bytes_each: idle_beside.as_ref().and_then(|(_, grown)| *grown),
    };
    let report = PairsReport::new(setup, plan.users.len(), around, &outcome);
    print(common, &report, &report.table())
}

fn run_backlog(options: &BacklogOptions, place: &Place) -> Result<()> {
    let BacklogOptions { entries, common } = options;
    let cast = Cast { seed: common.seed, pairs: 0, idle: 0, writers: stored::WRITERS_MAX, absent: 1, users: 0 };
    let target = place.target(common)?;
    let stage = Stage::set(&target, cast, common)?;
    let stored_per_s = stage.store(*entries)?;
    target.settle()?;
    let setup = stage.setup("backlog", *entries, stored_per_s, 0);
    let logins = stage.logins(&[cast.absent(0)], true)?;
    let rss_before = stage.rss()?;
    let mut progress = Progress::new();
    let (start, before) = (Instant::now(), Cpu::now(target.pid)?);
    let mut net = Net::new(net::open(target.address, &logins, net::OPENING)?)?;
    drain::run(*entries, &mut net, &mut progress)?;
    let (time, cpu) = (start.elapsed(), Cpu::now(target.pid)?.since(before));
    progress.end()?;
    let rss = (rss_before, stage.rss()?);
    let report = BacklogReport::new(setup, *entries, time, cpu, target.pid.is_some(), rss);
    print(common, &report, &report.table())
}

fn print(common: &Common, report: &impl Serialize, table: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    if common.json {
        serde_json::to_writer(&mut stdout, report)?;
        writeln!(stdout)?;
    } else {
        write!(stdout, "{table}")?;
    }
    stdout.flush().context("stdout")
}
