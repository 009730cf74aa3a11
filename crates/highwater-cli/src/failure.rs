//! How a command fails: an exit code, a stable name, a sentence, and apart from it what to do next.
//!
//! Text goes to standard error. With `--json` the same goes to standard output as
//! `{"error":{"code","message","hint"}}`, so that a program reads one stream only.

use std::error::Error as _;
use std::fmt;
use std::process::ExitCode;

use highwater::{Error, ErrorCode, ErrorKind};
use serde::Serialize;

use crate::output::{Output, remark};

/// What kind of failure the caller sees; documented in the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// There is nobody left to do it for.
    Done = 0,
    /// It did not work.
    Failure = 1,
    /// It was called wrongly.
    Usage = 2,
    /// Both sides changed the database.
    Conflict = 3,
    /// The server could not be reached.
    Offline = 4,
}

/// Why a command ended without doing its work.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failure {
    #[serde(skip)]
    exit: Exit,
    /// A stable name, in snake case.
    code: &'static str,
    /// What happened, to what.
    message: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// What lies behind it, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
    /// With code `conflict`: positions, pages and tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<Box<highwater::ConflictDetail>>,
    /// With code `conflict`: where the two changes meet, if the server said it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    conflicts: Box<[highwater::Conflict]>,
    /// All that there is to tell has been told, or nobody is there to be told.
    #[serde(skip)]
    silent: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, code: &'static str, message: impl fmt::Display) -> Self {
        Self {
            exit,
            code,
            message: message.to_string(),
            hint: None,
            causes: Vec::new(),
            conflict: None,
            conflicts: Box::default(),
            silent: false,
        }
    }

    /// An ordinary failure, exit code 1.
    pub(crate) fn failed(code: &'static str, message: impl fmt::Display) -> Self {
        Self::new(Exit::Failure, code, message)
    }

    /// A mistake of the caller's, exit code 2.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// The reader of standard output went away. That is no error.
    pub(crate) fn closed_pipe() -> Self {
        Self::new(Exit::Done, "output", "standard output was closed").told()
    }

    /// Makes it say nothing: a report with everything in it has been printed already.
    pub(crate) fn told(self) -> Self {
        Self { silent: true, ..self }
    }

    /// Adds what to do next.
    pub(crate) fn hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// Adds the chain of errors behind it, as far as the message does not tell it already.
    pub(crate) fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !self.message.contains(&text) && self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// The sentence.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The kind of failure.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    /// Tells the person, or the program, and gives the exit code.
    pub(crate) fn report(&self, out: &Output) -> ExitCode {
        if self.silent {
            return ExitCode::from(self.exit as u8);
        }
        if out.is_json() {
            // When standard output is closed too, the exit code is all that is left.
            let _ = out.value(&serde_json::json!({ "error": self }));
        } else {
            remark(format_args!("error: {}", self.message));
            for cause in &self.causes {
                remark(format_args!("  because: {cause}"));
            }
            if let Some(hint) = &self.hint {
                remark(format_args!("hint: {}", hint.replace('\n', "\n      ")));
            }
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Conflict => Exit::Conflict,
            ErrorKind::Offline => Exit::Offline,
            ErrorKind::Usage => Exit::Usage,
            _ => Exit::Failure,
        };
        let exit = match &error {
            // Most of all: a name that no database can have.
            Error::Server { code: ErrorCode::BadRequest, .. } => Exit::Usage,
            _ => exit,
        };
        let (code, message, hint) = describe(&error);
        let mut failure = Self::new(exit, code, message);
        failure.hint = hint;
        if let Error::Conflict { detail, conflicts, .. } = &error {
            failure.conflicts = conflicts.clone().into_boxed_slice();
            failure.conflict = Some(detail.clone());
        }
        match error.source() {
            Some(source) => failure.caused_by(source),
            None => failure,
        }
    }
}

impl From<highwater_server::Error> for Failure {
    fn from(error: highwater_server::Error) -> Self {
        let failure = Self::failed("server", &error);
        match error.source() {
            Some(source) => failure.caused_by(source),
            None => failure,
        }
    }
}

/// Splits an error of the library, one sentence with its next step, into the two lines that a person
/// reads on a terminal. What has no entry here keeps the library's sentence.
fn describe(error: &Error) -> (&'static str, String, Option<String>) {
    let (code, message, hint) = match error {
        Error::Offline { remote, reason } => (
            "offline",
            format!("the server at {remote} could not be reached ({reason})"),
            "local work goes on, and the next sync catches up; is the server running, and is the URL right?"
                .to_owned(),
        ),
        Error::Conflict { db, summary, advice, .. } => (
            "conflict",
            format!(
                "both this device and another have changed {} since the last sync: {summary}; nothing was pushed and nothing was lost",
                db.display()
            ),
            advice.clone(),
        ),
        Error::CannotMerge { db, object, reason, advice } => (
            "cannot_merge",
            format!(
                "both this device and another have changed {} since the last sync, and that cannot be merged: {}{reason}; nothing was pushed and nothing was lost",
                db.display(),
                object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default(),
            ),
            advice.clone(),
        ),
        Error::UnknownMerge { remote, message } => (
            "unknown_merge",
            format!("{remote}: {message}"),
            format!("see what there is: highwater conflicts list {remote} --all"),
        ),
        Error::Stranger { db, remote, advice } => (
            "stranger",
            format!(
                "{} already has content that does not come from {remote}, so it was not touched",
                db.display()
            ),
            advice.clone(),
        ),
        Error::OtherRemote { db, recorded, given } => (
            "other_remote",
            format!("{} is synced with {recorded}, not with {given}", db.display()),
            format!("to switch it: highwater sync {} --remote {given} --switch-remote", quoted(db)),
        ),
        Error::NoRemote { db } => (
            "no_remote",
            format!("{} has no remote yet", db.display()),
            format!("name one once: highwater sync {} --remote URL", quoted(db)),
        ),
        Error::UnknownDatabase { remote } => (
            "unknown_database",
            format!("there is no database at {remote}"),
            format!("check the name, or create it from a local file: highwater sync FILE --remote {remote}"),
        ),
        Error::Deleted { remote } => (
            "deleted",
            format!("the database at {remote} was deleted on the server; the local file is whole, and work goes on"),
            "to bring it back: highwater admin undelete SERVER NAME; or sync this copy to another name with --switch-remote"
                .to_owned(),
        ),
        Error::Exists { path } => (
            "exists",
            format!("{} already exists and was not touched", path.display()),
            "choose another name, or move the file away".to_owned(),
        ),
        Error::UnknownPosition { remote, message } => (
            "unknown_position",
            format!("{remote}: {message}"),
            format!("see what there is: highwater log {remote}"),
        ),
        Error::Unauthenticated { remote, message } => (
            "unauthenticated",
            format!("{remote} asks for a valid token: {message}"),
            "set one with --token or HIGHWATER_AUTH_TOKEN".to_owned(),
        ),
        Error::Forbidden { remote, message } => (
            "forbidden",
            format!("{remote} refused: {message}"),
            "ask whoever runs the server for a token that allows it; `highwater token inspect` shows what yours allows"
                .to_owned(),
        ),
        Error::Server { remote, code: ErrorCode::BadRequest, message, .. } => {
            return ("bad_request", format!("the server does not accept {remote}: {message}"), None);
        }
        other => return (code_of(other), other.to_string(), None),
    };
    (code, message, Some(hint))
}

fn code_of(error: &Error) -> &'static str {
    match error {
        Error::InvalidRemote(_) => "invalid_remote",
        Error::NotHighwater { .. } => "not_highwater",
        Error::PageSize { .. } => "page_size",
        Error::SyncRunning { .. } => "sync_running",
        Error::Busy { .. } => "busy",
        Error::Server { .. } => "server",
        Error::BadAnswer { .. } => "bad_answer",
        Error::Local(_) => "local",
        Error::Sqlite { .. } => "sqlite",
        Error::Io { .. } => "io",
        Error::Stopped => "stopped",
        _ => "failed",
    }
}

/// A path as it would be typed into a shell.
pub(crate) fn quoted(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ':' | ',' | '@');
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::quoted;

    #[test]
    fn commands_in_hints_can_be_pasted() {
        assert_eq!(quoted(Path::new("/tmp/app.db")), "/tmp/app.db");
        assert_eq!(quoted(Path::new("my notes.db")), "'my notes.db'");
        assert_eq!(quoted(Path::new("it's.db")), r"'it'\''s.db'");
    }
}
