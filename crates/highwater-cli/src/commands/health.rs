//! `highwater health`: whether a server is ready, for containers and scripts.

use std::time::Duration;

use clap::Args;

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Ask a server whether it is ready
///
/// Asks for /readyz: the server tries its store. Exit code 0 when it is ready, 1 when it says that it
/// is not, 4 when it cannot be reached.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Health {
    /// The server
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Do not check the server's certificate: it is the same machine, under another name
    #[arg(long)]
    any_certificate: bool,
}

const EXAMPLES: &str = "\
Examples:
  highwater health
  highwater health https://sync.example.org
  highwater health https://127.0.0.1:8080 --any-certificate --timeout 2s";

impl Health {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed("io", format!("nothing could be started: {error}")))?;
        let (ready, body) = runtime.block_on(self.ask()).map_err(|error| {
            Failure::new(Exit::Offline, "offline", format!("{} could not be asked", self.url))
                .hint("is the server running, and is the URL right?")
                .caused_by(&error)
        })?;
        if !ready {
            return Err(Failure::failed("not_ready", format!("{} is not ready: {body}", self.url))
                .hint("the server's log says why"));
        }
        if out.is_json() { out.value(&serde_json::json!({ "ready": true })) } else { out.line("ready") }
    }

    async fn ask(&self) -> reqwest::Result<(bool, String)> {
        let client = reqwest::Client::builder()
            .timeout(self.timeout)
            .tls_danger_accept_invalid_certs(self.any_certificate)
            .no_proxy()
            .build()?;
        let answer = client.get(format!("{}/readyz", self.url.trim_end_matches('/'))).send().await?;
        Ok((answer.status().is_success(), answer.text().await?.trim().to_owned()))
    }
}
