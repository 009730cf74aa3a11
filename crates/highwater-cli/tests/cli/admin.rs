//! `admin`: list, create, delete, undelete, stats.

use crate::support::{Folder, Server, check, highwater, notes, texts};

#[test]
fn a_database_is_listed_deleted_and_brought_back() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = &server.url;
    let run = |line: &str| highwater(folder.path(), &line.replace("SERVER", url));
    notes(&folder.file("app.db"));
    run("sync app.db --remote SERVER/team/app").expect(0);
    check("admin_create", &run("admin create SERVER team/new").expect(0).all());
    check("admin_list", &run("admin list SERVER").expect(0).all());
    check("admin_unasked", &run("admin delete SERVER team/app").expect(2).all());
    check("admin_delete", &run("admin delete SERVER team/app --yes").expect(0).all());
    check("admin_deleted_sync", &run("sync app.db").expect(1).all());
    check("admin_stats_deleted", &run("admin stats SERVER team/app").expect(0).all());
    check("admin_undelete", &run("admin undelete SERVER team/app").expect(0).all());
    run("sync app.db").expect(0);
    run("clone SERVER/team/app copy.db").expect(0);
    assert_eq!(texts(&folder.file("copy.db")), texts(&folder.file("app.db")));
    let stats = run("admin stats SERVER").expect(0).stdout;
    for line in ["Databases    2, 0 deleted\n", " in 1 file\n", "In memory    1 database\n"] {
        assert!(stats.contains(line), "{stats}");
    }
}

#[test]
fn verify_tells_which_databases_of_a_store_are_deleted() {
    let folder = Folder::new();
    let server = Server::with(&["--store", folder.file("data").to_str().unwrap()]);
    notes(&folder.file("app.db"));
    for name in ["kept", "gone"] {
        let remote = server.db(name);
        highwater(folder.path(), &format!("sync app.db --switch-remote --remote {remote}")).expect(0);
    }
    highwater(folder.path(), &format!("admin delete {} gone --yes", server.url)).expect(0);
    let said = highwater(folder.path(), "verify data").expect(0).stdout;
    let line = |name: &str| said.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line("gone").contains("; deleted ") && !line("kept").contains("deleted"), "{said}");
    let json = highwater(folder.path(), "verify data --json").expect(0).json();
    assert!(json["databases"][0]["deleted_ms"].is_u64() && json["databases"][1]["deleted_ms"].is_null());
}

#[test]
fn for_programs_it_is_json() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = &server.url;
    let run = |line: &str| highwater(folder.path(), &line.replace("SERVER", url));
    assert_eq!(run("admin list SERVER --json").expect(0).stdout, "");
    assert_eq!(run("admin create SERVER a --json").expect(0).json()["state"], "empty");
    notes(&folder.file("app.db"));
    run("sync app.db --remote SERVER/b").expect(0);
    let listed = run("admin list SERVER/ --json").expect(0).stdout;
    let states: Vec<serde_json::Value> = listed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["state"].clone())
        .collect();
    assert_eq!(states, ["empty", "live"]);
    assert_eq!(run("admin delete SERVER b -y --json").expect(0).json()["state"], "deleted");
    assert_eq!(run("admin stats SERVER b --json").expect(0).json()["events"][0]["event"], "deleted");
    assert_eq!(run("admin stats SERVER --json").expect(0).json()["deleted"], 1);
    assert_eq!(run("admin undelete SERVER b --json").expect(0).json()["state"], "live");
    let error = run("admin create SERVER b --json").expect(1).json();
    assert!(error["error"]["message"].as_str().unwrap().contains("there is a database b already"), "{error}");
}

#[test]
fn what_cannot_be_is_said_so() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = &server.url;
    let run = |line: &str| highwater(folder.path(), &line.replace("SERVER", url));
    check("admin_unknown", &run("admin delete SERVER nobody --yes").expect(1).all());
    assert!(run("admin create SERVER Wrong").expect(2).stderr.contains("not a database name"));
    assert!(run("admin list nonsense").expect(2).stderr.starts_with("error: "));
    run("admin list http://127.0.0.1:1").expect(4);
    run("admin").expect(2);
}
