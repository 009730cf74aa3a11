//! Unsigned LEB128 numbers, as the page index holds them.

/// The most bytes that a 64-bit number takes.
pub(crate) const MAX_LEN: usize = 10;

/// Appends `value`.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        // Seven bits, and the mark that more follow.
        out.push(low | 0x80);
    }
}

/// Reads one number, byte by byte from `next`. `Ok(None)` when it has no end within 64 bits.
pub(crate) fn read<E>(mut next: impl FnMut() -> Result<u8, E>) -> Result<Option<u64>, E> {
    let mut value = 0u64;
    for position in 0..MAX_LEN {
        let byte = next()?;
        let bits = u64::from(byte & 0x7f);
        if position == MAX_LEN - 1 && byte > 1 {
            return Ok(None);
        }
        value |= bits << (7 * position);
        if byte & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> Option<u64> {
        let mut rest = bytes.iter();
        let value = read(|| rest.next().copied().ok_or(())).ok().flatten();
        value.filter(|_| rest.next().is_none())
    }

    proptest! {
        #[test]
        fn every_number_reads_back(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            prop_assert!(bytes.len() <= MAX_LEN);
            prop_assert_eq!(read_all(&bytes), Some(value));
        }
    }

    #[test]
    fn a_number_past_64_bits_is_none() {
        assert_eq!(read_all(&[0xff; 10]), None);
        assert_eq!(read_all(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), None);
        assert_eq!(read_all(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Some(u64::MAX));
    }
}
