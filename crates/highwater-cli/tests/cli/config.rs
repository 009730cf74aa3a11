//! Settings: file, environment, command line, and `serve --check`.

use crate::support::{Folder, Said, check, command, said};

fn run(folder: &Folder, args: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = command(["serve", "--check"]);
    command.args(args).envs(variables.iter().copied()).current_dir(folder.path());
    said(command)
}

#[allow(clippy::disallowed_methods, reason = "a file for one test")]
fn write(folder: &Folder, name: &str, text: &str) {
    std::fs::write(folder.file(name), text).unwrap();
}

#[test]
fn the_command_line_wins_over_the_environment_over_the_file() {
    let folder = Folder::new();
    write(
        &folder,
        "highwater.toml",
        "listen = \"127.0.0.1:1\"\nstore = \"a\"\n[limits]\npush_bytes = \"1 GiB\"\nopen_databases = 7\n",
    );
    let variables = [("HIGHWATER_STORE", "b"), ("HIGHWATER_LIMITS_PUSH_BYTES", "2 GiB")];
    let args = ["--config", "highwater.toml", "--store", "c", "--json"];
    let json = run(&folder, &args, &variables).expect(0).json();
    let of = |key: &str| (json["settings"][key]["value"].clone(), json["settings"][key]["source"].clone());
    assert_eq!(of("store"), ("\"c\"".into(), "--store".into()));
    assert_eq!(
        of("limits.push_bytes"),
        ("\"2 GiB\"".into(), "environment HIGHWATER_LIMITS_PUSH_BYTES".into())
    );
    assert_eq!(of("limits.open_databases"), ("7".into(), "highwater.toml, line 5".into()));
    assert_eq!(of("timeouts.grace"), ("\"30s\"".into(), "default".into()));
    assert_eq!(json["ok"], true);
}

#[test]
fn a_variable_that_is_empty_counts_as_not_set() {
    let folder = Folder::new();
    let empty = [("HIGHWATER_CONFIG", ""), ("HIGHWATER_STORE", "")];
    let json = run(&folder, &["--json"], &empty).expect(0).json();
    assert_eq!(json["settings"]["store"]["source"], "default");
    write(&folder, "a.toml", "store = \"a\"\n");
    let json = run(&folder, &["--json"], &[("HIGHWATER_CONFIG", "a.toml")]).expect(0).json();
    assert_eq!(json["settings"]["store"]["source"], "a.toml, line 1");
}

#[test]
fn check_prints_a_file_that_has_the_same_effect_and_starts_nothing() {
    let folder = Folder::new();
    let first = run(&folder, &["--set", "timeouts.grace=5s", "--listen", "127.0.0.1:9"], &[]).expect(0);
    check("serve_check", &first.stdout);
    assert!(!folder.file("highwater-data").exists(), "checking makes no store");
    write(&folder, "again.toml", &first.stdout);
    let again = run(&folder, &["--config", "again.toml"], &[]).expect(0);
    let values = |said: &Said| -> Vec<String> {
        said.stdout.lines().map(|line| line.split('#').next().unwrap().trim().to_owned()).collect()
    };
    assert_eq!(values(&first), values(&again));
}

#[test]
fn a_setting_that_does_not_exist_is_an_error_that_names_the_nearest() {
    let folder = Folder::new();
    write(&folder, "wrong.toml", "store = \"memory:\"\n\n[limits]\npush_byte = 1\n");
    let in_file = run(&folder, &["--config", "wrong.toml"], &[]).expect(2);
    check("serve_unknown_setting", &in_file.all());
    let variable = run(&folder, &[], &[("HIGHWATER_TIMEOUTS_HEADERS", "1")]).expect(2);
    assert!(variable.stderr.contains("timeouts.header"), "{variable:?}");
    let flag = run(&folder, &["--set", "lisen=x"], &[]).expect(2);
    assert!(flag.stderr.contains("the nearest is listen"), "{flag:?}");
}

#[test]
fn what_would_keep_the_server_from_starting_is_found_by_the_check() {
    let folder = Folder::new();
    write(&folder, "file", "");
    let said = run(&folder, &["--store", "file/below"], &[]).expect(2);
    assert!(said.stderr.contains("file cannot be written to"), "{said:?}");
    for args in [
        ["--config", "nowhere.toml"],
        ["--listen", "nonsense"],
        ["--listen", "0.0.0.0:0"],
        ["--set", "timeouts.grace=soon"],
        ["--set", "timeouts.grace"],
        ["--store", "s3://bucket"],
    ] {
        run(&folder, &args, &[]).expect(2);
    }
}

#[test]
fn the_annotated_file_names_every_setting_with_its_default_and_is_in_order() {
    let folder = Folder::new();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/highwater.toml");
    let all = |args: &[&str]| {
        let said = run(&folder, args, &[]).expect(0);
        serde_json::from_str::<serde_json::Value>(&said.stdout).unwrap()["settings"]
            .as_object()
            .unwrap()
            .clone()
    };
    let defaults = all(&["--store", "s", "--json"]);
    all(&["--config", path, "--store", "s", "--json"]);
    // With everything taken in that is only shown.
    let text = std::fs::read_to_string(path).unwrap();
    let shown = |line: &str| {
        let setting = line.trim_start_matches("# ");
        let word = setting.split(" = ").next().unwrap();
        let plain = setting.contains(" = ") && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if plain { setting.to_owned() } else { line.to_owned() }
    };
    let files = ["cert = ", "key = ", "keys = ", "audience = ", "revoked = ", "format = "];
    let whole: Vec<_> = text.lines().map(shown).collect();
    let kept: Vec<_> =
        whole.iter().filter(|line| !files.iter().any(|file| line.starts_with(file))).cloned().collect();
    write(&folder, "all.toml", &kept.join("\n"));
    let named = all(&["--config", "all.toml", "--store", "s", "--json"]);
    for (key, setting) in &named {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let line = whole.iter().find(|line| line.split(" = ").next() == Some(name));
        assert!(line.is_some(), "{section}.{name} is missing");
        if !["store", "limits.rate"].contains(&key.as_str()) {
            assert_eq!(setting["value"], defaults[key]["value"], "{key}: not the default");
        }
    }
}
