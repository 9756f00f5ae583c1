//! The host processes, as the conductor sees them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::client::Status;
use super::host::{Line, read_status};
use super::plan::Plan;

/// How long a host may take to end when it is told to.
const END_MAX: Duration = Duration::from_secs(20);

struct Host {
    child: Child,
    stdin: Option<ChildStdin>,
    reader: JoinHandle<()>,
}

/// All hosts.
pub(crate) struct Hosts {
    dir: PathBuf,
    plan: Plan,
    hosts: Vec<Option<Host>>,
    statuses: Arc<Mutex<Vec<Status>>>,
    phase: u8,
    limit: u32,
}

impl Hosts {
    pub(crate) fn new(dir: &Path, plan: &Plan) -> Self {
        let statuses = Arc::new(Mutex::new((0..plan.all()).map(|_| Status::default()).collect()));
        let hosts = (0..plan.hosts).map(|_| None).collect();
        Self { dir: dir.to_owned(), plan: plan.clone(), hosts, statuses, phase: 0, limit: 0 }
    }

    /// How far each device is, as its host said last.
    pub(crate) fn statuses(&self) -> Vec<Status> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts a host that does not run. Only from the thread that lives as long as the process: a host dies with it.
    pub(crate) fn start(&mut self, host: u32) -> Result<()> {
        if self.slot(host)?.is_some() {
            return Ok(());
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("hosts.log"))?;
        let mut child = Command::new(std::env::current_exe().context("the program itself")?)
            .args(["torture", "host", "--parent", &std::process::id().to_string(), "--number", &host.to_string()])
            .arg("--data")
            .arg(&self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("host process")?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("stdout of a host")?);
        let statuses = Arc::clone(&self.statuses);
        let reader = thread::spawn(move || {
            for (index, status) in stdout.lines().map_while(Result::ok).filter_map(|line| read_status(&line)) {
                let mut statuses = statuses.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(known) = statuses.get_mut(index as usize) {
                    *known = status;
                }
            }
        });
        *self.slot(host)? = Some(Host { child, stdin, reader });
        let (phase, limit) = (self.phase, self.limit);
        self.say(host, Line::Limit(limit))?;
        self.say(host, Line::Phase(phase))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, host: u32) -> Result<()> {
        let Some(Host { mut child, stdin, reader }) = self.slot(host)?.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        drop(stdin);
        // So that nothing it said earlier is taken for what its successor says.
        reader.join().map_err(|_| anyhow!("the reader of host {host} panicked"))
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn pause(&mut self, host: u32, stop: bool) -> Result<()> {
        if let Some(running) = self.slot(host)?
            && let Some(pid) = i32::try_from(running.child.id()).ok().and_then(Pid::from_raw)
        {
            kill_process(pid, if stop { Signal::STOP } else { Signal::CONT })?;
        }
        Ok(())
    }

    /// Tells the host of a device, if it runs.
    pub(crate) fn order(&mut self, line: Line) -> Result<()> {
        match line {
            Line::Device(index, _) => self.say(self.plan.host_of(index), line),
            Line::Phase(phase) => {
                self.phase = phase;
                (0..self.plan.hosts).try_for_each(|host| self.say(host, line))
            }
            Line::Limit(limit) => {
                self.limit = limit;
                (0..self.plan.hosts).try_for_each(|host| self.say(host, line))
            }
        }
    }

    /// Whether one has ended that was not killed.
    pub(crate) fn look(&mut self) -> Result<()> {
        for (number, host) in self.hosts.iter_mut().enumerate() {
            if let Some(host) = host
                && let Some(status) = host.child.try_wait()?
            {
                bail!("host {number} ended by itself ({status}), see {}", self.dir.join("hosts.log").display());
            }
        }
        Ok(())
    }

    /// Lets all of them end: their journals are complete then.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.hosts.iter_mut().flatten().for_each(|host| host.stdin = None);
        let deadline = Instant::now() + END_MAX;
        for host in 0..self.plan.hosts {
            let Some(running) = self.slot(host)? else { continue };
            let status = loop {
                match running.child.try_wait()? {
                    Some(status) => break status,
                    None if Instant::now() >= deadline => bail!("host {host} does not end"),
                    None => thread::sleep(Duration::from_millis(5)),
                }
            };
            if !status.success() {
                bail!("host {host} ended with {status}, see {}", self.dir.join("hosts.log").display());
            }
            self.kill(host)?;
        }
        Ok(())
    }

    fn say(&mut self, host: u32, line: Line) -> Result<()> {
        match self.slot(host)? {
            Some(Host { stdin: Some(stdin), .. }) => {
                stdin.write_all(line.write().as_bytes()).with_context(|| format!("orders to host {host}"))
            }
            _ => Ok(()),
        }
    }

    fn slot(&mut self, host: u32) -> Result<&mut Option<Host>> {
        self.hosts.get_mut(host as usize).with_context(|| format!("there is no host {host}"))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in 0..self.plan.hosts {
            // The run is over, and what it says is said.
            let _failed = self.kill(host);
        }
    }
}
