//! Tokens that were taken back before their end.
//!
//! A text file: one `jti`, or `sub:NAME` for all tokens of somebody, in each line; from `#` that
//! begins a line or follows a space, a comment.

use std::collections::HashSet;

use crate::Claims;

/// What a line begins with that is about somebody.
const SUBJECT: &str = "sub:";

/// A list of revoked tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    ids: HashSet<String>,
    subjects: HashSet<String>,
}

/// A line that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its line {line} is neither the jti of a token nor `sub:NAME`: {what}")]
pub struct RevokedError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl Revoked {
    /// Reads a file's content.
    ///
    /// # Errors
    /// The first line that cannot be meant. It does not show the line, which may be a token.
    pub fn parse(text: &str) -> Result<Self, RevokedError> {
        let mut list = Self::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            let entry =
                if line.starts_with('#') { "" } else { line.split(" #").next().unwrap_or_default().trim() };
            let wrong = |what| Err(RevokedError { line: at + 1, what });
            match entry.strip_prefix(SUBJECT) {
                _ if entry.is_empty() => {}
                Some("") => return wrong("the name is missing"),
                Some(subject) => drop(list.subjects.insert(subject.to_owned())),
                // A whole token in the list would be a secret kept in the open, and match nothing.
                None if entry.matches('.').count() == 2 && entry.len() > 100 => {
                    return wrong("it looks like a whole token; `highwater token revoke` writes its jti");
                }
                None => drop(list.ids.insert(entry.to_owned())),
            }
        }
        Ok(list)
    }

    /// Whether these claims are of a revoked token.
    #[must_use]
    pub fn names(&self, claims: &Claims) -> bool {
        claims.id.as_ref().is_some_and(|id| self.ids.contains(id))
            || claims.subject.as_ref().is_some_and(|subject| self.subjects.contains(subject))
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ids.len() + self.subjects.len()
    }
}
