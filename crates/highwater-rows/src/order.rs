//! The order of keys in a WITHOUT ROWID table.

use std::cmp::Ordering;

use highwater_wire::SqlValue;

use crate::header::Encoding;
use crate::record::utf8;

/// How a column of a key is ordered, as `PRAGMA index_xinfo` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyColumn {
    /// How text is compared.
    pub collation: Collation,
    /// Whether larger values come first.
    pub descending: bool,
}

/// How text is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Collation {
    /// By its bytes.
    #[default]
    Binary,
    /// Without regard to the case of ASCII letters.
    NoCase,
    /// Without regard to spaces at the end.
    Rtrim,
    /// In a way that SQLite does not bring along. The reader then reads all interior pages of the table.
    Other,
}

impl Collation {
    /// By the name that SQLite knows it by, in any case.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let known = [("BINARY", Self::Binary), ("NOCASE", Self::NoCase), ("RTRIM", Self::Rtrim)];
        let found = known.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or(Self::Other, |(_, collation)| collation)
    }

    /// The order of two texts as they are stored.
    fn compare(self, left: &[u8], right: &[u8], encoding: Encoding) -> Ordering {
        if matches!(self, Self::Binary | Self::Other) {
            return left.cmp(right);
        }
        let (left, right) = (utf8(left, encoding), utf8(right, encoding));
        if self == Self::NoCase { no_case(&left, &right) } else { trimmed(&left).cmp(trimmed(&right)) }
    }
}

/// As SQLite does it: what comes behind a zero byte does not count, but for its length.
fn no_case(left: &[u8], right: &[u8]) -> Ordering {
    for (here, there) in left.iter().zip(right) {
        let order = here.to_ascii_lowercase().cmp(&there.to_ascii_lowercase());
        if order.is_ne() {
            return order;
        }
        if *here == 0 {
            break;
        }
    }
    left.len().cmp(&right.len())
}

fn trimmed(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    text.get(..end).unwrap_or_default()
}

/// Whether [`compare`] orders such keys as SQLite does.
pub(crate) fn is_known(key: &[KeyColumn]) -> bool {
    !key.is_empty() && key.iter().all(|column| column.collation != Collation::Other)
}

/// The order of two keys, their text as it is stored.
pub(crate) fn compare(
    left: &[SqlValue],
    right: &[SqlValue],
    key: &[KeyColumn],
    encoding: Encoding,
) -> Ordering {
    let columns = left.iter().zip(right).zip(key);
    columns
        .map(|((left, right), column)| {
            let order = compare_values(left, right, column.collation, encoding);
            if column.descending { order.reverse() } else { order }
        })
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

fn compare_values(left: &SqlValue, right: &SqlValue, collation: Collation, encoding: Encoding) -> Ordering {
    use SqlValue::{Blob, Integer, Real, Text};
    match (left, right) {
        (Integer(left), Integer(right)) => left.cmp(right),
        (Real(left), Real(right)) => left.partial_cmp(right).unwrap_or(Ordering::Equal),
        (Integer(left), Real(right)) => compare_numbers(*left, *right),
        (Real(left), Integer(right)) => compare_numbers(*right, *left).reverse(),
        (Text(left), Text(right)) => collation.compare(left, right, encoding),
        (Blob(left), Blob(right)) => left.cmp(right),
        _ => class(left).cmp(&class(right)),
    }
}

/// Kinds of values, in their order.
const fn class(value: &SqlValue) -> u8 {
    match value {
        SqlValue::Null => 0,
        SqlValue::Integer(_) | SqlValue::Real(_) => 1,
        SqlValue::Text(_) => 2,
        SqlValue::Blob(_) => 3,
    }
}

/// Exactly, also where a number of one kind has no equal of the other.
fn compare_numbers(integer: i64, real: f64) -> Ordering {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if real >= LIMIT {
        return Ordering::Less;
    }
    if real < -LIMIT {
        return Ordering::Greater;
    }
    #[allow(clippy::cast_possible_truncation, reason = "the limits are checked above")]
    let whole = real.trunc() as i64;
    integer.cmp(&whole).then_with(|| 0.0_f64.partial_cmp(&real.fract()).unwrap_or(Ordering::Equal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_both_kinds_are_compared_exactly() {
        assert_eq!(compare_numbers(1, 1.5), Ordering::Less);
        assert_eq!(compare_numbers(-1, -1.5), Ordering::Greater);
        assert_eq!(compare_numbers(2, 2.0), Ordering::Equal);
        assert_eq!(compare_numbers(i64::MAX, 9_223_372_036_854_775_808.0), Ordering::Less);
        assert_eq!(compare_numbers(i64::MIN, -9_223_372_036_854_775_808.0), Ordering::Equal);
        assert_eq!(compare_numbers((1 << 53) + 1, 9_007_199_254_740_992.0), Ordering::Greater);
    }
}
