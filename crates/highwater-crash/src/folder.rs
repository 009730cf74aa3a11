//! A machine's folder: read, and brought to another state without a file becoming another one.
//!
//! A client tells its database from a copy by the inode, which a power cut does not change. So a file that is
//! there before or after the recorded process keeps its inode in every state that is tried: a second name
//! beside the folder keeps it alive.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::disk::{Content, Tree};
use crate::trace::Inode;

/// The folder of one machine.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Names for inodes that must stay alive: the inode's number each.
    kept: PathBuf,
}

impl Folder {
    /// A new, empty folder of this name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn new(parent: &Path, name: &str) -> Result<Self> {
        let (path, kept) = (parent.join(name), parent.join(format!("{name}-inodes")));
        fs::create_dir(&path).and_then(|()| fs::create_dir(&kept)).context("a folder")?;
        // The recorder compares names: there must be one only.
        let path = path.canonicalize().context("a folder")?;
        Ok(Self { path, kept })
    }

    /// A folder that is only read.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf(), kept: PathBuf::new() }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it. SQLite's shared memory is left out.
    ///
    /// # Errors
    /// When something cannot be read.
    pub(crate) fn read(&self) -> Result<Tree> {
        let mut tree = Tree::new();
        walk(&self.path, Path::new(""), &mut tree)?;
        Ok(tree)
    }

    /// Keeps the inodes of what is in it now.
    ///
    /// # Errors
    /// When a link cannot be made.
    pub(crate) fn keep(&self) -> Result<()> {
        for (path, content) in self.read()? {
            let Some(content) = content else { continue };
            let name = self.kept_name(content.inode);
            if name.exists() {
                continue;
            }
            match fs::hard_link(self.path.join(&path), &name) {
                // A server that is at work removes its temporary files.
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("keeping {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn kept_name(&self, inode: Inode) -> PathBuf {
        self.kept.join(inode.0.to_string())
    }

    /// Makes it what a crash left.
    ///
    /// # Errors
    /// When something cannot be written.
    pub(crate) fn become_state(&self, tree: &Tree) -> Result<()> {
        fs::remove_dir_all(&self.path)
            .and_then(|()| fs::create_dir(&self.path))
            .context("emptying the folder")?;
        for (path, content) in tree {
            let to = self.path.join(path);
            match content {
                None => fs::create_dir(&to),
                Some(content) => self.put(&to, content),
            }
            .with_context(|| format!("making {}", to.display()))?;
        }
        Ok(())
    }

    fn put(&self, to: &Path, content: &Content) -> std::io::Result<()> {
        let kept = self.kept_name(content.inode);
        if kept.exists() {
            fs::hard_link(&kept, to)?;
        }
        let mut file = File::create(to)?;
        file.write_all(&content.bytes)
    }
}

fn walk(root: &Path, at: &Path, tree: &mut Tree) -> Result<()> {
    let folder = root.join(at);
    for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry.context("listing a folder")?;
        let path = at.join(entry.file_name());
        let about = match entry.metadata() {
            // A server that is at work removes its temporary files.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            about => about.with_context(|| format!("looking at {}", path.display()))?,
        };
        if about.is_dir() {
            tree.insert(path.clone(), None);
            walk(root, &path, tree)?;
        } else if !path.as_os_str().as_encoded_bytes().ends_with(b"-shm") {
            let bytes = match fs::read(entry.path()) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                bytes => bytes.with_context(|| format!("reading {}", path.display()))?,
            };
            tree.insert(path, Some(Content { inode: Inode(about.ino()), bytes }));
        }
    }
    Ok(())
}
