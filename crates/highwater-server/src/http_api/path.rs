//! Which database and which verb a raw path means.
//!
//! A name of a database has only characters that a URL carries as they are. So nothing is decoded:
//! a path with a percent sign, an empty segment or a dot segment means no database.

use highwater_ltx::{FrameNo, Generation};
use highwater_wire::{DbName, PROTOCOL};

use super::{Failure, not_found};

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Health,
    Ready,
    Version,
    Metrics,
    /// Administration: what stands below `/admin/v1/`.
    Admin(&'a str),
    /// What a libSQL client asks of a database; `None`: the database that the host names.
    Libsql(Option<DbName>, Libsql<'a>),
    /// A database, and what is asked of it; `None`: the database itself.
    Database(DbName, Option<&'a str>),
}

/// What a libSQL client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Libsql<'a> {
    /// Which generation to begin with.
    Info,
    /// The image at the beginning of a generation.
    Export(Generation),
    /// Frames from `start` on, up to but without `end`: pulled, or pushed.
    Sync { generation: Generation, start: FrameNo, end: FrameNo, baton: Option<&'a str> },
}

/// Parses the path as it came.
pub(super) fn parse(path: &str) -> Result<Target<'_>, Failure> {
    match path {
        "/healthz" => return Ok(Target::Health),
        "/readyz" => return Ok(Target::Ready),
        "/version" => return Ok(Target::Version),
        "/metrics" => return Ok(Target::Metrics),
        _ => {}
    }
    if let Some(rest) = path.strip_prefix("/admin/v1/") {
        return Ok(Target::Admin(rest));
    }
    let path = path.strip_prefix('/').unwrap_or(path);
    let marker = format!("/{PROTOCOL}");
    let split = path
        .match_indices(&marker)
        .find(|(at, found)| matches!(path.as_bytes().get(at + found.len()), None | Some(b'/')));
    let Some((at, found)) = split else {
        return libsql(path);
    };
    // Both are on boundaries: the marker was found there.
    let (name, verb) = (path.get(..at).unwrap_or_default(), path.get(at + found.len()..).unwrap_or_default());
    let name: DbName =
        name.parse().map_err(|error: highwater_wire::InvalidName| Failure::bad_request(error.to_string()))?;
    Ok(Target::Database(name, verb.strip_prefix('/')))
}

/// The paths of libSQL's protocol, below a database's name. Its clients write `//` where their URL ends with
/// a slash; a name is read as strictly as everywhere.
fn libsql(path: &str) -> Result<Target<'_>, Failure> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let found = segments.iter().position(|segment| matches!(*segment, "info" | "export" | "sync"));
    let Some((name, verb)) = found.and_then(|at| segments.split_at_checked(at)) else {
        return Err(nothing_here());
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse::<u32>().ok() } else { None };
        number.ok_or_else(|| Failure::bad_request("a generation or frame number in the path is none"))
    };
    let verb = match verb {
        ["info"] => Libsql::Info,
        ["export", generation] => Libsql::Export(Generation(number(generation)?)),
        ["sync", generation, start, end, rest @ ..] if rest.len() <= 1 => Libsql::Sync {
            generation: Generation(number(generation)?),
            start: FrameNo(number(start)?.into()),
            end: FrameNo(number(end)?.into()),
            baton: rest.first().copied(),
        },
        _ => return Err(nothing_here()),
    };
    if name.is_empty() {
        return Ok(Target::Libsql(None, verb));
    }
    let name: DbName = name
        .join("/")
        .parse()
        .map_err(|error: highwater_wire::InvalidName| Failure::bad_request(error.to_string()))?;
    Ok(Target::Libsql(Some(name), verb))
}

/// The database that a host's first label names.
pub(super) fn of_host(host: &str) -> Option<DbName> {
    let (label, rest) = host.split_once('.')?;
    // An address is no name.
    let name = rest.bytes().any(|byte| byte.is_ascii_alphabetic());
    name.then(|| label.to_ascii_lowercase().parse().ok()).flatten()
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
    fn the_paths_of_libsql_are_found() {
        let name = Some("team/app".parse::<DbName>().unwrap());
        assert_eq!(parse("/team/app/info").unwrap(), Target::Libsql(name.clone(), Libsql::Info));
        assert_eq!(parse("//team/app//info").unwrap(), Target::Libsql(name.clone(), Libsql::Info));
        assert_eq!(parse("/info").unwrap(), Target::Libsql(None, Libsql::Info));
        let export = Libsql::Export(Generation(3));
        assert_eq!(parse("/team/app/export/3").unwrap(), Target::Libsql(name.clone(), export));
        let sync =
            |baton| Libsql::Sync { generation: Generation(1), start: FrameNo(1), end: FrameNo(129), baton };
        assert_eq!(parse("/team/app/sync/1/1/129").unwrap(), Target::Libsql(name.clone(), sync(None)));
        assert_eq!(parse("/team/app/sync/1/1/129/b.1").unwrap(), Target::Libsql(name, sync(Some("b.1"))));
        for path in ["/a/sync/1/1", "/a/sync/1/1/2/b/c", "/a/export", "/a/info/x", "/a/b"] {
            assert_eq!(parse(path).unwrap_err().code(), ErrorCode::NotFound, "{path}");
        }
        for path in
            ["/a/sync/x/1/2", "/a/export/-1", "/a/export/99999999999", "/../info", "/A/info", "/%61/info"]
        {
            assert_eq!(parse(path).unwrap_err().code(), ErrorCode::BadRequest, "{path}");
        }
        assert_eq!(of_host("app.example.org:8080"), Some("app".parse().unwrap()));
        assert_eq!([of_host("127.0.0.1:8080"), of_host("localhost"), of_host("..x")], [None, None, None]);
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
