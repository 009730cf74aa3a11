//! Identities of copies.

use highwater_ltx::DeviceId;

use crate::error::{Error, Result};

/// A new identity: 128 random bits.
pub(crate) fn random() -> Result<DeviceId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Io {
        what: "making a device id for",
        path: std::path::PathBuf::from("this copy"),
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(DeviceId(u128::from_be_bytes(bytes)))
}
