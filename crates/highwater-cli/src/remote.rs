//! Which server a command talks to: options that several commands share, and how an argument that may
//! be a URL or a local copy is understood.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use highwater::{Admin, Builder, RemoteDatabase};

use crate::failure::{Failure, quoted};

/// How to reach the server.
#[derive(Debug, Clone, Args)]
pub(crate) struct Access {
    /// The token for the server
    #[arg(long, env = "HIGHWATER_AUTH_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// How long to try.
#[derive(Debug, Clone, Args)]
pub(crate) struct Patience {
    /// How long to go on trying when the network fails, for example 5s or 2min
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Do not wait for another sync of the same file: fail at once when one is running
    #[arg(long)]
    pub(crate) no_wait: bool,
}

impl Access {
    /// Adds the token, if there is one.
    pub(crate) fn apply(&self, builder: Builder) -> Builder {
        match self.given() {
            Some(token) => builder.token(token),
            None => builder,
        }
    }

    /// An empty variable means that no token is set.
    fn given(&self) -> Option<&str> {
        self.token.as_deref().filter(|token| !token.is_empty())
    }

    /// The server at a URL, for its administrator.
    pub(crate) fn admin(&self, url: &str) -> Result<Admin, Failure> {
        Ok(Admin::new(url, self.given().map(str::to_owned))?)
    }

    /// The database at a URL, or the one that a local copy is synced with.
    pub(crate) fn remote(&self, url_or_db: &str) -> Result<RemoteDatabase, Failure> {
        let url = url_of(url_or_db)?;
        Ok(RemoteDatabase::new(&url, self.given().map(str::to_owned))?)
    }
}

impl Patience {
    /// Adds the time limits.
    pub(crate) fn apply(&self, builder: Builder) -> Builder {
        let builder = builder.timeout(self.timeout);
        if self.no_wait { builder.lock_timeout(Duration::ZERO) } else { builder }
    }
}

/// Whether an argument is meant as a URL.
pub(crate) fn is_url(argument: &str) -> bool {
    argument.contains("://")
}

/// The URL itself, or the remembered one of a local copy.
pub(crate) fn url_of(url_or_db: &str) -> Result<String, Failure> {
    if is_url(url_or_db) {
        return Ok(url_or_db.to_owned());
    }
    let path = existing(Path::new(url_or_db))?;
    let db = Builder::new(&path).open()?;
    db.remote().ok_or_else(|| highwater::Error::NoRemote { db: path }.into())
}

/// A local database file that has to be there already.
pub(crate) fn existing(path: &Path) -> Result<PathBuf, Failure> {
    possible(path)?;
    if path.exists() {
        return Ok(path.to_owned());
    }
    Err(Failure::failed("no_such_file", format!("there is no file {}", path.display()))
        .hint(format!("to get a copy from a server: highwater clone URL {}", quoted(path))))
}

/// A place where a database file is, or can be made.
pub(crate) fn possible(path: &Path) -> Result<(), Failure> {
    if path.is_dir() {
        return Err(Failure::failed(
            "not_a_file",
            format!("{} is a folder, not a database file", path.display()),
        )
        .hint("name the file itself"));
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(Failure::failed("no_such_folder", format!("there is no folder {}", folder.display()))
                .hint(format!("make it first (mkdir -p {}), or choose another place", quoted(folder))))
        }
        _ => Ok(()),
    }
}
