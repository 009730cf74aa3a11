//! Which database file a metadata file belongs to.
//!
//! A copied file takes its metadata along, and another database's metadata can end up beside a
//! file. Neither does harm, because content decides; but a copy is a device of its own, and a
//! stranger's metadata deserves no trust.

use std::path::Path;

/// The name of the file's home: a hash of machine and path, and one of the inode. Empty parts are
/// left out where the system does not tell them.
pub(crate) fn of(db: &Path) -> String {
    let machine = std::fs::read("/etc/machine-id")
        .or_else(|_| std::fs::read("/proc/sys/kernel/hostname"))
        .unwrap_or_default();
    let mut bytes = machine;
    bytes.extend_from_slice(db.as_os_str().as_encoded_bytes());
    let hash = |bytes: &[u8]| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
    format!("{:016x}-{:016x}", hash(&bytes), hash(&inode(db)))
}

/// Whether two homes are the same place, so that a file with another inode has replaced the first,
/// and is not a copy that took its metadata along.
pub(crate) fn same_place(one: &str, other: &str) -> bool {
    one.split_once('-').map(|(place, _)| place) == other.split_once('-').map(|(place, _)| place)
}

#[cfg(unix)]
fn inode(db: &Path) -> Vec<u8> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(db)
        .map(|meta| [meta.dev().to_be_bytes(), meta.ino().to_be_bytes()].concat())
        .unwrap_or_default()
}

#[cfg(not(unix))]
fn inode(_db: &Path) -> Vec<u8> {
    Vec::new()
}
