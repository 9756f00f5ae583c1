//! What a disk may hold after the power goes: a model, pure, from the log of what was asked of it and a seed.
//!
//! What was synced is there. Of everything else each sector of each write arrived, did not, or was torn, whatever became of its
//! neighbours and of earlier and later writes; the file may have any of the sizes it had meanwhile; a name in the directory may point
//! to what it pointed to at any time since the directory was synced. Bytes that no write covers never change: that is what SQLite calls
//! powersafe overwrite, and counts on by default.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What a disk keeps or loses as one; smaller than SQLite's page and not aligned with the frames of its write-ahead log.
const SECTOR_BYTES: usize = 512;

/// The name of a file in the one directory there is.
pub type Name = Arc<str>;

/// What was asked of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A file came into being, empty.
    Create(Name),
    /// A name was taken out of the directory.
    Delete(Name),
    /// The directory was synced.
    SyncDirectory,
    Write {
        file: Name,
        offset: usize,
        bytes: Arc<[u8]>,
    },
    Truncate {
        file: Name,
        bytes: usize,
    },
    /// A file was synced: content and size, not its name.
    Sync(Name),
    /// A sync failed. As on Linux: what was not written by then may never be, even if a later sync succeeds.
    SyncFailed(Name),
    /// The disk reported a sync as done, and did nothing.
    SyncIgnored(Name),
}

/// The files that are there after a cut.
pub type Image = BTreeMap<Name, Vec<u8>>;

/// What makes an image on an empty disk, for good.
pub fn making(image: &Image) -> Vec<Op> {
    let file = |(name, content): (&Name, &Vec<u8>)| {
        let write = Op::Write { file: Arc::clone(name), offset: 0, bytes: Arc::from(content.as_slice()) };
        [Op::Create(Arc::clone(name)), write, Op::Sync(Arc::clone(name)), Op::SyncDirectory]
    };
    image.iter().flat_map(file).collect()
}

/// Numbers that repeat with their seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a small number");
        usize::try_from(self.next() % end).expect("a small number")
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

#[derive(Debug, Clone)]
enum Unsynced {
    Write { offset: usize, bytes: Arc<[u8]> },
    Truncate(usize),
}

#[derive(Debug, Default)]
struct File {
    synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

/// Where a name points, by index; `None`: nowhere.
#[derive(Debug, Default)]
struct Entry {
    synced: Option<usize>,
    since: Vec<Option<usize>>,
}

impl Entry {
    fn now(&self) -> Option<usize> {
        self.since.last().copied().unwrap_or(self.synced)
    }
}

/// A disk while it has power.
#[derive(Debug)]
pub struct Disk {
    files: Vec<File>,
    directory: BTreeMap<Name, Entry>,
    random: Random,
}

impl Disk {
    /// An empty directory; the seed decides what a failed sync loses.
    pub fn new(seed: u64) -> Self {
        Self { files: Vec::new(), directory: BTreeMap::new(), random: Random(seed) }
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(name) => {
                self.files.push(File::default());
                let index = self.files.len() - 1;
                self.directory.entry(Arc::clone(name)).or_default().since.push(Some(index));
            }
            Op::Delete(name) => self.directory.entry(Arc::clone(name)).or_default().since.push(None),
            Op::SyncDirectory => {
                for entry in self.directory.values_mut() {
                    entry.synced = entry.now();
                    entry.since.clear();
                }
            }
            Op::Write { file, offset, bytes } => {
                let unsynced = Unsynced::Write { offset: *offset, bytes: Arc::clone(bytes) };
                self.file(file).unsynced.push(unsynced);
            }
            Op::Truncate { file, bytes } => self.file(file).unsynced.push(Unsynced::Truncate(*bytes)),
            Op::Sync(name) => self.file(name).sync(),
            Op::SyncFailed(name) => {
                let mut random = Random(self.random.next());
                let file = self.file(name);
                file.synced = file.after_power_cut(&mut random);
                file.unsynced.clear();
            }
            Op::SyncIgnored(_) => {}
        }
    }

    fn file(&mut self, name: &Name) -> &mut File {
        let index = self.directory.get(name).and_then(Entry::now);
        index.and_then(|index| self.files.get_mut(index)).unwrap_or_else(|| panic!("{name} is not open"))
    }

    /// What may be there when the power comes back.
    pub fn after_power_cut(&self, random: &mut Random) -> Image {
        let mut image = Image::new();
        for (name, entry) in &self.directory {
            let index = match random.below(entry.since.len() + 1) {
                0 => entry.synced,
                since => entry.since[since - 1],
            };
            if let Some(index) = index {
                image.insert(Arc::clone(name), self.files[index].after_power_cut(random));
            }
        }
        image
    }
}

impl File {
    fn sync(&mut self) {
        for unsynced in self.unsynced.drain(..) {
            match unsynced {
                Unsynced::Write { offset, bytes } => put(&mut self.synced, offset, &bytes),
                Unsynced::Truncate(bytes) => self.synced.resize(bytes, 0),
            }
        }
    }

    fn after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let luck = Luck::draw(random);
        let mut content = self.synced.clone();
        let mut size = content.len();
        let mut sizes = vec![size];
        for unsynced in &self.unsynced {
            match unsynced {
                Unsynced::Write { offset, bytes } => {
                    size = size.max(offset + bytes.len());
                    for (offset, sector) in sectors(*offset, bytes) {
                        luck.write(random, &mut content, offset, sector);
                    }
                }
                Unsynced::Truncate(bytes) => {
                    size = *bytes;
                    if random.percent(luck.arrives) {
                        content.truncate(size);
                    }
                }
            }
            sizes.push(size);
        }
        let size = if random.percent(luck.arrives) { size } else { sizes[random.below(sizes.len())] };
        content.resize(size, 0);
        content
    }
}

/// How much of what was not synced arrives, in percent: different from cut to cut and from file to file, for a commit that arrived
/// whole and one of which only the last sector did are both worth seeing.
#[derive(Debug, Clone, Copy)]
struct Luck {
    arrives: usize,
    torn: usize,
}

impl Luck {
    fn draw(random: &mut Random) -> Self {
        Self { arrives: [0, 20, 50, 80, 95, 100][random.below(6)], torn: [0, 5, 30][random.below(3)] }
    }

    fn write(self, random: &mut Random, content: &mut Vec<u8>, offset: usize, sector: &[u8]) {
        if !random.percent(self.arrives) {
            if !random.percent(self.torn) {
                return;
            }
            let half = sector.len() / 2;
            match random.below(3) {
                0 => put(content, offset, &sector[..half]),
                1 => put(content, offset + half, &sector[half..]),
                _ => {
                    let garbage: Vec<u8> = sector.iter().map(|_| random.next().to_le_bytes()[0]).collect();
                    put(content, offset, &garbage);
                }
            }
            return;
        }
        put(content, offset, sector);
    }
}

/// A write in pieces that do not cross a sector's end.
fn sectors(mut offset: usize, mut bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    std::iter::from_fn(move || {
        let (sector, rest) = bytes.split_at(bytes.len().min(SECTOR_BYTES - offset % SECTOR_BYTES));
        let at = offset;
        offset += sector.len();
        bytes = rest;
        (!sector.is_empty()).then_some((at, sector))
    })
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// The same log on a disk that says yes to every sync and does nothing.
pub fn on_a_disk_that_lies(log: &[Op]) -> Vec<Op> {
    let op = |op: &Op| match op {
        Op::Sync(name) => Op::SyncIgnored(Arc::clone(name)),
        op => op.clone(),
    };
    log.iter().map(op).collect()
}

/// The same log as `synchronous=NORMAL` would have made it: the write-ahead log is synced when it begins anew (its header) and before its
/// pages are copied to the database, not at commits.
pub fn with_synchronous_normal(log: &[Op]) -> Vec<Op> {
    let is_wal = |name: &Name| name.ends_with("-wal");
    let mut out = log.to_vec();
    for (i, op) in log.iter().enumerate() {
        let Op::Sync(name) = op else { continue };
        let begins = matches!(log[..i].last(), Some(Op::Write { file, offset: 0, .. }) if is_wal(file));
        let next = log[i + 1..].iter().find_map(|op| match op {
            Op::Write { file, .. } | Op::Truncate { file, .. } => Some(is_wal(file)),
            Op::Delete(file) => Some(is_wal(file)),
            _ => None,
        });
        let copies = next == Some(false);
        if is_wal(name) && !begins && !copies {
            out[i] = Op::SyncIgnored(Arc::clone(name));
        }
    }
    out
}

mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn name() -> Name {
        Arc::from("a")
    }

    fn write(offset: usize, bytes: &[u8]) -> Op {
        Op::Write { file: name(), offset, bytes: Arc::from(bytes) }
    }

    /// Every content of the file that 2,000 cuts leave; `None`: no file.
    fn cuts(ops: &[Op]) -> BTreeSet<Option<Vec<u8>>> {
        let mut disk = Disk::new(1);
        ops.iter().for_each(|op| disk.apply(op));
        (0..2000).map(|seed| disk.after_power_cut(&mut Random(seed)).remove(&name())).collect()
    }

    fn synced(bytes: &[u8]) -> Vec<Op> {
        vec![Op::Create(name()), Op::SyncDirectory, write(0, bytes), Op::Sync(name())]
    }

    #[test]
    fn what_is_synced_is_there_and_nothing_else_is() {
        assert_eq!(cuts(&synced(b"abc")), [Some(b"abc".to_vec())].into());
    }

    #[test]
    fn a_name_is_there_only_once_its_directory_is_synced() {
        let mut ops = vec![Op::Create(name()), write(0, b"abc"), Op::Sync(name())];
        assert_eq!(cuts(&ops), [None, Some(b"abc".to_vec())].into());
        ops.extend([Op::SyncDirectory, Op::Delete(name())]);
        assert_eq!(cuts(&ops), [None, Some(b"abc".to_vec())].into(), "a deleted file may come back");
        ops.extend([Op::Create(name()), write(0, b"new"), Op::Sync(name())]);
        assert_eq!(cuts(&ops), [None, Some(b"abc".to_vec()), Some(b"new".to_vec())].into());
        ops.push(Op::SyncDirectory);
        assert_eq!(cuts(&ops), [Some(b"new".to_vec())].into());
    }

    #[test]
    fn an_unsynced_sector_is_kept_dropped_torn_or_garbage_and_its_neighbours_are_their_own() {
        let mut ops = synced(&[b'o'; 3 * SECTOR_BYTES]);
        ops.push(write(SECTOR_BYTES, &[b'n'; 2 * SECTOR_BYTES]));
        let all = cuts(&ops);
        let mut seen = BTreeSet::new();
        for content in all.iter().flatten() {
            assert_eq!(content[..SECTOR_BYTES], [b'o'; SECTOR_BYTES], "no write covers it");
            let kind = |sector: &[u8]| match (sector[0], sector[SECTOR_BYTES - 1]) {
                (b'o', b'o') => "old",
                (b'n', b'n') => "new",
                (b'n', b'o') | (b'o', b'n') => "torn",
                _ => "garbage",
            };
            seen.insert((kind(&content[SECTOR_BYTES..2 * SECTOR_BYTES]), kind(&content[2 * SECTOR_BYTES..])));
        }
        for expected in
            [("old", "new"), ("new", "old"), ("old", "old"), ("new", "new"), ("torn", "new"), ("old", "garbage")]
        {
            assert!(seen.contains(&expected), "{expected:?} in {seen:?}");
        }
    }

    #[test]
    fn an_unsynced_size_may_or_may_not_be_there() {
        let mut ops = synced(b"abc");
        ops.extend([Op::Truncate { file: name(), bytes: 1 }, write(3, b"defg")]);
        let sizes: BTreeSet<_> = cuts(&ops).into_iter().flatten().map(|content| content.len()).collect();
        assert_eq!(sizes, [1, 3, 7].into());
    }

    #[test]
    fn what_a_failed_sync_lost_is_not_brought_back_by_the_next_one() {
        let mut ops = synced(b"old");
        ops.extend([write(0, b"new"), Op::SyncFailed(name()), Op::Sync(name())]);
        let contents: BTreeSet<_> = (0..200)
            .map(|seed| {
                let mut disk = Disk::new(seed);
                ops.iter().for_each(|op| disk.apply(op));
                let image = disk.after_power_cut(&mut Random(1));
                assert_eq!(image, disk.after_power_cut(&mut Random(2)), "nothing is open any more");
                image[&name()].clone()
            })
            .collect();
        assert!(contents.contains(&b"old"[..]) && contents.contains(&b"new"[..]), "{contents:?}");
    }

    #[test]
    fn normal_syncs_the_log_before_it_is_copied_and_when_it_begins_only() {
        let (wal, db): (Name, Name) = (Arc::from("x-wal"), Arc::from("x"));
        let write = |file: &Name, offset| Op::Write { file: Arc::clone(file), offset, bytes: Arc::from([0; 24]) };
        let sync = |file: &Name| Op::Sync(Arc::clone(file));
        let log = [
            write(&wal, 0),
            sync(&wal),
            write(&wal, 32),
            sync(&wal),
            write(&wal, 56),
            sync(&wal),
            write(&db, 0),
            sync(&db),
        ];
        let normal = with_synchronous_normal(&log);
        let ignored: Vec<_> = (0..log.len()).filter(|i| normal[*i] != log[*i]).collect();
        assert_eq!(ignored, [3]);
        assert_eq!(on_a_disk_that_lies(&log).iter().filter(|op| matches!(op, Op::Sync(_))).count(), 0);
    }
}
