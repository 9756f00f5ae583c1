//! Connections that subscribe to their inbox and say nothing, held by a process of their own.

use std::io::{BufRead as _, BufReader, Lines, StdinLock, Write as _, stdin, stdout};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::net::{self, Handler, Login, Net, unexpected};

/// Devices of an idle user: Natter's `devices_max`.
pub(crate) const DEVICES: u64 = 10;

/// The process's priority.
const NICE: i32 = 10;
/// How often the process looks whether it is told something.
const LOOK: Duration = Duration::from_millis(10);

/// The process; it ends when this is dropped.
pub(crate) struct Idle {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Starts the process, and returns when all are subscribed.
pub(crate) fn start(address: SocketAddr, logins: &[Login]) -> Result<Idle> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["bench", "idle-host", &std::process::id().to_string(), &address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("natter bench idle-host")?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
    let mut idle = Idle { child, stdin, stdout };
    for Login { user, token, device, .. } in logins {
        idle.say(&format!("{user} {token} {device}"))?;
    }
    idle.say("")?;
    idle.expect("ready")?;
    Ok(idle)
}

impl Idle {
    fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.stdin.as_mut().context("stdin of the process")?, "{line}")?)
    }

    fn expect(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        self.stdout.as_mut().context("stdout of the process")?.read_line(&mut line)?;
        let rest = line.trim().strip_prefix(word).map(str::to_owned);
        rest.with_context(|| format!("the process with the idle connections: expected {word:?}, got {line:?}"))
    }

    /// After `wait`, drops `connections` of them without a word, and opens them again at once; how long it took until all were subscribed
    /// again. One that is refused is an error.
    pub(crate) fn storm(&mut self, connections: usize, wait: Duration) -> Result<Duration> {
        thread::sleep(wait);
        self.say(&format!("storm {connections}"))?;
        let micros = self.expect("back ")?;
        Ok(Duration::from_micros(micros.parse().with_context(|| format!("expected microseconds, got {micros:?}"))?))
    }
}

/// What that process does, until it is killed.
pub(crate) fn host(address: SocketAddr) -> Result<()> {
    let mut lines = stdin().lock().lines();
    let logins = logins(&mut lines)?;
    drop(lines);
    // Thousands of clients would have machines of their own: what they cost here must not come out of the server's share.
    let _unchanged = rustix::process::nice(NICE);
    let mut net = Net::new(net::open(address, &logins, net::OPENING)?)?;
    let mut stdout = stdout();
    writeln!(stdout, "ready").and_then(|()| stdout.flush())?;
    let (told_tx, told_rx) = mpsc::channel();
    thread::spawn(move || stdin().lock().lines().map_while(Result::ok).all(|line| told_tx.send(line).is_ok()));
    loop {
        net.turn(LOOK, &mut Silence)?;
        let Ok(line) = told_rx.try_recv() else { continue };
        let count: usize = line.strip_prefix("storm ").and_then(|count| count.parse().ok()).context(line.clone())?;
        let again = logins.get(..count).with_context(|| format!("expected at most {}, got {count}", logins.len()))?;
        let begun = Instant::now();
        net.storm(address, again)?;
        writeln!(stdout, "back {}", begun.elapsed().as_micros()).and_then(|()| stdout.flush())?;
    }
}

/// One a line, up to an empty line.
fn logins(lines: &mut Lines<StdinLock<'_>>) -> Result<Vec<Login>> {
    let mut logins = Vec::new();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().context("expected user, token, device");
        logins.push(Login { user: word()?, token: word()?, device: word()?, subscribes: true });
    }
    Ok(logins)
}

struct Silence;

impl Handler for Silence {
    fn handle(&mut self, index: usize, first: u8, body: &[u8], _: Instant, _: &mut Vec<u8>) -> Result<()> {
        Err(unexpected(index, "nothing", first, body))
    }
}
