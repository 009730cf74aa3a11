//! Which database and which verb a raw path means.
//!
//! A name of a database has only characters that a URL carries as they are. So nothing is decoded:
//! a path with a percent sign, an empty segment or a dot segment means no database.

use highwater_wire::{DbName, PROTOCOL};

use super::{Failure, not_found};

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Health,
    Version,
    Metrics,
    /// A database, and what is asked of it; `None`: the database itself.
    Database(DbName, Option<&'a str>),
}

/// Parses the path as it came.
pub(super) fn parse(path: &str) -> Result<Target<'_>, Failure> {
    match path {
        "/healthz" => return Ok(Target::Health),
        "/version" => return Ok(Target::Version),
        "/metrics" => return Ok(Target::Metrics),
        _ => {}
    }
    let path = path.strip_prefix('/').unwrap_or(path);
    let marker = format!("/{PROTOCOL}");
    let split = path
        .match_indices(&marker)
        .find(|(at, found)| matches!(path.as_bytes().get(at + found.len()), None | Some(b'/')));
    let Some((at, found)) = split else {
        return Err(nothing_here());
    };
    // Both are on boundaries: the marker was found there.
    let (name, verb) = (path.get(..at).unwrap_or_default(), path.get(at + found.len()..).unwrap_or_default());
    let name: DbName =
        name.parse().map_err(|error: highwater_wire::InvalidName| Failure::bad_request(error.to_string()))?;
    Ok(Target::Database(name, verb.strip_prefix('/')))
}

pub(super) fn nothing_here() -> Failure {
    not_found("there is nothing at this path; a database stands at /NAME/v1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::ErrorCode;

    #[test]
    fn a_database_and_its_verb_are_found() {
        let name = |name: &str| name.parse::<DbName>().unwrap();
        let parsed = |path| parse(path).unwrap();
        assert_eq!(parsed("/team/app/v1/sync"), Target::Database(name("team/app"), Some("sync")));
        assert_eq!(parsed("/a/v1"), Target::Database(name("a"), None));
        assert_eq!(parsed("/a.v1/v1/log"), Target::Database(name("a.v1"), Some("log")));
        assert_eq!(parsed("/healthz"), Target::Health);
    }

    #[test]
    fn a_hostile_name_is_a_bad_request_and_never_a_database() {
        for path in [
            "/../v1",
            "/%2e%2e/v1/sync",
            "//v1",
            "/a//b/v1",
            "/a/../b/v1",
            "/./v1",
            "/a%00/v1",
            "/a%2fb/v1",
            "//etc/passwd/v1",
            "/a/ltx/v1",
            "/a/uploads/v1",
            &format!("/{}/v1", "a".repeat(10_000)),
        ] {
            assert_eq!(parse(path).unwrap_err().code(), ErrorCode::BadRequest, "{path}");
        }
        for path in ["/", "/v1", "/a", "/a/v2", "/a/v10"] {
            assert_eq!(parse(path).unwrap_err().code(), ErrorCode::NotFound, "{path}");
        }
    }
}
