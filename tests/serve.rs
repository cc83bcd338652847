//! Serves a driver of its own over a socket, and looks at what its clients and the kubelet get to see.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use orlop::csi::endpoint::Endpoint;
use orlop::csi::proto::identity_client::IdentityClient;
use orlop::csi::proto::identity_server::{Identity, IdentityServer};
use orlop::csi::proto::pluginregistration::registration_client::RegistrationClient;
use orlop::csi::proto::pluginregistration::{InfoRequest, RegistrationStatus};
use orlop::csi::proto::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, ProbeRequest, ProbeResponse,
};
use orlop::csi::socket::Socket;
use orlop::csi::{self, registration};
use orlop::telemetry::metrics::Metrics;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

const PATIENCE: Duration = Duration::from_secs(20);

/// A driver whose Probe takes as long as the test likes.
#[derive(Clone)]
struct Slow {
    entered: Arc<Semaphore>,
    released: Arc<Semaphore>,
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

struct Served {
    directory: TempDir,
    endpoint: Endpoint,
    driver: Slow,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    server: JoinHandle<Result<()>>,
}

impl Served {
    fn start(drain_limit: Duration) -> Self {
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

    async fn client(&self) -> IdentityClient<Channel> {
        IdentityClient::new(channel(&self.endpoint).await)
    }

    /// A Probe that has reached the driver and waits there.
    async fn slow_call(&self) -> JoinHandle<Result<Response<ProbeResponse>, Status>> {
        let mut client = self.client().await;
        let call = tokio::spawn(async move { client.probe(ProbeRequest {}).await });
        let entered = within(self.driver.entered.acquire()).await;
        entered.expect("it is never closed").forget();
        call
    }

    fn count(&self, method: &str, code: &str) -> u64 {
        let text = self.metrics.text().expect("the metrics print");
        let wanted =
            format!("orlop_rpc_duration_seconds_count{{method=\"{method}\",code=\"{code}\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&wanted)?.parse().ok())
            .unwrap_or_default()
    }
}

async fn channel(endpoint: &Endpoint) -> Channel {
    tonic::transport::Endpoint::from_shared(endpoint.to_string())
        .expect("tonic reads unix endpoints")
        .connect()
        .await
        .expect("somebody answers")
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens in time")
}

async fn until(claim: impl AsyncFn() -> bool) {
    within(async {
        while !claim().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn refused(path: &Path) -> bool {
    UnixStream::connect(path).await.is_err()
}

#[tokio::test]
async fn a_client_is_served_over_a_socket_of_mode_0600() {
    let served = Served::start(PATIENCE);

    let answer = served
        .client()
        .await
        .get_plugin_info(GetPluginInfoRequest {})
        .await;

    answer.expect("the driver answers");
    let metadata = fs::symlink_metadata(served.endpoint.path()).expect("it is there");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
}

#[tokio::test]
async fn a_second_server_is_refused_and_the_first_serves_on() {
    let served = Served::start(PATIENCE);

    let second = Socket::bind(&served.endpoint);

    let error = second.expect_err("the first one is alive").to_string();
    assert!(error.contains("another process serves"), "{error}");
    let answer = served
        .client()
        .await
        .get_plugin_info(GetPluginInfoRequest {})
        .await;
    answer.expect("the first one answers");
}

#[tokio::test]
async fn a_running_call_ends_well_after_shutdown() {
    let mut served = Served::start(PATIENCE);
    let call = served.slow_call().await;

    served.shutdown.cancel();
    until(async || refused(served.endpoint.path()).await).await;
    let early = tokio::time::timeout(Duration::from_millis(100), &mut served.server).await;
    assert!(early.is_err(), "it waits for the call");
    served.driver.released.add_permits(1);

    within(call)
        .await
        .expect("no panic")
        .expect("the call was let through");
    within(served.server)
        .await
        .expect("no panic")
        .expect("a clean end");
    assert!(!served.endpoint.path().exists(), "the socket is removed");
}

#[tokio::test]
async fn a_call_that_never_ends_is_given_up_at_the_limit() {
    let served = Served::start(Duration::from_millis(50));
    let call = served.slow_call().await;

    served.shutdown.cancel();

    within(served.server)
        .await
        .expect("no panic")
        .expect("a clean end");
    assert!(!call.is_finished());
}

#[tokio::test]
async fn every_call_is_counted_by_method_and_code() {
    let served = Served::start(PATIENCE);
    let mut client = served.client().await;

    client
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .expect("the driver answers");
    let failed = client
        .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
        .await;
    let call = served.slow_call().await;
    call.abort();

    assert_eq!(failed.expect_err("it fails").code(), Code::Internal);
    let counted = async || {
        served.count("/csi.v1.Identity/GetPluginInfo", "OK") == 1
            && served.count("/csi.v1.Identity/GetPluginCapabilities", "INTERNAL") == 1
            && served.count("/csi.v1.Identity/Probe", "CANCELLED") == 1
    };
    until(counted).await;
}

#[tokio::test]
async fn a_failed_call_is_one_line_with_its_method_and_reason() {
    let log = tempfile::NamedTempFile::new().expect("a file can be made");
    let lines = Arc::new(log.reopen().expect("it is there"));
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines)
        .with_ansi(false);
    let _logging = tracing::subscriber::set_default(subscriber.finish());
    let served = Served::start(PATIENCE);
    let mut client = served.client().await;

    client
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .expect("the driver answers");
    let failed = client
        .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
        .await;

    failed.expect_err("it fails");
    let log = fs::read_to_string(log.path()).expect("it is there");
    let calls: Vec<_> = log.lines().filter(|line| line.contains("call{")).collect();
    assert_eq!(calls.len(), 1, "{log}");
    for part in [
        "WARN",
        "csi.method=\"/csi.v1.Identity/GetPluginCapabilities\"",
        "code=\"INTERNAL\"",
        "error=\"the disk is on fire\"",
    ] {
        assert!(calls[0].contains(part), "{log}");
    }
}

#[tokio::test]
async fn no_more_than_256_calls_run_at_once() {
    let served = Served::start(PATIENCE);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let client = served.client().await;
        for _ in 0..90 {
            let mut client = client.clone();
            calls.spawn(async move { client.probe(ProbeRequest {}).await });
        }
    }
    until(async || served.driver.entered.available_permits() >= 256).await;

    let mut client = served.client().await;
    let next = client.get_plugin_info(GetPluginInfoRequest {});
    let answered = tokio::time::timeout(Duration::from_millis(100), next).await;
    assert!(answered.is_err(), "all places are taken");
    served.driver.released.add_permits(1);

    for answer in within(calls.join_all()).await {
        answer.expect("every call has its turn");
    }
}

#[tokio::test]
async fn a_method_that_a_client_makes_up_is_no_label() {
    let served = Served::start(PATIENCE);
    let mut client = RegistrationClient::new(channel(&served.endpoint).await);
    let mut grpc = tonic::client::Grpc::new(channel(&served.endpoint).await);
    let codec = tonic_prost::ProstCodec::<ProbeRequest, ProbeResponse>::default();

    let elsewhere = client.get_info(InfoRequest {}).await;
    grpc.ready().await.expect("somebody answers");
    let path = "/made.up/Method".parse().expect("it is a path");
    let made_up = grpc.unary(Request::new(ProbeRequest {}), path, codec).await;

    assert_eq!(elsewhere.expect_err("not here").code(), Code::Unimplemented);
    assert_eq!(made_up.expect_err("nowhere").code(), Code::Unimplemented);
    let counted = async || {
        served.count("unknown", "UNIMPLEMENTED") == 1
            && served.count("/pluginregistration.Registration/GetInfo", "UNIMPLEMENTED") == 1
    };
    until(counted).await;
}

#[test]
fn the_path_of_the_registration_is_an_authority_as_the_kubelet_writes_it() {
    let registry = Path::new("/var/lib/kubelet/plugins_registry");
    let socket = registration::endpoint(registry).expect("the path is short");

    let written = socket.path().to_string_lossy().replace('/', "%2F");

    assert!(written.parse::<http::uri::Authority>().is_ok(), "{written}");
}

#[tokio::test]
async fn the_kubelet_learns_the_driver_and_a_refusal_ends_the_registration() {
    let served = Served::start(PATIENCE);
    let endpoint = registration::endpoint(served.directory.path()).expect("it is short");
    let socket = Socket::bind(&endpoint).expect("the place is free");
    let driver = served.endpoint.clone();
    let (metrics, shutdown) = (served.metrics.clone(), served.shutdown.clone());
    let registered = tokio::spawn(async move {
        registration::serve(socket, &driver, metrics, shutdown, PATIENCE).await
    });
    let mut kubelet = RegistrationClient::new(channel(&endpoint).await);

    let info = kubelet
        .get_info(InfoRequest {})
        .await
        .expect("it answers")
        .into_inner();
    let status = |plugin_registered, error: &str| RegistrationStatus {
        plugin_registered,
        error: error.to_owned(),
    };
    let success = kubelet.notify_registration_status(status(true, "")).await;
    assert!(!registered.is_finished());
    let failure = kubelet
        .notify_registration_status(status(false, "name taken"))
        .await;

    assert!(endpoint.path().ends_with("orlop@csi.orlop.dev-reg.sock"));
    assert_eq!(
        (info.r#type.as_str(), info.name.as_str()),
        ("CSIPlugin", "csi.orlop.dev")
    );
    assert_eq!(Path::new(&info.endpoint), served.endpoint.path());
    assert_eq!(info.supported_versions, ["1.0.0"]);
    success.expect("it is heard");
    failure.expect("it is heard");
    let error = within(registered)
        .await
        .expect("no panic")
        .expect_err("it was refused");
    assert!(error.to_string().contains("name taken"), "{error}");
    assert!(!served.server.is_finished() && !served.shutdown.is_cancelled());
}

#[tokio::test]
async fn the_registration_ends_well_at_shutdown() {
    let served = Served::start(PATIENCE);
    let endpoint = registration::endpoint(served.directory.path()).expect("it is short");
    let socket = Socket::bind(&endpoint).expect("the place is free");
    served.shutdown.cancel();

    let (metrics, shutdown) = (served.metrics.clone(), served.shutdown.clone());
    let ended = registration::serve(socket, &served.endpoint, metrics, shutdown, PATIENCE);

    within(ended).await.expect("nobody refused");
}
