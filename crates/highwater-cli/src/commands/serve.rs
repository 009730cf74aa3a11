//! `highwater serve`: the sync server.

use std::net::{SocketAddr, ToSocketAddrs};

use clap::Args;
use highwater_server::{Config, Server, StoreUrl};
use tokio::net::TcpListener;

use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Stop;

/// Run the sync server
///
/// Keeps every accepted change of every database in the store, a folder by default, and answers
/// `highwater sync` and the client library. A database comes into being with the first sync to its
/// name. The folder of each database is also a Litestream replica: the stock `litestream restore`
/// reads it.
///
/// Authentication does not exist yet, so the server listens on this machine only, unless --insecure
/// says that whoever can reach the address may read and write every database.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one and tells which
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where to keep the databases: a folder, file:///FOLDER, or memory: (gone at the end)
    #[arg(long, value_name = "STORE", default_value = "./highwater-data")]
    store: String,
    /// Listen on an address that other machines can reach, although there is no authentication
    #[arg(long)]
    insecure: bool,
}

const EXAMPLES: &str = "\
Examples:
  highwater serve
  highwater serve --listen 127.0.0.1:9000 --store /var/lib/highwater
  highwater serve --store memory: --listen 127.0.0.1:0 --json
  highwater serve --listen 0.0.0.0:8080 --insecure             # only on a network you trust

Ctrl-C or SIGTERM stops it: requests that it accepted are finished first.
Requests are logged to standard error; RUST_LOG=warn makes it quieter, -v tells more.";

impl Serve {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        let address = self.address()?;
        let store: StoreUrl = self.store.parse().map_err(Failure::usage)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed("io", format!("the server could not be started: {error}")))?;
        runtime.block_on(self.serve(address, store, out))
    }

    async fn serve(&self, address: SocketAddr, store: StoreUrl, out: &Output) -> Result<(), Failure> {
        let server = Server::open(Config { store: store.clone(), ..Config::default() })
            .await
            .map_err(Failure::from)?;
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Failure::failed("listen", format!("listening on {address} failed: {error}")).hint(
                "another program may use the port: choose another with --listen, or port 0 for any free one",
            )
        })?;
        let bound = listener.local_addr().map_err(|error| {
            Failure::failed("listen", format!("the address of the socket is not known: {error}"))
        })?;
        let stop = Stop::listen();
        announce(bound, &store, out)?;
        server.serve(listener, stop.requested()).await.map_err(Failure::from)?;
        if !out.is_json() {
            out.line("Stopped; everything that was acknowledged is in the store.")?;
        }
        Ok(())
    }

    /// The address to listen on, if that is allowed.
    fn address(&self) -> Result<SocketAddr, Failure> {
        let usage = |why: String| {
            Failure::usage(format!("{:?} is not an address to listen on ({why})", self.listen))
                .hint("it looks like 127.0.0.1:8080 or [::1]:8080")
        };
        let addresses: Vec<_> =
            self.listen.to_socket_addrs().map_err(|error| usage(error.to_string()))?.collect();
        let address = *addresses.first().ok_or_else(|| usage("the name has no address".to_owned()))?;
        if !self.insecure && !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(Failure::usage(format!(
                "refusing to listen on {address}: other machines could reach it, and there is no authentication yet, \
                 so anyone who can reach it could read and write every database"
            ))
            .hint(
                "listen on 127.0.0.1 behind a proxy or tunnel that authenticates; \
                 or say --insecure if everyone on that network may do so",
            ));
        }
        Ok(address)
    }
}

/// Says where the server is and what to try next.
fn announce(bound: SocketAddr, store: &StoreUrl, out: &Output) -> Result<(), Failure> {
    let url = format!("http://{bound}");
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
