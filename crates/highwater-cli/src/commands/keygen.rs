//! `highwater keygen`: the keys that tokens are made and checked with.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use highwater_auth::{KeyError, KeyPair, SigningKey};
use highwater_pages::durable::{self, Published};

use crate::failure::{Failure, quoted};
use crate::output::Output;

const PRIVATE: &str = "highwater.key";
const PUBLIC: &str = "highwater.pub";

/// Make the keys that tokens are made and checked with
///
/// Writes two files: highwater.key, the private key that makes tokens, and highwater.pub, the public
/// key that the server checks them with (`highwater serve --auth-keys highwater.pub`). The private key
/// need not be on the server. Existing files are not overwritten.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Keygen {
    /// The folder to write to; it is made when it does not exist
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Make one secret for HS256 instead: whoever checks tokens with it can make some, too
    #[arg(long)]
    hs256: bool,
    /// Overwrite existing files: tokens made with the old key are worth nothing then
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  highwater keygen
  highwater keygen --out /etc/highwater
  highwater keygen --hs256 --out secrets

docs/AUTHENTICATION.md tells how to change keys while a server runs.";

impl Keygen {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        let failed = |error: KeyError| Failure::failed("key", error);
        let (private, public_text) = if self.hs256 {
            (SigningKey::generate_secret().map_err(failed)?, None)
        } else {
            let pair = KeyPair::generate().map_err(failed)?;
            (pair.private, Some(pair.public_text))
        };
        let place = |name: &str| if self.out == Path::new(".") { name.into() } else { self.out.join(name) };
        let files: (PathBuf, PathBuf) = (place(PRIVATE), place(PUBLIC));
        if !self.force {
            let taken = [&files.0, &files.1].into_iter().find(|path| path.exists());
            taken.map_or(Ok(()), |path| Err(exists(path)))?;
        }
        // An error shows when the files are written.
        let _ = std::fs::create_dir_all(&self.out);
        self.write(&files.0, private.reveal(), 0o600)?;
        if let Some(text) = &public_text {
            self.write(&files.1, text, 0o644)?;
        }
        let public = public_text.map(|_| files.1);
        report(&files.0, public.as_deref(), private.algorithm(), out)
    }

    fn write(&self, path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
        match put(path, text, mode, self.force) {
            Ok(Published::Done) => Ok(()),
            Ok(Published::NameTaken) => Err(exists(path)),
            Err(error) => Err(Failure::failed("io", format!("writing {} failed: {error}", path.display()))
                .hint("choose a folder that you can write to, with --out")),
        }
    }
}

fn exists(path: &Path) -> Failure {
    Failure::failed("exists", format!("{} already exists and was not touched", path.display())).hint(
        "choose another folder with --out; --force overwrites it, and then every token made with it is worth nothing",
    )
}

/// Nobody else can read a private key at any moment: it is made with its permissions.
fn put(path: &Path, text: &str, mode: u32, force: bool) -> io::Result<Published> {
    let temp = durable::temp_path(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(&temp)?.write_all(text.as_bytes())?;
    if force
        && let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let published = durable::publish_new(&temp, path).map_err(io::Error::other);
    if !matches!(published, Ok(Published::Done)) {
        // It may be gone already.
        let _ = std::fs::remove_file(&temp);
    }
    published
}

fn report(private: &Path, public: Option<&Path>, algorithm: &str, out: &Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.value(&serde_json::json!({
            "private_key": private, "public_key": public, "algorithm": algorithm,
        }));
    }
    match public {
        Some(public) => {
            out.line(format_args!(
                "Private key: {}  (makes tokens; keep it to yourself)",
                private.display()
            ))?;
            out.line(format_args!("Public key:  {}  (checks tokens; for the server)", public.display()))?;
        }
        None => out.line(format_args!(
            "Secret: {}  (makes and checks tokens; for the server and whoever makes tokens)",
            private.display()
        ))?,
    }
    out.line(format_args!(
        "Next:   highwater serve --auth-keys {}\n        \
                 highwater token create --key {} --sub NAME --database DB --access create",
        quoted(public.unwrap_or(private)),
        quoted(private)
    ))
}
