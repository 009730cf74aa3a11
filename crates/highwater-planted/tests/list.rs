//! The list and the sources say the same.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use highwater_planted::bugs::BUGS;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_bug_in_the_sources_is_in_the_list_and_every_bug_of_the_list_in_the_sources() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(crates).unwrap() {
        let source = entry.unwrap().path().join("src");
        if source.is_dir() && !source.starts_with(env!("CARGO_MANIFEST_DIR")) {
            sources(&source, &mut files);
        }
    }
    let mut planted = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // The one that explains it names none.
        let calls = text.split("planted(\"").skip(1).filter_map(|rest| rest.split_once('"'));
        planted.extend(calls.map(|(name, _)| name.to_owned()).filter(|name| name != "name"));
    }
    let listed: Vec<String> = BUGS.iter().map(|bug| bug.name.to_owned()).collect();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), planted);
    assert_eq!(listed.len(), planted.len(), "a name is listed twice");
}

#[test]
fn no_crate_turns_the_feature_on() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for entry in std::fs::read_dir(crates).unwrap() {
        let manifest = entry.unwrap().path().join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let lines = text.lines().filter(|line| line.contains("planted-bugs") && !line.starts_with('#'));
        assert!(lines.eq(text.lines().filter(|line| *line == "planted-bugs = []")), "{}", manifest.display());
    }
}
