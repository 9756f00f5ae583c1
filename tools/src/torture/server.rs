//! `natter serve` as a child process, killed on drop.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

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
    child: Option<Child>,
    pub(crate) peak: Peak,
}

impl Server {
    pub(crate) fn new(program: PathBuf, data: PathBuf) -> Self {
        Self { program, data, child: None, peak: Peak::default() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("NATTER__")) {
            command.env_remove(key);
        }
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

    /// Starts it and returns the port of MQTT.
    pub(crate) fn start(&mut self) -> Result<u16> {
        let any = "127.0.0.1:0";
        let mut command = self.command(&["serve", "--mqtt", any, "--http", any, "--admin", any]);
        let mut child = command.stdout(Stdio::piped()).spawn().context("natter serve")?;
        let stdout = child.stdout.take();
        self.child = Some(child);
        let mut line = String::new();
        BufReader::new(stdout.context("stdout of natter serve")?).read_line(&mut line)?;
        let port =
            line.split_whitespace().find_map(|word| word.strip_prefix("mqtt=")?.rsplit(':').next()?.parse().ok());
        port.with_context(|| format!("natter serve is not ready, it says {line:?}"))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone_already = child.kill();
            let _status = child.wait();
        }
    }

    /// SIGSTOP, and SIGCONT a moment later.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        if let Some(pid) = self.pid() {
            kill_process(pid, Signal::STOP)?;
            sleep(time);
            kill_process(pid, Signal::CONT)?;
        }
        Ok(())
    }

    /// Whether it runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn pid(&self) -> Option<Pid> {
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
