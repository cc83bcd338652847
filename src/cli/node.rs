//! `orlop node`: the whole CSI driver of one node, on one socket.

mod figures;
mod router;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::router::ForRouter;
use super::Log;
use crate::config::{self, Pools};
use crate::csi::endpoint::Endpoint;
use crate::csi::proto::controller_server::ControllerServer;
use crate::csi::proto::identity_server::IdentityServer;
use crate::csi::proto::inspection::inspection_server::InspectionServer;
use crate::csi::proto::inspection::upkeep_server::UpkeepServer;
use crate::csi::proto::node_server::NodeServer;
use crate::csi::socket::Socket;
use crate::csi::{
    self, Controller, Identity, Inspection, Node as NodeService, Upkeep, registration,
};
use crate::driver::Driver;
use crate::host::Host;
use crate::host::gate::Gate;
use crate::host::memory;
use crate::telemetry::http::{self, Readiness, Ready};
use crate::telemetry::metrics::Metrics;
use crate::{pool, shutdown};

/// How long running calls may take to end after SIGTERM: less than the kubelet waits before it kills.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);
/// How often the pools are looked at for `/readyz`.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often a pool that could not be opened is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// Blocking calls at once; as many as the server admits.
const BLOCKING_THREADS: usize = 256;

#[derive(Args, Debug)]
pub(super) struct Node {
    /// The socket to serve on: `unix:///run/orlop/csi.sock`, or a path.
    #[arg(
        long,
        env = "CSI_ENDPOINT",
        default_value = "unix:///run/orlop/csi.sock",
        value_name = "URL"
    )]
    endpoint: Endpoint,

    /// The name of this node in the cluster; the host's name if left out.
    #[arg(long = "node-name", env = "NODE_NAME", value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    pools: PoolsArgs,

    /// Serve /metrics, /healthz and /readyz on this address, such as 127.0.0.1:9099; off if left out.
    #[arg(long, env = "ORLOP_METRICS", value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,

    #[command(flatten)]
    router: ForRouter,

    /// Register with the kubelet that watches this directory, such as `/var/lib/kubelet/plugins_registry`.
    #[arg(long, env = "ORLOP_KUBELET_REGISTRATION", value_name = "DIR")]
    kubelet_registration: Option<PathBuf>,

    #[command(flatten)]
    log: Log,
}

/// Which pools there are.
#[derive(Args, Debug)]
pub(super) struct PoolsArgs {
    /// The pools file; without it one directory pool named `default` is opened below the data directory.
    #[arg(long = "pools", env = "ORLOP_POOLS", value_name = "FILE")]
    pub(super) file: Option<PathBuf>,

    /// Where the pool `default` is when no pools file is given.
    #[arg(
        long,
        env = "ORLOP_DATA",
        default_value = "/var/lib/orlop",
        value_name = "DIR"
    )]
    pub(super) data: PathBuf,
}

impl Node {
    /// A node on a socket for this machine alone, without a router and a kubelet.
    pub(super) fn alone(
        endpoint: Endpoint,
        pools: PoolsArgs,
        metrics: Option<SocketAddr>,
        log: Log,
    ) -> Self {
        Self {
            endpoint,
            name: None,
            pools,
            metrics,
            router: ForRouter::default(),
            kubelet_registration: None,
            log,
        }
    }

    pub(super) fn run(self) -> Result<()> {
        memory::share_one_arena();
        self.log.start()?;
        let runtime = runtime()?;
        let served = runtime.block_on(self.serve());
        // A call that did not end within the drain is safe to be killed in; it must not keep the process.
        runtime.shutdown_timeout(Duration::from_secs(1));
        served
    }

    async fn serve(self) -> Result<()> {
        let shutdown = shutdown::on_signal()?;
        let mut running = JoinSet::new();
        self.start(&mut running, &shutdown).await?;
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!(%error, "systemd was not told that we are ready");
        }
        until_all_ended(running, &shutdown).await
    }

    /// Has all that this node serves run until the token is set; its socket is there then.
    pub(super) async fn start(
        self,
        running: &mut JoinSet<Result<()>>,
        shutdown: &CancellationToken,
    ) -> Result<()> {
        let pools = match &self.pools.file {
            Some(file) => Pools::read(file)?,
            None => Pools::embedded(&self.pools.data)?,
        };
        let host = Host::new(Gate::open());
        let durations = host.tools.durations();
        let (driver, absent) = open(&pools, self.name, host.clone())?;
        let metrics = Metrics::new();
        figures::register(&mut metrics.registry(), &driver, durations);
        let socket = Socket::bind(&self.endpoint)?;
        running.spawn(serve(
            socket,
            &driver,
            Arc::clone(&metrics),
            shutdown.clone(),
        ));
        running.spawn(
            self.router
                .serve(driver.clone(), Arc::clone(&metrics), shutdown.clone()),
        );
        if !absent.is_empty() {
            running.spawn(until_one_opens(absent, host, shutdown.clone()));
        }
        if let Some(address) = self.metrics {
            let port = http::bind(address).await?;
            running.spawn(http::serve(
                port,
                Arc::clone(&metrics),
                readiness(driver, shutdown.clone()),
                shutdown.clone(),
            ));
        }
        if let Some(directory) = self.kubelet_registration {
            let socket = Socket::bind(&registration::endpoint(&directory)?)?;
            let (endpoint, metrics, shutdown) =
                (self.endpoint, Arc::clone(&metrics), shutdown.clone());
            running.spawn(async move {
                registration::serve(socket, &endpoint, metrics, shutdown, DRAIN_LIMIT).await
            });
        }
        Ok(())
    }
}

/// The runtime of a process that serves.
pub(super) fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("starting the runtime")
}

/// Opens the pools of the node of this name, or of the host's; which of them could not be opened. That is an error only if
/// there is no other: a disk that is dead must not keep the volumes of the others from their consumers.
pub(super) fn open(
    pools: &Pools,
    name: Option<String>,
    host: Host,
) -> Result<(Driver, Vec<config::Pool>)> {
    host.mounts.sweep()?;
    let (mut opened, mut absent) = (Vec::new(), Vec::new());
    for config in &pools.pools {
        match pool::open(config, &host) {
            Ok(pool) => opened.push(pool),
            Err(error) if absent.len() + 1 == pools.pools.len() => return Err(error),
            Err(error) => {
                tracing::error!(pool = %config.name, error = format!("{error:#}"), "a pool can not be used, the others are served");
                opened.push(pool::absent(config, &error));
                absent.push(config.clone());
            }
        }
    }
    let driver = Driver::new(name.unwrap_or_else(host_name), opened, host)?;
    Ok((driver, absent))
}

/// Ends with an error, for whoever keeps the process to start it anew, once one of these pools can be opened: what a start
/// looks at, mounts and what was cut off, is looked at whole or not at all.
async fn until_one_opens(
    absent: Vec<config::Pool>,
    host: Host,
    shutdown: CancellationToken,
) -> Result<()> {
    let absent = Arc::new(absent);
    loop {
        tokio::select! {
            () = tokio::time::sleep(TRY_AGAIN) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let (tried, host) = (Arc::clone(&absent), host.clone());
        let opens = move || {
            let opens = |config: &&config::Pool| pool::open(config, &host).is_ok();
            tried.iter().find(opens).map(|config| config.name.clone())
        };
        if let Some(name) = tokio::task::spawn_blocking(opens).await? {
            bail!("pool {name} can be used now: the node must start anew");
        }
    }
}

/// What the host is called.
pub(super) fn host_name() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}

/// Serves a node's CSI until the token is set.
pub(super) fn serve(
    socket: Socket,
    driver: &Driver,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<()>> + Send + use<> {
    let routes = routes_for_router(driver)
        .add_service(NodeServer::new(NodeService::new(driver.clone())))
        .add_service(UpkeepServer::new(Upkeep::new(driver.clone())));
    csi::serve(socket, routes, metrics, shutdown, DRAIN_LIMIT)
}

/// All that is served except what is done on this machine itself.
fn routes_for_router(driver: &Driver) -> Routes {
    Routes::new(IdentityServer::new(Identity::new(driver.clone())))
        .add_service(ControllerServer::new(Controller::new(driver.clone())))
        .add_service(InspectionServer::new(Inspection::new(driver.clone())))
}

/// Waits for all servers; the first that ends, ends the others.
pub(super) async fn until_all_ended(
    mut running: JoinSet<Result<()>>,
    shutdown: &CancellationToken,
) -> Result<()> {
    let mut outcome = Ok(());
    while let Some(ended) = running.join_next().await {
        shutdown.cancel();
        let ended = ended.context("a server stopped in the middle").flatten();
        outcome = outcome.and(ended);
    }
    outcome
}

/// What `/readyz` answers: the last look at the pools.
fn readiness(driver: Driver, shutdown: CancellationToken) -> Ready {
    let ready = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&ready);
    tokio::spawn(async move {
        loop {
            seen.store(driver.is_ready().await, Ordering::Relaxed);
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.cancelled() => break,
            }
        }
    });
    Arc::new(move || {
        if ready.load(Ordering::Relaxed) {
            return Readiness::Ready;
        }
        Readiness::NotReady("no pool can be used: ask NodeGetStorageHealth why".to_owned())
    })
}
