//! `highwater token revoke`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use highwater_auth::{Claims, Revoked, Timestamp, unverified};

use super::create::moment;
use super::given;
use crate::failure::{Failure, quoted};
use crate::output::Output;

/// Take a token back before its end
///
/// Adds a line with the token's name (jti) to a list, never the token itself. A server whose setting
/// auth.revoked names that list refuses the token within about a second.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Revoke {
    /// The list; it is made when it does not exist
    #[arg(long, value_name = "FILE")]
    list: PathBuf,
    /// The token, its name (jti), sub:NAME for all tokens of somebody, or - to read it from standard
    /// input [default: HIGHWATER_AUTH_TOKEN]
    #[arg(value_name = "TOKEN|JTI")]
    token: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  highwater token revoke --list revoked - < token
  highwater token revoke --list revoked 1f0c6e0c5f4f4c7a9d3c1b8a6e5d4c3b
  highwater token revoke --list revoked sub:alice
  highwater serve --auth-keys highwater.pub --set auth.revoked=revoked

A line may be removed again when the token has expired; the comment behind it says when.";

/// A line of the list.
struct Entry {
    text: String,
    /// What it is about, for a person.
    about: Option<String>,
}

impl Revoke {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        let entry = entry(&given(self.token)?)?;
        let added = add(&self.list, &entry).map_err(|error| {
            Failure::failed("io", format!("the list {} cannot be changed: {error}", self.list.display()))
                .hint("nothing was revoked; check the name and who may write to it")
        })?;
        if out.is_json() {
            return out
                .value(&serde_json::json!({ "revoked": entry.text, "list": self.list, "added": added }));
        }
        if added {
            out.line(format_args!("Revoked {} in {}", entry.text, quoted(&self.list)))
        } else {
            out.line(format_args!("{} was revoked already in {}", entry.text, quoted(&self.list)))
        }
    }
}

/// What to write for a token or a name.
fn entry(given: &str) -> Result<Entry, Failure> {
    if given.matches('.').count() != 2 {
        return checked(Entry { text: given.to_owned(), about: None });
    }
    let claims = unverified(given).map_err(|error| Failure::failed("token", error))?.claims;
    let Claims { id: Some(id), .. } = &claims else {
        return Err(Failure::failed(
            "token",
            "the token has no name (jti), so it cannot be revoked by itself",
        )
        .hint("revoke all tokens of its subject instead: highwater token revoke --list FILE sub:NAME"));
    };
    let end =
        claims.expires.map_or("without end".to_owned(), |end: Timestamp| format!("until {}", moment(end)));
    let plain: String = claims.subject.iter().flat_map(|subject| subject.escape_debug()).take(80).collect();
    checked(Entry { text: id.clone(), about: Some(format!("{plain}, {end}")) })
}

/// Only what the server will read as it is meant.
fn checked(entry: Entry) -> Result<Entry, Failure> {
    let one_line = !entry.text.chars().any(char::is_control);
    match Revoked::parse(&entry.text) {
        Ok(list) if list.count() == 1 && one_line && !entry.text.contains(" #") => Ok(entry),
        _ => Err(Failure::usage("what was given is neither a token, nor its name (jti), nor sub:NAME")),
    }
}

/// Adds the line unless it is there; says whether it was added.
fn add(path: &Path, entry: &Entry) -> io::Result<bool> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let of_line = |line: &str| line.split(" #").next().unwrap_or_default().trim() == entry.text;
    if text.lines().any(of_line) {
        return Ok(false);
    }
    file.seek(SeekFrom::End(0))?;
    let before = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let about = entry.about.as_ref().map(|about| format!(" # {about}")).unwrap_or_default();
    file.write_all(format!("{before}{}{about}\n", entry.text).as_bytes())?;
    file.sync_all()?;
    if let Some(folder) = path.parent() {
        // The name of a new list must survive a power cut, too; where folders cannot be opened, it does.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if let Ok(folder) = File::open(folder) {
            folder.sync_all()?;
        }
    }
    Ok(true)
}
