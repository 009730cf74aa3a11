//! Ctrl-C and SIGTERM, for the commands that run until they are told to stop.

/// Listens for requests to stop from the moment it is made: make it before anybody is told that the
/// program runs, or a request that comes at once ends the process the hard way.
#[derive(Debug)]
pub(crate) struct Stop {
    #[cfg(unix)]
    signals: Option<[tokio::signal::unix::Signal; 2]>,
}

impl Stop {
    /// Needs a running tokio runtime.
    pub(crate) fn listen() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let both = signal(SignalKind::interrupt())
                .and_then(|interrupt| Ok([interrupt, signal(SignalKind::terminate())?]));
            let signals = both
                .inspect_err(
                    |error| tracing::warn!(%error, "signals cannot be handled; stopping is not graceful"),
                )
                .ok();
            Self { signals }
        }
        #[cfg(not(unix))]
        Self {}
    }

    /// Waits for the first request to stop. A second one ends the process at once, so that nobody
    /// has to wait for a graceful end that takes too long.
    pub(crate) async fn requested(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            crate::output::remark("stopped at once; what was not acknowledged is sent again next time");
            std::process::exit(130);
        });
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        let Some([interrupt, terminate]) = &mut self.signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
