//! The checksum of an LTX file: CRC-64/GO-ISO with the top bit set.
//!
//! It runs over the file as it would be without compression: each page's *uncompressed* data takes
//! the place of its LZ4 bytes. Different LZ4 bytes that decode to the same page are the same file
//! to it, as long as their sizes agree.

use crc_fast::{CrcAlgorithm, Digest};

/// The bit that tells a checksum of zero from none.
pub(crate) const CHECKSUM_FLAG: u64 = 1 << 63;

/// A checksum that is being computed.
pub(crate) struct FileChecksum(Digest);

impl FileChecksum {
    pub(crate) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64GoIso))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.finalize() | CHECKSUM_FLAG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_crc_64_go_iso() {
        let mut sum = FileChecksum::new();
        sum.update(b"1234");
        sum.update(b"56789");
        assert_eq!(sum.value(), 0xb909_56c7_75a4_1001 | CHECKSUM_FLAG);
    }
}
