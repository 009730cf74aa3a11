//! What a token allows, and on which databases.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use highwater_wire::DbName;
use serde::{Deserialize, Serialize};

/// One thing that a token can allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// To get a database and its history.
    Read,
    /// To change a database. Implies [`Access::Read`].
    Write,
    /// To make a database by pushing to its name. Implies [`Access::Write`].
    Create,
    /// To administer the server: its databases as a whole, its metrics. Implies nothing else: whoever
    /// looks after a server need not be able to read what is kept there.
    Admin,
}

impl Access {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Create, Self::Admin];

    /// Its name in a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Admin => "admin",
        }
    }

    /// Whether whoever has this has that too.
    #[must_use]
    pub fn implies(self, other: Self) -> bool {
        self == other || (self != Self::Admin && other != Self::Admin && self > other)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no access.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of access; there are read, write, create and admin")]
pub struct InvalidAccess(String);

impl FromStr for Access {
    type Err = InvalidAccess;

    fn from_str(word: &str) -> Result<Self, InvalidAccess> {
        let found = Self::ALL.into_iter().find(|access| access.as_str() == word);
        found.ok_or_else(|| InvalidAccess(word.chars().take(40).collect()))
    }
}

/// Which databases are meant.
///
/// ```
/// # use highwater_auth::Pattern;
/// let team: Pattern = "team/*".parse().unwrap();
/// assert!(team.covers(&"team/app".parse().unwrap()));
/// assert!(!team.covers(&"teamx/app".parse().unwrap()));
/// assert!(!team.covers(&"team".parse().unwrap()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// `*`: all of them.
    All,
    /// `team/*`: those whose first segments are these, and that have more.
    Below(DbName),
    /// `team/app`: this one.
    Exactly(DbName),
}

impl Pattern {
    /// Whether the database is one of them.
    #[must_use]
    pub fn covers(&self, name: &DbName) -> bool {
        match self {
            Self::All => true,
            Self::Below(above) => {
                name.as_str().strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
            Self::Exactly(one) => one == name,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(above) => write!(f, "{above}/*"),
            Self::Exactly(name) => name.fmt(f),
        }
    }
}

/// A text that means no databases.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} names no databases; use a name (team/app), all below one (team/*), or * for all")]
pub struct InvalidPattern {
    /// What was given, cut to a printable length.
    pattern: String,
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = |_| InvalidPattern { pattern: text.chars().take(80).collect() };
        match text.strip_suffix("/*") {
            _ if text == "*" => Ok(Self::All),
            Some(above) => above.parse().map(Self::Below).map_err(invalid),
            None => text.parse().map(Self::Exactly).map_err(invalid),
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

/// The claim `highwater`: which databases, and what may be done with each of them.
///
/// A field that is not known is an error: it may be a restriction that a newer version understands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The databases.
    #[serde(default)]
    pub databases: Vec<Pattern>,
    /// What may be done.
    #[serde(default)]
    pub access: BTreeSet<Access>,
}

impl Grant {
    /// Whether the database is among those that the token is for.
    #[must_use]
    pub fn covers(&self, name: &DbName) -> bool {
        self.databases.iter().any(|pattern| pattern.covers(name))
    }

    /// Whether this may be done with that database.
    #[must_use]
    pub fn allows(&self, access: Access, name: &DbName) -> bool {
        self.has(access) && self.covers(name)
    }

    /// Whether this may be done at all: with the databases of the token, or, for
    /// [`Access::Admin`], with the server.
    #[must_use]
    pub fn has(&self, access: Access) -> bool {
        self.access.iter().any(|has| has.implies(access))
    }

    /// What is allowed, in words.
    #[must_use]
    pub fn access_in_words(&self) -> String {
        let words: Vec<_> = self.access.iter().map(|access| access.as_str()).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_segments_only() {
        let covers =
            |pattern: &str, name: &str| pattern.parse::<Pattern>().unwrap().covers(&name.parse().unwrap());
        for (pattern, name) in
            [("*", "a"), ("*", "a/b/c"), ("team/*", "team/a"), ("team/*", "team/a/b"), ("a/b", "a/b")]
        {
            assert!(covers(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("team/*", "team"),
            ("team/*", "teamx/a"),
            ("team/*", "team-x"),
            ("team/*", "other/team/a"),
            ("team", "team/a"),
            ("a/b", "a"),
            ("a/b/*", "a/b"),
            ("a/b/*", "a/bc/d"),
        ] {
            assert!(!covers(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "/*", "team/", "te*", "*/a", "**", "team/*/x", "TEAM/*", "../*", "team//*", "team*"]
        {
            assert!(text.parse::<Pattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn writing_implies_reading_and_making_implies_writing_and_administering_neither() {
        use Access::{Admin, Create, Read, Write};
        let implied =
            |has: Access| Access::ALL.into_iter().filter(|other| has.implies(*other)).collect::<Vec<_>>();
        assert_eq!(implied(Read), [Read]);
        assert_eq!(implied(Write), [Read, Write]);
        assert_eq!(implied(Create), [Read, Write, Create]);
        assert_eq!(implied(Admin), [Admin]);
    }

    #[test]
    fn a_claim_with_a_field_or_a_word_that_is_not_known_is_refused() {
        for text in [
            r#"{"databases":["a"],"access":["read"],"until":3}"#,
            r#"{"databases":["a"],"access":["reed"]}"#,
            r#"{"databases":["A"],"access":["read"]}"#,
            r#"{"databases":"a","access":["read"]}"#,
        ] {
            assert!(serde_json::from_str::<Grant>(text).is_err(), "{text}");
        }
        let grant: Grant = serde_json::from_str(r#"{"access":["read"]}"#).unwrap();
        assert!(!grant.allows(Access::Read, &"a".parse().unwrap()));
    }
}
