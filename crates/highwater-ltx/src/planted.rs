//! Bugs that are planted on purpose, so that the tests of reliability can be tested: each must be found.
//!
//! A mutation is one line where the real code is, `if planted("name") { … }`. Without the feature `planted-bugs`, which
//! no crate turns on, that is the constant `false`. With it, the variable `HIGHWATER_PLANTED_BUG` of a process's
//! environment names the one bug that it has, so that one build serves for all of them. It stands in this crate because
//! every other one can reach this one. The list of bugs, and who has to find which, is in `highwater-planted`.

/// Whether this process has the bug of that name.
#[doc(hidden)]
#[inline]
#[must_use]
pub fn planted(name: &str) -> bool {
    #[cfg(feature = "planted-bugs")]
    {
        static BUG: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let chosen = BUG.get_or_init(|| std::env::var("HIGHWATER_PLANTED_BUG").ok());
        chosen.as_deref() == Some(name)
    }
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = name;
        false
    }
}
