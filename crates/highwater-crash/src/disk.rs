//! A disk that forgets: what may be on it after a power cut.
//!
//! What is assumed is what POSIX promises, not what a file system happens to do:
//! - the content of a file is safe when it was synced after it was written; else any part of the writes since
//!   may be there and any other part not, and the last one may be torn at any byte;
//! - a name (a file made, renamed, linked, removed) is safe when its folder was synced; else it may be gone or
//!   back. A rename is one step: either both of its ends happened or neither did. Of several changes of names
//!   in one folder, a later one is never there without the earlier ones (every file system with a journal
//!   keeps that order);
//! - content and names do not wait for each other: a renamed file that was not synced may be empty.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::trace::{Inode, Operation};
use highwater_histories::Dice;

/// What a crash leaves of what was not waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All of it: only the process died.
    Kept,
    /// Nothing.
    Dropped,
    /// A random part.
    Part,
    /// All of it, but the last write ends in its middle.
    Torn,
}

impl Mode {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Kept, Self::Dropped, Self::Part, Self::Torn];

    /// As it is written in a command.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Dropped => "dropped",
            Self::Part => "part",
            Self::Torn => "torn",
        }
    }
}

/// A file as a crash leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// Which file it was, if the file system knew it before the process began or knows it after its end.
    pub(crate) inode: Inode,
    pub(crate) bytes: Vec<u8>,
}

/// What is in a folder: files, and folders (`None`), by their paths relative to it.
pub(crate) type Tree = BTreeMap<PathBuf, Option<Content>>;

#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Truncate(u64),
}

#[derive(Debug, Clone)]
struct File {
    inode: Inode,
    safe: Vec<u8>,
    since: Vec<Change>,
}

/// What a name stands for: a file by its number here, or a folder.
type Entry = Option<usize>;

/// Names that change in one step; `None` removes.
type Names = Vec<(PathBuf, Option<Entry>)>;

/// The disk below one folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    by_inode: BTreeMap<Inode, usize>,
    safe: BTreeMap<PathBuf, Entry>,
    since: Vec<Names>,
}

impl Disk {
    /// A disk that was at rest.
    pub(crate) fn new(tree: &Tree) -> Self {
        let mut disk = Self::default();
        for (path, content) in tree {
            let entry = content.as_ref().map(|content| {
                // Two names of one file.
                if let Some(known) = disk.by_inode.get(&content.inode) {
                    return *known;
                }
                disk.add(content.inode, content.bytes.clone())
            });
            disk.safe.insert(path.clone(), entry);
        }
        disk
    }

    fn add(&mut self, inode: Inode, safe: Vec<u8>) -> usize {
        let number = self.files.len();
        self.files.push(File { inode, safe, since: Vec::new() });
        self.by_inode.insert(inode, number);
        number
    }

    fn file(&mut self, inode: Inode) -> Option<&mut File> {
        let number = *self.by_inode.get(&inode)?;
        self.files.get_mut(number)
    }

    /// Every name, as the running system sees it.
    fn names(&self) -> BTreeMap<PathBuf, Entry> {
        let mut names = self.safe.clone();
        self.since.iter().for_each(|step| apply(&mut names, step));
        names
    }

    /// Does what the process did.
    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { inode, path } => {
                let number = self.add(*inode, Vec::new());
                self.since.push(vec![(path.clone(), Some(Some(number)))]);
            }
            Operation::Write { inode, offset, data } => {
                let change = Change::Write { offset: *offset, data: data.clone() };
                self.file(*inode).into_iter().for_each(|file| file.since.push(change.clone()));
            }
            Operation::Truncate { inode, size } => {
                self.file(*inode).into_iter().for_each(|file| file.since.push(Change::Truncate(*size)));
            }
            Operation::Sync { inode } => {
                if let Some(file) = self.file(*inode) {
                    let changes = std::mem::take(&mut file.since);
                    changes.iter().for_each(|change| change.apply(&mut file.safe));
                }
            }
            Operation::SyncFolder { path } => self.sync_folder(path),
            Operation::Rename { from, to } => {
                if let Some(entry) = self.names().get(from) {
                    self.since.push(vec![(to.clone(), Some(*entry)), (from.clone(), None)]);
                }
            }
            Operation::Link { from, to } => {
                if let Some(entry) = self.names().get(from) {
                    self.since.push(vec![(to.clone(), Some(*entry))]);
                }
            }
            Operation::Unlink { path } | Operation::RemoveFolder { path } => {
                self.since.push(vec![(path.clone(), None)]);
            }
            Operation::CreateFolder { path } => self.since.push(vec![(path.clone(), Some(None))]),
        }
    }

    /// Somebody looks at the disk from now on who knows the files by other numbers.
    fn adopt(&mut self, tree: &Tree) {
        for (path, entry) in self.names() {
            let (Some(number), Some(Some(content))) = (entry, tree.get(&path)) else { continue };
            self.by_inode.insert(content.inode, number);
            self.files.get_mut(number).into_iter().for_each(|file| file.inode = content.inode);
        }
    }

    /// A rename from one folder to another is safe with either.
    fn sync_folder(&mut self, folder: &Path) {
        let (safe, since): (Vec<Names>, Vec<Names>) =
            std::mem::take(&mut self.since).into_iter().partition(|step| touches(step, folder));
        safe.iter().for_each(|step| apply(&mut self.safe, step));
        self.since = since;
    }

    /// What is there after a crash, in a mode in which the last write stays whole.
    pub(crate) fn after(&self, mode: Mode, dice: &mut Dice) -> Tree {
        let mut names = self.safe.clone();
        let mut closed: Vec<PathBuf> = Vec::new();
        for step in &self.since {
            let stays = match mode {
                Mode::Dropped => false,
                Mode::Kept | Mode::Torn => true,
                Mode::Part => !closed.iter().any(|folder| touches(step, folder)) && dice.chance(60),
            };
            if stays {
                apply(&mut names, step);
            } else {
                closed.extend(step.iter().filter_map(|(path, _)| path.parent().map(Path::to_path_buf)));
            }
        }
        let contents: Vec<Content> = self.files.iter().map(|file| file.after(mode, dice)).collect();
        let mut tree = Tree::new();
        // In their order a folder comes before what is in it.
        for (path, entry) in names {
            let parent = path.parent().unwrap_or(Path::new(""));
            if parent != Path::new("") && !matches!(tree.get(parent), Some(None)) {
                continue;
            }
            tree.insert(path, entry.and_then(|number| contents.get(number).cloned()));
        }
        tree
    }
}

impl File {
    fn after(&self, mode: Mode, dice: &mut Dice) -> Content {
        let mut bytes = self.safe.clone();
        for change in &self.since {
            let stays = match mode {
                Mode::Dropped => false,
                Mode::Kept | Mode::Torn => true,
                Mode::Part => dice.chance(50),
            };
            if stays {
                change.apply(&mut bytes);
            }
        }
        Content { inode: self.inode, bytes }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Truncate(size) => bytes.resize(usize::try_from(*size).unwrap_or(usize::MAX), 0),
            Self::Write { offset, data } => {
                let start = usize::try_from(*offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(data.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(place) = bytes.get_mut(start..end) {
                    place.copy_from_slice(data);
                }
            }
        }
    }
}

fn touches(step: &Names, folder: &Path) -> bool {
    step.iter().any(|(path, _)| path.parent() == Some(folder))
}

fn apply(names: &mut BTreeMap<PathBuf, Entry>, step: &Names) {
    for (path, entry) in step {
        match entry {
            Some(entry) => names.insert(path.clone(), *entry),
            None => names.remove(path),
        };
    }
}

/// What may be on a disk when the power is cut after so many operations. `None`: the mode is the same as another.
pub(crate) fn after_crash(
    before: &Tree,
    operations: &[Operation],
    count: usize,
    mode: Mode,
    dice: &mut Dice,
) -> Option<Tree> {
    let happened = operations.get(..count)?;
    let mut disk = Disk::new(before);
    match (mode, happened.split_last()) {
        (Mode::Torn, Some((Operation::Write { inode, offset, data }, earlier))) if data.len() > 1 => {
            earlier.iter().for_each(|operation| disk.apply(operation));
            let part = data.get(..dice.between(1, data.len() - 1))?.to_vec();
            disk.apply(&Operation::Write { inode: *inode, offset: *offset, data: part });
        }
        (Mode::Torn, _) => return None,
        _ => happened.iter().for_each(|operation| disk.apply(operation)),
    }
    Some(disk.after(mode, dice))
}

/// What may be on a disk when its process was killed after these operations, another one went on from `between`, and
/// then the power is cut: nothing is safer for having been found by the second process.
pub(crate) fn after_kill_and_crash(
    before: &Tree,
    first: &[Operation],
    between: &Tree,
    second: &[Operation],
    (mode, dice): (Mode, &mut Dice),
) -> Tree {
    let mut disk = Disk::new(before);
    first.iter().for_each(|operation| disk.apply(operation));
    disk.adopt(between);
    second.iter().for_each(|operation| disk.apply(operation));
    disk.after(mode, dice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Inode = Inode(7);

    fn path(text: &str) -> PathBuf {
        PathBuf::from(text)
    }

    fn write(data: &str) -> Operation {
        Operation::Write { inode: FILE, offset: 0, data: data.into() }
    }

    /// Name and content of each file after a crash.
    fn found(operations: &[Operation], mode: Mode) -> Vec<(String, String)> {
        let tree = after_crash(&Tree::new(), operations, operations.len(), mode, &mut Dice::new(1)).unwrap();
        let text = |content: Content| String::from_utf8(content.bytes).unwrap();
        tree.into_iter()
            .filter_map(|(path, content)| Some((path.to_str()?.to_owned(), text(content?))))
            .collect()
    }

    fn pair(name: &str, content: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), content.to_owned())]
    }

    #[test]
    fn what_was_not_waited_for_is_gone() {
        let create = Operation::Create { inode: FILE, path: path("a") };
        let folder = Operation::SyncFolder { path: path("") };
        let made = [create.clone(), write("text"), Operation::Sync { inode: FILE }];
        assert_eq!(found(&made, Mode::Dropped), [], "nobody waited for the name");
        assert_eq!(found(&made, Mode::Kept), pair("a", "text"));
        let named = [create.clone(), folder.clone(), write("text")];
        assert_eq!(found(&named, Mode::Dropped), pair("a", ""), "nobody waited for the content");
        let both = [create, folder, write("text"), Operation::Sync { inode: FILE }];
        assert_eq!(found(&both, Mode::Dropped), pair("a", "text"));
    }

    #[test]
    fn a_rename_that_was_not_waited_for_leaves_the_old_name() {
        let mut operations = vec![
            Operation::Create { inode: FILE, path: path("a") },
            write("text"),
            Operation::Sync { inode: FILE },
            Operation::SyncFolder { path: path("") },
            Operation::Rename { from: path("a"), to: path("b") },
        ];
        assert_eq!(found(&operations, Mode::Dropped), pair("a", "text"));
        assert_eq!(found(&operations, Mode::Kept), pair("b", "text"));
        operations.push(Operation::SyncFolder { path: path("") });
        assert_eq!(found(&operations, Mode::Dropped), pair("b", "text"));
    }

    #[test]
    fn what_a_killed_process_did_not_wait_for_is_not_safe_because_the_next_one_found_it() {
        let create = Operation::Create { inode: FILE, path: path("a") };
        let first = [create, write("text")];
        let other = Inode(8);
        let between: Tree = [(path("a"), Some(Content { inode: other, bytes: "text".into() }))].into();
        let folder = Operation::SyncFolder { path: path("") };
        let after = |second: &[Operation]| {
            let how = (Mode::Dropped, &mut Dice::new(1));
            after_kill_and_crash(&Tree::new(), &first, &between, second, how)
        };
        assert_eq!(after(&[]), Tree::new());
        let named = after(std::slice::from_ref(&folder));
        assert_eq!(named.get(&path("a")), Some(&Some(Content { inode: other, bytes: Vec::new() })));
        assert_eq!(after(&[Operation::Sync { inode: other }, folder]), between);
    }

    #[test]
    fn a_torn_write_ends_in_its_middle() {
        let operations = [Operation::Create { inode: FILE, path: path("a") }, write("0123456789")];
        let (_, text) = found(&operations, Mode::Torn).remove(0);
        assert!(!text.is_empty() && text.len() < 10 && "0123456789".starts_with(&text), "{text}");
    }

    #[test]
    fn a_folder_that_was_not_waited_for_takes_its_files_along() {
        let operations = [
            Operation::CreateFolder { path: path("d") },
            Operation::Create { inode: FILE, path: path("d/a") },
            Operation::Sync { inode: FILE },
            Operation::SyncFolder { path: path("d") },
        ];
        assert_eq!(found(&operations, Mode::Dropped), []);
        assert_eq!(found(&operations, Mode::Kept), pair("d/a", ""));
    }

    #[test]
    fn a_part_never_holds_a_later_name_without_the_earlier_ones() {
        let operations: Vec<Operation> =
            (0..6).map(|n| Operation::Create { inode: Inode(n), path: path(&format!("f{n}")) }).collect();
        for seed in 0..50 {
            let tree = after_crash(&Tree::new(), &operations, 6, Mode::Part, &mut Dice::new(seed)).unwrap();
            let names: Vec<_> = tree.keys().map(|path| path.to_str().unwrap().to_owned()).collect();
            let expected: Vec<_> = (0..names.len()).map(|n| format!("f{n}")).collect();
            assert_eq!(names, expected);
        }
    }
}
