//! Inputs made from other inputs.

/// Words that mean something somewhere.
const WORDS: [&[u8]; 24] = [
    b"LTX1",
    b"HW01",
    b"HWLOCA01",
    b"SQLite format 3\0",
    b"/v1/sync",
    b"null",
    b"\"\"",
    b"-1",
    b"1e999",
    b"../",
    b"%2e",
    b"18446744073709551615",
    b"9223372036854775807",
    b"4294967295",
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"highwater-base: 1/1/",
    b"content-encoding: zstd\n",
    b"content-length: 0\n",
    b"eyJ",
    b"[",
    b"{",
    b".",
    b"\x7f\xff\xff\xff",
];
const NUMBERS: [u64; 14] =
    [0, 1, 2, 7, 255, 256, 511, 512, 65_535, 65_536, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1, u64::MAX];
/// No input is longer.
const LONGEST: usize = 1 << 16;

/// Changes inputs at random; the same seed makes the same changes.
#[derive(Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// With this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() >> 11) as usize % limit }
    }

    /// One of the inputs, changed in a few places.
    #[must_use]
    pub fn change(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut data = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(3) * self.below(4) {
            self.once(&mut data, inputs);
        }
        data.truncate(LONGEST);
        data
    }

    fn once(&mut self, data: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.below(data.len());
        let width = self.below(8);
        let length = 1 + self.below(1 << width);
        match self.below(12) {
            0 | 1 if !data.is_empty() => data[at] ^= 1 << self.below(8),
            2 if !data.is_empty() => data[at] = self.next() as u8,
            3 | 4 => self.number(data, at),
            5 => drop(data.drain(at..(at + length).min(data.len()))),
            6 => {
                let part = data[at..(at + length).min(data.len())].to_vec();
                let to = self.below(data.len() + 1);
                data.splice(to..to, part);
            }
            7 => {
                let part = data[at..(at + length).min(data.len())].to_vec();
                let to = self.below(data.len());
                let end = (to + part.len()).min(data.len());
                data[to..end].copy_from_slice(&part[..end - to]);
            }
            8 => {
                let word = WORDS[self.below(WORDS.len())];
                let to = self.below(data.len() + 1);
                let end = if self.below(2) == 0 { to } else { (to + word.len()).min(data.len()) };
                data.splice(to..end, word.iter().copied());
            }
            9 => data.truncate(at),
            10 => {
                let other = &inputs[self.below(inputs.len())];
                let from = self.below(other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            _ => {
                let to = self.below(data.len() + 1);
                let bytes: Vec<u8> = (0..length).map(|_| self.next() as u8).collect();
                data.splice(to..to, bytes);
            }
        }
    }

    /// Writes a number of some width, or adds a little to the one that stands there.
    fn number(&mut self, data: &mut [u8], at: usize) {
        let width = [1, 2, 4, 8][self.below(4)];
        let Some(place) = data.get_mut(at..at + width) else { return };
        let mut bytes = [0; 8];
        bytes[8 - width..].copy_from_slice(place);
        let value = match self.below(2) {
            0 => NUMBERS[self.below(NUMBERS.len())],
            _ => u64::from_be_bytes(bytes).wrapping_add(self.below(17) as u64).wrapping_sub(8),
        };
        place.copy_from_slice(&value.to_be_bytes()[8 - width..]);
        if self.below(4) == 0 {
            place.reverse();
        }
    }
}
