//! A client's connection: bytes in and out, and what is on its way.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::mqtt;

/// How long a read waits.
const READ_WAIT: Duration = Duration::from_millis(5);
/// Silence after which a client asks, and after twice that gives up on a connection.
const SILENCE: Duration = Duration::from_secs(2);
/// How long to wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// What a PUBLISH carried.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Item {
    Message(u32),
    /// An acknowledged message once more.
    Again(u32),
    Read(u32),
}

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    next_id: u16,
    /// PUBLISHes without a PUBACK, oldest first.
    pub(crate) in_flight: VecDeque<(u16, Item)>,
    /// Entries to acknowledge: packet id and `seq`.
    pub(crate) acks: Vec<(u16, u64)>,
    /// Nothing is acknowledged before.
    pub(crate) slow_until: Instant,
    heard: Instant,
    asked: bool,
    pub(crate) subscribed: bool,
}

impl Connection {
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), CONNECT_WAIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_WAIT))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let now = Instant::now();
        Ok(Self {
            stream,
            buffer: Vec::new(),
            next_id: 0,
            in_flight: VecDeque::new(),
            acks: Vec::new(),
            slow_until: now,
            heard: now,
            asked: false,
            subscribed: false,
        })
    }

    /// Reads what is there, or waits a moment; the whole packets of it, as (first byte, what stands behind the length).
    pub(crate) fn read(&mut self) -> io::Result<Vec<(u8, Vec<u8>)>> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.buffer.extend_from_slice(chunk.get(..length).unwrap_or_default());
                (self.heard, self.asked) = (Instant::now(), false);
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                let silent = self.heard.elapsed();
                if silent > 2 * SILENCE {
                    return Err(ErrorKind::TimedOut.into());
                }
                if silent > SILENCE && !self.asked {
                    self.asked = true;
                    self.stream.write_all(&mqtt::frame(0xc0, &[]))?;
                }
            }
            Err(e) => return Err(e),
        }
        let mut packets = Vec::new();
        let mut at = 0;
        while let Some((body, end)) = self.buffer.get(at..).and_then(mqtt::measure) {
            if let Some((first, rest)) = self.buffer.get(at..at + end).and_then(|whole| whole.split_first()) {
                packets.push((*first, rest.get(body - 1..).unwrap_or_default().to_vec()));
            }
            at += end;
        }
        self.buffer.drain(..at);
        Ok(packets)
    }

    /// A packet id for what is published now.
    pub(crate) fn begin(&mut self, item: Item) -> u16 {
        self.next_id = self.next_id % 60_000 + 1;
        self.in_flight.push_back((self.next_id, item));
        self.next_id
    }
}
