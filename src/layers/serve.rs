//! Answering on a port: little of an answer is kept ready for a connection that takes no more just now.

use axum::Router;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

/// How much of an answer is kept ready: more of it would leave the caches of the processor before it is sent.
const READY: usize = 64 << 10;

/// What becomes of requests that are under way at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtTheEnd {
    /// They are finished.
    Finish,
    /// They are broken off.
    BreakOff,
}

/// Answers with `routes` until `shutdown`.
pub async fn serve<L>(
    mut listener: L,
    routes: Router,
    shutdown: CancellationToken,
    at_the_end: AtTheEnd,
) where
    L: Listener,
{
    let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
    http.http1().max_buf_size(READY);
    let open = GracefulShutdown::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let service = TowerToHyperService::new(routes.clone());
        let served = http.serve_connection(TokioIo::new(stream), service);
        let served = open.watch(served.into_owned());
        let broken_off = match at_the_end {
            AtTheEnd::Finish => CancellationToken::new(),
            AtTheEnd::BreakOff => shutdown.clone(),
        };
        tokio::spawn(async move {
            tokio::select! {
                // Whoever hung up has their reasons.
                _ = served => {}
                () = broken_off.cancelled() => {}
            }
        });
    }
    drop(listener);
    open.shutdown().await;
}
