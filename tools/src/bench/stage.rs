//! A run: where it is, who takes part, and what is there before it begins.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use super::dialect::DEVICE;
use super::names::Cast;
use super::net::Net;
use super::opening::{self, Login, open};
use super::options::Common;
use super::process::{Loopback, Machine, rss_kib};
use super::report::Setup;
use super::target::{Kind, Target};
use super::{idle, stored};
use crate::torture::progress::Progress;

/// Where a run is: a directory of its own, or the data of a server that runs.
pub(crate) struct Place {
    dir: PathBuf,
    is_temporary: bool,
}

impl Place {
    pub(crate) fn new(common: &Common, dir: Option<PathBuf>) -> Result<Self> {
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

    pub(crate) fn target(&self, common: &Common) -> Result<Target> {
        match common.server {
            Some(address) => Ok(Target::given(address, common, self.dir.clone())),
            None => Target::own(&self.dir),
        }
    }

    pub(crate) fn path(&self) -> &Path {
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
pub(crate) struct Stage<'a> {
    pub(crate) target: &'a Target,
    pub(crate) cast: Cast,
    pub(crate) text_bytes: usize,
    /// What makes the ids of this run its own, also on a server that has seen one.
    pub(crate) run: u64,
}

impl<'a> Stage<'a> {
    /// All users are there when this returns.
    pub(crate) fn set(target: &'a Target, cast: Cast, common: &Common) -> Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = u64::try_from(since.as_nanos()).unwrap_or(common.seed);
        if target.kind == Kind::Natter {
            target.add_users(cast.all())?;
        }
        Ok(Self { target, cast, text_bytes: common.text as usize, run })
    }

    pub(crate) fn logins(&self, names: &[String], subscribes: bool) -> Result<Vec<Login>> {
        let tokens = self.target.tokens(names)?;
        let login = |(user, token): (&String, String)| {
            let (user, device) = (user.clone(), DEVICE.to_owned());
            Login { user, token, device, subscribes }
        };
        Ok(names.iter().zip(tokens).map(login).collect())
    }

    pub(crate) fn open(&self, names: &[String], subscribes: bool) -> Result<Net> {
        Net::new(open(self.target.endpoint, &self.logins(names, subscribes)?, opening::OPENING)?)
    }

    /// Stores entries and waits until they are settled; how many a second.
    pub(crate) fn store(&self, entries: u64) -> Result<u64> {
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

    /// Starts the idle connections.
    pub(crate) fn idle(&self, connections: u64) -> Result<Option<Beside>> {
        if connections == 0 {
            return Ok(None);
        }
        let names: Vec<String> = (0..self.cast.idle).map(|i| self.cast.idle(i)).collect();
        let users = self.logins(&names, true)?;
        let device = |i: u64| {
            Some(Login {
                device: format!("d{}", i % idle::DEVICES),
                ..users.get(usize::try_from(i / idle::DEVICES).ok()?)?.clone()
            })
        };
        let mut logins: Vec<Login> = (0..connections).filter_map(device).collect();
        if self.target.kind == Kind::Xmpp {
            logins.sort_by(|a, b| a.device.cmp(&b.device));
        }
        let before = self.rss()?;
        let process = idle::start(self.target.endpoint, &logins)?;
        self.target.settle()?;
        let grown = self.rss()?.zip(before).map(|(after, before)| after.saturating_sub(before) * 1024 / connections);
        Ok(Some(Beside { process, grown, connections }))
    }

    pub(crate) fn rss(&self) -> Result<Option<u64>> {
        self.target.pid.map(rss_kib).transpose()
    }

    pub(crate) fn setup(&self, bench: &'static str, stored: u64, stored_per_s: u64, idle: u64) -> Setup {
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

/// The idle connections of a run.
pub(crate) struct Beside {
    pub(crate) process: idle::Idle,
    /// What the server grew by for each of them, in bytes.
    pub(crate) grown: Option<u64>,
    connections: u64,
}

impl Beside {
    /// Has each of them say that it is alive, once; the bytes of that for each, as IP sees them.
    pub(crate) fn keep_alive(&mut self) -> Result<f64> {
        let before = Loopback::now()?;
        self.process.keep_alive()?;
        // The last acknowledgements of TCP may wait for 40 ms.
        std::thread::sleep(idle::ACKNOWLEDGED);
        Ok(Loopback::now()?.since(before).ip_bytes() as f64 / self.connections.max(1) as f64)
    }
}
