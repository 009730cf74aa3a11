//! The help texts, whole: the first thing that a stranger reads.

use crate::support::{Folder, check, highwater};

const COMMANDS: [&str; 14] = [
    "demo",
    "serve",
    "health",
    "sync",
    "clone",
    "status",
    "log",
    "conflicts",
    "query",
    "restore",
    "verify",
    "admin",
    "keygen",
    "token",
];

#[test]
fn the_help_of_the_whole_names_every_command_and_exit_code() {
    let folder = Folder::new();
    let long = highwater(folder.path(), "--help").expect(0);
    for command in COMMANDS {
        assert!(long.stdout.contains(command), "{command}");
    }
    check("help", &long.stdout);
    check("help_short", &highwater(folder.path(), "-h").expect(0).stdout);
}

#[test]
fn the_help_of_every_command_has_examples() {
    let folder = Folder::new();
    for command in COMMANDS {
        let long = highwater(folder.path(), &format!("{command} --help")).expect(0);
        assert!(long.stdout.contains("Examples:"), "{command}");
        assert!(long.stdout.lines().all(|line| line.chars().count() <= 100), "{command}: a line is too long");
        check(&format!("help_{command}"), &long.stdout);
        highwater(folder.path(), &format!("{command} -h")).expect(0);
    }
}

#[test]
fn the_help_of_what_is_done_with_tokens_has_examples() {
    let folder = Folder::new();
    for action in ["create", "inspect", "revoke"] {
        let long = highwater(folder.path(), &format!("token {action} --help")).expect(0);
        assert!(long.stdout.contains("Examples:"), "{action}");
        check(&format!("help_token_{action}"), &long.stdout);
    }
}

#[test]
fn the_help_of_what_is_done_with_conflicts_has_examples() {
    let folder = Folder::new();
    for action in ["list", "show", "resolve"] {
        let long = highwater(folder.path(), &format!("conflicts {action} --help")).expect(0);
        assert!(long.stdout.contains("Examples:"), "{action}");
        check(&format!("help_conflicts_{action}"), &long.stdout);
    }
}

#[test]
fn no_command_at_all_shows_the_help_and_is_wrong_usage() {
    let folder = Folder::new();
    let said = highwater(folder.path(), "").expect(2);
    assert!(said.stderr.contains("Usage: highwater"), "{said:?}");
    assert!(said.stderr.contains("highwater demo"), "{said:?}");
}

#[test]
fn the_version_is_told() {
    let folder = Folder::new();
    check("version", &highwater(folder.path(), "--version").expect(0).stdout);
}
