//! Many connections on one thread: what has come is read, handled and answered with one read and one write a connection a wake-up.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::opening::{Endpoint, Login, open};

/// Threads that bring connections back at once.
const STORM_THREADS: usize = 8;
/// What is read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Sockets that one wake-up is for.
const EVENTS: usize = 1024;
/// Shorter waits than this get an exact timer.
const EXACT_BELOW: Duration = Duration::from_millis(5);
const TIMER: Token = Token(usize::MAX);

/// A connection, past its greeting.
pub(crate) struct Link {
    stream: TcpStream,
    /// The beginning of something whose end has not come.
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Link {
    /// One that is open; `input` has come and was not read.
    pub(crate) fn new(stream: std::net::TcpStream, input: Vec<u8>) -> Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: TcpStream::from_std(stream), input, output: Vec::new() })
    }
}

/// Bytes that went over the wire, without TCP's own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) to_server: u64,
    pub(crate) from_server: u64,
}

/// What reads the connections of a [`Net`].
pub(crate) trait Handler {
    /// Handles what has come on connection `index`, as far as it is whole; how many bytes that was. Answers go to `output`.
    ///
    /// # Errors
    /// The run cannot go on.
    fn take(&mut self, index: usize, bytes: &[u8], now: Instant, output: &mut Vec<u8>) -> Result<usize>;
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
    pub(crate) fn storm(&mut self, endpoint: Endpoint, logins: &[Login]) -> Result<()> {
        // A closed socket leaves the poll by itself.
        self.links.drain(..logins.len().min(self.links.len()));
        // One that has to ask again must not keep the others back: they know nothing of each other.
        let links = thread::scope(|scope| {
            let shares = logins.chunks(logins.len().div_ceil(STORM_THREADS).max(1));
            let threads: Vec<_> = shares.map(|share| scope.spawn(move || open(endpoint, share, share.len()))).collect();
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

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
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
            let used = handler.take(index, &input, Instant::now(), &mut link.output)?;
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
                let used = handler.take(index, read, now, &mut self.output)?;
                self.input.extend_from_slice(read.get(used..).unwrap_or_default());
            } else {
                self.input.extend_from_slice(read);
                let used = handler.take(index, &self.input, now, &mut self.output)?;
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

/// Why a run cannot go on: what the server sent was not expected.
pub(crate) fn unexpected(index: usize, expected: &str, got: &[u8]) -> anyhow::Error {
    let first = got.first().copied().unwrap_or(0);
    let shown = String::from_utf8_lossy(got.get(..got.len().min(400)).unwrap_or_default()).into_owned();
    anyhow!("connection {index}: expected {expected}, got 0x{first:02x}: {shown:?}")
}
