//! `demo`: the story that the README promises.

use crate::support::{Folder, highwater};

#[test]
fn the_story_is_told_and_every_claim_in_it_holds() {
    let folder = Folder::new();
    let said = highwater(folder.path(), "demo").expect(0);
    for part in [
        "offline",
        "first push",
        "only the last image",
        "Both new notes live",
        "renumbered",
        "metadata",
        "server restarts",
        "What crossed the wire",
    ] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    for line in said.stdout.lines() {
        assert!(line.chars().count() <= 100, "too long for a terminal: {line}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn its_files_can_be_kept_and_looked_at() {
    let folder = Folder::new();
    let value = highwater(folder.path(), "demo --keep kept --json").expect(0).json();
    let syncs = value["syncs"].as_array().unwrap();
    assert!(syncs.len() > 8, "{value}");
    assert!(
        syncs.iter().filter(|s| s["what"] == "laptop: nothing to do").all(|s| s["frames"] == 0),
        "{value}"
    );
    for line in ["status kept/laptop.db", "verify kept/laptop.db --offline", "verify kept/server"] {
        highwater(folder.path(), line).expect(0);
    }
    highwater(folder.path(), "demo --keep kept").expect(2);
}
