//! The HTTP port for those who watch: `/metrics`, `/healthz`, `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::metrics::Metrics;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether calls can be answered now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// They can.
    Ready,
    /// They can not, for this reason.
    NotReady(String),
}

/// Tells the readiness; asked at every probe, so it must not block.
pub type Ready = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// Opens the port; port 0 takes any that is free.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("the address {address} could not be opened"))
}

/// Serves until the token is set.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    ready: Ready,
    shutdown: CancellationToken,
) -> Result<()> {
    let routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || readyz(ready())))
        .route("/metrics", get(async move || text(metrics).await));
    if let Ok(address) = listener.local_addr() {
        info!(%address, "serving metrics and probes");
    }
    tokio::select! {
        served = axum::serve(listener, routes) => served.context("the metrics port failed"),
        () = shutdown.cancelled() => Ok(()),
    }
}

fn readyz(readiness: Readiness) -> Response {
    match readiness {
        Readiness::Ready => "ok\n".into_response(),
        Readiness::NotReady(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
        }
    }
}

async fn text(metrics: Arc<Metrics>) -> Response {
    let text = tokio::task::spawn_blocking(move || metrics.text()).await;
    match text.context("a collector failed").flatten() {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn the_http_port_serves_metrics_and_probes() {
        let listener = bind(([127, 0, 0, 1], 0).into())
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shutdown = CancellationToken::new();
        let metrics = Metrics::new();
        metrics.calls();
        metrics.called("/csi.v1.Identity/Probe", "OK", Duration::from_millis(3));
        let open = CancellationToken::new();
        let gate = open.clone();
        let ready: Ready = Arc::new(move || {
            if gate.is_cancelled() {
                Readiness::Ready
            } else {
                Readiness::NotReady("pool fast is not open".to_owned())
            }
        });
        let server = tokio::spawn(serve(listener, metrics, ready, shutdown.clone()));
        let get = async |path: &str| {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: orlop\r\nConnection: close\r\n\r\n");
            stream
                .write_all(request.as_bytes())
                .await
                .expect("it reads");
            let mut answer = String::new();
            stream
                .read_to_string(&mut answer)
                .await
                .expect("it answers");
            answer
        };

        let health = get("/healthz").await;
        let before = get("/readyz").await;
        open.cancel();
        let after = get("/readyz").await;
        let metrics = get("/metrics").await;
        shutdown.cancel();

        assert!(health.starts_with("HTTP/1.1 200"), "{health}");
        assert!(before.starts_with("HTTP/1.1 503"), "{before}");
        assert!(before.ends_with("pool fast is not open\n"), "{before}");
        assert!(after.starts_with("HTTP/1.1 200"), "{after}");
        assert!(
            metrics.contains("content-type: application/openmetrics-text"),
            "{metrics}"
        );
        let bucket = "orlop_rpc_duration_seconds_bucket{le=\"0.005\",method=\"/csi.v1.Identity/Probe\",code=\"OK\"} 1";
        assert!(metrics.contains(bucket), "{metrics}");
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");
        tokio::time::timeout(Duration::from_secs(20), server)
            .await
            .expect("it ends in time")
            .expect("no panic")
            .expect("a clean end");
    }
}
