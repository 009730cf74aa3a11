//! A database's URL, and the requests below it.

use std::fmt;
use std::str::FromStr;

use crate::PROTOCOL;

/// Where a database lives: `http(s)://host[:port][/prefix]/DB`, without a trailing slash.
///
/// Everything about the database stands below this URL, so a reverse proxy's prefix needs no
/// configuration on the client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Remote(String);

/// A URL that cannot be a database's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not a database URL ({reason}); it looks like http://127.0.0.1:8080/guestbook")]
pub struct InvalidRemote {
    /// What was given.
    pub url: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Remote {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL of a request about this database: `REMOTE/v1`, or `REMOTE/v1/VERB`.
    #[must_use]
    pub fn request(&self, verb: Option<&str>) -> String {
        match verb {
            None => format!("{}/{PROTOCOL}", self.0),
            Some(verb) => format!("{}/{PROTOCOL}/{verb}", self.0),
        }
    }

    /// The last segment: what a file for a copy would be called.
    #[must_use]
    pub fn last_segment(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Remote {
    type Err = InvalidRemote;

    fn from_str(url: &str) -> Result<Self, InvalidRemote> {
        let invalid = |reason| InvalidRemote { url: url.to_owned(), reason };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("no scheme"))?;
        if !matches!(scheme, "http" | "https") {
            return Err(invalid("the scheme must be http or https"));
        }
        if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(invalid("it contains white space"));
        }
        if url.contains(['?', '#']) {
            return Err(invalid("it has a query or a fragment"));
        }
        let rest = rest.trim_end_matches('/');
        let (host, path) = rest.split_once('/').ok_or_else(|| invalid("no database name after the host"))?;
        if host.is_empty() {
            return Err(invalid("no host"));
        }
        if host.contains('@') {
            return Err(invalid("it contains credentials; pass the token separately"));
        }
        if !is_host(host) {
            return Err(invalid("the host or its port cannot be one"));
        }
        // URL libraries take `%2e` for a dot, and with it change the path.
        let dots = |segment: &str| segment.to_ascii_lowercase().replace("%2e", ".");
        if path.split('/').any(|segment| matches!(dots(segment).as_str(), "" | "." | "..")) {
            return Err(invalid("an empty or relative segment in the path"));
        }
        Ok(Self(format!("{scheme}://{rest}")))
    }
}

/// `NAME`, `ADDRESS` or `[IPV6]`, with or without `:PORT`.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (address, port),
        Some(_) => return false,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port_fits = port.strip_prefix(':').map_or(port.is_empty(), |port| port.parse::<u16>().is_ok());
    let special = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_' | ':');
    !name.is_empty() && port_fits && !name.contains(special)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_stand_below_the_database() {
        let remote: Remote = "https://example.org:8443/prefix/team/app/".parse().unwrap();
        assert_eq!(remote.request(None), "https://example.org:8443/prefix/team/app/v1");
        assert_eq!(remote.request(Some("sync")), "https://example.org:8443/prefix/team/app/v1/sync");
        assert_eq!(remote.last_segment(), "app");
        for url in
            ["http://[::1]:8080/a", "http://[fe80::1]/a", "http://127.0.0.1/a", "http://bücher.example:1/a"]
        {
            assert_eq!(url.parse::<Remote>().unwrap().as_str(), url);
        }
    }

    #[test]
    fn what_is_no_database_url_is_refused_with_an_example() {
        for url in [
            "",
            "guestbook",
            "http://",
            "http:///a",
            "http://host",
            "http://host/",
            "ftp://host/a",
            "http://host/a b",
            "http://host/a?x",
            "http://host/a#x",
            "http://u:p@host/a",
            "http://host//a",
            "http://host/../a",
            "http://host/%2e%2E/a",
            "http://host/.%2e",
            "http://host:99999/a",
            "http://host:/a",
            "http://host:80:80/a",
            "http://[::1/a",
            "http://[::g]/a",
            "http://ho%zzst/a",
            "http://:80/a",
        ] {
            let error = url.parse::<Remote>().unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:8080/guestbook"), "{error}");
        }
    }
}
