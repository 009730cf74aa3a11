//! The server's settings: from the command line, the environment, a file and defaults, in this order
//! of precedence, for every key alike.
//!
//! A key that does not exist is an error wherever it stands, and so is a value that cannot be read,
//! even one that another source overrides: nobody should find out years later that a line of
//! the file never did anything.

mod file;
mod keys;
mod value;

use std::fmt;
use std::path::{Path, PathBuf};

use highwater_server::{Config, TlsFiles};

use crate::failure::Failure;
use crate::logging::LogFormat;
pub(crate) use keys::{KEYS, Key};
pub(crate) use value::Raw;

/// What a server is told before it starts.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `HOST:PORT`.
    pub(crate) listen: String,
    /// Listen beyond this machine without asking for tokens.
    pub(crate) insecure: bool,
    /// `None`: as the command's own output.
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    /// Everything else; complete after [`load`].
    pub(crate) config: Config,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            insecure: false,
            log_format: None,
            tls_cert: None,
            tls_key: None,
            config: Config::default(),
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A key as a source spelled it, its value, and the source.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) key: String,
    pub(crate) raw: Raw,
    pub(crate) source: Source,
}

impl Given {
    /// An option of the command line.
    pub(crate) fn flag(flag: &str, key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), raw: Raw::Text(value.to_owned()), source: Source::Flag(flag.to_owned()) }
    }
}

/// Settings, and where each of [`KEYS`] got its value.
#[derive(Debug)]
pub(crate) struct Effective {
    pub(crate) settings: Settings,
    sources: Vec<Source>,
}

impl Effective {
    /// Every key, its value as the file would have it (`None`: not set), and its source.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&'static Key, Option<String>, &Source)> {
        KEYS.iter().zip(&self.sources).map(|(key, source)| (key, (key.show)(&self.settings), source))
    }
}

/// Puts the sources together. `flags` are those of the command line.
pub(crate) fn load(file: Option<&Path>, flags: Vec<Given>) -> Result<Effective, Failure> {
    let mut given = match file {
        Some(path) => of_file(path)?,
        None => Vec::new(),
    };
    given.extend(of_environment(
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    ));
    given.extend(flags);
    apply(given)
}

/// Later ones win.
fn apply(given: Vec<Given>) -> Result<Effective, Failure> {
    let mut settings = Settings::default();
    let mut sources = vec![Source::Default; KEYS.len()];
    for Given { key, raw, source } in given {
        let found = KEYS.iter().zip(&mut sources).find(|(known, _)| known.name == key);
        let Some((known, place)) = found else {
            return Err(Failure::usage(format!("there is no setting {key:?} ({source})"))
                .hint(format!("the nearest is {}; docs/OPERATIONS.md has them all", keys::nearest(&key))));
        };
        (known.take)(&mut settings, &raw)
            .map_err(|what| Failure::usage(format!("the setting {key} cannot be used ({source}): {what}")))?;
        *place = source;
    }
    settings.config.tls = match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles::new(cert.clone(), key.clone())),
        (None, None) => None,
        _ => {
            return Err(Failure::usage("TLS needs both a certificate (tls.cert) and its key (tls.key)"));
        }
    };
    Ok(Effective { settings, sources })
}

fn of_file(path: &Path) -> Result<Vec<Given>, Failure> {
    let given = |line: file::Line| Given {
        key: line.key,
        raw: line.raw,
        source: Source::File { path: path.to_owned(), line: line.line },
    };
    Ok(file::read(path)?.into_iter().map(given).collect())
}

/// Variables of clients, which may be set on the same machine.
const OF_CLIENTS: [&str; 1] = ["HIGHWATER_AUTH_TOKEN"];

/// The variables that are settings, and those that look so much like one that they must be a mistake.
fn of_environment(variables: impl Iterator<Item = (String, String)>) -> Vec<Given> {
    let sections: Vec<String> =
        KEYS.iter().filter_map(|key| Some(format!("{}.", key.name.split_once('.')?.0))).collect();
    let given = |(name, value): (String, String)| {
        // Tools that start servers write a variable that is not set as an empty one.
        if OF_CLIENTS.contains(&name.as_str()) || value.is_empty() {
            return None;
        }
        let known = KEYS.iter().find(|key| key.variable() == name).map(|key| key.name.to_owned());
        let key = known.or_else(|| {
            let key = name.strip_prefix("HIGHWATER_")?.to_lowercase().replacen('_', ".", 1);
            sections.iter().any(|section| key.starts_with(section)).then_some(key)
        })?;
        Some(Given { key, raw: Raw::Text(value), source: Source::Environment(name) })
    };
    variables.filter_map(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<Given> {
        of_environment(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn of_text(text: &str) -> Vec<Given> {
        let file = tempfile::NamedTempFile::new().unwrap();
        #[allow(clippy::disallowed_methods, reason = "a file for this test only")]
        std::fs::write(file.path(), text).unwrap();
        of_file(file.path()).unwrap()
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let file = || of_text("[limits]\npush_bytes = 1\nsmall_body = 1\nopen_databases = 1\n");
        let variables =
            || environment(&[("HIGHWATER_LIMITS_PUSH_BYTES", "2"), ("HIGHWATER_LIMITS_SMALL_BODY", "2")]);
        let flags = vec![Given::flag("--set", "limits.push_bytes", "3")];
        let effective = apply(file().into_iter().chain(variables()).chain(flags).collect()).unwrap();
        let limits = &effective.settings.config.limits;
        assert_eq!((limits.push_bytes, limits.small_body, limits.open_databases), (3, 2, 1));
        assert_eq!(limits.body_memory, highwater_server::Limits::default().body_memory);
        let source = |name: &str| {
            effective
                .lines()
                .find(|(key, ..)| key.name == name)
                .map(|(.., source)| source.to_string())
                .unwrap()
        };
        assert_eq!(source("limits.push_bytes"), "--set");
        assert_eq!(source("limits.small_body"), "environment HIGHWATER_LIMITS_SMALL_BODY");
        assert!(source("limits.open_databases").ends_with(", line 4"));
        assert_eq!(source("limits.body_memory"), "default");
    }

    #[test]
    fn a_misspelt_variable_of_a_section_is_an_error_and_a_clients_is_not() {
        let wrong = environment(&[("HIGHWATER_LIMITS_PUSH_BYTE", "2")]);
        assert!(apply(wrong).unwrap_err().message().contains("HIGHWATER_LIMITS_PUSH_BYTE"));
        let others = [("HIGHWATER_AUTH_TOKEN", "t"), ("HIGHWATER_KILL", "x"), ("HOME", "/"), ("LISTEN", "x")];
        assert!(environment(&others).is_empty());
    }

    #[test]
    fn a_value_that_cannot_be_read_is_an_error_even_when_it_is_overridden() {
        let mut given = of_text("[timeouts]\ngrace = \"soon\"\n");
        given.push(Given::flag("--set", "timeouts.grace", "5s"));
        let message = apply(given).unwrap_err().message().to_owned();
        assert!(message.contains("timeouts.grace") && message.contains("line 2"), "{message}");
    }
}
