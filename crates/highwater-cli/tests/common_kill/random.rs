//! Numbers that look random and are the same for the same seed.

/// xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// `HIGHWATER_TEST_SEED`, or this one.
pub fn seed(default: u64) -> u64 {
    setting("HIGHWATER_TEST_SEED").unwrap_or(default)
}

/// `HIGHWATER_TEST_ROUNDS`, if it is set.
pub fn rounds() -> Option<u64> {
    setting("HIGHWATER_TEST_ROUNDS")
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}
