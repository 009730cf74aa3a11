//! `highwater serve --check`: everything that a start would need, tried without serving and without
//! changing anything.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use highwater_server::StoreUrl;
use serde_json::{Map, json};

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::settings::{Effective, Settings};

/// Tries everything, shows the settings in effect, and fails when something is wrong.
pub(super) fn check(effective: &Effective, out: &Output) -> Result<(), Failure> {
    let faults = faults(&effective.settings);
    if out.is_json() {
        let settings: Map<_, _> = effective
            .lines()
            .map(|(key, value, source)| {
                (
                    key.name.to_owned(),
                    json!({ "value": value, "source": source.to_string(), "about": key.about }),
                )
            })
            .collect();
        out.value(&json!({ "ok": faults.is_empty(), "settings": settings, "faults": faults }))?;
        return if faults.is_empty() { Ok(()) } else { Err(failure(&faults).told()) };
    }
    out.line(text(effective))?;
    if faults.is_empty() { out.line("# Everything is in order.") } else { Err(failure(&faults)) }
}

fn failure(faults: &[String]) -> Failure {
    Failure::new(Exit::Usage, "settings", faults.join("; "))
}

/// The settings as a file that would have the same effect, with the source of each.
fn text(effective: &Effective) -> String {
    let mut text = String::new();
    let mut section = "";
    for (key, value, source) in effective.lines() {
        let (within, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if within != section {
            section = within;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let line = match value {
            Some(value) => format!("{name} = {value}"),
            None => format!("# {name} is not set"),
        };
        text.push_str(&format!("{line:<40} # {source}\n"));
    }
    text
}

/// What would keep the server from starting, as sentences.
fn faults(settings: &Settings) -> Vec<String> {
    let mut faults = Vec::new();
    if let StoreUrl::Local(folder) = &settings.config.store
        && let Err((place, error)) = writable(folder)
    {
        faults.push(format!(
            "the store {} cannot be used: {} cannot be written to ({error})",
            folder.display(),
            place.display()
        ));
    }
    if let Some(Err(error)) = settings.config.tls.as_ref().map(highwater_server::TlsFiles::check) {
        faults.push(error.to_string());
    }
    if let Err(error) = settings.config.auth.check() {
        faults.push(error.to_string());
    }
    faults
}

/// Whether the folder can be written to or, if it does not exist, be made.
fn writable(folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    let absolute = std::path::absolute(folder).map_err(|error| (folder.to_owned(), error))?;
    let nearest = absolute.ancestors().find(|place| place.exists()).unwrap_or(&absolute).to_owned();
    if !nearest.is_dir() {
        return Err((nearest, io::ErrorKind::NotADirectory.into()));
    }
    // Permissions, read-only mounts and quotas: only making a file tells.
    let probe = nearest.join(format!(".highwater-check-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&probe).map(drop);
    let removed = made.and_then(|()| std::fs::remove_file(&probe));
    removed.map_err(|error| (nearest, error))
}
