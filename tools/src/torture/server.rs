//! `natter serve` as a child process, killed on drop.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to be ready.
const READY_MAX: Duration = Duration::from_secs(60);

/// The most that a server used.
#[derive(Debug, Default)]
pub(crate) struct Peak {
    pub(crate) rss_kib: u64,
    pub(crate) wal_bytes: u64,
    pub(crate) fds: usize,
}

/// A server over a data directory.
pub(crate) struct Server {
    program: PathBuf,
    data: PathBuf,
    /// What it says on stderr.
    log: PathBuf,
    child: Option<Child>,
    /// Where it answers `/metrics`.
    pub(crate) admin: Option<SocketAddr>,
    /// And HTTP.
    pub(crate) http: Option<SocketAddr>,
    pub(crate) peak: Peak,
    /// Configuration by environment: name and value.
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Server {
    /// One whose data and log are in `dir`.
    pub(crate) fn new(program: PathBuf, dir: &Path) -> Self {
        let (data, log) = (dir.join("server"), dir.join("server.log"));
        Self { program, data, log, child: None, admin: None, http: None, peak: Peak::default(), settings: Vec::new() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("NATTER__")) {
            command.env_remove(key);
        }
        command.envs(self.settings.iter().map(|(name, value)| (*name, value.as_str())));
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "error");
        }
        command.args(arguments).arg("--data").arg(&self.data).stdin(Stdio::null());
        command
    }

    /// Runs another command of the program on the same data; what it printed.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("natter")?;
        if !output.status.success() {
            bail!("natter {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Starts it and returns the port of MQTT. Only from the thread that lives as long as the process: the server dies with it.
    pub(crate) fn start(&mut self) -> Result<u16> {
        let stdout = self.spawn()?;
        let (sender, receiver) = channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line).map(|_| line);
            // The other end has given up.
            let _late = sender.send(read);
        });
        let line =
            receiver.recv_timeout(READY_MAX).map_err(|_| anyhow!("natter serve: expected to be ready soon"))??;
        let address =
            |name| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse::<SocketAddr>().ok());
        self.admin = address("admin=");
        self.http = address("http=");
        address("mqtt=")
            .map(|address| address.port())
            .with_context(|| format!("natter serve is not ready, it says {line:?}; see {}", self.log.display()))
    }

    /// Starts it and kills it before it may be ready.
    pub(crate) fn start_in_vain(&mut self, life: Duration) -> Result<()> {
        let _stdout = self.spawn()?;
        thread::sleep(life);
        self.kill();
        Ok(())
    }

    fn spawn(&mut self) -> Result<ChildStdout> {
        let any = "127.0.0.1:0";
        let parent = std::process::id().to_string();
        let mut command =
            self.command(&["torture", "child", &parent, "serve", "--mqtt", any, "--http", any, "--admin", any]);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().context("natter serve")?;
        let stdout = child.stdout.take();
        self.child = Some(child);
        stdout.context("stdout of natter serve")
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone_already = child.kill();
            let _status = child.wait();
        }
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn pause(&self, stop: bool) -> Result<()> {
        if let Some(pid) = self.pid() {
            kill_process(pid, if stop { Signal::STOP } else { Signal::CONT })?;
        }
        Ok(())
    }

    /// Whether it has ended without being killed.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.as_ref()?.id()).ok()?)
    }

    /// Looks at what it uses now.
    pub(crate) fn measure(&mut self) {
        let Some(child) = &self.child else { return };
        let proc = Path::new("/proc").join(child.id().to_string());
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        self.peak.rss_kib = self.peak.rss_kib.max(rss.unwrap_or(0));
        self.peak.fds = self.peak.fds.max(std::fs::read_dir(proc.join("fd")).map_or(0, Iterator::count));
        for file in std::fs::read_dir(&self.data).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().ends_with("-wal") {
                self.peak.wal_bytes = self.peak.wal_bytes.max(file.metadata().map_or(0, |metadata| metadata.len()));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
