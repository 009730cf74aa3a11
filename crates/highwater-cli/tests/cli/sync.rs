//! `sync`, `clone` and `status` between real files and a real server.

use std::io::Write;

use crate::support::{Folder, Server, add, check, highwater, notes, texts};

#[test]
fn a_file_is_pushed_cloned_and_kept_in_step() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = server.db("app");
    let (here, there) = (folder.file("app.db"), folder.file("copy.db"));
    let _application = notes(&here);

    let pushed = highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    check("sync_pushed", &pushed.all());
    check("sync_up_to_date", &highwater(folder.path(), "sync app.db").expect(0).all());

    let cloned = highwater(folder.path(), &format!("clone {url} copy.db")).expect(0);
    check("clone", &cloned.all());
    add(&there, "from the copy");
    highwater(folder.path(), "sync copy.db").expect(0);
    let pulled = highwater(folder.path(), "sync app.db").expect(0);
    check("sync_pulled", &pulled.all());
    assert_eq!(texts(&here), ["first", "from the copy"]);
    assert_eq!(texts(&there), texts(&here));
}

#[test]
fn the_remote_is_remembered() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = server.db("app");
    notes(&folder.file("app.db"));
    highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    let again = highwater(folder.path(), "sync app.db --json").expect(0).json();
    assert_eq!(again["remote"], url);
    assert_eq!(again["action"], "up-to-date");
}

#[test]
fn json_tells_what_moved() {
    let (folder, server) = (Folder::new(), Server::start());
    notes(&folder.file("app.db"));
    let said =
        highwater(folder.path(), &format!("sync app.db --json --remote {}", server.db("app"))).expect(0);
    let value = said.json();
    assert_eq!(value["action"], "pushed");
    assert_eq!(value["pushed"]["frames"], 2);
    assert_eq!(value["requests"], 1);
    assert_eq!(value["txid"], 1);
    assert!(value["position"].as_str().unwrap().starts_with("1/2/"), "{value}");
    check("sync_json", &said.all());
}

#[test]
fn status_tells_what_waits_without_a_network() {
    let (folder, server) = (Folder::new(), Server::start());
    let path = folder.file("app.db");
    let _application = notes(&path);
    check("status_never_synced", &highwater(folder.path(), "status app.db").expect(0).all());
    highwater(folder.path(), &format!("sync app.db --remote {}", server.db("app"))).expect(0);
    assert_eq!(server.stop(), 0);

    let clean = highwater(folder.path(), "status app.db").expect(0);
    check("status_clean", &clean.all());
    add(&path, "second");
    let dirty = highwater(folder.path(), "status app.db").expect(0);
    check("status_unpushed", &dirty.all());
    let json = highwater(folder.path(), "status app.db --json").expect(0).json();
    assert_eq!(json["unpushed_pages"], 1);
    assert_eq!(json["txid"], 1);
    assert_eq!(json["page_count"], 2);
}

#[test]
fn names_with_spaces_and_other_letters_are_ordinary_names() {
    let (folder, server) = (Folder::new(), Server::start());
    let name = "Büro Notizen ✓.db";
    notes(&folder.file(name));
    let sync = |args: &[&str]| {
        let mut command = crate::support::command(args);
        command.current_dir(folder.path());
        crate::support::said(command)
    };
    let pushed = sync(&["sync", name, "--remote", &server.db("app")]).expect(0);
    assert!(pushed.stdout.contains("Pushed 2 frames"), "{pushed:?}");
    sync(&["clone", &server.db("app"), "zwei te.db"]).expect(0);
    assert_eq!(texts(&folder.file("zwei te.db")), ["first"]);
}

#[test]
fn the_log_goes_to_standard_error_and_tells_generations_and_frames() {
    let (folder, server) = (Folder::new(), Server::start());
    notes(&folder.file("app.db"));
    let said =
        highwater(folder.path(), &format!("sync app.db -v --json --remote {}", server.db("app"))).expect(0);
    assert_eq!(said.json()["action"], "pushed");
    for line in said.stderr.lines() {
        let _: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    for field in ["generation", "frame_no", "durable_frame_num"] {
        assert!(said.stderr.contains(field), "{field}: {said:?}");
    }
    let quiet = highwater(folder.path(), "sync app.db").expect(0);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_damaged_metadata_file_is_one_warning_and_no_failure() {
    let (folder, server) = (Folder::new(), Server::start());
    notes(&folder.file("app.db"));
    let url = server.db("app");
    highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    std::fs::File::create(folder.file("app.db-info")).unwrap().write_all(b"garbage").unwrap();
    let said = highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    check("sync_healed", &said.all());
    assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    assert_eq!(highwater(folder.path(), "sync app.db").expect(0).stderr, "");
}
