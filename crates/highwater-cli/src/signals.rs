//! Ctrl-C and SIGTERM, for the commands that run until they are told to stop.

/// Waits for the first request to stop. A second one ends the process at once, so that nobody has
/// to wait for a graceful end that takes too long.
pub(crate) async fn stop_requested() {
    wait().await;
    tokio::spawn(async {
        wait().await;
        crate::output::remark("stopped at once; what was not acknowledged is sent again next time");
        std::process::exit(130);
    });
}

#[cfg(unix)]
async fn wait() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

#[cfg(not(unix))]
async fn wait() {
    let _ = tokio::signal::ctrl_c().await;
}
