//! The one token that tells every server of this process to stop.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A token that is set by the first SIGTERM or SIGINT; later ones change nothing.
///
/// Must be called inside a runtime, before anything serves: from then on the signals no longer end the process.
pub fn on_signal() -> Result<CancellationToken> {
    let mut terminate =
        signal(SignalKind::terminate()).context("SIGTERM could not be listened for")?;
    let mut interrupt =
        signal(SignalKind::interrupt()).context("SIGINT could not be listened for")?;
    let token = CancellationToken::new();
    let shutdown = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "shutting down");
        shutdown.cancel();
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_sets_the_token() {
        let token = on_signal().expect("signals can be listened for");
        assert!(!token.is_cancelled());

        kill_process(getpid(), Signal::TERM).expect("a process may signal itself");

        tokio::time::timeout(Duration::from_secs(10), token.cancelled())
            .await
            .expect("the token is set");
    }
}
