//! What SQLite calls instead of the operating system. All unsafe code of the crate is here.
//!
//! SQLite's database file is a [`Storage`] that waits under its name in [`crate::mounts`]; every other file that it opens
//! (journals, sorters, temporary tables) is a temporary one without a name. No file of the machine can be reached
//! through this module. Locks are never needed: each storage has one handle. Shared memory and memory maps are
//! not offered, so SQLite refuses write-ahead logs. Panics end here, as I/O errors.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::ffi;

use crate::mounts;
use crate::scratch::Scratch;

/// What a file handle of SQLite stands for.
pub(crate) trait Storage: Send {
    /// Whether it takes writes.
    fn writable(&self) -> bool;
    /// In bytes.
    fn size(&mut self) -> u64;
    /// Fills `into` from an offset, as far as there is something; tells how far.
    fn read(&mut self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes at an offset, beyond the end too.
    fn write(&mut self, data: &[u8], at: u64) -> io::Result<()>;
    /// Sets the size.
    fn truncate(&mut self, size: u64) -> io::Result<()>;
}

/// Whether temporary files count against the quota of queries from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quota {
    None,
    Shared,
}

const FREE: &CStr = c"highwater-snapshot";
const LIMITED: &CStr = c"highwater-snapshot-query";

/// Longer than any name of a snapshot with the suffix of a journal.
const LONGEST_NAME: c_int = 64;

/// The name of the module for `Connection::open_with_flags_and_vfs`; registers it if it is the first time.
/// The error is SQLite's code.
pub(crate) fn registered(quota: Quota) -> Result<&'static CStr, i32> {
    static DONE: OnceLock<c_int> = OnceLock::new();
    let code = *DONE.get_or_init(|| match register(FREE) {
        ffi::SQLITE_OK => register(LIMITED),
        code => code,
    });
    match (code, quota) {
        (ffi::SQLITE_OK, Quota::None) => Ok(FREE),
        (ffi::SQLITE_OK, Quota::Shared) => Ok(LIMITED),
        (code, _) => Err(code),
    }
}

/// How many bytes SQLite has allocated in this process.
pub(crate) fn memory_used() -> i64 {
    // SAFETY: a counter; the call has no conditions.
    unsafe { ffi::sqlite3_memory_used() }
}

fn register(name: &'static CStr) -> c_int {
    let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<Handle>().try_into().unwrap_or(c_int::MAX),
        mxPathname: LONGEST_NAME,
        pNext: ptr::null_mut(),
        zName: name.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: Some(dl_open),
        xDlError: Some(dl_error),
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_ms),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // SAFETY: the structure lives for ever, and its functions keep SQLite's contract for a module of version 2.
    // It is not made the default (0), so nobody else's connections use it.
    unsafe { ffi::sqlite3_vfs_register(vfs, 0) }
}

/// SQLite's file, as it lies in memory that SQLite allocates.
#[repr(C)]
struct Handle {
    /// First, because SQLite knows only this part.
    file: ffi::sqlite3_file,
    /// Owned: made in [`open`], freed in [`close`].
    storage: *mut Box<dyn Storage>,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Runs what may panic; a panic is the error `code`.
fn guarded(code: c_int, work: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(code)
}

/// SQLite's code for an error of a storage.
fn code_of(error: &io::Error, otherwise: c_int) -> c_int {
    match error.kind() {
        io::ErrorKind::StorageFull => ffi::SQLITE_FULL,
        io::ErrorKind::ReadOnlyFilesystem => ffi::SQLITE_READONLY,
        _ => otherwise,
    }
}

/// The storage of an open file.
///
/// # Safety
/// `file` is one that [`open`] opened and [`close`] has not closed, and nobody else uses it: SQLite serializes the
/// calls for one file.
unsafe fn storage<'a>(file: *mut ffi::sqlite3_file) -> &'a mut dyn Storage {
    // SAFETY: by the contract of this function `file` is the first field of a `Handle` whose pointer is valid.
    unsafe { &mut **(*file.cast::<Handle>()).storage }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite hands over `szOsFile` bytes for the handle. Without methods it will not call `close`.
    unsafe { (*file).pMethods = ptr::null() };
    if flags & ffi::SQLITE_OPEN_WAL != 0 {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `vfs` is the leaked structure of `register`, and its name a static string.
    let limited = unsafe { CStr::from_ptr((*vfs).zName) } == LIMITED;
    let found: Option<Box<dyn Storage>> = if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
        if name.is_null() {
            return ffi::SQLITE_CANTOPEN;
        }
        // SAFETY: a name that is not null is a string that ends with zero.
        let name = unsafe { CStr::from_ptr(name) };
        let image = name.to_str().ok().and_then(mounts::take);
        image.map(|image| Box::new(image) as Box<dyn Storage>)
    } else {
        Scratch::new(limited).ok().map(|scratch| Box::new(scratch) as Box<dyn Storage>)
    };
    let Some(storage) = found else { return ffi::SQLITE_CANTOPEN };
    if !out_flags.is_null() {
        let readable = flags & !ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_READONLY;
        // SAFETY: not null, so it is a place for the answer.
        unsafe { *out_flags = if storage.writable() { flags } else { readable } };
    }
    let handle = file.cast::<Handle>();
    // SAFETY: as above, the memory is SQLite's, for a whole `Handle`.
    unsafe {
        (&raw mut (*handle).storage).write(Box::into_raw(Box::new(storage)));
        (*file).pMethods = &raw const METHODS;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once; `storage` came from `Box::into_raw`.
    let storage = unsafe {
        (*file).pMethods = ptr::null();
        Box::from_raw((*file.cast::<Handle>()).storage)
    };
    guarded(ffi::SQLITE_IOERR_CLOSE, || {
        drop(storage);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    amount: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(amount), Ok(at)) = (usize::try_from(amount), u64::try_from(at)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite gives an open file, and a buffer of `amount` bytes that it alone has. It is filled with zeros
    // first, because SQLite's buffers may never have been written to.
    let (storage, into) = unsafe {
        into.cast::<u8>().write_bytes(0, amount);
        (storage(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), amount))
    };
    guarded(ffi::SQLITE_IOERR_READ, || match storage.read(into, at) {
        Ok(there) if there == amount => ffi::SQLITE_OK,
        Ok(_) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(error) => code_of(&error, ffi::SQLITE_IOERR_READ),
    })
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    amount: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(amount), Ok(at)) = (usize::try_from(amount), u64::try_from(at)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite gives an open file, and `amount` initialized bytes.
    let (storage, data) = unsafe { (storage(file), std::slice::from_raw_parts(data.cast::<u8>(), amount)) };
    guarded(ffi::SQLITE_IOERR_WRITE, || match storage.write(data, at) {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) => code_of(&error, ffi::SQLITE_IOERR_WRITE),
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite gives an open file.
    let storage = unsafe { storage(file) };
    guarded(ffi::SQLITE_IOERR_TRUNCATE, || match storage.truncate(u64::try_from(size).unwrap_or(0)) {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) => code_of(&error, ffi::SQLITE_IOERR_TRUNCATE),
    })
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite gives an open file, and a place for the answer.
    unsafe { *out = i64::try_from(storage(file).size()).unwrap_or(i64::MAX) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn sync(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    512
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_SAFE_APPEND | ffi::SQLITE_IOCAP_SEQUENTIAL
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, _: *const c_char, _: c_int) -> c_int {
    // Nothing has a name, so nothing is there to be deleted.
    ffi::SQLITE_OK
}

unsafe extern "C" fn access(_: *mut ffi::sqlite3_vfs, _: *const c_char, _: c_int, out: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a place for the answer. No journal is ever left behind by another connection.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite gives a string that ends with zero.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if usize::try_from(room).is_ok_and(|room| bytes.len() <= room) {
        // SAFETY: there is room for so many bytes, and the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast::<c_char>(), out, bytes.len()) };
        ffi::SQLITE_OK
    } else {
        ffi::SQLITE_CANTOPEN
    }
}

unsafe extern "C" fn dl_open(_: *mut ffi::sqlite3_vfs, _: *const c_char) -> *mut c_void {
    // Libraries are never loaded through a snapshot.
    ptr::null_mut()
}

unsafe extern "C" fn dl_error(_: *mut ffi::sqlite3_vfs, room: c_int, out: *mut c_char) {
    if room > 0 {
        // SAFETY: there is room for the zero that ends an empty message.
        unsafe { *out = 0 };
    }
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, amount: c_int, out: *mut c_char) -> c_int {
    // SAFETY: the default module is found by null, lives as long as SQLite, and is given what was given here.
    unsafe {
        let default = ffi::sqlite3_vfs_find(ptr::null());
        match default.as_ref().and_then(|vfs| vfs.xRandomness) {
            Some(random) => random(default, amount, out),
            None => 0,
        }
    }
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    std::thread::sleep(Duration::from_micros(u64::try_from(microseconds).unwrap_or(0)));
    microseconds
}

/// Milliseconds of the Julian day number, as SQLite counts time.
fn julian_ms() -> i64 {
    const EPOCH: i64 = 210_866_760_000_000;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    EPOCH + i64::try_from(since.as_millis()).unwrap_or(0)
}

unsafe extern "C" fn current_time_ms(_: *mut ffi::sqlite3_vfs, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *out = julian_ms() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *out = julian_ms() as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}
