//! What is measured: a server of the run's own, one that runs already, or mosquitto.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::torture::server::Server;

/// How long a broker may take to listen, and a server to settle what was stored.
const READY_MAX: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The rest before a measurement, for what has no gauge.
const REST: Duration = Duration::from_secs(2);

/// A server, ended when it is dropped unless it was there before.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) pid: Option<u32>,
    /// Program and version.
    pub(crate) name: String,
    /// A plain broker: it has no users, and stores nothing.
    pub(crate) relay: bool,
    admin: Option<SocketAddr>,
    /// Its HTTP API, of a server of the run's own.
    pub(crate) http: Option<SocketAddr>,
    /// Its data directory.
    data: PathBuf,
    _keeps: Keeps,
}

enum Keeps {
    Natter { _server: Server },
    Broker { _child: Ended },
    Nothing,
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _status = self.0.wait();
    }
}

fn natter_name() -> String {
    format!("natter {}", env!("CARGO_PKG_VERSION"))
}

impl Target {
    /// Starts this program's own server, with its data in `dir`.
    pub(crate) fn own(dir: &Path) -> Result<Self> {
        let mut server = Server::new(std::env::current_exe()?, dir);
        // The limit of open files is what bounds a run.
        server.settings.push(("NATTER__DOOR__CONNECTIONS_MAX", "1000000".to_owned()));
        let port = server.start()?;
        let pid = server.pid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        Ok(Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            pid,
            name: natter_name(),
            relay: false,
            admin: server.admin,
            http: server.http,
            data: dir.join("server"),
            _keeps: Keeps::Natter { _server: server },
        })
    }

    /// One that runs, with its data directory.
    pub(crate) fn given(address: SocketAddr, pid: Option<u32>, admin: Option<SocketAddr>, data: PathBuf) -> Self {
        Self { address, pid, name: natter_name(), relay: false, admin, http: None, data, _keeps: Keeps::Nothing }
    }

    /// Starts mosquitto; `None`: it is not there.
    pub(crate) fn mosquitto(dir: &Path) -> Result<Option<Self>> {
        let Some((program, version)) = find_mosquitto() else { return Ok(None) };
        // Free a moment ago; a broker that takes no port 0 must be given one.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let config = dir.join("mosquitto.conf");
        let mut text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n\
             max_inflight_messages 0\nmax_queued_messages 0\nlog_type error\nlog_dest stderr\n"
        );
        if rustix::process::geteuid().is_root() {
            // It would become another user, and then outlive whoever started it.
            text.push_str("user root\n");
        }
        std::fs::write(&config, text)?;
        let log = std::fs::File::create(dir.join("mosquitto.log"))?;
        let child = Command::new(std::env::current_exe()?)
            .args(["bench", "child", &std::process::id().to_string(), &program, "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("mosquitto")?;
        let (pid, mut child) = (child.id(), Ended(child));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + READY_MAX;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline || child.0.try_wait()?.is_some() {
                bail!("mosquitto does not listen; see {}", dir.join("mosquitto.log").display());
            }
            sleep(LOOK);
        }
        let data = dir.to_owned();
        let _keeps = Keeps::Broker { _child: child };
        Ok(Some(Self { address, pid: Some(pid), name: version, relay: true, admin: None, http: None, data, _keeps }))
    }

    /// Adds users, all at once.
    pub(crate) fn add_users(&self, names: impl Iterator<Item = String>) -> Result<()> {
        self.ask(&["user", "add", "-"], names).map(drop)
    }

    /// A token for each user.
    pub(crate) fn tokens(&self, names: &[String]) -> Result<Vec<String>> {
        if self.relay {
            return Ok(vec!["none".to_owned(); names.len()]);
        }
        let output = self.ask(&["token", "-"], names.iter().cloned())?;
        let tokens: Vec<String> = output.lines().map(str::to_owned).collect();
        if tokens.len() != names.len() {
            bail!("natter token: expected {} tokens, got {}", names.len(), tokens.len());
        }
        Ok(tokens)
    }

    /// A command of this program on the server's data, with names on stdin; what it printed.
    fn ask(&self, arguments: &[&str], names: impl Iterator<Item = String>) -> Result<String> {
        let mut command = Command::new(std::env::current_exe()?);
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("NATTER__")) {
            command.env_remove(key);
        }
        command.args(arguments).arg("--data").arg(&self.data);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("natter")?;
        let text: String = names.flat_map(|name| [name, "\n".to_owned()]).collect();
        let mut stdin = child.stdin.take().context("stdin of natter")?;
        // All names are read before anything is printed. One that ends earlier says why.
        let _written = stdin.write_all(text.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("natter {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Waits until nothing waits to be settled.
    pub(crate) fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + READY_MAX;
        if let Some(admin) = self.admin {
            while self.journal_rows(admin)? > 0 {
                if Instant::now() > deadline {
                    bail!("the server does not settle what was stored within {} s", READY_MAX.as_secs());
                }
                sleep(LOOK);
            }
        }
        sleep(REST);
        Ok(())
    }

    fn journal_rows(&self, admin: SocketAddr) -> Result<u64> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(READY_MAX))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: natter\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let rows = answer.lines().find_map(|line| line.strip_prefix("natter_journal_rows ")?.trim().parse().ok());
        rows.with_context(|| format!("http://{admin}/metrics: expected natter_journal_rows"))
    }
}

/// Program and version.
fn find_mosquitto() -> Option<(String, String)> {
    ["mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].into_iter().find_map(|program| {
        let output = Command::new(program).arg("-h").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().next()?.strip_prefix("mosquitto version ")?.trim();
        Some((program.to_owned(), format!("mosquitto {version}")))
    })
}
