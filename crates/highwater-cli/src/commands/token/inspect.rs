//! `highwater token inspect`.

use std::path::PathBuf;

use clap::Args;
use highwater_auth::{Claims, Refused, Timestamp, Unverified, unverified};
use serde_json::json;

use super::create::{checking_keys, moment};
use super::given;
use crate::failure::Failure;
use crate::output::Output;

/// Show what a token says, and whether it is valid
///
/// Anyone who has a token can read it: it is signed, not encrypted. Without --key its signature is not
/// checked, and then what it says may be anyone's invention.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// The token, or - to read it from standard input [default: HIGHWATER_AUTH_TOKEN]
    #[arg(value_name = "TOKEN")]
    token: Option<String>,
    /// Check the signature with the keys in this file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  highwater token inspect                                      # the one in HIGHWATER_AUTH_TOKEN
  highwater token inspect - --key highwater.pub < token
  highwater token inspect --json | jq .claims.highwater

Exit code 1 says that it is not valid now, or not signed by the key.";

impl Inspect {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        let token = given(self.token)?;
        let refused = |refused: &Refused| Failure::failed("token", refused);
        let seen = unverified(&token).map_err(|error| refused(&error))?;
        let now = Timestamp::now();
        let in_time = seen.in_time(now);
        let signature = match &self.key {
            None => None,
            Some(path) => Some(checking_keys(path)?.signed(&token).map(drop)),
        };
        let fault = signature.clone().and_then(Result::err).or_else(|| in_time.clone().err());
        if out.is_json() {
            out.value(&json!({
                "claims": seen.claims,
                "algorithm": seen.algorithm,
                "key_id": seen.key_id,
                "valid_now": in_time.is_ok(),
                "signature": signature.as_ref().map(|result| if result.is_ok() { "right" } else { "wrong" }),
            }))?;
        } else {
            let checked = match &signature {
                None => "not checked (give the server's key with --key)".to_owned(),
                Some(Ok(())) => "right".to_owned(),
                Some(Err(error)) => format!("wrong: {error}"),
            };
            out.line(text(&seen, now, &checked))?;
        }
        fault.map_or(Ok(()), |fault| Err(refused(&fault).told()))
    }
}

fn text(seen: &Unverified, now: Timestamp, signature: &str) -> String {
    let Claims { subject, expires, not_before, issued, id, audience, grant } = &seen.claims;
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    let patterns: Vec<_> = grant.databases.iter().map(ToString::to_string).collect();
    let ends = match *expires {
        None => "never".to_owned(),
        Some(end) if end > now => format!("{} (in {})", moment(end), words(end, now)),
        Some(end) => format!("{} ({} ago)", moment(end), words(now, end)),
    };
    let mut rows = vec![
        ("subject", or_none(subject)),
        ("databases", if patterns.is_empty() { "none".to_owned() } else { patterns.join(", ") }),
        ("access", grant.access_in_words()),
        ("made", issued.map_or_else(|| "not said".to_owned(), moment)),
    ];
    rows.extend(not_before.map(|begins| ("begins", moment(begins))));
    rows.push(("ends", ends));
    rows.extend((!audience.is_empty()).then(|| ("audience", audience.join(", "))));
    rows.push(("name (jti)", or_none(id)));
    rows.push(("algorithm", seen.algorithm.clone()));
    rows.extend(seen.key_id.clone().map(|id| ("key", id)));
    rows.push((
        "valid now",
        seen.in_time(now).map_or_else(|error| format!("no: {error}"), |()| "yes".to_owned()),
    ));
    rows.push(("signature", signature.to_owned()));
    let lines: Vec<_> =
        rows.iter().map(|(name, value)| format!("{name:<11} {}", value.escape_debug())).collect();
    lines.join("\n")
}

/// The time between two moments, in its two largest units.
fn words(later: Timestamp, earlier: Timestamp) -> String {
    let text = humantime::format_duration(later.since(earlier)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
