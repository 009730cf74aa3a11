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
    "timeouts.header" Plain config.limits.header_timeout
        "How long a client may take for the head of a request, and stay silent between requests.";
    "timeouts.body_idle" Plain config.limits.idle_timeout
        "How long a client may stay silent within a body.";
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
