//! `highwater token`: what clients show to a server that asks for it.

mod create;
mod inspect;
mod revoke;

use std::io::Read;
use std::path::Path;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::output::Output;

/// The longest text that is read as a token from standard input, in bytes.
const LONGEST: u64 = 64 << 10;
/// The variable that clients take their token from.
const VARIABLE: &str = "HIGHWATER_AUTH_TOKEN";

/// Make, look at and revoke tokens
///
/// A token says who somebody is, which databases it is for and what may be done with them, until when; a
/// key proves it. It is a JSON Web Token, and other programs may make them too:
/// docs/AUTHENTICATION.md says what must stand in them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(create::Create),
    Inspect(inspect::Inspect),
    Revoke(revoke::Revoke),
}

const EXAMPLES: &str = "\
Examples:
  highwater token create --key highwater.key --sub alice --database 'team/*' --access read,write
  highwater token inspect --key highwater.pub < token
  highwater token revoke --list revoked 1f0c6e0c5f4f4c7a9d3c1b8a6e5d4c3b";

impl Token {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        match self.action {
            Action::Create(create) => create.run(out),
            Action::Inspect(inspect) => inspect.run(out),
            Action::Revoke(revoke) => revoke.run(out),
        }
    }
}

/// The token (or its name) as an argument, from standard input for `-`, or from the environment.
fn given(argument: Option<String>) -> Result<String, Failure> {
    let text = match argument.as_deref() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().lock().take(LONGEST).read_to_string(&mut text).map_err(|error| {
                Failure::failed("io", format!("standard input cannot be read as text: {error}"))
            })?;
            text
        }
        Some(text) => text.to_owned(),
        None => std::env::var(VARIABLE).unwrap_or_default(),
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::usage("no token was given")
            .hint(format!("name it, pipe it in and say -, or set {VARIABLE}")));
    }
    Ok(text.to_owned())
}

/// A file of keys.
fn read_key(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::failed("key", format!("the key {} cannot be read: {error}", path.display()))
            .hint("make one with highwater keygen, or check the name and who may read it")
    })
}

/// A file of keys that cannot be used.
fn bad_key(path: &Path, error: &highwater_auth::KeyError) -> Failure {
    Failure::failed("key", format!("the key {} cannot be used: {error}", path.display()))
}
