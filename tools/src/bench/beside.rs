//! Runs in which pairs show what something else costs the others: options, and who takes part.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use super::dialect::natter::Natter;
use super::names::Cast;
use super::net::Net;
use super::opening::{OPENING, open};
use super::options::{Common, parse_rate};
use super::stage::{Place, Stage};
use super::{crowd, friends, pairs, presence, print, status};
use crate::torture::progress::Progress;

#[derive(Debug, Clone, Args)]
pub(crate) struct PresenceOptions {
    /// Connections, of a user each
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    connections: u32,
    /// How many others each watches, whose contacts they are
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=256))]
    watches: u32,
    /// Changes a second: an app that goes into the background, or comes back
    #[arg(long, default_value_t = 200.0, value_parser = parse_rate)]
    changes: f64,
    #[command(flatten)]
    beside: Beside,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StatusOptions {
    /// Contacts of the poster, none of them connected
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    contacts: u32,
    #[command(flatten)]
    beside: Beside,
}

/// The pairs beside.
#[derive(Debug, Clone, Args)]
struct Beside {
    /// Pairs of users, of whom one writes and one receives
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pairs: u32,
    /// Messages a second in all
    #[arg(long, default_value_t = 500.0, value_parser = parse_rate)]
    rate: f64,
    /// How long to measure, each time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    #[command(flatten)]
    common: Common,
}

impl PresenceOptions {
    pub(super) fn common(&self) -> &Common {
        &self.beside.common
    }
}

impl StatusOptions {
    pub(super) fn common(&self) -> &Common {
        &self.beside.common
    }
}

impl Beside {
    fn plan(&self, stage: &Stage<'_>) -> pairs::Plan {
        pairs::Plan {
            users: (0..stage.cast.pairs).map(|pair| stage.cast.pair(pair)).collect(),
            in_flight: 0,
            rate: Some(self.rate),
            warmup: Duration::from_secs(2),
            time: Duration::from_secs(self.seconds.into()),
            messages: None,
            text_bytes: stage.text_bytes,
            run: stage.run,
            server: stage.target.pid,
        }
    }
}

pub(super) fn run_presence(options: &PresenceOptions, place: &Place) -> Result<()> {
    let PresenceOptions { connections, watches, changes, beside } = options;
    let (idle, pairs) = (u64::from(*connections), u64::from(beside.pairs));
    let cast = Cast { seed: beside.common.seed, pairs, idle, writers: 0, absent: 0, users: 0 };
    let target = place.target(&beside.common)?;
    let http = target.http.context("expected a server of the run's own, got --server")?;
    let stage = Stage::set(&target, cast, &beside.common)?;
    let users: Vec<String> = (0..idle).map(|i| cast.idle(i)).collect();
    let plan = presence::Plan { users, watches: *watches as usize, changes_per_s: *changes };
    let logins = stage.logins(&plan.users, true)?;
    let count = logins.len();
    let both =
        (0..count).flat_map(|i| (1..=plan.watches).flat_map(move |by| [(i, (i + by) % count), ((i + by) % count, i)]));
    let puts: Vec<friends::Put<'_>> =
        both.filter_map(|(i, other)| Some((logins.get(i)?.token.as_str(), logins.get(other)?.user.as_str()))).collect();
    friends::befriend(http, &puts)?;
    let mut crowd = Net::new(open(target.endpoint, &logins, OPENING)?)?;
    target.settle()?;
    let before = stage.rss()?;
    presence::watch(&plan, &mut crowd)?;
    let watches_in_all = (count * plan.watches) as u64;
    let grown = stage.rss()?.zip(before).filter(|_| watches_in_all > 0);
    let rss_a_watch = grown.map(|(after, before)| after.saturating_sub(before) * 1024 / watches_in_all);
    let beside_plan = beside.plan(&stage);
    let names: Vec<String> = beside_plan.users.iter().flat_map(|(from, to)| [from.clone(), to.clone()]).collect();
    let mut net = stage.open(&names, true)?;
    target.settle()?;
    let mut progress = Progress::new();
    let watched = presence::run(&plan, &mut crowd, &beside_plan, &mut net, &mut progress)?;
    progress.end()?;
    let setup = stage.setup("presence", 0, 0, idle);
    let report = crowd::PresenceReport::new(setup, (count, plan.watches), &watched, rss_a_watch);
    print(&beside.common, &report, &report.table())
}

pub(super) fn run_status(options: &StatusOptions, place: &Place) -> Result<()> {
    let StatusOptions { contacts, beside } = options;
    let (absent, pairs) = (u64::from(*contacts), u64::from(beside.pairs));
    let cast = Cast { seed: beside.common.seed, pairs, idle: 0, writers: 1, absent, users: 0 };
    let target = place.target(&beside.common)?;
    let http = target.http.context("expected a server of the run's own, got --server")?;
    let stage = Stage::set(&target, cast, &beside.common)?;
    let poster = cast.writer(0);
    let logins = stage.logins(&(0..absent).map(|i| cast.absent(i)).collect::<Vec<_>>(), false)?;
    let own = stage.logins(std::slice::from_ref(&poster), false)?;
    let token = own.first().map(|login| login.token.as_str()).unwrap_or_default();
    let puts: Vec<friends::Put<'_>> = logins
        .iter()
        .flat_map(|login| [(token, login.user.as_str()), (login.token.as_str(), poster.as_str())])
        .collect();
    friends::befriend(http, &puts)?;
    let plan = beside.plan(&stage);
    let names: Vec<String> = plan.users.iter().flat_map(|(from, to)| [from.clone(), to.clone()]).collect();
    let mut net = stage.open(&names, true)?;
    let mut one = Net::new(open(target.endpoint, &own, OPENING)?)?;
    target.settle()?;
    let mut progress = Progress::new();
    let alone = pairs::run::<Natter>(&plan, &mut net, &mut progress)?;
    let later = pairs::Plan { run: plan.run + 1, ..plan };
    let (outcome, commits) = status::run(&poster, &mut one, &later, &mut net, &mut progress)?;
    progress.end()?;
    let setup = stage.setup("status", 0, 0, 0);
    let report = crowd::StatusReport::new(setup, absent, &alone, &outcome, &commits);
    print(&beside.common, &report, &report.table())
}
