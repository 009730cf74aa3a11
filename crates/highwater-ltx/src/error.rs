//! What can go wrong with an LTX file, one variant for each thing that a caller can act on.

use std::borrow::Cow;
use std::io;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an LTX file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The reader or writer underneath failed. The file itself may be fine: try again.
    #[error("reading or writing LTX data failed; see the cause, then try again")]
    Io(#[from] io::Error),

    /// The file ends too early: a copy or a transfer that was cut.
    #[error("the LTX file ends after {at} bytes, within its {part}: fetch or copy it again")]
    Truncated {
        /// Where the input ended, in bytes from the start.
        at: u64,
        /// What should have stood there.
        part: &'static str,
    },

    /// The bytes are of another kind of file.
    #[error("this is not an LTX file (its first bytes are not \"LTX1\"): check which file it is")]
    NotLtx,

    /// The file is LTX, but says something that this version does not know.
    #[error("the LTX file has {what}, which this version cannot read: use a newer version")]
    Unsupported {
        /// The unknown feature, as a noun.
        what: Cow<'static, str>,
    },

    /// The file contradicts itself or the format.
    #[error("the LTX file is damaged at byte {at}: {what}; fetch it again or use another copy")]
    Corrupt {
        /// Where the contradiction was noticed, in bytes from the start.
        at: u64,
        /// What is wrong, as a clause.
        what: Cow<'static, str>,
    },

    /// Every part is well-formed, but the contents are not those that were written.
    #[error(
        "the LTX file is damaged: its contents have the checksum {computed:016x}, \
         its trailer says {stored:016x}; fetch it again or use another copy"
    )]
    Checksum {
        /// What the trailer says.
        stored: u64,
        /// What the contents have.
        computed: u64,
    },

    /// The caller asked for a file that would not be valid LTX. Nothing usable was written.
    #[error("this cannot become an LTX file: {what}; the caller has to change what it passes")]
    Refused {
        /// What is wrong, as a clause.
        what: Cow<'static, str>,
    },
}

impl Error {
    pub(crate) fn corrupt(at: u64, what: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt { at, what: what.into() }
    }

    pub(crate) fn refused(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused { what: what.into() }
    }
}
