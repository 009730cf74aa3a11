//! `highwater token create`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use highwater_auth::{Access, Claims, KeySet, MAX_TOKEN, Pattern, SigningKey, Timestamp};

use super::{bad_key, read_key};
use crate::failure::Failure;
use crate::output::{Output, remark, time};

/// Make a token
///
/// Prints the token alone to standard output, and what it says to standard error. The server never sees it
/// before it is used, and keeps no list of tokens: note its name (jti) if you may want to revoke it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Create {
    /// The private key, or the secret, as `highwater keygen` writes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Whom it is for; stands in the server's log
    #[arg(long, value_name = "NAME")]
    sub: String,
    /// Which databases: a name, NAME/* for all below it, or * for all; may be given often
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    database: Vec<Pattern>,
    /// What it allows: read, write (and read), create (and write), admin (the server, no database)
    #[arg(long, value_name = "LIST", value_delimiter = ',', required = true)]
    access: Vec<Access>,
    /// How long it is valid, or never to let it have no end
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = lifetime)]
    expires: Lifetime,
    /// For which servers: those whose auth.audience is this; may be given often
    #[arg(long, value_name = "NAME")]
    audience: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  highwater token create --key highwater.key --sub alice --database app --access create
  highwater token create --key highwater.key --sub report --database '*' --access read --expires 1y
  highwater token create --key highwater.key --sub ops --access admin --expires 12h > token
  HIGHWATER_AUTH_TOKEN=$(highwater token create …) highwater sync app.db";

/// How long a token is valid; `None`: it has no end.
#[derive(Debug, Clone, Copy)]
struct Lifetime(Option<Duration>);

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    let lifetime = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if lifetime < Duration::from_secs(1) {
        return Err("it would have ended already".to_owned());
    }
    Ok(Lifetime(Some(lifetime)))
}

impl Create {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        self.check()?;
        let key = SigningKey::parse(&read_key(&self.key)?).map_err(|error| bad_key(&self.key, &error))?;
        warn_if_open(&self.key);
        let now = Timestamp::now();
        let mut claims = Claims::new(&self.sub, now);
        claims.expires = self.expires.0.map(|lifetime| now.after(lifetime));
        claims.audience = self.audience;
        claims.grant.databases = self.database;
        claims.grant.access = self.access.into_iter().collect();
        let token = key.sign(&claims).map_err(|error| bad_key(&self.key, &error))?;
        if token.reveal().len() > MAX_TOKEN {
            return Err(Failure::usage(format!("the token would be longer than {MAX_TOKEN} bytes"))
                .hint("name fewer databases: NAME/* stands for all below NAME"));
        }
        if out.is_json() {
            return out.value(&serde_json::json!({ "token": token.reveal(), "claims": claims }));
        }
        tell(&claims);
        out.line(token.reveal())
    }

    fn check(&self) -> Result<(), Failure> {
        if self.sub.trim().is_empty() {
            return Err(Failure::usage("--sub is empty").hint("name whoever or whatever will use the token"));
        }
        let of_databases = self.access.iter().any(|access| *access != Access::Admin);
        if of_databases && self.database.is_empty() {
            return Err(Failure::usage("the token would be for no database")
                .hint("say which: --database app, --database 'team/*' or --database '*'"));
        }
        Ok(())
    }
}

/// What the token says, for the person who made it.
fn tell(claims: &Claims) {
    let patterns: Vec<_> = claims.grant.databases.iter().map(ToString::to_string).collect();
    let databases = if patterns.is_empty() { "no database".to_owned() } else { patterns.join(", ") };
    remark(format_args!(
        "Token of {} for {databases}: {}",
        claims.subject.as_deref().unwrap_or_default(),
        claims.grant.access_in_words()
    ));
    match claims.expires {
        Some(end) => remark(format_args!("Valid until {}", moment(end))),
        None => remark(
            "warning: it is valid for ever, so only revoking it or changing keys takes it back; --expires gives it an end",
        ),
    }
    remark(format_args!("Its name, to revoke it by: {}", claims.id.as_deref().unwrap_or_default()));
}

/// A moment as text.
pub(super) fn moment(at: Timestamp) -> String {
    time(i64::try_from(at.0.saturating_mul(1000)).unwrap_or(i64::MAX).min(MAX_SHOWN))
}

/// The last millisecond of the year 9999: nothing later can be written.
const MAX_SHOWN: i64 = 253_402_300_799_000;

/// A private key that others can read is everybody's.
fn warn_if_open(path: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = path.metadata()
        && std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
    {
        remark(format_args!(
            "warning: others on this machine can read the key; chmod 600 {}",
            crate::failure::quoted(path)
        ));
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Keys that check tokens, for [`super::inspect`].
pub(super) fn checking_keys(path: &Path) -> Result<KeySet, Failure> {
    KeySet::parse(&read_key(path)?).map_err(|error| bad_key(path, &error))
}
