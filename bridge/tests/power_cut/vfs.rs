//! A SQLite VFS that watches: SQLite's own one for unix does the work, and what it is asked to do with the files of a watched directory
//! is logged in order, or made to fail. Files elsewhere are opened by the original and never seen here again.
//!
//! Shared memory (`-shm`) passes through: it is memory, and does not survive a power cut on any machine.

#![allow(
    unsafe_code,
    reason = "a VFS is a table of C functions; nothing but SQLite's C interface can see what SQLite writes and syncs"
)]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

use super::disk::{Name, Op};

/// What a watched directory is to do wrong.
#[derive(Debug, Default)]
pub struct Faults {
    /// Result code of every write to a file whose name ends so; half of the bytes are written first.
    pub write: Option<(c_int, &'static str)>,
    /// A sync of a file whose name ends so fails, after as many more that do not.
    pub sync: Option<(usize, &'static str)>,
    /// How many operations have failed so far.
    pub met: usize,
}

#[derive(Debug, Default)]
struct Watched {
    log: Vec<Op>,
    faults: Faults,
}

/// A directory whose files are watched, as long as this lives.
#[derive(Debug)]
pub struct Watch {
    directory: PathBuf,
    watched: Arc<Mutex<Watched>>,
}

impl Watch {
    /// Begins with an empty directory. The VFS becomes the process's default with the first call.
    pub fn directory(path: &Path) -> Self {
        Self::directory_after(path, Vec::new())
    }

    /// Begins with a directory that is what `log` has made of it.
    pub fn directory_after(path: &Path, log: Vec<Op>) -> Self {
        register();
        let directory = path.canonicalize().expect("the directory");
        let watched = Arc::new(Mutex::new(Watched { log, faults: Faults::default() }));
        lock(directories()).insert(directory.clone(), Arc::clone(&watched));
        Self { directory, watched }
    }

    /// How much is in the log.
    pub fn position(&self) -> usize {
        lock(&self.watched).log.len()
    }

    /// The log so far.
    pub fn log(&self) -> Vec<Op> {
        lock(&self.watched).log.clone()
    }

    /// Changes what goes wrong from now on.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.watched).faults);
    }

    /// How many operations have been made to fail.
    pub fn faults_met(&self) -> usize {
        lock(&self.watched).faults.met
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(directories()).remove(&self.directory);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn directories() -> &'static Mutex<HashMap<PathBuf, Arc<Mutex<Watched>>>> {
    static DIRECTORIES: OnceLock<Mutex<HashMap<PathBuf, Arc<Mutex<Watched>>>>> = OnceLock::new();
    DIRECTORIES.get_or_init(Mutex::default)
}

/// The log and the name of a file, if it is in a watched directory.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn find(path: *const c_char) -> Option<(Arc<Mutex<Watched>>, Name)> {
    if path.is_null() {
        return None;
    }
    let path = Path::new(unsafe { CStr::from_ptr(path) }.to_str().ok()?);
    let watched = Arc::clone(lock(directories()).get(path.parent()?)?);
    Some((watched, Name::from(path.file_name()?.to_str()?)))
}

/// A watched file: SQLite's handle, and directly behind it the original's, as large as the original asks for.
#[repr(C)]
struct Handle {
    base: sqlite3_file,
    tap: *mut Tap,
}

struct Tap {
    watched: Arc<Mutex<Watched>>,
    name: Name,
    /// The original syncs the directory too, with the first sync of a journal or a write-ahead log that it may have made.
    syncs_directory: bool,
}

struct Original(*mut sqlite3_vfs);

// SAFETY: SQLite's unix VFS is a static of the library, and meant for use from every thread.
unsafe impl Send for Original {}
// SAFETY: as above.
unsafe impl Sync for Original {}

static ORIGINAL: OnceLock<Original> = OnceLock::new();

fn original() -> *mut sqlite3_vfs {
    ORIGINAL.get().expect("registered").0
}

fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `sqlite3_vfs_find` with null gives the default VFS, a static; a copy of it with some functions replaced is registered,
        // and leaked, since SQLite keeps the pointer for good.
        unsafe {
            let found = ffi::sqlite3_vfs_find(std::ptr::null());
            assert!(!found.is_null(), "no default VFS");
            assert!(ORIGINAL.set(Original(found)).is_ok(), "registered once");
            let handle = c_int::try_from(size_of::<Handle>()).expect("a small size");
            let mut vfs: sqlite3_vfs = std::ptr::read(found);
            vfs.szOsFile += handle;
            vfs.pNext = std::ptr::null_mut();
            vfs.zName = c"natter-watch".as_ptr();
            vfs.xOpen = Some(open);
            vfs.xDelete = Some(delete);
            let code = ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 1);
            assert_eq!(code, ffi::SQLITE_OK, "sqlite3_vfs_register");
        }
    });
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    path: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a path that is null or a C string, and at `file` as many bytes as the VFS asked for: a handle and what the
    // original needs. A file that is not watched is the original's from here on, in that same place.
    unsafe {
        let vfs = original();
        let open = (*vfs).xOpen.expect("xOpen");
        let Some((watched, name)) = find(path) else {
            return open(vfs, path, file, flags, out_flags);
        };
        let handle = file.cast::<Handle>();
        (*handle).base.pMethods = std::ptr::null();
        // The store makes an empty database itself, for its owner only: what is empty is as new as what is not there.
        let is_new = std::fs::metadata(CStr::from_ptr(path).to_str().expect("found")).map_or(0, |file| file.len()) == 0;
        let code = open(vfs, path, inner(file), flags, out_flags);
        if code != ffi::SQLITE_OK {
            return code;
        }
        let is_journal = flags & (ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL) != 0;
        let syncs_directory = is_journal && flags & ffi::SQLITE_OPEN_CREATE != 0;
        if is_new {
            lock(&watched).log.push(Op::Create(Arc::clone(&name)));
        }
        (*handle).tap = Box::into_raw(Box::new(Tap { watched, name, syncs_directory }));
        (*handle).base.pMethods = &raw const METHODS;
        code
    }
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, path: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: SQLite gives a C string.
    unsafe {
        let vfs = original();
        let code = (*vfs).xDelete.expect("xDelete")(vfs, path, sync_directory);
        if let Some((watched, name)) = find(path)
            && code == ffi::SQLITE_OK
        {
            let log = &mut lock(&watched).log;
            log.push(Op::Delete(name));
            if sync_directory != 0 {
                log.push(Op::SyncDirectory);
            }
        }
        code
    }
}

/// The original's file behind a handle.
///
/// # Safety
/// `file` is a handle of this VFS.
unsafe fn inner(file: *mut sqlite3_file) -> *mut sqlite3_file {
    unsafe { file.cast::<Handle>().add(1).cast() }
}

/// What belongs to a handle.
///
/// # Safety
/// `file` is an open handle of this VFS, used by one thread at a time, as SQLite does.
unsafe fn tap<'a>(file: *mut sqlite3_file) -> &'a mut Tap {
    unsafe { &mut *(*file.cast::<Handle>()).tap }
}

/// Calls the original's method of the same name.
macro_rules! original {
    ($file:ident, $method:ident $(, $arg:expr)*) => {{
        // SAFETY: SQLite calls a method with an open handle of this VFS; the original's file is open as long as the handle is.
        unsafe {
            let inner = inner($file);
            ((*(*inner).pMethods).$method.expect(stringify!($method)))(inner $(, $arg)*)
        }
    }};
}

/// Methods that only pass on.
macro_rules! pass_on {
    ($($name:ident = $method:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $arg: $type)*) -> $out {
            original!(file, $method $(, $arg)*)
        })*
    };
}

pass_on! {
    read = xRead(into: *mut c_void, bytes: c_int, offset: sqlite3_int64) -> c_int;
    file_size = xFileSize(size: *mut sqlite3_int64) -> c_int;
    acquire = xLock(level: c_int) -> c_int;
    unlock = xUnlock(level: c_int) -> c_int;
    check_reserved_lock = xCheckReservedLock(out: *mut c_int) -> c_int;
    file_control = xFileControl(op: c_int, arg: *mut c_void) -> c_int;
    sector_size = xSectorSize() -> c_int;
    device_characteristics = xDeviceCharacteristics() -> c_int;
    shm_map = xShmMap(page: c_int, bytes: c_int, extend: c_int, out: *mut *mut c_void) -> c_int;
    shm_lock = xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
    shm_barrier = xShmBarrier() -> ();
    shm_unmap = xShmUnmap(delete: c_int) -> c_int;
}

/// Version 2: with shared memory, without memory-mapped files, which a log of writes would not see.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(acquire),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let code = original!(file, xClose);
    // SAFETY: made by `open`, and SQLite closes a file once.
    unsafe {
        let handle = file.cast::<Handle>();
        drop(Box::from_raw((*handle).tap));
        (*handle).base.pMethods = std::ptr::null();
    }
    code
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, bytes: c_int, offset: sqlite3_int64) -> c_int {
    // SAFETY: an open handle, and `bytes` bytes at `from`.
    let (tap, content) = unsafe {
        let len = usize::try_from(bytes).expect("a length");
        (tap(file), std::slice::from_raw_parts(from.cast::<u8>(), len))
    };
    let watched = &mut *lock(&tap.watched);
    let fault = watched.faults.write.filter(|(_, suffix)| tap.name.ends_with(suffix));
    let written = if fault.is_some() { &content[..content.len() / 2] } else { content };
    let code = original!(file, xWrite, from, c_int::try_from(written.len()).expect("less"), offset);
    if code == ffi::SQLITE_OK {
        let offset = usize::try_from(offset).expect("an offset");
        watched.log.push(Op::Write { file: Arc::clone(&tap.name), offset, bytes: Arc::from(written) });
    }
    let Some((fault, _)) = fault else { return code };
    watched.faults.met += 1;
    fault
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: an open handle.
    let tap = unsafe { tap(file) };
    let code = original!(file, xTruncate, size);
    if code == ffi::SQLITE_OK {
        let bytes = usize::try_from(size).expect("a size");
        lock(&tap.watched).log.push(Op::Truncate { file: Arc::clone(&tap.name), bytes });
    }
    code
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: an open handle.
    let tap = unsafe { tap(file) };
    let watched = &mut *lock(&tap.watched);
    if let Some((left, suffix)) = &mut watched.faults.sync
        && tap.name.ends_with(*suffix)
    {
        if *left == 0 {
            watched.faults.sync = None;
            watched.faults.met += 1;
            watched.log.push(Op::SyncFailed(Arc::clone(&tap.name)));
            return ffi::SQLITE_IOERR_FSYNC;
        }
        *left -= 1;
    }
    let code = original!(file, xSync, flags);
    if code == ffi::SQLITE_OK {
        watched.log.push(Op::Sync(Arc::clone(&tap.name)));
        if std::mem::take(&mut tap.syncs_directory) {
            watched.log.push(Op::SyncDirectory);
        }
    }
    code
}
