//! Connections that subscribe to their inbox and say nothing, held by a process of their own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _, stdin, stdout};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::net::{self, Handler, Login, Net, unexpected};

/// Devices of an idle user: Natter's `devices_max`.
pub(crate) const DEVICES: u64 = 10;

/// The process; it ends when this is dropped.
pub(crate) struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _status = self.0.wait();
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
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let idle = Idle(child);
    let mut stdin = stdin.context("stdin of the process")?;
    for Login { user, token, device, .. } in logins {
        writeln!(stdin, "{user} {token} {device}")?;
    }
    drop(stdin);
    let mut line = String::new();
    BufReader::new(stdout.context("stdout of the process")?).read_line(&mut line)?;
    if line.trim() != "ready" {
        bail!("the process with the idle connections: expected \"ready\", got {line:?}");
    }
    Ok(idle)
}

/// What that process does, until it is killed.
pub(crate) fn host(address: SocketAddr) -> Result<()> {
    let mut text = String::new();
    stdin().read_to_string(&mut text)?;
    let login = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        Some(Login { user: words.next()?, token: words.next()?, device: words.next()?, subscribes: true })
    };
    let logins: Vec<Login> = text.lines().map(login).collect::<Option<_>>().context("expected user, token, device")?;
    let mut net = Net::new(net::open(address, &logins)?)?;
    let mut stdout = stdout();
    writeln!(stdout, "ready").and_then(|()| stdout.flush())?;
    loop {
        net.turn(Duration::from_secs(60), &mut Silence)?;
    }
}

struct Silence;

impl Handler for Silence {
    fn handle(&mut self, index: usize, first: u8, body: &[u8], _: Instant, _: &mut Vec<u8>) -> Result<()> {
        Err(unexpected(index, "nothing", first, body))
    }
}
