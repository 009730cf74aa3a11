//! `log` and `restore`: what the server keeps, and getting any of it back.

use crate::support::{Folder, Server, add, check, highwater, notes, texts};

fn three_pushes(folder: &Folder, server: &Server) -> String {
    let url = server.db("app");
    let path = folder.file("app.db");
    notes(&path);
    highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    for text in ["second", "third"] {
        add(&path, text);
        highwater(folder.path(), "sync app.db").expect(0);
    }
    url
}

#[test]
fn the_log_lists_every_push_by_url_or_by_local_copy() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = three_pushes(&folder, &server);
    let said = highwater(folder.path(), &format!("log {url}")).expect(0);
    check("log", &said.all());
    assert_eq!(highwater(folder.path(), "log app.db").expect(0).stdout, said.stdout);

    let newest = highwater(folder.path(), "log app.db --limit 1 --json").expect(0).json();
    assert_eq!(newest["txid"], 3);
    assert_eq!(newest["pages"], 1);
    let after = highwater(folder.path(), "log app.db --after 1/2 --json").expect(0);
    assert_eq!(after.stdout.lines().count(), 2, "{after:?}");
    let nothing = highwater(folder.path(), "log app.db --after 1/4").expect(0);
    assert_eq!((nothing.stdout.as_str(), nothing.stderr.as_str()), ("", "Nothing there.\n"));
}

#[test]
fn every_position_can_be_restored_and_nothing_is_overwritten() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = three_pushes(&folder, &server);
    let said = highwater(folder.path(), &format!("restore {url} -o head.db")).expect(0);
    check("restore", &said.all());
    assert_eq!(texts(&folder.file("head.db")), ["first", "second", "third"]);
    for (place, rows) in [("1/2", 1), ("1/3", 2), ("1/4", 3)] {
        let file = format!("at-{rows}.db");
        let json = highwater(folder.path(), &format!("restore app.db -o {file} --at {place} --json"))
            .expect(0)
            .json();
        assert!(json["position"].as_str().unwrap().starts_with(place), "{json}");
        assert_eq!(texts(&folder.file(&file)).len(), rows);
    }
    let again = highwater(folder.path(), &format!("restore {url} -o head.db")).expect(1);
    check("restore_exists", &again.all());
    let unknown = highwater(folder.path(), &format!("restore {url} -o x.db --at 9/9")).expect(1);
    assert!(unknown.stderr.contains("highwater log"), "{unknown:?}");
    assert!(!folder.file("x.db").exists());
    highwater(folder.path(), &format!("restore {url} -o x.db --time 2001-01-01T00:00:00Z")).expect(1);
    highwater(folder.path(), &format!("restore {url} -o x.db --time 2101-01-01T00:00:00Z")).expect(0);
    assert_eq!(texts(&folder.file("x.db")).len(), 3);
}
