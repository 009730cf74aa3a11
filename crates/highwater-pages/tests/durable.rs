//! What is written stays whole, and nothing is overwritten that must not be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

use std::fs;
use std::io::Write;
use std::path::Path;

use highwater_pages::Error;
use highwater_pages::durable::{
    Published, publish_new, remove_stale_temps, replace_cache, sync_path, temp_path, write_atomic,
};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_as_a_whole_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ünï info");
    write_atomic(&path, b"one").unwrap();
    write_atomic(&path, b"two!").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two!");
    assert_eq!(names(folder.path()), ["ünï info"]);
}

#[test]
fn a_failed_replacement_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sums");
    write_atomic(&path, b"old").unwrap();
    let failed = replace_cache(&path, |file| {
        file.write_all(b"half")?;
        Err(std::io::Error::other("disk full"))
    });
    assert!(matches!(failed, Err(Error::Io { doing: "writing", .. })));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["sums"]);
}

#[test]
fn a_missing_folder_is_an_error_that_names_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let error = write_atomic(&folder.path().join("no/such"), b"x").unwrap_err();
    assert!(error.to_string().contains("no/such failed"), "{error}");
    assert!(sync_path(&folder.path().join("nothing")).is_err());
}

#[test]
fn a_published_file_never_overwrites() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clone.db");
    for (content, wins) in [(&b"first"[..], true), (b"second", false)] {
        let temp = temp_path(&path);
        fs::write(&temp, content).unwrap();
        let published = publish_new(&temp, &path).unwrap();
        assert_eq!(published, if wins { Published::Done } else { Published::NameTaken });
        assert_eq!(temp.exists(), !wins);
    }
    assert_eq!(fs::read(&path).unwrap(), b"first");
}

#[test]
fn stale_temporary_files_go_and_those_of_the_living_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db-info");
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    fs::write(folder.path().join(format!(".a.db-info.tmp-{dead}-0")), b"").unwrap();
    fs::write(folder.path().join(format!(".b.db-info.tmp-{dead}-0")), b"").unwrap();
    fs::write(folder.path().join(".a.db-info.tmp-notes"), b"").unwrap();
    fs::write(temp_path(&path), b"").unwrap();
    assert_eq!(remove_stale_temps(&path).unwrap(), 1);
    assert_eq!(names(folder.path()).len(), 3);
    assert!(!folder.path().join(format!(".a.db-info.tmp-{dead}-0")).exists());
}

#[test]
fn an_hour_old_temporary_file_goes_even_if_its_number_lives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let file = fs::File::create(temp_path(&path)).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(7200)).unwrap();
    assert_eq!(remove_stale_temps(&path).unwrap(), 1);
}
