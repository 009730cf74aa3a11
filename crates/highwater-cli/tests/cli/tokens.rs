//! Keys and tokens: made, shown, used against a server that asks for them, and taken back.

use std::path::Path;

use serde_json::Value;

use crate::support::{
    Folder, Said, Server, add, check, command, highwater, notes, said, said_with_input, texts, until,
};

/// A server that asks for tokens, and the folder where its operator makes them.
struct Guarded {
    folder: Folder,
    server: Server,
}

impl Guarded {
    fn start() -> Self {
        let folder = Folder::new();
        highwater(folder.path(), "keygen").expect(0);
        let keys = folder.file("highwater.pub");
        let revoked = format!("auth.revoked={}", folder.file("revoked").display());
        let server =
            Server::with(&["--store", "memory:", "--auth-keys", keys.to_str().unwrap(), "--set", &revoked]);
        Self { folder, server }
    }

    /// A token, as a script would get it.
    fn token(&self, rest: &str) -> String {
        let made =
            highwater(self.folder.path(), &format!("token create --key highwater.key {rest}")).expect(0);
        made.stdout.trim_end_matches('\n').to_owned()
    }

    fn run(&self, token: &str, line: &str) -> Said {
        let mut command = command(line.split_whitespace());
        command.current_dir(self.folder.path());
        if !token.is_empty() {
            command.env("HIGHWATER_AUTH_TOKEN", token);
        }
        said(command)
    }
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777
}

#[test]
fn keys_are_made_once_and_never_overwritten_by_accident() {
    let folder = Folder::new();
    check("keygen", &highwater(folder.path(), "keygen").expect(0).stdout);
    let key = std::fs::read_to_string(folder.file("highwater.key")).unwrap();
    #[cfg(unix)]
    assert_eq!((mode(&folder.file("highwater.key")), mode(&folder.file("highwater.pub"))), (0o600, 0o644));
    let again = highwater(folder.path(), "keygen").expect(1);
    assert!(
        again.stderr.contains("highwater.key already exists") && again.stderr.contains("--force"),
        "{again:?}"
    );
    std::fs::remove_file(folder.file("highwater.key")).unwrap();
    highwater(folder.path(), "keygen").expect(1);
    let forced = highwater(folder.path(), "keygen --force --json").expect(0).json();
    assert_eq!(forced["algorithm"], "EdDSA");
    assert_ne!(std::fs::read_to_string(folder.file("highwater.key")).unwrap(), key);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "temporary files are left");
    let nowhere = highwater(folder.path(), "keygen --out highwater.pub").expect(1);
    assert!(nowhere.stderr.contains("--out"), "{nowhere:?}");
}

#[test]
fn a_token_goes_to_standard_output_alone_and_what_it_says_to_standard_error() {
    let folder = Folder::new();
    highwater(folder.path(), "keygen").expect(0);
    let line =
        "token create --key highwater.key --sub alice --database app --database team/* --access read,write";
    let made = highwater(folder.path(), line).expect(0);
    assert_eq!(made.stdout.lines().count(), 1);
    assert_eq!(made.stdout.trim().split('.').count(), 3);
    assert!(!made.stderr.contains(made.stdout.trim()));
    check("token_create", &made.stderr);
    let json = highwater(folder.path(), &format!("{line} --audience here --json")).expect(0).json();
    let claims = &json["claims"];
    assert_eq!(
        claims["highwater"],
        serde_json::json!({"databases": ["app", "team/*"], "access": ["read", "write"]})
    );
    assert_eq!(claims["aud"], serde_json::json!(["here"]));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 90 * 86_400);
    let forever = highwater(folder.path(), &format!("{line} --expires never")).expect(0);
    assert!(forever.stderr.contains("warning: it is valid for ever"), "{forever:?}");
    for wrong in [
        "--sub a --database app --access reed",
        "--sub a --database APP --access read",
        "--sub a --access read",
        "--sub a --database app",
        "--database app --access read",
        "--sub a --database app --access read --expires soon",
        "--sub a --database app --access read --expires 0s",
    ] {
        highwater(folder.path(), &format!("token create --key highwater.key {wrong}")).expect(2);
    }
    let public = highwater(folder.path(), &line.replace("highwater.key", "highwater.pub")).expect(1);
    assert!(public.stderr.contains("public key, which signs nothing"), "{public:?}");
    let missing = highwater(folder.path(), &line.replace("highwater.key", "no.key")).expect(1);
    assert!(missing.stderr.contains("highwater keygen"), "{missing:?}");
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_warned_about() {
    let folder = Folder::new();
    highwater(folder.path(), "keygen --hs256").expect(0);
    let path = folder.file("highwater.key");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let made = highwater(folder.path(), "token create --key highwater.key --sub a --access admin").expect(0);
    assert!(made.stderr.contains("chmod 600"), "{made:?}");
}

#[test]
fn a_token_is_shown_with_its_times_and_its_signature() {
    let folder = Folder::new();
    highwater(folder.path(), "keygen").expect(0);
    let line = "token create --key highwater.key --sub alice --database app --access read --expires 2h";
    let token = highwater(folder.path(), line).expect(0).stdout;
    let inspect = |args: &str| {
        said_with_input(
            {
                let mut command = command(format!("token inspect - {args}").split_whitespace());
                command.current_dir(folder.path());
                command
            },
            &token,
        )
    };
    check("token_inspect", &inspect("--key highwater.pub").expect(0).stdout);
    let unchecked = inspect("").expect(0);
    assert!(unchecked.stdout.contains("not checked"), "{unchecked:?}");
    let other = folder.file("other");
    std::fs::create_dir(&other).unwrap();
    highwater(&other, "keygen").expect(0);
    let wrong = inspect("--key other/highwater.pub").expect(1);
    assert!(wrong.stdout.contains("wrong: the token is not signed"), "{wrong:?}");
    let json: Value =
        serde_json::from_str(&inspect("--key other/highwater.pub --json").expect(1).stdout).unwrap();
    assert_eq!((&json["signature"], &json["valid_now"]), (&"wrong".into(), &true.into()));
    let none = highwater(folder.path(), "token inspect").expect(2);
    assert!(none.stderr.contains("HIGHWATER_AUTH_TOKEN"), "{none:?}");
    let garbage = highwater(folder.path(), "token inspect garbage").expect(1);
    assert!(garbage.stderr.contains("not a token"), "{garbage:?}");
    let of_environment = {
        let mut command = command(["token", "inspect"]);
        command.env("HIGHWATER_AUTH_TOKEN", token.trim());
        said(command).expect(0)
    };
    assert!(of_environment.stdout.contains("alice"), "{of_environment:?}");
}

#[test]
fn a_client_syncs_with_the_right_token_and_is_told_what_is_wrong_with_another() {
    let guarded = Guarded::start();
    let (path, url) = (guarded.folder.file("app.db"), guarded.server.db("team/app"));
    notes(&path);
    let sync = format!("sync app.db --remote {url}");
    let missing = guarded.run("", &sync).expect(1);
    check("token_missing", &missing.all());
    let create = guarded.token("--sub alice --database team/* --access create");
    guarded.run(&create, &sync).expect(0);
    let reader = guarded.token("--sub bob --database team/* --access read");
    guarded.run(&reader, &format!("clone {url} copy.db")).expect(0);
    assert_eq!(texts(&guarded.folder.file("copy.db")), ["first"]);
    guarded.run(&reader, "sync copy.db").expect(0);
    guarded.run(&reader, "log copy.db").expect(0);
    add(&guarded.folder.file("copy.db"), "from a reader");
    let refused = guarded.run(&reader, "sync copy.db").expect(1);
    check("token_read_only", &refused.all());
    let json = guarded.run(&reader, "sync copy.db --json").expect(1).json();
    assert_eq!(json["error"]["code"], "forbidden");
    assert_eq!(texts(&guarded.folder.file("copy.db")).len(), 2, "nothing is lost");
    let elsewhere = guarded.token("--sub carol --database other --access create");
    let elsewhere = guarded.run(&elsewhere, &sync).expect(1);
    assert!(elsewhere.stderr.contains("the token of carol is not for team/app"), "{elsewhere:?}");
    let wrong = guarded.run("not.a.token", &sync).expect(1);
    assert!(wrong.stderr.contains("not a token"), "{wrong:?}");
    let writer = guarded.token("--sub dave --database team/* --access write");
    guarded.run(&writer, "sync copy.db").expect(0);
    notes(&guarded.folder.file("new.db"));
    let new =
        guarded.run(&writer, &format!("sync new.db --remote {}", guarded.server.db("team/new"))).expect(1);
    assert!(new.stderr.contains("does not allow create"), "{new:?}");
}

#[test]
fn a_refused_token_is_not_tried_again() {
    let guarded = Guarded::start();
    notes(&guarded.folder.file("app.db"));
    let began = std::time::Instant::now();
    let url = guarded.server.db("app");
    guarded.run("", &format!("sync app.db --timeout 30s --remote {url}")).expect(1);
    guarded.run("", &format!("sync app.db --watch --remote {url}")).expect(1);
    assert!(began.elapsed().as_secs() < 10, "it took {:?}", began.elapsed());
}

#[test]
fn a_revoked_token_ends_within_seconds_and_the_list_never_holds_it() {
    let guarded = Guarded::start();
    let url = guarded.server.db("app");
    notes(&guarded.folder.file("app.db"));
    let token = guarded.token("--sub alice --database app --access create");
    guarded.run(&token, &format!("sync app.db --remote {url}")).expect(0);
    let other = guarded.token("--sub alice --database app --access create");
    let revoked = guarded.run(&token, "token revoke --list revoked").expect(0);
    let list = || std::fs::read_to_string(guarded.folder.file("revoked")).unwrap();
    assert!(
        revoked.stdout.starts_with("Revoked ") && list().contains("# alice, until 2"),
        "{revoked:?} {}",
        list()
    );
    for part in token.split('.') {
        assert!(!list().contains(part));
    }
    until("the token's end", || guarded.run(&token, "sync app.db").code == 1);
    let told = guarded.run(&token, "sync app.db").expect(1);
    assert!(told.stderr.contains("revoked"), "{told:?}");
    guarded.run(&other, "sync app.db").expect(0);
    let again = guarded.run(&token, "token revoke --list revoked --json").expect(0).json();
    assert_eq!(again["added"], false);
    highwater(guarded.folder.path(), "token revoke --list revoked sub:alice").expect(0);
    assert_eq!(list().lines().count(), 2);
    until("the end of all of alice's", || guarded.run(&other, "sync app.db").code == 1);
    for wrong in ["#", "sub:"] {
        highwater(guarded.folder.path(), &format!("token revoke --list revoked {wrong}")).expect(2);
    }
}

#[test]
fn a_server_with_keys_may_listen_on_every_address() {
    let folder = Folder::new();
    highwater(folder.path(), "keygen").expect(0);
    let keys = folder.file("highwater.pub");
    let server =
        Server::with(&["--store", "memory:", "--listen", "0.0.0.0:0", "--auth-keys", keys.to_str().unwrap()]);
    assert_eq!(server.stop(), 0);
    let missing = highwater(folder.path(), "serve --check --store memory: --auth-keys nowhere").expect(2);
    assert!(missing.stderr.contains("reading nowhere failed"), "{missing:?}");
    highwater(folder.path(), "serve --store memory: --listen 127.0.0.1:0 --auth-keys nowhere").expect(1);
}
