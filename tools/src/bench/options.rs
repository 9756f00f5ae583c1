//! What `natter bench` can be told.

use std::net::SocketAddr;

use clap::{Args, Subcommand};

use super::beside::{PresenceOptions, StatusOptions};
use super::group::GroupOptions;
use super::opening::Protocol;
use super::pairs::IN_FLIGHT_MAX;

/// Entries of a backlog of one user: what his inbox takes of few chats, half of `inbox_entries_max`.
pub(crate) const BACKLOG_MAX: u64 = 200_000;

/// What `natter bench` can be told.
#[derive(Debug, Clone, Args)]
pub struct Bench {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Scenario {
    /// Round trips: a message, and the receipt that its sender gets when the other device has it
    Pairs(PairsOptions),
    /// Entries that wait for users, taken by a device of each as fast as they can
    Backlog(BacklogOptions),
    /// Files, up and down over HTTP
    Media(MediaOptions),
    /// Users who watch some others each, beside pairs, while nobody and while some come and go
    Presence(PresenceOptions),
    /// A status for many contacts, once a second, beside pairs
    Status(StatusOptions),
    /// A message to a large group, and the same number of messages to its members one by one
    Group(GroupOptions),
    /// Holds idle connections
    #[command(hide = true)]
    IdleHost { parent: u32, protocol: Protocol, address: SocketAddr },
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
pub(crate) struct Common {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// What names follow from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Bytes of a text
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    pub(crate) text: u32,
    /// Measure a server that runs already
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) server: Option<SocketAddr>,
    /// Its process, for CPU and memory
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Its admin listener, to see when it has settled what was stored
    #[arg(long, value_name = "IP:PORT", requires = "server")]
    pub(crate) admin: Option<SocketAddr>,
    /// Its HTTP listener, for files
    #[arg(long, value_name = "IP:PORT", requires = "server")]
    pub(crate) http: Option<SocketAddr>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PairsOptions {
    /// Pairs of users, of whom one writes and one receives
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    pub(crate) pairs: u32,
    /// Messages of a pair on their way (closed loop)
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    pub(crate) in_flight: u32,
    /// Messages a second in all, whatever becomes of them (open loop): latencies count from when each should have been sent
    #[arg(long, value_parser = parse_rate, conflicts_with = "in_flight")]
    pub(crate) rate: Option<f64>,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// How many round trips to measure instead, and what memory the server holds at a tenth of them and at the end
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(10..=10_000_000_000))]
    pub(crate) messages: Option<u64>,
    /// How long to run before, in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub(crate) warmup: u32,
    /// Connections that subscribe and say nothing, beside
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=15_000))]
    pub(crate) idle: u32,
    /// So many of the idle connections are dropped when the measurement begins, and come back, all at once
    #[arg(long, default_value_t = 0, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(0..=15_000))]
    pub(crate) storm: u32,
    /// Users in all [default: as many as have a part]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) users: Option<u64>,
    /// Entries to store, before, for users who are not there
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    pub(crate) stored: u64,
    /// For how many users [default: one for 1,000 entries]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) stored_users: Option<u64>,
    /// Measure mosquitto instead, as a relay that stores nothing: the receiving client publishes the receipt
    #[arg(long, conflicts_with_all = ["server", "pid", "stored", "users", "stored_users"])]
    pub(crate) broker: bool,
    /// Measure an XMPP server instead, which runs already, with the host bench.local and in-band registration: plain streams, SASL PLAIN,
    /// XEP-0184 receipts
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["server", "broker", "storm", "stored", "users", "stored_users"])]
    pub(crate) xmpp: Option<SocketAddr>,
    /// What the XMPP server is called in the report
    #[arg(long, default_value = "XMPP server", requires = "xmpp")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct BacklogOptions {
    /// How many entries in all; at most 200,000 for a user
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) entries: u64,
    /// Users who share them, and who all come at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) users: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MediaOptions {
    /// How many files
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) files: u32,
    /// Bytes of a file
    #[arg(long, default_value_t = 10_485_760, value_parser = clap::value_parser!(u64).range(1..=104_857_600))]
    pub(crate) bytes: u64,
    /// Transfers at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) at_once: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (1.0..=10_000_000.0).contains(rate));
    rate.ok_or_else(|| format!("expected 1 to 10000000 messages a second, got {text:?}"))
}
