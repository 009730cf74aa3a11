//! The example `offline_writes`, run as its documentation says.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Folder, Said, Server, clean, dead_url, said_with_input};

/// Cargo builds the examples of a package before its tests, except when one test alone is asked for.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().unwrap().parent().unwrap();
    let binary = target.join("examples").join(format!("offline_writes{}", std::env::consts::EXE_SUFFIX));
    if !binary.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", "offline_writes", "--package", "highwater-cli"]);
        if target.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    }
    binary
}

fn guestbook(folder: &Folder, entry: &str, settings: &[(&str, &str)]) -> Said {
    let mut command = Command::new(binary());
    command.current_dir(folder.path());
    clean(&mut command);
    command.env("RUST_LOG", "highwater=debug").envs(settings.iter().copied());
    said_with_input(command, entry)
}

#[test]
fn it_writes_offline_syncs_and_the_second_run_pushes_only_what_is_new() {
    let folder = Folder::new();
    let first = guestbook(&folder, "Hello\n", &[]).expect(0);
    assert!(first.stdout.contains("  Hello\n"), "{first:?}");
    assert!(first.stdout.ends_with("Done!\n"), "{first:?}");
    assert!(first.stderr.contains("no metadata file found"), "{first:?}");
    for field in ["generation=1", "frame_no=1", "durable_frame_num=2"] {
        assert!(first.stderr.contains(field), "{field}: {}", first.stderr);
    }

    let second = guestbook(&folder, "Hello again\n", &[]).expect(0);
    assert!(second.stdout.contains("  Hello\n  Hello again\n"), "{second:?}");
    assert!(second.stdout.contains("1 frame(s) sent"), "{second:?}");
    assert!(!second.stderr.contains("no metadata file found"), "{second:?}");
    assert!(second.stderr.contains("frame_no=3"), "pushing begins after the last durable frame: {second:?}");
    assert!(!second.stderr.contains("frame_no=1 ") && !second.stderr.contains("frame_no=2 "), "{second:?}");
    assert!(second.stderr.contains("durable_frame_num=3"), "{second:?}");
}

#[test]
fn no_entry_is_no_error_and_still_syncs() {
    let folder = Folder::new();
    for nothing in ["", "\n"] {
        let said = guestbook(&folder, nothing, &[]).expect(0);
        assert!(said.stdout.contains("No entry was given"), "{said:?}");
        assert!(said.stdout.ends_with("Done!\n"), "{said:?}");
    }
}

#[test]
fn a_server_that_is_away_is_a_state_and_not_a_failure() {
    let folder = Folder::new();
    let url = dead_url("guestbook");
    let said = guestbook(&folder, "Offline\n", &[("HIGHWATER_SYNC_URL", &url)]).expect(0);
    assert!(said.stdout.contains("could not be reached"), "{said:?}");
    assert!(said.stdout.contains("  Offline\n"), "{said:?}");
}

#[test]
fn the_settings_name_the_file_the_server_and_the_token() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = server.db("guests");
    let settings = [
        ("HIGHWATER_DB_PATH", "mine.db"),
        ("HIGHWATER_SYNC_URL", url.as_str()),
        ("HIGHWATER_AUTH_TOKEN", "t"),
    ];
    guestbook(&folder, "Hi\n", &settings).expect(0);
    assert!(folder.file("mine.db").exists());
    crate::support::highwater(folder.path(), &format!("clone {url} copy.db")).expect(0);
}
