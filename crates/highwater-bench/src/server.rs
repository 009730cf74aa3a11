//! The role `server`: Highwater's server over a folder, with all defaults, which make every accepted
//! push durable before it is acknowledged.

use std::path::Path;

use anyhow::{Context, Result};
use highwater_server::{Config, Embedded, StoreUrl};
use serde::{Deserialize, Serialize};

use crate::process::{self, Process, Usage};

/// What a server is asked.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    /// What it has used; the peak begins anew afterwards.
    Usage,
}

/// Serves until standard input ends.
pub(crate) fn run(store: &Path) -> Result<()> {
    let config = Config { store: StoreUrl::Local(store.to_path_buf()), ..Config::default() };
    let server = Embedded::start(config, ([127, 0, 0, 1], 0).into())?;
    process::say(&server.addr())?;
    process::answer(|question| match question {
        Question::Usage => {
            let usage = Usage::now();
            Usage::reset_peak();
            Ok(usage)
        }
    })?;
    Ok(server.stop()?)
}

/// A server in a process of its own.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    pub(crate) address: std::net::SocketAddr,
}

impl Server {
    pub(crate) fn start(store: &Path) -> Result<Self> {
        let mut process = Process::start(&["server".as_ref(), store.as_ref()])?;
        let address = process.hear().context("the server did not start")?;
        Ok(Self { process, address })
    }

    /// What it has used since it was last asked.
    pub(crate) fn usage(&mut self) -> Result<Usage> {
        self.process.ask(&Question::Usage)
    }
}
