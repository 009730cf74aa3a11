//! The files beside a database.

use std::path::{Path, PathBuf};

use highwater_pages::beside;

use crate::error::{Error, Result};

/// Where everything about one local database is.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The database itself, without symbolic links.
    pub(crate) db: PathBuf,
    /// `<db>-info`.
    pub(crate) info: PathBuf,
    /// `<db>-sums`.
    pub(crate) sums: PathBuf,
    /// `<db>-lock`.
    pub(crate) lock: PathBuf,
    /// `<db>-wal`.
    pub(crate) wal: PathBuf,
}

impl Files {
    /// Resolves the path, so that every process agrees on where the files are, as SQLite does. The
    /// folder must exist; the database need not.
    pub(crate) fn resolve(path: &Path) -> Result<Self> {
        let failed = |source| Error::Io { what: "finding", path: path.to_path_buf(), source };
        let db = match path.canonicalize() {
            Ok(db) => db,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if let Ok(target) = path.read_link() {
                    // The link of a file that does not exist yet. (One in a circle is another error.)
                    return Self::resolve(&path.parent().unwrap_or(Path::new("")).join(target));
                }
                let name = path.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                folder.unwrap_or(Path::new(".")).canonicalize().map_err(failed)?.join(name)
            }
            Err(error) => return Err(failed(error)),
        };
        if db.is_dir() {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self {
            info: beside(&db, "-info"),
            sums: beside(&db, "-sums"),
            lock: beside(&db, "-lock"),
            wal: beside(&db, "-wal"),
            db,
        })
    }

    /// The folder that all of them are in.
    pub(crate) fn folder(&self) -> &Path {
        self.db.parent().unwrap_or(Path::new("/"))
    }
}
