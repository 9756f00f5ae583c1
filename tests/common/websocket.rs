//! A WebSocket client (RFC 6455) that sends what the test says, frame by frame, and shares no mistake with the server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Stream, dial, patience};

/// Opcodes.
pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;
/// The last frame of its message.
pub const FIN: u8 = 0x80;

/// The headers that a client of MQTT sends beside those of WebSocket itself.
pub const SUBPROTOCOL: (&str, &str) = ("Sec-WebSocket-Protocol", "mqtt");

/// A WebSocket. As a [`Stream`] it is the bytes of its binary frames; each write is a frame.
pub struct WebSocket {
    stream: Box<dyn Stream>,
    /// Read and not looked at yet.
    bytes: Vec<u8>,
    /// Of a binary frame, and not asked for yet.
    rest: Vec<u8>,
}

/// An answer to a handshake that is not yes.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl WebSocket {
    /// A WebSocket for MQTT.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        Self::open_over(dial(address), &[SUBPROTOCOL]).unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    /// A handshake with these headers over a stream that is there. The answer yes must choose `mqtt`.
    #[track_caller]
    pub fn open_over(mut stream: impl Stream + 'static, headers: &[(&str, &str)]) -> Result<Self, Refusal> {
        let mut request = "GET /mqtt HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            .to_owned();
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request.push_str("Host: localhost\r\n");
        }
        headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
        stream.write_all(format!("{request}\r\n").as_bytes()).expect("a request");
        Self::answered(stream)
    }

    /// After a handshake that was written already, by hand.
    #[track_caller]
    pub fn opened_by_hand(stream: impl Stream + 'static) -> Self {
        Self::answered(stream).unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    #[track_caller]
    fn answered(stream: impl Stream + 'static) -> Result<Self, Refusal> {
        let mut socket = Self { stream: Box::new(stream), bytes: Vec::new(), rest: Vec::new() };
        let end = loop {
            if let Some(at) = socket.bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(socket.fill(patience()).expect("an answer"), "closed: {:?}", socket.bytes);
        };
        let head = String::from_utf8(socket.bytes.drain(..end).collect()).expect("text");
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        if status == 101 {
            let lower = head.to_ascii_lowercase();
            assert!(lower.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "{head}");
            // The answer to the key above that RFC 6455 section 1.3 gives.
            assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
            return Ok(socket);
        }
        let length = head
            .to_ascii_lowercase()
            .split_once("content-length: ")
            .map(|(_, rest)| rest.split("\r\n").next().and_then(|word| word.parse::<usize>().ok()).expect("a length"));
        while socket.bytes.len() < length.unwrap_or(0) && socket.fill(patience()).expect("a body") {}
        Err(Refusal { status, head, body: String::from_utf8(socket.bytes).expect("text") })
    }

    /// Writes one frame, masked as a client must.
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let bytes = frame(first, payload);
        // A connection that the server has closed is noticed when reading.
        let _ = self.stream.write_all(&bytes).and_then(|()| self.stream.flush());
    }

    /// Writes bytes that need not be frames.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// The next frame: first byte and payload; `None` at the end of the connection.
    #[track_caller]
    pub fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let deadline = Instant::now() + patience();
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.fill(left.max(Duration::from_millis(1))) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("no frame comes")
                }
                Err(_) => return None,
            }
        }
    }

    /// The server ends the connection; the code of its close frame, if it says one.
    #[track_caller]
    pub fn expect_end(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some((first, payload)) = self.next_frame() {
            if first & 0x0f == CLOSE {
                code = payload.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes));
            }
        }
        code
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (*self.bytes.first()?, *self.bytes.get(1)?);
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (length, at) = match second {
            126 => (usize::from(u16::from_be_bytes(*self.bytes.get(2..)?.first_chunk()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(*self.bytes.get(2..)?.first_chunk()?)).expect("small"), 10),
            length => (usize::from(length), 2),
        };
        let payload = self.bytes.get(at..at + length)?.to_vec();
        self.bytes.drain(..at + length);
        Some((first, payload))
    }

    fn fill(&mut self, time: Duration) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(time))?;
        let mut chunk = [0; 16 * 1024];
        let bytes = self.stream.read(&mut chunk)?;
        self.bytes.extend_from_slice(&chunk[..bytes]);
        Ok(bytes > 0)
    }
}

/// The bytes of a masked frame.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).expect("small")),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(length).expect("small").to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

impl Read for WebSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.take_frame() {
                Some((first, payload)) if first == FIN | BINARY => self.rest = payload,
                Some((first, _)) if first & 0x0f == CLOSE => return Ok(0),
                Some((first, _)) if first & 0x0f == PONG => {}
                Some((first, payload)) => panic!("expected binary frames, got 0x{first:02x} {payload:?}"),
                None => {
                    let mut chunk = [0; 16 * 1024];
                    let bytes = self.stream.read(&mut chunk)?;
                    self.bytes.extend_from_slice(&chunk[..bytes]);
                    if bytes == 0 {
                        return Ok(0);
                    }
                }
            }
        }
        let bytes = self.rest.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&self.rest[..bytes]);
        self.rest.drain(..bytes);
        Ok(bytes)
    }
}

impl Write for WebSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write_all(&frame(FIN | BINARY, bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for WebSocket {
    fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(time)
    }
}
