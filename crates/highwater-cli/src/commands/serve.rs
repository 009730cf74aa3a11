//! `highwater serve`: the sync server.

mod check;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::Args;
use highwater_server::{Limits, Server, StoreUrl};
use tokio::net::TcpListener;

use crate::cli::Global;
use crate::failure::Failure;
use crate::logging;
use crate::output::Output;
use crate::settings::{self, Effective, Given, Settings};
use crate::signals::Stop;
use crate::system;

/// Run the sync server
///
/// Keeps every accepted change of every database in the store, a folder by default, and answers
/// `highwater sync` and the client library. A database comes into being with the first sync to its
/// name. The folder of each database is also a Litestream replica: the stock `litestream restore`
/// reads it.
///
/// Every setting can stand in a file (TOML), in the environment and on the command line. The command
/// line wins over the environment, the environment over the file, the file over the default.
/// docs/OPERATIONS.md lists all of them.
///
/// With a file of keys (--auth-keys) clients need a token: `highwater keygen` makes keys,
/// `highwater token create` makes tokens. Without keys the server listens on this machine only, unless
/// --insecure says that whoever can reach the address may read and write every database.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// Read settings from this file
    ///
    /// [env: HIGHWATER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check settings, store, certificates and keys, show what is in effect, and end
    #[arg(long)]
    check: bool,
    /// Where to listen; port 0 takes a free one and tells which [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where to keep the databases: a folder, file:///FOLDER, or memory: (gone at the end)
    /// [default: highwater-data]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Ask for tokens, and check them with the keys in this file
    #[arg(long, value_name = "FILE")]
    auth_keys: Option<String>,
    /// Listen on an address that other machines can reach without asking for tokens
    #[arg(long)]
    insecure: bool,
    /// How to log to standard error: text or json [default: text, json with --json]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Serve HTTPS with this certificate (PEM); a new one is taken up when the file changes
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Any other setting, for example limits.push_bytes="1 GiB"; may be given often
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// The variable that names the file with settings.
const CONFIG: &str = "HIGHWATER_CONFIG";

const EXAMPLES: &str = "\
Examples:
  highwater serve
  highwater serve --listen 127.0.0.1:9000 --store /var/lib/highwater
  highwater serve --config /etc/highwater.toml --check
  highwater serve --store memory: --listen 127.0.0.1:0 --json
  highwater serve --listen 0.0.0.0:8080 --auth-keys highwater.pub
  highwater serve --listen 0.0.0.0:8080 --insecure             # only on a network you trust

Ctrl-C or SIGTERM stops it: requests that it accepted are finished first.
Requests are logged to standard error; RUST_LOG=warn makes it quieter, -v tells more.";

impl Serve {
    pub(crate) fn run(self, global: &Global, out: &Output) -> Result<(), Failure> {
        // Read here: an empty variable counts as not set, as it does for every setting.
        let named = || std::env::var_os(CONFIG).filter(|name| !name.is_empty()).map(PathBuf::from);
        let file = self.config.clone().or_else(named);
        let effective = settings::load(file.as_deref(), self.flags()?)?;
        let address = address(&effective.settings)?;
        logging::start_server(global, effective.settings.log_format);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed("io", format!("the server could not be started: {error}")))?;
        if self.check {
            return check::check(&effective, out);
        }
        runtime.block_on(serve(address, effective, out))
    }

    /// What the command line sets.
    fn flags(&self) -> Result<Vec<Given>, Failure> {
        let mut given = Vec::new();
        let own = [
            ("--listen", "listen", &self.listen),
            ("--store", "store", &self.store),
            ("--tls-cert", "tls.cert", &self.tls_cert),
            ("--tls-key", "tls.key", &self.tls_key),
            ("--auth-keys", "auth.keys", &self.auth_keys),
            ("--log-format", "log.format", &self.log_format),
        ];
        for (flag, key, value) in own {
            given.extend(value.as_ref().map(|value| Given::flag(flag, key, value)));
        }
        if self.insecure {
            given.push(Given::flag("--insecure", "insecure", "true"));
        }
        for set in &self.set {
            let (key, value) = set.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--set {set:?} has no value"))
                    .hint("it looks like --set limits.push_bytes=\"1 GiB\"")
            })?;
            given.push(Given::flag("--set", key.trim(), value));
        }
        Ok(given)
    }
}

async fn serve(address: SocketAddr, effective: Effective, out: &Output) -> Result<(), Failure> {
    let mut config = effective.settings.config;
    config.auth.open_to_network = effective.settings.insecure;
    fit_open_files(&mut config.limits);
    let store = config.store.clone();
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let server = Server::open(config).await.map_err(Failure::from)?;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::failed("listen", format!("listening on {address} failed: {error}")).hint(
            "another program may use the port: choose another with --listen, or port 0 for any free one",
        )
    })?;
    let bound = listener.local_addr().map_err(|error| {
        Failure::failed("listen", format!("the address of the socket is not known: {error}"))
    })?;
    let stop = Stop::listen();
    announce(&format!("{scheme}://{bound}"), &store, out)?;
    system::notify("READY=1");
    let requested = async {
        stop.requested().await;
        system::notify("STOPPING=1");
    };
    server.serve(listener, requested).await.map_err(Failure::from)?;
    if !out.is_json() {
        out.line("Stopped; everything that was acknowledged is in the store.")?;
    }
    Ok(())
}

/// Files that the server needs besides its connections.
const OTHER_FILES: u64 = 256;

/// Connections are files: more of them than the system allows would leave none for the store.
fn fit_open_files(limits: &mut Limits) {
    let Some(files) = system::raise_open_files() else { return };
    let fit = usize::try_from(files.saturating_sub(OTHER_FILES).max(files / 2)).unwrap_or(usize::MAX);
    if fit < limits.connections {
        tracing::warn!(
            connections = fit,
            wanted = limits.connections,
            "the system allows {files} open files, so fewer connections; raise it (LimitNOFILE, ulimit -n)"
        );
        limits.connections = fit;
    }
}

/// The address to listen on, if that is allowed.
fn address(settings: &Settings) -> Result<SocketAddr, Failure> {
    let listen = &settings.listen;
    let usage = |why: String| {
        Failure::usage(format!("{listen:?} is not an address to listen on ({why})"))
            .hint("it looks like 127.0.0.1:8080 or [::1]:8080")
    };
    let addresses: Vec<_> = listen.to_socket_addrs().map_err(|error| usage(error.to_string()))?.collect();
    let address = *addresses.first().ok_or_else(|| usage("the name has no address".to_owned()))?;
    let guarded = settings.insecure || settings.config.auth.keys.is_some();
    if !guarded && !addresses.iter().all(|address| address.ip().is_loopback()) {
        return Err(Failure::usage(format!(
            "refusing to listen on {address}: other machines could reach it, and without keys no token is asked for, \
             so anyone who can reach it could read and write every database"
        ))
        .hint(
            "make keys and ask for tokens: highwater keygen, then --auth-keys highwater.pub; \
             or say --insecure if everyone on that network may do so",
        ));
    }
    Ok(address)
}

/// Says where the server is and what to try next.
fn announce(url: &str, store: &StoreUrl, out: &Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.value(&serde_json::json!({
            "listening": url,
            "store": store.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
        }));
    }
    out.line(format_args!(
        "Highwater {} is listening on {url}\n\
         Store: {store}\n\
         Try:   highwater sync app.db --remote {url}/app\n\
         Stop:  Ctrl-C",
        env!("CARGO_PKG_VERSION"),
    ))
}
