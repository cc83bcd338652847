//! Serving until the process is told to stop: on a socket for all who may open it, on a port for those whom TLS lets in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tower::limit::ConcurrencyLimitLayer;
use tracing::{info, warn};

use super::observe::Observe;
use super::socket::Socket;
use crate::telemetry::metrics::Metrics;
use crate::tls;

/// How many calls run at once; the others wait.
const CALLS: usize = 256;
/// How long nobody is accepted after accepting failed, as it does when descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the token is set, then accepts nobody, gives running calls `drain_limit` to end, and removes the socket.
///
/// Calls that are still running then are abandoned, with a warning; that is no error.
pub async fn serve(
    socket: Socket,
    routes: Routes,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    drain_limit: Duration,
) -> Result<()> {
    let Socket { listener, file } = socket;
    let clients = UnixListenerStream::new(listener).then(async |client| {
        if let Err(error) = &client {
            warn!(%error, "a client could not be accepted");
            tokio::time::sleep(PAUSE).await;
        }
        client
    });
    info!(socket = %file.path().display(), "serving");
    serve_to(clients, routes, metrics, shutdown, drain_limit).await
}

/// The same on a port, over TLS, for those whom the configuration allows.
pub async fn serve_over_tls(
    listener: TcpListener,
    config: ServerConfig,
    routes: Routes,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    drain_limit: Duration,
) -> Result<()> {
    if let Ok(address) = listener.local_addr() {
        info!(%address, "serving over TLS");
    }
    let clients = tls::listen(listener, config);
    serve_to(clients, routes, metrics, shutdown, drain_limit).await
}

async fn serve_to<C>(
    clients: impl Stream<Item = io::Result<C>> + Send,
    routes: Routes,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    drain_limit: Duration,
) -> Result<()>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let served = Server::builder()
        .layer(Observe::new(metrics))
        .layer(ConcurrencyLimitLayer::new(CALLS))
        .add_routes(routes)
        .serve_with_incoming_shutdown(clients, shutdown.cancelled());
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain_limit).await;
    };
    tokio::select! {
        served = served => served.context("the server failed"),
        () = overdue => {
            warn!(limit = ?drain_limit, "calls that are still running are abandoned");
            Ok(())
        }
    }
}
