//! What a device did and saw, on disk: it survives the SIGKILL of the process that hosts the device.
//!
//! A record is a tag, the time, and the fields of one [`What`] in little endian; the tag says how long it is. Records are written with one
//! write(2) *before* what they describe leaves the process, so a record that a SIGKILL cut off describes nothing that anybody saw.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use super::clock;
use super::history::{Event, Message, What};

/// Stands for "no number".
const NONE: u32 = u32::MAX;

/// A journal that grows.
pub(crate) struct Journal {
    file: File,
    pending: Vec<u8>,
}

impl Journal {
    /// Opens or makes it, cuts off a torn record, and returns what it holds.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<Event>)> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (events, whole) = read(path)?;
        file.set_len(whole)?;
        Ok((Self { file, pending: Vec::new() }, events))
    }

    /// Adds an event, now; it is on its way to disk with the next [`Self::flush`].
    pub(crate) fn note(&mut self, what: What) {
        encode(&Event { at: clock::now(), what }, &mut self.pending);
    }

    /// Writes what was noted. Nothing that it describes may leave before.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.file.write_all(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }
}

/// The events of a journal, and the length of its whole records.
pub(crate) fn read(path: &Path) -> io::Result<(Vec<Event>, u64)> {
    parse(&std::fs::read(path)?, path)
}

/// The events of records, and the length of the whole ones; `path` is where they are from.
pub(crate) fn parse(bytes: &[u8], path: &Path) -> io::Result<(Vec<Event>, u64)> {
    let mut events = Vec::with_capacity(bytes.len() / 24);
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut fields = Fields(rest);
        match fields.event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => break,
            Err(tag) => {
                let at = bytes.len() - rest.len();
                let text = format!("{}: expected the tag of a record at byte {at}, got {tag}", path.display());
                return Err(io::Error::new(ErrorKind::InvalidData, text));
            }
        }
        rest = fields.0;
    }
    events.shrink_to_fit();
    Ok((events, (bytes.len() - rest.len()) as u64))
}

/// An event as a record.
pub(crate) fn record(event: &Event) -> Vec<u8> {
    let mut record = Vec::new();
    encode(event, &mut record);
    record
}

fn encode(event: &Event, out: &mut Vec<u8>) {
    let mut record = |tag: u8, small: &[u32], large: &[u64]| {
        out.push(tag);
        out.extend_from_slice(&event.at.to_le_bytes());
        small.iter().for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
        large.iter().for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
    };
    match event.what {
        What::Sent { k, hash } => record(1, &[k], &[hash]),
        What::Acked { k, n } => record(2, &[k, n.unwrap_or(NONE)], &[]),
        What::Refused => record(3, &[], &[]),
        What::Taken { message: Message { device, k }, n, seq, hash } => record(4, &[device, k, n], &[seq, hash]),
        What::Acknowledged { seq } => record(5, &[], &[seq]),
        What::MarkedRead { n } => record(6, &[n], &[]),
        What::Receipt { read, recipient, after, n, message: Message { device, k }, seq } => {
            record(7 + u8::from(read), &[recipient, after, n, device, k], &[seq]);
        }
        What::Gap => record(9, &[], &[]),
        What::Phantom => record(10, &[], &[]),
        What::Subscribed => record(11, &[], &[]),
        What::Numbered { k, n } => record(12, &[k, n], &[]),
        What::Kept { k } => record(13, &[k], &[]),
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn small(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn large(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// The next record; `None` if not all of it is there, its tag if there is no such tag.
    fn event(&mut self) -> Result<Option<Event>, u8> {
        let Some([tag]) = self.take() else { return Ok(None) };
        if !(1..=13).contains(&tag) {
            return Err(tag);
        }
        Ok(self.fields(tag))
    }

    fn fields(&mut self, tag: u8) -> Option<Event> {
        let at = self.large()?;
        let what = match tag {
            1 => What::Sent { k: self.small()?, hash: self.large()? },
            2 => What::Acked { k: self.small()?, n: self.small().map(|n| (n != NONE).then_some(n))? },
            3 => What::Refused,
            4 => What::Taken { message: self.message()?, n: self.small()?, seq: self.large()?, hash: self.large()? },
            5 => What::Acknowledged { seq: self.large()? },
            6 => What::MarkedRead { n: self.small()? },
            7 | 8 => What::Receipt {
                read: tag == 8,
                recipient: self.small()?,
                after: self.small()?,
                n: self.small()?,
                message: self.message()?,
                seq: self.large()?,
            },
            9 => What::Gap,
            10 => What::Phantom,
            11 => What::Subscribed,
            12 => What::Numbered { k: self.small()?, n: self.small()? },
            _ => What::Kept { k: self.small()? },
        };
        Some(Event { at, what })
    }

    fn message(&mut self) -> Option<Message> {
        Some(Message { device: self.small()?, k: self.small()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [What; 14] = [
        What::Sent { k: 1, hash: u64::MAX },
        What::Acked { k: 2, n: Some(3) },
        What::Acked { k: 2, n: None },
        What::Refused,
        What::Taken { message: Message { device: 4, k: 5 }, n: 6, seq: 7, hash: 8 },
        What::Acknowledged { seq: 1 << 40 },
        What::MarkedRead { n: 9 },
        What::Receipt { read: false, recipient: 1, after: 2, n: 3, message: Message { device: 4, k: 5 }, seq: 6 },
        What::Receipt { read: true, recipient: 1, after: 2, n: 3, message: Message { device: 4, k: 5 }, seq: 6 },
        What::Gap,
        What::Phantom,
        What::Subscribed,
        What::Numbered { k: 1, n: 2 },
        What::Kept { k: 3 },
    ];

    fn whats(events: &[Event]) -> Vec<What> {
        events.iter().map(|event| event.what).collect()
    }

    #[test]
    fn what_was_flushed_is_read_back_and_a_torn_record_is_cut_off() {
        let dir = std::env::temp_dir().join(format!("natter-journal-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("journal");
        let (mut journal, events) = Journal::open(&path).unwrap();
        assert!(events.is_empty());
        ALL.into_iter().for_each(|what| journal.note(what));
        journal.flush().unwrap();
        journal.note(What::Gap);
        drop(journal);
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let (mut journal, events) = Journal::open(&path).unwrap();
            assert_eq!(whats(&events), ALL[..events.len()], "cut at {length}");
            assert!((events.len() == ALL.len()) == (length == bytes.len()), "cut at {length}");
            journal.note(What::Refused);
            journal.flush().unwrap();
            let (after, _) = read(&path).unwrap();
            assert_eq!(whats(&after[events.len()..]), [What::Refused], "cut at {length}");
        }
        std::fs::write(&path, [99]).unwrap();
        assert!(read(&path).is_err(), "no such tag");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
