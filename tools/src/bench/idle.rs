//! Connections that subscribe to their inbox and say nothing, held by a process of their own.

use std::io::{BufRead as _, BufReader, Lines, StdinLock, Write as _, stdin, stdout};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::net::{Handler, Net, unexpected};
use super::opening::{Endpoint, Login, OPENING, Protocol, open};
use super::packets::split;
use super::xmpp::{DOMAIN, stanza};

/// Devices of an idle user: Natter's `devices_max`.
pub(crate) const DEVICES: u64 = 10;

/// The first of them.
pub(crate) const FIRST: &str = "d0";

/// The process's priority.
const NICE: i32 = 10;
/// Keep-alives without an answer.
const AT_ONCE: usize = 100;
/// How long the answers to all of them may take.
const ANSWERS_MAX: Duration = Duration::from_secs(60);
/// After this everything that came is acknowledged by TCP too.
pub(crate) const ACKNOWLEDGED: Duration = Duration::from_millis(200);
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
pub(crate) fn start(endpoint: Endpoint, logins: &[Login]) -> Result<Idle> {
    let Endpoint { protocol, address } = endpoint;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["bench", "idle-host", &std::process::id().to_string(), protocol.name(), &address.to_string()])
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

    /// Each connection says once that it is alive; returns when all are answered.
    pub(crate) fn keep_alive(&mut self) -> Result<()> {
        self.say("alive")?;
        self.expect("alive").map(drop)
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
pub(crate) fn host(endpoint: Endpoint) -> Result<()> {
    let mut lines = stdin().lock().lines();
    let logins = logins(&mut lines)?;
    drop(lines);
    // Thousands of clients would have machines of their own: what they cost here must not come out of the server's share.
    let _unchanged = rustix::process::nice(NICE);
    // With XMPP those come first whose greeting makes the user known; with the others the order is nobody's matter.
    let known = logins.iter().take_while(|login| login.device == FIRST).count();
    let (first, rest) = logins.split_at(known);
    let mut links = open(endpoint, first, OPENING)?;
    links.extend(open(endpoint, rest, OPENING)?);
    let mut net = Net::new(links)?;
    let mut silence = Silence { protocol: endpoint.protocol, answers: 0 };
    net.begin(&mut silence)?;
    let mut stdout = stdout();
    writeln!(stdout, "ready").and_then(|()| stdout.flush())?;
    let (told_tx, told_rx) = mpsc::channel();
    thread::spawn(move || stdin().lock().lines().map_while(Result::ok).all(|line| told_tx.send(line).is_ok()));
    loop {
        net.turn(LOOK, &mut silence)?;
        let Ok(line) = told_rx.try_recv() else { continue };
        let begun = Instant::now();
        if line == "alive" {
            silence.ask(&mut net)?;
            writeln!(stdout, "alive").and_then(|()| stdout.flush())?;
            continue;
        }
        let count: usize = line.strip_prefix("storm ").and_then(|count| count.parse().ok()).context(line.clone())?;
        let again = logins.get(..count).with_context(|| format!("expected at most {}, got {count}", logins.len()))?;
        net.storm(endpoint, again)?;
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

/// Expects nothing but answers to keep-alives, and in XMPP what is said of others who are there.
struct Silence {
    protocol: Protocol,
    answers: usize,
}

impl Silence {
    /// Asks on every connection, a hundred at a time, and waits for the answers.
    fn ask(&mut self, net: &mut Net) -> Result<()> {
        let ping = match self.protocol {
            Protocol::Mqtt => vec![0xc0, 0],
            // XEP-0199.
            Protocol::Xmpp => {
                format!("<iq type='get' id='p' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>").into_bytes()
            }
        };
        let deadline = Instant::now() + ANSWERS_MAX;
        self.answers = 0;
        for index in 0..net.len() {
            if let Some(output) = net.output(index) {
                output.extend_from_slice(&ping);
            }
            net.flush(index)?;
            while self.answers + AT_ONCE <= index {
                self.wait(net, deadline)?;
            }
        }
        while self.answers < net.len() {
            self.wait(net, deadline)?;
        }
        Ok(())
    }

    fn wait(&mut self, net: &mut Net, deadline: Instant) -> Result<()> {
        if Instant::now() > deadline {
            bail!("keep-alives: expected {} answers, got {}", net.len(), self.answers);
        }
        net.turn(LOOK, self)
    }
}

impl Handler for Silence {
    fn take(&mut self, index: usize, bytes: &[u8], _: Instant, _: &mut Vec<u8>) -> Result<usize> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let (length, is_answer) = match self.protocol {
                Protocol::Mqtt => match split(rest) {
                    Some((0xd0, _, length)) => (length, true),
                    Some(_) => return Err(unexpected(index, "PINGRESP", rest)),
                    None => return Ok(at),
                },
                Protocol::Xmpp => match stanza::measure(rest) {
                    Some(length) => (length, stanza::tag(rest.get(..length).unwrap_or_default(), b"iq").is_some()),
                    None => return Ok(at),
                },
            };
            at += length;
            self.answers += usize::from(is_answer);
        }
    }
}
