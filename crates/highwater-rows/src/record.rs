//! Records: the values of a row as SQLite stores them.
//!
//! Format: <https://www.sqlite.org/fileformat2.html#record_format>.

use std::borrow::Cow;

use highwater_wire::SqlValue;

use crate::error::{Result, damaged};
use crate::header::Encoding;
use crate::node::{Node, varint};
use crate::snapshots::{Side, Snapshots};

/// How many bytes a value of this serial type takes; `None` for types that do not exist.
fn size_of(serial: u64) -> Option<u64> {
    Some(match serial {
        0 | 8 | 9 => 0,
        1..=4 => serial,
        5 => 6,
        6 | 7 => 8,
        10 | 11 => return None,
        _ => (serial - 12) / 2,
    })
}

/// The first bytes of what a cell holds: at least `wanted` of them, if there are so many.
fn prefix(snapshots: &Snapshots<'_>, side: Side, node: &Node, cell: usize, wanted: u64) -> Result<Vec<u8>> {
    let payload = node.payload(cell)?;
    let mut bytes = node.bytes(payload.local.clone()).to_vec();
    let mut overflow = snapshots.overflow(side, &payload);
    while (bytes.len() as u64) < wanted {
        let Some(next) = overflow.next() else { break };
        let (_, page, size) = next?;
        bytes.extend_from_slice(page.get(4..4 + size).unwrap_or_default());
    }
    Ok(bytes)
}

/// The first `columns` values of the record in a cell, or all of them if it has fewer. Text is as it is stored; see
/// [`decoded`].
pub(crate) fn values(
    snapshots: &Snapshots<'_>,
    side: Side,
    node: &Node,
    cell: usize,
    columns: usize,
) -> Result<Vec<SqlValue>> {
    let what = "has a row whose values do not fit into it";
    let cut_off = || damaged(node.page, what);
    let mut bytes = prefix(snapshots, side, node, cell, 9)?;
    let Some((header, start)) = varint(&bytes) else { return cut_off() };
    if header > bytes.len() as u64 {
        bytes = prefix(snapshots, side, node, cell, header)?;
    }
    let Some(mut types) = usize::try_from(header).ok().and_then(|end| bytes.get(start..end)) else {
        return cut_off();
    };
    let mut serials = Vec::new();
    let mut end = header;
    while serials.len() < columns && !types.is_empty() {
        let Some((serial, length)) = varint(types) else { return cut_off() };
        types = types.get(length..).unwrap_or_default();
        let Some(value_end) = size_of(serial).and_then(|size| end.checked_add(size)) else {
            return cut_off();
        };
        serials.push((serial, end, value_end));
        end = value_end;
    }
    if end > bytes.len() as u64 {
        bytes = prefix(snapshots, side, node, cell, end)?;
    }
    serials
        .into_iter()
        .map(|(serial, start, end)| {
            let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
            let value = range.and_then(|(start, end)| bytes.get(start..end));
            value.map_or_else(|| damaged(node.page, what), |bytes| Ok(value_of(serial, bytes)))
        })
        .collect()
}

fn value_of(serial: u64, bytes: &[u8]) -> SqlValue {
    match serial {
        0 => SqlValue::Null,
        1..=6 => SqlValue::Integer(integer(bytes)),
        7 => SqlValue::Real(f64::from_bits(integer(bytes).cast_unsigned())),
        8 => SqlValue::Integer(0),
        9 => SqlValue::Integer(1),
        _ if serial.is_multiple_of(2) => SqlValue::Blob(bytes.to_vec()),
        _ => SqlValue::Text(bytes.to_vec()),
    }
}

/// A signed number, the highest byte first.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    bytes.iter().fold(if negative { -1 } else { 0 }, |value, byte| value << 8 | i64::from(*byte))
}

/// The values with their text in UTF-8.
pub(crate) fn decoded(mut values: Vec<SqlValue>, encoding: Encoding) -> Vec<SqlValue> {
    for value in &mut values {
        if let SqlValue::Text(bytes) = value {
            *bytes = utf8(bytes, encoding).into_owned();
        }
    }
    values
}

/// Text in UTF-8. What is not valid UTF-8 is kept, what is not valid UTF-16 cannot be.
pub(crate) fn utf8(bytes: &[u8], encoding: Encoding) -> Cow<'_, [u8]> {
    let (pairs, _) = bytes.as_chunks::<2>();
    let join = |unit: fn([u8; 2]) -> u16| {
        let units = pairs.iter().map(|pair| unit(*pair));
        char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>()
    };
    match encoding {
        Encoding::Utf8 => Cow::Borrowed(bytes),
        Encoding::Utf16Le => Cow::Owned(join(u16::from_le_bytes).into_bytes()),
        Encoding::Utf16Be => Cow::Owned(join(u16::from_be_bytes).into_bytes()),
    }
}
