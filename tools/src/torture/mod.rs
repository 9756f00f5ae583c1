//! `natter torture`: real servers and real clients, killed, paused and cut while they talk; then the history is judged.
//!
//! The *conductor* starts the server, a proxy before it, and *host* processes with the clients; the *nemesis* does them harm. Every client
//! keeps a journal of what it does and sees; at the end the *judge* reads all of them.

pub mod check;
pub(crate) mod child;
mod client;
mod clock;
mod conductor;
mod connection;
mod entry;
pub mod history;
mod host;
mod hosts;
mod journal;
mod memory;
mod nemesis;
mod plan;
pub(crate) mod progress;
mod proxy;
mod random;
mod sdk;
pub(crate) mod server;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum as _};

use conductor::{Conductor, Outcome};
pub use nemesis::Kind;
use server::Peak;

/// How many messages are sent if nothing is said.
const MESSAGES: u32 = 10_000;
/// Seconds that everything may take to arrive after the last fault, if nothing is said: more is not alive.
const DRAIN: u64 = 60;

/// What `natter torture` can be told.
#[derive(Debug, Clone, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Prints one line of counts; the exit code is 1 unless all of them but `acked` are 0. A run that is not clean, or has --keep or \
    --data, leaves its directory behind: the server's data, the logs, what the nemesis did, and a journal for each device. --data names that \
    directory, which must be new."
)]
pub struct Torture {
    /// How many messages to send [default: 10000, or no limit with --seconds]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    messages: Option<u32>,
    /// How long to send
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// How often the server is killed (SIGKILL)
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    kills: u32,
    /// Pairs of users that write to each other
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pairs: u32,
    /// Devices of each user
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    devices: u32,
    /// How many of them are clients of the SDK, each with a store of its own; the others speak MQTT as it is, of both versions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=8))]
    sdk: u32,
    /// Processes that the clients are spread over
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    hosts: u32,
    /// What the faults and the messages follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds that everything may take to arrive after the last fault
    #[arg(long, default_value_t = DRAIN, value_parser = clap::value_parser!(u64).range(1..=3600))]
    drain: u64,
    /// Faults to leave out
    #[arg(long, value_name = "FAULT", value_delimiter = ',', value_enum)]
    without: Vec<Kind>,
    /// Keep the run's directory: data, logs and the history of every device
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What a process of a run is, if not its conductor.
#[derive(Debug, Clone, Subcommand)]
enum Role {
    /// Hosts a share of the clients of the run in --data
    #[command(hide = true)]
    Host {
        /// The conductor's process
        #[arg(long)]
        parent: u32,
        #[arg(long)]
        number: u32,
    },
    /// Runs natter, and is killed when `parent` ends
    #[command(hide = true)]
    Child {
        parent: u32,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

impl Torture {
    fn messages_max(&self) -> Option<u32> {
        self.messages.or(self.seconds.is_none().then_some(MESSAGES))
    }

    fn kinds(&self) -> Vec<Kind> {
        Kind::value_variants().iter().copied().filter(|kind| !self.without.contains(kind)).collect()
    }

    /// The command that does this run again, as far as time allows.
    fn again(&self) -> String {
        let Self { kills, pairs, devices, sdk, hosts, seed, drain, .. } = self;
        let mut again = format!(
            "natter torture --kills {kills} --pairs {pairs} --devices {devices} --sdk {sdk} --hosts {hosts} --seed {seed}"
        );
        if *drain != DRAIN {
            again.push_str(&format!(" --drain {drain}"));
        }
        if let Some(messages) = self.messages {
            again.push_str(&format!(" --messages {messages}"));
        }
        if let Some(seconds) = self.seconds {
            again.push_str(&format!(" --seconds {seconds}"));
        }
        let without: Vec<_> = self.without.iter().filter_map(|kind| kind.to_possible_value()).collect();
        if !without.is_empty() {
            let names: Vec<&str> = without.iter().map(clap::builder::PossibleValue::get_name).collect();
            again.push_str(&format!(" --without {}", names.join(",")));
        }
        again
    }
}

/// Runs it: the line on stdout, and exit code 1 if anything in it is not as it must be. `dir` is where the run keeps everything; a
/// temporary directory if it is not given.
///
/// # Errors
/// When the server or the clients cannot be started or end by themselves; not when messages are lost.
pub fn run(options: &Torture, dir: Option<PathBuf>) -> Result<ExitCode> {
    match &options.role {
        Some(Role::Host { parent, number }) => {
            child::die_with(*parent)?;
            host::run(&dir.context("torture host: expected --data")?, *number)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Role::Child { parent, arguments }) => {
            child::become_natter(*parent, arguments)?;
            return Ok(ExitCode::FAILURE);
        }
        None => {}
    }
    let keep = options.keep || dir.is_some();
    let dir = dir.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("natter-torture-{}-{}", std::process::id(), options.seed))
    });
    if dir.exists() {
        bail!("{}: expected a new directory for the run, got one that is there; name another", dir.display());
    }
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let outcome = Conductor::new(options, &dir).and_then(Conductor::conduct);
    let clean = outcome.as_ref().is_ok_and(|outcome| outcome.judgement.verdict.is_clean());
    let mut stderr = std::io::stderr();
    for text in outcome.iter().flat_map(|outcome| &outcome.judgement.words) {
        writeln!(stderr, "{text}")?;
    }
    if keep || !clean {
        writeln!(stderr, "the history is kept in {}", dir.display())?;
    } else {
        remove(&dir);
    }
    writeln!(std::io::stdout(), "{}", line(options, &outcome?))?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn remove(dir: &Path) {
    // A temporary directory that cannot be removed is no reason to fail.
    let _left_over = std::fs::remove_dir_all(dir);
}

fn line(options: &Torture, outcome: &Outcome) -> String {
    let Outcome { judgement, kills, client_kills, faults, connections, sending, draining, peak } = outcome;
    let rate = judgement.verdict.acked as f64 / sending.as_secs_f64().max(0.001);
    let Peak { rss_kib, wal_bytes, fds } = peak;
    format!(
        "{} kills={kills} client_kills={client_kills} faults={faults} connections={connections} messages/s={rate:.0} \
         drain_s={:.1} seed={} rss_max_mib={} wal_max_mib={} fds_max={fds} again=\"{}\"",
        judgement.verdict,
        draining.as_secs_f64(),
        options.seed,
        rss_kib / 1024,
        wal_bytes / (1024 * 1024),
        options.again()
    )
}
