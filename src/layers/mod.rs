//! The layer cache: a read-only registry mirror that takes each blob from upstream once, and passes on only bytes that
//! are verified, while they are still arriving.
//!
//! | folder | what belongs there |
//! |---|---|
//! | [`mirror`] | the door for the runtime: its requests, and who may have what |
//! | [`fetch`] | getting a digest once, from whoever has it |
//! | [`blob`] | one blob, whole or arriving, each of its chunks checked |
//! | [`disk`] | our store, and the runtime's |
//! | [`swarm`] | blobs between nodes: the door for peers, and talking to theirs |
//! | [`members`] | who the nodes are: gossip, proof, homes |
//! | [`upstream`] | the registries |
//! | [`people`] | the door for the command line |
//! | [`wiring`] | the files by which a runtime asks us |
//! | [`image`] | names, digests, manifests, archives |
//!
//! The walk of one `GET`: [`mirror::http`] parses it into an [`Ask`](upstream::flow::Ask) → [`fetch`] finds the one
//! [`Blob`](blob::Blob) of that digest, opening it from [`disk`], or letting [`fetch::fill`] get it: from its home
//! ([`members::homes`]) and the [`Swarm`](swarm::Swarm) around it or, where this node is the home, by a
//! [`Flow`](upstream::flow::Flow) from [`upstream`] → [`mirror::relay`] sends its chunks as they become ready →
//! [`disk::store`] keeps it. [`swarm::seed`] answers the other nodes.

pub mod blob;
pub mod disk;
pub mod fetch;
pub mod image;
pub mod members;
pub mod metrics;
pub mod mirror;
pub mod miss;
pub mod pace;
pub mod people;
pub mod serve;
pub mod settings;
pub mod swarm;
pub mod upstream;
pub mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use prometheus_client::registry::Registry;
use socket2::SockRef;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use self::disk::lease;
use self::disk::runtime::Runtime;
use self::disk::store::Store;
use self::fetch::{Fetches, Sources};
use self::members::trust::Trust;
use self::members::{Member, Members, prove};
use self::metrics::Metrics;
use self::mirror::grants::Grants;
use self::mirror::http::{self, Mirror};
use self::mirror::tags::Tags;
use self::pace::Egress;
use self::people::{admin, import};
use self::serve::AtTheEnd;
use self::settings::Settings;
use self::swarm::peers::Peers;
use self::swarm::{holders, seed};
use self::upstream::Upstream;
use self::upstream::credentials::Credentials;
use self::upstream::token::Tokens;

/// How much of an answer to a peer the kernel takes ahead of what it can send, so that a chunk which was handed over is
/// about to be sent.
const UNSENT: u32 = 64 << 10;

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
        // Whoever is accepted has these, too. News are short, and wait for nothing.
        let socket = SockRef::from(&chunks);
        socket.set_tcp_nodelay(true).with_context(opening)?;
        let unsent = socket.set_tcp_notsent_lowat(UNSENT);
        unsent.with_context(opening)?;
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
    let upstream = Arc::new(registries(&settings, metrics.clone())?);
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
        egress: Egress::of(
            settings.peers_mib_per_second.map(|mib| mib << 20),
            settings.peer_mib_per_second.map(|mib| mib << 20),
        ),
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
    tokio::spawn(lease::keep_once(mirror.fetches.clone(), shutdown.clone()));
    if let Some((trust, doors)) = doors {
        meet(&settings, &mirror, &trust, doors, &shutdown)?;
    }
    // Whoever is served as a client is served as a person, too.
    let socket = settings.cache.join(admin::SOCKET);
    admin::serve(mirror.clone(), &socket, shutdown.clone());
    tracing::info!(listen = %settings.listen, cache = %settings.cache.display(), "serving layers");
    let routes = http::router(mirror);
    self::serve::serve(listener, routes, shutdown, AtTheEnd::Finish).await;
    Ok(())
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
    tokio::spawn(prove::keep_asking_for_keys(peers.clone(), shutdown.clone()));
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
        Ok(proven) => tokio::spawn(serve::serve(proven, routes, shutdown, AtTheEnd::BreakOff)),
        Err(port) => tokio::spawn(serve::serve(port, routes, shutdown, AtTheEnd::BreakOff)),
    };
    Ok(())
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

fn registries(settings: &Settings, metrics: Arc<Metrics>) -> Result<Upstream> {
    let providers = settings.image_credential_provider_config.as_deref();
    let providers = providers.zip(settings.image_credential_provider_bin_dir.clone());
    let credentials = Credentials::read(settings.credentials.as_deref(), providers)?;
    let bases = settings.upstreams.iter().map(|pair| {
        let (name, url) = pair
            .split_once('=')
            .with_context(|| format!("--upstream {pair} is not <name>=<url>"))?;
        Ok((name.to_owned(), url.to_owned()))
    });
    let tokens = Tokens::with(credentials);
    let upstream = Upstream::new(bases.collect::<Result<_>>()?, tokens, metrics);
    let upstream = upstream.context("setting up the client for registries")?;
    let bytes = settings.upstream_mib_per_second.map(|mib| mib << 20);
    Ok(upstream.at_most(settings.upstream_requests_per_second, bytes))
}
