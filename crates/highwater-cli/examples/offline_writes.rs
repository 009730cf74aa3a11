//! A guestbook that works offline.
//!
//! Asks for an entry, writes it to a local SQLite file, prints all entries, and syncs.
//!
//! ```sh
//! RUST_LOG=highwater=debug cargo run --example offline_writes -p highwater-cli
//! ```
//!
//! | variable | default |
//! |---|---|
//! | `HIGHWATER_DB_PATH` | `guestbook.db` |
//! | `HIGHWATER_SYNC_URL` | none: a server is started in this process, with its store beside the database |
//! | `HIGHWATER_AUTH_TOKEN` | none |
//! | `RUST_LOG` | `warn`; `highwater=debug` tells what every sync sends |

#![allow(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::env;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use highwater::{Builder, Database, Error};
use highwater_server::{Config, Embedded, StoreUrl};
use tracing_subscriber::EnvFilter;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();

    let path = setting("HIGHWATER_DB_PATH").unwrap_or_else(|| "guestbook.db".to_owned());
    let mut builder = Builder::new(&path);
    if let Some(token) = setting("HIGHWATER_AUTH_TOKEN") {
        builder = builder.token(token);
    }
    // Kept until the end of `main`: dropping it stops the server.
    let _server = match setting("HIGHWATER_SYNC_URL") {
        Some(url) => {
            builder = builder.remote(url);
            None
        }
        None => {
            let server = embedded_server(Path::new(&path))?;
            println!("No HIGHWATER_SYNC_URL is set: syncing with a server in this process.");
            builder = builder.remote(format!("{}/guestbook", server.url())).switch_remote(true);
            Some(server)
        }
    };
    let db = builder.open()?;

    write_an_entry(&db)?;
    match db.sync_blocking() {
        Ok(outcome) => {
            println!("Synced: {} frame(s) sent, {} received.", outcome.pushed.frames, outcome.pulled.frames);
        }
        // Offline is a state, not a failure: the entry is safe, and the next run sends it.
        Err(offline @ Error::Offline { .. }) => println!("Not synced: {offline}."),
        Err(error) => return Err(error.into()),
    }
    println!("Done!");
    Ok(())
}

/// Everything here is plain SQLite, and needs no network.
fn write_an_entry(db: &Database) -> Result<()> {
    let connection = db.connect()?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS guest_book_entries (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    )?;

    print!("Write an entry in the guestbook: ");
    io::stdout().flush()?;
    let mut entry = String::new();
    io::stdin().read_line(&mut entry)?;
    match entry.trim() {
        "" => println!("\nNo entry was given, so none is written."),
        text => {
            connection.execute("INSERT INTO guest_book_entries (text) VALUES (?1)", [text])?;
        }
    }

    println!("Guest book entries:");
    let mut query = connection.prepare("SELECT text FROM guest_book_entries ORDER BY id")?;
    for text in query.query_map([], |row| row.get::<_, String>(0))? {
        println!("  {}", text?);
    }
    Ok(())
}

/// A server of our own: its store stands beside the database, and it takes the port of the last run
/// again when that is free, so that the database keeps its URL.
fn embedded_server(path: &Path) -> Result<Embedded> {
    let mut store = path.as_os_str().to_owned();
    store.push("-server");
    let config = || Config { store: StoreUrl::Local(store.clone().into()), ..Config::default() };
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let last_time: Option<SocketAddr> = Database::open(path)?.remote().and_then(|url| {
        let address = url.strip_prefix("http://")?.split('/').next()?.parse::<SocketAddr>().ok()?;
        address.ip().is_loopback().then_some(address)
    });
    if let Some(address) = last_time
        && let Ok(server) = Embedded::start(config(), address)
    {
        return Ok(server);
    }
    Ok(Embedded::start(config(), any_port)?)
}

/// A variable that is set and not empty.
fn setting(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
