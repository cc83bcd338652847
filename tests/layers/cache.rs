//! One layer cache of a test, and what a client sees of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use orlop::layers::metrics::Metrics;
use orlop::layers::settings::Settings;
use orlop::layers::{self, Doors as Sockets};
use prometheus_client::registry::Registry;
use reqwest::{Client, Response};
use tempfile::TempDir;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::upstream::Upstream;

/// A cache that stops when it is dropped.
pub(crate) struct Cache {
    /// The base of all its addresses.
    pub(crate) url: String,
    folder: PathBuf,
    client: Client,
    registry: Registry,
    runtime: Option<Runtime>,
    _stop: DropGuard,
    kept_folder: Option<TempDir>,
}

/// What a client sees of an answer.
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    /// The body, or how it broke off.
    pub(crate) body: Result<Vec<u8>, String>,
}

/// Where a folder of a cache, or a content store of containerd, has a blob.
pub(crate) fn blob_in(folder: &Path, digest: &str) -> PathBuf {
    folder.join("blobs").join(digest.replace(':', "/"))
}

/// Puts a blob there.
pub(crate) fn put_in(folder: &Path, digest: &str, bytes: &[u8]) -> PathBuf {
    let file = blob_in(folder, digest);
    std::fs::create_dir_all(file.parent().expect("it lies in a folder")).expect("it is ours");
    std::fs::write(&file, bytes).expect("it is ours");
    file
}

/// Settings in which `registry.test` is the given upstream.
pub(crate) fn settings(upstream: &Upstream, folder: PathBuf) -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().expect("it is an address"),
        peer_listen: None,
        advertise: None,
        certificates: None,
        seeds: Vec::new(),
        zone: String::new(),
        cache: folder,
        quota_mib: 1024,
        upstreams: vec![
            format!("registry.test={}", upstream.url),
            format!("docker.io={}", upstream.url),
        ],
        upstream_mib_per_second: None,
        upstream_requests_per_second: None,
        peers_mib_per_second: None,
        peer_mib_per_second: None,
        credentials: None,
        image_credential_provider_config: None,
        image_credential_provider_bin_dir: None,
        content: None,
        containerd: None,
        namespace: "default".to_owned(),
        anyone: false,
        tag_seconds: 10,
    }
}

impl Cache {
    /// A cache of `registry.test` in a folder of its own.
    pub(crate) async fn of(upstream: &Upstream) -> Self {
        Self::with(upstream, |_| {}).await
    }

    /// The same with some settings changed.
    pub(crate) async fn with(upstream: &Upstream, change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut settings = settings(upstream, folder.path().to_owned());
        change(&mut settings);
        let mut cache = Self::start(settings).await;
        cache.kept_folder = Some(folder);
        cache
    }

    /// A cache with these settings, on a port of its own.
    pub(crate) async fn start(settings: Settings) -> Self {
        Self::behind(settings, None).await
    }

    /// A cache whose peers come through these doors. It has a runtime of its own, so that it can be killed.
    pub(crate) async fn behind(settings: Settings, doors: Option<Doors>) -> Self {
        // What the caches say, when asked for by RUST_LOG; a second call finds it set up.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let stop = CancellationToken::new();
        let folder = settings.cache.clone();
        let (started, url) = tokio::sync::oneshot::channel();
        let serving = stop.clone();
        runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("it listens");
            started.send(address).expect("the test waits");
            let doors = doors.map(Doors::open);
            layers::serve(settings, listener, doors, metrics, serving)
                .await
                .expect("it serves");
        });
        let cache = Self {
            url: format!("http://{}", url.await.expect("it starts")),
            folder,
            client: client(),
            registry,
            runtime: Some(runtime),
            _stop: stop.drop_guard(),
            kept_folder: None,
        };
        // It listens before it serves.
        assert_eq!(cache.get("/v2/").await.status, 200);
        cache
    }

    /// The runtime that it runs on.
    pub(crate) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it was not killed")
    }

    /// Ends it as a kill would: no connection is finished, nobody is told.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Stops it as SIGSTOP would, for a time: connections stay open, nothing moves.
    pub(crate) fn freeze(&self, time: std::time::Duration) {
        self.runtime()
            .spawn(async move { std::thread::sleep(time) });
    }

    /// The value of one of its metrics; nothing if it was never counted.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("it prints");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok())
    }

    /// Where it keeps everything.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of a blob that is kept.
    pub(crate) fn file(&self, digest: &str) -> PathBuf {
        blob_in(&self.folder, digest)
    }

    /// Waits until a blob is kept.
    pub(crate) async fn kept(&self, digest: &str) {
        eventually(|| self.file(digest).exists()).await;
    }

    pub(crate) async fn get(&self, path: &str) -> Seen {
        self.ask("GET", path, &[]).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Seen {
        Seen::of(self.begin(method, path, headers).await).await
    }

    /// The answer, as soon as its headers are here.
    pub(crate) async fn begin(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        let method = method.parse().expect("it is a method");
        let url = format!("{}{path}", self.url);
        let mut request = self.client.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("the cache answers")
    }
}

/// The sockets of a node that is not running yet.
pub(crate) struct Doors {
    pub(crate) chunks: std::net::TcpListener,
    pub(crate) gossip: std::net::UdpSocket,
}

impl Doors {
    /// Both on one free port of loopback.
    pub(crate) fn new() -> Self {
        Self::at([127, 0, 0, 1].into())
    }

    /// Both on one free port of this address.
    pub(crate) fn at(address: std::net::IpAddr) -> Self {
        loop {
            let chunks = std::net::TcpListener::bind((address, 0)).expect("a port");
            let address = chunks.local_addr().expect("it listens");
            if let Ok(gossip) = std::net::UdpSocket::bind(address) {
                return Self { chunks, gossip };
            }
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gossip.local_addr().expect("it is bound")
    }

    fn open(self) -> Sockets {
        self.chunks.set_nonblocking(true).expect("it is a socket");
        self.gossip.set_nonblocking(true).expect("it is a socket");
        Sockets::of(
            TcpListener::from_std(self.chunks).expect("it is a socket"),
            UdpSocket::from_std(self.gossip).expect("it is a socket"),
        )
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Seen {
    pub(crate) async fn of(mut response: Response) -> Self {
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| {
            let value = value.to_str().expect("it is text");
            (name.to_string(), value.to_owned())
        });
        let (status, headers) = (response.status().as_u16(), headers.collect());
        let mut body = Ok(Vec::new());
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    if let Ok(body) = &mut body {
                        body.extend_from_slice(&bytes);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    body = Err(error.to_string());
                    break;
                }
            }
        }
        Self {
            status,
            headers,
            body,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.body.as_ref().expect("the body is complete")
    }
}

/// Waits until a claim holds, twenty seconds at most.
pub(crate) async fn eventually(claim: impl Fn() -> bool) {
    let limit = std::time::Duration::from_secs(20);
    let waiting = async {
        while !claim() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(limit, waiting)
        .await
        .expect("it came true in time");
}

/// Where a mirror has a blob of `a/b` at `registry.test`.
pub(crate) fn blob(digest: &str) -> String {
    format!("/v2/a/b/blobs/{digest}?ns=registry.test")
}

pub(crate) fn client() -> Client {
    // A second call finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new()
}
