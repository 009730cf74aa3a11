//! The names of LTX files: the transaction ids that they cover, sixteen hex digits each.

use crate::TxId;

/// The name of the file that covers the transactions `min` to `max`, both included.
///
/// ```
/// # use highwater_ltx::{TxId, file_name};
/// assert_eq!(file_name(TxId(1), TxId(26)), "0000000000000001-000000000000001a.ltx");
/// ```
#[must_use]
pub fn file_name(min: TxId, max: TxId) -> String {
    format!("{min}-{max}.ltx")
}

/// The reverse of [`file_name`]: the first and last transaction, or `None` when `name` is not
/// exactly such a name (lower case, ids from 1, in order).
#[must_use]
pub fn parse_file_name(name: &str) -> Option<(TxId, TxId)> {
    let (min, max) = name.strip_suffix(".ltx")?.split_once('-')?;
    let (min, max) = (parse_id(min)?, parse_id(max)?);
    (min >= TxId::FIRST && min <= max).then_some((min, max))
}

fn parse_id(digits: &str) -> Option<TxId> {
    let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 16 || !digits.bytes().all(lower_hex) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(TxId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_what_it_was_made_of() {
        let ids = (TxId(1), TxId(u64::MAX));
        assert_eq!(parse_file_name(&file_name(ids.0, ids.1)), Some(ids));
    }

    #[test]
    fn anything_else_is_not_a_name() {
        for name in [
            "",
            ".ltx",
            "-.ltx",
            "0000000000000001-0000000000000002",
            "0000000000000001-0000000000000002.ltx.tmp",
            "000000000000001A-000000000000001B.ltx",
            "+000000000000001-0000000000000002.ltx",
            "0000000000000000-0000000000000002.ltx",
            "0000000000000003-0000000000000002.ltx",
            "00000000000000001-0000000000000002.ltx",
            "é000000000000001-0000000000000002.ltx",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }
}
