//! `natter serve` as a child process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::patience;

/// A server over a data directory of its own; killed, and the directory removed, on drop.
pub struct TestServer {
    data: TempDir,
    /// Its configuration file; empty for the defaults.
    config: String,
    running: Option<Running>,
    /// A program and its arguments that the server is started with, behind them.
    under: Vec<String>,
}

struct Running {
    child: Child,
    mqtt: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
    mqtts: Option<SocketAddr>,
    https: Option<SocketAddr>,
    log: Mutex<mpsc::Receiver<String>>,
}

/// The binary under test: the one that was built with the tests, or the one that `NATTER_TEST_BINARY` names (a release build, say).
pub fn natter() -> Command {
    let mut command = match std::env::var_os("NATTER_TEST_BINARY") {
        Some(path) => Command::new(path),
        None => Command::new(env!("CARGO_BIN_EXE_natter")),
    };
    if std::env::var_os("RUST_LOG").is_none() {
        command.env("RUST_LOG", "warn");
    }
    command
}

/// The command as an argument of another program.
fn under(command: Command, program: &[String]) -> Command {
    let Some((first, arguments)) = program.split_first() else { return command };
    let mut outer = Command::new(first);
    outer.args(arguments).arg(command.get_program());
    for (name, value) in command.get_envs() {
        outer.env(name, value.unwrap_or_default());
    }
    outer
}

impl TestServer {
    /// Starts a server and waits until it is ready.
    pub fn start() -> Self {
        Self::new(String::new(), &[])
    }

    /// Starts a server with a configuration file of that text.
    pub fn start_with(config: &str) -> Self {
        Self::new(config.to_owned(), &[])
    }

    /// Starts a server with another program: one that becomes the server and keeps its process id, as `strace -D` does.
    pub fn start_under(program: &[String]) -> Self {
        Self::new(String::new(), program)
    }

    fn new(config: String, program: &[String]) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self { data, config, running: None, under: program.to_vec() };
        server.restart();
        server
    }

    /// What the next start is under; empty for nothing.
    pub fn set_under(&mut self, program: &[String]) {
        self.under = program.to_vec();
    }

    /// Starts a server that has these users.
    pub fn with_users(names: &[&str]) -> Self {
        let server = Self::start();
        names.iter().for_each(|name| server.add_user(name));
        server
    }

    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Where MQTT listens.
    pub fn mqtt(&self) -> SocketAddr {
        self.running.as_ref().expect("a server that runs").mqtt
    }

    /// Where HTTP listens.
    pub fn http(&self) -> SocketAddr {
        self.running.as_ref().expect("a server that runs").http
    }

    /// Where health and metrics are.
    pub fn admin(&self) -> SocketAddr {
        self.running.as_ref().expect("a server that runs").admin
    }

    /// Where MQTT over TLS listens.
    pub fn mqtts(&self) -> SocketAddr {
        self.running.as_ref().and_then(|running| running.mqtts).expect("a server with listen.mqtts")
    }

    /// Where HTTP over TLS listens.
    pub fn https(&self) -> SocketAddr {
        self.running.as_ref().and_then(|running| running.https).expect("a server with listen.https")
    }

    /// Waits for a line of the log that has `words` in it.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str) -> String {
        let deadline = Instant::now() + patience();
        let log = self.running.as_ref().expect("a server that runs").log.lock().expect("nobody panics here");
        loop {
            let line = log.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("no {words:?} in the log: {error}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// The lines of the log that nobody has looked at yet.
    pub fn log_so_far(&self) -> Vec<String> {
        self.running.as_ref().expect("a server that runs").log.lock().expect("nobody panics here").try_iter().collect()
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("a server that runs").child.id()
    }

    /// Starts the server again over the same data. The ports are others.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "end it first: kill9 or terminate");
        let mut command = under(natter(), &self.under);
        if !self.config.is_empty() {
            let file = self.data.path().join("test.toml");
            std::fs::write(&file, &self.config).expect("the configuration");
            command.arg("--config").arg(file);
        }
        let mut child = command
            .env("NATTER_TEST_CLOCK", "1")
            .args(["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
            .arg(self.data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("natter serve");
        let stderr = BufReader::new(child.stderr.take().expect("stderr"));
        let (log_tx, log) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                eprintln!("{line}");
                let _ = log_tx.send(line);
            }
        });
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let (lines_tx, lines) = mpsc::channel();
        // Reads to the end, so that the server never blocks on a full pipe.
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(lines_tx.send(line))));
        let deadline = Instant::now() + patience();
        let ready = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with("natter ready") => break line,
                Ok(_) => {}
                Err(error) => {
                    let _ = child.kill();
                    panic!("the server does not say that it is ready ({error}): {:?}", child.wait());
                }
            }
        };
        let find = |name: &str| -> Option<SocketAddr> {
            let word = ready.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|word| word.parse().ok())
        };
        let address = |name: &str| find(name).unwrap_or_else(|| panic!("{name}=IP:PORT in {ready:?}"));
        let (mqtt, http, admin) = (address("mqtt"), address("http"), address("admin"));
        self.running = Some(Running {
            mqtt,
            http,
            admin,
            mqtts: find("mqtts"),
            https: find("https"),
            log: Mutex::new(log),
            child,
        });
    }

    /// Lets server seconds pass at once; Unix time stays.
    #[track_caller]
    pub fn pass_time(&self, secs: u64) {
        let mut socket = UnixStream::connect(self.data().join("natter.sock")).expect("the control socket");
        writeln!(socket, r#"{{"do":"pass_time","secs":{secs}}}"#).expect("a request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains("\"done\""), "{answer}");
    }

    /// SIGKILL: nothing of what the process held in memory survives.
    pub fn kill9(&mut self) {
        let mut running = self.running.take().expect("a server that runs");
        running.child.kill().expect("SIGKILL");
        running.child.wait().expect("the server's end");
    }

    /// Waits until the server has ended by itself.
    pub fn wait_for_its_end(&mut self) -> std::process::ExitStatus {
        let mut running = self.running.take().expect("a server that runs");
        wait(&mut running.child, patience()).unwrap_or_else(|| {
            let _ = running.child.kill();
            panic!("the server does not end by itself")
        })
    }

    /// SIGTERM, and waits for a clean end.
    pub fn terminate(&mut self) {
        let mut running = self.running.take().expect("a server that runs");
        let pid = running.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let status = wait(&mut running.child, patience()).unwrap_or_else(|| {
            let _ = running.child.kill();
            panic!("the server does not end after SIGTERM")
        });
        assert!(status.success(), "expected exit code 0 after SIGTERM, got {status}");
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        assert!(Command::new("kill").args(["-HUP", &self.pid().to_string()]).status().expect("kill").success());
    }

    /// `natter user add`.
    pub fn add_user(&self, name: &str) {
        self.cli(&["user", "add", name]);
    }

    /// `natter user add -`: many at once.
    pub fn add_users(&self, names: &[String]) {
        let mut command = natter();
        command.args(["user", "add", "-", "--data"]).arg(self.data.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("natter");
        let written = child.stdin.take().expect("stdin").write_all(names.join("\n").as_bytes());
        let status = child.wait().expect("natter's end");
        assert!(written.is_ok() && status.success(), "natter user add -: {status}");
    }

    /// `natter token`: one for every device of the user.
    pub fn token(&self, name: &str) -> String {
        self.token_with(name, &[])
    }

    /// `natter token` with more arguments, as `--ttl 1s` or `--device phone`.
    pub fn token_with(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.cli(&[&["token", name], arguments].concat());
        let token = String::from_utf8(output.stdout).expect("a token").trim().to_owned();
        assert_eq!(token.split('.').count(), 3, "expected a JWT, got {token:?}");
        token
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let output = natter().args(arguments).arg("--data").arg(self.data.path()).output().expect("natter");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "natter {arguments:?}: {} {stderr}", output.status);
        output
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// Waits for a child's end; `None` when it does not come in time.
pub fn wait(child: &mut Child, at_most: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(status) = child.try_wait().expect("the child's status") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        // There is no wait with a deadline in std; this is a poll, not a guess of how long it takes.
        thread::sleep(Duration::from_millis(5));
    }
}
