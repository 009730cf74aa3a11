//! Every setting: its name, what it means, where it goes. Defaults are those of
//! [`highwater_server::Config`].

use super::Settings;
use super::value::{Kind, Raw, Setting};

/// A setting.
pub(crate) struct Key {
    /// `section.key`, as in the file.
    pub(crate) name: &'static str,
    /// What it means, for the documentation and the annotated file.
    pub(crate) about: &'static str,
    pub(super) take: fn(&mut Settings, &Raw) -> Result<(), String>,
    pub(super) show: fn(&Settings) -> Option<String>,
}

impl Key {
    /// The variable of the environment that sets it.
    pub(crate) fn variable(&self) -> String {
        format!("HIGHWATER_{}", self.name.replace('.', "_").to_uppercase())
    }
}

macro_rules! keys {
    ($($name:literal $kind:ident $($field:ident).+ $about:literal;)*) => {
        /// Every setting, in the order in which they are shown.
        pub(crate) const KEYS: &[Key] = &[$(Key {
            name: $name,
            about: $about,
            take: |settings, raw| {
                settings.$($field).+ = Setting::read(raw, Kind::$kind)?;
                Ok(())
            },
            show: |settings| settings.$($field).+.write(Kind::$kind),
        }),*];
    };
}

keys! {
    "listen" Plain listen
        "Where to listen, HOST:PORT. Port 0 takes a free one and tells which.";
    "store" Plain config.store
        "Where the databases are kept: a folder, file:///FOLDER, or memory: (gone at the end).";
    "insecure" Plain insecure
        "Listen on an address that other machines can reach without asking for tokens.";
    "log.format" Plain log_format
        "How to log to standard error: text or json. Not set: json with --json, else text.";
    "tls.cert" Plain tls_cert
        "Serve HTTPS with this certificate (PEM, the server's own first); looked at for changes.";
    "tls.key" Plain tls_key
        "The private key of tls.cert (PEM).";
    "auth.keys" Plain config.auth.keys
        "Ask for tokens, and check them with the keys in this file; looked at for changes.";
    "auth.audience" Plain config.auth.audience
        "What a token's `aud` must name; without it tokens must not name any.";
    "auth.revoked" Plain config.auth.revoked
        "A file with revoked tokens, one a line; looked at for changes.";
    "libsql.quiet_period" Plain config.libsql.quiet_period
        "No new generation begins before libSQL clients have not pushed for so long.";
    "libsql.host_label" Plain config.libsql.host_label
        "Take a database's name from the first label of the host when a libSQL client's path has none.";
    "merge.policy" Plain config.merge.policy
        "What stays where two devices changed the same thing: last-push-wins, first-push-wins, or fail (refuse the push); a request can say otherwise.";
    "merge.databases" Plain config.merge.databases
        "The same for single databases, as a list of NAME=POLICY.";
    "snapshot.max_files" Plain config.snapshot.max_files
        "Write a snapshot of a database after this many pushes.";
    "snapshot.outweigh" Plain config.snapshot.outweigh
        "Write a snapshot when the pushes since the last one take more bytes than the database.";
    "deletion.keep" Plain config.deletion.keep
        "How long a deleted database can be undeleted; then its files are removed.";
    "deletion.check" Plain config.deletion.check
        "How often to look for deleted databases whose time has come.";
    "limits.push_bytes" Bytes config.limits.push_bytes
        "The largest body of a push, decompressed.";
    "limits.body_memory" Bytes config.limits.body_memory
        "The memory that one request's buffers may take.";
    "limits.small_body" Bytes config.limits.small_body
        "Bodies up to this size are handled in memory, larger ones through a file in the store; at most an eighth of limits.body_memory.";
    "limits.small_answer" Bytes config.limits.small_answer
        "Answers up to this size are built in memory, larger ones are streamed; at most a quarter of limits.body_memory.";
    "limits.open_databases" Plain config.limits.open_databases
        "How many databases are kept open in memory.";
    "limits.open_bytes" Bytes config.limits.open_bytes
        "About how much memory open databases may take.";
    "limits.requests" Plain config.limits.requests
        "How many requests are worked on at once.";
    "limits.memory" Bytes config.limits.memory
        "The memory that all bodies may take at once, half for requests and half for answers; bodies up to 256 KiB do not count.";
    "limits.wait" Plain config.limits.wait
        "How long a request waits for its turn, or for memory, before it is refused.";
    "limits.rate" Plain config.limits.rate
        "How many requests a second each token may send (without tokens: each address); 0: no limit.";
    "limits.burst" Plain config.limits.burst
        "How many requests may come at once after a pause, where limits.rate holds.";
    "limits.queries" Plain config.limits.queries
        "How many queries run at once.";
    "limits.merge_memory" Bytes config.limits.merge_memory
        "Memory that the rows and pages of one merge may take; a push that needs more is refused.";
    "limits.connections" Plain config.limits.connections
        "How many connections may be open; when there are more, the ones idle the longest are closed.";
    "limits.connections_per_address" Plain config.limits.connections_per_address
        "How many connections one address may have; 0: no limit of its own. Leave it behind a proxy.";
    "limits.streams" Plain config.limits.streams
        "How many requests may share one HTTP/2 connection at a time.";
    "limits.slowest" Bytes config.limits.slowest
        "Bytes a second that a body must come at, or an answer be taken at, on average.";
    "timeouts.header" Plain config.limits.header_timeout
        "How long a client may take for the head of a request, and stay silent between requests.";
    "timeouts.body_idle" Plain config.limits.idle_timeout
        "How long a client may stay silent within a body.";
    "timeouts.write" Plain config.limits.write_timeout
        "How long a client may take nothing of an answer.";
    "timeouts.query" Plain config.limits.query_timeout
        "How long a query may run.";
    "timeouts.merge" Plain config.limits.merge_timeout
        "How long a merge may take; other pushes to the database wait meanwhile.";
    "timeouts.handshake" Plain config.limits.handshake_timeout
        "How long a TLS handshake may take.";
    "timeouts.drain" Plain config.limits.drain
        "How long connections are accepted after the server was told to stop, while /readyz says 503.";
    "timeouts.grace" Plain config.limits.grace
        "How long accepted requests may go on after the server was told to stop.";
}

/// The known key that a wrong one was most likely meant to be.
pub(super) fn nearest(wrong: &str) -> &'static str {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |key: &&Key| {
        let whole = strsim::damerau_levenshtein(key.name, wrong);
        // The right key in the wrong section.
        let part = strsim::damerau_levenshtein(&last(key.name), &last(wrong)) * 2 + 1;
        whole.min(part)
    };
    KEYS.iter().min_by_key(distance).map_or("listen", |key| key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_is_told_the_one_that_was_meant() {
        assert_eq!(nearest("limits.push_byte"), "limits.push_bytes");
        assert_eq!(nearest("limits.header"), "timeouts.header");
        assert_eq!(nearest("lisen"), "listen");
        assert_eq!(nearest("timeouts.max_files"), "snapshot.max_files");
    }

    #[test]
    fn the_documentation_lists_every_setting_with_its_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/OPERATIONS.md");
        let text = std::fs::read_to_string(path).unwrap();
        let listed: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
        for key in KEYS {
            let default = (key.show)(&Settings::default()).unwrap_or_else(|| "not set".to_owned());
            let beginning = format!("| `{}` | {} |", key.name, default.trim_matches('"'));
            assert!(
                listed.iter().any(|line| line.starts_with(&beginning)),
                "missing: {beginning} {}",
                key.about
            );
        }
    }

    #[test]
    fn names_are_written_as_in_the_file_and_variables_in_capitals() {
        for key in KEYS {
            assert!(
                key.name.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '.' | '_')),
                "{}",
                key.name
            );
            assert_eq!(KEYS.iter().filter(|other| other.variable() == key.variable()).count(), 1);
        }
    }
}
