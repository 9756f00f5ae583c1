//! `natter bench`: measures a server from outside, with clients that share one thread: the generator takes its CPU time from the same
//! machine, so it must be lean.
//!
//! - `options` what it can be told · `stage` where a run is and who takes part
//! - `pairs` round trips, in a closed or an open loop · `drain` backlogs · `media` files · `stored` entries for users who are not there ·
//!   `idle` connections that say nothing, in a process of their own · `presence` users who watch others · `status` one for many contacts,
//!   both set up in `beside` · `group` one message to many, beside many to one each
//! - `net` the connections · `opening` how they begin · `packets`, `xmpp` bytes of MQTT and of XMPP · `dialect` what a pair says in each
//! - `names` who takes part · `friends` contacts · `target` the server · `process` what the kernel says · `baseline` what SQLite alone can read
//! - `report`, `report_pairs`, `crowd` what is printed

mod baseline;
mod beside;
mod crowd;
mod dialect;
mod drain;
mod friends;
mod group;
mod idle;
mod media;
mod names;
mod net;
mod opening;
mod options;
mod packets;
mod pairs;
mod presence;
mod process;
mod report;
mod report_pairs;
mod stage;
mod status;
mod stored;
mod target;
mod xmpp;

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::torture::child::die_with;
use crate::torture::progress::Progress;
use dialect::natter::Natter;
use dialect::relay::Relay;
use dialect::xmpp::Xmpp;
use names::Cast;
use net::Net;
use opening::{Endpoint, Login, open};
pub use options::Bench;
use options::{BACKLOG_MAX, BacklogOptions, Common, MediaOptions, PairsOptions, Scenario};
use process::Cpu;
use report::{BacklogReport, MediaReport};
use report_pairs::{Around, PairsReport};
use stage::{Place, Stage};
use target::{Kind, Target};

/// Entries that are stored for one user, if nothing is said.
const STORED_EACH: u64 = 1000;

/// Runs it; the table or the JSON on stdout. `dir` is the run's directory, or with `--server` the server's data directory.
///
/// # Errors
/// When the server or the clients cannot be started, or the server does not do what it must.
pub fn run(options: &Bench, dir: Option<PathBuf>) -> Result<ExitCode> {
    match &options.scenario {
        Scenario::Pairs(options) => run_pairs(options, &Place::new(&options.common, dir)?)?,
        Scenario::Backlog(options) => run_backlog(options, &Place::new(&options.common, dir)?)?,
        Scenario::Media(options) => run_media(options, &Place::new(&options.common, dir)?)?,
        Scenario::Presence(options) => beside::run_presence(options, &Place::new(options.common(), dir)?)?,
        Scenario::Status(options) => beside::run_status(options, &Place::new(options.common(), dir)?)?,
        Scenario::Group(options) => group::run(options, &Place::new(&options.common, dir)?)?,
        Scenario::IdleHost { parent, protocol, address } => {
            die_with(*parent)?;
            idle::host(Endpoint { protocol: *protocol, address: *address })?;
        }
        Scenario::Child { parent, program, arguments } => {
            die_with(*parent)?;
            return Err(Command::new(program).args(arguments).exec()).with_context(|| program.clone());
        }
    }
    Ok(ExitCode::SUCCESS)
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
    let target = match options.xmpp {
        Some(address) => Target::xmpp(address, common.pid, &options.name),
        None if options.broker => {
            let Some(target) = Target::mosquitto(place.path())? else {
                writeln!(std::io::stderr(), "SKIPPED: mosquitto is missing (package mosquitto)")?;
                return Ok(());
            };
            target
        }
        None => place.target(common)?,
    };
    let stage = Stage::set(&target, cast, common)?;
    let stored_per_s = stage.store(*stored)?;
    target.settle()?;
    let mut beside = stage.idle(u64::from(*idle))?;
    let keep_alive_bytes = beside.as_mut().map(stage::Beside::keep_alive).transpose()?;
    let users: Vec<(String, String)> = (0..cast.pairs).map(|pair| cast.pair(pair)).collect();
    let names: Vec<String> = users.iter().flat_map(|(from, to)| [from.clone(), to.clone()]).collect();
    let mut net = stage.open(&names, true)?;
    let plan = pairs::Plan {
        users,
        in_flight: options.in_flight,
        rate: options.rate,
        warmup: Duration::from_secs(options.warmup.into()),
        time: Duration::from_secs(options.seconds.into()),
        messages: options.messages,
        text_bytes: stage.text_bytes,
        // Behind those of the stored entries, as the ids of later messages are.
        run: stage.run + 1,
        server: target.pid,
    };
    let rss_before_kib = stage.rss()?;
    let setup = stage.setup("pairs", *stored, stored_per_s, u64::from(*idle));
    let mut progress = Progress::new();
    let (outcome, storm) = thread::scope(|scope| {
        let storm = beside.as_mut().filter(|_| options.storm > 0).map(|beside| {
            let wait = plan.warmup;
            scope.spawn(move || beside.process.storm(options.storm as usize, wait))
        });
        let outcome = match target.kind {
            Kind::Natter => pairs::run::<Natter>(&plan, &mut net, &mut progress),
            Kind::Relay => pairs::run::<Relay>(&plan, &mut net, &mut progress),
            Kind::Xmpp => pairs::run::<Xmpp>(&plan, &mut net, &mut progress),
        };
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
        rss_idle_bytes_each: beside.as_ref().and_then(|beside| beside.grown),
        keep_alive_bytes,
    };
    let report = PairsReport::new(setup, plan.users.len(), around, &outcome);
    print(common, &report, &report.table())
}

fn run_backlog(options: &BacklogOptions, place: &Place) -> Result<()> {
    let BacklogOptions { entries, users, common } = options;
    if entries / users > BACKLOG_MAX || entries < users {
        bail!("--entries: expected 1 to {BACKLOG_MAX} for each of the {users} users, got {entries}");
    }
    let cast = Cast { seed: common.seed, pairs: 0, idle: 0, writers: stored::WRITERS_MAX, absent: *users, users: 0 };
    let target = place.target(common)?;
    let stage = Stage::set(&target, cast, common)?;
    let stored_per_s = stage.store(*entries)?;
    target.settle()?;
    let sqlite_entries_per_s = baseline::read(&target, *entries)?;
    let setup = stage.setup("backlog", *entries, stored_per_s, 0);
    let names: Vec<String> = (0..*users).map(|i| cast.absent(i)).collect();
    let logins = stage.logins(&names, true)?;
    let rss_before = stage.rss()?;
    let mut progress = Progress::new();
    let (start, before) = (Instant::now(), Cpu::now(target.pid)?);
    // All of them at once.
    let mut net = Net::new(open(target.endpoint, &logins, logins.len())?)?;
    drain::run(*entries, &mut net, &mut progress)?;
    let (time, cpu) = (start.elapsed(), Cpu::now(target.pid)?.since(before));
    progress.end()?;
    let rss = (rss_before, stage.rss()?);
    let report = BacklogReport::new(setup, (*entries, *users), time, cpu, sqlite_entries_per_s, rss);
    print(common, &report, &report.table())
}

fn run_media(options: &MediaOptions, place: &Place) -> Result<()> {
    let MediaOptions { files, bytes, at_once, common } = options;
    // One of a pair sends the files up and fetches them.
    let cast = Cast { seed: common.seed, pairs: 1, idle: 0, writers: 0, absent: 0, users: 0 };
    let target = place.target(common)?;
    let stage = Stage::set(&target, cast, common)?;
    let Some(Login { token, .. }) = stage.logins(&[cast.pair(0).0], false)?.pop() else { return Ok(()) };
    target.settle()?;
    let setup = stage.setup("media", 0, 0, 0);
    let rss_before = stage.rss()?;
    let address = target.http.context("--http: expected the address of the server's HTTP listener")?;
    let plan = media::Plan { address, token, files: *files, bytes: *bytes, at_once: *at_once };
    let (up, down) = media::run(&plan, target.pid)?;
    let report = MediaReport::new(setup, &plan, (up, down), (rss_before, stage.rss()?));
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
