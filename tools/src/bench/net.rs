//! Many connections on one thread: what has come is read, handled and answered with one read and one write a connection a wake-up.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream as StdTcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::mqtt::{self, Packet};

/// How long a connection may take to be answered.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Connections that are opened at a time, where nothing else is asked for.
pub(crate) const OPENING: usize = 64;
/// Addresses of the loopback network that connections come from.
const SOURCES: usize = 8;
/// Of all connections here: longer than any run is silent.
const KEEP_ALIVE_S: u16 = 3600;
/// Threads that bring connections back at once.
const STORM_THREADS: usize = 8;
/// What is read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Sockets that one wake-up is for.
const EVENTS: usize = 1024;
/// Shorter waits than this get an exact timer.
const EXACT_BELOW: Duration = Duration::from_millis(5);
const TIMER: Token = Token(usize::MAX);

/// Who connects, and what to.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) token: String,
    pub(crate) device: String,
    /// Whether it subscribes to its inbox.
    pub(crate) subscribes: bool,
}

/// The topic of a device: `inbox` or `outbox`.
pub(crate) fn topic(user: &str, device: &str, which: &str) -> String {
    format!("users/{user}/{device}/{which}")
}

/// A connection, past CONNACK and SUBACK.
pub(crate) struct Link {
    stream: TcpStream,
    /// The beginning of a packet whose end has not come.
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Opens connections, `at_once` at a time.
pub(crate) fn open(address: SocketAddr, logins: &[Login], at_once: usize) -> Result<Vec<Link>> {
    let mut links = Vec::with_capacity(logins.len());
    for logins in logins.chunks(at_once.max(1)) {
        let streams: Vec<_> =
            logins.iter().enumerate().map(|(i, login)| greet(address, i, login)).collect::<Result<_>>()?;
        for (login, stream) in logins.iter().zip(streams) {
            links.push(welcome(stream, login).with_context(|| format!("{}/{}", login.user, login.device))?);
        }
    }
    Ok(links)
}

/// Connects. To a server on loopback from one of its many addresses, each of which has as many ports again.
fn dial(address: SocketAddr, index: usize) -> Result<StdTcpStream> {
    let SocketAddr::V4(v4) = address else { return Ok(StdTcpStream::connect_timeout(&address, ANSWER_MAX)?) };
    if !v4.ip().is_loopback() {
        return Ok(StdTcpStream::connect_timeout(&address, ANSWER_MAX)?);
    }
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let source = u8::try_from(1 + index % SOURCES).unwrap_or(1);
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, source), 0))?;
    connect(&socket, &v4)?;
    Ok(socket.into())
}

/// Sends CONNECT, and SUBSCRIBE right behind it.
fn greet(address: SocketAddr, index: usize, login: &Login) -> Result<StdTcpStream> {
    let Login { user, token, device, subscribes } = login;
    let mut stream = dial(address, index).with_context(|| address.to_string())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut bytes = mqtt::connect(true, true, KEEP_ALIVE_S, &format!("{user}-{device}"), user, token);
    if *subscribes {
        bytes.extend_from_slice(&mqtt::subscribe(true, &topic(user, device, "inbox")));
    }
    stream.write_all(&bytes)?;
    Ok(stream)
}

/// Waits for the answers.
fn welcome(mut stream: StdTcpStream, login: &Login) -> Result<Link> {
    let mut input = Vec::new();
    let mut chunk = [0; 4096];
    let (mut at, mut answers) = (0, 0);
    let expected = if login.subscribes { 2 } else { 1 };
    while answers < expected {
        let rest = input.get(at..).unwrap_or_default();
        let Some((body, end)) = mqtt::measure(rest) else {
            let length = stream.read(&mut chunk).context("expected CONNACK and SUBACK")?;
            if length == 0 {
                bail!("closed before CONNACK and SUBACK");
            }
            input.extend_from_slice(chunk.get(..length).unwrap_or_default());
            continue;
        };
        let packet = rest.first().and_then(|first| mqtt::decode(*first, rest.get(body..end)?, true));
        match packet {
            Some(Packet::ConnAck { code: 0, .. }) if answers == 0 => {}
            Some(Packet::SubAck { code: 0..=2 }) if answers == 1 => {}
            other => bail!("expected CONNACK 0 and SUBACK 0 to 2, got {other:?}"),
        }
        answers += 1;
        at += end;
    }
    input.drain(..at);
    stream.set_nonblocking(true)?;
    Ok(Link { stream: TcpStream::from_std(stream), input, output: Vec::new() })
}

/// Bytes that went over the wire, without TCP's own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) to_server: u64,
    pub(crate) from_server: u64,
}

/// Something came on a connection: its first byte, what stands behind the length, and when. Answers go to `output`.
pub(crate) trait Handler {
    /// Handles a packet of connection `index`.
    ///
    /// # Errors
    /// The run cannot go on.
    fn handle(&mut self, index: usize, first: u8, body: &[u8], now: Instant, output: &mut Vec<u8>) -> Result<()>;
}

/// All connections of a thread.
pub(crate) struct Net {
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    buffer: Vec<u8>,
    timer: OwnedFd,
    pub(crate) traffic: Traffic,
}

impl Net {
    pub(crate) fn new(mut links: Vec<Link>) -> Result<Self> {
        let poll = Poll::new()?;
        for (index, link) in links.iter_mut().enumerate() {
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut link.stream, Token(index), interest)?;
        }
        // A poll's own timeout is in whole milliseconds: too coarse for an open loop.
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            links,
            buffer: vec![0; READ_BYTES],
            timer,
            traffic: Traffic::default(),
        })
    }

    /// Drops the first connections, all at once and without a word, and opens them again, all at once.
    pub(crate) fn storm(&mut self, address: SocketAddr, logins: &[Login]) -> Result<()> {
        // A closed socket leaves the poll by itself.
        self.links.drain(..logins.len().min(self.links.len()));
        // One that has to ask again must not keep the others back: they know nothing of each other.
        let links = thread::scope(|scope| {
            let shares = logins.chunks(logins.len().div_ceil(STORM_THREADS).max(1));
            let threads: Vec<_> = shares.map(|share| scope.spawn(move || open(address, share, share.len()))).collect();
            let opened = |thread: thread::ScopedJoinHandle<'_, Result<Vec<Link>>>| {
                thread.join().unwrap_or_else(|_| bail!("a thread of the storm has panicked"))
            };
            threads.into_iter().map(opened).collect::<Result<Vec<_>>>()
        })?;
        let all = links.into_iter().flatten().chain(std::mem::take(&mut self.links)).collect();
        let traffic = self.traffic;
        *self = Self { traffic, ..Self::new(all)? };
        Ok(())
    }

    /// What a connection will write at the next [`Net::flush`].
    pub(crate) fn output(&mut self, index: usize) -> Option<&mut Vec<u8>> {
        self.links.get_mut(index).map(|link| &mut link.output)
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self, index: usize) -> Result<()> {
        match self.links.get_mut(index) {
            Some(link) => link.flush(&mut self.traffic),
            None => Ok(()),
        }
    }

    /// Waits until something has come, at most for `at_most`, and has it handled.
    pub(crate) fn turn(&mut self, at_most: Duration, handler: &mut impl Handler) -> Result<()> {
        if at_most < EXACT_BELOW {
            let it_value = Timespec { tv_sec: 0, tv_nsec: i64::from(at_most.subsec_nanos().max(1)) };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        }
        match self.poll.poll(&mut self.events, Some(at_most)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in &self.events {
            let Token(index) = event.token();
            let Some(link) = self.links.get_mut(index) else { continue };
            if event.is_readable() {
                let ends = event.is_read_closed();
                link.read(index, ends, &mut self.buffer, &mut self.traffic, handler)?;
            }
            link.flush(&mut self.traffic)?;
        }
        Ok(())
    }

    /// Handles what came before anybody waited for it.
    pub(crate) fn begin(&mut self, handler: &mut impl Handler) -> Result<()> {
        for (index, link) in self.links.iter_mut().enumerate() {
            let input = std::mem::take(&mut link.input);
            let used = packets(index, &input, Instant::now(), &mut link.output, handler)?;
            link.input = input.get(used..).unwrap_or_default().to_vec();
            link.flush(&mut self.traffic)?;
        }
        Ok(())
    }
}

impl Link {
    /// Reads all that is there. After a short read nothing is, unless the other side has closed.
    fn read(
        &mut self,
        index: usize,
        ends: bool,
        buffer: &mut [u8],
        traffic: &mut Traffic,
        handler: &mut impl Handler,
    ) -> Result<()> {
        loop {
            let length = match self.stream.read(buffer) {
                Ok(0) => bail!("connection {index}: the server closed it"),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(anyhow!(error).context(format!("connection {index}"))),
            };
            traffic.from_server += length as u64;
            let now = Instant::now();
            let read = buffer.get(..length).unwrap_or_default();
            if self.input.is_empty() {
                let used = packets(index, read, now, &mut self.output, handler)?;
                self.input.extend_from_slice(read.get(used..).unwrap_or_default());
            } else {
                self.input.extend_from_slice(read);
                let used = packets(index, &self.input, now, &mut self.output, handler)?;
                self.input.drain(..used);
            }
            if length < buffer.len() && !ends {
                return Ok(());
            }
        }
    }

    fn flush(&mut self, traffic: &mut Traffic) -> Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) => {
                    traffic.to_server += length as u64;
                    self.output.drain(..length);
                }
                // The socket says when it has room again.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Hands over every whole packet; how many bytes those were.
fn packets(
    index: usize,
    bytes: &[u8],
    now: Instant,
    output: &mut Vec<u8>,
    handler: &mut impl Handler,
) -> Result<usize> {
    let mut at = 0;
    while let Some((body, end)) = bytes.get(at..).and_then(mqtt::measure) {
        if let (Some(first), Some(body)) = (bytes.get(at), bytes.get(at + body..at + end)) {
            handler.handle(index, *first, body, now, output)?;
        }
        at += end;
    }
    Ok(at)
}

/// Why a run cannot go on: what the server sent was not expected.
pub(crate) fn unexpected(index: usize, expected: &str, first: u8, body: &[u8]) -> anyhow::Error {
    let shown = String::from_utf8_lossy(body.get(..body.len().min(400)).unwrap_or_default()).into_owned();
    anyhow!("connection {index}: expected {expected}, got a packet 0x{first:02x} with {shown:?}")
}
