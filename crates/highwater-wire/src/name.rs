//! Names of databases: the only part of a path that reaches storage.

use std::fmt;
use std::str::FromStr;

/// How many segments a name may have.
pub const MAX_NAME_SEGMENTS: usize = 4;

/// Longest segment, in bytes.
const MAX_SEGMENT: usize = 63;

/// Words that stand for something else in a path or in storage, and so are never part of a name.
pub const RESERVED_SEGMENTS: &[&str] = &[
    "v1", "v2", "v3", "sync", "info", "export", "ltx", "merge", "uploads", "admin", "healthz", "readyz",
    "metrics", "version",
];

/// The checked name of a database: one to four segments joined by `/`, each of
/// `[a-z0-9][a-z0-9._-]{0,62}` and none of them reserved.
///
/// A value of this type is safe to use as a storage prefix: no `..`, no empty segment, no
/// character that a file system or a URL treats specially.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbName(String);

/// A name that no database can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a database name ({reason}); use 1 to 4 segments joined by '/', each of lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit"
)]
pub struct InvalidName {
    /// The name, cut to a printable length.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl DbName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments between the slashes.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for DbName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DbName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        match fault(name) {
            None => Ok(Self(name.to_owned())),
            Some(reason) => Err(InvalidName { name: name.chars().take(80).collect(), reason }),
        }
    }
}

fn fault(name: &str) -> Option<&'static str> {
    if name.split('/').count() > MAX_NAME_SEGMENTS {
        return Some("too many segments");
    }
    name.split('/').find_map(|segment| {
        if segment.is_empty() {
            Some("an empty segment")
        } else if segment.len() > MAX_SEGMENT {
            Some("a segment longer than 63 characters")
        } else if !segment.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')) {
            Some("a character that is not allowed")
        } else if !segment.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            Some("a segment that does not begin with a letter or digit")
        } else if RESERVED_SEGMENTS.contains(&segment) {
            Some("a reserved word")
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_accepted() {
        for name in ["guestbook", "team/app", "a", "9/8.x/c_d/e-f", &"a".repeat(63)] {
            assert_eq!(name.parse::<DbName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn nothing_else_reaches_storage() {
        let long = "a".repeat(10_000);
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "..",
            "a/..",
            "../a",
            ".",
            ".a",
            "-a",
            "_a",
            "A",
            "ä",
            "a b",
            "a\0b",
            "%2e",
            "a%2fb",
            "a\\b",
            "v1",
            "a/ltx",
            "admin/a",
            "a/b/c/d/e",
            "a:b",
            &long,
            &"a".repeat(64),
        ] {
            assert!(name.parse::<DbName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn an_error_about_a_long_name_is_short() {
        let error = "A".repeat(10_000).parse::<DbName>().unwrap_err();
        assert!(error.to_string().len() < 400);
    }
}
