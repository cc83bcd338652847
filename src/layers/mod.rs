//! The layer cache: a read-only registry mirror that takes each blob from upstream once, and passes on only bytes that
//! are verified, while they are still arriving.
//!
//! The walk of one `GET`: `http` parses it into an [`Ask`](flow::Ask) → `fetch` finds the one [`Blob`](blob::Blob) of
//! that digest, opening it from `store` or `runtime`, or letting `fill` get it: from its home (`homes`, `members`) and
//! the [`Swarm`](swarm::Swarm) around it or, where this node is the home, by a [`Flow`](flow::Flow) from `upstream` →
//! `relay` sends its chunks as they become ready → `store` keeps it. `seed` answers the other nodes.

pub mod admin;
pub mod answer;
pub mod archive;
pub mod bitmap;
pub mod blob;
pub mod connect;
pub mod content;
pub mod digest;
pub mod fetch;
pub mod fill;
pub mod flow;
pub mod gossip;
pub mod grants;
pub mod holders;
pub mod homes;
pub mod http;
pub mod import;
pub mod manifest;
pub mod members;
pub mod metrics;
pub mod miss;
pub mod name;
pub mod pace;
pub mod peers;
pub mod prefetch;
pub mod progress;
pub mod prove;
pub mod referrers;
pub mod relay;
pub mod runtime;
pub mod seed;
pub mod store;
pub mod swarm;
pub mod tags;
pub mod token;
pub mod trust;
pub mod upstream;
pub mod wire;
pub mod wiring;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use self::fetch::{Fetches, Sources};
use self::grants::Grants;
use self::http::Mirror;
use self::members::{Member, Members};
use self::metrics::Metrics;
use self::pace::Pace;
use self::peers::Peers;
use self::runtime::Runtime;
use self::store::Store;
use self::tags::Tags;
use self::token::Tokens;
use self::trust::Trust;
use self::upstream::Upstream;

/// How the layer cache of one node is set up.
#[derive(Clone, Debug, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// Where the runtime of this node asks for images.
    #[arg(long, env = "ORLOP_LAYERS_LISTEN", default_value = "127.0.0.1:5052")]
    pub listen: SocketAddr,
    /// Where other nodes reach this one, over TCP and UDP; without it the node is alone.
    #[arg(long, env = "ORLOP_LAYERS_PEER_LISTEN")]
    pub peer_listen: Option<SocketAddr>,
    /// The same address as the others see it, if it is not the one listened on.
    #[arg(long, env = "ORLOP_LAYERS_ADVERTISE")]
    pub advertise: Option<SocketAddr>,
    /// Some of the other nodes: a static list, or the name of a headless service, each with its port.
    #[arg(long = "peer", env = "ORLOP_LAYERS_PEERS", value_delimiter = ',')]
    #[serde(default)]
    pub seeds: Vec<String>,
    /// The folder with `tls.crt`, `tls.key` and `ca.crt`, by which peers prove to be nodes; without it anyone is a peer.
    #[arg(long, env = "ORLOP_LAYERS_CERTIFICATES", value_name = "FOLDER")]
    pub certificates: Option<PathBuf>,
    /// The zone of this node, whose border a blob should cross once.
    #[arg(long, env = "ORLOP_LAYERS_ZONE", default_value = "")]
    pub zone: String,
    /// The folder for blobs and tags.
    #[arg(
        long,
        env = "ORLOP_LAYERS_CACHE",
        default_value = "/var/lib/orlop/layers"
    )]
    pub cache: PathBuf,
    /// The most that the cache takes of the disk, in MiB; 0 keeps nothing.
    #[arg(long, env = "ORLOP_LAYERS_QUOTA_MIB", default_value_t = 20_480)]
    pub quota_mib: u64,
    /// Where a registry is, if not at https and its own name: `NAME=URL`. Can be given several times.
    #[arg(long = "upstream", value_name = "NAME=URL")]
    #[serde(default)]
    pub upstreams: Vec<String>,
    /// Take no more MiB a second from all registries together.
    #[arg(long, env = "ORLOP_LAYERS_UPSTREAM_MIB", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub upstream_mib_per_second: Option<u64>,
    /// Ask all registries together no more often than this in a second.
    #[arg(long, env = "ORLOP_LAYERS_UPSTREAM_REQUESTS", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub upstream_requests_per_second: Option<u64>,
    /// Give no more MiB a second to all peers together; whoever would have to wait long asks another.
    #[arg(long, env = "ORLOP_LAYERS_PEERS_MIB", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub peers_mib_per_second: Option<u64>,
    /// Credentials for registries, in the form of Docker's config.json.
    #[arg(long, env = "ORLOP_LAYERS_CREDENTIALS")]
    pub credentials: Option<PathBuf>,
    /// containerd's content folder, to read blobs from that the runtime of this node keeps already.
    #[arg(long, env = "ORLOP_LAYERS_CONTENT")]
    pub content: Option<PathBuf>,
    /// containerd's socket, to make it forget half-written blobs that are wrong.
    #[arg(long, env = "ORLOP_LAYERS_CONTAINERD")]
    pub containerd: Option<PathBuf>,
    /// The namespace of the runtime's images.
    #[arg(long, default_value = "k8s.io")]
    pub namespace: String,
    /// Whoever reaches the mirror may have what is cached, without showing a right to it.
    #[arg(long, env = "ORLOP_LAYERS_ANYONE")]
    #[serde(default)]
    pub anyone: bool,
    /// For how many seconds a tag is believed before its registry is asked again.
    #[arg(long, default_value_t = 10)]
    pub tag_seconds: u64,
}

/// Runs the layer cache until `shutdown` is cancelled; its metrics are in `registry` when this returns. Requests that are under way then are finished.
///
/// # Errors
/// A setting that makes no sense, a folder that can not be used, an address that is taken.
pub fn run(
    settings: Settings,
    registry: &mut Registry,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<()>> + use<> {
    let metrics = Metrics::new(registry);
    async move {
        let listener = TcpListener::bind(settings.listen)
            .await
            .with_context(|| format!("listening on {}", settings.listen))?;
        let doors = match settings.peer_listen {
            Some(address) => Some(Doors::open(address).await?),
            None => None,
        };
        serve(settings, listener, doors, metrics, shutdown).await
    }
}

/// The sockets for other nodes: TCP for chunks and, on the same port, UDP for gossip.
#[derive(Debug)]
pub struct Doors {
    chunks: TcpListener,
    gossip: UdpSocket,
}

impl Doors {
    /// Opens both.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let opening = || format!("listening for peers on {address}");
        let chunks = TcpListener::bind(address).await.with_context(opening)?;
        let address = chunks.local_addr().with_context(opening)?;
        let gossip = UdpSocket::bind(address).await.with_context(opening)?;
        Ok(Self { chunks, gossip })
    }

    /// From two sockets that are open already.
    pub fn of(chunks: TcpListener, gossip: UdpSocket) -> Self {
        Self { chunks, gossip }
    }

    /// Where they are.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.chunks.local_addr()?)
    }
}

/// [`run`] on sockets that are open already.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    doors: Option<Doors>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Result<()> {
    let upstream = Arc::new(upstream(&settings)?);
    let runtime = Runtime::new(
        settings.content.clone(),
        settings.containerd.clone(),
        &settings.namespace,
    )?;
    tokio::spawn(runtime.clone().keep_clean(shutdown.clone()));
    let doors = match doors {
        Some(doors) => Some((Trust::open(settings.certificates.as_deref())?, doors)),
        None => None,
    };
    let peers = match &doors {
        Some((trust, doors)) => Some(peers(&settings, trust, doors)?),
        None => None,
    };
    let sources = Sources {
        store: Store::open(&settings.cache, settings.quota_mib << 20)?,
        runtime,
        peers,
        upstream,
        egress: Pace::of(settings.peers_mib_per_second.map(|mib| mib << 20)),
    };
    let fetches = Fetches::new(sources, metrics);
    let fresh_for = Duration::from_secs(settings.tag_seconds);
    let tags = Tags::open(settings.cache.join("tags"), fresh_for)?;
    let mirror = Arc::new(Mirror {
        fetches,
        tags,
        grants: Grants::open(settings.cache.join("public"), settings.anyone)?,
    });
    import::pin(&mirror);
    if let Some((trust, doors)) = doors {
        meet(&settings, &mirror, &trust, doors, &shutdown)?;
    }
    let socket = settings.cache.join(admin::SOCKET);
    tokio::spawn(admin::serve(mirror.clone(), socket, shutdown.clone()));
    tracing::info!(listen = %settings.listen, cache = %settings.cache.display(), "serving layers");
    axum::serve(listener, http::router(mirror))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .context("serving layers")
}

/// Takes part in the cluster, in the background.
fn meet(
    settings: &Settings,
    mirror: &Arc<Mirror>,
    trust: &Trust,
    doors: Doors,
    shutdown: &CancellationToken,
) -> Result<()> {
    let fetches = &mirror.fetches;
    let Some(peers) = fetches.peers() else {
        return Ok(());
    };
    tokio::spawn(prove::keep_proving(peers.clone(), shutdown.clone()));
    let members = peers.members.clone();
    tokio::spawn(members.gossip(doors.gossip, settings.seeds.clone(), shutdown.clone()));
    tokio::spawn(holders::announce(
        fetches.clone(),
        peers.clone(),
        shutdown.clone(),
    ));
    tokio::spawn(import::announce(
        mirror.clone(),
        peers.clone(),
        shutdown.clone(),
    ));
    let routes = seed::router(mirror.clone());
    let shutdown = shutdown.clone();
    match trust.listener(doors.chunks)? {
        Ok(proven) => tokio::spawn(serve_peers(proven, routes, shutdown)),
        Err(port) => tokio::spawn(serve_peers(port, routes, shutdown)),
    };
    Ok(())
}

async fn serve_peers<L>(port: L, routes: axum::Router, shutdown: CancellationToken)
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    tokio::select! {
        ended = axum::serve(port, routes) => tracing::error!(?ended, "stopped serving peers"),
        () = shutdown.cancelled() => {}
    }
}

fn peers(settings: &Settings, trust: &Trust, doors: &Doors) -> Result<Arc<Peers>> {
    let address = settings.advertise.map_or_else(|| doors.address(), Ok)?;
    anyhow::ensure!(
        !address.ip().is_unspecified(),
        "{address} is no address that others could reach: say one with --advertise"
    );
    let members = Members::alone(Member::new(address, settings.zone.clone()));
    let peers = Peers::new(members, trust).context("setting up the client for peers")?;
    Ok(Arc::new(peers))
}

fn upstream(settings: &Settings) -> Result<Upstream> {
    let tokens = settings.credentials.as_deref().map(Tokens::read);
    let bases = settings.upstreams.iter().map(|pair| {
        let (name, url) = pair
            .split_once('=')
            .with_context(|| format!("--upstream {pair} is not <name>=<url>"))?;
        Ok((name.to_owned(), url.to_owned()))
    });
    let tokens = tokens.transpose()?.unwrap_or_default();
    let upstream = Upstream::new(bases.collect::<Result<_>>()?, tokens);
    let upstream = upstream.context("setting up the client for registries")?;
    let bytes = settings.upstream_mib_per_second.map(|mib| mib << 20);
    Ok(upstream.at_most(settings.upstream_requests_per_second, bytes))
}
