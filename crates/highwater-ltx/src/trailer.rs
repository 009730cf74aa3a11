//! The last 16 bytes of an LTX file.

/// The checksums at the end of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// LTX's own checksum of the whole database after this file; zero in files without database
    /// checksums, which all of Highwater's are. Carried, never verified here.
    pub post_apply_checksum: u64,
    /// The checksum of the file itself, with its top bit set.
    pub file_checksum: u64,
}

impl Trailer {
    /// Its size in bytes.
    pub const SIZE: usize = 16;

    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let both = u128::from(self.post_apply_checksum) << 64 | u128::from(self.file_checksum);
        both.to_be_bytes()
    }

    pub(crate) fn decode(bytes: [u8; Self::SIZE]) -> Self {
        let both = u128::from_be_bytes(bytes);
        #[allow(clippy::cast_possible_truncation, reason = "each half is taken on purpose")]
        Self { post_apply_checksum: (both >> 64) as u64, file_checksum: both as u64 }
    }
}
