//! The high-water mark: the number of the newest committed journal row, kept in a file beside the database.
//!
//! SQLite opens a WAL whose end is torn or lost at the last commit that reads, and says nothing. This file says how far the journal had
//! come. It is written after every commit and synced once a second, off the commit's path: after a power cut it may lie a second
//! behind, never ahead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest, Sha256};

/// The log whose rows are counted: there is one.
pub(crate) const MARKED_LOG: u8 = 0;
/// The file's size; it never grows, so a full disk does not stop it.
const BLOCK_BYTES: usize = 4096;
/// Where the two slots lie: in different sectors, written in turn, so that a torn write leaves the other.
const SLOTS_AT: [u64; 2] = [0, 2048];
/// Magic, log, row number, checksum; 8 bytes each.
const SLOT_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"nattermk";
/// How far the disk's copy may lie behind.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What a mark file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is none.
    Missing,
    /// Neither slot reads.
    Unreadable,
    /// This journal row was committed.
    Row(u64),
}

/// The mark file of a database.
pub(crate) fn path_of(database: &Path) -> PathBuf {
    database.with_extension("mark")
}

/// Reads a mark file.
///
/// # Errors
/// When a file is there and cannot be read at all.
pub(crate) fn read(path: &Path) -> io::Result<Found> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(error),
    };
    Ok(newest_slot(&bytes).map_or(Found::Unreadable, |(_, row)| Found::Row(row)))
}

/// The slot with the higher number, and the number.
fn newest_slot(block: &[u8]) -> Option<(usize, u64)> {
    let slots = SLOTS_AT.iter().enumerate().filter_map(|(index, at)| {
        let at = usize::try_from(*at).ok()?;
        let slot: &[u8; SLOT_BYTES] = block.get(at..at + SLOT_BYTES)?.try_into().ok()?;
        let row = u64::from_le_bytes(slot[16..24].try_into().ok()?);
        (*slot == encode(row)).then_some((index, row))
    });
    slots.max_by_key(|(_, row)| *row)
}

fn encode(row: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&MAGIC);
    slot[8..16].copy_from_slice(&u64::from(MARKED_LOG).to_le_bytes());
    slot[16..24].copy_from_slice(&row.to_le_bytes());
    let sum = Sha256::digest(&slot[..24]);
    slot[24..].copy_from_slice(&sum[..8]);
    slot
}

/// An open mark file, and the thread that syncs it.
#[derive(Debug)]
pub(crate) struct Mark {
    file: Arc<File>,
    next_slot: usize,
    dirty: Arc<AtomicBool>,
    /// `Some` until the drop.
    wake: Option<SyncSender<()>>,
    syncer: Option<JoinHandle<()>>,
    /// The last write failed, and that was said.
    failed: bool,
}

impl Mark {
    /// Opens the file, or makes one that says `row`.
    ///
    /// # Errors
    /// When it cannot be opened, made or synced, or its thread cannot be made.
    pub(crate) fn open_or_make(path: &Path, row: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut block = [0; BLOCK_BYTES];
        let read = file.read_at(&mut block, 0)?;
        let next_slot = match newest_slot(&block) {
            Some((slot, _)) if read == BLOCK_BYTES => 1 - slot,
            _ => {
                let mut block = [0; BLOCK_BYTES];
                block[..SLOT_BYTES].copy_from_slice(&encode(row));
                file.write_all_at(&block, 0)?;
                file.sync_all()?;
                if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    File::open(parent)?.sync_all()?;
                }
                1
            }
        };
        let (file, dirty) = (Arc::new(file), Arc::new(AtomicBool::new(false)));
        let (wake, woken) = sync_channel(1);
        let of_syncer = (Arc::clone(&file), Arc::clone(&dirty));
        let syncer =
            std::thread::Builder::new().name("mark".into()).spawn(move || sync(&of_syncer.0, &of_syncer.1, &woken))?;
        Ok(Self { file, next_slot, dirty, wake: Some(wake), syncer: Some(syncer), failed: false })
    }

    /// Notes that `row` is committed. A write that fails is logged: the row is safe all the same, its loss would only not be noticed.
    pub(crate) fn rises_to(&mut self, row: u64) {
        let at = SLOTS_AT[self.next_slot];
        match self.file.write_all_at(&encode(row), at) {
            Ok(()) => {
                self.next_slot = 1 - self.next_slot;
                self.failed = false;
            }
            Err(error) if !self.failed => {
                tracing::error!(%error, "natter.mark cannot be written: a loss of the store's end would go unnoticed");
                self.failed = true;
            }
            Err(_) => {}
        }
        if !self.dirty.swap(true, Ordering::AcqRel)
            && let Some(wake) = &self.wake
        {
            // Full: the thread is woken already.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(syncer) = self.syncer.take() {
            let _ = syncer.join();
        }
    }
}

fn sync(file: &File, dirty: &AtomicBool, woken: &Receiver<()>) {
    let sync_if_dirty = || {
        // Before the sync: a row that comes while it runs is for the next one.
        if dirty.swap(false, Ordering::AcqRel)
            && let Err(error) = file.sync_data()
        {
            tracing::error!(%error, "natter.mark cannot be synced: a loss of the store's end would go unnoticed");
        }
    };
    while woken.recv().is_ok() {
        if woken.recv_timeout(SYNC_EVERY) == Err(RecvTimeoutError::Disconnected) {
            break;
        }
        sync_if_dirty();
    }
    sync_if_dirty();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("natter-mark-{}-{name}.mark", std::process::id()));
            let _ = std::fs::remove_file(&path);
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_mark_is_found_again_and_never_grows() {
        let file = Scratch::new("again");
        assert_eq!(read(&file.0).unwrap(), Found::Missing);
        let mut mark = Mark::open_or_make(&file.0, 7).unwrap();
        assert_eq!(read(&file.0).unwrap(), Found::Row(7));
        for row in 8..20 {
            mark.rises_to(row);
            assert_eq!(read(&file.0).unwrap(), Found::Row(row));
        }
        drop(mark);
        drop(Mark::open_or_make(&file.0, 0).unwrap());
        assert_eq!(read(&file.0).unwrap(), Found::Row(19), "one that reads is left alone");
        let metadata = std::fs::metadata(&file.0).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (4096, 0o600));
    }

    #[test]
    fn a_torn_write_leaves_the_row_before_it() {
        let file = Scratch::new("torn");
        let mut mark = Mark::open_or_make(&file.0, 1).unwrap();
        mark.rises_to(2);
        mark.rises_to(3);
        drop(mark);
        let whole = std::fs::read(&file.0).unwrap();
        let (newest, _) = newest_slot(&whole).unwrap();
        for at in 0..SLOT_BYTES {
            let mut torn = whole.clone();
            torn[usize::try_from(SLOTS_AT[newest]).unwrap() + at] ^= 0x10;
            std::fs::write(&file.0, &torn).unwrap();
            assert_eq!(read(&file.0).unwrap(), Found::Row(2), "byte {at}");
        }
        std::fs::write(&file.0, &whole[..2000]).unwrap();
        let of_first_slot = newest_slot(&whole[..2000]).map(|(_, row)| row);
        assert_eq!(read(&file.0).unwrap(), of_first_slot.map_or(Found::Unreadable, Found::Row));
        std::fs::write(&file.0, [0; BLOCK_BYTES]).unwrap();
        assert_eq!(read(&file.0).unwrap(), Found::Unreadable);
        drop(Mark::open_or_make(&file.0, 9).unwrap());
        assert_eq!(read(&file.0).unwrap(), Found::Row(9), "and a new one takes its place");
    }
}
