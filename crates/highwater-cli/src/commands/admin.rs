//! `highwater admin`: which databases a server has, creating, deleting and undeleting them.

mod print;

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};
use highwater::{AdminDatabase, DbName};

use crate::failure::Failure;
use crate::output::{Bytes, Output};
use crate::remote::Access;

/// Databases asked for at once.
const BATCH: u32 = 100;

/// Administer a server: list, create, delete and undelete databases
///
/// Needs a token that allows `admin`; a server without keys takes it from its own machine. SERVER is
/// the server's URL, without the name of a database.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Admin {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "\
Examples:
  highwater admin list http://127.0.0.1:8080
  highwater admin create http://127.0.0.1:8080 team/app
  highwater admin delete http://127.0.0.1:8080 team/app
  highwater admin undelete http://127.0.0.1:8080 team/app
  highwater admin stats http://127.0.0.1:8080 --json";

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
enum What {
    /// List the databases, deleted ones included
    List(Server),
    /// Reserve a name: whoever may write to it may make its first push
    Create(One),
    /// Take a database away from everybody; it can be undeleted for a while
    Delete(Delete),
    /// Bring a deleted database back as it was
    Undelete(One),
    /// Tell about one database, or about the server
    Stats(Stats),
}

#[derive(Debug, Args)]
struct Server {
    /// The server's URL, for example http://127.0.0.1:8080
    #[arg(value_name = "SERVER")]
    server: String,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
struct One {
    #[command(flatten)]
    server: Server,
    /// The database's name, for example team/app
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
struct Delete {
    #[command(flatten)]
    one: One,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Stats {
    #[command(flatten)]
    server: Server,
    /// The database's name; without it, the server as a whole
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Server {
    fn admin(&self) -> Result<highwater::Admin, Failure> {
        self.access.admin(&self.server)
    }

    /// A command that does something with that database.
    fn command(&self, what: &str, name: &DbName) -> String {
        format!("highwater {what} {} {name}", self.server)
    }
}

impl One {
    fn parts(&self) -> Result<(highwater::Admin, DbName), Failure> {
        Ok((self.server.admin()?, parsed(&self.name)?))
    }
}

fn parsed(name: &str) -> Result<DbName, Failure> {
    name.parse().map_err(Failure::usage)
}

impl Admin {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        match self.what {
            What::List(server) => list(&server, out),
            What::Create(one) => create(&one, out),
            What::Delete(delete) => delete.run(out),
            What::Undelete(one) => undelete(&one, out),
            What::Stats(stats) => stats.run(out),
        }
    }
}

fn list(server: &Server, out: &Output) -> Result<(), Failure> {
    let admin = server.admin()?;
    let mut table = print::Table::new(out);
    let mut after: Option<String> = None;
    loop {
        let page = admin.databases_blocking(after.as_deref(), BATCH)?;
        page.databases.iter().try_for_each(|database| table.print(database))?;
        after = page.databases.last().map(|database| database.name.clone());
        // A page without entries cannot say where to go on, whatever it claims.
        if !page.more || after.is_none() {
            return table.end();
        }
    }
}

fn create(one: &One, out: &Output) -> Result<(), Failure> {
    let (admin, name) = one.parts()?;
    let database = admin.create_blocking(&name)?;
    if out.is_json() {
        return out.value(&database);
    }
    let server = one.server.server.trim_end_matches('/');
    out.line(format_args!(
        "Created {name}. Whoever may write to it makes its first push:\n  highwater sync FILE --remote {server}/{name}"
    ))
}

fn undelete(one: &One, out: &Output) -> Result<(), Failure> {
    let (admin, name) = one.parts()?;
    let database = admin.undelete_blocking(&name)?;
    if out.is_json() {
        return out.value(&database);
    }
    let place = print::place(&database);
    out.line(format_args!("{name} is there, at position {place} with {}.", Bytes(database.bytes)))
}

impl Delete {
    fn run(&self, out: &Output) -> Result<(), Failure> {
        let (admin, name) = self.one.parts()?;
        if !self.yes {
            let found = admin.database_blocking(&name)?.database;
            self.confirm(&found)?;
        }
        let database = admin.delete_blocking(&name)?;
        if out.is_json() {
            return out.value(&database);
        }
        let until = print::optional_time(database.removed_after_ms);
        out.line(format_args!(
            "Deleted {name}. Until {until} it can be brought back:\n  {}",
            self.one.server.command("admin undelete", &name)
        ))
    }

    /// Has a person type the name; a script says `--yes`.
    fn confirm(&self, found: &AdminDatabase) -> Result<(), Failure> {
        let refused = |what: &str| Failure::usage(what).hint("to delete without being asked: --yes");
        if !io::stdin().is_terminal() {
            return Err(refused("deleting asks for confirmation, and there is nobody to ask"));
        }
        let mut err = io::stderr().lock();
        // A question that cannot be shown is answered by nobody, and nothing is deleted.
        let _ = write!(
            err,
            "This takes {} ({}, changed {}) away from everybody who syncs with it.\nType its name to go on: ",
            found.name,
            Bytes(found.bytes),
            print::optional_time(found.updated_ms),
        );
        let _ = err.flush();
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        if read.is_ok() && answer.trim() == found.name {
            return Ok(());
        }
        Err(refused("that is not the name; nothing was deleted"))
    }
}

impl Stats {
    fn run(&self, out: &Output) -> Result<(), Failure> {
        let admin = self.server.admin()?;
        match &self.name {
            Some(name) => print::detail(&admin.database_blocking(&parsed(name)?)?, out),
            None => print::stats(&admin.stats_blocking()?, out),
        }
    }
}
