//! Cuts a socket's bytes into packets. What is taken in is forgotten; an idle connection holds no memory here.

use std::ops::Range;

use crate::packet::Version;
use crate::validate::{self, OVERSIZE_BYTES_MAX, PACKET_BYTES_MAX, TOO_LARGE, Violation, kind};

/// How much of an oversized PUBLISH is looked at to find its packet id.
const HEAD_BYTES_MAX: usize = 4 * 1024;

/// What stands next in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Not all of a packet yet.
    Wait,
    /// A whole packet, at this place.
    Packet(Range<usize>),
    /// A PUBLISH that is too large was read past.
    Oversize {
        /// 0 at QoS 0.
        packet_id: u16,
        /// 0, 1 or 2.
        qos: u8,
    },
}

/// The bytes of a connection that are not taken in yet.
#[derive(Debug, Default)]
pub(crate) struct Input {
    kept: Vec<u8>,
    /// Where the next packet begins in `kept`.
    start: usize,
    /// `None` before CONNECT, when nothing else is taken.
    version: Option<Version>,
    skipping: Option<Skipping>,
}

/// An oversized PUBLISH in the middle of being read past.
#[derive(Debug, Clone, Copy)]
struct Skipping {
    first: u8,
    /// Bytes of it that are still to come, from `start` on.
    left: usize,
    packet_id: Option<u16>,
}

impl Input {
    /// CONNECT has said what the client speaks.
    pub(crate) fn set_version(&mut self, version: Version) {
        self.version = Some(version);
    }

    /// Adds bytes from the socket.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
    }

    /// The bytes at the place that [`Input::next`] named, until its next call.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.kept.get(range).unwrap_or_default()
    }

    /// Whether there are bytes that are not taken in.
    pub(crate) fn has_begun(&self) -> bool {
        self.start < self.kept.len() || self.skipping.is_some()
    }

    /// Looks for the next packet, and steps over it.
    pub(crate) fn next(&mut self) -> Result<Next, Violation> {
        let next = match self.skipping {
            Some(skipping) => self.skip(skipping)?,
            None => self.cut()?,
        };
        if next == Next::Wait {
            self.forget();
        }
        Ok(next)
    }

    fn cut(&mut self) -> Result<Next, Violation> {
        let bytes = &self.kept[self.start..];
        let Some((first, rest)) = bytes.split_first() else { return Ok(Next::Wait) };
        if self.version.is_none() && first >> 4 != kind::CONNECT {
            return Err(validate::PROTOCOL_ERROR);
        }
        validate::first_byte(*first)?;
        let Some((length, length_bytes)) = validate::remaining_length(rest)? else { return Ok(Next::Wait) };
        let head = 1 + length_bytes;
        let total = head + length;
        let bytes_max = if self.version.is_none() { validate::CONNECT_BYTES_MAX } else { PACKET_BYTES_MAX };
        if total > bytes_max {
            if self.version.is_none() || first >> 4 != kind::PUBLISH || total > OVERSIZE_BYTES_MAX {
                return Err(TOO_LARGE);
            }
            let skipping = Skipping { first: *first, left: length, packet_id: None };
            self.start += head;
            return self.skip(skipping);
        }
        if bytes.len() < total {
            return Ok(Next::Wait);
        }
        let range = self.start..self.start + total;
        self.start = range.end;
        Ok(Next::Packet(range))
    }

    fn skip(&mut self, mut skipping: Skipping) -> Result<Next, Violation> {
        self.skipping = Some(skipping);
        if skipping.packet_id.is_none() {
            let have = &self.kept[self.start..];
            let head = &have[..have.len().min(HEAD_BYTES_MAX)];
            skipping.packet_id = validate::oversize_head(self.version.unwrap_or(Version::V5), skipping.first, head)?;
            if skipping.packet_id.is_none() {
                return if head.len() == HEAD_BYTES_MAX { Err(TOO_LARGE) } else { Ok(Next::Wait) };
            }
        }
        let skipped = skipping.left.min(self.kept.len() - self.start);
        skipping.left -= skipped;
        self.start += skipped;
        match skipping {
            Skipping { left: 0, first, packet_id: Some(packet_id) } => {
                self.skipping = None;
                Ok(Next::Oversize { packet_id, qos: (first >> 1) & 3 })
            }
            _ => {
                self.skipping = Some(skipping);
                Ok(Next::Wait)
            }
        }
    }

    /// Gives back the memory of what was taken in.
    fn forget(&mut self) {
        if self.start == self.kept.len() {
            self.kept = Vec::new();
        } else {
            self.kept.drain(..self.start);
        }
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(version: Version) -> Input {
        Input { version: Some(version), ..Input::default() }
    }

    #[test]
    fn packets_are_found_however_the_bytes_come() {
        let stream = b"\xc0\0\x32\x06\0\x01t\0\x07x\xe0\0";
        for step in 1..stream.len() {
            let mut input = input(Version::V3);
            let mut packets = Vec::new();
            for chunk in stream.chunks(step) {
                input.push(chunk);
                while let Next::Packet(range) = input.next().unwrap() {
                    packets.push(input.bytes(range).to_vec());
                }
            }
            assert_eq!(packets, [&b"\xc0\0"[..], b"\x32\x06\0\x01t\0\x07x", b"\xe0\0"], "{step} at a time");
            assert!(!input.has_begun());
            assert_eq!(input.kept.capacity(), 0, "nothing is held");
        }
    }

    #[test]
    fn only_a_connect_of_its_size_comes_first() {
        let mut input = Input::default();
        input.push(b"\xc0\0");
        assert_eq!(input.next(), Err(validate::PROTOCOL_ERROR));
        let mut input = Input::default();
        input.push(b"\x10\xff\xff\x01");
        assert_eq!(input.next(), Err(TOO_LARGE));
        let mut input = Input::default();
        input.push(b"GET / HTTP/1.1\r\n");
        assert_eq!(input.next(), Err(validate::PROTOCOL_ERROR));
    }

    /// A PUBLISH whose remaining length is `length`.
    fn publish(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![
            first,
            (length & 0x7f) as u8 | 0x80,
            ((length >> 7) & 0x7f) as u8 | 0x80,
            (length >> 14) as u8,
            0,
            1,
            b't',
            0,
            9,
        ];
        bytes.resize(4 + length, b'x');
        bytes
    }

    #[test]
    fn an_oversized_publish_is_read_past_and_named() {
        for step in [1, 7, 1000, 65_536, 1 << 20] {
            let mut input = input(Version::V3);
            let mut found = Vec::new();
            let mut most = 0;
            let stream = [publish(0x34, 200_000), b"\xc0\0".to_vec()].concat();
            for chunk in stream.chunks(step) {
                input.push(chunk);
                loop {
                    match input.next().unwrap() {
                        Next::Wait => break,
                        next => found.push(next),
                    }
                }
                most = most.max(input.kept.len());
            }
            assert_eq!(found.len(), 2, "{step} at a time");
            assert_eq!(found[0], Next::Oversize { packet_id: 9, qos: 2 });
            assert!(most < 5000, "{most} bytes were kept");
        }
    }

    #[test]
    fn what_is_larger_still_or_retained_ends_the_connection() {
        for (version, bytes, reason) in [
            (Version::V5, publish(0x32, 300_000), TOO_LARGE),
            (Version::V5, publish(0x33, 200_000), validate::RETAIN),
            (Version::V3, publish(0x36, 200_000), validate::MALFORMED),
        ] {
            let mut input = input(version);
            input.push(&bytes);
            assert_eq!(input.next(), Err(reason));
        }
        let mut subscribe = publish(0x82, 200_000);
        subscribe[0] = 0x82;
        let mut input = input(Version::V5);
        input.push(&subscribe);
        assert_eq!(input.next(), Err(TOO_LARGE));
    }
}
