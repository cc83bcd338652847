//! A driver that is served over a socket of its own, and takes as long as a test likes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use orlop::csi;
use orlop::csi::endpoint::Endpoint;
use orlop::csi::proto::identity_client::IdentityClient;
use orlop::csi::proto::identity_server::{Identity, IdentityServer};
use orlop::csi::proto::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, ProbeRequest, ProbeResponse,
};
use orlop::csi::socket::Socket;
use orlop::telemetry::metrics::Metrics;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A driver whose Probe takes as long as the test likes.
#[derive(Clone)]
pub(crate) struct Slow {
    pub(crate) entered: Arc<Semaphore>,
    pub(crate) released: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Identity for Slow {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse::default()))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Err(Status::internal("the disk is on fire"))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        self.entered.add_permits(1);
        let _released = self.released.acquire().await;
        Ok(Response::new(ProbeResponse::default()))
    }
}

/// A served driver.
pub(crate) struct Served {
    pub(crate) directory: TempDir,
    pub(crate) endpoint: Endpoint,
    pub(crate) driver: Slow,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) server: JoinHandle<Result<()>>,
}

impl Served {
    pub(crate) fn start(drain_limit: Duration) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let endpoint = Endpoint::at(directory.path().join("csi.sock")).expect("it is short");
        let driver = Slow {
            entered: Arc::new(Semaphore::new(0)),
            released: Arc::new(Semaphore::new(0)),
        };
        let metrics = Metrics::new();
        let shutdown = CancellationToken::new();
        let socket = Socket::bind(&endpoint).expect("the place is free");
        let routes = Routes::new(IdentityServer::new(driver.clone()));
        let server = tokio::spawn(csi::serve(
            socket,
            routes,
            metrics.clone(),
            shutdown.clone(),
            drain_limit,
        ));
        Self {
            directory,
            endpoint,
            driver,
            metrics,
            shutdown,
            server,
        }
    }

    pub(crate) async fn client(&self) -> IdentityClient<Channel> {
        IdentityClient::new(channel(&self.endpoint).await)
    }

    /// A Probe that has reached the driver and waits there.
    pub(crate) async fn slow_call(&self) -> JoinHandle<Result<Response<ProbeResponse>, Status>> {
        let mut client = self.client().await;
        let call = tokio::spawn(async move { client.probe(ProbeRequest {}).await });
        let entered = within(self.driver.entered.acquire()).await;
        entered.expect("it is never closed").forget();
        call
    }

    pub(crate) fn count(&self, method: &str, code: &str) -> u64 {
        let text = self.metrics.text().expect("the metrics print");
        let wanted =
            format!("orlop_rpc_duration_seconds_count{{method=\"{method}\",code=\"{code}\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&wanted)?.parse().ok())
            .unwrap_or_default()
    }
}

pub(crate) async fn channel(endpoint: &Endpoint) -> Channel {
    tonic::transport::Endpoint::from_shared(endpoint.to_string())
        .expect("tonic reads unix endpoints")
        .connect()
        .await
        .expect("somebody answers")
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens in time")
}

pub(crate) async fn until(claim: impl AsyncFn() -> bool) {
    within(async {
        while !claim().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) async fn refused(path: &Path) -> bool {
    UnixStream::connect(path).await.is_err()
}
